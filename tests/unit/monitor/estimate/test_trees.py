"""monitor.estimate.trees: they find what is there, and nothing where nothing is."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from modelyard.errors import MalformedPayload
from modelyard.monitor.estimate import trees
from modelyard.monitor.estimate.trees import LOGISTIC, SQUARED, Growing, Rows, Trees

SIZES = [9, 9, 9]


def drawn(rows: int = 8_000, seed: int = 0) -> tuple[np.ndarray, np.random.Generator]:
    draw = np.random.default_rng(seed)
    return draw.integers(1, 9, size=(3, rows)), draw


def test_a_correction_that_two_columns_hold_together_is_found() -> None:
    codes, draw = drawn()
    wanted = np.where((codes[0] > 4) == (codes[1] > 4), 1.0, -1.0)
    truth = (draw.random(8_000) < trees.sigmoid(wanted)).astype(float)
    grown = trees.fit(Rows(codes, SIZES, np.zeros(8_000), truth), LOGISTIC)
    others, _ = drawn(2_000, seed=1)
    expected = np.where((others[0] > 4) == (others[1] > 4), 1.0, -1.0)
    assert np.abs(grown(others) - expected).mean() < 0.25


def test_where_nothing_is_to_be_found_there_are_no_trees_or_small_ones() -> None:
    codes, draw = drawn()
    margin = draw.normal(size=8_000)
    truth = (draw.random(8_000) < trees.sigmoid(margin)).astype(float)
    grown = trees.fit(Rows(codes, SIZES, margin, truth), LOGISTIC)
    assert np.abs(grown(codes)).mean() < 0.05
    blind = trees.fit(Rows(codes, SIZES, np.zeros(8_000), truth), LOGISTIC, Growing(trees=3))
    assert len(blind.columns) <= 3 * blind.depth


def test_a_gain_that_may_be_chance_grows_no_trees() -> None:
    """The negative control: asked for no certainty, some of these references of pure noise are corrected."""
    kept = dict.fromkeys((3.0, 0.0), 0)
    for seed in range(12):
        codes, draw = drawn(600, seed=seed)
        margin = draw.normal(size=600)
        truth = (draw.random(600) < trees.sigmoid(margin)).astype(float)
        for sure in kept:
            kept[sure] += bool(trees.fit(Rows(codes, SIZES, margin, truth), LOGISTIC, Growing(sure=sure)).columns)
    assert kept[3.0] == 0 and kept[0.0] > 0


def test_a_mean_is_found_by_squares() -> None:
    codes, draw = drawn()
    truth = 0.5 * codes[2] + draw.normal(size=8_000)
    grown = trees.fit(Rows(codes, SIZES, np.zeros(8_000), truth), SQUARED)
    assert np.abs(grown(codes) - 0.5 * codes[2]).mean() < 0.1


def test_levels_make_each_code_right_on_average() -> None:
    codes, draw = drawn()
    margin = draw.normal(size=8_000)
    truth = (draw.random(8_000) < trees.sigmoid(margin + 0.2 * codes[1])).astype(float)
    added = np.array(trees.levels(codes[1], 9, margin, truth, LOGISTIC))
    for code in range(1, 9):
        rows = codes[1] == code
        assert trees.sigmoid(margin + added[code])[rows].mean() == pytest.approx(truth[rows].mean(), abs=0.003)
    assert added[0] == 0, "no row, no level"


def test_the_same_rows_give_the_same_trees_and_they_survive_json() -> None:
    codes, draw = drawn(1_000)
    truth = codes[0] + draw.normal(size=1_000)
    first, second = (trees.fit(Rows(codes, SIZES, np.zeros(1_000), truth), SQUARED) for _ in range(2))
    assert first == second == msgspec.json.decode(msgspec.json.encode(first), type=Trees)


@pytest.mark.parametrize(
    "changed",
    [{"depth": 0}, {"depth": 99}, {"columns": (0, 9)}, {"columns": (0, -1)}, {"above": (1,)}, {"values": (1.0,)}, {"columns": (0,), "above": (1,)}],
)
def test_trees_that_do_not_fit_together_are_refused(changed: dict[str, object]) -> None:
    sound = Trees(depth=2, columns=(0, 1), above=(1, 2), values=(0.0, 1.0, 2.0, 3.0))
    sound.check(2)
    assert sound(np.array([[2, 2], [1, 3]])).tolist() == [1.0, 3.0]
    with pytest.raises(MalformedPayload):
        msgspec.structs.replace(sound, **changed).check(2)
