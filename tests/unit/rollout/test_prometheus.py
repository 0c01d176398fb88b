"""A number from a Prometheus server, or a plain reason why there is none."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from modelyard.errors import InvalidConfig, ModelyardError, Unavailable
from modelyard.rollout import prometheus

URL = "http://metrics.example:9090/base/"


def asked(answer: Any, *, status: int = 200, query: str = 'x{version="{version}"}', headers: dict[str, str] | None = None) -> float:
    def handle(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.host, request.url.path) == ("GET", "metrics.example", "/base/api/v1/query")
        assert request.url.params["query"] == query.replace("{version}", "7")
        return httpx.Response(status, content=answer if isinstance(answer, bytes) else json.dumps(answer).encode(), headers=headers)

    return prometheus.ask(URL, query, 7, transport=httpx.MockTransport(handle))


def vector(*values: str) -> dict[str, Any]:
    series = [{"metric": {"a": str(place)}, "value": [1_700_000_000.5, value]} for place, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": series}}


def test_one_number_is_read_from_a_vector_and_from_a_scalar() -> None:
    assert asked(vector("0.25")) == 0.25
    assert asked({"status": "success", "data": {"resultType": "scalar", "result": [1_700_000_000, "3"]}}, query="scalar(x)") == 3.0


@pytest.mark.parametrize(
    ("answer", "status", "kind", "said"),
    [
        (vector(), 200, Unavailable, "no number"),
        (vector("NaN"), 200, Unavailable, "no number"),
        (vector("+Inf"), 200, Unavailable, "no number"),
        (vector("1", "2"), 200, InvalidConfig, "2 numbers"),
        ({"data": {"resultType": "matrix", "result": []}}, 200, InvalidConfig, "series over time"),
        ({"status": "error", "error": "secret-text"}, 400, InvalidConfig, "refuses the query"),
        ({}, 503, Unavailable, "status 503"),
        ({}, 200, Unavailable, "something else"),
        (b"secret-text", 200, Unavailable, "something else"),
        (b"[" * 100_000, 200, Unavailable, "something else"),
        (vector("secret-text"), 200, Unavailable, "something else"),
        (b" " * (prometheus.ANSWER_BYTES + 1), 200, InvalidConfig, "too large"),
    ],
)
def test_anything_else_is_told_without_what_was_answered(answer: Any, status: int, kind: type[ModelyardError], said: str) -> None:
    with pytest.raises(kind, match=said) as raised:
        asked(answer, status=status)
    assert "secret-text" not in raised.value.message


def test_a_redirect_is_not_followed() -> None:
    with pytest.raises(Unavailable, match="status 302"):
        asked({}, status=302, headers={"location": "http://169.254.169.254/"})


def test_no_server_is_unavailable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    def hang(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    for handle in (refuse, hang):
        with pytest.raises(Unavailable):
            prometheus.ask(URL, "up", 1, transport=httpx.MockTransport(handle))
