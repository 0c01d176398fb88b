"""What each change of a deployment is told as, and that events are only added, counted through, and bounded."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from modelyard.errors import NotFound
from modelyard.rollout import history, machine
from modelyard.rollout.deployments import Deployments
from modelyard.rollout.history import Change, Event
from modelyard.rollout.strategies import complete
from modelyard.targets.base import Deployment, Release, Step, Strategy, Warm
from modelyard.types import Digest, Verdict
from serving import Home

READY = Verdict(outcome="pass", rule="ready", evidence="")
FAILED = Verdict(outcome="fail", rule="error_rate<1%", evidence="9 of 40")
ANN, BOB = Change("key:ann", "t1"), Change("key:bob", "t2")
CANARY = Strategy(kind="canary", steps=(Step(weight=10), Step(weight=100, approval=True)), guards=("error_rate<1%",))


def release(version: int) -> Release:
    digest = Digest("sha256:" + f"{version:064x}")
    return Release(model="churn", version=version, digest=digest, index=digest)


SERVING = Deployment(name="churn", model="churn", generation=4, current=release(1))
BEGUN = machine.begin(SERVING, release(2), kind="deploy", gates=(READY,), at="t1", by="key:ann", strategy=CANARY)


def seen(guard: Verdict = READY) -> machine.Seen:
    return machine.Seen(readiness=READY, acknowledged=True, is_over=False, at="t3", elapsed_s=60.0, requests=40, guards=(guard,))


def told(before: Deployment | None, after: Deployment | None, change: Change = ANN) -> list[tuple[str, str, str]]:
    return [(event.what, event.by, event.why) for event in history.tell(before, after, change)]


def test_a_beginning_names_its_author_its_strategy_and_its_gates() -> None:
    (event,) = history.tell(SERVING, BEGUN, ANN)
    assert (event.what, event.by, event.version, event.weight, event.generation) == ("deploy", "key:ann", 2, 0, 4)
    assert event.why == "canary, error_rate<1%" and event.verdicts == (READY,)


def test_an_experiment_names_what_decides_it() -> None:
    strategy = complete(Strategy(kind="ab", metric="p50", sticky="header:x-user", guards=("error_rate<1%",)))
    begun = machine.begin(SERVING, release(2), kind="deploy", gates=(READY,), at="t1", by="key:ann", strategy=strategy)
    (event,) = history.tell(SERVING, begun, ANN)
    assert event.why == "ab by p50, error_rate<1%"


def test_a_step_is_told_with_what_earned_it_and_progress_is_not() -> None:
    entered = machine.advance(BEGUN, seen())
    (event,) = history.tell(BEGUN, entered, history.itself())
    assert (event.what, event.by, event.weight, event.generation) == ("step", "modelyard", 10, 5) and event.why == "it is ready everywhere"
    watching = machine.advance(entered, seen())
    assert told(entered, watching) == [] and watching != entered
    approved = machine.approve(watching, by="key:bob", at="t2")
    assert told(watching, approved, BOB) == [("approve", "key:bob", "the step of 100 %")]
    last = machine.advance(approved, seen())
    assert told(approved, last)[0][2] == "10 % were earned in 60 s by 40 requests"


def test_what_people_do_is_told_as_theirs() -> None:
    watching = machine.advance(machine.advance(BEGUN, seen()), seen())
    paused = machine.pause(watching, by="key:bob", why="lunch", at="t2")
    assert told(watching, paused, BOB) == [("pause", "key:bob", "lunch")]
    assert told(paused, machine.resume(paused), BOB) == [("resume", "key:bob", "")]
    approved = machine.approve(paused, by="key:bob", at="t2")
    promoted = machine.promote(approved, by="key:bob", at="t2")
    assert [what for what, _, _ in told(approved, promoted, BOB)] == ["promote", "step"]
    aborted = machine.abort(watching, by="key:bob", why="smells", at="t2")
    assert told(watching, aborted, BOB) == [("abort", "key:bob", "aborted by key:bob: smells")]


def test_an_end_is_told_with_the_verdicts() -> None:
    watching = machine.advance(machine.advance(BEGUN, seen()), seen())
    back = machine.advance(watching, seen(FAILED))
    (event,) = history.tell(watching, back, history.itself())
    assert (event.what, event.why, event.verdicts, event.weight, event.generation) == ("back", "9 of 40", (FAILED,), 0, 6)
    broken = machine.advance(BEGUN, msgspec.structs.replace(seen(), readiness=Verdict(outcome="fail", rule="load", evidence="no such operator")))
    assert told(BEGUN, broken) == [("back", "key:ann", "no such operator")]
    promoted = machine.promote(machine.approve(watching, by="key:bob", at=""), by="key:bob", at="")
    (done,) = history.tell(promoted, machine.advance(promoted, seen()), ANN)
    assert (done.what, done.weight) == ("done", 100)


def test_the_first_and_the_last_of_a_deployment_are_told() -> None:
    first = machine.begin(Deployment(name="churn", model="churn", generation=0), release(1), kind="deploy", gates=(), at="", by="key:ann")
    assert told(None, first) == [("deploy", "key:ann", "direct"), ("step", "key:ann", "nothing serves yet")]
    assert told(SERVING, None) == [("undeploy", "key:ann", "")] and told(None, None) == []
    warm = msgspec.structs.replace(SERVING, warm=Warm(release=release(2), keep_s=1.0))
    assert [what for what, _, _ in told(warm, SERVING)] == ["cool"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.add("line")
    return home


def test_events_are_written_with_the_change_and_counted_through_an_undeploy(home: Home) -> None:
    version = home.registry.resolve("line")
    goal = Release(model="line", version=1, digest=version.digest, index=version.index)
    deployments = Deployments(home.registry)
    for _ in range(2):
        begun = machine.begin(Deployment(name="line", model="line", generation=0), goal, kind="deploy", gates=(), at="t", by="key:ann")
        stored = deployments.put(begun, expected=0, change=ANN)
        deployments.remove(stored, change=BOB)
    events = deployments.history("line")
    assert [(event.sequence, event.what, event.by) for event in events] == [
        (1, "deploy", "key:ann"),
        (2, "step", "key:ann"),
        (3, "undeploy", "key:bob"),
        (4, "deploy", "key:ann"),
        (5, "step", "key:ann"),
        (6, "undeploy", "key:bob"),
    ]
    with pytest.raises(NotFound, match="ever deployed"):
        deployments.history("nothing")


def test_only_the_latest_are_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    last = None
    with home.registry.records.transaction() as records:
        for number in range(5):
            last = history.write(records, "line", (Event(deployment="line", sequence=0, at=str(number), by="x", what="step"),), last=last)
    assert [event.sequence for event in history.read(home.registry.records, "line")] == [3, 4, 5]
    assert history.write(home.registry.records, "line", (), last=None) == 5
