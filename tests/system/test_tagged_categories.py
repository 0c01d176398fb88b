"""A tagged column of which the model takes only what it knows: refused at the door when unknown, wherever it comes in, and told nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from world import World

import modelyard

pytestmark = pytest.mark.system

CITIES = ("Qbonn", "Qoslo", "Qrome")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A home that serves version 1, which knows three cities; version 2 knows two, version 3 all of them and one more."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    world = World(tmp_path_factory.mktemp("tagged") / "home")
    for known in (CITIES, CITIES[:2], (*CITIES, "Qwien")):
        frame = pd.DataFrame({"size": np.linspace(0, 1, 60), "city": np.resize(np.array(known, object), 60)})
        worth = frame["size"] + frame["city"].map({"Qbonn": 10.0, "Qoslo": 20.0, "Qrome": 30.0, "Qwien": 40.0})
        columns = ColumnTransformer([("city", OneHotEncoder(handle_unknown="error"), ["city"])], remainder="passthrough")
        modelyard.package(
            make_pipeline(columns, LinearRegression()).fit(frame, worth), name="worth", data=frame, tags={"city": "hash"}, home=world.folder
        )
    world.up()
    assert world.verb("deploy", "worth:1").code == 0
    yield world
    world.end()


def ask(world: World, wire: str, city: str) -> httpx.Response:
    column = {"name": "city", "datatype": "BYTES", "shape": [1, 1], "data": [city]}
    bodies: dict[str, tuple[str, Any]] = {
        "v1": ("/v1/models/worth:predict", {"instances": [{"size": 0.5, "city": city}]}),
        "v2": ("/v2/models/worth/infer", {"inputs": [{"name": "size", "datatype": "FP64", "shape": [1, 1], "data": [0.5]}, column]}),
        "mlflow": ("/invocations", {"dataframe_records": [{"size": 0.5, "city": city}]}),
    }
    path, body = bodies[wire]
    return httpx.post(world.url + path, json=body)


@pytest.mark.parametrize("wire", ["v1", "v2", "mlflow"])
def test_known_values_are_answered_and_unknown_ones_refused_without_a_list(world: World, wire: str) -> None:
    known = ask(world, wire, "Qrome")
    assert known.status_code == 200 and re.search(r"30\.(5|4999|5000)", known.text)
    refused = ask(world, wire, "Qparis")
    assert refused.status_code == 400 and "category" in refused.text and "city" in refused.text
    assert not any(city in refused.text for city in (*CITIES, "Qparis"))


def test_what_is_served_says_nothing_of_the_values(world: World) -> None:
    for path in ("/v2/models/worth", "/openapi.json", "/v1/models/worth", "/metrics"):
        assert "Qbonn" not in httpx.get(world.url + path).text
    said = world.verb("inspect", "worth:1", "--json").out + world.verb("status", "--json").out
    assert "worth" in said and not any(city in said for city in CITIES)
    assert not any(city in (world.folder / "run" / "endpoint.json").read_text() for city in CITIES)


def test_a_candidate_takes_every_value_that_the_serving_version_takes(world: World) -> None:
    refused = world.verb("deploy", "worth:2")
    assert refused.code != 0 and "categories fewer" in refused.err and not any(city in refused.err for city in CITIES)
    assert world.verb("deploy", "worth:3").code == 0
    assert ask(world, "v2", "Qwien").status_code == 200


def test_no_log_or_segment_holds_a_value_in_clear(world: World) -> None:
    asked = ask(world, "v1", "Qoslo")
    assert asked.status_code == 200
    world.verb("down")
    held = {
        path.relative_to(world.folder).parts[0]
        for path in Path(world.folder).rglob("*")
        if path.is_file() and any(city.encode() in path.read_bytes() for city in CITIES)
    }
    world.up()
    assert held == {"blobs"}
