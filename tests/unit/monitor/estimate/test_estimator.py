"""monitor.estimate.estimator: near the truth where the reference speaks, silent where it does not."""

from __future__ import annotations

from typing import Any

import estimating
import msgspec
import numpy as np
import pytest
from estimating import NUMBER, THREE, TWO, Rows, learnt, rows

from modelyard.errors import MalformedPayload
from modelyard.monitor import profile
from modelyard.monitor.estimate import estimator, figures
from modelyard.monitor.estimate.estimator import Estimator
from modelyard.types import Schema, TensorSpec

MAIN = {TWO: "auc", THREE: "accuracy", NUMBER: "mae"}
ALL = pytest.mark.parametrize("schema", [TWO, THREE, NUMBER], ids=["two classes", "three classes", "a number"])


@pytest.fixture(scope="module")
def fitted() -> dict[Schema, Estimator]:
    found = {schema: learnt(schema, rows(schema, 12_000)).estimator for schema in MAIN}
    assert all(found.values())
    return found  # type: ignore[return-value]


def true(schema: Schema, given: Rows) -> dict[str, float]:
    said = estimator.answers(schema, given.outputs)
    return {name: each.value for name, each in estimator.realised(schema, said, estimator.truths(schema, given.truth)).items()}


@ALL
@pytest.mark.parametrize("ages", [(18, 90), (20, 40), (65, 85)])
def test_figures_are_found_without_labels_wherever_the_rows_move(fitted: dict[Schema, Estimator], schema: Schema, ages: Any) -> None:
    given = rows(schema, 5_000, seed=7, ages=ages)
    found = estimator.estimate(fitted[schema], schema, given.inputs, given.outputs)
    truth = true(schema, given)
    assert found.why == "" and set(found.figures) == set(truth)
    for name, figure in found.figures.items():
        tolerance = 0.1 * truth[name] if name in figures.LOWER_IS_BETTER else 0.03
        assert figure.value == pytest.approx(truth[name], abs=tolerance), name


def test_a_curve_alone_would_not_find_it(fitted: dict[Schema, Estimator]) -> None:
    """The negative control: without the trees those above 60 are thought better of than they deserve."""
    given = rows(TWO, 5_000, seed=7, ages=(65, 85))
    blind = msgspec.structs.replace(fitted[TWO], trees=estimator.Trees(depth=4))
    found = estimator.estimate(blind, TWO, given.inputs, given.outputs)
    assert found.figures["accuracy"].value > true(TWO, given)["accuracy"] + 0.06


@ALL
def test_intervals_hold_the_truth_as_often_as_they_say(fitted: dict[Schema, Estimator], schema: Schema) -> None:
    hits = []
    for seed in range(60):
        given = rows(schema, 400, seed=100 + seed, ages=(30, 70))
        figure = estimator.estimate(fitted[schema], schema, given.inputs, given.outputs).figures[MAIN[schema]]
        hits.append(figure.low <= true(schema, given)[MAIN[schema]] <= figure.high)
        assert figure.high - figure.low < (0.6 if schema is NUMBER else 0.25)
    assert np.mean(hits) >= 0.88


@ALL
def test_of_a_large_window_the_interval_allows_for_a_truth_that_does_not_stand_still(fitted: dict[Schema, Estimator], schema: Schema) -> None:
    """However many rows come, no group of them is known better than `KNOWN_ROWS` of it would tell."""
    given = rows(schema, 60_000, seed=9, ages=(30, 50))
    name = MAIN[schema]
    wide = estimator.estimate(fitted[schema], schema, given.inputs, given.outputs).figures[name]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(estimator, "KNOWN_ROWS", 1e12)
        narrow = estimator.estimate(fitted[schema], schema, given.inputs, given.outputs).figures[name]
    assert wide.value == narrow.value and wide.high - wide.low > 1.05 * (narrow.high - narrow.low) and wide.deviation > narrow.deviation


