from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.config import Settings
from modelyard.errors import MalformedPayload, Misconfigured, StorageFull, Tampered
from modelyard.events import Callers, Failures, Mirror, Part, ProfileCounts, Rows, Segment, Spool, Use
from modelyard.monitor import intake, profile
from modelyard.monitor.intake import Intake
from modelyard.monitor.log import day_of
from modelyard.monitor.windows import Windows
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)


def rows(*ids: str) -> Rows:
    now = np.full(len(ids), time.time()).astype("<f8").tobytes()
    return Rows(share=1.0, ids=ids, times=now, columns=(events.column("prediction", np.arange(len(ids), dtype=float)),))


def part(*ids: str, **changes: object) -> Part:
    whole = Part(
        name="m",
        version=1,
        digest=DIGEST,
        requests=len(ids),
        rows=len(ids),
        profiles=(ProfileCounts(share=1.0, counts=profile.pack(np.array([len(ids)]))),),
        predictions=rows(*ids),
    )
    return msgspec.structs.replace(whole, **changes)


def segment(*parts: Part) -> Segment:
    return Segment(slot=0, pid=1, started_at=time.time() - 1, ended_at=time.time(), parts=parts)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def spool(settings: Settings) -> Spool:
    return Spool(settings.spool, slot=0, limit_bytes=1 << 30)


def logged(settings: Settings) -> list[str]:
    paths = [str(path) for path in (settings.home / "log" / "predictions").rglob("[!.]*.parquet")]
    if not paths:
        return []
    with duckdb.connect() as connection:
        return [row[0] for row in connection.execute("select prediction_id from read_parquet(?) order by 1", [paths]).fetchall()]


def requests(taker: Intake) -> int:
    return sum(window.requests for window in taker.windows.seen("m", since=0).values())


def test_segments_are_taken_in_once_and_deleted(settings: Settings, spool: Spool) -> None:
    for number in range(5):
        spool.write(segment(part(f"a{number}", f"b{number}")))
    copies = {path.name: path.read_bytes() for path in events.pending(settings.spool)}
    taker = Intake(settings)
    assert taker.turn().segments == 5
    assert events.pending(settings.spool) == []
    for name, data in copies.items():
        (settings.spool / name).write_bytes(data)
    assert taker.turn().segments == 0
    assert events.pending(settings.spool) == []
    taker.drain()
    assert requests(taker) == 10
    assert logged(settings) == sorted([f"a{number}" for number in range(5)] + [f"b{number}" for number in range(5)])
    taker.close()


