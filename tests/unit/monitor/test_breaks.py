from __future__ import annotations

import numpy as np
import pytest
from minutes import BEGINS, draw, minute, minutes, reference
from scipy.stats import hypergeom

from modelyard.monitor.breaks import Break, chance_of_more, examine, only_value, refused
from modelyard.monitor.series import Series
from modelyard.monitor.settings import Quality

BAD = 30


def found(change, *, count: int = 40, **options) -> tuple[Break, ...]:
    known = reference()
    made = minutes(known, count, lambda place, rows: change(rows, np.random.default_rng(place)) if place >= BAD else rows, **options)
    return examine(Series(known, made), Quality())


def hit(values: np.ndarray, rng: np.random.Generator, share: float, value: object) -> np.ndarray:
    changed = values.copy()
    changed[rng.random(values.shape) < share] = value
    return changed


def renamed(values: np.ndarray, names: dict[str, str]) -> np.ndarray:
    return np.array([names.get(value, value) for value in values.ravel()], dtype=object).reshape(-1, 1)


CASES = {
    "gone": ("gone", "age", lambda rows, rng: {**rows, "age": np.full_like(rows["age"], np.nan)}),
    "half missing": ("missing", "city", lambda rows, rng: {**rows, "city": hit(rows["city"], rng, 0.5, None)}),
    "a tenth missing": ("missing", "age", lambda rows, rng: {**rows, "age": hit(rows["age"], rng, 0.1, np.nan)}),
    "unit": ("unit", "age", lambda rows, rng: {**rows, "age": rows["age"] * 10}),
    "constant number": ("constant", "age", lambda rows, rng: {**rows, "age": np.full_like(rows["age"], 41.0)}),
    "constant category": ("constant", "city", lambda rows, rng: {**rows, "city": np.full_like(rows["city"], "kiel")}),
    "swapped": ("swapped", "city", lambda rows, rng: {**rows, "city": renamed(rows["city"], {"bonn": "kiel", "kiel": "bonn"})}),
    "default": ("default", "hour", lambda rows, rng: {**rows, "hour": hit(rows["hour"], rng, 0.5, 0)}),
    "new categories": ("unseen", "city", lambda rows, rng: {**rows, "city": hit(rows["city"], rng, 0.2, "jena")}),
    "all renamed": ("unseen", "city", lambda rows, rng: {**rows, "city": renamed(rows["city"], {"bonn": "B", "kiel": "K", "ulm": "U"})}),
    "beyond the range": ("outside", "age", lambda rows, rng: {**rows, "age": hit(rows["age"], rng, 0.05, 130.0)}),
    "sentinel": ("default", "age", lambda rows, rng: {**rows, "age": hit(rows["age"], rng, 0.5, -1.0)}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_break_is_told_with_its_column_and_first_minute(name: str) -> None:
    kind, column, change = CASES[name]
    told = found(change)
    assert [(each.kind, each.feature) for each in told] == [(kind, column)], told
    assert told[0].is_seen and abs(told[0].first - (BEGINS + BAD * 60)) <= 60
    assert told[0].last == BEGINS + 40 * 60


def test_ordinary_hours_are_not_broken() -> None:
    for seed in range(30):
        assert found(lambda rows, rng: rows, count=60, seed=100 + seed, rows=30) == ()


def test_a_population_that_shifts_is_no_break() -> None:
    assert found(lambda rows, rng: {**rows, "age": rows["age"] + 8}) == ()


def test_a_column_that_goes_by_the_clock_is_not_constant() -> None:
    assert found(lambda rows, rng: rows, count=120, clocked=True) == ()


def test_rows_of_a_minute_that_hang_together_are_not_broken() -> None:
    """A minute of one city and one age, as when one caller asks; of two values the one takes the other's place on a holiday."""
    change = lambda place, rows: {**rows, "city": np.full_like(rows["city"], "kiel"), "age": rows["age"] * 0 + 40} if place == 39 else rows  # noqa: E731
    known = reference()
    assert examine(Series(known, minutes(known, 40, change, rows=24)), Quality()) == ()
    rare = lambda share: lambda place, rows: {**rows, "hour": (np.random.default_rng(place).random(rows["hour"].shape) < share(place)).astype(int)}  # noqa: E731
    base = draw(5000, np.random.default_rng(0))
    two = reference({**base, "hour": (np.random.default_rng(1).random((5000, 1)) < 0.02).astype(int)})
    assert examine(Series(two, minutes(two, 40, rare(lambda place: 0.98 if place == 39 else 0.02), rows=24)), Quality()) == ()


def test_a_rise_that_is_not_worth_telling_is_not_told() -> None:
    change = CASES["a tenth missing"][2]
    known = reference()
    made = minutes(known, 40, lambda place, rows: change(rows, np.random.default_rng(place)) if place >= BAD else rows)
    assert examine(Series(known, made), Quality(missing=0.2)) == ()


def test_few_rows_say_nothing() -> None:
    known = reference()
    gone = {**draw(4, np.random.default_rng(1)), "age": np.full((4, 1), np.nan)}
    assert examine(Series(known, [minute(known, 0, gone)]), Quality()) == ()
    assert examine(Series(known, []), Quality()) == ()


@pytest.mark.parametrize(
    ("a", "n", "b", "m"), [(0, 5000, 3, 100), (10, 5000, 5, 200), (400, 1000, 60, 100), (0, 10, 10, 10), (3, 50, 1, 1000), (0, 7, 0, 9)]
)
def test_the_chance_is_that_of_fishers_exact_test(a: int, n: int, b: int, m: int) -> None:
    exact = float(hypergeom.sf(b - 1, n + m, a + b, m))
    is_below = b * (n + m) <= (a + b) * m
    assert chance_of_more(a, n, b, m) == pytest.approx(1.0 if is_below else exact, rel=1e-6)


def test_only_value() -> None:
    known = reference()
    rows = draw(30, np.random.default_rng(1), hour=5)
    rows["city"][:] = "ulm"
    profile = Series(known, [minute(known, 0, rows)]).since(0)
    age, city, hour = (only_value(each) for each in profile.features)
    assert age is None and city == 2 and hour is not None


def test_requests_that_the_schema_refuses_are_told() -> None:
    known = reference()
    rows = draw(100, np.random.default_rng(1))
    made = [minute(known, place, rows, refused=60 if place >= 25 else 0) for place in range(30)]
    told = refused(made)
    assert told is not None and told.kind == "schema"
    assert told.first == BEGINS + 25 * 60 and told.numbers["share"] == pytest.approx(60 / 160)
    assert refused([minute(known, place, rows, refused=60) for place in range(30)]) is None, "it was always so"
    assert refused(made[:25]) is None and refused([]) is None
