"""runtime.isolated.pool: the Runtime port over processes, asked from threads; what an end costs, and what is said of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from modelyard.bundle.lock import Lock, take
from modelyard.errors import ModelFailed, Rejected, Unavailable
from modelyard.runtime.isolated import Isolated, Isolation
from modelyard.runtime.isolated.pool import CRASHES, Code, require
from modelyard.runtime.isolated.process import Ended, Raised
from modelyard.types import Schema, TensorSpec

MODELS = Path(__file__).parents[3] / "support" / "isolated_models"
SCHEMA = Schema(
    inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="prediction", datatype="FP32", shape=(-1,)),),
    layout="array",
    task="regression",
)
X = {"X": np.arange(28, dtype=np.float32).reshape(7, 4)}
POISON = {"X": np.array([[666, 0, 0, 0]], np.float32)}
TOTAL = "inputs['X'].sum(axis=1)"
Open = Callable[..., Isolated]


@pytest.fixture
def opened() -> Iterator[Open]:
    made: list[Isolated] = []

    def make(model: str, *, source: str | None = None, schema: Schema | None = SCHEMA, rows: int | None = None, **isolation: object) -> Isolated:
        code = Code(kind="python", entry=f"faulty:{model}", max_batch_rows=rows)
        data = (MODELS / "faulty.py").read_bytes() if source is None else source.encode()
        parts = {"code/faulty.py": data, "files/w.json": b"[1]"} if source else {"code/faulty.py": data}
        made.append(Isolated(code, parts, schema, Isolation(**isolation)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()


def test_it_answers_and_is_shut_in(opened: Open) -> None:
    runtime = opened("Plain")
    np.testing.assert_allclose(runtime.predict(X)["prediction"], X["X"].sum(axis=1))
    assert runtime.facts["network"] and runtime.facts["files"]
    assert runtime.resident_bytes() > 1 << 20
    assert [taken > 0 for taken in runtime.cpu_us().values()] == [True]
    assert runtime.verdict is None and runtime.watch() == []


@pytest.mark.parametrize(("model", "reason"), [("Crasher", "crash"), ("Exiter", "exit"), ("Hanger", "hang"), ("Eater", "oom")])
def test_an_end_costs_its_question_and_another_process_answers_the_next(opened: Open, model: str, reason: str) -> None:
    runtime = opened(model, answer_timeout_s=2.0 if reason == "hang" else 60.0, memory_bytes=512 << 20)
    with pytest.raises(ModelFailed) as caught:
        runtime.predict(POISON)
    assert isinstance(caught.value.__cause__, Ended) and caught.value.__cause__.reason == reason
    np.testing.assert_allclose(runtime.predict(X)["prediction"], X["X"].sum(axis=1))


def test_what_the_code_raises_is_its_failure_and_the_process_stays(opened: Open) -> None:
    runtime = opened("Raiser")
    pid = runtime._processes[0].pid
    with pytest.raises(ModelFailed) as caught:
        runtime.predict(POISON)
    assert isinstance(caught.value.__cause__, Raised) and caught.value.__cause__.kind == "ValueError"
    assert "canary" not in caught.value.message
    assert runtime.predict(X) and runtime._processes[0].pid == pid


def test_large_batches_go_in_parts_where_the_model_says_so(opened: Open) -> None:
    source = f"class M:\n    def load(self, f): pass\n    def predict(self, inputs):\n        assert len(inputs['X']) <= 2\n        return {TOTAL}"
    np.testing.assert_allclose(opened("M", source=source, rows=2).predict(X)["prediction"], X["X"].sum(axis=1))


@pytest.mark.parametrize(
    "body",
    [
        "return inputs['X'].sum(axis=1).astype('f8')", "return inputs['X']", "return {'other': inputs['X'].sum(axis=1)}",
        "return {'prediction': inputs['X'].sum(axis=1), 'more': inputs['X']}", "return inputs['X'].sum(axis=1)[1:]", "return None", "return 1.5",
        "return {}", "return inputs['X'].sum(axis=1) + 1j",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_the_schemas_is_the_models_failure(opened: Open, body: str) -> None:
    runtime = opened("M", source=f"class M:\n    def load(self, files): pass\n    def predict(self, inputs):\n        {body}\n")
    with pytest.raises(ModelFailed):
        runtime.predict(X)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise KeyError('no such word')", "no such word"), ("import nowhere_to_be_found", "nowhere_to_be_found"), ("M = 3", "neither"),
        ("class M:\n    def load(self, files): pass", "predict"), ("class M:\n    def predict(self, inputs): pass", "load"), ("x = 1", "no M"),
        ("def M(inputs): pass", "files"), ("class M:\n    classes = {1: 2}\n    def load(self, f): pass\n    def predict(self, i): pass", "classes"),
        ("import sys; sys.exit(0)", "SystemExit"), ("class M:\n    def __init__(self, a): pass", "argument"),
    ],
)  # fmt: skip
def test_code_that_does_not_keep_the_contract_does_not_load_and_its_author_learns_why(opened: Open, source: str, says: str) -> None:
    with pytest.raises(ModelFailed) as caught:
        opened("M", source=source)
    assert says in str(caught.value.__cause__)


def test_a_model_that_never_loads_is_given_up(opened: Open) -> None:
    with pytest.raises(ModelFailed):
        opened("M", source="import time; time.sleep(60)", start_timeout_s=1.0)


def test_files_come_by_name_with_and_without_the_ending(opened: Open) -> None:
    loaded = "json.loads(files['w'])[0] + json.loads(files['w.json'])[0] + (list(files) != ['w.json'])"
    source = f"import json\nclass M:\n    def load(self, files): self.w = {loaded}\n    def predict(self, inputs): return {TOTAL} * self.w"
    runtime = opened("M", source=source)
    np.testing.assert_allclose(runtime.predict(X)["prediction"], 2 * X["X"].sum(axis=1))


def test_five_ends_within_a_minute_are_said(opened: Open) -> None:
    runtime = opened("Plain")
    for number in range(CRASHES):
        assert runtime.verdict is None
        pause_s = runtime._record(Ended("crash", "SIGSEGV"), True)
        assert (pause_s == 0) == (number < 2)
    assert runtime.verdict is not None and runtime.verdict.outcome == "fail" and runtime.verdict.rule == "isolated-crashes"
    assert [ended.reason for ended in runtime.watch()] == ["crash"] * CRASHES and runtime.watch() == []
    runtime.pardon()
    assert runtime.verdict is None and runtime._record(Ended("crash", "SIGSEGV"), True) == 0


def test_it_submits_only_once_it_belongs_to_a_loop(opened: Open) -> None:
    with pytest.raises(Unavailable, match="event loop"):
        opened("Plain").submit(X, lambda *_: None, deadline_s=0.0)


def test_a_thread_is_told_at_once_that_no_process_will_be_there(opened: Open) -> None:
    runtime = opened("Plain", answer_timeout_s=60.0)

    async def run() -> None:
        runtime.attach()
        seats = runtime._seats
        assert seats is not None
        for seat in seats.seats:
            seat.close()
            seat.is_ready, seat.closed_until_s = False, monotonic() + 60
        with pytest.raises(Unavailable, match="started again after a pause"):
            await asyncio.wait_for(asyncio.to_thread(runtime.predict, X), 20)

    asyncio.run(run())


def test_several_threads_may_ask_and_a_closed_runtime_answers_nobody(opened: Open) -> None:
    runtime = opened("Plain")
    found: list[bool] = []

    def ask() -> None:
        found.extend(bool(np.allclose(runtime.predict(X)["prediction"], X["X"].sum(axis=1))) for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 150
    runtime.close()
    with pytest.raises(ModelFailed):
        runtime.predict(X)


def test_libraries_of_another_major_version_or_absent_are_refused() -> None:
    here = take(["numpy"])
    require(here)
    require(Lock(python="3.11.0", packages={"numpy": here.packages["numpy"].partition(".")[0] + ".0.1"}))
    for packages in ({"numpy": "1.26.4"}, {"no-such-distribution": "1.0"}):
        with pytest.raises(Rejected, match="major") as caught:
            require(Lock(python="3.11.0", packages=packages))
        assert caught.value.verdicts[0].rule == "lock"
