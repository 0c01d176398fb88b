from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.config import Settings
from modelyard.errors import InvalidInput, MalformedPayload, Overloaded, PayloadTooLarge
from modelyard.events import Column, Failures, Mirror, Part, ProfileCounts, Rows, Segment, Spool, Use
from modelyard.monitor import intake, profile, receive
from modelyard.monitor.intake import Intake
from modelyard.monitor.receive import Inbox, Observed, read
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)


def segment(requests: int = 1, **more: object) -> Segment:
    part = Part(name="m", version=1, digest=DIGEST, requests=requests, **more)  # type: ignore[arg-type]
    return Segment(slot=0, pid=1, started_at=time.time() - 1, ended_at=time.time(), parts=(part,))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def give(inbox: Inbox, name: str, made: Segment, *, sender: str = "key:replica") -> Observed:
    data = events.encode(made)
    return inbox.put(sender, name, data, read(name, data))


def requests(settings: Settings) -> int:
    taker = Intake(settings)
    taker.drain()
    found = sum(window.requests for window in taker.windows.seen("m", since=0).values())
    taker.close()
    return found


def test_what_is_given_is_taken_in_once_however_often_and_whenever_it_is_given(settings: Settings) -> None:
    inbox = Inbox(settings)
    assert give(inbox, "pod-1.ab-1", segment(3)) == Observed(name="pod-1.ab-1", requests=3)
    give(inbox, "pod-1.ab-1", segment(3))
    assert requests(settings) == 3
    give(inbox, "pod-1.ab-1", segment(3))
    give(inbox, "pod-1.ab-2", segment(4))
    assert requests(settings) == 7


def test_one_sender_cannot_take_anothers_names(settings: Settings) -> None:
    inbox = Inbox(settings)
    give(inbox, "pod-1", segment(1), sender="key:thief")
    give(inbox, "pod-1", segment(10), sender="key:replica")
    give(inbox, "pod-1", segment(100), sender="key:../../etc")
    assert requests(settings) == 111
    assert not (settings.home.parent / "etc").exists()


@pytest.mark.parametrize(
    "name", ["", "a", "a-", "-1", "../a-1", "a/b-1", "A-1", "a-1.segment", "a-1\n", "a-1234567890123456789", "x" * 200 + "-1", "ä-1"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(name, events.encode(segment()))
    assert caught.value.field == "name"


@pytest.mark.parametrize("data", [b"", b"no", events.encode(segment())[:-1], events.encode(segment()) + b"x", events.encode(segment(-1))])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedPayload):
        read("a-1", data)


def test_what_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = ProfileCounts(share=1.0, counts=profile.pack(np.zeros(10_000, dtype=np.int64)))
    assert len(counts.counts) < 500, "a thousandth of what it becomes"
    bomb = segment(profiles=(counts,) * 4)
    read("a-1", events.encode(bomb))
    monkeypatch.setattr(intake, "UNPACKED_BYTES", 3 * 80_000)
    with pytest.raises(MalformedPayload):
        read("a-1", events.encode(bomb))


COUNTED = (
    {"requests": 2**52},
    {"failures": {"timeout": Failures(requests=2**60, seconds=1.0)}},
    {"latencies": {1: 2**60}},
    {"dropped": {"inputs": 2**60}},
    {"use": Use(looks=1, resident_bytes=2**60)},
    {"mirror": Mirror(sent=2**60)},
)


@pytest.mark.parametrize("counted", COUNTED)
def test_counts_that_no_window_holds_are_refused(counted: dict[str, Any]) -> None:
    with pytest.raises(MalformedPayload):
        read("a-1", events.encode(segment(**counted)))


@pytest.mark.parametrize("lost", [-1, 2**52, 2**64 - 1])
def test_so_many_segments_are_not_lost(lost: int) -> None:
    with pytest.raises(MalformedPayload):
        read("a-1", events.encode(msgspec.structs.replace(segment(), lost=lost)))


@pytest.mark.parametrize(("ids", "shape"), [((), (10**18,)), ((), (2,)), (("a",), (-1,))])
def test_rows_of_no_one_shape_are_refused(ids: tuple[str, ...], shape: tuple[int, ...]) -> None:
    times = np.full(len(ids), time.time()).astype("<f8").tobytes()
    values = bytes(16 if ids else 0)
    odd = Rows(share=1.0, ids=ids, times=times, columns=(Column(name="y", datatype="FP64", shape=shape, values=values),))
    with pytest.raises(MalformedPayload):
        read("a-1", events.encode(segment(predictions=odd)))
    if ids:
        good = msgspec.structs.replace(odd, columns=(msgspec.structs.replace(odd.columns[0], shape=(2,)),))
        read("a-1", events.encode(segment(predictions=good)))


def test_counts_that_add_up_to_more_than_a_window_holds_are_set_aside_and_stand_in_nobodys_way(settings: Settings) -> None:
    inbox = Inbox(settings)
    for number in range(4):
        give(inbox, f"liar-{number}", segment(2**51))
    give(inbox, "pod-1", segment(3))
    taker = Intake(settings)
    taker.drain()
    assert events.pending(settings.spool) == [] and taker.windows.troubles() == {"corrupt": 3}
    taker.close()
    assert requests(settings) == 2**51 + 3


def test_who_sends_from_elsewhere_has_no_say_in_a_rollout_here(settings: Settings) -> None:
    told = segment(5, generation=7, outputs={"y": (5, 0)}, mirror=Mirror(sent=5))
    give(Inbox(settings), "pod-1", told)
    assert requests(settings) == 5 and evidence(settings) == {}
    Spool(settings.spool, slot=0, limit_bytes=1 << 30).write(told)
    assert requests(settings) == 10 and evidence(settings)[DIGEST].requests == 5, "a worker of this home has"


def evidence(settings: Settings) -> dict[Digest, Any]:
    taker = Intake(settings)
    found = taker.windows.evidence("m", 7)
    taker.close()
    return found


def test_what_is_too_large_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "SENT_LIMIT_BYTES", 10)
    with pytest.raises(PayloadTooLarge):
        read("a-1", b"x" * 11)


def test_while_too_much_waits_more_is_refused_and_nothing_is_left_of_it(settings: Settings) -> None:
    size = len(events.encode(segment()))
    inbox = Inbox(msgspec.structs.replace(settings, spool_limit_bytes=3 * size))
    refused = []

    def fill(source: str) -> None:
        for number in range(4):
            try:
                give(inbox, f"{source}-{number}", segment())
            except Overloaded as error:
                refused.append(error.retry_after_s)

    threads = [threading.Thread(target=fill, args=(source,)) for source in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 9 and min(refused) > 0 and requests(settings) == 3
    give(Inbox(msgspec.structs.replace(settings, spool_limit_bytes=3 * size)), "a-9", segment())
