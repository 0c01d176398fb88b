from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard import events
from modelyard.errors import MalformedPayload, NotFound
from modelyard.events import Failures, Part, ProfileCounts, Rows, Segment, Spool, Use
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)


def rows(count: int = 3, *, width: int = 2) -> Rows:
    return Rows(
        share=0.5,
        ids=tuple(f"id-{row}" for row in range(count)),
        times=np.arange(count, dtype="<f8").tobytes(),
        columns=(
            events.column("X", np.arange(count * width, dtype=np.float32).reshape(count, width)),
            events.column("t", np.array([["a"], [None], ["é"]] * count, dtype=object)[:count]),
        ),
    )


def segment(part: Part | None = None) -> Segment:
    whole = Part(
        name="m",
        version=2,
        digest=DIGEST,
        requests=3,
        rows=3,
        failures={"schema_mismatch": Failures(requests=1, seconds=0.1)},
        latencies={80: 3},
        profiles=(ProfileCounts(share=1.0, counts=b"x"),),
        predictions=rows(),
        inputs=rows(),
    )
    return Segment(slot=1, pid=2, started_at=10.0, ended_at=11.0, parts=(part or whole,))


def test_a_segment_survives_its_file_form() -> None:
    assert events.decode(events.encode(segment())) == segment()


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6).reshape(3, 2),
        np.array([True, False]),
        np.arange(3, dtype=np.uint8),
        np.arange(12, dtype=np.float16).reshape(3, 2, 2),
        np.arange(4, dtype=">f8"),
        np.array(["a", None], dtype=object),
    ],
)
def test_columns_survive_their_form(values: np.ndarray) -> None:
    back = events.column_array(events.column("c", values), len(values))
    assert np.array_equal(back, values)


def test_a_segment_of_the_release_before_is_read() -> None:
    """It waits in the spool while a home is brought to this release."""
    part = {"name": "m", "version": 1, "digest": "sha256:" + "0" * 64, "requests": 2, "latencies": {80: 2}}
    body = msgspec.msgpack.encode({"slot": 0, "pid": 1, "started_at": 1.0, "ended_at": 2.0, "parts": [part]})
    (found,) = events.decode(b"modelyard segment 1\n" + hashlib.sha256(body).digest() + body).parts
    assert (found.requests, found.generation, found.outputs, found.mirror, found.use) == (2, 0, {}, None, None)


uses = st.builds(Use, **dict.fromkeys(Use.__struct_fields__, st.integers(0, 2**53)))


@given(uses, uses, uses)
def test_what_was_taken_adds_up_in_any_order(one: Use, other: Use, third: Use) -> None:
    assert one + other == other + one
    assert (one + other) + third == one + (other + third)
    assert one + Use() == one


def test_damage_anywhere_is_seen() -> None:
    data = events.encode(segment())
    for damaged in (b"", data[:-1], data + b"x", data[:40] + bytes([data[40] ^ 1]) + data[41:], b"\x80" * 100):
        with pytest.raises(MalformedPayload):
            events.decode(damaged)


@pytest.mark.parametrize(
    "bad",
    [
        msgspec.structs.replace(rows(), times=b"123"),
        msgspec.structs.replace(rows(), ids=("a",)),
        msgspec.structs.replace(rows(), columns=(events.Column(name="c", datatype="FP64", shape=(), values=b"1"),)),
        msgspec.structs.replace(rows(), columns=(events.Column(name="c", datatype="FP64", shape=(), values=("a", "b", "c")),)),
        msgspec.structs.replace(rows(), columns=(events.Column(name="c", datatype="BYTES", shape=(), values=b"abc"),)),
    ],
)
def test_a_segment_whose_sizes_lie_is_refused(bad: Rows) -> None:
    with pytest.raises(MalformedPayload):
        events.decode(events.encode(segment(Part(name="m", version=1, digest=DIGEST, predictions=bad))))


# -- which ids are kept ----


