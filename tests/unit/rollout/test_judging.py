"""Counts become what the machine asks for, and nothing is judged twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.events import Mirror
from modelyard.monitor.evidence import Seen
from modelyard.monitor.labels import Labelled
from modelyard.rollout import judging, machine
from modelyard.rollout.guards import UNASKED, Samples
from modelyard.rollout.judging import Judge, Judged
from modelyard.rollout.strategies import complete
from modelyard.rollout.truths import Truth
from modelyard.targets.base import Deployment, Release, Step, Strategy
from modelyard.types import Digest, Verdict

READY = Verdict(outcome="pass", rule="ready", evidence="2 of 2")


def release(version: int) -> Release:
    digest = Digest("sha256:" + f"{version:064x}")
    return Release(model="churn", version=version, digest=digest, index=digest)


def rolling(strategy: Strategy) -> Deployment:
    """Version 2 in its first step, which is generation 5."""
    serving = Deployment(name="churn", model="churn", generation=4, current=release(1))
    begun = machine.begin(serving, release(2), kind="deploy", gates=(), at="t", strategy=complete(strategy))
    return machine.advance(begun, machine.Seen(readiness=READY, acknowledged=True, is_over=False, at="t"))


class Store:
    """Counts by generation and version; how often they were asked for."""

    def __init__(self) -> None:
        self.counts: dict[int, dict[Digest, Seen]] = {}

    def count(self, generation: int, version: int, **seen: Any) -> None:
        self.counts.setdefault(generation, {})[release(version).digest] = Seen(**seen)

    def __call__(self, name: str) -> Mapping[int, Mapping[Digest, Seen]]:
        assert name == "churn"
        return self.counts


CANARY = Strategy(kind="canary", guards=("error_rate<1%", "golden"))


def test_the_candidates_errors_are_judged_over_all_steps() -> None:
    store = Store()
    store.count(5, 1, requests=9_000, errors=9)
    store.count(5, 2, requests=1_000, errors=300, latencies={40: 700})
    judged = Judge(store).judge(rolling(CANARY), READY)
    assert judged.requests == 1_000 and [verdict.outcome for verdict in judged.guards] == ["fail", "pass"] and judged.metric is None
    clean = Store()
    clean.count(5, 2, requests=1_000)
    assert [verdict.outcome for verdict in Judge(clean).judge(rolling(CANARY), READY).guards] != ["fail", "pass"]


def test_answers_without_a_value_fail_a_version_that_nobody_gave_a_guard() -> None:
    store = Store()
    store.count(5, 1, requests=900, outputs={"label": (900, 0, 0)})
    store.count(5, 2, requests=9, outputs={"label": (1, 0, 8)})
    for strategy in (Strategy(kind="canary"), CANARY):
        *asked, last = Judge(store).judge(rolling(strategy), READY).guards
        assert len(asked) == len(strategy.guards) and (last.outcome, last.rule) == ("fail", UNASKED)
    store.count(5, 2, requests=9, outputs={"label": (9, 0, 0)})
    assert Judge(store).judge(rolling(Strategy(kind="canary")), READY).guards == (), "no step waits for it"
    store.count(5, 2, requests=9, outputs={"label": (1, 0, 8)})
    forced = machine.promote(rolling(Strategy(kind="canary")), by="ada", at="t")
    assert Judge(store).judge(forced, READY).guards == ()


def test_the_champions_errors_are_not_the_candidates() -> None:
    store = Store()
    store.count(5, 1, requests=1_000, errors=300)
    judged = Judge(store).judge(rolling(CANARY), READY)
    assert judged.requests == 0 and judged.guards[0].outcome == "unknown"


def test_a_shadow_is_judged_by_what_was_mirrored() -> None:
    store = Store()
    store.count(5, 2, mirror=Mirror(sent=500, rows=500, disagreed=250))
    judged = Judge(store).judge(rolling(Strategy(kind="shadow", guards=("disagreement<3%",))), READY)
    assert judged.requests == 500 and judged.guards[0].outcome == "fail"


def test_an_experiment_has_a_verdict_of_its_own() -> None:
    store = Store()
    store.count(5, 1, requests=5_000, errors=1_000)
    store.count(5, 2, requests=5_000, errors=10)
    strategy = Strategy(kind="ab", metric="error_rate", sticky="header:x")
    judged = Judge(store).judge(rolling(strategy), READY)
    assert judged.guards == () and judged.metric is not None and judged.metric.outcome == "pass"
    store.count(5, 1, requests=5_000, errors=10)
    store.count(5, 2, requests=5_000, errors=1_000)
    lost = Judge(store).judge(rolling(strategy), READY).metric
    assert lost is not None and lost.outcome == "fail"


def test_nothing_is_judged_again_while_nothing_new_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = Store(), []
    real = judging.judge
    monkeypatch.setattr(judging, "judge", lambda guard, strata, *, alpha: asked.append(guard) or real(guard, strata, alpha=alpha))
    judge = Judge(store)
    store.count(5, 2, requests=10)
    first = judge.judge(rolling(CANARY), READY)
    assert judge.judge(rolling(CANARY), READY) is first and len(asked) == 3
    store.count(5, 2, requests=11)
    assert judge.judge(rolling(CANARY), READY).requests == 11 and len(asked) == 6


def test_there_is_nothing_to_say_of_what_is_not_judged() -> None:
    def refuse(name: str) -> Any:
        raise AssertionError("no counts are needed")

    serving = Deployment(name="churn", model="churn", generation=4, current=release(1))
    assert Judge(refuse).judge(serving, READY) == Judged()
    assert Judge(refuse).judge(machine.begin(serving, release(2), kind="deploy", gates=(), at=""), READY) == Judged()
    assert Judge(refuse).judge(rolling(Strategy()), READY) == Judged()


def test_a_promotion_is_not_judged_but_counted() -> None:
    store = Store()
    store.count(6, 2, requests=1_000, errors=1_000)
    steps = (Step(weight=10, minimum_requests=5), Step(weight=100))
    promoted = machine.promote(rolling(msgspec.structs.replace(CANARY, steps=steps)), by="ann", at="")
    assert Judge(store).judge(promoted, READY).guards == ()


def test_a_gauge_is_judged_by_its_own_samples() -> None:
    guard = "prometheus(up)<5"
    deployment = rolling(Strategy(kind="canary", guards=(guard,), prometheus="http://metrics.example"))
    judge = Judge(Store())
    assert judge.judge(deployment, READY, {}).guards[0].outcome == "unknown"
    for text, outcome in ((guard, "fail"), ("prometheus(other)<5", "unknown")):
        samples = {5: {text: Samples(taken=20, broken=20, value=9.0)}}
        assert judge.judge(deployment, READY, samples).guards[0].outcome == outcome


def test_labels_are_judged_when_they_have_come() -> None:
    deployment = rolling(Strategy(kind="canary", guards=("accuracy>=champion-1%",)))
    judge = Judge(Store())
    assert judge.judge(deployment, READY).guards[0].outcome == "unknown"
    truth = np.arange(3000) % 2
    right, wrong = (Labelled(truth=truth, predicted=np.where(np.arange(3000) % part == 0, 1 - truth, truth), score=()) for part in (20, 4))
    assert judge.judge(deployment, READY, truth=Truth(1, {5: (right, wrong)})).guards[0].outcome == "fail"
    assert judge.judge(deployment, READY, truth=Truth(2, {5: (wrong, right)})).guards[0].outcome == "pass"