def test_of_three_classes_the_others_share_what_the_answer_leaves(fitted: dict[Schema, Estimator]) -> None:
    given = rows(THREE, 500, seed=3)
    said = estimator.answers(THREE, given.outputs)
    right = np.linspace(0.1, 0.9, 500)
    found = estimator.chances_of_each(fitted[THREE], right, said)
    assert np.allclose(found.sum(axis=1), 1.0) and np.allclose(found[np.arange(500), said["label"]], right) and (found >= 0).all()


@pytest.mark.parametrize(("classes", "has"), [(estimator.CLASSES, True), (estimator.CLASSES + 1, False)])
def test_of_very_many_classes_there_are_no_figures_of_each(classes: int, has: bool) -> None:
    schema = msgspec.structs.replace(THREE, classes=tuple(str(place) for place in range(classes)))
    outputs = {"label": np.array(["0", "1"], dtype=object), "probability": np.full((2, classes), 1 / classes)}
    said = estimator.answers(schema, outputs)
    assert ("probability" in said) is has and said["score"].tolist() == [1 / classes] * 2
    found = estimator.realised(schema, said, np.array([0, 0]))
    assert found["accuracy"].value == 0.5


@ALL
def test_it_refuses_rows_beyond_the_reference_and_says_why(fitted: dict[Schema, Estimator], schema: Schema) -> None:
    given = rows(schema, 1_000, ages=(120, 150))
    found = estimator.estimate(fitted[schema], schema, given.inputs, given.outputs)
    assert not found.figures and "100% of the rows lie where the reference has none" in found.why
    given = rows(schema, 1_000)
    given.inputs["city"][:] = "Bergen"
    assert "where the reference has none" in estimator.estimate(fitted[schema], schema, given.inputs, given.outputs).why
    given.inputs["city"][:] = None
    assert estimator.estimate(fitted[schema], schema, given.inputs, given.outputs).why
    given.inputs["city"][:] = "Oslo"
    assert not estimator.estimate(fitted[schema], schema, given.inputs, given.outputs).why, "negative control"


def test_what_the_model_does_not_look_at_changes_nothing(fitted: dict[Schema, Estimator]) -> None:
    one, other = (rows(TWO, 1_000, shoes=shoes) for shoes in (42.0, 900.0))
    first, second = (estimator.estimate(fitted[TWO], TWO, each.inputs, each.outputs) for each in (one, other))
    assert first == second and first.figures


def test_a_reference_with_too_few_rows_like_these_is_refused() -> None:
    schema = TWO
    reference = rows(schema, 3_000)
    reference.inputs["age"][20:] = np.minimum(reference.inputs["age"][20:], 40.0)
    given = rows(schema, 1_000, seed=3, ages=(75, 89))
    found = estimator.estimate(learnt(schema, reference).estimator, schema, given.inputs, given.outputs)  # type: ignore[arg-type]
    assert not found.figures and found.why


def test_a_few_unknown_rows_widen_the_interval(fitted: dict[Schema, Estimator]) -> None:
    given = rows(TWO, 1_000)
    before = estimator.estimate(fitted[TWO], TWO, given.inputs, given.outputs)
    given.inputs["age"][:60] = 500.0
    after = estimator.estimate(fitted[TWO], TWO, given.inputs, given.outputs)
    assert 0.05 < after.unknown < 0.1
    widths = [each.figures["accuracy"].high - each.figures["accuracy"].low for each in (before, after)]
    assert widths[1] > widths[0] + 0.06


@pytest.mark.parametrize("count", [0, 1, 29])
def test_too_few_rows_are_refused(fitted: dict[Schema, Estimator], count: int) -> None:
    given = rows(TWO, count)
    assert "too few" in estimator.estimate(fitted[TWO], TWO, given.inputs, given.outputs).why


