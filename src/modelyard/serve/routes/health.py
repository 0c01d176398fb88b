"""How the server stands, and what it has measured: the probes of every platform, metrics and the description of its routes.

Hides nothing. None of these is ever queued behind a prediction, nor touches a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.protocols.base import JSON_LINES, encode_json
from modelyard.security.policy import METRICS, PUBLIC, SEE
from modelyard.serve.openapi import describe
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge
    from modelyard.serve.server import Exchange

DESCRIPTIONS = 64
"""OpenAPI documents that are kept: one for each set of models that some key is for."""

_PROMETHEUS = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_TEXT = b"content-type: text/plain; charset=utf-8\r\n"


class Health:
    """`/`, `/ping`, `/health`, `/version`, `/healthz/…`, `/metrics`, `/openapi.json`."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self._described: tuple[Any, dict[frozenset[str] | None, bytes]] = (None, {})
        ping, ready = Route(self._ping, PUBLIC), Route(self.edge.ready, PUBLIC)
        self.fixed: dict[str, Methods] = {
            "/": {b"GET": Route(self._alive, PUBLIC)},
            "/ping": {b"GET": ping, b"POST": ping},
            "/health": {b"GET": Route(self._health, PUBLIC)},
            "/version": {b"GET": Route(self._version, SEE)},
            "/healthz/live": {b"GET": Route(self._live, PUBLIC)},
            "/healthz/ready": {b"GET": ready},
            "/v2/health/live": {b"GET": Route(self._live, PUBLIC)},
            "/v2/health/ready": {b"GET": ready},
            "/metrics": {b"GET": Route(self._metrics, METRICS)},
            "/openapi.json": {b"GET": Route(self._openapi, SEE)},
        }
        if edge.settings.metrics_dialect == "tfserving":
            self.fixed["/monitoring/prometheus/metrics"] = {b"GET": Route(self._metrics, METRICS)}

    def find(self, parts: list[str]) -> Methods | None:  # noqa: ARG002 - the port's
        """None of these paths holds a name."""
        return None

    def _alive(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self.edge.json(exchange, {"status": "alive"})

    def _live(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self.edge.json(exchange, {"live": True})

    def _ping(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200 if self.edge.is_ready else 503, b"", b"")

    def _health(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200 if self.edge.is_ready else 503, _TEXT, b"\n")

    def _version(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200, _TEXT, self.edge.release.encode())

    def _metrics(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.head.caller.require_all()
        exchange.reply(200, _PROMETHEUS, self.edge.metrics())

    def _openapi(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        deployments, caller = self.edge.plane.deployments, exchange.head.caller
        if self._described[0] is not deployments or len(self._described[1]) >= DESCRIPTIONS:
            self._described = (deployments, {})
        known = self._described[1]
        if caller.models not in known:
            champions = [deployment.champion for name, deployment in deployments.items() if caller.sees(name)]
            document = describe([(each.name, each.schema, each.loaded.bundle.card.example) for each in champions], release=self.edge.release)
            known[caller.models] = encode_json(document)
        exchange.reply(200, JSON_LINES, known[caller.models])
