"""monitor.relay: what one host was told to be true is known to all, whenever and however often it arrives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from sharing_hosts import DIGEST, NOW, Host

from modelyard import events
from modelyard.errors import InvalidInput, MalformedPayload, Overloaded
from modelyard.events import SENT_LIMIT_BYTES, Labels, Part, Segment
from modelyard.monitor import export, intake, receive, relay
from modelyard.monitor.destinations import ToStore
from modelyard.monitor.export import Exporter
from modelyard.monitor.intake import labels_outbox, outbox_path, windows_path
from modelyard.monitor.labels import AHEAD_S, Given, Ledger, labels_path, sheet
from modelyard.monitor.merging import merge
from modelyard.monitor.windows import Windows


def give(host: Host, *labels: Given, at: float = NOW - 60) -> None:
    with closing(Ledger(labels_path(host.settings))) as ledger:
        ledger.give("m", labels, at=at)
    host.labels.send("m", sheet(labels, at=at))


def known(host: Host) -> dict[str, str]:
    with closing(Ledger(labels_path(host.settings))) as ledger:
        return ledger.labels("m")


def sent(host: Host) -> list[Segment]:
    return [events.read(path) for path in events.pending(labels_outbox(host.settings))]


@pytest.fixture
def hosts(tmp_path: Path) -> list[Host]:
    url = (tmp_path / "store").as_uri()
    return [Host(tmp_path / name, url, host=name) for name in ("one", "two", "three")]


def test_every_host_knows_what_any_was_given(hosts: list[Host]) -> None:
    one, two, three = hosts
    one.count(5)
    give(one, Given("a", 1), Given("b", "yes"))
    give(two, Given("c", 2.5, NOW - 3600))
    for _ in range(3):
        for host in hosts:
            host.turn()
    assert known(one) == known(two) == known(three) == {"a": "1", "b": "yes", "c": "2.5"}
    assert two.requests == three.requests == 5, "labels travel beside counts"
    assert [host.turn() for host in hosts] == [0, 0, 0], "and nothing goes around"


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no database" * 100), Path.mkdir], ids=["damaged", "in the way"])
def test_a_ledger_that_cannot_be_read_stops_nothing_else(hosts: list[Host], spoil: Callable[[Path], object]) -> None:
    one, two, _ = hosts
    spoil(labels_path(two.settings))
    one.count(5)
    give(one, Given("a", 1), Given("b", 2))
    for _ in range(2):
        for host in (one, two):
            host.turn()
    assert two.requests == 5 and two.intake.windows.troubles() == {"unrelayed": 2}


def test_without_sending_the_others_know_nothing(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "take", lambda *_, **__: 0)
    give(hosts[0], Given("a", 1))
    for _ in range(2):
        for host in hosts:
            host.turn()
    assert known(hosts[0]) == {"a": "1"} and known(hosts[1]) == {}


@pytest.mark.parametrize("known_at", [None, NOW - 7200], ids=["known when given", "known since one time"])
def test_in_whatever_order_they_come_the_newest_stands_everywhere(tmp_path: Path, known_at: float | None) -> None:
    """Three hosts are given three truths of one prediction; each host's ledger sees them in another order."""
    given = [(f"truth {number}", NOW - 600 + 60 * number) for number in range(3)]
    for turn, order in enumerate(itertools.permutations(given)):
        with closing(Ledger(tmp_path / f"{turn}.sqlite")) as ledger:
            for truth, at in order:
                known = at if known_at is None else known_at
                labels = Labels(name="m", at=at, ids=("a",), truths=(truth,), known=(known,))
                segment = Segment(slot=0, pid=1, started_at=at, ended_at=at, parts=(), labels=(labels,))
                assert [relay.take(ledger, [segment], now=NOW) for _ in range(2)] == [1, 1], "twice does no harm"
            assert ledger.labels("m") == {"a": "truth 2"}
            assert set(ledger.conflicts("m").get("a", ())) <= {"truth 0", "truth 1"}


def test_the_same_truth_told_again_from_before_makes_nothing_older(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "labels.sqlite")) as ledger:
        for truth, at in (("right", NOW - 10), ("right", NOW - 30), ("wrong", NOW - 20)):
            labels = Labels(name="m", at=at, ids=("a",), truths=(truth,), known=(NOW - 7200,))
            relay.take(ledger, [Segment(slot=0, pid=1, started_at=at, ended_at=at, parts=(), labels=(labels,))], now=NOW)
        assert ledger.labels("m") == {"a": "right"}


def test_a_host_whose_clock_is_ahead_gives_no_label_of_tomorrow(tmp_path: Path) -> None:
    at = NOW + 10 * AHEAD_S
    labels = Labels(name="m", at=at, ids=("a",), truths=("1",), known=(at,))
    with closing(Ledger(tmp_path / "labels.sqlite")) as ledger:
        relay.take(ledger, [Segment(slot=0, pid=1, started_at=at, ended_at=at, parts=(), labels=(labels,))], now=NOW)
        assert ledger.labels("m") == {} and ledger.received("m").future == 1


