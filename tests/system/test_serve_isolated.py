"""Models that are code under the real server: what their code does costs the request at fault, and no other model notices."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isolated import package, poison
from modelyard.types import Placement
from serving import Answer, Home, Running, children, line_row, running

pytestmark = pytest.mark.system
ROW = [0.25, 0.25, 0.25, 0.25]
FAULTY = ("Crasher", "Hanger", "Eater", "Leaker", "Slow")


def tensor(*rows: list[float]) -> list[dict[str, object]]:
    return [{"name": "X", "shape": [len(rows), 4], "datatype": "FP32", "data": [value for row in rows for value in row]}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("isolated") / "home")
    home.deploy("line", {home.add("line"): 100})
    for model in FAULTY:
        bundle = package(home.folder, model)
        version = home.registry.resolve(bundle.name)
        home.placements[bundle.digest] = Placement(blobs=str(home.registry.blobs.folder), index=version.index)
        home.deploy(bundle.name, {(bundle.digest, version.version): 100})
    return home


@pytest.fixture
def server(home: Home) -> Iterator[Running]:
    with running(home, workers=1, settings={"isolated_memory_bytes": 600 << 20}) as found:
        yield found
        assert found.is_well()


def ask(server: Running, model: str, *rows: list[float], timeout_s: float | None = None) -> Answer:
    headers = {} if timeout_s is None else {"X-Request-Timeout": str(timeout_s)}
    return server.ask("POST", f"/v2/models/{model}/infer", {"inputs": tensor(*(rows or (ROW,)))}, headers=headers)


def until(is_so: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


def is_well(server: Running) -> bool:
    try:
        return server.is_well()
    except OSError:  # a connection that was waiting at the worker that is gone
        return False


def prediction(answer: Answer) -> float:
    assert answer.status == 200, answer
    return float(answer.json()["outputs"][0]["data"][0])


class Others:
    """Asks another model all the while; every answer must be right."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._stop = threading.Event()
        self.answers: list[int] = []
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._stop.is_set():
            answer = self._server.infer("line", line_row())
            self.answers.append(answer.status if answer.json()["outputs"][0]["data"] == [321.0] else -1)

    def __enter__(self) -> Others:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert len(self.answers) > 3 and set(self.answers) == {200}


def test_a_segmentation_fault_costs_its_caller_and_the_same_input_ends_two_processes_at_most(server: Running) -> None:
    with Others(server):
        statuses = [ask(server, "crasher", poison()).status for _ in range(4)]
        assert statuses == [500, 500, 422, 422]
        assert prediction(ask(server, "crasher")) == 1.0
    until(
        lambda: (
            'modelyard_isolated_ends_total{model_name="crasher",model_version="1",reason="crash"} 2' in server.ask("GET", "/metrics").body.decode()
        )
    )
    assert 'modelyard_isolated_resident_bytes{model_name="crasher"' in server.ask("GET", "/metrics").body.decode()
    ended = [json.loads(line) for line in server.log.read_text().splitlines() if "isolated_ended" in line]
    assert [line["reason"] for line in ended] == ["crash", "crash"] and ended[0]["message"] == "SIGSEGV"


def test_of_all_workers_the_same_input_ends_two_processes_at_most(home: Home) -> None:
    with running(home, workers=2) as server:
        statuses = [ask(server, "crasher", poison()).status for _ in range(16)]  # each on a connection of its own, at either worker
        assert statuses == [500, 500, *[422] * 14]
        assert prediction(ask(server, "crasher")) == 1.0


def test_a_caller_in_a_hurry_costs_nobody_the_process(server: Running) -> None:
    slow = [1.3, 0, 0, 0]
    statuses = [ask(server, "slow", slow, timeout_s=0.05).status for _ in range(3)]
    assert statuses[0] == 504 and set(statuses) <= {429, 504}
    assert prediction(ask(server, "slow", slow)) == pytest.approx(1.3)
    assert "isolated_ended" not in server.log.read_text()
    assert server.ask("GET", "/v2/models/slow").json()["platform"] == "python"
    assert server.ask("GET", "/v2/models/line").json()["platform"] == "onnxruntime_onnx"


def test_a_hang_is_504_at_its_deadline_and_the_next_is_answered(server: Running) -> None:
    with Others(server):
        answer = ask(server, "hanger", poison(), timeout_s=1.0)
        assert answer.status == 504
        assert prediction(ask(server, "hanger")) == 1.0


def test_memory_that_runs_out_ends_that_process_alone_and_is_called_so(server: Running) -> None:
    workers = server.workers()
    with Others(server):
        answer = ask(server, "eater", poison())
        assert answer.status == 500 and "memory" in answer.json()["error"]
        assert prediction(ask(server, "eater")) == 1.0
    assert server.workers() == workers
    until(lambda: '"reason": "oom"' in server.log.read_text())


def test_five_ends_within_a_minute_make_the_version_degraded_and_say_so(server: Running) -> None:
    for number in range(5):
        ask(server, "crasher", [666.0, float(number), 0.0, 0.0])

    def said() -> bool:
        state = json.loads((server.home.run / "worker-0.json").read_bytes())
        return any((model.get("verdict") or {}).get("rule") == "isolated-crashes" for model in state["models"].values())

    until(said)
    until(lambda: 'modelyard_degraded{reason="unsteady"} 1' in server.ask("GET", "/metrics").body.decode())
    assert server.is_well() and server.infer("line", line_row()).status == 200


def test_nothing_of_the_processes_is_left_when_the_server_ends(home: Home, tmp_path: Path) -> None:
    with running(home, workers=1) as server:
        (worker,) = server.workers()
        isolated = children(worker)
        assert len(isolated) == len(FAULTY)
        assert len(list(Path(tempfile.gettempdir()).glob(f"modelyard-isolated-{worker}-*"))) == len(FAULTY)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in isolated))
    assert not list(Path(tempfile.gettempdir()).glob(f"modelyard-isolated-{worker}-*"))


def test_a_killed_worker_takes_its_processes_with_it(home: Home) -> None:
    with running(home, workers=1) as server:
        (worker,) = server.workers()
        isolated = children(worker)
        os.kill(worker, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in isolated))
        until(lambda: server.workers() not in ([], [worker]))
        until(lambda: is_well(server))
        assert prediction(ask(server, "crasher")) == 1.0
