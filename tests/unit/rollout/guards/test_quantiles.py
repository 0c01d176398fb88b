"""Guards on latencies over the steps of a rollout."""

from __future__ import annotations

import numpy as np
from judging import Counted, Mirrored, buckets, seconds, stratum, traffic

from modelyard.events import GROUPS, Callers, half_octaves
from modelyard.monitor.evidence import Blocks
from modelyard.rollout.guards import judge, parse

ALPHA = 0.0125


def told(text: str, *strata) -> str:
    return judge(parse(text), strata, alpha=ALPHA).outcome


def test_a_slower_candidate_is_told_apart_and_an_equal_one_is_not() -> None:
    rng = np.random.default_rng(3)
    champion = traffic(rng, 50_000)
    slow, alike = traffic(rng, 1000, median_s=0.015), traffic(rng, 3000)
    for text in ("p50<1.15x", "p50<12ms", "p50<champion+2ms"):
        assert told(text, stratum(slow, champion)) == "fail"
        assert told(text, stratum(alike, champion)) != "fail"
    assert told("p50<1.5x", stratum(alike, champion)) == "pass"
    assert told("p99<100ms", stratum(alike, champion)) == "pass"
    verdict = judge(parse("p50<1.15x"), [stratum(alike, champion)], alpha=ALPHA)
    assert verdict.numbers["holds"] == 1
    assert abs(verdict.numbers["estimate"] / verdict.numbers["champion"] - 1) < 0.08


def test_an_absolute_bound_that_the_champion_breaks_too_is_told_and_fails_only_a_worse_candidate() -> None:
    rng = np.random.default_rng(4)
    champion = traffic(rng, 20_000, median_s=0.02)
    assert told("p50<10ms", stratum(traffic(rng, 2000, median_s=0.02), champion)) == "warn"
    assert told("p50<10ms", stratum(traffic(rng, 2000, median_s=0.04), champion)) == "fail"


def test_stalls_of_a_second_do_not_break_a_bound_that_is_kept_over_time() -> None:
    rng = np.random.default_rng(9)
    usual = [0.01 * np.exp(0.5 * rng.normal(size=500)) for _ in range(40)]
    stalled = seconds(*usual[:19], 3 * usual[19], *usual[20:], 3 * usual[0])
    assert told("p99<35ms", stratum(stalled)) == "unknown"
    assert told("p99<35ms", stratum(stalled._replace(blocks=Blocks()))) == "fail", "by its requests alone it would be taken back"
    assert told("p50<20ms", stratum(stalled)) == "pass"
    assert told("p99<35ms", stratum(seconds(*(1.5 * each for each in usual)))) == "fail"
    assert told("p99<35ms", stratum(stalled), stratum(seconds(*(2 * each for each in usual[:20])))) == "fail", "a step that begins slow"


def test_how_much_more_it_takes_is_told_where_seconds_are_known() -> None:
    rng = np.random.default_rng(10)
    few = seconds(*(0.01 * np.exp(0.5 * rng.normal(size=20)) for _ in range(12)))
    verdict = judge(parse("p50<8.5ms"), [stratum(few)], alpha=ALPHA)
    assert verdict.outcome == "unknown"
    assert 100 < verdict.numbers["missing"] < 100_000


def test_a_shadow_is_judged_by_its_mirrored_requests() -> None:
    rng = np.random.default_rng(5)
    candidate = Counted(mirror=Mirrored(sent=1000, latencies=buckets(0.02 * np.exp(0.5 * rng.normal(size=1000)))))
    champion = traffic(rng, 20_000)
    assert told("p50<1.2x", stratum(candidate, champion, is_shadow=True)) == "fail"
    assert told("p50<1.2x", stratum(candidate, champion)) == "unknown"


def test_a_step_without_the_champion_adds_nothing_to_a_comparison() -> None:
    rng = np.random.default_rng(6)
    both = stratum(traffic(rng, 5000, median_s=0.02), traffic(rng, 5000))
    alone = stratum(traffic(rng, 5000, median_s=0.02))
    assert told("p50<1.2x", both, alone) == "fail"
    assert told("p50<1.2x", alone) == "unknown"
    assert "holds" not in judge(parse("p50<1.2x"), [alone], alpha=ALPHA).numbers


def asked(rng, callers: int, each: int, *, slower: float = 1.0, is_known: bool = True) -> Counted:
    """Requests of callers of whom each has a median of its own, as many of each."""
    own, group = np.exp(rng.normal(size=callers)), rng.integers(0, GROUPS, callers)
    took = 0.01 * slower * np.repeat(own, each) * np.exp(0.1 * rng.normal(size=callers * each))
    cells, counts = np.unique(half_octaves(took) * GROUPS + np.repeat(group, each), return_counts=True)
    known = Callers(took=dict(zip(cells.tolist(), counts.tolist(), strict=True))) if is_known else Callers()
    return Counted(len(took), 0, buckets(took), callers=known)


def test_where_callers_keep_to_a_version_they_count_and_not_their_requests() -> None:
    """The control: without the groups the same requests call two versions different that are alike."""
    wrong = {True: 0, False: 0}
    for seed in range(30):
        for is_known in (True, False):
            rng = np.random.default_rng(seed)
            pair = [asked(rng, 50, 400, is_known=is_known) for _ in range(2)]
            wrong[is_known] += judge(parse("p50<1.05x"), [stratum(*pair)], alpha=ALPHA).outcome == "fail"
    assert wrong[True] == 0
    assert wrong[False] >= 3
    rng = np.random.default_rng(1)
    for text in ("p50<1.2x", "p50<11ms"):
        assert judge(parse(text), [stratum(asked(rng, 2000, 20, slower=2.0), asked(rng, 2000, 20))], alpha=ALPHA).outcome == "fail"
        assert judge(parse(text), [stratum(asked(rng, 2000, 20, slower=0.6), asked(rng, 2000, 20))], alpha=ALPHA).outcome == "pass"
        assert judge(parse(text), [stratum(asked(rng, 5, 9000, slower=9.0), asked(rng, 2000, 20))], alpha=ALPHA).outcome == "unknown"
