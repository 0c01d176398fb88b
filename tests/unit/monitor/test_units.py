from __future__ import annotations

import numpy as np
import pytest

from modelyard.monitor.profile import Binner, FeatureProfile, filled, measure
from modelyard.monitor.units import UNITS, unit_of
from modelyard.types import Schema, TensorSpec

SCHEMA = Schema(inputs=(TensorSpec(name="x", datatype="FP64", shape=(-1, 1)),), outputs=(), layout="frame", task="other")
DRAWS = {
    "normal": lambda rng, n: rng.normal(50, 10, n),
    "skewed": lambda rng, n: rng.lognormal(3, 0.5, n),
    "uniform": lambda rng, n: rng.uniform(5, 95, n),
    "around zero": lambda rng, n: rng.normal(3, 8, n),
    "few values": lambda rng, n: rng.integers(1, 9, n).astype(float),
}


def seen(draw, change, *, rows: int = 600, seed: int = 1) -> tuple[FeatureProfile, FeatureProfile]:
    rng = np.random.default_rng(seed)
    old = measure({"x": draw(rng, 8000).reshape(-1, 1)}, SCHEMA)
    binner = Binner(old)
    binner.add({"x": np.asarray(change(draw(rng, rows))).reshape(-1, 1)}, {})
    return old.features[0], filled(old, binner.take()).features[0]


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("factor", [10.0, 1000.0, 0.1, 0.001])
def test_powers_of_ten_are_told(name: str, factor: float) -> None:
    found = unit_of(*seen(DRAWS[name], lambda values: values * factor))
    assert found is not None
    is_clipped = factor == 1000.0  # far beyond the reference sums are clipped, so that the least factor that fits is told
    assert found[1] == 1.0 and (found[0].factor == factor or (is_clipped and found[0].factor >= 100))


def test_a_few_values_that_are_not_clipped_hide_no_factor() -> None:
    found = unit_of(*seen(lambda rng, n: rng.lognormal(10, 0.5, n), lambda values: np.concatenate((values * 1000, [2.2e6])), rows=3000))
    assert found is not None and found[0].factor == 1000.0


@pytest.mark.parametrize(("name", "share"), [("normal", 0.2), ("normal", 0.5), ("skewed", 0.5), ("skewed", 0.75), ("uniform", 0.3)])
def test_a_share_of_the_rows_may_have_another_unit(name: str, share: float) -> None:
    rng = np.random.default_rng(4)
    found = unit_of(*seen(DRAWS[name], lambda values: values * np.where(rng.random(values.shape) < share, 10.0, 1.0), rows=2000))
    assert found is not None and found[0].factor == 10.0 and abs(found[1] - share) <= 0.1


@pytest.mark.parametrize("name", ["normal", "uniform"])
def test_degrees_are_told(name: str) -> None:
    celsius = {"normal": lambda rng, n: rng.normal(12, 7, n), "uniform": lambda rng, n: rng.uniform(-5, 35, n)}[name]
    found = unit_of(*seen(celsius, lambda values: values * 1.8 + 32, rows=5000))
    assert found is not None and (found[0].factor, found[0].offset, found[1]) == (1.8, 32.0, 1.0)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(
    "change",
    [lambda v: v, lambda v: v + v.std(), lambda v: v + 3 * v.std(), lambda v: v.mean() + (v - v.mean()) * 1.5, lambda v: np.full_like(v, v[0])],
    ids=["nothing", "one deviation", "three deviations", "wider", "constant"],
)
def test_other_shifts_are_not_called_units(name: str, change) -> None:
    assert unit_of(*seen(DRAWS[name], change)) is None


def test_a_constant_reference_or_few_rows_say_nothing() -> None:
    assert unit_of(*seen(lambda _, n: np.full(n, 4.0), lambda values: values * 10)) is None
    assert unit_of(*seen(DRAWS["normal"], lambda values: values * 10, rows=20)) is None


def test_units_come_with_their_inverses() -> None:
    for unit in UNITS:
        assert any(np.isclose(other.factor * unit.factor, 1) for other in UNITS), unit.said
