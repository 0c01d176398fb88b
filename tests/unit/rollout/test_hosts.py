"""Leases are judged by watching, and of a host's record there is one writer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import Conflict
from modelyard.registry.records import SqliteRecords
from modelyard.rollout.hosts import LEASE_S, WATCHED_S, HostReport, Hosts, Membership, Seen, Watched, acknowledged, readiness
from modelyard.types import Digest, Verdict

ONE = Digest("sha256:" + "1" * 64)


@pytest.fixture
def records(tmp_path: Path) -> SqliteRecords:
    return SqliteRecords(tmp_path / "records")


def member(records: SqliteRecords, id: str, *, instance: str = "i") -> Membership:
    return Membership(records, id=id, instance=instance)


def report(id: str = "one", *, instance: str = "i", counts: bool = True, **more: object) -> HostReport:
    return HostReport(id=id, instance=instance, started_at="t", counts=counts, **more)  # type: ignore[arg-type]


def live(*reports: HostReport) -> tuple[Seen, ...]:
    return tuple(Seen(each, 1, 0.0) for each in reports)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), max_size=30))
def test_nothing_is_found_still_for_longer_than_it_was_watched(steps: list[tuple[float, bool]]) -> None:
    now, revision = 0.0, 1
    watched = Watched(lambda: now)
    for looks, (passed, changes) in enumerate(steps, 1):
        now += abs(passed)
        revision += changes
        age = watched.look({"a": revision})["a"]
        assert age <= looks * WATCHED_S and (age == 0.0 or not changes)


def test_a_lease_ends_when_nothing_changes_while_one_watches(records: SqliteRecords) -> None:
    now = 0.0
    hosts = Hosts(records, clock=lambda: now)
    one, two = member(records, "one"), member(records, "two")
    one.publish(report("one"))
    two.publish(report("two"))
    assert [seen.is_live for seen in hosts.look()] == [True, True]
    for _ in range(int(LEASE_S) + 1):
        now += 1.0
        with records.transaction() as transaction:
            two.renew(transaction)
        found = hosts.look()
    assert [(seen.report.id, seen.is_live) for seen in found] == [("one", False), ("two", True)]


def test_a_watcher_that_was_stopped_ends_no_lease(records: SqliteRecords) -> None:
    now = 0.0
    hosts = Hosts(records, clock=lambda: now)
    member(records, "one").publish(report())
    hosts.look()
    now += 3600.0
    assert hosts.look()[0].is_live


def test_a_report_is_written_when_it_is_new_and_renewed_as_it_was(records: SqliteRecords) -> None:
    one = member(records, "one")
    with records.transaction() as transaction:
        one.renew(transaction)
    assert records.list("host") == ()
    assert one.publish(report()) and not one.publish(report()) and one.publish(report(workers=2))
    before = records.get("host", "one")
    with records.transaction() as transaction:
        one.renew(transaction)
    after = records.get("host", "one")
    assert before is not None and after is not None and after.revision > before.revision and after.body == before.body
    one.leave()
    assert records.list("host") == () and one.publish(report())


def test_the_next_process_of_a_home_takes_its_record_over_and_the_one_before_is_refused(records: SqliteRecords) -> None:
    first = member(records, "one", instance="first")
    first.publish(report(instance="first"))
    second = member(records, "one", instance="second")
    assert second.publish(report(instance="second"))
    with pytest.raises(Conflict, match=r"host\.id"):
        first.publish(report(instance="first", workers=1))
    with pytest.raises(Conflict, match=r"host\.id"), records.transaction() as transaction:
        first.renew(transaction)
    with pytest.raises(Conflict):
        first.leave()
    assert second.publish(report(instance="second", workers=3))


def test_reporting_and_renewing_at_once_never_wait_for_each_other(records: SqliteRecords) -> None:
    one = member(records, "one")

    def renew() -> None:
        for _ in range(200):
            with records.transaction() as transaction:
                one.renew(transaction)

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    for number in range(200):
        one.publish(report(workers=number))
    renewing.join(60)
    assert not renewing.is_alive()


def test_a_record_taken_out_as_dead_is_written_again(records: SqliteRecords) -> None:
    one = member(records, "one")
    one.publish(report())
    records.delete("host", "one", expected=None)
    with records.transaction() as transaction:
        one.renew(transaction)
    assert records.get("host", "one") is not None


def test_a_step_is_acknowledged_by_all_that_count() -> None:
    one, two = report("one", applied={"a": 5}), report("two", applied={"a": 4})
    assert acknowledged(live(one), "a", 5) and not acknowledged(live(one, two), "a", 5) and acknowledged(live(one, two), "a", 4)
    assert not acknowledged((), "a", 0) and not acknowledged(live(report(counts=False, applied={"a": 9})), "a", 5)
    assert acknowledged((*live(one), Seen(two, 1, LEASE_S + 1)), "a", 5)


def test_readiness_is_all_hosts_and_failure_any() -> None:
    good, bad = Verdict(outcome="pass", rule="ready", evidence="2 of 2"), Verdict(outcome="fail", rule="load", evidence="broken")
    ready, failed, silent = report("one", readiness={ONE: good}), report("two", readiness={ONE: bad}), report("three")
    assert readiness(live(ready), ONE) == good and readiness(live(failed), ONE) == bad
    assert readiness(live(ready, silent), ONE).outcome == "unknown" and readiness(live(ready, ready), ONE).outcome == "pass"
    assert readiness(live(ready, failed), ONE).evidence == "on two: broken"
    assert readiness((), ONE).outcome == "unknown" and readiness(live(silent), ONE).outcome == "unknown"


def test_what_a_host_said_before_it_saw_the_record_says_nothing() -> None:
    bad = Verdict(outcome="fail", rule="load", evidence="broken")
    for told in ({"judged": {"a": 5}}, {"applied": {"a": 5}}):
        failed = live(report("one", readiness={ONE: bad}, **told))
        assert readiness(failed, ONE, name="a", since=5) == bad
        assert readiness(failed, ONE, name="a", since=6).outcome == readiness(failed, ONE, name="b", since=5).outcome == "unknown"
