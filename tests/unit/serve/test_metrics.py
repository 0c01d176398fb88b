from __future__ import annotations

from pathlib import Path

from modelyard.serve.exposition import render
from modelyard.serve.metrics import ENCODE, EXPLAIN, GROWTH, LATENCIES_S, LATENCY, PREDICT, PREPARE, QUEUE, Meter, Metrics, read


def samples(text: bytes) -> dict[str, float]:
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))}


def count(meter: Meter, latencies_s: list[float], rows: int, predict_s: float, prepare_s: float = 0.00001) -> None:
    meter.answered(latencies_s, rows, predict_s=predict_s, prepare_s=prepare_s, encode_s=0.00002)


LABEL = '{model_name="m",model_version="1"}'


def test_slots_are_summed_and_a_successor_goes_on(tmp_path: Path) -> None:
    first, second = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
    count(first.meter("m", 1), [0.003, 0.001], 5, 0.0001, 0.00001)
    count(second.meter("m", 1), [0.2], 1, 0.1, 0.00001)
    first.meter("m", 1).failed("schema_mismatch")
    first.meter("m", 1).gauge(queue_rows=7)
    first.server.failed("not_found")
    del first  # killed: nothing is closed
    successor = Metrics(tmp_path, 0)
    count(successor.meter("m", 1), [0.003], 2, 0.0001, 0.00001)
    said = samples(render(successor.sums([0, 1, 2])))
    assert said[f"modelyard_requests_total{LABEL}"] == 4
    assert said[f"modelyard_predictions_total{LABEL}"] == 8
    assert said[f"modelyard_queue_rows{LABEL}"] == 0  # of one that is gone
    assert said['modelyard_errors_total{model_name="m",model_version="1",code="schema_mismatch"}'] == 1
    assert said['modelyard_errors_total{model_name="",model_version="",code="not_found"}'] == 1
    assert said['modelyard_request_duration_seconds_bucket{model_name="m",model_version="1",le="0.005"}'] == 3
    assert said['modelyard_request_duration_seconds_bucket{model_name="m",model_version="1",le="+Inf"}'] == 4
    assert said[f"modelyard_request_duration_seconds_count{LABEL}"] == 4
    assert abs(said[f"modelyard_request_duration_seconds_sum{LABEL}"] - 0.207) < 1e-9
    assert said[f"modelyard_batch_rows_sum{LABEL}"] == 8


def test_buckets_do_not_fall(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    for latency_s in (0.0001, *LATENCIES_S, 99.0):
        count(metrics.meter("m", 1), [latency_s], 1, latency_s, latency_s)
    counts = [value for name, value in samples(render(metrics.sums([0]))).items() if name.startswith("modelyard_request_duration_seconds_bucket")]
    assert counts == sorted(counts)
    assert counts[-1] == len(LATENCIES_S) + 2


def test_requests_that_did_not_run_in_order_of_arrival_are_counted_each_by_its_own_time(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    count(metrics.meter("m", 1), [0.001, 0.3, 0.001], 3, 0.0001)  # the one in the middle had a lower priority, and waited
    said = samples(render(metrics.sums([0])))
    assert said['modelyard_request_duration_seconds_bucket{model_name="m",model_version="1",le="0.1"}'] == 2


def test_more_versions_than_the_file_had_room_for(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    for number in range(GROWTH * 2):
        metrics.meter("m", number).failed("other-worldly")
    first = metrics.meter("m", 0)
    first.failed("overloaded")
    assert len(list(read(tmp_path, 0))) == GROWTH * 2 + 1
    said = samples(render(metrics.sums([0])))
    assert said['modelyard_shed_total{model_name="m",model_version="0"}'] == 1
    assert said['modelyard_errors_total{model_name="m",model_version="127",code="other"}'] == 1


def test_a_slot_that_never_counted_has_nothing(tmp_path: Path) -> None:
    assert list(read(tmp_path, 5)) == []


def test_the_stages_of_a_request_are_its_duration(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    count(metrics.meter("m", 1), [0.010, 0.006], 2, 0.002, 0.001)
    metrics.meter("m", 1).explained(0.25)
    numbers = metrics.sums([0])["m", 1]
    total, parts = numbers[LATENCY + len(LATENCIES_S) + 1], [numbers[at + len(LATENCIES_S) + 1] for at in (PREPARE, QUEUE, PREDICT, ENCODE)]
    assert abs(total - 0.016) < 1e-12
    # Two answers are written one after the other, and the later one waits for the earlier: 2 x 20 us each.
    assert abs(sum(parts) - total) < 2 * 0.00002 + 1e-12 and min(parts) > 0
    assert numbers[EXPLAIN + len(LATENCIES_S) + 1] == 0.25


def test_connections_are_summed_over_workers_and_go_on_behind_a_successor(tmp_path: Path) -> None:
    first, second = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
    first.server.connected(http=(2, 5), grpc=(0, 0))
    first.server.connected(http=(1, 6), grpc=(1, 1))
    second.server.connected(http=(3, 3), grpc=(0, 2))
    del first  # killed: what it had open is gone, what it had accepted is not
    successor = Metrics(tmp_path, 0)
    successor.server.connected(http=(1, 1), grpc=(0, 0))
    said = samples(render(successor.sums([0, 1])))
    assert (said['modelyard_connections{protocol="http"}'], said['modelyard_connections{protocol="grpc"}']) == (4, 0)
    assert said['modelyard_connections_accepted_total{protocol="http"}'] == 10
    assert said['modelyard_connections_accepted_total{protocol="grpc"}'] == 3
