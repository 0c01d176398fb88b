from __future__ import annotations

import numpy as np
import pytest

from modelyard.monitor.slicing import Condition, coded, difference, find, holm, said


def rows(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    age = rng.uniform(18, 90, (count, 1))
    age[rng.random((count, 1)) < 0.05] = np.nan
    return {
        "age": age,
        "city": np.array(["bonn", "kiel", "ulm", None], dtype=object)[rng.choice(4, (count, 1), p=(0.5, 0.3, 0.1, 0.1))],
        "kids": rng.integers(0, 4, (count, 1)),
        "noise": rng.normal(size=(count, 1)),
        "wide": rng.normal(size=(count, 3)),
    }


def wrong(inputs: dict[str, np.ndarray], seed: int, extra: float) -> np.ndarray:
    """A tenth of the answers are wrong; where age is over 60 in Kiel so many more."""
    is_bad = (inputs["age"].ravel() > 60) & (inputs["city"].ravel() == "kiel")
    return (np.random.default_rng((seed, 1)).random(len(is_bad)) < 0.1 + extra * is_bad).astype(float)


def test_columns_of_one_value_a_row_are_coded() -> None:
    columns = coded(rows(1000, 1), rows=1000)
    assert [each.name for each in columns] == ["age", "city", "kids", "noise"]
    age, city, kids, _ = columns
    assert age.names[-1] == "missing" and age.ordered == 8 and set(city.names) == {"= 'bonn'", "= 'kiel'", "= 'ulm'", "missing"}
    assert kids.ordered == 4 and kids.edges == (0.5, 1.5, 2.5)
    assert coded({"x": np.ones((50, 1))}, rows=50) == ()


def test_conditions_in_words() -> None:
    columns = coded(rows(1000, 1), rows=1000)
    assert said(columns, [Condition(2, 0, 1)]) == "kids <= 1.5"
    assert said(columns, [Condition(2, 1, 2)]) == "0.5 < kids <= 2.5"
    assert said(columns, [Condition(0, 8, 8), Condition(2, 2, 3)]) == "age is missing and kids > 1.5"
    place = columns[1].names.index("= 'kiel'")
    assert said(columns, [Condition(1, place, place)]) == "city = 'kiel'"


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_slice_is_found_with_its_size(seed: int) -> None:
    inputs = rows(4000, seed)
    found = find(coded(inputs, rows=4000), wrong(inputs, seed, 0.4), alpha=0.01)
    best = found[0]
    assert set(best.columns) == {"age", "city"} and "city = 'kiel'" in best.said and "age >" in best.said
    assert len(found) <= 2, "what holds this slice is not told beside it"
    assert best.low < 0.4 < best.high and best.p < 0.01 and best.rest < 0.15


def test_where_there_is_none_few_are_found() -> None:
    """At level .05 in 200 searches of 1,000 rows; a search that tests on the rows that it searched finds one nearly always."""
    false = 0
    for seed in range(200):
        inputs = rows(1000, seed)
        false += bool(find(coded(inputs, rows=1000), wrong(inputs, seed, 0.0), alpha=0.05))
    assert false <= 20


def test_sizes_of_any_kind_of_loss() -> None:
    inputs = rows(3000, 1)
    rng = np.random.default_rng(1)
    loss = np.abs(rng.normal(0, np.where(inputs["kids"].ravel() == 3, 3.0, 1.0)))
    found = find(coded(inputs, rows=3000), loss, alpha=0.01)
    assert found[0].said == "kids > 2.5" and found[0].loss == pytest.approx(3 * found[0].rest, rel=0.2)
    assert find(coded(inputs, rows=3000), loss, alpha=0.01, least=10.0) == ()


def test_few_rows_or_one_loss_find_nothing() -> None:
    inputs = rows(100, 1)
    assert find(coded(inputs, rows=100), np.ones(100), alpha=0.05) == ()
    inputs = rows(1000, 1)
    assert find(coded(inputs, rows=1000), np.zeros(1000), alpha=0.05) == ()
    assert find((), np.ones(1000), alpha=0.05) == ()


def test_the_same_rows_give_the_same_slices() -> None:
    inputs = rows(2000, 3)
    loss = wrong(inputs, 3, 0.3)
    assert find(coded(inputs, rows=2000), loss, alpha=0.05) == find(coded(inputs, rows=2000), loss, alpha=0.05)


def test_limits_cover_the_difference() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        inside, outside = (rng.random(40) < 0.1).astype(float), (rng.random(400) < 0.2).astype(float)
        _, low, high = difference(inside, outside, alpha=0.05)
        covered += low <= -0.1 <= high
    assert covered >= 0.92 * 400


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]
