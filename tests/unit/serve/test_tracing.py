"""Traces: who is sampled, what is noted, and that nothing of it can hold up a request."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard.config import Settings
from modelyard.errors import InvalidConfig
from modelyard.serve import tracing
from modelyard.serve.batching import Ran
from modelyard.serve.http import Asked, Head
from modelyard.serve.routes.base import Route
from modelyard.serve.tracing import QUEUE_NOTES, Note, Parent, Tracer, read_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01".encode(), f"00-{TRACE}-{SPAN}-00".encode()


class Kept:
    """An exporter that keeps what it gets, once it may."""

    def __init__(self, *, is_well: bool = True, is_open: bool = True) -> None:
        self.notes: list[Note] = []
        self.is_well = is_well
        self.gate = threading.Event()
        if is_open:
            self.gate.set()

    def send(self, notes: Sequence[Note]) -> bool:
        self.gate.wait(20)
        if not self.is_well:
            raise ConnectionError
        self.notes += notes
        return True

    def close(self) -> None:
        self.gate.set()


def call(traceparent: bytes = b"", *, tracestate: bytes = b"") -> Any:
    asked = SimpleNamespace(name="POST /x", attributes={"http.request.method": "POST"}, tracestate=tracestate)
    request = SimpleNamespace(id="mine", rows=1)
    return SimpleNamespace(traceparent=traceparent, asked=asked, request=request, received_s=1.0, prepared_s=1.5, version=None)


def run(*calls: Any) -> Ran:
    return Ran(list(calls), len(calls), {}, {"y": np.zeros(1)}, 0.25, started_s=2.0)


def noted(*calls: Any, share: float = 1.0) -> list[Note]:
    exporter = Kept()
    tracer = Tracer(exporter, share=share)
    tracer.answered(("m", 3), run(*calls), 2.5, 3.0)
    tracer.close(timeout_s=20)
    assert tracer.sent == len(exporter.notes) and not tracer.dropped
    return exporter.notes


@pytest.mark.parametrize(
    ("value", "parent"),
    [
        (SAMPLED, Parent(int(TRACE, 16), int(SPAN, 16), True)),
        (UNSAMPLED, Parent(int(TRACE, 16), int(SPAN, 16), False)),
        (f"cc-{TRACE}-{SPAN}-01-what-comes".encode(), Parent(int(TRACE, 16), int(SPAN, 16), True)),
        (f"00-{TRACE}-{SPAN}-01-more".encode(), None),
        (f"ff-{TRACE}-{SPAN}-01".encode(), None),
        (f"00-{'0' * 32}-{SPAN}-01".encode(), None),
        (f"00-{TRACE}-{'0' * 16}-01".encode(), None),
        (f"00-{TRACE.upper()}-{SPAN}-01".encode(), None),
        (f"00-{TRACE}-{SPAN}".encode(), None),
        (f"cc-{TRACE}-{SPAN}-01.x".encode(), None),
        (b"", None),
    ],
)
def test_a_traceparent_is_read_as_the_recommendation_says(value: bytes, parent: Parent | None) -> None:
    assert read_traceparent(value) == parent


def test_a_parent_decides_and_else_the_share() -> None:
    (note,) = noted(call(SAMPLED, tracestate=b"a=1"), share=0.0)
    assert (note.trace_id, note.parent_id, note.tracestate) == (int(TRACE, 16), int(SPAN, 16), b"a=1")
    assert noted(call(UNSAMPLED), share=1.0) == []
    assert noted(call(), share=0.0) == []
    (note,) = noted(call(b"not-one"), share=1.0)
    assert note.parent_id is None and 0 < note.trace_id < 2**128
    assert 300 < len(noted(*[call() for _ in range(1000)], share=0.5)) < 700


def test_a_note_has_the_stages_and_the_batch() -> None:
    note, _ = noted(call(), call())
    assert note.stages == (("decode", 1.0, 1.5), ("queue", 1.5, 2.0), ("predict", 2.0, 2.25), ("encode", 2.5, 3.0))
    assert (note.received_s, note.ended_s, note.is_error) == (1.0, 3.0, False)
    told = note.attributes
    assert told["http.request.method"] == "POST" and told["modelyard.model.name"] == "m" and told["modelyard.model.version"] == 3
    assert (told["modelyard.batch.requests"], told["modelyard.prediction.id"]) == (2, "mine")


def test_a_call_of_a_wire_without_context_is_not_traced() -> None:
    assert noted(SimpleNamespace(request=None, received_s=0.0)) == []


def test_a_fault_is_an_error_and_a_refusal_is_not() -> None:
    exporter = Kept()
    tracer = Tracer(exporter, share=1.0)
    tracer.failed(call(), code="model_failed", is_fault=True, status={"http.response.status_code": 500}, ended_s=4.0)
    tracer.failed(call(), code="schema_mismatch", is_fault=False, status={"http.response.status_code": 400}, ended_s=4.0)
    tracer.close(timeout_s=20)
    fault, refusal = exporter.notes
    assert (fault.is_error, fault.attributes["error.type"], fault.attributes["http.response.status_code"]) == (True, "model_failed", 500)
    assert not refusal.is_error and "error.type" not in refusal.attributes
    assert refusal.stages == (("decode", 1.0, 1.5),)


def test_a_receiver_that_hangs_or_fails_costs_traces_and_nothing_else() -> None:
    hanging = Kept(is_open=False)
    tracer = Tracer(hanging, share=1.0)
    for _ in range(3):
        tracer.answered(("m", 1), run(*[call() for _ in range(QUEUE_NOTES)]), 2.5, 3.0)
    assert tracer.dropped >= QUEUE_NOTES and tracer.sent == 0
    tracer.close(timeout_s=0.01)
    failing = Kept(is_well=False)
    tracer = Tracer(failing, share=1.0)
    tracer.answered(("m", 1), run(call()), 2.5, 3.0)
    tracer.close(timeout_s=20)
    assert (tracer.sent, tracer.dropped) == (0, 1)


def test_without_an_endpoint_there_is_no_tracer_and_without_the_extra_a_clear_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing.open(Settings(), slot=0, release="1") is None
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    tracing.check(Settings())
    with pytest.raises(InvalidConfig, match=r"modelyard\[otel\]"):
        tracing.check(Settings(trace_endpoint="http://127.0.0.1:4318"))


@pytest.mark.parametrize(
    ("path", "route", "shown"),
    [
        ("/v2/models/iris/infer", Route(print, "see", model="iris", wire="oip_v2"), "/v2/models/{model}/infer"),  # type: ignore[arg-type]
        ("/v2/models/iris/versions/3/infer", Route(print, "see", model="iris", number=3), "/v2/models/{model}/versions/{version}/infer"),  # type: ignore[arg-type]
        ("/v1/models/iris:predict", Route(print, "see", model="iris"), "/v1/models/{model}:predict"),  # type: ignore[arg-type]
        ("/invocations", Route(print, "see", wire="mlflow"), "/invocations"),  # type: ignore[arg-type]
        ("/some/secret/thing", None, ""),
    ],
)
def test_a_span_is_named_by_its_route_not_by_what_fills_it(path: str, route: Route | None, shown: str) -> None:
    head = Head(b"POST", path.encode(), "1.1", [(b"host", b"x"), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")], keep_alive=True)
    head.route = route
    asked = Asked(head, "http")
    assert asked.name == f"POST {shown}".strip() and asked.attributes.get("http.route", "") == shown
    assert asked.tracestate == b"a=1,b=2" and asked.attributes["url.path"] == path


def test_a_tracestate_that_is_too_long_is_not_passed_on() -> None:
    head = Head(b"GET", b"/", "1.1", [(b"host", b"x"), (b"tracestate", b"a=" + b"x" * 600)], keep_alive=True)
    assert head.tracestate == b"" and not head.is_cacheable
