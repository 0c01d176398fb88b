"""Laws of the rollout's machine, whatever happens in whatever order: verbs of several people, verdicts, crashes, acknowledgements that are lost."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as draw
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelyard.errors import Conflict, Denied
from modelyard.rollout import history, machine
from modelyard.rollout.strategies import complete
from modelyard.targets.base import Deployment, Release, Step, Strategy
from modelyard.types import Digest, TrafficPlan, Verdict

PEOPLE = draw.sampled_from(["ann", "bob"])
OUTCOMES = draw.sampled_from(["pass", "unknown", "unknown", "fail", "warn"])
STEP = {"minimum_s": draw.sampled_from([0.0, 60.0]), "minimum_requests": draw.sampled_from([0, 100]), "approval": draw.booleans()}


def release(version: int) -> Release:
    digest = Digest("sha256:" + f"{version:064x}")
    return Release(model="churn", version=version, digest=digest, index=digest)


@draw.composite
def chosen(pick: Any) -> Strategy:
    """A completed strategy of any kind."""
    kind = pick(draw.sampled_from(["direct", "blue-green", "canary", "shadow", "ab"]))
    weights = {"direct": [100], "blue-green": [100], "shadow": [0, 100], "ab": [pick(draw.integers(1, 99)), 100]}.get(kind)
    if weights is None:
        weights = [*sorted(pick(draw.sets(draw.integers(1, 99), max_size=4))), 100]
    said = STEP if kind != "direct" else {"approval": STEP["approval"]}
    steps = tuple(Step(weight=weight, **pick(draw.fixed_dictionaries(said))) for weight in weights)
    guards = pick(draw.sampled_from([(), ("error_rate<1%",), ("error_rate<1%", "golden")])) if kind != "direct" else ()
    return complete(
        Strategy(
            kind=kind,
            steps=steps,
            guards=guards,
            strict=bool(guards) and pick(draw.booleans()),
            mirror=pick(draw.sampled_from([None, 0.25])) if kind in ("canary", "ab", "shadow") else None,
            sticky="header:x-user" if kind == "ab" else pick(draw.sampled_from([None, "field:a"])) if kind == "canary" else None,
            metric="error_rate" if kind == "ab" else None,
            promote=kind == "shadow" and pick(draw.booleans()),
            keep_warm_s=pick(draw.sampled_from([None, 0.0, 50.0])),
            max_time_s=600.0,
        )
    )


def verdict(outcome: Any, side: float, rule: str = "error_rate<1%") -> Verdict:
    return Verdict(outcome=outcome, rule=rule, evidence="", numbers={"holds": side})


def good(deployment: Deployment) -> machine.Seen:
    """All that a rollout may want to see."""
    rollout = deployment.rollout
    guards = () if rollout is None else tuple(verdict("pass", 1.0, text) for text in rollout.strategy.guards)
    metric = verdict("pass", 1.0) if rollout is not None and rollout.strategy.metric else None
    ready = verdict("pass", 1.0, "ready")
    return machine.Seen(readiness=ready, acknowledged=True, is_over=False, at="t", elapsed_s=60.0, requests=100, guards=guards, metric=metric)


class Rollouts(RuleBasedStateMachine):
    """One deployment through many rollouts. `written` is the record; a driver that crashes, or whose write comes too late, leaves it as it was."""

    @initialize(goal=draw.integers(1, 3))
    def first(self, goal: int) -> None:
        self.written = Deployment(name="churn", model="churn", generation=0)
        self.states: dict[int, tuple[Any, ...]] = {}
        self.newest = 0
        self.elapsed_s = 0.0
        self.by_itself = 0
        self.deploys = 0
        self.write(machine.begin(self.written, release(goal), kind="deploy", gates=(), at="0", by="ann"))

    def write(self, after: Deployment) -> None:
        """The record changes: what must hold of every change."""
        before, self.written = self.written, after
        told = history.tell(before, after, history.itself())
        was, now = machine.plan(before), machine.plan(after)
        if state(was) != state(now):
            assert told, "whatever alters the traffic is told"
        if before.rollout is None and after.rollout is not None:
            self.deploys += after.rollout.kind == "deploy"
            self.by_itself += after.rollout.by == history.ITSELF
            assert self.by_itself <= self.deploys, "each deploy is left at most once: no going to and fro"
        if before.rollout is not None and after.rollout is None:
            assert after.last is not None
            if after.last.verdict.outcome == "pass":
                assert after.current == before.rollout.goal
            else:
                assert after.current == before.current and after.previous == before.previous
        if before.rollout is not None and after.rollout is not None:
            assert before.rollout.goal == after.rollout.goal and before.current == after.current, "never two changes"
        if machine.is_progress(before, after):
            assert not told and was == now

    @rule(goal=draw.integers(1, 4), strategy=chosen(), by=PEOPLE)
    def deploy(self, goal: int, strategy: Strategy, by: str) -> None:
        before = self.written
        if before.current is None:
            strategy = machine.DIRECT
        elif before.current == release(goal):
            return
        try:
            after = machine.begin(before, release(goal), kind="deploy", gates=(), at=f"{self.newest}", by=by, strategy=strategy)
        except Conflict:
            assert before.rollout is not None
            return
        assert before.rollout is None, "never two rollouts"
        self.write(after)

    @rule(by=PEOPLE)
    def go_back(self, by: str) -> None:
        before = self.written
        try:
            after = machine.begin_back(before, at=f"{self.newest}", by=by)
        except Conflict:
            assert before.rollout is not None or not before.previous
            return
        self.write(after)

    @rule(by=PEOPLE, verb=draw.sampled_from(["pause", "resume", "promote", "abort", "approve"]))
    def say(self, by: str, verb: str) -> None:
        before = self.written
        verbs: dict[str, Any] = {
            "pause": lambda: machine.pause(before, by=by, why="", at="t"),
            "resume": lambda: machine.resume(before),
            "promote": lambda: machine.promote(before, by=by, at="t"),
            "abort": lambda: machine.abort(before, by=by, why="", at="t"),
            "approve": lambda: machine.approve(before, by=by, at="t"),
        }
        try:
            after = verbs[verb]()
        except Denied:
            assert verb == "approve" and before.rollout is not None and before.rollout.by == by
            return
        except Conflict:
            return
        if verb == "promote" and before.rollout is not None:
            entered = 0 if before.rollout.phase == "holding" else before.rollout.step + 1
            given = {approval.step for approval in before.rollout.approvals}
            assert all(not step.approval or index in given for index, step in enumerate(before.rollout.strategy.steps) if index >= entered)
        self.write(after)

    @rule(
        readiness=draw.sampled_from(["pass", "pass", "pass", "unknown", "fail"]),
        acknowledged=draw.booleans(),
        is_over=draw.sampled_from([False, False, False, True]),
        passed_s=draw.sampled_from([0.0, 30.0, 60.0, 700.0]),
        requests=draw.sampled_from([0, 50, 100]),
        outcomes=draw.lists(draw.tuples(OUTCOMES, draw.sampled_from([0.0, 1.0])), min_size=3, max_size=3),
        is_lost=draw.sampled_from([False, False, True]),
        served_s=draw.sampled_from([0.0, 0.0, machine.PROVEN_S + 1]),
    )
    def tick(
        self,
        readiness: Any,
        acknowledged: bool,
        is_over: bool,
        passed_s: float,
        requests: int,
        outcomes: list[tuple[Any, float]],
        is_lost: bool,
        served_s: float,
    ) -> None:
        before, rollout = self.written, self.written.rollout
        strategy = machine.DIRECT if rollout is None else rollout.strategy
        known_s = rollout.elapsed_s if rollout is not None else 0.0 if before.warm is None else before.warm.elapsed_s
        seen = machine.Seen(
            readiness=verdict(readiness, 1.0, "ready"),
            acknowledged=acknowledged,
            is_over=is_over,
            at="t",
            elapsed_s=known_s + passed_s,
            requests=requests,
            guards=tuple(verdict(outcome, side, text) for text, (outcome, side) in zip(strategy.guards, outcomes, strict=False)),
            metric=verdict(*outcomes[2]) if strategy.metric else None,
            served_s=served_s,
        )
        after = machine.advance(before, seen)
        assert machine.advance(before, seen) == after, "a driver that crashed does the same again"
        if rollout is not None:
            self.check(before, seen, after)
        elif after.rollout is not None:
            self.check_left(before, seen, after)
        if not is_lost:
            self.write(after)

    def check(self, before: Deployment, seen: machine.Seen, after: Deployment) -> None:
        """What must hold of every step of the driver."""
        old, new = before.rollout, after.rollout
        assert old is not None
        judged = [*seen.guards, *([seen.metric] if seen.metric is not None else [])]
        has_failed = any(each.outcome == "fail" for each in judged) and not old.forced and old.phase != "holding"
        if has_failed or seen.readiness.outcome == "fail":
            assert new is None and after.last is not None and after.last.verdict.outcome == "fail", "back at once"
            return
        if (new is not None and len(new.generations) > len(old.generations)) or (new is None and after.current == old.goal):
            assert old.pause is None or old.forced, "a pause is kept"
            if old.phase == "watching" and not old.forced:
                step = old.strategy.steps[old.step]
                assert seen.elapsed_s >= step.minimum_s and max(old.requests, seen.requests) >= step.minimum_requests
                assert all(each.numbers["holds"] == 1.0 or each.outcome == "pass" for each in seen.guards)
                assert not old.strategy.strict or all(each.outcome == "pass" for each in seen.guards)
        if new is not None and new.generation == old.generation and new.phase == old.phase:
            if new.phase == "watching":
                assert new.waits or new.pause is not None, "never stuck without a reason"
            else:
                assert new.waits or not (seen.acknowledged and seen.readiness.outcome == "pass")

    def check_left(self, before: Deployment, seen: machine.Seen, after: Deployment) -> None:
        """What must hold of a rollout that nobody asked for."""
        assert after.rollout is not None and before.last is not None and before.current is not None
        assert seen.readiness.outcome == "fail" and seen.served_s <= machine.PROVEN_S
        assert (after.rollout.kind, after.rollout.by, after.rollout.goal) == ("rollback", history.ITSELF, before.previous[-1])
        assert (before.last.kind, before.last.verdict.outcome, before.last.goal) == ("deploy", "pass", before.current), "never what was gone back to"

    @rule()
    def a_record_is_read_back(self) -> None:
        self.written = msgspec.convert(msgspec.json.decode(msgspec.json.encode(self.written)), Deployment)

    @invariant()
    def a_plan_keeps_the_laws(self) -> None:
        if not hasattr(self, "written"):
            return
        deployment, plan = self.written, machine.plan(self.written)
        if plan is None:
            assert deployment.current is None
            return
        assert sum(plan.weights.values()) == 100
        assert plan.generation == deployment.in_force >= self.newest, "a generation never goes back"
        self.newest = plan.generation
        assert self.states.setdefault(plan.generation, state(plan)) == state(plan), "one generation is one state"
        if deployment.current is not None:
            assert deployment.current.digest in plan.digests, "the old release is ready during the whole rollout"
        if deployment.rollout is not None:
            assert deployment.rollout.goal.digest in plan.digests
            assert (
                deployment.rollout.strategy.kind != "shadow" or deployment.rollout.phase == "holding" or deployment.rollout.step == 1 or plan.shadows
            )

    @precondition(lambda self: hasattr(self, "written"))
    @rule()
    def everything_can_end(self) -> None:
        """From any state a rollout that is approved, resumed and good ends well; this only looks."""
        deployment = self.written
        for _ in range(4 * 6):
            rollout = deployment.rollout
            if rollout is None:
                break
            if rollout.pause is not None and not rollout.forced:
                deployment = machine.resume(deployment)
            if "approval" in rollout.waits:
                deployment = machine.approve(deployment, by="carl", at="t")
            if "promotes" in rollout.waits:
                wanted = rollout.strategy.steps[1].approval and all(approval.step != 1 for approval in rollout.approvals)
                deployment = machine.approve(deployment, by="carl", at="t") if wanted else machine.promote(deployment, by="carl", at="t")
            deployment = machine.advance(deployment, good(deployment))
        assert deployment.rollout is None
        if self.written.rollout is not None:
            assert deployment.current == self.written.rollout.goal


def state(plan: TrafficPlan | None) -> tuple[Any, ...]:
    """What a generation stands for."""
    return () if plan is None else (plan.weights, plan.shadows, plan.sticky)


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(strategy=chosen())
def test_a_completed_strategy_is_complete(strategy: Strategy) -> None:
    assert complete(strategy) == strategy
    assert msgspec.json.decode(msgspec.json.encode(strategy), type=Strategy) == strategy
