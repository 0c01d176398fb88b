import numpy as np
import pytest

from modelyard.control import package
from modelyard.demo import bikes, story, traffic


@pytest.fixture(scope="module")
def hours():
    """A tenth of the hours, before and after the training's end."""
    past, later = bikes.split(bikes.load())
    return past.iloc[::10].reset_index(drop=True), later.iloc[::10].reset_index(drop=True)


@pytest.fixture(scope="module")
def bundle(hours, tmp_path_factory):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    past, _ = hours
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    model = Pipeline(
        [("columns", ColumnTransformer([("words", words, ["season", "weather"])], remainder="passthrough")), ("line", LinearRegression())]
    )
    frame = past[list(bikes.FEATURES)]
    return package(model.fit(frame, past[bikes.TARGET]), name="bikes", data=frame, home=tmp_path_factory.mktemp("home"))


def answered(hours, predictions):
    ids = [f"id-{number}" for number in range(len(hours))]
    return traffic.Answers(ids=ids, predictions=dict(zip(ids, predictions, strict=True)), latencies_s=[0.001] * len(hours), refused={}, seconds=1.0)


def judged(hours, bundle, predictions):
    answers = answered(hours, predictions)
    return story._judge("2011-10", hours, answers, dict(zip(answers.ids, hours[bikes.TARGET], strict=True)), bundle)


def test_error_and_bias_come_from_labels_joined_by_id(hours, bundle):
    _, later = hours
    month = later[later["month"] == "2011-10"]
    found = judged(month, bundle, month[bikes.TARGET] + np.where(np.arange(len(month)) % 2, 30.0, -10.0))
    assert found.rows == len(month)
    assert found.error == pytest.approx(20, abs=0.5)
    assert found.bias == pytest.approx(10, abs=0.5)


def test_labels_of_unanswered_hours_do_not_count(hours, bundle):
    _, later = hours
    month = later[later["month"] == "2011-10"]
    answers = answered(month, month[bikes.TARGET] + 5.0)
    labels = dict(list(zip(answers.ids, month[bikes.TARGET], strict=True))[:7])
    found = story._judge("2011-10", month, answers, labels, bundle)
    assert (found.rows, found.error) == (7, 5.0)


def test_the_inputs_of_an_autumn_have_moved_and_those_of_training_have_not(hours, bundle):
    past, later = hours
    autumn = later[later["month"] == "2011-10"]
    moved = judged(autumn, bundle, autumn[bikes.TARGET])
    assert moved.shifts["season"] > 1
    assert moved.unseen == {"fall": len(autumn)}
    assert set(moved.shifts) == set(bikes.FEATURES)
    same = judged(past, bundle, past[bikes.TARGET])
    assert max(same.shifts.values()) < 0.01
    assert same.unseen == {}


@pytest.mark.parametrize("home", [None, "/somewhere/home"])
def test_what_to_try_next_can_be_typed_as_it_stands(home, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no modelyard on it
    lines = story._next(home)
    commands = [line.partition("  # ")[0].split() for line in lines]
    assert all("#" in line for line in lines)
    called = [command for command in commands if command[0].endswith("modelyard")]
    assert called
    assert all("/" in command[0] for command in called)
    assert (["export", f"MODELYARD_HOME={home}"] in commands) == (home is not None)
