"""The judgement of two sets of answers: tolerance, ties, NaN, shapes, and where they differ most."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.runtime.parity import Parity, allowed, prove
from modelyard.types import Schema, TensorSpec, Tolerance

NUMBER = Schema(inputs=(), outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),), layout="array", task="regression")
CLASSES = Schema(
    inputs=(),
    outputs=(TensorSpec(name="label", datatype="BYTES", shape=(-1,)), TensorSpec(name="probability", datatype="FP64", shape=(-1, 2))),
    layout="array",
    task="classification",
    classes=("a", "b"),
)


def numbers(original: list[float], converted: list[float], **tolerance: float) -> Parity:
    return prove({"prediction": np.array(original)}, {"prediction": np.array(converted)}, NUMBER, Tolerance(**tolerance))


def test_a_difference_counts_against_absolute_plus_relative() -> None:
    assert numbers([100.0], [100.0 + 1.0e-3]).passed
    parity = numbers([100.0, 1.0], [100.0 + 1.1e-3, 1.0])
    assert not parity.passed
    assert (parity.worst.row, parity.worst.original) == (0, 100.0) if parity.worst else False
    assert parity.outputs["prediction"].rows_over == 1
    assert "output 'prediction', row 0: the original says 100.0, the converted 100.0011" in parity.describe()


@example(y=5e-324, share=0.5)
@given(y=st.floats(-1e6, 1e6), share=st.floats(0, 0.999) | st.floats(1.001, 2))
def test_rows_pass_up_to_what_is_allowed(y: float, share: float) -> None:
    limit = float(allowed(Tolerance(), np.array(y)))
    assert numbers([y], [y + share * limit]).passed == (share < 1)


@pytest.mark.parametrize(
    ("original", "converted", "passed"),
    [
        (np.nan, np.nan, True),
        (np.nan, 0.0, False),
        (0.0, np.nan, False),
        (np.inf, np.inf, True),
        (np.inf, -np.inf, False),
        (1e308, np.inf, False),
        (0.0, -0.0, True),
    ],
)
def test_what_is_no_number_agrees_only_with_itself(original: float, converted: float, passed: bool) -> None:
    parity = numbers([original, 1.0], [converted, 1.0])
    assert parity.passed is passed
    if not passed:
        msgspec.json.decode(msgspec.json.encode(parity.worst))


def test_another_shape_differs_on_every_row() -> None:
    parity = prove({"prediction": np.zeros(3)}, {"prediction": np.zeros((3, 1))}, NUMBER, Tolerance())
    assert parity.outputs["prediction"].rows_over == 3
    assert parity.worst is not None
    assert parity.worst.original == "shape (3,)"


def classes(original: list[list[float]], converted: list[list[float]], labels: tuple[str, str]) -> Parity:
    def answers(probability: list[list[float]], label: str) -> dict[str, np.ndarray]:
        return {"label": np.array(list(label), object), "probability": np.array(probability)}

    return prove(answers(original, labels[0]), answers(converted, labels[1]), CLASSES, Tolerance())


def test_a_label_may_differ_only_at_a_tie_of_the_original() -> None:
    tie = classes([[0.5 + 1e-9, 0.5 - 1e-9], [0.9, 0.1]], [[0.5 - 1e-9, 0.5 + 1e-9], [0.9, 0.1]], ("aa", "ba"))
    assert (tie.passed, tie.labels_differing, tie.labels_excused) == (True, 1, 1)
    clear = classes([[0.6, 0.4], [0.9, 0.1]], [[0.6, 0.4], [0.9, 0.1]], ("aa", "ab"))
    assert (clear.passed, clear.labels_differing, clear.labels_excused) == (False, 1, 0)
    assert clear.worst is not None
    assert (clear.worst.output, clear.worst.row, clear.worst.original, clear.worst.converted) == ("label", 1, "a", "b")


def test_a_tie_of_two_classes_excuses_no_third() -> None:
    schema = msgspec.structs.replace(CLASSES, classes=("a", "b", "c"))
    probability = np.array([[0.45, 0.45, 0.1]])
    for label, passed in (("b", True), ("c", False), ("d", False)):
        original, converted = ({"label": np.array([each], object), "probability": probability} for each in ("a", label))
        assert prove(original, converted, schema, Tolerance()).passed is passed


def test_a_tie_excuses_no_other_shape() -> None:
    probability = np.array([[0.5, 0.5]])
    original, converted = ({"label": label, "probability": probability} for label in (np.array(["a"], object), np.array([["a"]], object)))
    assert not prove(original, converted, CLASSES, Tolerance()).passed


def test_without_probabilities_every_label_counts() -> None:
    schema = msgspec.structs.replace(CLASSES, outputs=CLASSES.outputs[:1])
    parity = prove({"label": np.array(["a"], object)}, {"label": np.array(["b"], object)}, schema, Tolerance())
    assert not parity.passed


def test_texts_and_truths_of_other_models_are_compared_whole() -> None:
    schema = Schema(inputs=(), outputs=(TensorSpec(name="words", datatype="BYTES", shape=(-1, 2)),), layout="tensors", task="other")
    words = np.array([["a", "b"], ["c", "d"]], object)
    assert prove({"words": words}, {"words": words.copy()}, schema, Tolerance()).passed
    other = words.copy()
    other[1, 1] = "x"
    parity = prove({"words": words}, {"words": other}, schema, Tolerance())
    assert parity.outputs["words"].rows_over == 1


def test_the_worst_of_several_values_in_a_row_is_named() -> None:
    parity = classes([[0.2, 0.8]], [[0.2, 0.7]], ("b", "b"))
    assert parity.worst is not None
    assert (parity.worst.original, parity.worst.converted) == (0.8, 0.7)
    assert parity.outputs["probability"].max_rel == pytest.approx(0.125)
