"""What the monitor would have said, at the pace of the data."""

import numpy as np
import pytest

from modelyard.control import package
from modelyard.demo import bikes, watching
from modelyard.errors import Unavailable


@pytest.fixture(scope="module")
def later():
    """January and February 2012."""
    _, later = bikes.split(bikes.load())
    return later[(later["date"] >= "2012-01-01") & (later["date"] < "2012-03-01")].reset_index(drop=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    past, _ = bikes.split(bikes.load())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    model = Pipeline(
        [("columns", ColumnTransformer([("words", words, ["season", "weather"])], remainder="passthrough")), ("line", LinearRegression())]
    )
    frame = past[list(bikes.FEATURES)]
    return package(model.fit(frame, past[bikes.TARGET]), name="bikes", data=frame, labels=past[bikes.TARGET], home=tmp_path_factory.mktemp("home"))


def said(hours, errors):
    keys = [f"{date}T{hour:02}" for date, hour in zip(hours["date"], hours["hour"], strict=True)]
    return dict(zip(keys, (hours[bikes.TARGET] + errors).tolist(), strict=True))


def test_an_error_that_rises_wakes_somebody_soon_after_and_not_before(later, bundle):
    rises = int((later["date"] < "2012-01-29").sum())
    errors = np.random.default_rng(0).normal(0, 20, len(later))
    errors[rises:] += 300
    shown = []
    found = watching.watch(bundle, later, said(later, errors), error=20.0, progress=lambda stage, share: shown.append((stage, share)))
    assert "2012-01-29" <= found.error.at <= "2012-02-03" and rises < found.hours < rises + 150
    assert found.error.rule.partition(":")[0] in ("concept", "performance") and found.drift.rule.startswith("drift:")
    assert found.allowed == 60.0
    assert found.message.startswith("[page] bikes: ") and "what to do: " in found.message
    assert shown[0][0] == "2012-01-02" and 0 <= shown[-1][1] <= 1


def test_nothing_to_wake_somebody_for_is_said(later, bundle):
    week = later.head(24 * 7)
    with pytest.raises(Unavailable, match="nothing"):
        watching.watch(bundle, week, said(week, np.zeros(len(week))), error=20.0, progress=lambda stage, share: None)
