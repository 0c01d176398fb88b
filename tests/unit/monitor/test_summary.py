from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from modelyard import events
from modelyard.events import Failures, Part, ProfileCounts, Segment
from modelyard.monitor import profile
from modelyard.monitor.profile import Binner, Profile, measure
from modelyard.monitor.summary import summary, unkept, unlogged
from modelyard.monitor.windows import Windows
from modelyard.types import Digest, Schema, TensorSpec

DIGEST = Digest("sha256:" + "0" * 64)
OTHER = Digest("sha256:" + "1" * 64)
SCHEMA = Schema(
    inputs=(TensorSpec(name="hum", datatype="FP64", shape=(-1, 1)), TensorSpec(name="temp", datatype="FP64", shape=(-1, 1))),
    outputs=(),
    layout="frame",
    task="other",
)


def draw(rows: int, seed: int, *, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"hum": rng.normal(size=(rows, 1)), "temp": rng.normal(shift, 1, size=(rows, 1))}


@pytest.fixture
def reference() -> Profile:
    return measure(draw(3000, 0), SCHEMA)


def seen(reference: Profile, at: float, *, digest: Digest = DIGEST, version: int = 1, shift: float = 0.0) -> Segment:
    binner = Binner(reference)
    binner.add(draw(400, int(at), shift=shift), {})
    latencies = events.Latencies()
    latencies.add([0.001] * 396 + [0.1] * 4)
    part = Part(
        name="bikes",
        version=version,
        digest=digest,
        requests=400,
        rows=400,
        latencies=latencies.buckets(),
        failures={"schema_mismatch": Failures(requests=3, seconds=0.1)},
        profiles=(ProfileCounts(share=1.0, counts=profile.pack(binner.take())),),
        dropped={"inputs": 2},
    )
    return Segment(slot=0, pid=1, started_at=at - 10, ended_at=at, parts=(part,))


def test_what_could_not_be_kept_is_told_while_it_is_of_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows(tmp_path / "w.sqlite")
    assert unkept(windows, since=0) == ()
    monkeypatch.setattr("time.time", lambda: 90_000.0)
    windows.trouble("lost", 3)
    windows.trouble("lost", 4)
    assert unkept(windows, since=90_000) == ("7 segments of observations found no room and are lost; the last at 1970-01-02 01:00 UTC",)
    assert unkept(windows, since=90_001) == () and windows.troubles() == {"lost": 7}
    with contextlib.closing(sqlite3.connect(tmp_path / "w.sqlite")) as earlier, earlier:
        earlier.execute("DELETE FROM troubles WHERE kind LIKE 'at:%'")
    assert unkept(windows, since=90_001) == ("7 segments of observations found no room and are lost",), "by an earlier release: who knows when"


def test_what_the_log_lacks_is_told_in_rows() -> None:
    assert unlogged({}) == "" and unlogged({"inputs": 0}) == ""
    assert unlogged({"inputs": 2}).startswith("the inputs of 2 rows found no room")
    assert unlogged({"inputs": 2, "predictions": 1500}).startswith("the answers of 1,500 rows and the inputs of 2 rows found no room")


def test_traffic_latency_errors_and_shift_are_told(tmp_path: Path, reference: Profile) -> None:
    windows = Windows(tmp_path / "w.sqlite")
    segments = {
        "a": seen(reference, 10_000, shift=0.6),
        "b": seen(reference, 10_010, shift=0.6),
        "c": seen(reference, 10_005, digest=OTHER, version=2),
    }
    windows.take(segments, day_of=lambda _: "1970-01-01")
    told = summary(windows, "bikes", now=10_020, digest=DIGEST, reference=reference)
    assert (told.requests, told.rows, told.active_s, told.requests_s) == (1200, 1200, 20, 60)
    assert told.p50_s == pytest.approx(0.001, rel=0.05)
    assert told.p99_s == pytest.approx(0.1, rel=0.05) or told.p99_s == pytest.approx(0.001, rel=0.05)
    assert told.failures == {"schema_mismatch": 9}
    assert [(item.version, item.requests) for item in told.versions] == [(1, 800), (2, 400)]
    assert told.dropped == {"inputs": 6}
    assert told.profiled_rows == 800
    assert [shift.feature for shift in told.shifts] == ["temp", "hum"]
    assert told.shifts[0].mean_shift == pytest.approx(0.6, abs=0.1)
    assert told.shifts[0].q < 1e-9 < told.shifts[1].q


def test_a_deployment_without_traffic_has_zeros_and_no_latency(tmp_path: Path, reference: Profile) -> None:
    told = summary(Windows(tmp_path / "w.sqlite"), "bikes", now=10_000, digest=DIGEST, reference=reference)
    assert (told.requests, told.requests_s, told.p50_s, told.p99_s, told.shifts) == (0, 0.0, None, None, ())


def test_counts_of_other_bins_do_not_hide_the_traffic(tmp_path: Path, reference: Profile) -> None:
    windows = Windows(tmp_path / "w.sqlite")
    windows.take({"a": seen(reference, 10_000)}, day_of=lambda _: "1970-01-01")
    fewer = Profile(features=reference.features[:1])
    told = summary(windows, "bikes", now=10_020, digest=DIGEST, reference=fewer)
    assert (told.requests, told.shifts) == (400, ())
