"""What lies under the digest, and what is attested."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.control import packaging
from modelyard.errors import InvalidConfig, InvalidInput, ModelFailed, SchemaMismatch
from modelyard.monitor.estimate import Rows
from modelyard.types import Tolerance


@pytest.fixture(scope="module")
def made() -> Any:
    """Contents and attestation of a small regression on an array, made twice."""
    from sklearn.linear_model import LinearRegression

    from modelyard.runtime import originals
    from modelyard.runtime.data import read

    draw = np.random.default_rng(0)
    X = draw.random((200, 3))
    y = X @ [1.0, 2.0, 3.0]
    table, labels = read(X, labels=y)
    options = packaging.Options(name="sum", tags={}, tolerance=Tolerance(), progress=lambda *_: None)
    return [packaging.make(originals.adapt(LinearRegression().fit(X, y)), table, labels, options) for _ in range(2)]


def test_the_contents_are_the_same_each_time(made: Any) -> None:
    (first, _), (second, _) = made
    assert first.model == second.model and first.schema == second.schema and first.card == second.card and first.profile == second.profile
    assert all(np.array_equal(first.golden[name], second.golden[name]) for name in first.golden)


def test_golden_records_cover_at_least_64_rows(made: Any) -> None:
    contents, attested = made[0]
    assert len(contents.golden["X"]) >= 64 and len(attested.outputs["prediction"]) == len(contents.golden["X"])


def test_the_card_tells_the_quality_on_the_rows_given(made: Any) -> None:
    assert made[0][0].card.quality == pytest.approx({"mae": 0.0, "r2": 1.0}, abs=1e-9)


def test_what_serves_is_in_the_lock(made: Any) -> None:
    assert {"numpy", "onnxruntime", "scikit-learn"} <= set(made[0][0].lock.packages)


def test_the_attestation_tells_proof_and_machine(made: Any) -> None:
    attested = made[0][1]
    assert attested.parity["passed"] and attested.parity["rows"] == 200 and attested.parity["attempts"]
    assert {"cpu", "threads", "time", "python", "onnxruntime"} <= set(attested.platform)


def test_the_graph_is_asked_for_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof's own answers are those that the profile of outputs is made of."""
    from sklearn.linear_model import LinearRegression

    from modelyard.runtime import originals
    from modelyard.runtime.data import read
    from modelyard.runtime.onnx import Onnx

    asked = []
    predict = Onnx.predict

    def counted(self: Any, inputs: Any) -> Any:
        asked.append(len(next(iter(inputs.values()))))
        return predict(self, inputs)

    monkeypatch.setattr(Onnx, "predict", counted)
    monkeypatch.setattr("modelyard.monitor.importance.measure", lambda *_: {})
    X = np.random.default_rng(0).random((2_000, 3))
    table, labels = read(X, labels=X.sum(axis=1))
    options = packaging.Options(name="sum", tags={}, tolerance=Tolerance(), progress=lambda *_: None)
    packaging.make(originals.adapt(LinearRegression().fit(X, X.sum(axis=1))), table, labels, options)
    assert 2_000 <= sum(asked) < 4_000


def test_a_model_that_raises_anything_does_not_answer() -> None:
    class Wild:
        def predict(self, table: Any) -> Any:
            raise SystemError("anything")

    original: Any = Wild()
    assert not packaging._answers(original, None)  # type: ignore[arg-type]


def held(rows: int = 400, seed: int = 1, **changes: Any) -> Any:
    X = np.random.default_rng(seed).random((rows, 3))
    given = {"data": X, "labels": X @ [1.0, 2.0, 0.0] + np.random.default_rng(0).normal(0, 0.1 + X[:, 0]), "label": None, **changes}
    return packaging.held_out(**given)


def packaged(evaluation: Any, labels: Any = None, times: Any = None) -> Any:
    from sklearn.linear_model import LinearRegression

    from modelyard.runtime import originals
    from modelyard.runtime.data import read

    X = np.random.default_rng(0).random((200, 3))
    model = LinearRegression().fit(X, X @ [1.0, 2.0, 0.0])
    model.coef_[2] = 0.0
    table, answers = read(X, labels=labels)
    options = packaging.Options(name="sum", tags={}, tolerance=Tolerance(), progress=lambda *_: None, times=times)
    return packaging.make(originals.adapt(model), table, answers, options, evaluation)


