"""The text that Prometheus reads: our names, and those of each dialect, from the same numbers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.config import DIALECTS
from modelyard.serve import exposition
from modelyard.serve.exposition import TF_STATUS, render
from modelyard.serve.metrics import CODES, Metrics

SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(\{(.*)\})? (\S+)")


@pytest.fixture
def sums(tmp_path: Path) -> exposition.Sums:
    """Two workers, two models, one of them in two versions."""
    workers = [Metrics(tmp_path, slot) for slot in (0, 1)]
    for worker in workers:
        for name, version in (("iris", 1), ("iris", 2), ("shop", 7)):
            worker.meter(name, version).answered([0.010, 0.006], 5, predict_s=0.002, prepare_s=0.001, encode_s=0.0005)
            worker.meter(name, version).gauge(queue_rows=4, queue_requests=3)
        worker.server.gauge(in_progress=2, resident_bytes=1000)
        for code in ("overloaded", "deadline_exceeded", "model_failed", "schema_mismatch"):
            worker.meter("iris", 1).failed(code)
        worker.server.failed("not_found")
        worker.meter("iris", 2).explained(0.3)
        worker.meter("iris", 2).mirrored(sent=5, shed=2, failed=1, rows=9, disagreed=4)
    return workers[0].sums([0, 1])


def samples(sums: exposition.Sums, dialect: str = "none") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for line in render(sums, dialect=dialect).decode().splitlines():
        if not line.startswith("#"):
            name, _, labels, number = SAMPLE.fullmatch(line).groups()  # type: ignore[union-attr]
            found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels or ""))] = float(number)
    return found


def value(sums: exposition.Sums, dialect: str, name: str, **labels: str) -> float:
    return samples(sums, dialect)[name, frozenset(labels.items())]


def test_our_names_are_there_in_every_dialect(sums: exposition.Sums) -> None:
    ours = samples(sums)
    assert all(name.startswith("modelyard_") for name, _ in ours)
    for dialect in DIALECTS[1:]:
        said = samples(sums, dialect)
        assert ours.items() <= said.items() and len(said) > len(ours)


def test_ours_are_sums_over_workers(sums: exposition.Sums) -> None:
    iris = {"model_name": "iris", "model_version": "1"}
    assert value(sums, "none", "modelyard_requests_total", **iris) == 4
    assert value(sums, "none", "modelyard_predictions_total", **iris) == 10
    assert value(sums, "none", "modelyard_queue_requests", **iris) == 6
    assert value(sums, "none", "modelyard_shed_total", **iris) == 2
    assert value(sums, "none", "modelyard_in_flight_requests") == 4
    assert value(sums, "none", "modelyard_stage_duration_seconds_count", **iris, stage="queue") == 4
    assert value(sums, "none", "modelyard_stage_duration_seconds_sum", **iris, stage="predict") == pytest.approx(0.008)
    assert value(sums, "none", "modelyard_explain_duration_seconds_sum", model_name="iris", model_version="2") == pytest.approx(0.6)


def test_kserve_names_models_without_versions(sums: exposition.Sums) -> None:
    for stage in ("preprocess", "predict", "postprocess"):
        assert value(sums, "kserve", f"request_{stage}_seconds_count", model_name="iris") == 8
    assert value(sums, "kserve", "request_explain_seconds_count", model_name="iris") == 2
    assert not any(name.startswith("request_explain") and ("model_name", "shop") in labels for name, labels in samples(sums, "kserve"))


def test_mlserver_is_read_by_either_pair_of_labels(sums: exposition.Sums) -> None:
    both = {"model": "iris", "version": "1", "model_name": "iris", "model_version": "1"}
    assert value(sums, "mlserver", "model_infer_request_success_total", **both) == 4
    assert value(sums, "mlserver", "model_infer_request_failure_total", **both) == 8
    assert value(sums, "mlserver", "model_infer_request_duration_sum", **both) == pytest.approx(0.032)
    assert value(sums, "mlserver", "rest_server_requests_in_progress") == 4


def test_triton_counts_in_microseconds_and_gives_reasons(sums: exposition.Sums) -> None:
    iris = {"model": "iris", "version": "1"}
    assert value(sums, "triton", "nv_inference_request_success", **iris) == 4
    assert value(sums, "triton", "nv_inference_count", **iris) / value(sums, "triton", "nv_inference_exec_count", **iris) == 5
    reasons = {
        reason: value(sums, "triton", "nv_inference_request_failure", **iris, reason=reason)
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }
    assert reasons == {"REJECTED": 4, "CANCELED": 0, "BACKEND": 2, "OTHER": 2}
    assert value(sums, "triton", "nv_inference_pending_request_count", **iris) == 6
    parts = [
        value(sums, "triton", f"nv_inference_{part}_duration_us", **iris) for part in ("queue", "compute_input", "compute_infer", "compute_output")
    ]
    assert value(sums, "triton", "nv_inference_request_duration_us", **iris) == 32_000
    assert sum(parts) == pytest.approx(32_000, abs=2_000) and parts[2] == 8_000


def test_tensorflow_serving_has_statuses_and_microseconds(sums: exposition.Sums) -> None:
    prefix = ":tensorflow:serving:"
    assert value(sums, "tfserving", f"{prefix}request_count", model_name="iris", status="OK") == 8
    assert value(sums, "tfserving", f"{prefix}request_count", model_name="iris", status="INVALID_ARGUMENT") == 2
    assert value(sums, "tfserving", f"{prefix}request_example_count_total", model="iris") == 20
    assert value(sums, "tfserving", f"{prefix}request_latency_sum", model_name="iris", API="predict", status="OK") == pytest.approx(64_000)
    assert value(sums, "tfserving", f"{prefix}request_latency_bucket", model_name="iris", API="predict", status="OK", le="10000") == 8
    assert value(sums, "tfserving", f"{prefix}batching_session:queuing_latency_count", model_name="iris") == 8


def test_every_code_has_a_status() -> None:
    assert set(CODES) <= set(TF_STATUS)
    assert set(exposition.DIALECTS) == set(DIALECTS) - {"none"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_promtool_finds_no_fault_but_in_the_names_of_others(sums: exposition.Sums, dialect: str, component: Callable[[str], str]) -> None:
    done = subprocess.run([component("promtool"), "check", "metrics"], input=render(sums, dialect=dialect), capture_output=True, check=False)
    faults = (done.stdout + done.stderr).decode().splitlines()
    foreign = {"triton": "nv_", "tfserving": ":tensorflow:"}.get(dialect)
    assert done.returncode == (3 if foreign else 0), faults
    assert all(foreign is not None and line.startswith(foreign) for line in faults), faults


def test_promtool_does_find_faults(component: Callable[[str], str]) -> None:
    """The control of the test above."""
    wrong = b"# TYPE modelyard_x counter\nmodelyard_x 1\n"
    assert subprocess.run([component("promtool"), "check", "metrics"], input=wrong, capture_output=True, check=False).returncode == 3


def test_mirrored_requests_are_told_by_what_became_of_them(sums: exposition.Sums) -> None:
    found = samples(sums)

    def told(name: str) -> dict[str, float]:
        return {dict(labels)["outcome"]: value for (family, labels), value in found.items() if family == name}

    assert told("modelyard_mirrored_requests_total") == {"answered": 8, "failed": 2, "shed": 4}
    assert told("modelyard_mirrored_rows_total") == {"agreed": 10, "disagreed": 8}
    assert {dict(labels)["model_version"] for (family, labels) in found if "mirrored" in family} == {"2"}, "of others there is nothing to tell"
