"""How the server stands, and what it has measured: the probes of every platform, metrics and the description of its routes.

Hides nothing. None of these is ever queued behind a prediction, nor touches a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.protocols.base import JSON_LINES, encode_json
from modelyard.security.policy import METRICS, PUBLIC, SEE
from modelyard.serve.dataplane import Deployment, Version
from modelyard.serve.openapi import describe
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelyard.serve.edge import Edge
    from modelyard.serve.server import Exchange
    from modelyard.types import Schema

DESCRIPTIONS = 64
"""OpenAPI documents that are kept: one for each set of models that some key is for."""

_PROMETHEUS = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_TEXT = b"content-type: text/plain; charset=utf-8\r\n"


class Health:
    """`/`, `/ping`, `/health`, `/version`, `/healthz/…`, `/metrics`, `/openapi.json`, `/v2/models/M/openapi.json`."""

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

    def find(self, parts: list[str]) -> Methods | None:
        """See `base.Routes`."""
        match parts:
            case ["", "v2", "models", name, "openapi.json"]:
                return {b"GET": Route(self._openapi_of_model, SEE, model=name)}
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
            known[caller.models] = encode_json(describe([_described(each) for each in champions], release=self.edge.release))
        exchange.reply(200, JSON_LINES, known[caller.models])

    def _openapi_of_model(self, exchange: Exchange, route: Route) -> None:
        target = self.edge.plane.find(route.model)
        version = target.champion if isinstance(target, Deployment) else target
        self.edge.json(exchange, describe([_described(version)], release=self.edge.release, is_whole=False))


def _described(version: Version) -> tuple[str, Schema, Mapping[str, Any]]:
    return version.name, version.schema, version.loaded.bundle.card.example
