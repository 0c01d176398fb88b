"""The law of `monitor.recent`: what is kept at hand from turn to turn is what a fresh look finds, and so are the sums over it; whatever comes late,
is rolled up, is let go of, or is done by another process in between. Taking the note of changes away breaks it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.events import Part, ProfileCounts, Segment
from modelyard.monitor import changes, profile
from modelyard.monitor.base import Minute
from modelyard.monitor.recent import Recent
from modelyard.monitor.windows import DAY_S, HOUR_S, WINDOW_S, Windows
from modelyard.types import Digest

DIGESTS = [Digest("sha256:" + letter * 64) for letter in "ab"]
END = 2 * DAY_S
HOURS = st.sampled_from([0, 1, 24, 47])
MINUTES = st.builds(lambda hour, minute: hour * 60 + minute, HOURS, st.sampled_from([0, 1, 30, 59]))
Step = tuple[Any, ...]
STEPS = st.one_of(
    st.tuples(st.just("take"), st.lists(st.tuples(MINUTES, st.integers(0, 1), st.booleans()), min_size=1, max_size=6)),
    st.tuples(st.just("roll"), st.sampled_from(["windows", "profiles"]), HOURS),
    st.tuples(st.just("days"), st.sampled_from(["windows", "profiles"]), st.integers(0, 1)),
    st.tuples(st.just("forget"), st.integers(0, END)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("look"), st.one_of(st.just(0), st.integers(0, END)), st.integers(WINDOW_S, END)),
)


def segment(place: int, version: int, *, is_counted: bool) -> Segment:
    counts = profile.pack(np.array([3, 1, place % 3]))
    shown = (ProfileCounts(share=1.0, counts=counts),) if is_counted else ()
    part = Part(name="m", version=version + 1, digest=DIGESTS[version], requests=3, rows=3, latencies={80: 3}, profiles=shown)
    return Segment(slot=0, pid=1, started_at=place * 60.0, ended_at=place * 60.0 + 30.0, parts=(part,))


def plain(minutes: list[Minute]) -> list[tuple[Any, ...]]:
    return [(*each._replace(counts=None), None if each.counts is None else tuple(each.counts.tolist())) for each in minutes]


def total(minutes: list[Minute]) -> list[int]:
    counts = [each.counts for each in minutes if each.counts is not None]
    return np.sum(counts, axis=0).tolist() if counts else []


def walk(steps: list[Step], path: Path) -> None:
    """Do all that, each look beside a fresh one."""
    kept, number = [Recent("m", digest) for digest in DIGESTS], 0
    for step in [*steps, ("look", 0, END)]:
        with closing(Windows(path)) as windows:  # each time as another process would
            match step:
                case ("take", segments):
                    named = {}
                    for place, version, is_counted in segments:
                        number += 1
                        named[f"0-1-{number}.segment"] = segment(place, version, is_counted=is_counted)
                    windows.take(named, day_of=str)
                case ("roll", table, hour):
                    windows.roll(table, "m", hour * HOUR_S, span=WINDOW_S, into=HOUR_S)
                case ("days", table, day):
                    windows.roll(table, "m", day * DAY_S, span=HOUR_S, into=DAY_S)
                case ("forget", before):
                    windows.forget(before=float(before), waiting=())
                case ("restart",):
                    kept = [Recent("m", digest) for digest in DIGESTS]
                case ("look", since, length):
                    since -= since % WINDOW_S
                    for digest, each in zip(DIGESTS, kept, strict=True):
                        found = each.look(windows, since=since, until=since + length)
                        fresh = windows.minutes("m", digest, since=since, until=since + length)
                        assert plain(found) == plain(fresh)
                        assert total(found) == total(fresh)
                        afresh = Recent("m", digest)
                        afresh.look(windows, since=since, until=since + length)
                        assert length < END or each.size_bytes == afresh.size_bytes, "of all that is at hand, where nothing lies beyond"


@given(steps=st.lists(STEPS, max_size=14))
@settings(deadline=None, max_examples=60)
def test_what_is_at_hand_is_what_a_fresh_look_finds(steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        walk(steps, Path(folder) / "monitor.sqlite")


LATE: list[Step] = [("take", [(100, 0, True)]), ("look", 0, END), ("take", [(100, 0, True)])]
ROLLED: list[Step] = [("take", [(100, 0, True), (101, 0, True)]), ("look", 0, END), ("roll", "windows", 1)]
FORGOTTEN: list[Step] = [("take", [(100, 0, True)]), ("look", 0, END), ("forget", END)]


@pytest.mark.parametrize("steps", [LATE, ROLLED, FORGOTTEN])
def test_without_the_note_of_changes_it_is_not(steps: list[Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk(steps, tmp_path / "noted.sqlite")
    monkeypatch.setattr(changes, "note", lambda *_: None)
    with pytest.raises(AssertionError):
        walk(steps, tmp_path / "unnoted.sqlite")
