"""Logged predictions beside their inputs, as the log grows."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from modelyard import events
from modelyard.errors import Unavailable
from modelyard.events import Rows
from modelyard.monitor import logged
from modelyard.monitor.log import PredictionLog
from modelyard.monitor.logged import Follower
from modelyard.monitor.windows import Staged
from modelyard.types import Digest, Schema, TensorSpec

DIGEST, OTHER = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
SCHEMA = Schema(
    inputs=(
        TensorSpec(name="a", datatype="FP64", shape=(-1, 1)),
        TensorSpec(name="Version", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="city", datatype="BYTES", shape=(-1, 1)),
        TensorSpec(name="X", datatype="FP32", shape=(-1, 2)),
        TensorSpec(name="secret", datatype="FP64", shape=(-1, 1), tag="drop"),
    ),
    outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),),
    layout="frame",
    task="regression",
)


class Growing:
    """A log that grows by a file at a time."""

    def __init__(self, folder: Path) -> None:
        self.log = PredictionLog(folder)
        self._count = 0

    def write(self, kind: str, at: float, ids: tuple[str, ...], *, digest: Digest = DIGEST) -> None:
        values = np.array([float(int(key)) for key in ids])
        if kind == "predictions":
            columns = (events.column("prediction", values * 10),)
        else:
            city = np.array([None if value % 3 == 0 else "paris" for value in values], object)
            columns = (
                events.column("a", np.where(values % 2 == 0, np.nan, values)),
                events.column("Version", values.astype(np.int64)),
                events.column("city", city),
                events.column("X", np.stack([values, -values], axis=1).astype(np.float32)),
            )
        rows = Rows(share=1.0, ids=ids, times=np.full(len(ids), at).astype("<f8").tobytes(), columns=columns)
        self._count += 1
        group = Staged(
            kind=kind, name="m", day="1970-01-01", version=1, digest=digest, form="", first=self._count, last=self._count, pieces=(rows,), origin="o"
        )
        self.log.write(group)


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(tmp_path / "log")


def test_rows_are_told_with_their_inputs_in_order_of_time(growing: Growing) -> None:
    growing.write("predictions", 200, ("3", "4"))
    growing.write("predictions", 100, ("1", "2"))
    growing.write("inputs", 100, ("1", "2"))
    growing.write("inputs", 200, ("4",))
    found = Follower(growing.log, "m", DIGEST, SCHEMA).look(since=0, until=1e9)
    assert found is not None
    ids, rows = found
    assert ids == ["1", "2", "4"] and rows.times.tolist() == [100, 100, 200]
    assert rows.outputs["prediction"].tolist() == [10, 20, 40]
    assert np.array_equal(rows.inputs["a"], [1, np.nan, np.nan], equal_nan=True) and rows.inputs["Version"].tolist() == [1, 2, 4]
    assert rows.inputs["city"].tolist() == ["paris"] * 3 and rows.inputs["X"].tolist() == [[1, -1], [2, -2], [4, -4]]
    assert set(rows.inputs) == {"a", "Version", "city", "X"}


def test_each_file_is_read_once_and_halves_may_come_apart(growing: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower(growing.log, "m", DIGEST, SCHEMA)
    assert follower.look(since=0, until=1e9) is None
    growing.write("predictions", 100, ("1",))
    assert follower.look(since=0, until=1e9) is None
    growing.write("inputs", 100, ("1",))
    found = follower.look(since=0, until=1e9)
    assert found is not None and found[0] == ["1"]
    growing.write("inputs", 150, ("5",))
    growing.write("predictions", 150, ("5",))
    read: list[int] = []
    rows = Follower._rows
    monkeypatch.setattr(
        Follower, "_rows", lambda self, specs, paths, since, **more: read.append(len(paths)) or rows(self, specs, paths, since, **more)
    )
    found = follower.look(since=0, until=1e9)
    assert found is not None and found[0] == ["1", "5"] and sum(read) <= 3
    read.clear()
    follower.look(since=0, until=1e9)
    follower.look(since=0, until=1e9)
    assert sum(read) <= 1, "nothing is read twice for long"


@pytest.mark.parametrize("looks", [1, 2])
def test_files_that_are_put_together_tell_no_row_twice(growing: Growing, looks: int) -> None:
    follower = Follower(growing.log, "m", DIGEST, SCHEMA)
    ids = [str(100 + key) for key in range(12)]
    for key in ids:
        growing.write("inputs", int(key), (key,))
        growing.write("predictions", int(key), (key,))
    for _ in range(looks):
        follower.look(since=0, until=1e9)
    while growing.log.tidy(before=date(1970, 1, 2)):
        pass
    assert len(growing.log.files("predictions", "m")) == len(growing.log.files("inputs", "m")) == 1
    for _ in range(2):
        found = follower.look(since=0, until=1e9)
        assert found is not None and found[0] == ids


def test_only_the_span_the_version_and_the_latest_are_told(growing: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    for at, key in ((100, "1"), (200, "2"), (300, "3"), (400, "4")):
        growing.write("predictions", at, (key,))
        growing.write("inputs", at, (key,))
    growing.write("predictions", 250, ("7",), digest=OTHER)
    growing.write("inputs", 250, ("7",), digest=OTHER)
    follower = Follower(growing.log, "m", DIGEST, SCHEMA)
    found = follower.look(since=150, until=350)
    assert found is not None and found[0] == ["2", "3"]
    monkeypatch.setattr(logged, "ROWS", 2)
    found = Follower(growing.log, "m", DIGEST, SCHEMA).look(since=0, until=1e9)
    assert found is not None and found[0] == ["3", "4"]
    found = follower.look(since=350, until=1e9)
    assert found is not None and found[0] == ["4"], "what is over is let go"


def test_a_log_that_cannot_be_read_is_unavailable_and_read_the_next_time(growing: Growing) -> None:
    growing.write("predictions", 100, ("1",))
    growing.write("inputs", 100, ("1",))
    follower = Follower(growing.log, "m", DIGEST, SCHEMA)
    (path,) = growing.log.files("inputs", "m")
    content = path.read_bytes()
    path.write_bytes(b"no file of ours")
    with pytest.raises(Unavailable):
        follower.look(since=0, until=1e9)
    path.write_bytes(content)
    found = follower.look(since=0, until=1e9)
    assert found is not None and found[0] == ["1"]
