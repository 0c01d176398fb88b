"""What lies under the digest, and what is attested."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard.control import packaging
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
