from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.errors import Conflict, InvalidConfig, NotFound, Tampered, UnsupportedFormat
from modelyard.events import Failures, Part, ProfileCounts, Rows, Segment, Use
from modelyard.monitor import profile
from modelyard.monitor.evidence import Blocks, Seen, block
from modelyard.monitor.windows import Windows
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)


def logged(*ids: str, at: float = 1000.0) -> Rows:
    values = np.arange(len(ids), dtype=float)
    return Rows(share=1.0, ids=ids, times=np.full(len(ids), at).astype("<f8").tobytes(), columns=(events.column("prediction", values),))


def seen(at: float, *, requests: int = 2, counts: tuple[int, ...] = (2, 1, 1), share: float = 1.0, **more: object) -> Segment:
    part = Part(
        name="m",
        version=1,
        digest=DIGEST,
        requests=requests,
        rows=requests,
        failures={"schema_mismatch": Failures(requests=1, seconds=0.5)},
        latencies={80: requests},
        profiles=(ProfileCounts(share=share, counts=profile.pack(np.array(counts))),),
        **more,  # type: ignore[arg-type]
    )
    return Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part,), lost=1)


def day_of(at: float) -> str:
    return "1970-01-01"


@pytest.fixture
def windows(tmp_path: Path) -> Windows:
    return Windows(tmp_path / "monitor.sqlite")


def test_segments_count_once_and_add_up(windows: Windows) -> None:
    first = {"a": seen(1000), "b": seen(1010, share=0.5)}
    assert windows.take(first, day_of=day_of) == 2
    assert windows.take({**first, "c": seen(1100)}, day_of=day_of) == 1
    (window,) = windows.seen("m", since=0).values()
    assert (window.requests, window.rows, window.latencies, window.started_at, window.ended_at) == (6, 6, {80: 6}, 999, 1100)
    assert window.failures == {"schema_mismatch": Failures(requests=3, seconds=1.5)}
    total = windows.counts("m", DIGEST, since=0)
    assert total is not None
    assert total.tolist() == [6, 3, 3]
    assert windows.troubles() == {"lost": 3}
    assert windows.troubled_at()["lost"] == pytest.approx(time.time(), abs=60)
    assert windows.names() == ("m",)


def test_what_serving_took_adds_up_by_the_minute(windows: Windows) -> None:
    one = Use(looks=1, cpu_us=10, ran_us=5, resident_bytes=100, most_resident_bytes=100, queued=2, most_queued=2)
    other = Use(looks=1, cpu_us=30, ran_us=7, resident_bytes=60, most_resident_bytes=60)
    windows.take({"a": seen(1000, use=one)}, day_of=day_of)
    windows.take({"b": seen(1001, use=other), "c": seen(1002)}, day_of=day_of)
    (window,) = windows.seen("m", since=0).values()
    assert window.use == one + other == other + one
    assert window.use == Use(looks=2, cpu_us=40, ran_us=12, resident_bytes=160, most_resident_bytes=100, queued=2, most_queued=2)


def test_only_what_is_asked_for_is_told(windows: Windows) -> None:
    windows.take({"a": seen(1000), "b": seen(10_000)}, day_of=day_of)
    (window,) = windows.seen("m", since=9_000).values()
    assert window.requests == 2
    assert windows.seen("other", since=0) == {}
    assert windows.counts("m", DIGEST, since=20_000) is None
    assert windows.active_s("m", since=0) == 2


def test_rows_are_told_by_the_hour(windows: Windows) -> None:
    windows.take({"a": seen(1000), "b": seen(3500, requests=3), "c": seen(3700)}, day_of=day_of)
    assert windows.hours("m", DIGEST, since=0) == {0: 5, 3600: 2}
    assert windows.hours("m", DIGEST, since=3_650) == {3600: 2} and windows.hours("other", DIGEST, since=0) == {}


def test_counts_of_other_bins_are_refused_whole(windows: Windows) -> None:
    windows.take({"a": seen(1000)}, day_of=day_of)
    with pytest.raises(Conflict):
        windows.take({"b": seen(1001, counts=(1, 1))}, day_of=day_of)
    (window,) = windows.seen("m", since=0).values()
    assert window.requests == 2
    assert windows.take({"b": seen(1001)}, day_of=day_of) == 1


