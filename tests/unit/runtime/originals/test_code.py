"""runtime.originals.code: what code says of its outputs is learnt from its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from modelyard.errors import Unconvertible
from modelyard.runtime.data import read
from modelyard.runtime.isolated import Isolation
from modelyard.runtime.originals.code import CodeModel
from modelyard.runtime.originals.sources import Sources

X = np.random.default_rng(0).random((20, 3))
Make = Callable[[str], CodeModel]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[CodeModel] = []

    def from_source(source: str) -> CodeModel:
        made.append(CodeModel(Sources("m:predict", {"code/m.py": source.encode()}), Isolation()))
        return made[-1]

    yield from_source
    for model in made:
        model.close()


def test_an_array_is_a_prediction_and_a_regression(make: Make) -> None:
    model = make("def predict(inputs): return inputs['X'] @ [1.0, 2.0, 3.0]")
    model.learn(read(X)[0])
    assert [(spec.name, spec.datatype, spec.shape) for spec in model.outputs] == [("prediction", "FP64", (-1,))]
    assert model.task == "regression" and model.classes is None


def test_classes_make_a_classifier_whose_label_comes_first(make: Make) -> None:
    source = """
import numpy as np
def predict(inputs):
    p = inputs["X"][:, :2]
    return {"more": p, "probability": p, "label": np.array(["a", "b"])[p.argmax(axis=1)]}
predict.classes = ["a", "b"]
"""
    model = make(source)
    model.learn(read(X)[0])
    assert [spec.name for spec in model.outputs] == ["label", "probability", "more"]
    assert model.task == "classification" and model.classes == ("a", "b")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return {'a': inputs['X'], 'b': inputs['X']}\npredict.classes = [0, 1]", "label"),
        ("return {'label': inputs['X'][:, 0]}\npredict.classes = ['a']", "label"),
        ("return {'label': np.zeros(len(inputs['X']), int), 'probability': inputs['X']}\npredict.classes = [0, 1]", "label"),
        ("return inputs['X'].astype('M8[s]')", "travel"),
        ("raise ValueError('no such word')", r"ValueError: no such word \(m.py:3\)"),
        ("import os; os._exit(4)", "process ended: exit"),
    ],
)
def test_what_no_wire_carries_and_what_fails_is_refused_with_the_place(make: Make, body: str, says: str) -> None:
    with pytest.raises(Unconvertible, match=says):
        make(f"import numpy as np\ndef predict(inputs):\n    {body}\n").learn(read(X)[0])


def test_code_that_does_not_load_is_refused_with_the_reason(make: Make) -> None:
    with pytest.raises(Unconvertible, match="nowhere_to_be_found"):
        make("import nowhere_to_be_found")


def test_the_libraries_are_those_that_the_code_loaded(make: Make) -> None:
    model = make("import numpy as np\ndef predict(inputs):\n    import joblib\n    return inputs['X'].sum(axis=1)")
    model.find_packages()
    assert model.packages == ("numpy",)
    model.learn(read(X)[0])
    model.find_packages()
    assert model.packages == ("joblib", "numpy")
