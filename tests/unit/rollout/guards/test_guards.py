"""What `judge` says in numbers and in words, and how guards share the level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from judging import Counted, sticky, stratum, traffic

from modelyard.rollout.guards import judge, judge_all, parse
from modelyard.rollout.machine import is_on_its_side
from modelyard.types import Verdict

ALPHA = 0.0125


def test_a_verdict_carries_its_numbers() -> None:
    verdict = judge(parse("error_rate<0.5%"), [stratum(Counted(1000, 25), Counted(100_000, 400))], alpha=ALPHA)
    assert verdict.rule == "error_rate<0.5%"
    numbers = verdict.numbers
    assert (numbers["estimate"], numbers["champion"], numbers["bound"], numbers["holds"]) == (0.025, 0.004, 0.005, 0.0)
    assert numbers["low"] < 0.025 < numbers["high"]
    assert (numbers["requests"], numbers["champion_requests"], numbers["alpha"]) == (1000, 100_000, ALPHA)
    assert numbers["e_fail"] >= 1 / ALPHA > 1 > numbers["e_pass"]
    assert "error_rate 2.5 %" in verdict.evidence
    assert "broken at level 0.0125" in verdict.evidence


def test_no_evidence_is_unknown_and_on_no_side() -> None:
    for text in (
        "error_rate<0.5%",
        "error_rate<1.2x",
        "p99<1.2x",
        "p50<3ms",
        "disagreement<3%",
        "prediction_shift<0.1",
        "auc>=0.8",
        "mae<1",
        "golden",
    ):
        for strata in ([], [stratum(Counted())], [stratum(Counted()), stratum(Counted())]):
            verdict = judge(parse(text), strata, alpha=ALPHA)
            assert verdict.outcome == "unknown"
            assert not is_on_its_side(verdict)
            assert all(map(math.isfinite, verdict.numbers.values()))


def test_what_is_missing_is_about_what_it_takes() -> None:
    champion = Counted(100_000, 400)
    for few in (Counted(300, 6), Counted(1000, 1)):
        verdict = judge(parse("error_rate<0.5%"), [stratum(few, champion)], alpha=ALPHA)
        assert verdict.outcome == "unknown"
        rounded = float(f"{verdict.numbers['missing']:.2g}")
        assert f"about {rounded:,.0f} more would do" in verdict.evidence
        more = (300 if few.requests == 300 else 1000) + verdict.numbers["missing"]
        enough = Counted(int(more * 1.05), round(few.errors * more * 1.05 / few.requests))
        assert judge(parse("error_rate<0.5%"), [stratum(enough, champion)], alpha=ALPHA).outcome != "unknown"


def test_where_callers_are_few_or_alike_it_says_that_callers_are_wanting() -> None:
    """Of one that asks nine of ten requests: more of its requests would tell nothing."""
    few, many = sticky([(4000, 0, 0), *[(1, 0, 0)] * 30]), sticky([(60, 0, 0)] * 64)
    for text in ("error_rate<1%", "missing<1%", "prediction_shift<0.1"):
        verdict = judge(parse(text), [stratum(few, many)], alpha=ALPHA)
        assert verdict.numbers["worth"] < 2 < verdict.numbers["champion_worth"]
        assert verdict.outcome == "unknown"
        assert "so these say no more than 1 request of different callers would" in verdict.evidence, text
        assert "it takes more callers" in verdict.evidence and "would do" not in verdict.evidence
    compared = judge(parse("error_rate<1.5x"), [stratum(many, few)], alpha=ALPHA)
    assert "the champion's no more than 1; it takes more callers" in compared.evidence
    assert "more callers" not in judge(parse("error_rate<1%"), [stratum(sticky([(2, 0, 0)] * 64), few)], alpha=ALPHA).evidence
    assert "worth" not in judge(parse("error_rate<1%"), [stratum(Counted(100), Counted(100))], alpha=ALPHA).numbers


def test_golden_is_the_readiness_of_the_workers() -> None:
    guard = parse("golden")
    for outcome in ("pass", "fail", "unknown"):
        told = Verdict(outcome=outcome, rule="golden-replay", evidence="2 of 2 workers", numbers={"rows": 20.0})
        verdict = judge(guard, [stratum(Counted(), golden=told)], alpha=ALPHA)
        assert (verdict.outcome, verdict.rule, verdict.evidence) == (outcome, "golden", "2 of 2 workers")
        assert is_on_its_side(verdict) == (outcome == "pass")


def test_the_level_is_shared_by_what_is_tested() -> None:
    guards = [parse(text) for text in ("error_rate<0.5%", "p99<1.2x", "golden", "disagreement<3%", "p50<1.2x")]
    verdicts = judge_all(guards, [stratum(Counted())], alpha=0.05)
    assert [verdict.numbers.get("alpha") for verdict in verdicts] == [0.0125, 0.0125, None, 0.0125, 0.0125]
    assert judge_all([parse("golden")], []) == (judge(parse("golden"), [], alpha=1),)


def test_the_estimate_decides_the_side_while_the_test_is_undecided() -> None:
    champion = Counted(100_000, 400)
    good = judge(parse("error_rate<0.5%"), [stratum(Counted(300, 1), champion)], alpha=ALPHA)
    bad = judge(parse("error_rate<0.5%"), [stratum(Counted(300, 2), champion)], alpha=ALPHA)
    assert (good.outcome, bad.outcome) == ("unknown", "unknown")
    assert is_on_its_side(good)
    assert not is_on_its_side(bad)


def test_two_versions_that_fail_nothing_keep_to_a_ratio() -> None:
    ratio = parse("error_rate<1.5x")
    neither = judge(ratio, [stratum(Counted(1000, 0), Counted(1000, 0))], alpha=ALPHA)
    one = judge(ratio, [stratum(Counted(1000, 1), Counted(1000, 0))], alpha=ALPHA)
    assert is_on_its_side(neither), "a step would never be left"
    assert not is_on_its_side(one)


@pytest.mark.parametrize("text", ["error_rate<0.5%", "error_rate<1.5x", "p50<1.2x", "p99<50ms"])
def test_the_same_counts_give_the_same_verdict(text: str) -> None:
    rng = np.random.default_rng(7)
    strata = [stratum(traffic(rng, 200), traffic(rng, 2000)), stratum(traffic(rng, 500), traffic(rng, 500))]
    assert judge(parse(text), strata, alpha=ALPHA) == judge(parse(text), strata, alpha=ALPHA)
