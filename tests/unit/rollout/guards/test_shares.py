"""Guards on shares: errors, disagreement, accuracy, samples of a gauge."""

from __future__ import annotations

import numpy as np
import pytest
from judging import Counted, Known, Mirrored, stratum

from modelyard.rollout.guards import Samples, judge, parse

ALPHA = 0.0125


def told(text: str, *strata) -> str:
    return judge(parse(text), strata, alpha=ALPHA).outcome


def test_an_error_rate_is_told_from_its_bound_on_either_side() -> None:
    champion = Counted(100_000, 400)
    assert told("error_rate<0.5%", stratum(Counted(1000, 25), champion)) == "fail"
    assert told("error_rate<0.5%", stratum(Counted(20_000, 40), champion)) == "pass"
    assert told("error_rate<0.5%", stratum(Counted(300, 1), champion)) == "unknown"
    assert told("error_rate<2x", stratum(Counted(2000, 60), champion)) == "fail"
    assert told("error_rate<2x", stratum(Counted(20_000, 80), champion)) == "pass"
    assert told("error_rate<champion+1%", stratum(Counted(2000, 80), champion)) == "fail"
    assert told("error_rate<champion+1%", stratum(Counted(2000, 8), champion)) == "pass"


def test_two_versions_that_never_fail_keep_to_a_ratio_once_that_is_seen_of_many_requests() -> None:
    champion = Counted(50_000)
    assert told("error_rate<1.5x", stratum(Counted(5000), champion)) == "unknown"
    assert told("error_rate<1.5x", stratum(Counted(10_000), champion)) == "pass"
    rare = judge(parse("error_rate<1.5x"), [stratum(Counted(30_000, 1), champion)], alpha=ALPHA)
    assert (rare.outcome, rare.numbers["holds"]) == ("pass", 0)
    assert "rarer than 0.1 %, where a ratio does not count" in rare.evidence
    assert told("error_rate<1.5x", stratum(Counted(10_000, 8), champion)) != "pass", "not shown to be so rare"
    assert told("error_rate<1.5x", stratum(Counted(200_000, 80), Counted(200_000, 8))) == "fail", "what is shown to be broken is, however rare"
    assert told("error_rate<champion+0.01%", stratum(Counted(10_000), champion)) == "unknown", "a difference says itself what counts"


def test_a_bound_that_the_champion_breaks_too_fails_only_a_worse_candidate() -> None:
    champion = Counted(100_000, 2000)
    alike = judge(parse("error_rate<0.5%"), [stratum(Counted(10_000, 200), champion)], alpha=ALPHA)
    assert alike.outcome == "warn"
    assert "the champion breaks too" in alike.evidence
    assert alike.numbers["holds"] == 0
    assert told("error_rate<0.5%", stratum(Counted(10_000, 600), champion)) == "fail"


def test_a_shadow_is_judged_by_its_mirrored_requests() -> None:
    candidate = Counted(mirror=Mirrored(sent=2000, failed=100, rows=1900))
    assert told("error_rate<1%", stratum(candidate, Counted(2000, 8), is_shadow=True)) == "fail"
    assert told("error_rate<1%", stratum(candidate, Counted(2000, 8))) == "unknown"


def test_steps_with_other_splits_are_not_added_up() -> None:
    """Simpson's paradox: alike in both steps, while the rate and the split change from one to the other."""
    quiet = stratum(Counted(100, 1), Counted(9900, 99))
    loaded = stratum(Counted(10_000, 1000), Counted(1_000, 100))
    verdict = judge(parse("error_rate<1.5x"), [quiet, loaded], alpha=ALPHA)
    assert verdict.outcome != "fail"
    summed = stratum(Counted(10_100, 1001), Counted(10_900, 199))
    assert told("error_rate<1.5x", summed) == "fail"  # the control: added up, it would


def test_disagreement_counts_requests_not_rows() -> None:
    def mirrored(rows_of_each: int) -> Counted:
        return Counted(mirror=Mirrored(sent=100, rows=100 * rows_of_each, disagreed=10 * rows_of_each))

    assert told("disagreement<3%", stratum(mirrored(1))) == told("disagreement<3%", stratum(mirrored(1000)))
    many = Counted(mirror=Mirrored(sent=2000, rows=2000, disagreed=200))
    assert told("disagreement<3%", stratum(many)) == "fail"
    assert told("disagreement<20%", stratum(many)) == "pass"


def test_accuracy_is_the_share_that_was_right() -> None:
    truth = np.arange(4000) % 2
    wrong = np.where(np.arange(4000) % 5 == 0, 1 - truth, truth)
    right = np.where(np.arange(4000) % 20 == 0, 1 - truth, truth)
    worse = stratum(Counted(), candidate_labels=Known(truth, wrong), champion_labels=Known(truth, right))
    better = stratum(Counted(), candidate_labels=Known(truth, right), champion_labels=Known(truth, wrong))
    for text in ("accuracy>=champion-1%", "accuracy>=0.99x", "accuracy>=90%"):
        verdict = judge(parse(text), [worse], alpha=ALPHA)
        assert (verdict.outcome, verdict.numbers["estimate"], verdict.numbers["holds"]) == ("fail", 0.8, 0.0)
        assert verdict.numbers["low"] < 0.8 < verdict.numbers["high"]
        assert told(text, better) == "pass"
    assert told("accuracy>=90%", stratum(Counted())) == "unknown"


@pytest.mark.parametrize(("broken", "outcome"), [(20, "fail"), (0, "pass"), (10, "unknown")])
def test_a_gauge_is_judged_by_the_sign_of_its_samples(broken: int, outcome: str) -> None:
    samples = Samples(taken=20, broken=broken, value=3.0)
    verdict = judge(parse("prometheus(up)<5"), [stratum(Counted(), samples=samples)], alpha=ALPHA)
    assert verdict.outcome == outcome
    assert verdict.numbers["estimate"] == 3.0
    assert told("prometheus(up)<5", stratum(Counted())) == "unknown"
