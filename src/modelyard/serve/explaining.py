"""Answers `:explain`: runs an explainer beside the predictions, one at a time, within bounds.

Hides the thread on which explanations are made, how many may wait, and how much each may cost. It must not take a thread from the predictions:
explanations have one of their own, which holds the interpreter for short pieces only. They count apart from predictions and leave no observation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import DeadlineExceeded, ModelFailed, ModelyardError, Overloaded, PayloadTooLarge
from modelyard.explain.base import Wanted
from modelyard.explain.predictions import Predictions
from modelyard.runtime.validate import Checker
from modelyard.types import Explanation, InferenceResponse

if TYPE_CHECKING:
    from modelyard.serve.dataplane import Version
    from modelyard.serve.server import Exchange
    from modelyard.serve.tracing import Tracer
    from modelyard.types import Array

ROWS = 16
"""Rows of one request."""

EVALUATIONS = 200_000
"""Rows that the model is asked for one request at most."""

WAITING = 4
"""Explanations that wait or run at once; a further one is refused."""

TIME_SHARE = 0.8
"""Of the time that is left, what sampling may take: the answer has to be made as well."""

Failed = Callable[["Exchange", ModelyardError], None]


class Explaining:
    """The explanations of one worker. Lives in the event loop, but for the explainer's own work."""

    def __init__(self, *, on_failed: Failed, tracer: Tracer | None = None) -> None:
        self._on_failed = on_failed
        self._tracer = tracer
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._waiting = 0

    def ask(self, exchange: Exchange, version: Version) -> None:
        """Explain the answers of `version` to the request that `exchange` holds. Raises PayloadTooLarge, SchemaMismatch or Overloaded."""
        request = exchange.request
        if request.rows > ROWS:
            raise PayloadTooLarge(f"at most {ROWS} rows are explained at once", field="instances", rule="rows")
        Checker(version.loaded.bundle.strict_schema).check(request.inputs, request.rows)
        if self._waiting >= WAITING:
            raise Overloaded("as many explanations wait as this server takes; try again", retry_after_s=1.0)
        said: dict[str, Any] = request.parameters or {}
        wanted = Wanted(said.get("class"), said.get("output"), said.get("element", 0))
        self._waiting += 1
        version.explanations += 1  # its model is not let go of meanwhile
        alarm = self._loop.call_later(max(0.0, exchange.deadline_s - monotonic()), self._late, exchange)
        future = self._loop.run_in_executor(self._executor, _explain, exchange, version, wanted)
        future.add_done_callback(lambda done: self._done(exchange, version, alarm, done))

    def _late(self, exchange: Exchange) -> None:
        if exchange.is_open:
            self._on_failed(exchange, DeadlineExceeded("the time given passed before the explanation was made"))

    def _done(self, exchange: Exchange, version: Version, alarm: asyncio.TimerHandle, done: asyncio.Future[Explained]) -> None:
        self._waiting -= 1
        version.explanations -= 1
        alarm.cancel()
        error = done.exception()
        if not exchange.is_open:
            return
        if error is not None:
            failure = error if isinstance(error, ModelyardError) else ModelFailed("the model failed on an input that its schema accepts")
            if failure is not error:
                failure.__cause__ = error
            self._on_failed(exchange, failure)
            return
        outputs, explanations, started_s = done.result()
        request = exchange.request
        response = InferenceResponse(outputs, request.rows, name=version.name, version=version.number, digest=version.digest, id=request.id)
        version.meter.explained(monotonic() - exchange.received_s)
        exchange.reply(200, *exchange.codec.encode_explained(response, explanations))
        if self._tracer is not None:
            self._tracer.explained(exchange, started_s=started_s, ended_s=monotonic())

    def close(self) -> None:
        """Take no more; what runs stops at its next look at the time."""
        self._executor.shutdown(wait=False, cancel_futures=True)


Explained = tuple[dict[str, "Array"], list[Explanation], float]
"""The model's answers, their explanations, and when the work began."""


def _explain(exchange: Exchange, version: Version, wanted: Wanted) -> Explained:
    """In the thread."""
    started_s = monotonic()
    left_s = exchange.deadline_s - started_s
    if left_s <= 0 or not exchange.is_open:
        raise DeadlineExceeded("the time given passed before the explanation was begun")
    until_s = started_s + left_s * TIME_SHARE
    loaded = version.loaded
    inputs = exchange.request.inputs
    outputs = loaded.runtime.predict(inputs)
    step = max(1, version.batch_rows)

    def predict(asked: Any) -> dict[str, Array]:
        count = len(next(iter(asked.values())))
        parts = [loaded.runtime.predict({name: array[at : at + step] for name, array in asked.items()}) for at in range(0, count, step)]
        return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    # Single rows cost most: what fits by their cost fits in batches.
    affordable = (until_s - monotonic()) / max(loaded.seconds_per_row, 1e-7)
    explainer = Predictions(predict, version.schema, loaded.bundle.golden.inputs)
    evaluations = int(min(EVALUATIONS, affordable))
    explanations = explainer.explain(inputs, wanted, evaluations=evaluations, may_go_on=lambda: monotonic() < until_s and exchange.is_open)
    return outputs, explanations, started_s
