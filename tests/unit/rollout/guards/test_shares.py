"""Guards on shares: errors, disagreement, accuracy, samples of a gauge."""

from __future__ import annotations

import numpy as np
import pytest
from judging import Counted, Known, Mirrored, stratum

from modelyard.events import GROUPS, Callers
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


def asked(rng, callers: int, each: int, *, share: float = 0.1, is_known: bool = True) -> Counted:
    """Requests of callers of whom some fail always and the others never, as many of each."""
    groups, fails = rng.integers(0, GROUPS, callers), rng.random(callers) < share
    asked, failed = np.bincount(groups, minlength=GROUPS) * each, np.bincount(groups, fails, minlength=GROUPS).astype(int) * each
    known = Callers(asked=dict(enumerate(asked.tolist())), failed=dict(enumerate(failed.tolist())))
    return Counted(callers * each, int(failed.sum()), callers=known if is_known else Callers())


def test_where_callers_keep_to_a_version_they_count_and_not_their_requests() -> None:
    """The control: without the groups the same requests call two versions different that are alike."""
    wrong = {True: 0, False: 0}
    for seed in range(60):
        for is_known in (True, False):
            rng = np.random.default_rng(seed)
            pair = [asked(rng, 300, 50, is_known=is_known) for _ in range(2)]
            wrong[is_known] += told("error_rate<champion", stratum(*pair)) != "unknown"
    assert wrong[True] <= 3 < 15 <= wrong[False]
    rng = np.random.default_rng(1)
    assert told("error_rate<champion", stratum(asked(rng, 3000, 50, share=0.2), asked(rng, 3000, 50))) == "fail"
    assert told("error_rate<15%", stratum(asked(rng, 3000, 50), asked(rng, 3000, 50))) == "pass"
    assert told("error_rate<15%", stratum(asked(rng, 40, 1000), asked(rng, 1000, 50))) == "unknown"


def test_too_few_callers_count_once_each() -> None:
    """What fails for all of them is sent back; what fails for one is not, however much that one asks."""
    rng = np.random.default_rng(2)
    champion = asked(rng, 1000, 50, share=0.01)
    for text in ("error_rate<champion", "error_rate<1.5x", "error_rate<5%"):
        assert told(text, stratum(asked(rng, 6, 5000, share=1.0), champion)) == "fail"
        one = Counted(30_000, 5000, callers=Callers(asked=dict.fromkeys(range(6), 5000), failed={0: 5000}))
        assert told(text, stratum(one, champion)) == "unknown"
        assert told(text, stratum(asked(rng, 6, 5000, share=0.0), champion)) == "unknown"
    assert told("error_rate<champion", stratum(asked(rng, 40, 5000, share=1.0), champion)) == "fail"


def test_few_callers_of_equal_versions_seldom_end_a_rollout() -> None:
    """The control: by their requests most are."""
    wrong = {True: 0, False: 0}
    for seed in range(200):
        for is_known in (True, False):
            rng = np.random.default_rng(seed)
            pair = [asked(rng, 8, 500, share=0.3, is_known=is_known) for _ in range(2)]
            wrong[is_known] += told("error_rate<champion", stratum(*pair)) == "fail"
    assert wrong[True] <= 2 < 50 < wrong[False]


def test_steps_that_share_their_callers_are_not_multiplied() -> None:
    rng = np.random.default_rng(3)
    once = stratum(asked(rng, 300, 20, share=0.16), asked(rng, 300, 20))
    found = [judge(parse("error_rate<champion"), [once] * steps, alpha=ALPHA).numbers["e_fail"] for steps in (1, 4)]
    assert found[0] == pytest.approx(found[1])
    alone = stratum(*(each._replace(callers=Callers()) for each in (once.candidate, once.champion)))
    apart = [judge(parse("error_rate<champion"), [alone] * steps, alpha=ALPHA).numbers["e_fail"] for steps in (1, 4)]
    assert apart[1] > 10 * apart[0]


def test_accuracy_counts_callers_where_they_keep_to_a_version() -> None:
    rng = np.random.default_rng(4)

    def labels(callers: int, each: int, *, wrong: float, is_known: bool = True) -> Known:
        caller = np.repeat(np.arange(callers), each)
        return Known(
            np.zeros(len(caller)), (rng.random(callers) < wrong)[caller], groups=rng.integers(0, GROUPS, callers)[caller] if is_known else ()
        )

    def decided(*, is_known: bool) -> int:
        pairs = [[labels(300, 50, wrong=0.1, is_known=is_known) for _ in range(2)] for _ in range(40)]
        return sum(told("accuracy>champion", stratum(Counted(), candidate_labels=mine, champion_labels=other)) != "unknown" for mine, other in pairs)

    assert decided(is_known=True) <= 2 < 8 <= decided(is_known=False)


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
