from __future__ import annotations

from collections.abc import Iterator

import pytest
from edging import Asking, asking

from serving import home_with


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    yield from asking(home_with(tmp_path_factory.mktemp("home") / "h", "line"))


ROW = {"data": [[1.0, 2, 3.0]]}


def test_score_by_post_and_by_get(asks: Asking) -> None:
    assert asks.ask("POST", "/score", ROW).json() == [321.0]
    assert asks.ask("GET", "/score?a=1&b=2&c=3").json() == [321.0]
    assert asks.ask("POST", "/score", b"a,b,c\n1,2,3\n", {"content-type": "text/csv"}).body == b"prediction\n321.0\n"
    assert asks.ask("DELETE", "/score").status == 405


def test_every_answer_carries_its_ids(asks: Asking) -> None:
    answer = asks.ask("POST", "/score", ROW, {"x-request-id": "abc", "x-ms-client-request-id": "def"})
    assert [answer.headers[name] for name in ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")] == ["abc", "abc", "def"]
    first, second = (asks.ask("POST", "/score", ROW).headers for _ in range(2))
    assert first["x-request-id"] == first["x-ms-request-id"] != second["x-ms-request-id"]
    assert "x-ms-client-request-id" not in first
    refused = asks.ask("POST", "/score", {}, {"x-request-id": "abc"})
    assert (refused.status, refused.headers["x-ms-request-id"]) == (400, "abc")
    assert "x-ms-run-function-failed" not in refused.headers


@pytest.mark.parametrize(("size", "status"), [(100, 200), (101, 431), (129, 431)])
def test_a_long_request_id_is_refused(asks: Asking, size: int, status: int) -> None:
    assert asks.ask("POST", "/score", ROW, {"x-request-id": "x" * size}).status == status


def test_swagger(asks: Asking) -> None:
    for query, key in (("", "swagger"), ("?version=2", "swagger"), ("?version=3", "openapi")):
        told = asks.ask("GET", f"/swagger.json{query}").json()
        assert key in told
        assert set(told["paths"]) == {"/", "/score"}
    assert asks.ask("GET", "/swagger.json?version=1").status == 400


def test_the_root_is_alive(asks: Asking) -> None:
    assert asks.ask("GET", "/").json() == {"status": "alive"}


def test_score_tells_its_methods(asks: Asking) -> None:
    answer = asks.ask("OPTIONS", "/score")
    assert (answer.status, answer.headers["allow"], answer.body) == (200, "GET, OPTIONS, POST", b"")