def test_rows_wait_in_groups_until_they_are_written(windows: Windows) -> None:
    windows.take({"a": seen(1000, predictions=logged("x", "y"), inputs=logged("x")), "b": seen(1001, predictions=logged("z"))}, day_of=day_of)
    assert windows.staged_bytes()[1] == 1000
    found = []
    for group in windows.staged(limit_bytes=1 << 20):
        found.append((group.kind, [rows.ids for rows in group.pieces]))
        windows.written(group)
    assert found == [("predictions", [("x", "y"), ("z",)]), ("inputs", [("x",)])]
    assert windows.staged_bytes() == (0, None)


def test_large_groups_come_in_parts(windows: Windows) -> None:
    windows.take({str(number): seen(1000, predictions=logged(*"abcdef")) for number in range(10)}, day_of=day_of)
    sizes = []
    for group in windows.staged(limit_bytes=700):
        sizes.append(len(group.pieces))
        windows.written(group)
    assert sum(sizes) == 10
    assert 1 < len(sizes) <= 10


def test_what_is_old_is_forgotten_but_never_taken_again_while_it_waits(windows: Windows) -> None:
    windows.take({"a": seen(1000), "b": seen(1000), "c": seen(9000)}, day_of=day_of)
    windows.forget(before=5000, waiting=["a"], silent_s=lambda source: -1.0)
    assert windows.take({"a": seen(1000)}, day_of=day_of) == 0
    (window,) = windows.seen("m", since=0).values()
    assert window.requests == 2
    assert windows.take({"b": seen(1000)}, day_of=day_of) == 1


def test_which_segments_were_taken_is_told_by_their_numbers_and_takes_a_row_a_source(windows: Windows) -> None:
    windows.take({f"0-7-{number}.segment": seen(1000) for number in (5, 3, 4, 9)}, day_of=day_of)
    named = [f"0-7-{number}.segment" for number in range(3, 11)]
    assert windows.untaken([*named, "1-7-3.segment"]) == ["0-7-6.segment", "0-7-7.segment", "0-7-8.segment", "0-7-10.segment", "1-7-3.segment"]
    windows.pass_over(["0-7-6.segment", "0-7-7.segment"])
    assert windows.take({name: seen(1000) for name in named}, day_of=day_of) == 2
    assert windows._connection.execute("SELECT source FROM sources").fetchall() == [("0-7",)]
    windows.forget(before=0, waiting=(), silent_s=lambda source: 3600.0)
    assert windows.untaken(named) == [], "a source that is not silent is known for as long as it speaks"


def test_what_is_taken_is_not_changed(windows: Windows) -> None:
    first, second = seen(1000), seen(1001)
    windows.take({"a": first, "b": second}, day_of=day_of)
    assert first.parts[0].latencies == second.parts[0].latencies == {80: 2}


def test_strange_ones_are_counted_once(windows: Windows) -> None:
    odd = {"a": "early", "c": "late"}
    for _ in range(2):
        windows.take({"a": seen(1000), "b": seen(1000)}, day_of=day_of, oddities=odd)
    assert windows.troubles() == {"early": 1, "lost": 2}


def test_evidence_is_kept_by_generation(windows: Windows) -> None:
    windows.take({"a": seen(1000, generation=3), "b": seen(9000, generation=4), "c": seen(9000), "d": seen(9001, generation=4)}, day_of=day_of)
    windows.take({"e": seen(9100, generation=4, outputs={"label": (1, 2)}), "d": seen(9001, generation=4)}, day_of=day_of)
    assert windows.evidence("m", 3) == {DIGEST: Seen(requests=2, latencies={80: 2}, blocks=block({80: 2}))}
    three = Blocks(count=3, squares={80: 3 * 4}, products={80: 3 * 4})
    assert windows.evidence("m", 4) == {DIGEST: Seen(requests=6, latencies={80: 6}, outputs={"label": (1, 2)}, blocks=three)}
    assert windows.evidence("m", 0) == windows.evidence("other", 4) == {}
    windows.forget(before=5000, waiting=())
    assert windows.evidence("m", 3) == {}
    assert windows.evidence("m", 4)
    windows.forget_evidence()
    assert windows.evidence("m", 4) == {} and windows.seen("m", since=0), "what was seen is told all the same"


