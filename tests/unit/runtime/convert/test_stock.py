"""Stock converters as parts of our graph: named, bounded, in either precision."""

from __future__ import annotations

import numpy as np
import pandas as pd
from converting import converted
from sklearn.decomposition import KernelPCA
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from modelyard.runtime.convert.graph import Graph
from modelyard.runtime.convert.stock import transform


def test_a_predictor_after_steps_of_ours(numbers: np.ndarray, three: np.ndarray) -> None:
    for model in (SVC(), BernoulliNB()):
        found = converted(make_pipeline(StandardScaler(), model).fit(numbers, three), numbers)
        assert found.conversion.method == f"trees and steps in double, with skl2onnx for {type(model).__name__}"


def test_a_step_without_a_writer_of_ours(numbers: np.ndarray, two: np.ndarray) -> None:
    model = make_pipeline(StandardScaler(), KernelPCA(2, kernel="rbf", gamma=0.1), LogisticRegression()).fit(numbers[:80], two[:80])
    found = converted(model, numbers[:80])
    assert found.conversion.method.endswith("with skl2onnx for KernelPCA")


def test_an_outlier_detector_answers_its_numbers(numbers: np.ndarray) -> None:
    found = converted(IsolationForest(n_estimators=5, random_state=0).fit(numbers), numbers)
    assert set(found.runtime.predict({"X": numbers})["prediction"].tolist()) <= {-1.0, 1.0}


def test_text_goes_to_it_as_text() -> None:
    texts = pd.Series(["red fish", "blue fish", "one fish two fish"])
    step = CountVectorizer().fit(texts)
    graph = Graph("single")
    made = transform(graph, graph.frame([("text", "string", "nan")]), step)
    assert len(made) == 5
    assert graph.stock == {"CountVectorizer"}
