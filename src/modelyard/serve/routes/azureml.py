"""The routes of an Azure Machine Learning online endpoint: `/score` and `/swagger.json`.

Hides its headers: every answer of `/score` carries `x-request-id`, `x-ms-request-id` and, where one came, `x-ms-client-request-id`. Source: the
readme of azureml-inference-server-http.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from uuid import uuid4

from modelyard.errors import InvalidInput
from modelyard.protocols.base import JSON_LINES, encode_json
from modelyard.security.policy import INVOKE, SEE
from modelyard.serve.openapi import describe_score
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge
    from modelyard.serve.server import Exchange

ID_BYTES = 100


class AzureML:
    """`/score`, `/swagger.json`."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.fixed: dict[str, Methods] = {
            "/score": {
                b"GET": Route(self._score_query, INVOKE, wire="azureml_query", has_forms=True),
                b"POST": Route(self._score, INVOKE, wire="azureml", has_forms=True),
                b"OPTIONS": Route(self._options, SEE),
            },
            "/swagger.json": {b"GET": Route(self._swagger, SEE)},
        }

    def find(self, parts: list[str]) -> Methods | None:  # noqa: ARG002 - the port's
        """See `base.Routes`."""
        return None

    def _score(self, exchange: Exchange, route: Route) -> None:
        if self._identify(exchange):
            self.edge.predict_single(exchange, route)

    def _score_query(self, exchange: Exchange, route: Route) -> None:
        if self._identify(exchange):
            exchange.body = exchange.head.query.encode("latin-1")
            self.edge.predict_single(exchange, route)

    def _options(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200, b"allow: GET, OPTIONS, POST\r\n", b"")

    def _identify(self, exchange: Exchange) -> bool:
        """Give the answer its ids; False when it is answered already, because the caller's is too long."""
        head = exchange.head
        if head.request_id_bytes > ID_BYTES:
            told = {"message": f"x-request-id has at most {ID_BYTES} characters", "code": "invalid_input", "field": "x-request-id", "rule": "size"}
            self.edge.count("invalid_input")
            exchange.reply(431, JSON_LINES, encode_json(told))
            return False
        given = head.request_id or uuid4().hex.encode()
        lines = b"x-ms-request-id: %b\r\n" % given
        if not head.request_id:
            lines += b"x-request-id: %b\r\n" % given
        if head.client_request_id:
            lines += b"x-ms-client-request-id: %b\r\n" % head.client_request_id
        exchange.extra = lines
        return True

    def _swagger(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        version = parse_qs(exchange.head.query).get("version", ["2"])[-1]
        if version not in {"2", "3"}:
            raise InvalidInput("there are version 2 and version 3", field="version", rule="known")
        champion = self.edge.single().champion
        exchange.head.caller.require_model(champion.name)
        described: dict[str, Any] = describe_score(champion.name, champion.schema, version=int(version), release=self.edge.release)
        self.edge.json(exchange, described)
