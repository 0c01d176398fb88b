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


def test_errors_that_are_all_alike_say_nothing_and_break_nothing() -> None:
    same = Known(np.zeros(500), np.ones(500))
    assert told("mae<1.05x", same, same) == "unknown"
    perfect = Known(np.zeros(500), np.zeros(500))
    assert told("rmse<1.05x", perfect, perfect) == "unknown"