def test_a_crash_between_transaction_and_deletion_counts_nothing_twice(settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.write(segment(part("a")))
    taker = Intake(settings)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            taker.turn()
    again = Intake(settings)
    assert again.turn().segments == 0
    again.drain()
    assert requests(again) == 1
    assert logged(settings) == ["a"]


def test_a_crash_between_log_and_database_writes_nothing_twice(settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.write(segment(part("a")))
    taker = Intake(settings)
    with monkeypatch.context() as patch:
        patch.setattr(taker.windows, "written", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            taker.turn(is_last=True)
    assert logged(settings) == ["a"]
    spool.write(segment(part("b")))
    Intake(settings).drain()
    assert logged(settings) == ["a", "b"]


def test_the_log_is_written_when_it_is_due(settings: Settings, spool: Spool) -> None:
    taker = Intake(settings)
    spool.write(segment(part("a")))
    assert taker.turn().files == 0
    assert taker.turn(now=time.time() + 10 * intake.LOG_EVERY_S).files == 1
    assert taker.turn(now=time.time() + 20 * intake.LOG_EVERY_S).files == 0


@pytest.mark.parametrize(
    "bad",
    [
        part("a", name="../../etc"),
        part("a", digest=Digest("sha256:no")),
        part("a", requests=-1),
        part("a", requests=2**63 - 1),
        part("a", generation=-1),
        part("a", failures={"model_failed": Failures(requests=-1, seconds=0.0)}),
        part("a", outputs={"label": (1, -1)}),
        part("a", mirror=Mirror(sent=-1)),
        part("a", mirror=Mirror(outputs={"label": (-1,)})),
        part("a", callers=Callers(asked={256: 1})),
        part("a", callers=Callers(failed={-1: 1})),
        part("a", callers=Callers(asked={1: -1})),
        part("a", callers=Callers(took={71 * 256: 1})),
        part("a", callers=Callers(outputs={"label": (1, -1) * 64})),
        part("a", callers=Callers(outputs={"label": (1,) * 63})),
        part("a", use=Use(looks=1, cpu_us=-1)),
        part("a", use=Use(looks=1, resident_bytes=2**62)),
        part("a", profiles=(ProfileCounts(share=1.0, counts=b"no"),)),
        part("a", profiles=(ProfileCounts(share=2.0, counts=profile.pack(np.array([1]))),)),
        part("a", predictions=msgspec.structs.replace(rows("a"), times=np.array([np.nan]).tobytes())),
        part("a", predictions=msgspec.structs.replace(rows("a"), columns=rows("a").columns * 2)),
    ],
)
def test_segments_that_no_worker_writes_are_set_aside(settings: Settings, spool: Spool, bad: Part) -> None:
    with pytest.raises(MalformedPayload):
        intake.check(segment(bad))
    spool.write(segment(bad))
    spool.write(segment(part("good")))
    taker = Intake(settings)
    taken = taker.turn()
    assert (taken.segments, taken.set_aside) == (1, 1)
    assert taker.windows.troubles() == {"corrupt": 1}
    assert len(list((settings.spool / "set-aside").iterdir())) == 1
    assert taker.turn().set_aside == 0


def test_bytes_that_are_no_segment_are_set_aside_and_do_not_pile_up(settings: Settings) -> None:
    taker = Intake(settings)
    for number in range(events.SET_ASIDE + 20):
        (settings.spool / f"0-1-{number}.segment").write_bytes(b"no" * number)
    (settings.spool / "0-1-folder.segment").mkdir()
    assert taker.turn().set_aside == events.SET_ASIDE + 21
    assert len(list((settings.spool / "set-aside").iterdir())) == events.SET_ASIDE
    assert events.pending(settings.spool) == []


def test_counts_that_contradict_kept_ones_are_set_aside_alone(settings: Settings, spool: Spool) -> None:
    taker = Intake(settings)
    spool.write(segment(part("a")))
    spool.write(segment(part("b", profiles=(ProfileCounts(share=1.0, counts=profile.pack(np.array([1, 1]))),))))
    spool.write(segment(part("c")))
    taker.drain()
    assert logged(settings) == ["a", "c"]
    assert taker.windows.troubles() == {"corrupt": 1}


def test_many_segments_are_taken_in_bounded_turns(settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "TURN_SEGMENTS", 3)
    for number in range(8):
        spool.write(segment(part(str(number))))
    taker = Intake(settings)
    assert [taker.turn().is_more for _ in range(3)] == [True, True, False]
    assert requests(taker) == 8


def test_what_others_have_counted_is_taken_in_for_so_long_and_what_is_counted_here_first(
    settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction for each portion, so many of them as there is time for and at least one; this home's own in one, before them."""
    monkeypatch.setattr(intake, "PORTION", 4)
    now_s = [0.0]
    taken: list[list[str]] = []
    take = Windows.take

    def slow(windows: Windows, segments: dict[str, Segment], **more: object) -> int:
        taken.append([name.partition("-")[0] for name in segments])
        now_s[0] += intake.OTHERS_S / 1.5
        return take(windows, segments, **more)  # type: ignore[arg-type]  # as it was given

    monkeypatch.setattr(Windows, "take", slow)
    for number in range(20):
        (settings.spool / f"r.x.h{number:02d}.a-1{events.SUFFIX}").write_bytes(events.encode(segment(part(f"other-{number}"))))
    taker = Intake(settings, monotonic=lambda: now_s[0])
    for number in range(6):
        spool.write(segment(part(f"own-{number}")))
    assert taker.turn().is_more
    assert [len(each) for each in taken] == [6, 4, 4] and set(taken[0]) == {"0"}
    spool.write(segment(part("own-6")))
    monkeypatch.setattr(intake, "OTHERS_S", 0.0)
    assert taker.turn().is_more and [len(each) for each in taken[3:]] == [1, 4], "some go on in any turn"
    monkeypatch.setattr(intake, "OTHERS_S", 1e9)
    assert not taker.turn().is_more and [len(each) for each in taken[5:]] == [4, 4]
    assert requests(taker) == 27


def test_a_portion_of_others_is_bounded_in_bytes_too(settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "PORTION_BYTES", 1)
    for number in range(3):
        (settings.spool / f"r.x.h{number}.a-1{events.SUFFIX}").write_bytes(events.encode(segment(part(f"other-{number}"))))
        spool.write(segment(part(f"own-{number}")))
    taker = Intake(settings)
    sizes: list[int] = []
    take = Windows.take
    monkeypatch.setattr(Windows, "take", lambda windows, segments, **more: sizes.append(len(segments)) or take(windows, segments, **more))
    while taker.turn().is_more:
        pass
    assert sizes == [3, 1, 1, 1] and requests(taker) == 6


def test_on_a_full_disk_segments_wait(settings: Settings, spool: Spool) -> None:
    taker = Intake(settings)
    spool.write(segment(part("first")))
    taker.turn(is_last=True)
    pages = taker.windows._connection.execute("PRAGMA page_count").fetchone()[0]
    taker.windows._connection.execute(f"PRAGMA max_page_count={pages}")
    spool.write(segment(part(*[f"id-{number}" for number in range(20_000)])))
    with pytest.raises(StorageFull):
        taker.turn()
    assert len(events.pending(settings.spool)) == 1
    taker.windows._connection.execute("PRAGMA max_page_count=1000000")
    taker.drain()
    assert len(logged(settings)) == 20_001


def test_rows_wait_while_the_folder_of_the_log_cannot_be_written(settings: Settings, spool: Spool) -> None:
    taker = Intake(settings)
    blocked = settings.home / "log" / "predictions"
    blocked.touch()
    spool.write(segment(part("a")))
    with pytest.raises(Misconfigured):
        taker.drain()
    blocked.unlink()
    taker.drain()
    assert logged(settings) == ["a"]
    assert requests(taker) == 1
    taker.close()


def test_what_is_older_than_the_home_keeps_goes(settings: Settings, spool: Spool) -> None:
    spool.write(segment(part("a")))
    stray = settings.spool / ".0-1-2.segment.abcd.tmp"
    stray.touch()
    os.utime(stray, (1, 1))
    fresh = settings.spool / ".0-1-3.segment.abcd.tmp"
    fresh.touch()
    taker = Intake(settings)
    taker.turn(is_last=True)
    assert not stray.exists()
    assert fresh.exists()
    ran_s = 0
    later = Intake(settings, monotonic=lambda: ran_s)
    ahead = time.time() + (settings.retention_days + 2) * 86400
    for ran_s in range(0, (settings.retention_days + 3) * 3600, 3601):
        later.turn(now=ahead + ran_s)
    assert logged(settings) == []
    assert later.windows.names() == ()


def test_a_clock_that_is_put_years_ahead_lets_nothing_go_at_once_nor_does_a_restart(
    settings: Settings, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    spool.write(segment(part("a")))
    ran_s = 0.0
    taker = Intake(settings, monotonic=lambda: ran_s)
    taker.turn(is_last=True)
    rows, ahead = logged(settings), time.time() + 10 * 365 * 86_400
    for _ in range(2):
        ran_s += 3601
        taker.turn(now=ahead + ran_s)
    for _ in range(5):
        taker.close()
        taker = Intake(settings, monotonic=lambda: ran_s)
        taker.turn(now=ahead + ran_s)
    assert rows and logged(settings) == rows
    assert taker.windows.oldest("windows", 60), "nor do its minutes become hours"
    assert "days after what this home knows of time" in caplog.text
    taker.turn(now=time.time())
    ran_s += 3601
    taker.turn(now=time.time() + ran_s)
    assert logged(settings) == rows and abs((taker.windows.believed() or 0.0) - time.time() - ran_s) < 60, "a clock that is put right is believed"


def test_a_clock_that_is_not_set_yet_when_the_machine_starts_ends_no_retention(settings: Settings, spool: Spool) -> None:
    taker = Intake(settings)
    taker.turn()
    taker.close()
    starting = Intake(settings)
    starting.turn(now=86_400.0)
    starting.close()
    ran_s = 0.0
    again = Intake(settings, monotonic=lambda: ran_s)
    again.turn()
    assert abs((again.windows.believed() or 0.0) - time.time()) < 60
    for ran_s in (3601.0, 7202.0):
        again.turn(now=86_400.0 + ran_s)
    assert (again.windows.believed() or 0.0) < 1e6, "where it stands for an hour it is believed"


# -- clocks ----------------------------------------------------------------------------------------------------------------------------------


def test_what_says_that_it_comes_from_the_future_counts_now_and_is_told_of(settings: Settings, spool: Spool) -> None:
    now = time.time()
    for ahead_s, name in ((90.0, "near"), (86_400.0, "tomorrow"), (3e9, "far")):
        spool.write(Segment(slot=0, pid=1, started_at=now + ahead_s - 1, ended_at=now + ahead_s, parts=(part(name),)))
    taker = Intake(settings)
    taker.turn(now=now, is_last=True)
    (window,) = taker.windows.seen("m", since=now - 60).values()
    assert window.requests == 3 and window.ended_at == now + 90.0, "a little ahead is another machine's clock; nothing lies beyond that"
    assert taker.windows.troubles() == {"early": 2}
    assert {path.parent.name for path in (settings.home / "log").rglob("[!.]*.parquet")} == {day_of(now)}


def test_what_is_older_than_anything_that_is_kept_is_told_of(settings: Settings, spool: Spool) -> None:
    now = time.time()
    for age_days in (1, settings.retention_days + 1, 20_000):
        spool.write(Segment(slot=0, pid=1, started_at=0.0, ended_at=max(now - age_days * 86_400, 1.0), parts=(part("a"),)))
    taker = Intake(settings)
    assert taker.turn(now=now).segments == 3
    assert taker.windows.troubles() == {"late": 2}


def test_a_clock_that_goes_back_loses_nothing(settings: Settings, spool: Spool) -> None:
    """A day's jump ahead and back of this very machine: what was counted meanwhile lies in the minutes that it was told, or in those of now."""
    taker, now = Intake(settings), time.time()
    for at, told in ((now, now), (now + 86_400, now + 86_400), (now + 1, now + 1)):
        spool.write(Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part("a"),)))
        taker.turn(now=told)
    spool.write(Segment(slot=0, pid=1, started_at=now, ended_at=now + 86_401, parts=(part("a"),)))
    taker.turn(now=now + 2)
    assert requests(taker) == 4 and taker.windows.troubles() == {"early": 1}


# -- handing on, and making less of what is old ----------------------------------------------------------------------------------------------


def test_where_others_are_to_have_it_too_what_was_taken_moves_to_the_outbox(settings: Settings, spool: Spool) -> None:
    shared = msgspec.structs.replace(settings, export_url="s3://bucket")
    spool.write(segment(part("a")))
    (settings.spool / "s.other.ab-1.segment").write_bytes(events.encode(segment(part("b"))))
    (settings.spool / "r.key_x.pod.ab-1.segment").write_bytes(events.encode(segment(part("c"))))
    taker = Intake(shared)
    assert taker.turn().segments == 3 and events.pending(settings.spool) == []
    names = {path.name for path in events.pending(intake.outbox_path(shared))}
    assert len(names) == 2 and "r.key_x.pod.ab-1.segment" in names, "what came from there does not go there again"
    for path in events.pending(intake.outbox_path(shared)):
        (settings.spool / path.name).write_bytes(path.read_bytes())
    assert taker.turn().segments == 0 and requests(taker) == 3


def test_old_minutes_become_hours_a_few_at_a_time(settings: Settings, spool: Spool) -> None:
    now = float(int(time.time()) // 3600 * 3600)
    for hour in range(1, 40):
        at = now - hour * 3600
        spool.write(Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part("a"),)))
    few = msgspec.structs.replace(settings, minute_counters_hours=2, minute_profiles_hours=1)
    taker = Intake(few)
    taker.turn(now=now)
    left = []
    while taker._is_compacting:
        left.append(taker.windows._connection.execute("SELECT count(*) FROM windows").fetchone()[0])
        taker.turn(now=now)
    assert left == sorted(left, reverse=True) and len(left) > 1
    assert taker.windows._connection.execute("SELECT count(*) FROM windows").fetchone()[0] == 2
    assert requests(taker) == 39


def test_after_a_damaged_file_was_moved_away_the_log_of_the_day_stays_whole(settings: Settings, spool: Spool) -> None:
    taker = Intake(settings)
    spool.write(segment(part("old")))
    taker.drain()
    taker.close()
    path = intake.windows_path(settings)
    path.write_bytes(b"\0" * 4096)
    with pytest.raises(Tampered, match="move it away"):
        Intake(settings)
    for each in settings.home.glob("monitor.sqlite*"):
        each.rename(each.with_name("away-" + each.name))
    taker = Intake(settings)
    spool.write(segment(part("new")))
    taker.drain()
    taker.close()
    assert logged(settings) == ["new", "old"]


def test_the_same_file_opened_again_keeps_its_mark(settings: Settings) -> None:
    marks = set()
    for number in range(2):
        windows = Windows(intake.windows_path(settings))
        windows.take({f"0-1-{number}.segment": segment(part("a"))}, day_of=day_of)
        marks |= {next(windows.staged(limit_bytes=1 << 20)).origin}
        windows.close()
    assert len(marks) == 1 and marks != {""}
