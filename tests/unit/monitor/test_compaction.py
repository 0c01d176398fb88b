from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard.config import Settings
from modelyard.events import Failures, Part, ProfileCounts, Segment
from modelyard.monitor import profile
from modelyard.monitor.compaction import Ages, ages, compact, due
from modelyard.monitor.windows import DAY_S, HOUR_S, WINDOW_S, Windows
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)
KEPT = Ages(counters_s=3 * HOUR_S, profiles_s=2 * HOUR_S, hours_s=2 * DAY_S)
DAYS = 5


def seen(at: float, *, requests: int = 2, share: float = 1.0, counts: tuple[int, ...] = (2, 1, 1), name: str = "m", version: int = 1) -> Segment:
    part = Part(
        name=name,
        version=version,
        digest=DIGEST,
        requests=requests,
        rows=requests,
        failures={"overloaded": Failures(requests=1, seconds=0.5)},
        latencies={80: requests},
        dropped={"inputs": 1},
        profiles=(ProfileCounts(share=share, counts=profile.pack(np.array(counts))),),
    )
    return Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part,))


class Filled(Windows):
    """Windows that number what they take."""

    given = 0

    def add(self, *segments: Segment) -> None:
        self.given += len(segments)
        named = {f"x-{self.given - place}": segment for place, segment in enumerate(segments)}
        assert self.take(named, day_of=lambda at: "1970-01-01") == len(segments)


def told(windows: Windows, *, since: float = 0) -> object:
    counts = windows.counts("m", DIGEST, since=since)
    return windows.seen("m", since=since), None if counts is None else counts.tolist(), windows.active_s("m", since=since)


def rolled(windows: Windows, now: float) -> int:
    turns = 0
    while compact(windows, now=now, kept=KEPT, at_once=7):
        turns += 1
    return turns


@pytest.fixture
def windows(tmp_path: Path) -> Filled:
    """Five days of `m`, every ten minutes, with a second version on the third day; an hour of `n`."""
    made = Filled(tmp_path / "w.sqlite")
    for at in range(30, DAYS * DAY_S, 600):
        made.add(seen(at, requests=1 + at % 7, version=2 if at > 3 * DAY_S else 1))
    made.add(seen(3600.0, name="n"))
    return made


def test_what_is_told_of_a_span_stays_the_same(windows: Filled) -> None:
    now = DAYS * DAY_S
    spans = [0, DAY_S, 3 * DAY_S, now - 3 * HOUR_S, now - HOUR_S]
    before = [told(windows, since=since) for since in spans]
    assert rolled(windows, now) > 1, "a bounded piece at a time"
    assert [told(windows, since=since) for since in spans] == before
    assert windows.names() == ("m", "n")
    assert windows.oldest("windows", WINDOW_S) == {"m": now - 3 * HOUR_S} and windows.oldest("profiles", WINDOW_S) == {"m": now - 2 * HOUR_S}
    assert windows.oldest("windows", HOUR_S)["m"] == 3 * DAY_S and windows.oldest("profiles", DAY_S)["m"] == 0
    assert not list(due(windows, now=now, kept=KEPT)), "and nothing is left to do"


def test_a_month_rolled_at_once_is_the_month_rolled_hour_by_hour(windows: Filled, tmp_path: Path) -> None:
    other = Filled(tmp_path / "other.sqlite")
    for at in range(30, DAYS * DAY_S, 600):
        other.add(seen(at, requests=1 + at % 7, version=2 if at > 3 * DAY_S else 1))
        compact(other, now=at, kept=KEPT)
    rolled(other, DAYS * DAY_S)
    rolled(windows, DAYS * DAY_S)
    assert told(other) == told(windows)


def test_what_comes_late_is_added_to_the_hour_and_the_day_that_it_belongs_to(windows: Filled) -> None:
    now = DAYS * DAY_S
    rolled(windows, now)
    windows.add(seen(100.0, requests=5), seen(now - 5 * HOUR_S, requests=6, share=0.5))
    before = told(windows)
    rolled(windows, now)
    assert told(windows) == before
    assert windows.oldest("windows", WINDOW_S) == {"m": now - 3 * HOUR_S}
    day = windows._connection.execute("SELECT count(*) FROM rolled WHERE name = 'm' AND span = ? AND start = 0", (DAY_S,)).fetchone()
    assert day == (1,)


def test_counts_in_other_bins_leave_those_of_before_and_are_told_of(windows: Filled) -> None:
    now = DAYS * DAY_S
    windows.add(seen(now - 4 * HOUR_S + 1900, counts=(7, 3, 3, 1)), seen(now - 4 * HOUR_S + 1960, counts=(7, 3, 3, 1)))
    rolled(windows, now)
    blob = windows._connection.execute("SELECT counts FROM rolled_profiles WHERE span = 3600 AND start = ?", (now - 4 * HOUR_S,)).fetchone()[0]
    assert len(profile.unpack(blob)) == 3, "the newest stay"
    assert windows.troubles()["rebinned"] == 2


def test_retention_takes_whole_windows_of_every_span(windows: Filled) -> None:
    rolled(windows, DAYS * DAY_S)
    windows.forget(before=2 * DAY_S, waiting=())
    (first, second) = (windows.seen("m", since=0)[key] for key in sorted(windows.seen("m", since=0)))
    assert first.started_at >= 2 * DAY_S - 1 and second.ended_at > first.ended_at
    assert windows.oldest("windows", DAY_S) == {"m": 2 * DAY_S}
    windows.forget(before=10 * DAY_S, waiting=())
    assert windows.names() == () and windows.active_s("m", since=0) == 0 and windows.counts("m", DIGEST, since=0) is None


def test_windows_of_any_span_are_told_each_second_once(windows: Filled) -> None:
    now = DAYS * DAY_S
    before = windows.minutes("m", DIGEST, since=0, until=now)
    rolled(windows, now)
    after = windows.minutes("m", DIGEST, since=0, until=now)
    assert {each.span_s for each in before} == {WINDOW_S} and {each.span_s for each in after} == {WINDOW_S, HOUR_S, DAY_S}
    assert sum(each.requests for each in after) == sum(each.requests for each in before)
    total = [sum(each.counts for each in some if each.counts is not None).tolist() for some in (before, after)]  # type: ignore[union-attr]
    assert total[0] == total[1]
    assert [each.start for each in after] == sorted(each.start for each in after) and len(after) < len(before) / 4
    day = [each for each in after if each.start >= 3 * DAY_S and each.start < 4 * DAY_S]
    assert len(day) == 24 and {each.version for each in day} == {2}


def test_the_rows_of_each_hour_are_told_after_minutes_became_hours(windows: Filled) -> None:
    now = DAYS * DAY_S
    before = windows.hours("m", DIGEST, since=3 * DAY_S + 100)
    rolled(windows, now)
    assert windows.hours("m", DIGEST, since=3 * DAY_S + 100) == before and len(before) == 48
    days = windows.hours("m", DIGEST, since=0)
    assert list(days)[:3] == [0, DAY_S, 2 * DAY_S] and sum(days.values()) == sum(
        each.rows for each in windows.minutes("m", DIGEST, since=0, until=now)
    )


def test_the_ages_are_a_homes_settings(tmp_path: Path) -> None:
    told = ages(Settings(home=tmp_path, minute_counters_hours=4, minute_profiles_hours=3, hour_windows_days=2))
    assert told == Ages(counters_s=4 * HOUR_S, profiles_s=3 * HOUR_S, hours_s=2 * DAY_S)
