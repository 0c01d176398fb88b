"""Explanations beside predictions: bounded, on a thread of their own, and never answered twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard.errors import DeadlineExceeded, ModelFailed, ModelyardError, Overloaded, PayloadTooLarge, SchemaMismatch
from modelyard.protocols.v1_explain import V1Explain
from modelyard.serve import explaining
from modelyard.serve.explaining import ROWS, WAITING, Explaining
from modelyard.types import InferenceRequest
from serving import LINE, golden


class Exchange:
    def __init__(self, rows: int = 1, *, left_s: float = 20.0, **changes: Any) -> None:
        inputs = {"a": np.ones((rows, 1)), "b": np.ones((rows, 1), np.int64), "c": np.ones((rows, 1), np.float32)}
        self.request = InferenceRequest({**inputs, **changes}, rows)
        self.codec = V1Explain("m", LINE)
        self.received_s = monotonic()
        self.deadline_s = self.received_s + left_s
        self.is_open = True
        self.said: list[Any] = []

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        self.said.append((status, body))
        self.is_open = False


class Model:
    """A runtime that adds its inputs, behind a gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()
        self.error: Exception | None = None

    def predict(self, inputs: Any) -> dict[str, np.ndarray]:
        self.threads.add(threading.current_thread().name)
        self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return {"prediction": (inputs["a"] + inputs["b"] + inputs["c"])[:, 0]}


def version(model: Model) -> Any:
    bundle = SimpleNamespace(strict_schema=LINE, golden=SimpleNamespace(inputs=golden("line")))
    loaded = SimpleNamespace(bundle=bundle, runtime=model, seconds_per_row=1e-6)
    meter = SimpleNamespace(seen=[])
    meter.explained = meter.seen.append
    return SimpleNamespace(name="m", number=1, digest="d", schema=LINE, loaded=loaded, explanations=0, batch_rows=64, meter=meter)


def run(test: Callable[[Explaining, list[ModelyardError]], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        failures: list[ModelyardError] = []

        def failed(exchange: Any, error: ModelyardError) -> None:
            failures.append(error)
            exchange.is_open = False

        made = Explaining(on_failed=failed)
        await test(made, failures)
        made.close()

    asyncio.run(all_of_it())


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(2000):
        if is_so():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to be")


def test_an_explanation_is_made_on_its_own_thread_and_counted() -> None:
    async def test(made: Explaining, failures: list[ModelyardError]) -> None:
        model, exchange = Model(), Exchange()
        asked = version(model)
        made.ask(exchange, asked)  # type: ignore[arg-type]
        assert asked.explanations == 1
        await until(lambda: bool(exchange.said))
        ((status, body),) = exchange.said
        assert status == 200 and b'"explanations":[{' in body and not failures
        assert {name.partition("_")[0] for name in model.threads} == {"explain"}
        assert asked.explanations == 0 and len(asked.meter.seen) == 1

    run(test)


def test_what_is_too_much_or_does_not_fit_is_refused_at_once() -> None:
    async def test(made: Explaining, failures: list[ModelyardError]) -> None:
        model = Model()
        with pytest.raises(PayloadTooLarge):
            made.ask(Exchange(ROWS + 1), version(model))  # type: ignore[arg-type]
        with pytest.raises(SchemaMismatch):
            made.ask(Exchange(a=np.full((1, 1), np.nan)), version(model))  # type: ignore[arg-type]
        model.gate.clear()
        waiting = [Exchange() for _ in range(WAITING)]
        for exchange in waiting:
            made.ask(exchange, version(model))  # type: ignore[arg-type]
        with pytest.raises(Overloaded):
            made.ask(Exchange(), version(model))  # type: ignore[arg-type]
        model.gate.set()
        await until(lambda: all(exchange.said for exchange in waiting))
        made.ask(last := Exchange(), version(model))  # type: ignore[arg-type]
        await until(lambda: bool(last.said))
        assert not failures

    run(test)


def test_the_deadline_is_kept_while_the_model_runs_and_the_late_answer_is_nobodys() -> None:
    async def test(made: Explaining, failures: list[ModelyardError]) -> None:
        model, exchange = Model(), Exchange(left_s=0.05)
        model.gate.clear()
        asked = version(model)
        made.ask(exchange, asked)  # type: ignore[arg-type]
        await until(lambda: bool(failures))
        assert type(failures[0]) is DeadlineExceeded and not exchange.said
        model.gate.set()
        await until(lambda: asked.explanations == 0)
        assert not exchange.said and len(failures) == 1 and not asked.meter.seen

    run(test)


def test_a_caller_who_leaves_stops_the_work() -> None:
    async def test(made: Explaining, failures: list[ModelyardError]) -> None:
        model, exchange = Model(), Exchange()
        model.gate.clear()
        asked = version(model)
        made.ask(exchange, asked)  # type: ignore[arg-type]
        exchange.is_open = False
        model.gate.set()
        await until(lambda: asked.explanations == 0)
        assert not exchange.said and not failures

    run(test)


def test_a_model_that_fails_fails_the_explanation_alone() -> None:
    async def test(made: Explaining, failures: list[ModelyardError]) -> None:
        model = Model()
        model.error = ValueError("canary4711")
        made.ask(Exchange(), version(model))  # type: ignore[arg-type]
        await until(lambda: bool(failures))
        assert type(failures[0]) is ModelFailed and "canary" not in failures[0].message and failures[0].__cause__ is model.error

    run(test)


def test_bounds_are_small_beside_what_a_worker_does() -> None:
    assert explaining.EVALUATIONS <= 200_000 and explaining.TIME_SHARE < 1
