"""monitor.estimate.prices: what a shift costs, by profiles alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from estimating import NUMBER, TWO, Rows, learnt, live, rows

from modelyard.monitor import estimate
from modelyard.monitor.estimate import Learnt, prices
from modelyard.monitor.profile import FeatureProfile, Profile
from modelyard.types import Schema, Verdict

SHIFT = Verdict(outcome="fail", rule="drift:age", evidence="age has moved", columns=("age",))


@pytest.fixture(scope="module")
def known() -> dict[Schema, tuple[Rows, Learnt]]:
    return {schema: (given := rows(schema, 10_000), learnt(schema, given)) for schema in (TWO, NUMBER)}


def feature(profile: Profile, name: str) -> FeatureProfile:
    return next(each for each in profile.features if each.name == name)


def accuracy(given: Rows) -> float:
    return float((given.outputs["label"] == given.truth).mean())


def test_a_shift_to_where_the_model_errs_costs_what_it_costs(known: Any) -> None:
    reference, taught = known[TWO]
    old = rows(TWO, 10_000, seed=1, ages=(62, 88))
    cost = estimate.price(taught, feature(live(TWO, reference, old), "age"))
    assert cost == pytest.approx(accuracy(reference) - accuracy(old), abs=0.02) and cost > 0.05
    young = rows(TWO, 10_000, seed=1, ages=(20, 55))
    assert estimate.price(taught, feature(live(TWO, reference, young), "age")) < -0.03  # type: ignore[operator]


def test_errors_are_priced_as_a_share_of_the_references(known: Any) -> None:
    reference, taught = known[NUMBER]
    old = rows(NUMBER, 10_000, seed=1, ages=(62, 88))
    cost = estimate.price(taught, feature(live(NUMBER, reference, old), "age"))
    mae = [abs(each.truth - each.outputs["prediction"]).mean() for each in (old, reference)]
    assert cost == pytest.approx(mae[0] / mae[1] - 1, abs=0.05)


def test_no_shift_costs_nothing_and_a_column_that_is_not_looked_at_exactly_nothing(known: Any) -> None:
    reference, taught = known[TWO]
    profile = live(TWO, reference, reference)
    assert estimate.price(taught, feature(profile, "age")) == pytest.approx(0, abs=1e-12)
    big = live(TWO, reference, rows(TWO, 1_000, shoes=60.0))
    assert estimate.price(taught, feature(big, "shoe")) == 0.0


def test_where_the_reference_has_no_rows_nobody_can_tell(known: Any) -> None:
    reference, taught = known[TWO]
    away = live(TWO, reference, rows(TWO, 1_000, ages=(200, 300)))
    assert estimate.price(taught, feature(away, "age")) is None
    assert estimate.price(Learnt(), feature(away, "age")) is None


def test_a_verdict_is_priced_once(known: Any) -> None:
    reference, taught = known[TWO]
    old = live(TWO, reference, rows(TWO, 10_000, seed=1, ages=(62, 88)))
    found = estimate.priced(SHIFT, taught, old)
    assert found.harm is not None and found.harm > 0.05
    young = live(TWO, reference, rows(TWO, 10_000, seed=1, ages=(20, 55)))
    assert estimate.priced(SHIFT, taught, young).harm == 0
    for verdict, bundle in ((SHIFT, None), (SHIFT, Learnt()), (msgspec.structs.replace(SHIFT, columns=()), taught), (found, Learnt())):
        assert estimate.priced(verdict, bundle, old) == verdict


def test_the_guilty_are_named_costliest_first(known: Any) -> None:
    reference, taught = known[TWO]
    old = live(TWO, reference, rows(TWO, 10_000, seed=1, ages=(62, 88)))
    assert prices.guilty(taught, old, least=0.02) == ("age",)
    assert prices.guilty(taught, live(TWO, reference, rows(TWO, 10_000, seed=1)), least=0.02) == ()


@pytest.mark.parametrize("schema", [TWO, NUMBER], ids=["two classes", "a number"])
def test_profiles_of_outputs_alone_tell_the_main_figure(known: Any, schema: Schema) -> None:
    reference, taught = known[schema]
    found = estimate.binned(taught, live(schema, reference, rows(schema, 5_000, seed=2)))
    (name,) = found.figures
    figure = found.figures[name]
    assert figure.low < taught.quality[name] < figure.high and figure.value == pytest.approx(taught.quality[name], rel=0.03)


def test_outputs_where_the_reference_has_none_are_refused(known: Any) -> None:
    reference, taught = known[NUMBER]
    given = rows(NUMBER, 1_000)
    given.outputs["prediction"][:] = 1e6
    assert "none" in estimate.binned(taught, live(NUMBER, reference, given)).why
    assert "no labels" in estimate.binned(Learnt(), live(NUMBER, reference, given)).why
    foreign = msgspec.structs.replace(taught, outputs={"prediction": taught.inputs["city"]})
    assert "not that of the reference" in estimate.binned(foreign, live(NUMBER, reference, given)).why