def test_rows_without_an_answer_are_passed_over(fitted: dict[Schema, Estimator]) -> None:
    given = rows(NUMBER, 1_000)
    given.outputs["prediction"][::2] = np.nan
    assert estimator.estimate(fitted[NUMBER], NUMBER, given.inputs, given.outputs).rows == 500
    labels = rows(TWO, 1_000)
    assert "no probabilities" in estimator.estimate(fitted[TWO], TWO, labels.inputs, {"label": labels.outputs["label"]}).why
    assert estimator.estimate(fitted[TWO], TWO, {}, {}).figures == {}


def test_labels_alone_teach_accuracy() -> None:
    schema = msgspec.structs.replace(TWO, outputs=TWO.outputs[:1])
    given = rows(TWO, 12_000)
    bare = Rows(given.inputs, {"label": given.outputs["label"]}, given.truth)
    fitted = learnt(schema, bare).estimator
    assert fitted is not None and fitted.kind == "right"
    old = rows(TWO, 4_000, seed=1, ages=(65, 85))
    found = estimator.estimate(fitted, schema, old.inputs, {"label": old.outputs["label"]})
    assert set(found.figures) == {"accuracy"}
    assert found.figures["accuracy"].value == pytest.approx(true(TWO, old)["accuracy"], abs=0.03)


def test_nothing_is_learnt_from_too_little() -> None:
    assert learnt(TWO, rows(TWO, 150)).estimator is None
    given = rows(TWO, 1_000)
    given.truth[:] = "yes"
    assert learnt(TWO, given).estimator is None
    exact = rows(NUMBER, 1_000)
    assert learnt(NUMBER, Rows(exact.inputs, exact.outputs, exact.outputs["prediction"].copy())).estimator is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [(["no", "yes", None, "maybe", float("nan")], [0, 1, -1, -1, -1]), ([], [])],
)
def test_places_of_labels(given: list[Any], expected: list[int]) -> None:
    assert estimator.places(np.array(given, dtype=object), ("no", "yes")).tolist() == expected


def test_places_compare_as_labels_do() -> None:
    assert estimator.places(np.array([1.0, 0.0]), (0, 1)).tolist() == [1, 0]
    assert estimator.places(np.array(["1", "0"], dtype=object), (0, 1)).tolist() == [1, 0]
    assert estimator.places(np.array([True, False]), (False, True)).tolist() == [1, 0]


@ALL
def test_an_estimator_survives_its_json(fitted: dict[Schema, Estimator], schema: Schema) -> None:
    again = msgspec.json.decode(msgspec.json.encode(fitted[schema]), type=Estimator)
    again.check()
    given = rows(schema, 500)
    found = [estimator.estimate(each, schema, given.inputs, given.outputs) for each in (again, fitted[schema])]
    assert found[0] == found[1]
    with pytest.raises(MalformedPayload):
        msgspec.structs.replace(again, columns=again.columns[:1]).check()


def test_the_reference_is_where_it_was_learnt(fitted: dict[Schema, Estimator]) -> None:
    assert {column.source for column in fitted[TWO].columns} == {"age", "city", "score"}
    assert estimating.IMPORTANCE["shoe"] == 0


def test_of_an_image_only_the_answers_are_looked_at_and_of_many_inputs_those_that_count() -> None:
    given = rows(TWO, 2_000)
    pixels = np.random.default_rng(0).random((2_000, 100))
    schema = msgspec.structs.replace(TWO, inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 100)),), layout="array")
    known = profile.measure({"X": pixels}, schema) + profile.measure_outputs(given.outputs, schema)
    said = estimator.answers(schema, given.outputs)
    truth = estimator.Known({"X": pixels}, said, estimator.truths(schema, given.truth))
    for importance, expected in (({}, [0]), ({f"X[{place}]": 0.25 for place in (3, 5, 7, 9)}, [3, 5, 7, 9, 0])):
        found = estimator.fit(schema, known.features, truth, importance)
        assert found is not None and [column.element for column in found.columns] == expected
        assert found.columns[-1].source == "score"
