"""A file of windows of every past format, kept for ever: it opens, says what it said, and takes in what is new.

`format-1.sqlite.gz` was written by the release before evidence was kept by generation: two segments of two versions of `churn`; `format-2.sqlite.gz`
is that file as the release before the use of processor and memory was kept had carried it on, `format-3.sqlite.gz` that one as it was carried on
before hours were made of minutes, `format-4.sqlite.gz` before changes
were numbered, `format-5.sqlite.gz` before it was kept what time it is believed to be,
`format-6.sqlite.gz` before the second that is not over.
"""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from modelyard.events import Failures, Mirror, Part, Segment, Use
from modelyard.monitor.windows import VERSION, Windows
from modelyard.types import Digest

FOLDER = Path(__file__).parent / "windows"
A, B = (Digest("sha256:" + letter * 64) for letter in "ab")


def test_every_past_format_has_a_file() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"format-{number}.sqlite.gz" for number in range(1, VERSION)}


@pytest.mark.parametrize("number", range(1, VERSION))
def test_a_file_of_a_past_format_is_carried_on_in_place(number: int, tmp_path: Path) -> None:
    path = tmp_path / "monitor.sqlite"
    path.write_bytes(gzip.decompress((FOLDER / f"format-{number}.sqlite.gz").read_bytes()))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (number,)
        mark = connection.execute("PRAGMA application_id").fetchone()
    connection.close()
    windows = Windows(path)
    part = Part(name="churn", version=2, digest=B, requests=3, rows=3, generation=4, mirror=Mirror(sent=1), use=Use(looks=1, cpu_us=9))
    new = Segment(slot=0, pid=7, started_at=1199.0, ended_at=1200.0, parts=(part,))
    assert windows.take({"0-7-2": new, "0-7-3": new}, day_of=lambda at: "1970-01-01") == 1, "0-7-2 was taken in before"
    found = windows.seen("churn", since=0)
    assert {(version, digest): window.requests for (version, digest), window in found.items()} == {(1, A): 12, (2, B): 27}
    assert {bucket % 4 for bucket in found[1, A].latencies} == {2}, "in the middle of the four that one of the first format became"
    assert {key: window.use for key, window in found.items()} == {(1, A): Use(), (2, B): Use(looks=1, cpu_us=9)}
    assert found[2, B].failures == {"model_failed": Failures(requests=4, seconds=1.0)}
    counts = windows.counts("churn", A, since=0)
    assert counts is not None
    assert counts.tolist() == [12, 2, 4, 6]
    assert [(group.version, len(group.pieces)) for group in drained(windows)] == [(1, 2), (2, 2)]
    assert windows.troubles() == {"lost": 1}
    assert {digest: seen.requests for digest, seen in windows.evidence("churn", 4).items()} == {B: 3}
    windows.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("PRAGMA application_id").fetchone() == mark, "the log knows the file by its mark"
    connection.close()


def drained(windows: Windows) -> list:
    found = []
    for group in windows.staged(limit_bytes=1 << 20):
        found.append(group)
        windows.written(group)
    return found
