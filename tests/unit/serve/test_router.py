from __future__ import annotations

from collections import Counter
from itertools import cycle

from modelyard.serve.router import Router, champion
from modelyard.types import Digest, TrafficPlan

A, B = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)


def plan(weights: dict[Digest, int]) -> TrafficPlan:
    return TrafficPlan(name="m", generation=1, weights=weights, versions={digest: n for n, digest in enumerate(weights, 1)})


def test_one_digest_takes_all() -> None:
    router = Router(plan({A: 100}), draw=lambda: 1 / 0)
    assert router.only == A
    assert router.pick() == A


def test_shares_are_the_weights() -> None:
    draws = cycle(n / 1000 for n in range(1000))
    router = Router(plan({A: 90, B: 10}), draw=lambda: next(draws))
    assert Counter(router.pick() for _ in range(1000)) == {A: 900, B: 100}


def test_champion_is_the_heaviest_and_the_first_among_equals() -> None:
    assert champion(plan({A: 10, B: 90})) == B
    assert champion(plan({B: 50, A: 50})) == B


def test_a_plan_says_who_is_champion_however_small_its_share() -> None:
    assert champion(TrafficPlan(name="m", generation=1, weights={A: 90, B: 10}, versions={A: 2, B: 1}, champion=B)) == B