def test_what_workers_count_in_about_the_same_second_is_one_block(windows: Windows) -> None:
    def of(slot: int, at: float) -> Segment:
        return msgspec.structs.replace(seen(at, generation=3), slot=slot)

    windows.take({"a": of(0, 1000.2), "b": of(1, 1000.9), "c": of(0, 1001.2), "d": of(1, 1001.9), "e": of(0, 1002.2)}, day_of=day_of)
    three = block({80: 4}) + block({80: 4}) + block({80: 2})
    assert windows.evidence("m", 3)[DIGEST].blocks == three
    windows.take({"f": of(1, 1002.9)}, day_of=day_of)
    assert windows.evidence("m", 3)[DIGEST].blocks == block({80: 4}) + block({80: 4}) + block({80: 4}), "also where it comes in two turns"


def test_evidence_in_other_bins_is_refused_whole(windows: Windows) -> None:
    windows.take({"a": seen(1000, generation=3, outputs={"label": (1, 2)})}, day_of=day_of)
    with pytest.raises(Conflict):
        windows.take({"b": seen(1001, generation=3, outputs={"label": (1, 2, 3)})}, day_of=day_of)
    assert windows.evidence("m", 3)[DIGEST].requests == 2


def test_a_file_is_opened_again_and_by_two_at_once(tmp_path: Path) -> None:
    one = Windows(tmp_path / "w.sqlite")
    other = Windows(tmp_path / "w.sqlite")
    assert one.take({"a": seen(1000)}, day_of=day_of) == 1
    assert other.take({"a": seen(1000)}, day_of=day_of) == 0
    one.close()
    other.close()
    assert Windows(tmp_path / "w.sqlite").names() == ("m",)


def test_damaged_newer_and_unwritable_files_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "bad.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(Tampered):
        Windows(tmp_path / "bad.sqlite")
    with pytest.raises(NotFound):
        Windows(tmp_path / "no folder" / "w.sqlite")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(InvalidConfig):
        Windows(tmp_path / "folder.sqlite")
    Windows(tmp_path / "new.sqlite").close()
    assert stat.S_IMODE((tmp_path / "new.sqlite").stat().st_mode) == 0o600
    connection = sqlite3.connect(tmp_path / "new.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(UnsupportedFormat):
        Windows(tmp_path / "new.sqlite")


def test_a_process_that_comes_and_goes_takes_nothing_of_another_along(tmp_path: Path) -> None:
    """A second instance in one process must leave the locks of the first: without them the last one elsewhere deletes what both write to."""
    path = tmp_path / "monitor.sqlite"
    first = Windows(path)
    Windows(path).close()
    code = "import sys; from pathlib import Path; from modelyard.monitor.windows import Windows; Windows(Path(sys.argv[1])).close()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    first.take({"a": seen(1000)}, day_of=day_of)
    assert Windows(path).names() == ("m",)


def test_minutes_are_told_one_by_one(windows: Windows) -> None:
    windows.take({"a": seen(1000), "b": seen(1010, share=0.5), "c": seen(1100), "d": seen(1300)}, day_of=day_of)
    found = windows.minutes("m", DIGEST, since=960, until=1260)
    assert [(each.start, each.requests, each.version, each.latencies) for each in found] == [(960, 4, 1, {80: 4}), (1080, 2, 1, {80: 2})]
    assert found[0].failures == {"schema_mismatch": Failures(requests=2, seconds=1.0)}
    assert [None if each.counts is None else each.counts.tolist() for each in found] == [[4, 2, 2], [2, 1, 1]]
    assert windows.minutes("m", Digest("sha256:" + "1" * 64), since=0, until=9999) == windows.minutes("other", DIGEST, since=0, until=9999) == []


def test_a_minute_without_a_profile_has_no_counts_and_one_whose_counts_contradict_has_none_either(windows: Windows) -> None:
    bare = Segment(slot=0, pid=1, started_at=999, ended_at=1000, parts=(Part(name="m", version=1, digest=DIGEST, requests=1, rows=1),))
    windows.take({"a": bare, "b": seen(1100), "c": seen(1101, share=0.5, counts=(1, 1))}, day_of=day_of)
    assert [each.counts for each in windows.minutes("m", DIGEST, since=0, until=9999)] == [None, None]
