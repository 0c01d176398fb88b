"""The rollout as a pure machine: which plan each state stands for, and how it moves on or back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelyard.errors import Conflict, Forbidden
from modelyard.rollout import machine
from modelyard.targets.base import HISTORY, Deployment, Release, Step, Strategy
from modelyard.types import Digest, Verdict

READY = Verdict(outcome="pass", rule="ready", evidence="2 of 2")
WAITING = Verdict(outcome="unknown", rule="ready", evidence="1 of 2")
BROKEN = Verdict(outcome="fail", rule="golden-replay", evidence="row 3 differs")


def release(version: int) -> Release:
    digest = Digest("sha256:" + f"{version:064x}")
    return Release(model="churn", version=version, digest=digest, index=digest)


def seen(readiness: Verdict = READY, *, acknowledged: bool = True, is_over: bool = False, served_s: float = 0.0) -> machine.Seen:
    return machine.Seen(readiness=readiness, acknowledged=acknowledged, is_over=is_over, at="now", served_s=served_s)


def begun(deployment: Deployment, version: int, kind: Any = "deploy") -> Deployment:
    return machine.begin(deployment, release(version), kind=kind, gates=(READY,), at="then")


def settled(deployment: Deployment, version: int, kind: Any = "deploy") -> Deployment:
    deployment = begun(deployment, version, kind)
    for _ in range(2):
        deployment = machine.advance(deployment, seen())
    assert deployment.rollout is None
    return deployment


@pytest.fixture
def empty() -> Deployment:
    return Deployment(name="churn", model="churn", generation=0)


@pytest.fixture
def serving(empty: Deployment) -> Deployment:
    return settled(empty, 1)


def weights(deployment: Deployment) -> tuple[dict[int, int], list[int]]:
    plan = machine.plan(deployment)
    assert plan is not None
    return {plan.versions[digest]: weight for digest, weight in plan.weights.items()}, [plan.versions[digest] for digest in plan.hold]


def test_nothing_deployed_has_no_plan(empty: Deployment) -> None:
    assert machine.plan(empty) is None


def test_the_first_release_takes_the_traffic_at_once(empty: Deployment) -> None:
    deployment = begun(empty, 1)
    assert weights(deployment) == ({1: 100}, [])
    deployment = machine.advance(deployment, seen())
    assert deployment.current == release(1) and deployment.generation == 1 and deployment.previous == ()


def test_a_new_release_is_held_ready_before_it_takes_the_traffic(serving: Deployment) -> None:
    deployment = begun(serving, 2)
    plan = machine.plan(deployment)
    assert weights(deployment) == ({1: 100}, [2]) and plan is not None and plan.generation == 1
    deployment = machine.advance(deployment, seen())
    plan = machine.plan(deployment)
    assert weights(deployment) == ({2: 100}, [1]) and plan is not None and plan.generation == 2
    deployment = machine.advance(deployment, seen())
    assert weights(deployment) == ({2: 100}, [])
    assert deployment.generation == 2 and deployment.previous == (release(1),)
    assert deployment.last is not None and deployment.last.verdict.outcome == "pass" and deployment.last.gates == (READY,)


@pytest.mark.parametrize("what", [seen(WAITING), seen(acknowledged=False), seen(WAITING, acknowledged=False)])
def test_nothing_moves_before_every_worker_is_ready_and_has_said_so(serving: Deployment, what: machine.Seen) -> None:
    deployment = begun(serving, 2)
    assert machine.advance(deployment, what) == deployment
    switching = machine.advance(deployment, seen())
    assert machine.advance(switching, what) == switching


@pytest.mark.parametrize("phase", ["holding", "switching"])
@pytest.mark.parametrize("what", [seen(BROKEN), seen(WAITING, is_over=True)])
def test_any_failure_goes_back_and_the_old_release_serves_on(serving: Deployment, phase: str, what: machine.Seen) -> None:
    deployment = begun(serving, 2)
    if phase == "switching":
        deployment = machine.advance(deployment, seen())
    back = machine.advance(deployment, what)
    assert weights(back) == ({1: 100}, []) and back.rollout is None and back.current == release(1) and back.previous == ()
    assert back.last is not None and back.last.verdict.outcome == "fail"
    before, after = machine.plan(deployment), machine.plan(back)
    assert before is not None and after is not None and after.generation >= before.generation


def test_a_first_release_that_fails_leaves_nothing_serving(empty: Deployment) -> None:
    back = machine.advance(begun(empty, 1), seen(BROKEN))
    assert machine.plan(back) is None and back.last is not None
    assert settled(back, 2).current == release(2)


def test_one_rollout_at_a_time(serving: Deployment) -> None:
    with pytest.raises(Conflict, match="version 2 is under way"):
        begun(begun(serving, 2), 3)


def test_rollback_goes_further_back_each_time_and_each_is_a_new_generation(serving: Deployment) -> None:
    deployment = settled(settled(serving, 2), 3)
    assert deployment.previous == (release(1), release(2))
    deployment = settled(deployment, 2, "rollback")
    assert (deployment.current, deployment.previous, deployment.generation) == (release(2), (release(1),), 4)
    deployment = settled(deployment, 1, "rollback")
    assert (deployment.current, deployment.previous, deployment.generation) == (release(1), (), 5)


def test_a_failed_rollback_keeps_its_way_back(serving: Deployment) -> None:
    deployment = settled(serving, 2)
    back = machine.advance(begun(deployment, 1, "rollback"), seen(BROKEN))
    assert back.current == release(2) and back.previous == (release(1),)


def test_history_is_bounded(empty: Deployment) -> None:
    deployment = empty
    for version in range(1, HISTORY + 4):
        deployment = settled(deployment, version)
    assert len(deployment.previous) == HISTORY and deployment.previous[-1] == release(HISTORY + 2)


def test_without_a_rollout_nothing_changes(serving: Deployment) -> None:
    for what in (seen(), seen(BROKEN), seen(WAITING, is_over=True)):
        assert machine.advance(serving, what) is serving


def test_what_fails_soon_after_its_deploy_is_left_once_for_what_served_before(serving: Deployment) -> None:
    deployment = settled(serving, 2)
    left = machine.advance(deployment, seen(BROKEN))
    assert left.rollout is not None and (left.rollout.kind, left.rollout.goal, left.rollout.by) == ("rollback", release(1), "modelyard")
    back = machine.advance(machine.advance(left, seen()), seen())
    assert (back.current, back.previous, back.rollout) == (release(1), (), None)


def test_what_was_gone_back_to_is_not_left(serving: Deployment) -> None:
    three = settled(settled(serving, 2), 3)
    back = settled(three, 2, "rollback")
    failed = machine.advance(begun(three, 4), seen(BROKEN))
    unable = machine.advance(machine.advance(three, seen(BROKEN)), seen(BROKEN))
    for deployment in (back, failed, unable):
        assert deployment.previous and deployment.rollout is None
        assert machine.advance(deployment, seen(BROKEN)) is deployment


def test_what_has_served_for_long_or_had_nothing_else_before_it_stays(serving: Deployment) -> None:
    deployment = settled(serving, 2)
    assert machine.advance(deployment, seen(BROKEN, served_s=machine.PROVEN_S + 1)) is deployment
    assert machine.advance(deployment, seen(WAITING)) is deployment
    twin = msgspec.structs.replace(deployment, previous=(msgspec.structs.replace(release(2), version=7),))
    assert machine.advance(twin, seen(BROKEN)) is twin


CANARY = Strategy(
    kind="canary",
    steps=tuple(Step(weight=weight, minimum_s=60.0, minimum_requests=100, approval=weight == 50) for weight in (10, 50, 100)),
    guards=("error_rate<1%",),
    max_time_s=600.0,
)
SHADOW = Strategy(kind="shadow", steps=(Step(weight=0, minimum_s=60.0), Step(weight=100)), mirror=1.0)
SPLIT = Strategy(kind="ab", steps=(Step(weight=50, minimum_requests=10), Step(weight=100)), metric="accuracy", sticky="header:x-user")
BLUE_GREEN = Strategy(kind="blue-green", steps=(Step(weight=100),))


def verdict(outcome: Any, *, holds: bool = True) -> Verdict:
    return Verdict(outcome=outcome, rule="error_rate<1%", evidence="", numbers={"holds": float(holds)})


GOOD, UNSURE, WRONG, FAILED = verdict("pass"), verdict("unknown"), verdict("unknown", holds=False), verdict("fail", holds=False)


def watched(elapsed_s: float = 60.0, requests: int = 100, guard: Verdict = UNSURE, metric: Verdict | None = None) -> machine.Seen:
    return machine.Seen(
        readiness=READY, acknowledged=True, is_over=False, at="now", elapsed_s=elapsed_s, requests=requests, guards=(guard,), metric=metric
    )


def under_way(deployment: Deployment, strategy: Strategy, *, steps: int = 1) -> Deployment:
    """A rollout of version 2 by `strategy`, watching its step number `steps`."""
    deployment = machine.begin(deployment, release(2), kind="deploy", gates=(), at="then", by="ann", strategy=strategy)
    deployment = machine.advance(machine.advance(deployment, seen()), seen())
    for _ in range(steps - 1):
        if deployment.rollout is not None and strategy.steps[deployment.rollout.step + 1].approval:
            deployment = machine.approve(deployment, by="bob", at="now")
        deployment = machine.advance(machine.advance(deployment, watched()), seen())
    assert deployment.rollout is not None and deployment.rollout.phase == "watching" and deployment.rollout.step == steps - 1
    return deployment


def generation(deployment: Deployment) -> int:
    plan = machine.plan(deployment)
    assert plan is not None
    return plan.generation


def waits(deployment: Deployment) -> str:
    assert deployment.rollout is not None
    return deployment.rollout.waits


def test_the_old_release_is_the_reference_of_every_share_and_of_no_flip(serving: Deployment) -> None:
    for steps in (1, 2, 3):
        plan = machine.plan(under_way(serving, CANARY, steps=steps))
        assert plan is not None and plan.champion == release(1).digest
    plan = machine.plan(machine.advance(begun(serving, 2), seen()))
    assert plan is not None and plan.champion is None and plan.weights == {release(2).digest: 100}, "a flip may change the schema"


def test_each_step_of_a_canary_has_a_generation_and_the_old_release_stays_ready(serving: Deployment) -> None:
    seen_weights = []
    for steps in (1, 2, 3):
        deployment = under_way(serving, CANARY, steps=steps)
        seen_weights.append((generation(deployment), *weights(deployment)))
    assert seen_weights == [(2, {1: 90, 2: 10}, []), (3, {1: 50, 2: 50}, []), (4, {2: 100}, [1])]
    assert deployment.rollout is not None and deployment.rollout.generations == (2, 3, 4) and deployment.generation == 1
    done = machine.advance(deployment, watched())
    assert (done.current, done.previous, done.generation, done.rollout) == (release(2), (release(1),), 4, None)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (watched(elapsed_s=59.9), "at least 1m"),
        (watched(requests=99), "fewer than 100 requests"),
        (watched(guard=WRONG), "on the wrong side"),
        (watched(guard=Verdict(outcome="unknown", rule="p99<1.2x", evidence="")), "p99<1.2x is not known yet"),
        (seen(), "at least 1m"),
    ],
)
def test_a_step_that_is_not_earned_yet_holds_and_says_why(serving: Deployment, what: machine.Seen, why: str) -> None:
    deployment = machine.advance(under_way(serving, CANARY), what)
    assert weights(deployment) == ({1: 90, 2: 10}, []) and why in waits(deployment)


def test_a_strict_step_waits_until_every_guard_has_passed(serving: Deployment) -> None:
    deployment = under_way(serving, msgspec.structs.replace(CANARY, strict=True, steps=CANARY.steps[::2]))
    assert "has not passed" in waits(machine.advance(deployment, watched()))
    assert weights(machine.advance(deployment, watched(guard=GOOD)))[0] == {2: 100}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_failed_guard_goes_back_at_once_paused_or_not_and_says_which(serving: Deployment, steps: int) -> None:
    deployment = under_way(serving, CANARY, steps=steps)
    for each in (deployment, machine.pause(deployment, by="ann", why="", at="now")):
        back = machine.advance(each, watched(elapsed_s=0.0, guard=FAILED))
        assert weights(back) == ({1: 100}, []) and generation(back) == generation(deployment) + 1
        assert back.last is not None and back.last.verdict == FAILED and back.last.guards == (FAILED,) and back.last.by == "ann"


def test_a_step_that_takes_too_long_is_paused_and_says_so(serving: Deployment) -> None:
    deployment = machine.advance(under_way(serving, CANARY), watched(elapsed_s=601.0, requests=5))
    assert deployment.rollout is not None and deployment.rollout.pause is not None
    assert deployment.rollout.pause.by == "modelyard" and "fewer than 100 requests" in deployment.rollout.pause.why
    resumed = machine.advance(machine.resume(deployment), watched(elapsed_s=900.0, requests=5))
    assert resumed.rollout is not None and resumed.rollout.pause is None, "the step has its whole time again"
    again = machine.advance(resumed, watched(elapsed_s=1202.0, requests=5))
    assert again.rollout is not None and again.rollout.pause is not None


@pytest.mark.parametrize(("guard", "is_held"), [("p99<1.2x", False), ("disagreement<3%", False), ("p99<20ms", True), ("golden", True)])
@pytest.mark.parametrize("strict", [False, True])
def test_what_nothing_more_is_seen_of_holds_no_last_step(serving: Deployment, guard: str, is_held: bool, strict: bool) -> None:
    wrong = Verdict(outcome="unknown", rule=guard, evidence="", numbers={"holds": 0.0})
    strategy = msgspec.structs.replace(CANARY, guards=(guard,), strict=strict, steps=(Step(weight=10), Step(weight=100)))
    first = under_way(serving, strategy)
    assert machine.advance(first, watched(guard=wrong)).rollout is not None, "a step beside the champion waits for it"
    last = machine.advance(machine.advance(first, watched(guard=msgspec.structs.replace(wrong, outcome="pass"))), seen())
    assert last.rollout is not None and last.rollout.step == 1
    ended = machine.advance(last, watched(guard=wrong))
    assert (ended.rollout is not None) == is_held
    failed = machine.advance(last, watched(guard=msgspec.structs.replace(wrong, outcome="fail")))
    assert failed.rollout is None and failed.current == release(1), "what comes in late may still take it back"


def test_a_pause_keeps_the_step_until_it_is_resumed(serving: Deployment) -> None:
    strategy = msgspec.structs.replace(CANARY, steps=CANARY.steps[::2])
    paused = machine.pause(under_way(serving, strategy), by="bob", why="lunch", at="now")
    held = machine.advance(paused, watched())
    assert weights(held)[0] == {1: 90, 2: 10} and held.rollout is not None and held.rollout.pause is not None and held.rollout.pause.why == "lunch"
    with pytest.raises(Conflict, match="paused already"):
        machine.pause(held, by="ann", why="", at="")
    resumed = machine.resume(held)
    assert resumed.rollout is not None and resumed.rollout.waits == "", "it waits for nothing that is over"
    assert weights(machine.advance(resumed, watched()))[0] == {2: 100}


def test_a_step_with_approval_waits_for_somebody_else(serving: Deployment) -> None:
    deployment = machine.advance(under_way(serving, CANARY), watched())
    assert waits(deployment) == "the step of 50 % needs an approval" and weights(deployment)[0] == {1: 90, 2: 10}
    with pytest.raises(Forbidden, match="somebody else"):
        machine.approve(deployment, by="ann", at="now")
    with pytest.raises(Conflict, match="needs an approval first"):
        machine.promote(deployment, by="ann", at="now")
    approved = machine.approve(deployment, by="bob", at="now")
    assert weights(machine.advance(approved, watched()))[0] == {1: 50, 2: 50}
    with pytest.raises(Conflict, match="no step"):
        machine.approve(approved, by="bob", at="now")


def test_a_promotion_skips_to_the_end_and_is_written_down(serving: Deployment) -> None:
    strategy = msgspec.structs.replace(CANARY, steps=(*CANARY.steps[:1], Step(weight=30), *CANARY.steps[2:]))
    promoted = machine.promote(machine.pause(under_way(serving, strategy), by="ann", why="", at=""), by="bob", at="now")
    assert weights(promoted) == ({2: 100}, [1]) and generation(promoted) == 3
    done = machine.advance(promoted, watched(guard=FAILED))
    assert done.current == release(2) and done.last is not None and "promoted by bob" in done.last.verdict.evidence
    early = machine.promote(machine.begin(serving, release(2), kind="deploy", gates=(), at="", strategy=strategy), by="bob", at="now")
    assert weights(early) == ({1: 100}, [2]), "it is not ready yet"
    assert weights(machine.advance(early, seen())) == ({2: 100}, [1])
    assert weights(machine.advance(early, seen(BROKEN))) == ({1: 100}, []), "what does not load is not promoted"


def test_an_abort_goes_back_and_says_who(serving: Deployment) -> None:
    back = machine.abort(under_way(serving, CANARY, steps=2), by="bob", why="smells", at="now")
    assert weights(back) == ({1: 100}, []) and generation(back) == 4
    assert back.last is not None and back.last.verdict.evidence == "aborted by bob: smells"


def test_a_shadow_never_answers_and_ends_by_promotion_or_by_itself_where_asked(serving: Deployment) -> None:
    deployment = under_way(serving, SHADOW)
    assert weights(deployment)[0] == {1: 100} and generation(deployment) == 2
    plan = machine.plan(deployment)
    assert plan is not None and plan.shadows == {release(2).digest: 1.0} and plan.champion == release(1).digest
    held = machine.advance(deployment, watched())
    assert weights(held)[0] == {1: 100} and "promotes or aborts" in waits(held)
    assert weights(machine.promote(held, by="ann", at="now")) == ({2: 100}, [1])
    itself = under_way(serving, msgspec.structs.replace(SHADOW, promote=True))
    assert weights(machine.advance(itself, watched()))[0] == {2: 100}


def test_an_experiment_ends_with_the_better(serving: Deployment) -> None:
    deployment = under_way(serving, SPLIT)
    plan = machine.plan(deployment)
    assert plan is not None and plan.sticky == "header:x-user" and weights(deployment)[0] == {1: 50, 2: 50}
    assert "neither" in waits(machine.advance(deployment, watched(metric=UNSURE)))
    won = machine.advance(machine.advance(deployment, watched(metric=GOOD)), seen())
    assert won.current == release(2) and won.rollout is None
    lost = machine.advance(deployment, watched(metric=FAILED))
    assert lost.current == release(1) and lost.rollout is None
    undecided = machine.advance(deployment, watched(elapsed_s=90_000.0, metric=UNSURE))
    assert undecided.rollout is not None and undecided.rollout.pause is not None and "neither version" in undecided.rollout.pause.why


def test_after_blue_green_the_old_release_stays_warm_and_going_back_is_one_flip(serving: Deployment) -> None:
    deployment = machine.begin(serving, release(2), kind="deploy", gates=(), at="", strategy=BLUE_GREEN)
    deployment = machine.advance(machine.advance(deployment, seen()), seen())
    assert weights(deployment) == ({2: 100}, [1]) and deployment.rollout is None
    assert machine.advance(deployment, watched(elapsed_s=1e9)) is deployment
    back = begun(deployment, 1, "rollback")
    assert weights(back) == ({1: 100}, [2]) and generation(back) == 3, "no holding: it is ready"
    assert weights(machine.advance(back, seen())) == ({1: 100}, [])
    assert weights(begun(deployment, 3)) == ({2: 100}, [3]), "until the next rollout"


def test_a_warm_release_is_let_go_after_its_time(serving: Deployment) -> None:
    deployment = begun(serving, 2)
    assert deployment.rollout is not None
    strategy = msgspec.structs.replace(BLUE_GREEN, keep_warm_s=60.0)
    deployment = machine.begin(serving, release(2), kind="deploy", gates=(), at="", strategy=strategy)
    deployment = machine.advance(machine.advance(deployment, seen()), seen())
    deployment = machine.advance(deployment, watched(elapsed_s=30.0))
    assert weights(deployment) == ({2: 100}, [1])
    assert weights(machine.advance(deployment, watched(elapsed_s=60.0))) == ({2: 100}, [])


def test_verbs_on_a_rollout_want_one(serving: Deployment) -> None:
    for verb in (
        lambda: machine.pause(serving, by="", why="", at=""),
        lambda: machine.resume(serving),
        lambda: machine.promote(serving, by="", at=""),
        lambda: machine.abort(serving, by="", why="", at=""),
        lambda: machine.approve(serving, by="", at=""),
    ):
        with pytest.raises(Conflict, match="nothing to"):
            verb()
    with pytest.raises(Conflict, match="not paused"):
        machine.resume(under_way(serving, CANARY))
