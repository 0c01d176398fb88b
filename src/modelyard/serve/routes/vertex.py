"""The two routes of Vertex AI, where the platform says that they are: `vertex_health_route` and `vertex_predict_route` (from `AIP_*`).

Hides nothing else: its body is KServe V1's. Source: Vertex AI's "Custom container requirements for prediction".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.security.policy import INVOKE, PUBLIC
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge


class Vertex:
    """What the settings name, or nothing."""

    def __init__(self, edge: Edge) -> None:
        self.fixed: dict[str, Methods] = {}
        health, predict = edge.settings.vertex_health_route.rstrip("/"), edge.settings.vertex_predict_route.rstrip("/")
        if health:
            self.fixed[health] = {b"GET": Route(edge.ready, PUBLIC)}
        if predict:
            asks = {b"POST": Route(edge.predict_single, INVOKE, wire="vertex", has_forms=True)}
            self.fixed[predict] = {**self.fixed.get(predict, {}), **asks}

    def find(self, parts: list[str]) -> Methods | None:  # noqa: ARG002 - the port's
        """See `base.Routes`."""
        return None
