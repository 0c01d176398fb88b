"""One leads, the others wait, and what a leader whose term is over writes is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.errors import Conflict
from modelyard.registry.base import RecordStore
from modelyard.registry.records import SqliteRecords
from modelyard.rollout.election import SURE_S, Election
from modelyard.rollout.hosts import LEASE_S, RENEW_S


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Candidate:
    """A control process: a connection and a clock of its own."""

    def __init__(self, path: Path, host: str, *, instance: str = "", at: float = 0.0) -> None:
        self.records = SqliteRecords(path)
        self.clock = Clock(at)
        self.election = Election(self.records, host=host, instance=instance or f"{host}-1", clock=self.clock)

    def turn(self) -> str | None:
        """One turn of its lease; what it did."""
        began = self.clock.now
        move = self.election.look()
        if move is not None:
            with self.records.transaction() as records:
                self.election.move(move, within=records)
            self.election.moved(began)
        return move

    def watch(self, seconds: float) -> list[str | None]:
        """A turn each second."""
        done = []
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            done.append(self.turn())
        return done


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records"


def test_the_first_leads_at_once_and_renews(path: Path) -> None:
    one = Candidate(path, "one")
    assert one.turn() == "take" and one.election.term == 1
    assert one.turn() is None
    one.clock.now += RENEW_S
    assert one.turn() == "renew" and one.election.term == 1
    leader = one.election.leader
    assert leader is not None and (leader.host, leader.term) == ("one", 1)


def test_another_waits_while_the_lease_is_renewed_and_takes_over_when_it_is_not(path: Path) -> None:
    one, two = Candidate(path, "one"), Candidate(path, "two", at=1e6)  # clocks of two machines have nothing in common
    one.turn()
    for _ in range(20):
        assert two.watch(1) == [None] and two.election.term == 0
        one.watch(1)
    waited = 0
    while two.watch(1) == [None]:
        waited += 1
    assert two.election.term == 2 and LEASE_S - 1 <= waited <= LEASE_S + 1
    assert one.election.term == 1, "it has not looked, and its clock stood still"
    one.clock.now += 1.0
    assert one.turn() is None and one.election.term == 0


def test_a_leader_that_cannot_renew_stops_before_another_may_begin(path: Path) -> None:
    one = Candidate(path, "one")
    one.turn()
    one.clock.now += SURE_S
    assert one.election.term == 0 and SURE_S < LEASE_S


def test_what_a_leader_that_wakes_up_writes_is_refused(path: Path) -> None:
    one, two = Candidate(path, "one"), Candidate(path, "two")
    one.turn()
    stale = one.election.fenced(one.election.term)
    before = stale.put("deployment", "a", {"by": "one"}, expected=0)
    two.watch(LEASE_S + 2)
    assert two.election.term == 2
    assert one.election.term == 1, "it was stopped in the middle of a decision, and believes in its lease"
    _refused(stale, before.revision)
    assert two.election.fenced(2).put("deployment", "a", {"by": "two"}, expected=before.revision).body == {"by": "two"}
    # Taking the defence away: the same write on the store itself goes through.
    assert one.records.put("deployment", "b", {"by": "one"}, expected=0)
    # Nor does it write under the term of the other, or after it has the lead again.
    one.watch(LEASE_S + 2)
    assert one.election.term == 3
    _refused(stale, None)
    _refused(one.election.fenced(2), None)


def _refused(records: RecordStore, expected: int | None) -> None:
    revisions = [record.revision for record in records.list("deployment")]
    for write in (
        lambda: records.put("deployment", "a", {"by": "stale"}, expected=expected),
        lambda: records.delete("deployment", "a", expected=None),
        lambda: records.put("event", "a:1", {}, expected=None),
    ):
        with pytest.raises(Conflict) as refused:
            write()
        assert refused.value.rule == "term"
    with pytest.raises(Conflict), records.transaction() as transaction:
        transaction.put("deployment", "a", {"by": "stale"}, expected=None)
    assert [record.revision for record in records.list("deployment")] == revisions and records.get("event", "a:1") is None


def test_of_two_that_take_at_once_one_does(path: Path) -> None:
    one, two = Candidate(path, "one"), Candidate(path, "two")
    assert one.election.look() == two.election.look() == "take"
    with one.records.transaction() as records:
        one.election.move("take", within=records)
    one.election.moved(0.0)
    with pytest.raises(Conflict), two.records.transaction() as records:
        two.election.move("take", within=records)
    assert one.election.term == 1 and two.election.term == 0


def test_the_next_process_of_the_leaders_host_need_not_wait(path: Path) -> None:
    Candidate(path, "one").turn()
    again = Candidate(path, "one", instance="one-2")
    assert again.turn() == "take" and again.election.term == 2


def test_a_leader_that_lays_it_down_is_followed_at_once(path: Path) -> None:
    one, two = Candidate(path, "one"), Candidate(path, "two")
    one.turn()
    one.election.lay_down()
    assert one.election.term == 0 and two.turn() == "take" and two.election.term == 2
    one.election.lay_down()  # it leads no more: nothing to lay down
    assert two.turn() is None


def test_a_watcher_that_was_stopped_takes_over_nobody_who_lives(path: Path) -> None:
    one, two = Candidate(path, "one"), Candidate(path, "two")
    one.turn()
    two.watch(2)
    two.clock.now += 3600.0
    assert two.turn() is None
    one.watch(3)
    assert two.watch(1) == [None]
