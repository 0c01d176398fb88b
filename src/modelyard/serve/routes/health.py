"""How the server stands, and what it has measured: the probes of every platform, metrics and the description of its routes.

Hides nothing. None of these is ever queued behind a prediction, nor touches a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.protocols.base import JSON_LINES, encode_json
from modelyard.serve.openapi import describe
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge
    from modelyard.serve.server import Exchange

_PROMETHEUS = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_TEXT = b"content-type: text/plain; charset=utf-8\r\n"


class Health:
    """`/`, `/ping`, `/health`, `/version`, `/healthz/…`, `/metrics`, `/openapi.json`."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self._described: tuple[Any, bytes] = (None, b"")
        ping, ready = Route(self._ping, is_public=True), Route(self._ready, is_public=True)
        self.fixed: dict[str, Methods] = {
            "/": {b"GET": Route(self._alive, is_public=True)},
            "/ping": {b"GET": ping, b"POST": ping},
            "/health": {b"GET": Route(self._health, is_public=True)},
            "/version": {b"GET": Route(self._version)},
            "/healthz/live": {b"GET": Route(self._live, is_public=True)},
            "/healthz/ready": {b"GET": ready},
            "/v2/health/live": {b"GET": Route(self._live, is_public=True)},
            "/v2/health/ready": {b"GET": ready},
            "/metrics": {b"GET": Route(self._metrics)},
            "/openapi.json": {b"GET": Route(self._openapi)},
        }

    def find(self, parts: list[str]) -> Methods | None:  # noqa: ARG002 - the port's
        """None of these paths holds a name."""
        return None

    def _alive(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self.edge.json(exchange, {"status": "alive"})

    def _live(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self.edge.json(exchange, {"live": True})

    def _ready(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        is_ready = self.edge.is_ready
        self.edge.json(exchange, {"ready": is_ready}, 200 if is_ready else 503)

    def _ping(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200 if self.edge.is_ready else 503, b"", b"")

    def _health(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200 if self.edge.is_ready else 503, _TEXT, b"\n")

    def _version(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200, _TEXT, self.edge.release.encode())

    def _metrics(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200, _PROMETHEUS, self.edge.metrics())

    def _openapi(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        deployments = self.edge.plane.deployments
        if self._described[0] is not deployments:
            champions = [deployment.champion for deployment in deployments.values()]
            document = describe([(each.name, each.schema, each.loaded.bundle.card.example) for each in champions], release=self.edge.release)
            self._described = (deployments, encode_json(document))
        exchange.reply(200, JSON_LINES, self._described[1])
