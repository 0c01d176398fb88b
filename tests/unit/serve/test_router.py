from __future__ import annotations

from collections import Counter
from itertools import cycle, islice

import msgspec

from modelyard.events import GROUPS
from modelyard.serve.router import Router, champion
from modelyard.types import Digest, TrafficPlan

A, B, C = (Digest("sha256:" + letter * 64) for letter in "abc")

PLACES = [True, False, True, True, False, True, False, True, False, True, True, True]


def plan(weights: dict[Digest, int]) -> TrafficPlan:
    return TrafficPlan(name="m", generation=1, weights=weights, versions={digest: n for n, digest in enumerate(weights, 1)})


def test_one_digest_takes_all() -> None:
    router = Router(plan({A: 100}), draw=lambda: 1 / 0)
    assert router.only == A
    assert router.pick(2) == [A, A]


def test_shares_are_the_weights() -> None:
    draws = cycle(n / 1000 for n in range(1000))
    router = Router(plan({A: 90, B: 10}), draw=lambda: next(draws))
    assert Counter(router.pick(1000)) == {A: 900, B: 100}


def test_draws_go_on_by_the_weights_each_for_itself() -> None:
    for weights in ({A: 90, B: 10}, {A: 90, B: 4, C: 6}):
        drawn = [n / 100 for n in range(100)] * 8
        rest = iter(drawn)
        found = list(islice(Router(plan(weights), draw=lambda rest=rest: next(rest)).draws(), 600))
        assert [digest == A for digest in found] == [value < 0.9 for value in drawn[:600]]
        assert Counter(found) == {digest: 6 * weight for digest, weight in weights.items()}


def test_champion_is_the_heaviest_and_the_first_among_equals() -> None:
    assert champion(plan({A: 10, B: 90})) == B
    assert champion(plan({B: 50, A: 50})) == B


def test_a_plan_says_who_is_champion_however_small_its_share() -> None:
    assert champion(TrafficPlan(name="m", generation=1, weights={A: 90, B: 10}, versions={A: 2, B: 1}, champion=B)) == B


def test_a_value_stays_where_it_is_and_shares_are_the_weights() -> None:
    router = Router(plan({A: 80, B: 20}), draw=lambda: 1 / 0)
    values = [b"user-%d" % number for number in range(20_000)]
    found = [router.place(value)[0] for value in values]
    assert found == [Router(plan({B: 20, A: 80})).place(value)[0] for value in values], "in whatever order the plan names them"
    assert abs(Counter(found)[B] - 4000) < 4 * (20_000 * 0.2 * 0.8) ** 0.5
    other = Router(TrafficPlan(name="other", generation=1, weights={A: 80, B: 20}, versions={A: 1, B: 2}))
    both = sum(router.place(value)[0] == other.place(value)[0] == B for value in values)
    assert abs(both - 800) < 4 * (20_000 * 0.04) ** 0.5, "another deployment divides them anew"


def test_the_place_of_a_value_is_the_same_in_every_process_for_ever() -> None:
    router = Router(plan({A: 50, B: 50}))
    assert [router.place(b"%d" % number)[0] == B for number in range(12)] == PLACES


def test_as_a_candidate_grows_it_keeps_the_values_that_it_has() -> None:
    for champion_digest, candidate in ((A, B), (B, A)):
        had: set[int] = set()
        for weight in (1, 10, 50, 99):
            weights = {champion_digest: 100 - weight, candidate: weight}
            router = Router(TrafficPlan(name="m", generation=1, weights=weights, versions={A: 1, B: 2}, champion=champion_digest))
            has = {number for number in range(3000) if router.place(b"%d" % number)[0] == candidate}
            assert had < has
            had = has


def test_the_group_of_a_value_has_nothing_to_do_with_its_version() -> None:
    router = Router(plan({A: 70, B: 30}))
    placed = [router.place(b"%d" % number) for number in range(20_000)]
    groups = [{group for digest, group in placed if digest == each} for each in (A, B)]
    assert groups == [set(range(GROUPS))] * 2, "each group has callers of both"
    counts = [sum(digest == B for digest, group in placed if group % 4 == rest) for rest in range(4)]
    assert max(counts) < 1.15 * min(counts)
    other = Router(msgspec.structs.replace(plan({B: 99, A: 1}), generation=9))
    assert [other.place(b"%d" % number)[1] for number in range(50)] == [group for _, group in placed[:50]], "whatever the weights"