def test_what_the_ledger_refused_is_not_sent_and_much_goes_in_portions(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    give(hosts[0], Given("a", 1, NOW + 2 * AHEAD_S))
    assert sent(hosts[0]) == []
    monkeypatch.setattr(relay, "PORTION_BYTES", 200)
    give(hosts[0], *(Given(f"id-{number}", number) for number in range(20)))
    portions = [each for segment in sent(hosts[0]) for each in segment.labels]
    assert len(portions) > 3 and sorted(key for each in portions for key in each.ids) == sorted(f"id-{number}" for number in range(20))


def test_where_too_many_wait_no_more_are_taken_and_none_is_dropped(hosts: list[Host], tmp_path: Path) -> None:
    one, two, _ = hosts
    full = relay.Outbox(labels_outbox(one.settings), limit_bytes=3 * 4096)
    for number in range(3):
        full.require_room()
        full.send("m", sheet([Given(str(number), 1)], at=NOW - 60))
    for outbox in (full, relay.Outbox(labels_outbox(one.settings), limit_bytes=3 * 4096)):
        with pytest.raises(Overloaded, match="not taken; give them again"):
            outbox.require_room()
    for host in (one, two):
        host.turn()
    assert known(two) == {"0": "1", "1": "1", "2": "1"}, "what was taken arrives"
    relay.Outbox(labels_outbox(one.settings), limit_bytes=3 * 4096).require_room()


def test_labels_that_came_one_by_one_cost_a_host_few_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "AT_ONCE", 100)
    at = NOW - 60

    def portions(count: int, each: int) -> list[Labels]:
        return [Labels(name="m", at=at, ids=tuple(f"{n}-{m}" for m in range(each)), truths=("1",) * each, known=(at,) * each) for n in range(count)]

    segments = [
        Segment(slot=0, pid=1, started_at=at, ended_at=at, parts=(), labels=tuple(each))
        for each in (portions(150, 1), portions(2, 99), portions(1, 500))
    ]
    with closing(Ledger(tmp_path / "labels.sqlite")) as ledger:
        said: list[str] = []
        ledger._connection.set_trace_callback(said.append)
        assert relay.take(ledger, segments, now=NOW) == 150 + 2 * 99 + 500
        assert said.count("COMMIT") == 5, "a hundred, fifty, those of one portion each, and what is larger alone"
        assert len(ledger.labels("m")) == 150 + 2 * 99 - 2 + 500 - 99, "some of them twice"


def test_counts_that_find_no_room_to_wait_in_take_no_label_along(tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    one, two = (Host(tmp_path / name, url, host=name) for name in ("one", "two"))
    one.exporter = Exporter(outbox_path(one.settings), ToStore(url), host="one", limit_bytes=1)
    one.count(5)
    give(one, Given("a", 1))
    for host in (one, two):
        host.turn()
    assert two.requests == 0 and known(two) == {"a": "1"}


def test_counts_come_before_labels_however_many_wait(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels of others are kept some in a turn; what is counted here, and what others have counted, does not wait for them."""
    monkeypatch.setattr(intake, "TURN_LABELS", 10)
    monkeypatch.setattr(export, "LABELS_BYTES", 1)
    one, two, _ = hosts
    for portion in range(4):
        give(one, *(Given(f"{portion}-{number}", 1) for number in range(20)))
    one.count(5)
    one.turn()
    with closing(Windows(windows_path(two.settings))) as windows:
        assert two.inlet.turn(windows, now=NOW) == 5
    two.count(3)
    taken = two.intake.turn(now=NOW)
    assert (two.requests, len(known(two)), taken.is_more) == (8, 20, True)
    while two.intake.turn(now=NOW).is_more:
        pass
    assert len(known(two)) == 80


def test_the_largest_portion_may_be_sent() -> None:
    assert relay.PORTION_BYTES * 2 < SENT_LIMIT_BYTES


def test_merged_segments_keep_every_label() -> None:
    labels = [Labels(name="m", at=NOW, ids=(str(number),), truths=("1",), known=(NOW,)) for number in range(2)]
    part = Part(name="m", version=1, digest=DIGEST, requests=1)
    merged = merge([Segment(slot=0, pid=1, started_at=NOW, ended_at=NOW, parts=(part,), labels=(each,)) for each in labels])
    assert merged.labels == tuple(labels) and merged.parts[0].requests == 2


def test_who_may_send_counts_may_not_say_what_is_true() -> None:
    labels = Labels(name="m", at=NOW, ids=("a",), truths=("1",), known=(NOW,))
    segment = Segment(slot=0, pid=1, started_at=NOW, ended_at=NOW, parts=(), labels=(labels,))
    with pytest.raises(MalformedPayload, match="labels"):
        receive.read("replica.a-1", events.encode(segment))
    receive.read("replica.a-1", events.encode(msgspec.structs.replace(segment, labels=())))


@pytest.mark.parametrize(
    ("changed", "raised"),
    [
        ({"name": "../m"}, InvalidInput),
        ({"ids": ()}, MalformedPayload),
        ({"ids": ("",)}, MalformedPayload),
        ({"ids": ("a" * 1001,)}, MalformedPayload),
        ({"truths": ("1" * 1001,)}, MalformedPayload),
        ({"known": (float("nan"),)}, MalformedPayload),
        ({"at": -1.0}, MalformedPayload),
    ],
)
def test_what_no_host_of_ours_sends_is_refused(changed: dict[str, object], raised: type[Exception]) -> None:
    labels = Labels(name="m", at=NOW, ids=("a",), truths=("1",), known=(NOW,))
    relay.check(labels)
    with pytest.raises(raised):
        relay.check(msgspec.structs.replace(labels, **changed))