def test_shares_are_even_nested_and_the_same_everywhere() -> None:
    ids = [f"3f2-18c0-{number}" for number in range(20_000)]
    found = events.positions(ids)
    for share in (0.5, 0.1, 0.01):
        kept = int((found < events.threshold(share)).sum())
        assert abs(kept - share * 20_000) < 5 * math.sqrt(share * 20_000)
    assert events.positions(["a", "b"]).tolist() == [events.positions(["a"])[0], events.positions(["b"])[0]]
    assert (found < events.threshold(1.0)).all()
    assert not (found < events.threshold(0.0)).any()


def test_rows_of_one_request_are_chosen_one_by_one() -> None:
    found = events.positions(["a", "b", "c"], np.array([2, 1, 5000]))
    assert len(found) == 5003
    assert found[2] == events.positions(["b"])[0]
    assert abs(int((found[3:] < events.threshold(0.25)).sum()) - 1250) < 150


def test_one_row_of_each_request_is_told_without_those_before_it() -> None:
    of_all = events.positions(["a", "b"], np.array([4, 9]))
    assert events.positions_of(["a", "b", "a"], [3, 8, 0]).tolist() == [of_all[3], of_all[12], of_all[0]]
    assert events.positions_of([], []).tolist() == []


@pytest.mark.parametrize(
    "ids",
    [["3f2-1", "3f2-2", "3f2-3"], ["a"], [""], ["", ""], ["aa", "b", "\ncc"], ["a\nb", "a\nc"], ["ab", "c", "d"], ["é1", "é2"], ["x" * 40] * 900],
    ids=["even", "one", "empty", "all empty", "a newline where a line ends", "newlines", "uneven", "not ASCII", "many"],
)
def test_the_place_of_an_id_does_not_hang_on_those_that_it_is_asked_with(ids: list[str]) -> None:
    assert events.positions(ids).tolist() == [events.positions_of([each, "another one"], [0, 0])[0] for each in ids]


def test_ids_of_any_form_have_a_place() -> None:
    odd = ["", "\n", "a\nb", "é", "x" * 20_000, "\ud800", "a"]
    together = events.positions(odd).tolist()
    assert together == [int(events.positions([name])[0]) for name in odd]
    assert len(set(together)) == len(odd)
    assert events.positions([]).tolist() == []
    assert len(set(events.positions([f"{'y' * 400}{number}" for number in range(500)]).tolist())) == 500


def buckets(seconds: list[float]) -> dict[int, int]:
    latencies = events.Latencies()
    latencies.add(seconds)
    return latencies.buckets()


def test_latencies_keep_their_quantiles() -> None:
    found = buckets([0.001] * 98 + [0.5] * 2)
    assert events.quantile_s(found, 0.5) == pytest.approx(0.001, rel=0.05)
    assert events.quantile_s(found, 0.99) == pytest.approx(0.5, rel=0.05)
    assert math.isnan(events.quantile_s({}, 0.5))
    assert sum(buckets([0.0, 1e-9, 1e9]).values()) == 3


# -- the spool ----


def test_segments_are_found_in_order_and_read_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", slot=4, limit_bytes=1 << 20)
    spool.write(segment())
    spool.write(segment())
    found = events.pending(tmp_path / "spool")
    assert [path.name.startswith(f"4-{os.getpid()}-") for path in found] == [True, True]
    assert events.read(found[0]) == segment()
    assert {path.name for path in (tmp_path / "spool").iterdir()} == {path.name for path in found}
    assert events.pending(tmp_path / "nowhere") == []


def test_two_workers_of_one_pid_take_different_names(tmp_path: Path) -> None:
    for _ in range(2):
        Spool(tmp_path, slot=0, limit_bytes=1 << 20).write(segment())
        os.utime(tmp_path)
    names = {path.name for path in events.pending(tmp_path)}
    assert len(names) >= 1
    first, second = Spool(tmp_path, slot=0, limit_bytes=1), Spool(tmp_path, slot=0, limit_bytes=1)
    assert second._sequence >= first._sequence > 1_600_000_000_000


