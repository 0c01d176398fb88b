"""OpenTelemetry traces: a server span for each sampled request, with children for decoding, queue, model run and encoding.

Hides OpenTelemetry, which is imported only where an endpoint is set. The event loop notes a few numbers for a request whose answer has left; a thread
makes the spans of them and sends these over OTLP/HTTP. It must never hold up or fail a request: the notes wait in a bounded queue, and what finds
no room, or no receiver, is dropped and counted.
Sources: W3C Trace Context 1 (§3.2, §3.3), OpenTelemetry's semantic conventions for HTTP server spans, its TraceIdRatioBased and ParentBased samplers.
"""

from __future__ import annotations

import logging
import random
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from modelyard.errors import InvalidConfig

if TYPE_CHECKING:
    from modelyard.config import Settings
    from modelyard.serve.batching import Ran

QUEUE_NOTES = 2048
BATCH_NOTES = 128
EVERY_S = 1.0
EXPORT_TIMEOUT_S = 5.0
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ALL = 1 << 64


class Parent(NamedTuple):
    """What a caller's `traceparent` says."""

    trace_id: int
    span_id: int
    is_sampled: bool


class Asked(Protocol):
    """What a span tells of a request, as its wire has it: name and attributes by the semantic conventions.

    A call that has `traceparent` (the header's value, empty without one) has `asked`; one that has neither is not traced.
    """

    name: str
    attributes: dict[str, Any]
    tracestate: bytes


class Note(NamedTuple):
    """One sampled request. Times are of the monotonic clock; a stage that was not reached ends where the request does."""

    trace_id: int
    parent_id: int | None
    tracestate: bytes
    name: str
    attributes: dict[str, Any]
    is_error: bool
    received_s: float
    ended_s: float
    stages: tuple[tuple[str, float, float], ...]


def read_traceparent(value: bytes) -> Parent | None:
    """The context in a `traceparent` header; None for one that is not valid, which then counts as not sent."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return Parent(trace_id, span_id, bool(int(found[4], 16) & 1)) if trace_id and span_id else None


def check(settings: Settings) -> None:
    """Raise InvalidConfig when traces are asked for and cannot be made."""
    if settings.trace_endpoint and not _is_installed():
        raise InvalidConfig("trace_endpoint needs OpenTelemetry: install modelyard[otel]", field="trace_endpoint", rule="extra")


def _is_installed() -> bool:
    try:
        return all(find_spec(name) is not None for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False


def open(settings: Settings, *, slot: int, release: str) -> Tracer | None:  # noqa: A001 - the room's verb
    """The tracer that the settings ask for; None where they ask for none, which then costs nothing."""
    if not settings.trace_endpoint:
        return None
    check(settings)
    return Tracer(_Otlp(settings.trace_endpoint, slot=slot, release=release), share=settings.trace_sample_rate)


class Exporter(Protocol):
    """Where notes go. Called from the tracer's thread alone."""

    def send(self, notes: Sequence[Note]) -> bool:
        """Whether all of them have arrived."""

    def close(self) -> None:
        """Give up what is being sent."""


