"""DataPlane: a request for a deployment goes in, an answer of one of its versions comes out.

Hides the plan in force, which versions are loaded, and the switch from one to the next, which happens between two turns of the event loop: a
request sees one plan, old or new. It must not know HTTP or any wire; codecs are bound here because a wire is read by a schema.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from modelyard import protocols
from modelyard.config import Settings
from modelyard.errors import MalformedPayload, ModelFailed, ModelyardError, NotFound, Unavailable
from modelyard.monitor.profile import Profile, reference
from modelyard.runtime.onnx import TOGETHER_BYTES
from modelyard.runtime.validate import Checker, internal_dtype, row_bytes
from modelyard.serve.batching import Batcher, Call, Limits, Ran, Threads
from modelyard.serve.due import Due
from modelyard.serve.leisure import Leisure
from modelyard.serve.loading import Loaded
from modelyard.serve.metrics import CANCELLED, Meter
from modelyard.serve.router import Router, champion
from modelyard.serve.sticky import first_value
from modelyard.serve.suspects import Board, Suspects
from modelyard.serve.turns import Turns
from modelyard.types import ALONE, Digest, InferenceRequest, InferenceResponse, Schema, TrafficPlan, parse_sticky

if TYPE_CHECKING:
    from modelyard.serve.observe import Recorder
    from modelyard.serve.shadow import Shadow
    from modelyard.serve.tracing import Tracer
    from modelyard.types import Array

THREADS = 4
"""Runs that may be off the event loop at once; a session releases the interpreter lock while it computes."""


class Waiting(Call, Protocol):
    """A call with somebody to answer."""

    prepared_s: float

    @property
    def traceparent(self) -> bytes:
        """The caller's trace context; one that has it has `asked` too (see `tracing.Asked`)."""

    @property
    def is_answered(self) -> bool:
        """Whether it was answered or refused, and so counted, before."""

    def answer(self, response: InferenceResponse) -> None:
        """Deliver the answer."""

    def fail(self, error: ModelyardError) -> None:
        """Deliver the refusal."""


class Carries(Protocol):
    """What stands in front of a request."""

    placed: tuple[Router, Digest | None, int] | None
    """By which router it was last placed, where, and the group of its caller."""

    def value(self, name: bytes) -> bytes:
        """The value of the header `name` (in small letters); empty where there is none."""


