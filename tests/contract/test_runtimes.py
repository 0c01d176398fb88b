"""The Runtime port: one suite over every way a runtime can be opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from converting import Converted, converted
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from modelyard.errors import ModelFailed
from modelyard.runtime.data import read
from modelyard.runtime.isolated import Isolated, Isolation
from modelyard.runtime.originals.code import CodeModel
from modelyard.runtime.originals.sources import Sources
from modelyard.runtime.schema import infer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 3))


def array() -> Converted:
    return converted(LinearRegression().fit(X, X[:, 0]), X)


def frame() -> Converted:
    data = pd.DataFrame({"a": X[:, 0], "n": RNG.integers(0, 3, 150), "t": RNG.choice(["x", "y", "z"], 150)})
    encoder = ColumnTransformer([("t", OneHotEncoder(handle_unknown="ignore"), ["t"])], remainder="passthrough")
    return converted(make_pipeline(encoder, RandomForestClassifier(3, random_state=0)).fit(data, np.where(X[:, 0] > 0, "up", "down")), data)


def in_parts() -> Converted:
    stored = RNG.normal(size=(100_000, 2))
    return converted(KNeighborsRegressor(2).fit(stored, stored[:, 0]), stored[:150])


SOURCE = b"""
import numpy as np
class Model:
    classes = ["down", "up"]
    def predict(self, inputs):
        up = inputs["a"][:, 0] + inputs["n"][:, 0] * (inputs["t"][:, 0] == "x") > 0
        return {"label": np.array(self.classes, object)[up.astype(int)], "probability": np.stack([1.0 - up, up * 1.0], axis=1)}
"""


def isolated() -> Converted:
    data = pd.DataFrame({"a": X[:, 0], "n": RNG.integers(0, 3, 150), "t": RNG.choice(["x", "y", "z"], 150)})
    table, _ = read(data)
    model = CodeModel(Sources("m:Model", {"code/m.py": SOURCE}), Isolation())
    model.learn(table)
    model.close()
    schema = infer(table, outputs=model.outputs, task=model.task, classes=model.classes, accepts=lambda _: True)
    runtime: Any = Isolated(model.code, model.parts, schema, Isolation())
    nothing: Any = None
    return Converted(conversion=nothing, original=model, table=table, schema=schema, runtime=runtime)


MAKERS: dict[str, Callable[[], Converted]] = {"array": array, "frame": frame, "in parts": in_parts, "isolated": isolated}


@pytest.fixture(scope="module", params=list(MAKERS))
def opened(request: pytest.FixtureRequest) -> Iterator[Converted]:
    found = MAKERS[request.param]()
    yield found
    found.runtime.close()


def rows(found: Converted, start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: column[start:stop] for name, column in found.table.columns.items()}


def test_it_answers_the_schemas_outputs_in_their_order_a_row_for_a_row(opened: Converted) -> None:
    for count in (1, 2, 7, 64, 150):
        answers = opened.runtime.predict(rows(opened, 0, count))
        assert list(answers) == [spec.name for spec in opened.schema.outputs]
        assert all(len(answer) == count for answer in answers.values())


def test_types_and_shapes_are_the_schemas(opened: Converted) -> None:
    answers = opened.runtime.predict(rows(opened, 0, 3))
    dtypes = {"FP64": np.float64, "INT64": np.int64, "BYTES": object, "BOOL": np.bool_}
    for spec in opened.schema.outputs:
        assert answers[spec.name].dtype == dtypes[spec.datatype]
        assert answers[spec.name].shape[1:] == spec.shape[1:]


def test_the_answer_to_a_row_does_not_depend_on_its_neighbours(opened: Converted) -> None:
    whole = opened.runtime.predict(rows(opened, 0, 150))
    alone = opened.runtime.predict(rows(opened, 77, 78))
    for name, answer in whole.items():
        if answer.dtype == object:
            assert answer[77] == alone[name][0]
        else:
            np.testing.assert_allclose(alone[name][0], answer[77], rtol=1e-12)


def test_inputs_are_left_as_they_were(opened: Converted) -> None:
    given = rows(opened, 0, 5)
    before = {name: column.copy() for name, column in given.items()}
    opened.runtime.predict(given)
    assert all((before[name] == column).all() for name, column in given.items())


def test_several_threads_may_ask_at_once(opened: Converted) -> None:
    expected = opened.runtime.predict(rows(opened, 0, 150))
    failures: list[int] = []

    def ask(start: int) -> None:
        for _ in range(20):
            answers = opened.runtime.predict(rows(opened, start, start + 10))
            if not all(np.array_equal(answers[name], expected[name][start : start + 10]) for name in expected if expected[name].dtype == object):
                failures.append(start)

    threads = [threading.Thread(target=ask, args=(start,)) for start in (0, 40, 80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("name", list(MAKERS))
def test_what_it_cannot_answer_is_its_failure_and_after_close_it_answers_no_more(name: str) -> None:
    found = MAKERS[name]()
    first = next(iter(found.table.columns))
    with pytest.raises(ModelFailed):
        found.runtime.predict({first: found.table.columns[first].reshape(-1)[:3]})
    found.runtime.close()
    with pytest.raises(ModelFailed):
        found.runtime.predict(rows(found, 0, 1))
