"""monitor.estimate.learnt: what a bundle carries of a model's performance, and no value of anybody's."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from estimating import IMPORTANCE, NUMBER, TWO, bins, learnt, rows

from modelyard.bundle import canonical
from modelyard.errors import MalformedPayload
from modelyard.monitor import estimate
from modelyard.monitor.estimate import Learnt
from modelyard.types import Schema


@pytest.mark.parametrize("schema", [TWO, NUMBER], ids=["two classes", "a number"])
def test_it_survives_its_bytes_in_the_bundles_own_form(schema: Schema) -> None:
    found = learnt(schema, rows(schema, 3_000))
    assert estimate.decode(estimate.encode(found)) == found == estimate.decode(canonical.encode(found))


def test_cells_hold_every_row_and_every_loss() -> None:
    given = rows(TWO, 3_000)
    found = learnt(TWO, given)
    wrong = int((given.outputs["label"] != given.truth).sum())
    assert found.rows == 3_000 and found.loss == pytest.approx(wrong / 3_000, abs=1e-6)
    for cells in (*found.inputs.values(), *found.outputs.values()):
        assert sum(cells.rows) == 3_000 and sum(cells.losses) == pytest.approx(wrong, rel=1e-4)
    assert set(found.inputs) == {"age", "city", "shoe"} and set(found.outputs) == {"label", "probability[no]", "probability[yes]"}
    for feature in bins(TWO, given).features:
        cells = (found.inputs if feature.role == "input" else found.outputs)[feature.name]
        assert cells.rows == (*feature.counts, feature.missing), feature.name


def test_rows_whose_label_is_missing_or_foreign_are_passed_over() -> None:
    given = rows(TWO, 3_000)
    given.truth[:500], given.truth[500:600] = None, "perhaps"
    assert learnt(TWO, given).rows == 2_400


def test_without_labels_importance_alone_is_kept() -> None:
    given = rows(TWO, 1_000)
    found = estimate.learn(TWO, bins(TWO, given), IMPORTANCE, estimate.Rows(given.inputs, given.outputs, None), is_held_out=False)
    assert found == Learnt(importance=IMPORTANCE)
    assert np.isnan(found.loss)


def test_a_model_that_answers_several_numbers_has_no_one_truth() -> None:
    given = rows(NUMBER, 1_000)
    outputs = {"prediction": np.zeros((1_000, 2))}
    found = estimate.learn(NUMBER, bins(NUMBER, given), {}, estimate.Rows(given.inputs, outputs, np.zeros((1_000, 2))), is_held_out=False)
    assert found.estimator is None and found.quality == {}


def test_a_tagged_column_leaves_no_value() -> None:
    given = rows(TWO, 3_000)
    inputs = (TWO.inputs[0], msgspec.structs.replace(TWO.inputs[1], tag="mask", categories=None), TWO.inputs[2])
    tagged = msgspec.structs.replace(TWO, inputs=inputs)
    assert b"Turku" in estimate.encode(learnt(TWO, given)), "the check can fail"
    found = learnt(tagged, given)
    assert b"Turku" not in estimate.encode(found) and found.estimator is not None
    assert found.inputs["city"].rows == (3_000, 0)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"rows":"many"}', b'{"inputs":{"age":{"rows":[1],"losses":[]}}}', b'{"inputs":{"age":{"rows":[-1],"losses":[0]}}}']
)
def test_what_is_not_of_this_form_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPayload):
        estimate.decode(data)
