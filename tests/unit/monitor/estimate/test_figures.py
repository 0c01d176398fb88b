"""monitor.estimate.figures: with certain truths the figures themselves; with chances their mean and spread over drawn truths."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.control import quality
from modelyard.monitor.estimate import figures


def rows(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    draw = np.random.default_rng(seed)
    chance = draw.random(count)
    return chance, np.round(np.clip(chance + draw.normal(0, 0.2, count), 0, 1), 1), draw


def test_with_certain_truths_they_are_the_figures() -> None:
    from sklearn import metrics

    chance, score, draw = rows()
    truth = draw.random(400) < chance
    found = {name: each.value for name, each in figures.binary(truth.astype(float), score > 0.5, score).items()}
    said = score > 0.5
    assert found["auc"] == pytest.approx(quality.auc(truth, score))
    expected = {
        "accuracy": metrics.accuracy_score(truth, said),
        "auc": metrics.roc_auc_score(truth, score),
        "precision": metrics.precision_score(truth, said),
        "recall": metrics.recall_score(truth, said),
        "f1": metrics.f1_score(truth, said),
    }
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", ["accuracy", "auc", "precision", "recall", "f1"])
def test_with_chances_they_are_what_drawn_truths_give_on_average_and_spread(name: str) -> None:
    chance, score, draw = rows()
    expected = figures.binary(chance, score > 0.5, score)[name]
    drawn = [figures.binary((draw.random(400) < chance).astype(float), score > 0.5, score)[name].value for _ in range(1_000)]
    assert expected.value == pytest.approx(np.mean(drawn), abs=0.003)
    assert expected.labels == pytest.approx(np.var(drawn), rel=0.2)


@pytest.mark.parametrize("name", ["accuracy", "auc", "precision", "recall", "f1"])
def test_other_rows_spread_the_estimate_as_it_says(name: str) -> None:
    said = [figures.binary(chance, score > 0.5, score)[name] for chance, score, _ in (rows(seed=seed) for seed in range(500))]
    assert np.mean([each.rows for each in said]) == pytest.approx(np.var([each.value for each in said]), rel=0.2)


def of_three(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    draw = np.random.default_rng(seed)
    chances = draw.dirichlet((1.0, 1.0, 1.0), count)
    scores = np.round(chances + draw.normal(0, 0.1, chances.shape), 1)
    return chances, scores.argmax(axis=1), scores, draw


def truths(chances: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    places = (draw.random(len(chances))[:, None] > chances.cumsum(axis=1)).sum(axis=1)
    return np.eye(3)[places]


def test_of_three_classes_they_are_the_macro_averages() -> None:
    from sklearn import metrics

    chances, said, scores, draw = of_three()
    truth = truths(chances, draw)
    known = truth.argmax(axis=1)
    found = {name: each.value for name, each in figures.macro(truth, said, scores).items()}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(known, said, average="macro")
    aucs = [metrics.roc_auc_score(truth[:, place], scores[:, place]) for place in range(3)]
    assert found == pytest.approx({"auc": np.mean(aucs), "precision": precision, "recall": recall, "f1": f1})


@pytest.mark.parametrize("name", ["auc", "precision", "recall", "f1"])
def test_of_three_classes_they_spread_as_drawn_truths_and_rows_do(name: str) -> None:
    chances, said, scores, draw = of_three()
    expected = figures.macro(chances, said, scores)[name]
    drawn = [figures.macro(truths(chances, draw), said, scores)[name].value for _ in range(600)]
    assert expected.value == pytest.approx(np.mean(drawn), abs=0.004)
    assert expected.labels == pytest.approx(np.var(drawn), rel=0.2) == (expected.spread**2).sum()
    others = [figures.macro(*of_three(seed=seed)[:3])[name] for seed in range(300)]
    assert np.mean([each.rows for each in others]) == pytest.approx(np.var([each.value for each in others]), rel=0.25)


def test_a_class_that_is_never_answered_has_no_precision() -> None:
    chances, _, scores, _ = of_three()
    assert set(figures.macro(chances, np.ones(len(chances), int), scores)) == {"auc", "recall", "f1"}


def test_what_is_not_defined_is_left_out() -> None:
    zeros, scores = np.zeros(10), np.linspace(0, 1, 10)
    assert set(figures.binary(zeros, zeros == 1, scores)) == {"accuracy"}
    assert "auc" not in figures.binary(zeros, scores > 0.5, scores)


def test_errors_are_the_means_and_what_draws_of_them_spread() -> None:
    draw = np.random.default_rng(0)
    deviation = draw.uniform(0.5, 2.0, 1_000)
    found = figures.errors(deviation * np.sqrt(2 / np.pi), deviation**2, 3.0)
    drawn = [draw.normal(0, deviation) for _ in range(1_000)]
    assert found["mae"].value == pytest.approx(np.mean([np.abs(each).mean() for each in drawn]), rel=0.01)
    assert found["rmse"].value == pytest.approx(np.mean([np.sqrt((each**2).mean()) for each in drawn]), rel=0.01)
    assert found["mae"].labels == pytest.approx(np.var([np.abs(each).mean() for each in drawn]), rel=0.2)
    assert found["rmse"].labels == pytest.approx(np.var([np.sqrt((each**2).mean()) for each in drawn]), rel=0.25)
