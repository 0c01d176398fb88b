import csv
import datetime
from pathlib import Path

import numpy as np
import pytest

from modelyard.demo import bikes

SEASONS = {"1": "winter", "2": "spring", "3": "summer", "4": "fall"}
WEATHERS = {"1": "clear", "2": "mist", "3": "light rain or snow", "4": "heavy rain or snow"}


@pytest.fixture(scope="module")
def rows():
    return bikes.load()


def test_every_hour_is_carried_and_nothing_that_adds_up_to_the_target(rows):
    assert len(rows) == 17_379
    assert set(rows.columns) == {"date", bikes.TARGET, *bikes.FEATURES}
    assert rows["date"].is_monotonic_increasing
    assert not rows.isna().any().any()


def test_the_carried_data_is_the_original_in_words(rows, shared_data):
    with (shared_data / "bike_sharing_hour.csv").open(newline="") as file:
        originals = list(csv.DictReader(file))
    assert len(originals) == len(rows)
    for original, row in zip(originals, rows.to_dict("records"), strict=True):
        month, day, year = map(int, original["dteday"].split("/"))
        assert row == {
            "date": datetime.date(year, month, day).isoformat(),
            "hour": int(original["hr"]),
            "season": SEASONS[original["season"]],
            "holiday": int(original["holiday"]),
            "workingday": int(original["workingday"]),
            "weather": WEATHERS[original["weathersit"]],
            "temp": float(original["temp"]),
            "hum": float(original["hum"]),
            "windspeed": float(original["windspeed"]),
            "cnt": int(original["cnt"]),
        }


def test_the_split_is_in_time_and_the_fall_comes_only_later(rows):
    past, later = bikes.split(rows)
    assert len(past) + len(later) == len(rows)
    assert past["date"].max() == bikes.TRAINED_UNTIL < later["date"].min()
    assert "fall" not in set(past["season"])
    assert "fall" in set(later["season"])
    assert later["month"].nunique() == 18


def test_the_model_accepts_a_season_that_it_has_not_seen(rows, monkeypatch):
    monkeypatch.setattr(bikes, "TREES", 20)
    past, later = bikes.split(rows)
    past = past.iloc[::4]
    model = bikes.train(past)
    autumn = later[later["season"] == "fall"].head(5)
    assert np.isfinite(model.predict(autumn[list(bikes.FEATURES)])).all()


def test_citation_and_licence_lie_beside_the_data():
    text = (Path(bikes.__file__).parent / "data" / "LICENSE.md").read_text("utf-8")
    for needed in ("10.1007/s13748-013-0040-3", "Fanaee-T", "creativecommons.org/licenses/by/4.0", "Changed from"):
        assert needed in text


def test_every_fifth_day_is_held_back_whole():
    past, _ = bikes.split(bikes.load())
    taught, held = bikes.held_back(past)
    assert len(taught) + len(held) == len(past) and 0.15 < len(held) / len(past) < 0.25
    assert set(held["date"]).isdisjoint(taught["date"]) and set(held["date"].str[-2:]) == {"05", "10", "15", "20", "25", "30"}