class Tracer:
    """Samples, and keeps a bounded queue that one thread empties. `answered` and `failed` belong to the event loop."""

    def __init__(self, exporter: Exporter, *, share: float) -> None:
        self._exporter = exporter
        self._bound = round(share * _ALL)
        self._notes: deque[Note] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self.sent = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def answered(self, version: tuple[str, int], ran: Ran, encoding_s: float, ended_s: float) -> None:
        """Note the sampled ones of a run that was answered."""
        run_ended_s = ran.started_s + ran.seconds
        for call in ran.calls:
            waiting: Any = call
            traceparent: bytes | None = getattr(waiting, "traceparent", None)
            context = None if traceparent is None else self._sampled(traceparent)
            if context is None:
                continue
            asked: Asked = waiting.asked
            prepared_s: float = waiting.prepared_s
            stages = (
                ("decode", call.received_s, prepared_s),
                ("queue", prepared_s, ran.started_s),
                ("predict", ran.started_s, run_ended_s),
                ("encode", encoding_s, ended_s),
            )
            attributes = {
                **asked.attributes,
                "modelyard.model.name": version[0],
                "modelyard.model.version": version[1],
                "modelyard.prediction.id": call.request.id,
                "modelyard.request.rows": call.request.rows,
                "modelyard.batch.rows": ran.rows,
                "modelyard.batch.requests": len(ran.calls),
            }
            self._keep(Note(*context, asked.tracestate, asked.name, attributes, False, call.received_s, ended_s, stages))

    def explained(self, call: Any, *, started_s: float, ended_s: float) -> None:
        """Note an explanation, if its request is sampled."""
        context = self._sampled(call.traceparent)
        if context is not None:
            asked: Asked = call.asked
            told = {"modelyard.model.name": call.version.name, "modelyard.model.version": call.version.number}
            attributes = {**asked.attributes, **told, "modelyard.request.rows": call.request.rows}
            stages = (
                ("decode", call.received_s, call.prepared_s),
                ("queue", call.prepared_s, started_s),
                ("explain", started_s, ended_s),
            )
            self._keep(Note(*context, asked.tracestate, asked.name, attributes, False, call.received_s, ended_s, stages))

    def failed(self, call: Any, *, code: str, is_fault: bool, status: dict[str, Any], ended_s: float) -> None:
        """Note a request that was refused or failed, if it is sampled; `status` are the wire's attributes for its outcome."""
        traceparent: bytes | None = getattr(call, "traceparent", None)
        context = None if traceparent is None else self._sampled(traceparent)
        if context is None:
            return
        asked: Asked = call.asked
        attributes = {**asked.attributes, **status, "modelyard.error.code": code}
        if is_fault:
            attributes["error.type"] = code
        if call.version is not None:
            attributes |= {"modelyard.model.name": call.version.name, "modelyard.model.version": call.version.number}
        stages = (("decode", call.received_s, call.prepared_s),) if call.prepared_s > call.received_s else ()
        self._keep(Note(*context, asked.tracestate, asked.name, attributes, is_fault, call.received_s, ended_s, stages))

    def _sampled(self, traceparent: bytes) -> tuple[int, int | None] | None:
        """Trace and parent of a request that is to be noted: as its parent was, else by the share of all trace ids."""
        parent = read_traceparent(traceparent) if traceparent else None
        if parent is not None:
            return (parent.trace_id, parent.span_id) if parent.is_sampled else None
        trace_id = random.getrandbits(128) or 1
        return (trace_id, None) if trace_id % _ALL < self._bound else None

    def _keep(self, note: Note) -> None:
        if len(self._notes) >= QUEUE_NOTES:
            self.dropped += 1
            return
        self._notes.append(note)
        if len(self._notes) == BATCH_NOTES:
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(EVERY_S)
            self._wake.clear()
            is_last = self._is_closing
            while self._notes:
                notes = [self._notes.popleft() for _ in range(min(BATCH_NOTES, len(self._notes)))]
                try:
                    has_arrived = self._exporter.send(notes)
                except Exception:  # noqa: BLE001 - a library's fault must not end the thread
                    has_arrived = False
                if has_arrived:
                    self.sent += len(notes)
                else:
                    self.dropped += len(notes)
            if is_last:
                return

    def close(self, *, timeout_s: float = 1.0) -> None:
        """Send what waits, within `timeout_s`; then let go."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        self._exporter.close()


class _Otlp:
    """Spans of notes, over OTLP/HTTP in protobuf. The environment's OTEL_EXPORTER_OTLP_HEADERS, _CERTIFICATE and OTEL_RESOURCE_ATTRIBUTES count."""

    def __init__(self, endpoint: str, *, slot: int, release: str) -> None:
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        logging.getLogger("opentelemetry").propagate = False  # what is lost is counted; its texts are not ours to log
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.export import SpanExportResult
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._trace: Any = trace
        self._span: Any = ReadableSpan
        self._success: Any = SpanExportResult.SUCCESS
        url = endpoint if endpoint.rstrip("/").endswith("/v1/traces") else f"{endpoint.rstrip('/')}/v1/traces"
        self._exporter: Any = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
        sdk = {name: value for name, value in Resource.create().attributes.items() if name.startswith("telemetry.")}
        ours = {"service.name": "modelyard", "service.version": release, "service.instance.id": f"{socket.gethostname()}-{slot}"}
        self._resource: Any = Resource({**sdk, **ours}).merge(OTELResourceDetector().detect())  # what the environment says comes before ours
        self._scope: Any = InstrumentationScope("modelyard", release)

    def send(self, notes: Sequence[Note]) -> bool:
        """See `Exporter.send`."""
        spans = [span for note in notes for span in self._spans(note)]
        return bool(self._exporter.export(spans) is self._success)

    def close(self) -> None:
        """See `Exporter.close`."""
        self._exporter.shutdown()

    def _spans(self, note: Note) -> list[Any]:
        trace = self._trace
        offset_s = time.time() - time.monotonic()
        state = trace.TraceState.from_header([note.tracestate.decode("latin-1")]) if note.tracestate and note.parent_id else trace.TraceState()

        def context(span_id: int, *, is_remote: bool = False) -> Any:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            return trace.SpanContext(note.trace_id, span_id, is_remote=is_remote, trace_flags=flags, trace_state=state)

        def span(name: str, own: Any, parent: Any, times: tuple[float, float], **more: Any) -> Any:
            start, end = (round((at + offset_s) * 1e9) for at in times)
            return self._span(
                name, own, parent, self._resource, start_time=start, end_time=max(start, end), instrumentation_scope=self._scope, **more
            )

        root = context(_span_id())
        parent = None if note.parent_id is None else context(note.parent_id, is_remote=True)
        status = trace.Status(trace.StatusCode.ERROR if note.is_error else trace.StatusCode.UNSET)
        made = [span(note.name, root, parent, (note.received_s, note.ended_s), kind=trace.SpanKind.SERVER, attributes=note.attributes, status=status)]
        made += [span(name, context(_span_id()), root, (start, end), kind=trace.SpanKind.INTERNAL) for name, start, end in note.stages]
        return made


def _span_id() -> int:
    return random.getrandbits(64) or 1
