"""Minutes at hand: only what has come or changed is read (that they are what the file holds: tests/property/test_recent_laws.py)."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from modelyard.errors import Unavailable
from modelyard.events import Part, ProfileCounts, Segment
from modelyard.monitor import profile
from modelyard.monitor.recent import MINUTE_BYTES, Recent
from modelyard.monitor.windows import Windows
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)


class Home:
    """A file of windows that says which stretches were read of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.windows, self.read, self._count = Windows(folder / "monitor.sqlite"), list[tuple[int, int]](), 0
        self.is_broken = False
        real = self.windows.minutes

        def minutes(name: str, digest: Digest, *, since: float, until: float):
            if self.is_broken:
                raise Unavailable("the disk is gone")
            self.read.append((int(since), int(until)))
            return real(name, digest, since=since, until=until)

        monkeypatch.setattr(self.windows, "minutes", minutes)

    def take(self, *minutes: int, name: str = "m") -> None:
        shown = (ProfileCounts(share=1.0, counts=profile.pack(np.array([1, 1, 0]))),)
        part = Part(name=name, version=1, digest=DIGEST, requests=1, rows=1, profiles=shown)
        for minute in minutes:
            self._count += 1
            at = minute * 60.0 + 30.0
            self.windows.take({f"0-1-{self._count}.segment": Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part,))}, day_of=str)

    def look(self, kept: Recent, first: int, last: int) -> list[int]:
        self.read.clear()
        return [each.start // 60 for each in kept.look(self.windows, since=first * 60, until=last * 60)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


def test_a_turn_reads_what_is_new_and_what_came_late(home: Home) -> None:
    kept = Recent("m", DIGEST)
    home.take(*range(100, 110))
    assert home.look(kept, 100, 110) == list(range(100, 110)) and home.read == [(6000, 6600)]
    assert home.look(kept, 100, 110) == list(range(100, 110)) and home.read == []
    home.take(110, name="other")
    home.take(110)
    assert home.look(kept, 101, 111) == list(range(101, 111)) and home.read == [(6600, 6660)]
    home.take(103, 105, 106, 111, 50)
    found = kept.look(home.windows, since=102 * 60, until=112 * 60)
    assert home.read[1:] == [(6180, 6240), (6300, 6420), (6660, 6720)]
    assert [each.requests for each in found] == [1, 2, 1, 2, 2, 1, 1, 1, 1, 1]


def test_a_longer_window_reads_what_lies_before_and_a_gap_all_anew(home: Home) -> None:
    kept = Recent("m", DIGEST)
    home.take(10, 20, 30)
    assert home.look(kept, 20, 31) == [20, 30]
    assert home.look(kept, 5, 31) == [10, 20, 30] and home.read == [(300, 1200)]
    assert home.look(kept, 5, 25) == [10, 20] and home.read == [], "a clock that was put back"
    assert home.look(kept, 5, 31) == [10, 20, 30] and home.read == []
    assert home.look(kept, 40, 50) == [] and home.read == [(2400, 3000)]
    assert home.look(kept, 0, 15) == [10] and home.read == [(0, 900)]


def test_where_reading_fails_the_next_turn_reads_all(home: Home) -> None:
    kept = Recent("m", DIGEST)
    home.take(10, 11)
    home.look(kept, 10, 12)
    home.take(12)
    home.is_broken = True
    with pytest.raises(Unavailable):
        home.look(kept, 10, 13)
    home.is_broken = False
    assert home.look(kept, 10, 13) == [10, 11, 12] and home.read == [(600, 780)]


def test_a_file_that_was_put_in_anothers_place_is_read_anew(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Recent("m", DIGEST)
    home.take(10, 11, 12)
    home.look(kept, 10, 13)
    (tmp_path / "other").mkdir()
    other = Home(tmp_path / "other", monkeypatch)
    other.take(11)
    assert other.look(kept, 10, 13) == [11]


def test_what_is_at_hand_can_be_changed_by_nobody_and_says_its_size(home: Home) -> None:
    kept = Recent("m", DIGEST)
    home.take(10, 11)
    found = kept.look(home.windows, since=600, until=720)
    assert kept.size_bytes == 2 * (3 * 8 + MINUTE_BYTES) and found[0].counts is not None
    with pytest.raises(ValueError, match="read-only"):
        found[0].counts += 1


def test_the_size_is_about_what_memory_is_taken(home: Home) -> None:
    latencies = {bucket: 1000 + bucket for bucket in range(300, 360)}
    for minute in range(200):
        part = Part(name="m", version=1, digest=DIGEST, requests=1, rows=1, latencies=latencies)
        at = minute * 60.0 + 30.0
        home.windows.take({f"0-1-{minute}.segment": Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part,))}, day_of=str)
    kept = Recent("m", DIGEST)
    kept.look(home.windows, since=0, until=60)  # what is made once
    tracemalloc.start()
    try:
        kept.look(home.windows, since=0, until=200 * 60)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / 2 < kept.size_bytes < taken * 2
