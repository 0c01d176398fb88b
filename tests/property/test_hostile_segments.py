"""Whatever a segment says that has the right hash: it is refused by name, or it is taken in, and what is told of it after that can be told."""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard import events
from modelyard.config import Settings
from modelyard.errors import InvalidInput
from modelyard.events import Failures, Mirror, Part, ProfileCounts, Rows, Segment, Use
from modelyard.monitor import profile, receive
from modelyard.monitor.intake import Intake
from modelyard.monitor.summary import summary
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)
NOW = time.time()
ODD: st.SearchStrategy[Any] = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=9)
    | st.none()
    | st.booleans()
    | st.sampled_from([[], {}, [[]], "../..", 2**62, 2**62 - 1, -1, 1e308, math.inf, math.nan, {"": ""}, {0: 0}, {-1: 5}, {10**6: 1}])
)


def valid() -> Any:
    rows = Rows(
        share=1.0,
        ids=("a", "b"),
        times=np.full(2, NOW).tobytes(),
        columns=(events.column("label", np.array(["x", None], dtype=object)), events.column("p", np.zeros((2, 3)))),
    )
    part = Part(
        name="m",
        version=1,
        digest=DIGEST,
        requests=2,
        rows=2,
        failures={"overloaded": Failures(requests=1, seconds=0.5)},
        latencies={80: 2},
        profiles=(ProfileCounts(share=1.0, counts=profile.pack(np.array([2, 1, 1]))),),
        predictions=rows,
        inputs=rows,
        dropped={"inputs": 1},
        generation=1,
        outputs={"label": (1, 1)},
        mirror=Mirror(sent=1, latencies={80: 1}),
        use=Use(looks=1),
    )
    return msgspec.msgpack.decode(msgspec.msgpack.encode(Segment(slot=0, pid=1, started_at=NOW - 1, ended_at=NOW, parts=(part,), lost=1)))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += places(each, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], into: Any) -> Any:
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = into
    return value


def sealed(value: Any) -> bytes:
    body = msgspec.msgpack.encode(value)
    return b"modelyard segment 2\n" + hashlib.sha256(body).digest() + body


PLACES = places(valid())


def told(data: bytes) -> bool:
    """Take it in as if it had been received, and tell all there is to tell; whether it was taken."""
    try:
        receive.read("pod.a-1", data)
    except InvalidInput:
        return False
    with TemporaryDirectory() as folder:
        home = Settings(home=Path(folder))
        home.spool.mkdir()
        (home.spool / "r.key_x.pod.a-1.segment").write_bytes(data)
        with closing(Intake(home)) as intake:
            intake.turn(now=NOW, is_last=True)
            for name in intake.windows.names():
                found = summary(intake.windows, name, now=NOW + 60, recent_s=NOW)
                msgspec.json.encode(found)
                assert all(value is None or math.isfinite(value) for value in (found.p50_s, found.p99_s, found.active_s, found.requests_s))
                intake.windows.minutes(name, DIGEST, since=0, until=NOW + 60)
            assert not events.pending(home.spool)
    return True


def test_what_is_valid_is_taken() -> None:
    assert told(sealed(valid())) and len(PLACES) > 60


def test_a_bucket_that_there_is_not_would_break_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: what is refused here is what the tests below would find."""
    hostile = sealed(changed(valid(), ("parts", 0, "latencies"), {10**6: 1}))
    assert not told(hostile)
    monkeypatch.setattr(events, "LAST_BUCKET", 2**62)
    with pytest.raises(OverflowError):
        told(hostile)


@settings(max_examples=150)
@given(st.sampled_from(PLACES), ODD)
def test_no_value_of_a_segment_breaks_what_is_told(path: tuple[Any, ...], into: Any) -> None:
    told(sealed(changed(valid(), path, into)))


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    assert not told(data)
    told(b"modelyard segment 2\n" + hashlib.sha256(data).digest() + data)
