from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from sharing_hosts import DIGEST, NOW, Host

from modelyard import events
from modelyard.errors import Unavailable
from modelyard.events import Segment
from modelyard.monitor import export, sharing
from modelyard.monitor.destinations import ToStore
from modelyard.monitor.intake import outbox_path, windows_path
from modelyard.monitor.labels import Given, Ledger, labels_path, sheet
from modelyard.monitor.sharing import LABELS_AT_ONCE, store_at
from modelyard.monitor.windows import Windows


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


def test_every_host_has_what_all_have_counted(tmp_path: Path, url: str) -> None:
    hosts = [Host(tmp_path / name, url, host=name) for name in ("one", "two", "three")]
    for number, host in enumerate(hosts):
        host.count(10**number, generation=4)
    for _ in range(3):
        for host in hosts:
            host.turn()
    assert [host.requests for host in hosts] == [111] * 3
    assert [host.intake.windows.evidence("m", 4)[DIGEST].requests for host in hosts] == [1, 10, 100], "what judges a rollout is told by records"
    assert [host.turn() for host in hosts] == [0, 0, 0], "and nothing goes around"
    assert not any(events.pending(outbox_path(host.settings)) for host in hosts)


def test_a_host_that_is_new_takes_in_what_is_still_kept(tmp_path: Path, url: str) -> None:
    one = Host(tmp_path / "one", url, host="one")
    for day in range(9, 0, -1):
        at = NOW - day * 86400
        one.count(1, at=at - 60)
        one.intake.turn(now=at)
        while one.exporter.turn(now=at):
            pass
    new = Host(tmp_path / "two", url, host="two")
    assert new.turn() == 7 and new.requests == 7
    assert not (tmp_path / "store" / "v1" / "2027-01-07").exists(), "what is older went"
    shutil.rmtree(tmp_path / "two")
    again = Host(tmp_path / "two", url, host="three")
    again.turn()
    assert again.requests == 7


def test_a_host_whose_windows_are_away_has_its_own_history_from_the_others_store(tmp_path: Path, url: str) -> None:
    """A home that was lost begins under another name, and what it had sent is another host's to it."""
    one = Host(tmp_path / "one", url, host="one")
    one.count(5)
    one.turn()
    reborn = Host(tmp_path / "reborn", url, host="one-2")
    reborn.turn()
    assert (one.requests, reborn.requests) == (5, 5)


def test_between_its_looks_at_all_it_looks_at_the_minutes_around_now(tmp_path: Path, url: str) -> None:
    one, two = (Host(tmp_path / name, url, host=name) for name in ("one", "two"))
    two.turn()
    one.count(1)
    one.turn()
    assert two.turn() == 1
    ToStore(url).put("three.a-1", events.encode(Segment(slot=0, pid=1, started_at=1.0, ended_at=NOW - 7200, parts=())), at=NOW - 7200)
    assert two.turn(now=NOW + 60) == 0
    assert two.turn(now=NOW + sharing.ALL_EVERY_S + 60) == 1, "what came late is found by the next look at all"


def test_what_is_no_segment_is_set_aside_once(tmp_path: Path, url: str) -> None:
    two = Host(tmp_path / "two", url, host="two")
    ToStore(url).put("one.a-1", b"no", at=NOW)
    ToStore(url).put("..%2f-1", b"no", at=NOW)
    assert [two.turn() for _ in range(3)] == [1, 0, 0]
    assert two.intake.windows.troubles() == {"corrupt": 1}


def test_what_finds_no_room_is_brought_later(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "AT_ONCE", 1)
    one = Host(tmp_path / "one", url, host="one")
    for minute in range(2, 9):
        one.count(1, at=NOW - 60 * minute)
    one.turn()
    size = next((tmp_path / "store" / "v1").rglob("*.segment")).stat().st_size
    two = Host(tmp_path / "two", url, host="two", limit_bytes=6 * size)
    found = []
    while two.requests < 7 and len(found) < 9:
        found.append(two.turn())
    assert two.requests == 7 and max(found) <= 4 and len(found) > 1


def test_of_many_labels_no_more_are_brought_than_leave_room_for_what_is_counted(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LABELS_BYTES", 1)
    one = Host(tmp_path / "one", url, host="one")
    for number in range(100, 140):
        one.labels.send("m", sheet([Given(str(number), 1)], at=NOW - 60))
    one.turn()
    sizes = [path.stat().st_size for path in (tmp_path / "store" / "v1").rglob("*.segment")]
    assert len(sizes) == 40
    two = Host(tmp_path / "two", url, host="two", limit_bytes=sum(sizes))
    with closing(Windows(windows_path(two.settings))) as windows:
        assert two.inlet.turn(windows, now=NOW) == LABELS_AT_ONCE
    assert events.size_bytes(two.settings.spool) < sum(sizes) / 2
    while two.turn():
        pass
    with closing(Ledger(labels_path(two.settings))) as ledger:
        assert len(ledger.labels("m")) == 40


def test_a_clock_that_is_put_ahead_deletes_nothing_of_what_is_shared(tmp_path: Path, url: str) -> None:
    one = Host(tmp_path / "one", url, host="one")
    one.count(5)
    one.turn()
    one.turn(now=NOW + 40 * 86400)
    two = Host(tmp_path / "two", url, host="two")
    two.turn()
    assert two.requests == 5


def test_a_store_that_is_away_stops_nothing_else(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Host(tmp_path / "one", url, host="one")
    one.count(3)
    one.intake.turn(now=NOW)
    with monkeypatch.context() as patch:
        patch.setattr("modelyard.registry.stores._connect", lambda *_: (_ for _ in ()).throw(ConnectionError()))
        with pytest.raises(Unavailable):
            one.turn()
    assert one.requests == 3 and one.turn() == 0
    two = Host(tmp_path / "two", url, host="two")
    two.turn()
    assert two.requests == 3


def test_from_a_control_api_nothing_comes_back() -> None:
    assert store_at("") is None and store_at("https://h:8090") is None and store_at("s3://b") is not None