class Version:
    """One loaded version of one deployment: its schema, its codecs, its queue. Lives in the event loop."""

    def __init__(
        self, name: str, number: int, loaded: Loaded, settings: Settings, *, threads: Threads, due: Due, meter: Meter, board: Board | None = None
    ) -> None:
        self.name = name
        self.number = number
        self.loaded = loaded
        self.digest: Digest = loaded.bundle.digest
        self.schema: Schema = loaded.bundle.schema
        self.platform = "python" if loaded.bundle.parts else "onnxruntime_onnx"
        """What runs the model, in the words that V2's metadata have for it."""
        self.codecs = protocols.bind(name, self.schema)
        self.meter = meter
        self.recorder: Recorder | None = None
        self.tracer: Tracer | None = None
        self.group: Callable[[Any], int] | None = None
        """The group of a call's caller, where callers stay with a version."""
        self.explanations = 0
        """How many are being made: until they are, the model is not let go of."""
        self.mirrored = 0
        """How many runs for a shadow are under way; as above."""
        self.shadows: tuple[Shadow, ...] = ()
        """Who is asked a share of what this version answers."""
        self.inline_s = settings.inline_limit_s
        self.timeout_s = settings.request_timeout_s
        self._due = due
        self.batch_rows = _batch_rows(loaded, settings)
        limits = Limits(
            batch_rows=self.batch_rows,
            queue_rows=settings.max_queue_rows,
            inline_s=settings.inline_limit_s,
            concurrency=settings.max_concurrency,
        )
        self.check = Checker(loaded.bundle.strict_schema).check
        self.suspects = Suspects(board, owner=self.digest) if loaded.bundle.parts else None
        """Inputs that have ended a process of the model, where it is code."""
        self.batcher = Batcher(
            loaded.runtime,
            self.check,
            limits,
            threads,
            on_ran=self._answer,
            on_failed=self._fail,
            on_left=self._left,
            suspects=self.suspects,
            due=due,
        )
        self.batcher.pace.expect(loaded.seconds_per_row, loaded.seconds_per_more)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for its model or runs in it."""
        return self.batcher.is_idle and not self.explanations and not self.mirrored

    @cached_property
    def known(self) -> Profile:
        """What its inputs and outputs were when it was packaged; empty where this release does not read it."""
        try:
            return reference(self.loaded.bundle)
        except MalformedPayload:
            return Profile(features=())

    def run(self, inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """What the model answers, beside the batches; any thread may ask. Raises SchemaMismatch, or whatever the model raises."""
        self.check(inputs, rows)
        predict, step = self.loaded.runtime.predict, self.batch_rows
        if rows <= step:
            return predict(inputs)
        parts = [predict({name: values[at : at + step] for name, values in inputs.items()}) for at in range(0, rows, step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _answer(self, ran: Ran) -> None:
        calls = cast("list[Waiting]", ran.calls)
        name, number, digest = self.name, self.number, self.digest
        outputs = ran.outputs
        at = 0
        if False in [call.is_open for call in calls]:  # their time passed on the way, or they went away
            for call in calls:
                self._left(call)
            ran = _with_open(ran)
            calls, outputs = cast("list[Waiting]", ran.calls), ran.outputs
            if not calls:
                return
        ran.encoding_s = monotonic()
        for call in calls:
            request = call.request
            rows = request.rows
            part = outputs if rows == ran.rows else {key: array[at : at + rows] for key, array in outputs.items()}
            at += rows
            try:
                call.answer(InferenceResponse(part, rows, name=name, version=number, digest=digest, id=request.id))
            except Exception as error:  # noqa: BLE001 - one answer that cannot be written must not keep the others back
                failure = ModelFailed("the model's answer cannot be sent by this protocol")
                failure.__cause__ = error
                call.fail(failure)
        ran.answered_s = monotonic()
        self._due.keep(self._keep, ran)

    def _keep(self, ran: Ran) -> None:
        """Count and record a run whose answers have left.

        While they waited for the other runs of their turn is no latency of this version's: guards compare it with that of those others.
        """
        encode_s = ran.answered_s - ran.encoding_s
        now = ran.computed_s + encode_s if ran.computed_s else ran.answered_s
        ids: list[str] = []
        counts: list[int] = []
        latencies: list[float] = []
        prepare_s = 0.0
        for call in cast("list[Waiting]", ran.calls):
            request, received_s = call.request, call.received_s
            ids.append(request.id)
            counts.append(request.rows)
            latencies.append(now - received_s)
            prepare_s += call.prepared_s - received_s
        count = len(ids)
        self.meter.answered(latencies, ran.rows, predict_s=ran.seconds, prepare_s=prepare_s / count, encode_s=encode_s / count)
        if self.recorder is not None:
            group = self.group
            groups = None if group is None else [group(call) for call in cast("list[Waiting]", ran.calls)]
            self.recorder.answered(ids, counts, ran.inputs, ran.outputs, latencies, groups=groups)
        if self.tracer is not None:
            self.tracer.answered((self.name, self.number), ran, ran.encoding_s, ran.answered_s)
        for shadow in self.shadows:
            if chosen := shadow.choose(count):
                shadow.offer(chosen, counts, ran, ran.outputs, latencies)

    def _fail(self, call: Call, error: ModelyardError) -> None:
        waiting = cast("Waiting", call)
        if waiting.is_open:
            waiting.fail(error)
        else:
            self._left(waiting)

    def _left(self, call: Call) -> None:
        """Count a request whose caller went away before its answer; one that is answered or waits still is nothing to count."""
        if not call.is_open and not cast("Waiting", call).is_answered:
            self.failed(CANCELLED, monotonic() - call.received_s, call)

    def failed(self, code: str, latency_s: float, call: Any) -> None:
        """Count a request that got no prediction."""
        self.meter.failed(code)
        if self.recorder is not None:
            self.recorder.failed(code, latency_s, ALONE if self.group is None else self.group(call))


def _placed(router: Router, header: bytes, head: Carries) -> tuple[Router, Digest | None, int]:
    """Where `router` places what `head` carries; a head is kept with all that it means, as long as the plan means the same."""
    placed = head.placed
    if placed is None or placed[0] is not router:
        value = head.value(header)
        placed = head.placed = router, *(router.place(value) if value else (None, ALONE))
    return placed


def _group_by_head(router: Router, header: bytes, call: Any) -> int:
    # Calls of several deployments have one head, where gRPC remembers it: another may have been placed by it meanwhile.
    return ALONE if call.head.placed is None else _placed(router, header, call.head)[2]


def _group_by_field(call: Any) -> int:
    # What failed before it was read has no request yet, and what names its version was never placed.
    return getattr(getattr(call, "request", None), "group", ALONE)


def _with_open(ran: Ran) -> Ran:
    """The run with the calls that somebody waits for, and with their rows."""
    kept = np.repeat([call.is_open for call in ran.calls], [call.request.rows for call in ran.calls])
    inputs, outputs = ({name: array[kept] for name, array in arrays.items()} for arrays in (ran.inputs, ran.outputs))
    rest = Ran([call for call in ran.calls if call.is_open], int(kept.sum()), inputs, outputs, ran.seconds, started_s=ran.started_s)
    rest.computed_s = ran.computed_s
    return rest


class Deployment:
    """What one served name means under one plan; replaced whole, and but for its draws immutable."""

    def __init__(self, plan: TrafficPlan, versions: dict[Digest, Version]) -> None:
        self.plan = plan
        self.name = plan.name
        self.router = Router(plan)
        self.by_digest = versions
        self.versions = {version.number: version for version in versions.values()}
        self.champion = versions[champion(plan)]
        self.only: Version | None = None if self.router.only is None else versions[self.router.only]
        """The version that answers all requests, where one does."""
        kind, where = parse_sticky(plan.sticky) if plan.sticky is not None and self.only is None else ("", "")
        self.field = where if kind == "field" else ""
        """The input by whose value requests stay with a version: they are read before one is picked."""
        self._header = where.encode() if kind == "header" else b""
        self.is_sticky = bool(kind)
        """Whether callers stay with a version; then what is counted is counted by their groups too."""
        self.draws = map(versions.__getitem__, self.router.draws())
        """The versions that the weights give, one for each request that does not keep to one."""
        self.casts = {version: casts for version in versions.values() if (casts := _casts(self.champion.schema, version.schema))}
        """Of versions that read wider types than the champion, by whose schema requests come: which inputs become what."""

    def pick(self, head: Carries | None = None) -> Version:
        """The version that answers the next request: by what `head` carries where requests stay with a version by that, else by weight."""
        if self.only is not None:
            return self.only
        if self._header and head is not None:
            placed = _placed(self.router, self._header, head)
            if placed[1] is not None:
                return self.by_digest[placed[1]]
        return next(self.draws)

    def pick_by_field(self, request: InferenceRequest) -> Version:
        """The version that answers `request`, by its inputs; it is told its caller's group."""
        value = first_value(request.inputs, self.field)
        if value is None:
            request.group = ALONE
            return next(self.draws)
        digest, request.group = self.router.place(value)
        return self.by_digest[digest]

    def fit(self, version: Version, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """`inputs`, as they were read by the champion's schema, in the types that `version` takes."""
        casts = self.casts.get(version)
        if casts is None:
            return inputs
        return {name: values.astype(casts[name]) if name in casts else values for name, values in inputs.items()}

    def leave(self) -> None:
        """Its plan is no longer in force: who was asked beside the champion is asked no more."""
        for shadow in self.champion.shadows:
            shadow.close()
        self.champion.shadows = ()

    def enter(self, leisure: Leisure) -> None:
        """From now on what its versions see is counted under this plan; where there are several, their outputs by the champion's bins too."""
        self.champion.shadows = ()
        if self.plan.shadows:
            from modelyard.serve.shadow import Shadow

            self.champion.shadows = tuple(
                Shadow(self.champion, version, share, leisure=leisure, fit=partial(self.fit, version))
                for digest, share in self.plan.shadows.items()
                if (version := self.by_digest.get(digest)) is not None and version is not self.champion
            )
        known = self.champion.recorder
        compared = known.answers if known is not None and len(self.by_digest) > 1 else None
        group = _group_by_field if self.field else partial(_group_by_head, self.router, self._header)
        for version in self.by_digest.values():
            version.group = group if self.is_sticky else None
            if version.recorder is not None:
                version.recorder.enter(self.plan.generation, compared, has_groups=self.is_sticky)


class DataPlane:
    """All deployments of one worker. Lives in the event loop; `deployments` is replaced, never changed in place."""

    def __init__(
        self,
        settings: Settings,
        *,
        slot: int,
        meter: Callable[[str, int], Meter],
        attach: Callable[[Version], None] | None = None,
        board: Board | None = None,
    ) -> None:
        self.settings = settings
        self.deployments: dict[str, Deployment] = {}
        self.absent: set[str] = set()
        """Deployments of the plan that this worker cannot answer: another may."""
        self.is_ready = False
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="predict")
        self._threads = Threads(self.executor, THREADS)
        self.due = Due(asyncio.get_running_loop())
        self.turns = Turns(lambda go_on: asyncio.get_running_loop().call_soon(go_on))
        self.leisure = Leisure(self._is_idle)
        self._meter = meter
        self._attach = attach
        self._board = board
        self._prefix = f"{slot:x}{os.getpid():x}-{time.time_ns() // 1_000_000 & 0xFFFFFFFFFF:x}-"
        self._count = itertools.count()

    def _is_idle(self) -> bool:
        return all(version.batcher.is_idle for deployment in self.deployments.values() for version in deployment.by_digest.values())

    def version(self, name: str, number: int, loaded: Loaded) -> Version:
        """Version `number` of `name` on `loaded`: the one that serves already, or a new one, which takes no traffic before `switch`."""
        deployment = self.deployments.get(name)
        known = deployment.versions.get(number) if deployment else None
        if known is not None and known.loaded is loaded:
            return known
        meter = self._meter(name, number)
        made = Version(name, number, loaded, self.settings, threads=self._threads, due=self.due, meter=meter, board=self._board)
        if self._attach is not None:
            self._attach(made)
        return made

    def switch(self, deployments: dict[str, Deployment]) -> None:
        """From the next turn of the loop on, these answer; who waits in an old version's queue is still answered by it."""
        for name, deployment in self.deployments.items():
            if deployment is not deployments.get(name):
                deployment.leave()
        for name, deployment in deployments.items():
            if deployment is not self.deployments.get(name):
                deployment.enter(self.leisure)
        self.deployments = deployments
        self.is_ready = True

    def find(self, name: str, number: int | None = None) -> Version | Deployment:
        """The deployment `name`, or its loaded version `number`. Raises NotFound, or Unavailable where it should be and is not."""
        deployment = self.deployments.get(name)
        if deployment is None:
            if not self.is_ready:
                raise Unavailable("the server is not ready yet")
            if name in self.absent:
                raise Unavailable("this model is not loaded in the process that was asked; try again", field="model", rule="loaded")
            raise NotFound("no model of this name is served here", field="model", rule="known")
        if number is None:
            return deployment
        version = deployment.versions.get(number)
        if version is None:
            raise NotFound("this version of the model is not loaded here", field="version", rule="loaded")
        return version

    def infer(self, version: Version, call: Waiting) -> None:
        """Let `version` answer `call` with the next batch. Raises Overloaded or PayloadTooLarge at once; later failures go to the call."""
        request = call.request
        if not request.id:
            request.id = self._prefix + str(next(self._count))
        version.batcher.add(call)

    def close(self) -> None:
        """Stop the threads; the models belong to who loaded them."""
        for deployment in self.deployments.values():
            deployment.leave()
        self.leisure.close()
        self.executor.shutdown(wait=False, cancel_futures=True)


def _casts(read: Schema, taken: Schema) -> dict[str, np.dtype[Any]]:
    """By input, the type that it must be brought to from how it was read."""
    before = {spec.name: internal_dtype(spec) for spec in read.inputs}
    after = {spec.name: internal_dtype(spec) for spec in taken.inputs}
    return {name: dtype for name, dtype in after.items() if name in before and before[name] != dtype and dtype.kind in "biuf"}


def _batch_rows(loaded: Loaded, settings: Settings) -> int:
    """How many rows run together at most. Code that runs elsewhere is given what it was set: it may gain by rows of any size."""
    if not loaded.can_batch:
        return 1
    if hasattr(loaded.runtime, "submit"):
        return settings.max_batch_rows
    return max(1, min(settings.max_batch_rows, TOGETHER_BYTES // max(1, row_bytes(loaded.bundle.schema))))
