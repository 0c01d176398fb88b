"""The direct strategy as a pure machine: which plan each state stands for, and how it moves on or back."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import Conflict
from modelyard.rollout import direct
from modelyard.targets.base import HISTORY, Deployment, Release
from modelyard.types import Digest, Verdict

READY = Verdict(outcome="pass", rule="ready", evidence="2 of 2")
WAITING = Verdict(outcome="unknown", rule="ready", evidence="1 of 2")
BROKEN = Verdict(outcome="fail", rule="golden-replay", evidence="row 3 differs")


def release(version: int) -> Release:
    digest = Digest("sha256:" + f"{version:064x}")
    return Release(model="churn", version=version, digest=digest, index=digest)


def seen(readiness: Verdict = READY, *, acknowledged: bool = True, is_over: bool = False) -> direct.Seen:
    return direct.Seen(readiness=readiness, acknowledged=acknowledged, is_over=is_over, at="now")


def begun(deployment: Deployment, version: int, kind: Any = "deploy") -> Deployment:
    return direct.begin(deployment, release(version), kind=kind, verdicts=(READY,), at="then")


def settled(deployment: Deployment, version: int, kind: Any = "deploy") -> Deployment:
    deployment = begun(deployment, version, kind)
    for _ in range(2):
        deployment = direct.advance(deployment, seen())
    assert deployment.rollout is None
    return deployment


@pytest.fixture
def empty() -> Deployment:
    return Deployment(name="churn", model="churn", generation=0)


@pytest.fixture
def serving(empty: Deployment) -> Deployment:
    return settled(empty, 1)


def weights(deployment: Deployment) -> tuple[dict[int, int], list[int]]:
    plan = direct.plan(deployment)
    assert plan is not None
    return {plan.versions[digest]: weight for digest, weight in plan.weights.items()}, [plan.versions[digest] for digest in plan.hold]


def test_nothing_deployed_has_no_plan(empty: Deployment) -> None:
    assert direct.plan(empty) is None


def test_the_first_release_takes_the_traffic_at_once(empty: Deployment) -> None:
    deployment = begun(empty, 1)
    assert weights(deployment) == ({1: 100}, [])
    deployment = direct.advance(deployment, seen())
    assert deployment.current == release(1) and deployment.generation == 1 and deployment.previous == ()


def test_a_new_release_is_held_ready_before_it_takes_the_traffic(serving: Deployment) -> None:
    deployment = begun(serving, 2)
    plan = direct.plan(deployment)
    assert weights(deployment) == ({1: 100}, [2]) and plan is not None and plan.generation == 1
    deployment = direct.advance(deployment, seen())
    plan = direct.plan(deployment)
    assert weights(deployment) == ({2: 100}, [1]) and plan is not None and plan.generation == 2
    deployment = direct.advance(deployment, seen())
    assert weights(deployment) == ({2: 100}, [])
    assert deployment.generation == 2 and deployment.previous == (release(1),)
    assert deployment.last is not None and deployment.last.verdict.outcome == "pass" and deployment.last.gates == (READY,)


@pytest.mark.parametrize("what", [seen(WAITING), seen(acknowledged=False), seen(WAITING, acknowledged=False)])
def test_nothing_moves_before_every_worker_is_ready_and_has_said_so(serving: Deployment, what: direct.Seen) -> None:
    deployment = begun(serving, 2)
    assert direct.advance(deployment, what) == deployment
    switching = direct.advance(deployment, seen())
    assert direct.advance(switching, what) == switching


@pytest.mark.parametrize("phase", ["holding", "switching"])
@pytest.mark.parametrize("what", [seen(BROKEN), seen(WAITING, is_over=True)])
def test_any_failure_goes_back_and_the_old_release_serves_on(serving: Deployment, phase: str, what: direct.Seen) -> None:
    deployment = begun(serving, 2)
    if phase == "switching":
        deployment = direct.advance(deployment, seen())
    back = direct.advance(deployment, what)
    assert weights(back) == ({1: 100}, []) and back.rollout is None and back.current == release(1) and back.previous == ()
    assert back.last is not None and back.last.verdict.outcome == "fail"
    before, after = direct.plan(deployment), direct.plan(back)
    assert before is not None and after is not None and after.generation >= before.generation


def test_a_first_release_that_fails_leaves_nothing_serving(empty: Deployment) -> None:
    back = direct.advance(begun(empty, 1), seen(BROKEN))
    assert direct.plan(back) is None and back.last is not None
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
    back = direct.advance(begun(deployment, 1, "rollback"), seen(BROKEN))
    assert back.current == release(2) and back.previous == (release(1),)


def test_history_is_bounded(empty: Deployment) -> None:
    deployment = empty
    for version in range(1, HISTORY + 4):
        deployment = settled(deployment, version)
    assert len(deployment.previous) == HISTORY and deployment.previous[-1] == release(HISTORY + 2)


def test_without_a_rollout_nothing_changes(serving: Deployment) -> None:
    for what in (seen(), seen(BROKEN), seen(WAITING, is_over=True)):
        assert direct.advance(serving, what) is serving
