"""Labels as they travel, nested parts, and the distributions behind modules."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard.runtime.originals.base import answers_of, distributions, label_array, label_datatype, parts, plain_classes


@pytest.mark.parametrize(
    ("classes", "datatype", "dtype"),
    [
        ((0, 1), "INT64", np.int64),
        ((True, False), "BOOL", np.bool_),
        ((0.5, 1), "FP64", np.float64),
        (("a", "b"), "BYTES", object),
        ((1, "b"), "BYTES", object),
    ],
)
def test_labels_travel_by_what_all_classes_are(classes: tuple[object, ...], datatype: str, dtype: type) -> None:
    assert label_datatype(classes) == datatype  # type: ignore[arg-type]
    assert label_array(np.array([[classes[0]], [classes[1]]], object), classes).dtype == dtype  # type: ignore[arg-type]


def test_classes_are_plain_values() -> None:
    assert plain_classes(np.array([1, 2], np.int32)) == (1, 2)
    assert [type(each) for each in plain_classes(np.array(["a"]))] == [str]


def test_specs() -> None:
    assert answers_of("regression", None, has_probability=False, width=None)[0].shape == (-1,)
    assert [spec.name for spec in answers_of("classification", (0, 1), has_probability=False, width=None)] == ["label"]


def test_parts_are_found_at_any_depth() -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    vote = VotingClassifier([("a", make_pipeline(StandardScaler(), RandomForestClassifier(2))), ("b", LogisticRegression())]).fit(x, y)
    names = {type(part).__name__ for part in parts(make_pipeline("passthrough", vote))}
    assert {"StandardScaler", "DecisionTreeClassifier", "LogisticRegression"} < names


def test_distributions_are_sorted_and_known() -> None:
    assert distributions({"sklearn", "numpy", "no_such_module"}) == ("numpy", "scikit-learn")
