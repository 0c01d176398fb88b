"""`/v1/models/…`, where KServe V1 and TensorFlow Serving meet.

Hides both wires' paths and what one path answers to clients of both. TensorFlow Serving matches paths without regard to case; so do we. Sources:
KServe's V1 protocol page, TensorFlow Serving's RESTful API page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.serve.dataplane import Deployment
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge
    from modelyard.serve.server import Exchange


class V1:
    """`/v1/…`."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.fixed: dict[str, Methods] = {"/v1/models": {b"GET": Route(edge.models)}}

    def find(self, parts: list[str]) -> Methods | None:
        """See `base.Routes`."""
        match parts:
            case ["", "v1", "models", name] if name.endswith(":predict"):
                return {b"POST": Route(self.edge.predict, model=name.removesuffix(":predict"), wire="kserve_v1")}
            case ["", "v1", "models", name]:
                return {b"GET": Route(self._model, model=name)}
        return None

    def _model(self, exchange: Exchange, route: Route) -> None:
        target = self.edge.plane.find(route.model)
        versions = target.versions if isinstance(target, Deployment) else {}
        status = [{"version": str(number), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}} for number in sorted(versions)]
        self.edge.json(exchange, {"name": route.model, "ready": True, "model_version_status": status})
