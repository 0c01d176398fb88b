from __future__ import annotations

import numpy as np
import pytest
from minutes import DIGEST, OTHER, evidence, reference

from modelyard.monitor import settings
from modelyard.monitor.base import Evidence, Logged
from modelyard.monitor.settings import Monitored
from modelyard.monitor.slices import Slices
from modelyard.types import Schema, TensorSpec

CLASSIFIER = Schema(
    inputs=(TensorSpec(name="age", datatype="FP64", shape=(-1, 1)), TensorSpec(name="city", datatype="BYTES", shape=(-1, 1))),
    outputs=(TensorSpec(name="label", datatype="INT64", shape=(-1,)), TensorSpec(name="probability", datatype="FP64", shape=(-1, 2))),
    layout="frame",
    task="classification",
    classes=(0, 1),
)


def logged(rows: int = 4000, *, extra: float = 0.3, labels: bool = True, seed: int = 1, sure: bool = True) -> Logged:
    """A tenth of the answers are wrong, in Kiel so many more; without `sure` the model knows that."""
    rng = np.random.default_rng(seed)
    city = np.array(["bonn", "kiel"], dtype=object)[rng.choice(2, (rows, 1), p=(0.8, 0.2))]
    yes = rng.random(rows) < 0.5
    chance = 0.1 + extra * (city.ravel() == "kiel")
    truth = np.where(rng.random(rows) < chance, ~yes, yes).astype(np.int64)
    doubt = np.full(rows, 0.1) if sure else chance
    probability = np.stack([np.where(yes, doubt, 1 - doubt), np.where(yes, 1 - doubt, doubt)], axis=1)
    outputs = {"label": yes.astype(np.int64), "probability": probability}
    return Logged(
        1_700_000_040 + np.arange(rows, dtype=float), {"age": rng.normal(40, 10, (rows, 1)), "city": city}, outputs, truth if labels else None
    )


def turn(given: Logged | None, **chosen) -> Evidence:
    made = evidence(reference()._replace(schema=CLASSIFIER), [], logged=given)
    return made._replace(settings=Monitored(slices=settings.Slices(**chosen)))


def test_a_slice_that_does_worse_warns_with_its_harm() -> None:
    (told,) = Slices().judge(turn(logged()), b"").verdicts
    assert (told.outcome, told.rule, told.columns) == ("warn", "slices", ("city",))
    assert "city = 'kiel'" in told.evidence and told.harm == pytest.approx(0.3, abs=0.06)
    assert told.window == (1_700_000_040, 1_700_004_039)


def test_only_the_columns_that_were_named_are_searched() -> None:
    (told,) = Slices().judge(turn(logged(), columns=("age",)), b"").verdicts
    assert told.outcome == "pass"


def test_no_slice_passes() -> None:
    (told,) = Slices().judge(turn(logged(extra=0.0)), b"").verdicts
    assert (told.outcome, told.harm) == ("pass", 0.0)


def test_without_labels_it_is_what_the_model_itself_doubts() -> None:
    (told,) = Slices().judge(turn(logged(labels=False, sure=False)), b"").verdicts
    assert told.outcome == "warn" and "by the model's own probabilities" in told.evidence and told.harm == pytest.approx(0.3, abs=0.05)
    (told,) = Slices().judge(turn(logged(labels=False, sure=True)), b"").verdicts
    assert told.outcome == "pass"


@pytest.mark.parametrize("labels", [True, False])
def test_answers_that_are_no_numbers_hide_no_slice_and_are_no_loss(labels: bool) -> None:
    made = logged(labels=labels, sure=False)
    probability = made.outputs["probability"].copy()
    probability[::40] = np.nan
    (told,) = Slices().judge(turn(made._replace(outputs=made.outputs | {"probability": probability})), b"").verdicts
    assert told.outcome == "warn" and "city = 'kiel'" in told.evidence
    (told,) = Slices().judge(turn(made._replace(outputs=made.outputs | {"probability": probability * np.nan})), b"").verdicts
    assert told.outcome == ("warn" if labels else "unknown")


def test_nothing_to_look_at_is_unknown() -> None:
    (told,) = Slices().judge(turn(None), b"").verdicts
    assert (told.outcome, told.rule) == ("unknown", "slices")
    few = logged(100)
    (told,) = Slices().judge(turn(few), b"").verdicts
    assert told.outcome == "unknown" and "200" in told.evidence


def test_groups_are_compared() -> None:
    _, city, age, gone = Slices().judge(turn(logged(), fairness=("city", "age", "gone")), b"").verdicts
    assert (city.rule, city.outcome) == ("slices:city", "warn")
    assert city.numbers["share of wrong answers, city = 'kiel'"] == pytest.approx(0.4, abs=0.06)
    assert city.numbers["low"] < city.numbers["difference"] < city.numbers["high"]
    assert age.outcome == "pass"
    assert gone.outcome == "unknown"


def test_groups_that_are_treated_alike_pass() -> None:
    false = 0
    for seed in range(40):
        _, city = Slices().judge(turn(logged(1500, extra=0.0, seed=seed), fairness=("city",), fairness_margin=0.0), b"").verdicts
        false += city.outcome == "warn"
    assert false <= 5


def test_a_search_is_remembered_until_the_next_is_due() -> None:
    detector = Slices()
    first = detector.judge(turn(logged()), b"")
    later = turn(logged(extra=0.0))
    assert detector.judge(later, first.state).verdicts == first.verdicts
    due = detector.judge(later._replace(now=later.now + 3600), first.state)
    assert due.verdicts[0].outcome == "pass"
    other = later._replace(reference=later.reference._replace(digest=OTHER))
    assert later.reference.digest == DIGEST and detector.judge(other, first.state).verdicts[0].outcome == "pass"
    assert detector.judge(later, b"rubbish").verdicts[0].outcome == "pass"


def test_a_search_for_which_there_was_too_little_is_made_as_soon_as_there_is_enough() -> None:
    nothing = Slices().judge(turn(logged(100)), b"")
    assert nothing.verdicts[0].outcome == "unknown"
    assert Slices().judge(turn(logged()), nothing.state).verdicts[0].outcome == "warn"


def test_a_prediction_that_is_no_number_hides_no_slice_of_a_regression() -> None:
    rng = np.random.default_rng(1)
    age = rng.normal(40, 10, 4000)
    predicted = rng.normal(0, 1, 4000) * np.where(age > 50, 3.0, 1.0)
    predicted[::40] = np.nan
    given = Logged(1_700_000_040 + np.arange(4000.0), {"age": age.reshape(-1, 1)}, {"prediction": predicted}, np.zeros(4000))
    (told,) = Slices().judge(evidence(reference(), [], logged=given), b"").verdicts
    assert told.outcome == "warn" and "age" in told.evidence and "of 3,900 rows" in told.evidence


def test_a_regression_is_priced_in_parts_of_its_own_error() -> None:
    rng = np.random.default_rng(1)
    rows = 3000
    is_kiel = rng.random((rows, 1)) < 0.3
    city = np.where(is_kiel, "kiel", "bonn").astype(object)
    truth = rng.normal(0, np.where(is_kiel.ravel(), 3.0, 1.0))
    given = Logged(np.arange(rows, dtype=float), {"city": city}, {"prediction": np.zeros(rows)}, truth)
    known = reference()._replace(quality={"mae": 0.8})
    (told,) = Slices().judge(evidence(known, [], logged=given), b"").verdicts
    assert told.outcome == "warn" and told.harm == pytest.approx(2 * 0.8, rel=0.2)
