"""What labels say: AUC with DeLong's variance, mean errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from judging import Counted, Known, stratum

from modelyard.rollout.guards import judge, parse
from modelyard.rollout.guards.labelled import LEAST, area

ALPHA = 0.0125


def scored(rng, rows: int, separation: float) -> Known:
    truth = rng.integers(0, 2, rows)
    score = rng.normal(size=rows) + separation * truth
    return Known(truth, (score > separation / 2).astype(int), score)


def erring(rng, rows: int, scale: float) -> Known:
    truth = rng.normal(size=rows)
    return Known(truth, truth + scale * rng.normal(size=rows))


def told(text: str, candidate, champion) -> str:
    return judge(parse(text), [stratum(Counted(), candidate_labels=candidate, champion_labels=champion)], alpha=ALPHA).outcome


def test_the_area_is_that_of_its_definition_and_its_variance_that_of_repetition() -> None:
    rng = np.random.default_rng(1)
    labels = scored(rng, 300, 1.0)
    labels = labels._replace(score=np.round(labels.score, 1))  # ties
    positive, negative = labels.score[labels.truth == 1][:, None], labels.score[labels.truth == 0][None, :]
    assert area(labels).value == pytest.approx(float(((positive > negative) + 0.5 * (positive == negative)).mean()))
    repeated = [area(scored(rng, 300, 1.0)) for _ in range(400)]
    assert np.mean([each.variance for each in repeated]) == pytest.approx(np.var([each.value for each in repeated]), rel=0.2)


def test_an_area_needs_two_classes_and_enough_of_each() -> None:
    rng = np.random.default_rng(2)
    assert math.isnan(area(Known(np.zeros(500), np.zeros(500), rng.normal(size=500))).value)
    assert math.isnan(area(Known(np.arange(500) % 3, np.zeros(500), rng.normal(size=500))).value)
    assert math.isnan(area(Known(np.arange(500) < 10, np.zeros(500), rng.normal(size=500))).value)
    assert math.isnan(area(Known(np.arange(500) % 2, np.zeros(500))).value)


def test_a_worse_model_fails_and_a_better_one_passes() -> None:
    rng = np.random.default_rng(3)
    good, bad = scored(rng, 4000, 2.0), scored(rng, 4000, 1.0)
    for text in ("auc>=champion-0.01", "auc>=0.98x", "auc>=0.85"):
        assert told(text, bad, good) == "fail"
        assert told(text, good, bad) == "pass"
    near, far = erring(rng, 4000, 1.0), erring(rng, 4000, 1.3)
    for text in ("mae<1.05x", "rmse<1.05x", "mae<champion+0.1", "rmse<champion+0.1"):
        assert told(text, far, near) == "fail"
        assert told(text, near, far) == "pass"
    assert told("rmse<1.1", far, near) == "fail"
    assert told("mae<0.9", near, far) == "pass"


def test_a_bound_that_the_champion_breaks_too_fails_only_a_worse_candidate() -> None:
    rng = np.random.default_rng(4)
    assert told("auc>=0.95", scored(rng, 4000, 1.0), scored(rng, 4000, 1.0)) == "warn"
    assert told("auc>=0.95", scored(rng, 4000, 0.5), scored(rng, 4000, 1.5)) == "fail"


def test_too_few_labels_are_told() -> None:
    rng = np.random.default_rng(5)
    few = erring(rng, LEAST - 30, 1.0)
    verdict = judge(parse("mae<0.1"), [stratum(Counted(), candidate_labels=few)], alpha=ALPHA)
    assert (verdict.outcome, verdict.numbers["missing"]) == ("unknown", 30)
    assert "at least 30 more labelled predictions" in verdict.evidence


def exact(rows: int, *, off_by: float = 0.0) -> Known:
    """A model whose errors do not vary."""
    truth = np.arange(rows) % 10.0
    return Known(truth, truth + off_by)


@pytest.mark.parametrize("text", ["mae<1.05x", "rmse<1.05x", "mae<champion+0.5", "rmse<champion+0.5", "mae<0.5", "rmse<0.5"])
def test_two_exact_models_are_told_in_finite_time_and_a_much_worse_one_fails(text: str) -> None:
    few, many = exact(LEAST), exact(40_000)
    assert told(text, few, few) == "unknown"  # nothing has varied yet in so few: that is no proof
    assert told(text, many, many) == "pass"
    assert told(text, exact(2000, off_by=5.0), exact(2000)) == "fail"
    rng = np.random.default_rng(6)
    assert told(text, exact(4000)._replace(predicted=rng.permutation(exact(4000).truth)), exact(4000)) == "fail"  # one varies, the other does not


def test_errors_that_are_all_alike_are_told_apart_by_their_size() -> None:
    for text in ("mae<1.2x", "rmse<1.2x", "mae<champion+1", "rmse<champion+1"):
        assert told(text, exact(40_000, off_by=2.0), exact(40_000, off_by=2.0)) == "pass"
        assert told(text, exact(4000, off_by=4.0), exact(4000, off_by=2.0)) == "fail"
    assert told("mae<champion", exact(100_000), exact(100_000)) == "unknown"  # neither is the better, and none is ever called so
    rounded = exact(4000)._replace(predicted=exact(4000).truth * (1 + 1e-15))
    assert told("mae<champion", rounded, exact(4000)) == "unknown"  # the rounding of numbers decides nothing


def test_areas_that_do_not_vary_are_told_in_finite_time() -> None:
    truth = np.arange(4000) % 2
    apart, swapped, tied = (Known(truth, truth, score) for score in (truth + 0.0, 1.0 - truth, np.zeros(4000)))
    for text in ("auc>=champion-0.01", "auc>=0.98x", "auc>=0.95"):
        assert told(text, apart, apart) == "pass"
        assert told(text, swapped, apart) == "fail"
        assert told(text, tied, apart) == "fail"


def test_limits_of_what_does_not_vary_are_known() -> None:
    verdict = judge(parse("mae<0.5"), [stratum(Counted(), candidate_labels=exact(1000))], alpha=ALPHA)
    assert 0 <= verdict.numbers["low"] <= verdict.numbers["estimate"] == 0 < verdict.numbers["high"] < 0.5


def owned(rng, callers: int, each: int, *, shift: float = 0.0) -> Known:
    """Errors whose size is their caller's, of callers with as many predictions each."""
    caller = np.repeat(np.arange(callers), each)
    size = np.exp(rng.normal(size=callers))[caller] + shift
    truth = rng.normal(size=len(caller))
    return Known(truth, truth + size * rng.choice([-1, 1], len(caller)), groups=rng.integers(0, 256, callers)[caller])


