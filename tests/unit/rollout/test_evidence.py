"""What hosts have counted adds up, is written when it changes, and goes when no rollout needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.events import Mirror
from modelyard.monitor.evidence import Seen
from modelyard.registry.records import SqliteRecords
from modelyard.rollout.deployments import Stored
from modelyard.rollout.evidence import KIND, Tally, merged, sweep
from modelyard.targets.base import Deployment, Release, Rollout, Strategy
from modelyard.types import Digest

OLD, NEW = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


class Counted:
    """Windows, as far as a tally reads them."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], dict[Digest, Seen]] = {}

    def evidence(self, name: str, generation: int) -> dict[Digest, Seen]:
        return self.counts.get((name, generation), {})


@pytest.fixture
def records(tmp_path: Path) -> SqliteRecords:
    return SqliteRecords(tmp_path / "records")


def seen(requests: int, **more: Any) -> Seen:
    return Seen(requests=requests, latencies={3: requests}, outputs={"prediction": (requests, 0)}, **more)


def test_the_counts_of_all_hosts_are_added_by_generation(records: SqliteRecords) -> None:
    one, two = Counted(), Counted()
    one.counts = {("m", 2): {OLD: seen(5), NEW: seen(1, errors=1)}, ("m", 3): {NEW: seen(7)}, ("m", 9): {NEW: seen(9)}}
    two.counts = {("m", 2): {NEW: seen(2, mirror=Mirror(sent=4, rows=4, disagreed=1))}, ("m-2", 2): {NEW: seen(100)}}
    rollouts = {"m": (2, 3)}
    assert Tally(records, host="one").publish(rollouts, one) and Tally(records, host="two").publish(rollouts | {"m-2": (2,)}, two)  # type: ignore[arg-type]
    total = merged(records, "m")
    assert total == {
        2: {OLD: seen(5), NEW: seen(1, errors=1) + seen(2, mirror=Mirror(sent=4, rows=4, disagreed=1))},
        3: {NEW: seen(7)},
    }
    assert merged(records, "m-2") == {2: {NEW: seen(100)}} and merged(records, "other") == {}


def test_only_what_has_changed_is_written(records: SqliteRecords) -> None:
    windows = Counted()
    tally = Tally(records, host="one")
    assert not tally.publish({"m": (2,)}, windows) and records.list(KIND) == ()  # type: ignore[arg-type]
    windows.counts = {("m", 2): {NEW: seen(1)}, ("m", 1): {OLD: seen(1)}}
    assert tally.publish({"m": (1, 2)}, windows) and not tally.publish({"m": (1, 2)}, windows)  # type: ignore[arg-type]
    before = {record.key: record.revision for record in records.list(KIND)}
    windows.counts[("m", 2)] = {NEW: seen(2)}
    assert tally.publish({"m": (1, 2)}, windows)  # type: ignore[arg-type]
    after = {record.key: record.revision for record in records.list(KIND)}
    assert [key for key in after if after[key] != before[key]] == ["m:000000002:one"] and merged(records, "m")[2] == {NEW: seen(2)}
    # Another process of the host says the same again, and it still counts once.
    Tally(records, host="one").publish({"m": (2,)}, windows)  # type: ignore[arg-type]
    assert merged(records, "m")[2] == {NEW: seen(2)}


def test_what_no_rollout_needs_is_swept(records: SqliteRecords) -> None:
    windows = Counted()
    windows.counts = {(name, generation): {NEW: seen(1)} for name in ("m", "n", "gone") for generation in (1, 2, 3)}
    Tally(records, host="one").publish(dict.fromkeys(("m", "n", "gone"), (1, 2, 3)), windows)  # type: ignore[arg-type]
    release = Release(model="m", version=2, digest=NEW, index=NEW)
    moving = Rollout(kind="deploy", strategy=Strategy(), goal=release, generation=3, generations=(2, 3), phase="watching", started_at="")
    stored = [Stored(Deployment(name="m", model="m", generation=1, rollout=moving), 1), Stored(Deployment(name="n", model="m", generation=3), 2)]
    assert sweep(records, stored) == 7 and set(merged(records, "m")) == {2, 3} and merged(records, "n") == {}
    assert sweep(records, stored) == 0 and sweep(records, [msgspec.convert((stored[1].deployment, 2), Stored)]) == 2
