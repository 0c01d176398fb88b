from __future__ import annotations

from collections.abc import Iterator

import pytest
from edging import Asking, asking

from modelyard.config import Settings
from serving import home_with

HEALTH = "/v1/endpoints/1/deployedModels/2"


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    settings = Settings(vertex_health_route=HEALTH, vertex_predict_route=f"{HEALTH}:predict")
    yield from asking(home_with(tmp_path_factory.mktemp("home") / "h", "line"), settings)


def test_health(asks: Asking) -> None:
    assert asks.ask("GET", HEALTH).status == 200
    asks.edge.is_draining = True
    assert asks.ask("GET", HEALTH).status == 503
    asks.edge.is_draining = False


def test_predictions_are_as_many_as_instances(asks: Asking) -> None:
    for body in ({"instances": [[1.0, 2, 3.0]] * 3}, {"instances": [{"a": 1.0, "b": 2, "c": 3.0}] * 3, "parameters": {}}):
        assert asks.ask("POST", f"{HEALTH}:predict", body).json() == {"predictions": [321.0] * 3}
    assert asks.ask("POST", f"{HEALTH}:predict", b"a,b,c\n1,2,3\n", {"content-type": "text/csv"}).body == b"prediction\n321.0\n"
    assert asks.ask("POST", f"{HEALTH}:predict", {"instances": [[1.0, 2, 3.0]], "parameters": {"top": 1}}).json()["field"] == "parameters"


def test_a_path_that_is_anothers_becomes_the_platforms(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = home_with(tmp_path_factory.mktemp("home") / "h", "line")
    for made in asking(home, Settings(vertex_health_route="/ping", vertex_predict_route="/ping")):
        assert made.ask("GET", "/ping").json() == {"ready": True}
        assert made.ask("POST", "/ping", {"instances": [[1.0, 2, 3.0]]}).json() == {"predictions": [321.0]}


def test_without_the_platform_there_are_no_such_routes(tmp_path_factory: pytest.TempPathFactory) -> None:
    for made in asking(home_with(tmp_path_factory.mktemp("home") / "h", "line")):
        assert made.ask("GET", HEALTH).status == 404
