from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.errors import Conflict, MalformedPayload, StorageFull, Unavailable
from modelyard.events import Part, ProfileCounts, Rows, Segment, Spool
from modelyard.monitor import export, profile
from modelyard.monitor.export import Exporter, due_s, run
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)
NOW = 1_800_000_030.0


class Place:
    """A destination that keeps what it gets, and fails as it is told: `got` counts once, as a home does, `there` is what lies in a store."""

    def __init__(self) -> None:
        self.got: dict[str, Segment] = {}
        self.there: dict[str, Segment] = {}
        self.puts: list[str] = []
        self.stamps: list[float] = []
        self.fails: list[Exception] = []

    def put(self, name: str, data: bytes, *, at: float) -> None:
        self.puts.append(name)
        self.stamps.append(at)
        if self.fails:
            raise self.fails.pop(0)
        self.got.setdefault(name, events.decode(data))
        self.there[name] = events.decode(data)

    def close(self) -> None:
        return

    @property
    def requests(self) -> int:
        return sum(part.requests for segment in self.got.values() for part in segment.parts)

    @property
    def lost(self) -> int:
        return sum(segment.lost for segment in self.got.values())


def segment(at: float, *, requests: int = 1, rows: Rows | None = None, counts: tuple[int, ...] = (1, 1)) -> Segment:
    part = Part(
        name="m",
        version=1,
        digest=DIGEST,
        requests=requests,
        profiles=(ProfileCounts(share=1.0, counts=profile.pack(np.array(counts))),),
        predictions=rows,
    )
    return Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part,))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", slot=0, limit_bytes=1 << 30)


@pytest.fixture
def place() -> Place:
    return Place()


def exporter(spool: Spool, place: Place, **more: object) -> Exporter:
    return Exporter(spool.folder, place, host="here", **more)  # type: ignore[arg-type]


def drain(made: Exporter, *, now: float = NOW, is_last: bool = False) -> int:
    turns = 0
    while made.turn(now=now, is_last=is_last):
        turns += 1
    return turns


def test_each_closed_minute_is_sent_as_one_and_the_open_one_waits(spool: Spool, place: Place) -> None:
    for second in range(-120, 20, 10):
        spool.write(segment(NOW + second))
    made = exporter(spool, place)
    assert drain(made) == 2
    assert [len(each.parts) for each in place.got.values()] == [1, 1] and place.requests == 9
    assert len(events.pending(spool.folder)) == 5
    assert drain(made, now=NOW + 60) == 1 and place.requests == 14
    assert {name.rpartition("-")[0] for name in place.got} == {made.source} and made.source.startswith("here.")
    assert [int(name.rpartition("-")[2]) for name in place.puts] == [1, 2, 3], "one after the other, so that few bytes say what was taken"


def test_at_the_end_the_open_minute_goes_too(spool: Spool, place: Place) -> None:
    spool.write(segment(NOW))
    assert drain(exporter(spool, place)) == 0
    assert drain(exporter(spool, place), is_last=True) == 1 and place.requests == 1


def test_what_did_not_arrive_is_sent_again_under_its_number_by_whoever_comes_next(spool: Spool, place: Place) -> None:
    for _ in range(3):
        spool.write(segment(NOW - 60))
    place.fails = [Unavailable("away")]
    with pytest.raises(Unavailable):
        exporter(spool, place).turn(now=NOW)
    spool.write(segment(NOW - 60, requests=10))
    assert len(events.pending(spool.folder)) == 4, "it all waits in the spool, within its cap"
    again = exporter(spool, place)
    assert drain(again, now=NOW + 1) == 2
    assert place.puts[0] == place.puts[1] != place.puts[2] and place.requests == 13