def test_quality_is_judged_by_what_was_held_out() -> None:
    contents, attested = packaged(held(), labels=np.zeros(200))
    assert contents.card.quality["mae"] == pytest.approx(attested.performance.quality["mae"], rel=1e-4) and contents.card.quality["mae"] < 1
    assert contents.card.evaluation.rows == 400 and attested.performance.is_held_out and attested.performance.rows == 400
    assert attested.performance.estimator.kind == "error"
    assert "on 400 rows held out from training" in contents.card.judged_on


def test_labels_of_the_data_may_have_been_trained_on() -> None:
    contents, attested = packaged(None, labels=np.zeros(200))
    assert not attested.performance.is_held_out and attested.performance.rows == 200 and "may have been trained" in contents.card.judged_on


def test_an_input_that_the_model_does_not_look_at_has_no_importance() -> None:
    _, attested = packaged(None)
    assert attested.performance.importance["X[2]"] == 0.0 and attested.performance.estimator is None
    assert attested.performance.importance["X[1]"] == pytest.approx(2 / 3, abs=0.05)


def test_other_evaluation_data_makes_another_bundle_and_the_same_the_same() -> None:
    cards = [packaged(evaluation)[0].card for evaluation in (held(), held(), held(seed=2), None)]
    assert cards[0] == cards[1] and cards[0].evaluation != cards[2].evaluation and cards[3] != cards[0]


def test_rows_that_come_with_times_teach_a_week_and_make_another_bundle() -> None:
    times = np.linspace(0, 30 * 86_400.0, 200)
    contents, attested = packaged(None, times=times)
    cycles = attested.performance.cycles
    assert set(cycles) == {"input number X[0]", "input number X[1]", "input number X[2]", "output number prediction"}
    assert {len(widths) for widths in cycles.values()} == {7}
    assert contents.card.times == packaged(None, times=times)[0].card.times != packaged(None, times=times + 1)[0].card.times
    contents, attested = packaged(None)
    assert attested.performance.cycles == {} and contents.card.times is msgspec.UNSET
    assert attested.performance.together is not None


def test_evaluation_data_may_have_the_column_of_times_or_not() -> None:
    rows = {"a": np.zeros(3), "y": np.ones(3)}
    for given in (rows, rows | {"at": np.arange(3)}):
        table, answers = packaging.held_out(given, None, "y", "at")  # type: ignore[misc]
        assert list(table.columns) == ["a"] and answers.tolist() == [1.0, 1.0, 1.0]


def test_values_of_a_tagged_column_are_not_in_the_digest_of_evaluation_data() -> None:
    schema = packaged(None)[0].schema
    judged = Rows({"X": np.ones((5, 3))}, {}, np.arange(5))
    other = Rows({"X": np.zeros((5, 3))}, {}, np.arange(5))
    assert packaging._digest(schema, judged) != packaging._digest(schema, other)
    tagged = msgspec.structs.replace(schema, inputs=(msgspec.structs.replace(schema.inputs[0], tag="hash"),))
    assert packaging._digest(tagged, judged) == packaging._digest(tagged, other)


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"labels": None}, InvalidConfig, "needs its labels"),
        ({"data": None}, InvalidConfig, "give that too"),
        ({"labels": np.zeros(3)}, InvalidInput, "400 rows and 3 labels"),
        ({"data": {"truth": np.zeros(3)}, "labels": None, "label": "nope"}, InvalidConfig, "no column 'nope'"),
    ],
)
def test_evaluation_data_that_cannot_be_judged_by_is_refused(changes: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        held(**changes)


def test_evaluation_data_of_another_model_is_refused() -> None:
    with pytest.raises(SchemaMismatch):
        packaged(packaging.held_out(np.zeros((10, 4)), np.zeros(10), None))
    with pytest.raises(SchemaMismatch, match="missing"):
        packaged(packaging.held_out({"Y": np.zeros((10, 3))}, np.zeros(10), None))


def test_a_model_that_fails_on_what_importance_asks_is_packaged_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> dict[str, float]:
        raise ModelFailed("not with these side by side")

    monkeypatch.setattr("modelyard.monitor.importance.measure", failing)
    _, attested = packaged(held())
    assert attested.performance.importance == {} and attested.performance.estimator is not None
