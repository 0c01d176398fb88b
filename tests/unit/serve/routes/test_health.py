from __future__ import annotations

from collections.abc import Iterator

import pytest
from edging import Asking, asking

from serving import home_with


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    yield from asking(home_with(tmp_path_factory.mktemp("home") / "h", "line"))


@pytest.mark.parametrize("path", ["/ping", "/health", "/healthz/ready", "/v2/health/ready"])
def test_readiness_falls_with_draining_on_every_path(asks: Asking, path: str) -> None:
    assert asks.ask("GET", path).status == 200
    asks.edge.is_draining = True
    assert asks.ask("GET", path).status == 503
    assert asks.ask("GET", "/v2/health/live").status == asks.ask("GET", "/healthz/live").status == 200
    asks.edge.is_draining = False


def test_what_mlflow_answers_beside(asks: Asking) -> None:
    assert asks.ask("GET", "/health").body == b"\n"
    assert asks.ask("GET", "/version").body.decode() == asks.edge.release


def test_metrics_and_description(asks: Asking) -> None:
    assert asks.ask("GET", "/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    first, second = (asks.ask("GET", "/openapi.json").body for _ in range(2))
    assert first == second
    assert b"/v2/models/line/infer" in first