@pytest.mark.parametrize("moment", ["before the first deletion", "between deletions", "before it is written down"])
def test_a_kill_after_the_arrival_sends_nothing_twice(spool: Spool, place: Place, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        spool.write(segment(NOW - 60))
    made, unlink, left = (
        exporter(spool, place),
        Path.unlink,
        {"before the first deletion": 0, "between deletions": 1, "before it is written down": 3}[moment],
    )

    def dying(path: Path, missing_ok: bool = False) -> None:
        nonlocal left
        if path.suffix == events.SUFFIX and left == 0:
            raise KeyboardInterrupt
        left -= path.suffix == events.SUFFIX
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", dying)
        if moment == "before it is written down":
            patch.setattr(made, "_write", lambda state: (_ for _ in ()).throw(KeyboardInterrupt) if not state.files else Exporter._write(made, state))
        made.turn(now=NOW)
    assert place.requests == 3
    spool.write(segment(NOW - 60, requests=10))
    drain(exporter(spool, place))
    assert place.requests == 13 and events.pending(spool.folder) == []
    there = sum(part.requests for each in place.there.values() for part in each.parts)
    assert there == 13, "in a store, which keeps what came last under a name, no part stands for the whole"


def test_on_a_full_disk_what_has_arrived_goes_and_makes_room(spool: Spool, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        spool.write(segment(NOW - 60))
    made, write = exporter(spool, place), export.write_atomically
    place.fails = [Unavailable("away")]
    with pytest.raises(Unavailable):
        made.turn(now=NOW)

    def full(path: Path, data: bytes, **more: Any) -> None:
        if events.pending(spool.folder):
            raise StorageFull("no space left")
        write(path, data, **more)

    monkeypatch.setattr(export, "write_atomically", full)
    assert made.turn(now=NOW) and place.requests == 3
    assert events.pending(spool.folder) == [] and not exporter(spool, place).turn(now=NOW)


def test_a_spoilt_note_makes_another_source_so_that_no_number_is_used_twice(spool: Spool, place: Place) -> None:
    spool.write(segment(NOW - 60))
    first = exporter(spool, place)
    drain(first)
    (spool.folder / export.FILE).write_bytes(b"{")
    spool.write(segment(NOW - 60))
    second = exporter(spool, place)
    drain(second)
    assert second.source != first.source and place.requests == 2


def test_what_is_refused_for_good_is_counted_with_the_next_that_arrives(spool: Spool, place: Place) -> None:
    for second in (-120, -120, -60):
        spool.write(segment(NOW + second))
    place.fails = [MalformedPayload("no segment")]
    assert drain(exporter(spool, place)) == 2
    assert (place.requests, place.lost) == (1, 2) and events.pending(spool.folder) == []


def test_what_is_no_segment_is_set_aside_and_counted(spool: Spool, place: Place) -> None:
    (spool.folder / "0-1-1.segment").write_bytes(b"no")
    spool.write(segment(NOW - 60))
    drain(exporter(spool, place))
    assert (place.requests, place.lost) == (1, 1)
    assert [path.name for path in (spool.folder / "set-aside").iterdir()] == ["0-1-1.segment"]


def test_counts_in_other_bins_are_sent_apart(spool: Spool, place: Place) -> None:
    spool.write(segment(NOW - 60))
    spool.write(segment(NOW - 60, counts=(1, 1, 1)))
    spool.write(segment(NOW - 60, counts=(1, 1, 1)))
    assert drain(exporter(spool, place)) == 2 and place.requests == 3
    with pytest.raises(Conflict):
        export.merge(tuple(place.got.values()))


def test_rows_that_make_it_too_large_are_dropped_and_counted(spool: Spool, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tuple(f"{number:064}" for number in range(40))
    rows = Rows(share=1.0, ids=ids, times=np.zeros(40).tobytes(), columns=(events.column("prediction", np.zeros(40)),))
    spool.write(segment(NOW - 60, rows=rows))
    with monkeypatch.context() as patch:
        patch.setattr(export, "SENT_LIMIT_BYTES", 2000)
        drain(exporter(spool, place))
    (part,) = next(iter(place.got.values())).parts
    assert (part.requests, part.predictions, part.dropped) == (1, None, {"predictions": 40})
    spool.write(segment(NOW - 60))
    with monkeypatch.context() as patch:
        patch.setattr(export, "SENT_LIMIT_BYTES", 20)
        drain(exporter(spool, place))
    spool.write(segment(NOW - 60))
    drain(exporter(spool, place))
    assert (place.requests, place.lost) == (2, 1)


def test_a_folder_of_its_own_is_kept_within_its_limit_and_the_oldest_go(spool: Spool, place: Place) -> None:
    for number in range(10):
        spool.write(segment(NOW - 60 * (12 - number)))
    size = events.pending(spool.folder)[0].stat().st_size
    place.fails = [Unavailable("away")]
    made = exporter(spool, place, limit_bytes=size * 4)
    with pytest.raises(Unavailable):
        made.turn(now=NOW)
    assert len(events.pending(spool.folder)) == 4
    for path in events.pending(spool.folder)[:1]:  # of the batch that is on its way
        os.utime(path, (1, 1))
    spool.write(segment(NOW - 60))
    drain(made, now=NOW + 1)
    assert (place.requests, place.lost) == (4, 7), "each is counted where it went"


def test_what_waited_long_is_sent_as_of_now(spool: Spool, place: Place) -> None:
    spool.write(segment(NOW - 60))
    place.fails = [Unavailable("away")] * 2
    made = exporter(spool, place)
    for now in (NOW, NOW + 30):
        with pytest.raises(Unavailable):
            made.turn(now=now)
    made.turn(now=NOW + 3600)
    assert place.stamps == [NOW, NOW, NOW + 3600] and len(set(place.puts)) == 1


def test_a_minute_ahead_does_not_wait_for_its_time(spool: Spool, place: Place) -> None:
    spool.write(segment(NOW + 86400))
    spool.write(segment(NOW - 60))
    assert drain(exporter(spool, place)) == 2


def test_a_large_minute_goes_in_several_batches(spool: Spool, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH_SEGMENTS", 4)
    for _ in range(10):
        spool.write(segment(NOW - 60))
    assert drain(exporter(spool, place)) == 3 and place.requests == 10


def test_it_is_due_a_little_after_the_end_of_each_minute() -> None:
    assert [due_s(now, 5.0) for now in (0.0, 4.0, 5.0, 6.0, 64.0)] == [5.0, 1.0, 60.0, 59.0, 1.0]


def test_a_loop_waits_after_failures_and_sends_what_is_left_at_its_end(spool: Spool, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LONGEST_PAUSE_S", 0.01)
    spool.write(segment(time.time() - 60))
    place.fails = [Unavailable("away"), RuntimeError("worse")]
    stop, told = threading.Event(), []
    arrived = threading.Event()
    thread = threading.Thread(target=run, args=(exporter(spool, place), stop), kwargs={"failed": told.append, "went_well": arrived.set})
    thread.start()
    assert arrived.wait(20)
    spool.write(segment(time.time(), requests=5))
    stop.set()
    thread.join(20)
    assert [type(error) for error in told] == [Unavailable, RuntimeError] and place.requests == 6


def test_as_a_process_it_sends_to_a_store_and_ends_with_who_holds_its_input(spool: Spool, tmp_path: Path) -> None:
    spool.write(segment(time.time() - 60))
    command = [sys.executable, "-P", "-m", "modelyard.monitor.export", "--spool", str(spool.folder), "--beside"]
    environment = {**os.environ, "MODELYARD_EXPORT_URL": (tmp_path / "store").as_uri()}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
        until = time.monotonic() + 60
        while events.pending(spool.folder) and time.monotonic() < until:
            time.sleep(0.05)
        spool.write(segment(time.time(), requests=7))
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
    found = [events.decode(path.read_bytes()) for path in (tmp_path / "store" / "v1").rglob("*.segment")]
    assert sum(part.requests for each in found for part in each.parts) == 8


def test_a_setting_that_cannot_be_honoured_ends_it_with_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "modelyard.monitor.export", "--spool", str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "MODELYARD_EXPORT_URL": "nonsense"}, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "export_url" in done.stderr


def test_the_note_holds_no_secret_and_is_its_owners_alone(spool: Spool, place: Place) -> None:
    exporter(spool, place)._write(export.State(source="here.0", number=3))
    path = spool.folder / export.FILE
    assert path.stat().st_mode & 0o077 == 0
    assert msgspec.json.decode(path.read_bytes()) == {"source": "here.0", "number": 3, "files": [], "at": 0.0, "lost": 0, "has_arrived": False}


@pytest.mark.parametrize("refusal", [MalformedPayload("none of ours"), Conflict("other bins")], ids=lambda each: type(each).__name__)
def test_one_that_may_lose_nothing_keeps_what_is_refused_and_waits_for_no_minute(spool: Spool, place: Place, refusal: Exception) -> None:
    spool.write(segment(NOW))
    place.fails = [refusal]
    made = exporter(spool, place, lossless=True)
    with pytest.raises(type(refusal)):
        made.turn(now=NOW)
    assert len(events.pending(spool.folder)) == 1
    assert drain(made) == 1 and place.requests == 1 and place.lost == 0 and len(set(place.puts)) == 1