def test_callers_count_and_not_their_predictions() -> None:
    """The control: without the groups the same labels call two versions different that are alike."""
    wrong = {True: 0, False: 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        mine, other = owned(rng, 100, 100), owned(rng, 100, 100)
        for is_known in (True, False):
            pair = [each if is_known else each._replace(groups=()) for each in (mine, other)]
            wrong[is_known] += told("mae<champion", *pair) != "unknown"
    assert wrong[True] <= 2 < 10 <= wrong[False]
    rng = np.random.default_rng(7)
    assert told("mae<champion", owned(rng, 400, 20, shift=2.0), owned(rng, 400, 20)) == "fail"


def test_callers_count_where_nothing_varies_in_one_version() -> None:
    """The control: by their predictions, two callers of sixty who are wrong each time would decide it."""
    caller = np.repeat(np.arange(60), 50)
    truth, groups = np.arange(len(caller)) % 10.0, (37 * caller) % 256
    right, wrong = Known(truth, truth, groups=groups), Known(truth, truth + 10.0 * (caller < 2), groups=groups)
    for text in ("mae<champion", "rmse<champion", "mae<1.05x"):
        assert told(text, right, wrong) == told(text, wrong, right) == "unknown"
        without = [each._replace(groups=()) for each in (right, wrong)]
        assert (told(text, *without), told(text, *reversed(without))) == ("pass", "fail")
    all_wrong = wrong._replace(predicted=truth + 10.0 * (caller < 40))
    assert (told("mae<champion", right, all_wrong), told("mae<champion", all_wrong, right)) == ("pass", "fail")


def test_too_few_callers_say_nothing() -> None:
    rng = np.random.default_rng(8)
    assert told("mae<champion", owned(rng, 6, 1000, shift=3.0), owned(rng, 6, 1000)) == "unknown"
