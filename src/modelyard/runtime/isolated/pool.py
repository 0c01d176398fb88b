"""The runtime of models that are code: the Runtime port over isolated processes.

Hides whether it is asked from a thread (packaging, replay, gates), one question at a time, or from an event loop, by `submit`. It remembers how
its processes ended and judges: five ends within a minute, or memory that only grows, is said of the version. It must not run the model's code
here.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from modelyard.bundle import lock
from modelyard.errors import ModelFailed, ModelyardError, Rejected, Unavailable
from modelyard.runtime.base import Done
from modelyard.runtime.isolated.process import Ended, Isolation, Members, Process, sweep
from modelyard.runtime.isolated.seats import Question, Seats
from modelyard.runtime.isolated.watch import Watch
from modelyard.runtime.validate import internal_dtype
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.bundle.lock import Lock
    from modelyard.types import Array, Schema

CRASHES, WITHIN_S = 5, 60.0
PAUSES_S = (0.0, 0.0, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Before the next process, by how many ended within the last minute; the last one repeats."""


class Code(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The bundle's `runtime.json` of a model that is code: `entry` is `module:name`, importable from the members below `code/`.

    More rows than `max_batch_rows` are answered in several runs.
    """

    kind: Literal["python"]
    entry: str
    max_batch_rows: int | None = None


class Isolated:
    """A Runtime over processes of its own. Whoever opened it closes it; `submit` belongs to one event loop, `predict` to any thread."""

    def __init__(self, code: Code, parts: Mapping[str, bytes], schema: Schema | None, isolation: Isolation) -> None:
        sweep()
        self.code = code
        self._isolation = isolation
        self._outputs = None if schema is None else tuple((spec.name, internal_dtype(spec), spec.shape[1:]) for spec in schema.outputs)
        self._members = Members(parts)
        self._lock = threading.Lock()
        self._processes: list[Process] = []
        self._seats: Seats | None = None
        self._is_closed = False
        self._ends: deque[float] = deque(maxlen=64)
        self._news: list[Ended] = []
        self._watch = Watch()
        try:
            for _ in range(isolation.processes):
                self._processes.append(self._start())
            for process in self._processes:
                process.wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> dict[str, Any]:
        """What the first process said of itself: classes, max_batch_rows, and what holds it in."""
        return self._processes[0].facts if self._processes else {}

    @property
    def processes(self) -> int:
        """See `Submits.processes`."""
        return self._isolation.processes

    def _start(self) -> Process:
        return Process(self.code.entry, self._members, self._isolation)

    # From a thread.

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runtime.predict`."""
        limit = self.code.max_batch_rows
        rows = len(next(iter(inputs.values())))
        if limit is None or rows <= limit:
            return self._predict(inputs, rows)
        parts = [self._predict(_cut(inputs, at, at + limit), min(limit, rows - at)) for at in range(0, rows, limit)]
        return _joined(parts)

    def _predict(self, inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
        with self._lock:
            if self._is_closed:
                raise ModelFailed("the runtime is closed")
            if self._seats is None:
                return self._checked(self._ready().ask(inputs), rows)
            seats = self._seats
        with contextlib.suppress(RuntimeError):
            if asyncio.get_running_loop() is seats.loop:
                raise ModelFailed("a loop that asks by submit would wait for itself here")
        found: list[Any] = []
        arrived = threading.Event()

        def done(outputs: dict[str, Array] | None, error: ModelyardError | None, _: float) -> None:
            found.extend((outputs, error))
            arrived.set()

        def ask() -> None:
            try:
                self._submit(inputs, rows, done, deadline_s)
            except ModelyardError as error:
                done(None, error, 0.0)

        deadline_s = monotonic() + self._isolation.answer_timeout_s
        seats.loop.call_soon_threadsafe(ask)
        if not arrived.wait(self._isolation.answer_timeout_s + 1):
            raise ModelFailed("the model did not answer in time")
        if found[1] is not None:
            raise found[1]
        outputs: dict[str, Array] = found[0]
        return outputs

    def _ready(self) -> Process:
        process = self._processes[0]
        if process.is_gone:
            process = self._processes[0] = self._start()
            process.wait_ready()
        return process

    def libraries(self) -> list[str]:
        """The top-level modules that the model's code has loaded."""
        with self._lock:
            return self._ready().libraries()

    # From the event loop.

    def submit(self, inputs: Mapping[str, Array], done: Done, *, deadline_s: float, rows_at_once: int | None = None) -> None:
        """See `Submits.submit`."""
        rows = len(next(iter(inputs.values())))
        limit = self.code.max_batch_rows
        if rows_at_once is not None:
            limit = rows_at_once if limit is None else min(limit, rows_at_once)
        if limit is None or rows <= limit:
            self._submit(inputs, rows, done, deadline_s)
            return
        gather = _Gather(-(-rows // limit), done)
        for number, at in enumerate(range(0, rows, limit)):
            self._submit(_cut(inputs, at, at + limit), min(limit, rows - at), gather.part(number), deadline_s)

    def _submit(self, inputs: Mapping[str, Array], rows: int, done: Done, deadline_s: float) -> None:
        seats = self._seats
        if seats is None:
            raise Unavailable("the runtime belongs to no event loop yet")

        def arrived(outputs: dict[str, Array] | None, error: ModelyardError | None, seconds: float) -> None:
            if outputs is not None:
                try:
                    outputs = self._checked(outputs, rows)
                except ModelFailed as failure:
                    outputs, error = None, failure
            done(outputs, error, seconds)

        seats.ask(Question(inputs, arrived, deadline_s))

    def attach(self) -> None:
        """See `Submits.attach`."""
        with self._lock:
            if self._seats is None and not self._is_closed:
                living = [process for process in self._processes if not process.is_gone]
                loop = asyncio.get_running_loop()
                self._seats = Seats(loop, living, count=self._isolation.processes, start=self._start, record=self._record)

    def _record(self, ended: Ended, was_ready: bool) -> float:
        """Take note of a process that ended; gives the pause before the next one is started."""
        now = monotonic()
        self._ends.append(now)
        self._news.append(ended)
        self._watch.forget()
        recent = self._recent(now)
        return PAUSES_S[min(recent if was_ready else recent + 2, len(PAUSES_S)) - 1]

    def _recent(self, now: float) -> int:
        return sum(now - at < WITHIN_S for at in self._ends)

    def _checked(self, outputs: dict[str, Array], rows: int) -> dict[str, Array]:
        """The outputs in the schema's order. Raises ModelFailed when they are not what the schema says."""
        if self._outputs is None:
            return outputs
        try:
            for name, dtype, shape in self._outputs:
                array = outputs[name]
                if array.dtype != dtype or array.shape != (rows, *shape):
                    raise ModelFailed(f"the model's answer {name!r} is not of the type and shape that its schema says")
            if len(outputs) != len(self._outputs):
                raise ModelFailed("the model answers more than its schema says")
            return outputs if len(outputs) == 1 else {name: outputs[name] for name, _, _ in self._outputs}
        except KeyError as error:
            raise ModelFailed(f"the model's answer lacks {error.args[0]!r}") from error

    # How it stands.

    def watch(self) -> list[Ended]:
        """Look at the processes' memory; gives how processes ended since the last call."""
        self._watch.look(self.resident_bytes())
        news, self._news = self._news, []
        return news

    def resident_bytes(self) -> int:
        """The memory of all its processes."""
        return sum(process.resident_bytes() for process in self._alive())

    def cpu_us(self) -> dict[int, int]:
        """The processor time that each of its processes has taken since it began, by pid."""
        return {process.pid: process.cpu_us() for process in self._alive()}

    def _alive(self) -> list[Process]:
        processes = [seat.process for seat in self._seats.seats] if self._seats is not None else self._processes
        return [process for process in processes if process is not None]

    @property
    def verdict(self) -> Verdict | None:
        """What is wrong with this version, if anything: processes that keep ending (fail), memory that only grows (warn)."""
        ends = self._recent(monotonic())
        if ends >= CRASHES:
            evidence = f"{ends} processes of the model ended within {WITHIN_S:.0f} s"
            return Verdict(outcome="fail", rule="isolated-crashes", evidence=evidence, numbers={"ends": float(ends)})
        return self._watch.verdict

    def pardon(self) -> None:
        """Forget which processes have ended so far: they are no evidence against a version that is wanted anew."""
        self._ends.clear()

    def close(self) -> None:
        """See `Runtime.close`."""
        with self._lock:
            self._is_closed = True
            if self._seats is not None:
                self._seats.close()
            for process in self._processes:
                if not process.is_gone:
                    process.close()
            self._members.close()


def require(locked: Lock) -> None:
    """Refuse a model whose libraries are absent here or of another major version. Raises Rejected with the Verdict."""
    here = lock.here(locked)
    pairs = [(name, version, here.packages.get(name)) for name, version in sorted(locked.packages.items())]
    found = [
        f"{name} {version} is {present or 'absent'} here"
        for name, version, present in pairs
        if present is None or version.partition(".")[0] != present.partition(".")[0]
    ]
    if found:
        evidence = f"{'; '.join(found)}: the model's code needs the same major versions; install them beside modelyard, or package it again"
        raise Rejected(evidence, verdicts=[Verdict(outcome="fail", rule="lock", evidence=evidence, numbers={"differing": float(len(found))})])


class _Gather:
    """The parts of one large batch, put together when the last one is there; the first failure is that of the whole."""

    def __init__(self, count: int, done: Done) -> None:
        self._parts: list[dict[str, Array] | None] = [None] * count
        self._left = count
        self._seconds = 0.0
        self._error: ModelyardError | None = None
        self._done = done

    def part(self, number: int) -> Done:
        """Takes part `number`."""

        def arrived(outputs: dict[str, Array] | None, error: ModelyardError | None, seconds: float) -> None:
            self._parts[number] = outputs
            self._error = self._error or error
            self._seconds += seconds
            self._left -= 1
            if self._left == 0:
                whole = None if self._error is not None else _joined([part for part in self._parts if part is not None])
                self._done(whole, self._error, self._seconds)

        return arrived


def _cut(inputs: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
    return {name: array[start:stop] for name, array in inputs.items()}


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    with contextlib.suppress(KeyError, ValueError):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    raise ModelFailed("the model answers parts of one batch in different shapes")