def test_as_the_spool_fills_inputs_go_first_then_predictions_then_counts(tmp_path: Path) -> None:
    size = len(events.encode(segment()))
    spool = Spool(tmp_path, slot=0, limit_bytes=10 * size)
    for _ in range(40):
        spool.write(segment())
    found = [events.read(path).parts[0] for path in sorted(events.pending(tmp_path), key=lambda path: path.name)]
    kinds = ["whole" if part.inputs else "no inputs" if part.predictions else "counts" for part in found]
    assert kinds == sorted(kinds, key=["whole", "no inputs", "counts"].index)
    assert set(kinds) == {"whole", "no inputs", "counts"}
    assert found[-1].dropped == {"inputs": 3, "predictions": 3}
    assert found[-1].requests == 3
    assert sum(path.stat().st_size for path in events.pending(tmp_path)) <= 10 * size
    lost = 40 - len(found)
    assert lost > 0
    for path in events.pending(tmp_path):
        path.unlink()
    spool._looked_s = -math.inf
    spool.write(segment())
    assert events.read(events.pending(tmp_path)[0]).lost == lost


def test_a_full_disk_loses_a_segment_and_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, slot=0, limit_bytes=1 << 20)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        spool.write(segment())
    assert list(tmp_path.iterdir()) == []
    spool.write(segment())
    assert events.read(events.pending(tmp_path)[0]).lost == 1


def test_what_is_not_a_segment_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "x.segment").write_bytes(b"no")
    (tmp_path / "folder.segment").mkdir()
    (tmp_path / "link.segment").symlink_to(tmp_path / "x.segment")
    for name in ("x.segment", "folder.segment", "link.segment"):
        with pytest.raises(MalformedPayload):
            events.read(tmp_path / name)
    with pytest.raises(NotFound):
        events.read(tmp_path / "none.segment")


def test_the_salt_is_made_once_and_private(tmp_path: Path) -> None:
    first = events.salt(tmp_path)
    assert events.salt(tmp_path) == first
    assert len(first) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["salt"]
    assert stat.S_IMODE((tmp_path / "salt").stat().st_mode) == 0o600


@given(st.text(max_size=50), st.integers(1, 5000))
def test_a_large_request_has_the_positions_that_it_has_among_others(id: str, rows: int) -> None:
    alone, among = events.positions([id], np.array([rows])), events.positions([id, "x"], np.array([rows, 1]))
    assert alone.dtype == among.dtype
    assert (alone == among[:-1]).all()


@pytest.mark.parametrize("sizes", [[1] * 400, [40] * 10, [400], [200, 200], [300, 1, 40, 59]], ids=str)
def test_latencies_fall_into_the_same_buckets_however_many_come_together(sizes: list[int]) -> None:
    seconds = np.exp(np.random.default_rng(0).uniform(-14, 10, 400)).tolist()
    found, start = events.Latencies(), 0
    for size in sizes:
        found.add(seconds[start : start + size])
        start += size
    expected = Counter(min(int(math.log2(max(each, 1e-6) * 1e6) * 32 + 1e-9), events.LAST_BUCKET) for each in seconds)
    assert list(found.buckets().items()) == sorted(expected.items())


def test_a_bucket_has_a_place_and_an_edge() -> None:
    for bucket in (1, 8, 100, 280):
        edge = events.bucket_edge_s(bucket)
        assert events.bucket_place(edge) == bucket
        assert bucket < events.bucket_place(edge * 1.01) < bucket + 1
        found = events.Latencies()
        found.add([edge * 1.0001])
        assert found.buckets() == {bucket: 1}
    assert (events.bucket_edge_s(0), events.bucket_place(0.0)) == (0.0, 0.0)
    assert 0 < events.bucket_place(1e-9) < 1


def test_a_segment_of_the_first_release_is_read_with_its_latencies_in_todays_buckets():
    part = events.Part(name="churn", version=1, digest="sha256:" + "a" * 64, requests=5, latencies={104: 5})  # eight to an octave: 8.2 ms and more
    body = msgspec.msgpack.encode(events.Segment(slot=0, pid=7, started_at=1.0, ended_at=2.0, parts=(part,)))
    found = events.decode(b"modelyard segment 1\n" + hashlib.sha256(body).digest() + body)
    assert found.parts[0].latencies == {418: 5}
    assert events.bucket_edge_s(416) == pytest.approx(2**13 * 1e-6) == pytest.approx(events.quantile_s(found.parts[0].latencies, 0.5), rel=0.06)
    assert events.decode(events.encode(found)) == found
