"""`/v1/models/…`, where KServe V1 and TensorFlow Serving meet.

Hides both wires' paths and what one path answers to clients of both: `GET /v1/models/M` is the union, `GET /v1/models` is KServe's. TensorFlow
Serving matches its paths without regard to case; so do we (a model's name keeps its case). Sources: KServe's V1 protocol page, TensorFlow Serving's
RESTful API page and `model_servers/http_rest_api_util.cc`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from modelyard.errors import InvalidInput
from modelyard.protocols import tfserving
from modelyard.security.policy import INVOKE, SEE
from modelyard.serve.dataplane import Deployment, Version
from modelyard.serve.routes.base import Handler, Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge
    from modelyard.serve.server import Exchange

_PATH = re.compile(
    r"(?i:/v1/models/)(?P<model>[^/:]+)((?i:/versions/)(?P<number>[0-9]{1,19})|(?i:/labels/)(?P<label>[^/:]+))?(?::(?P<verb>\w+)|(?P<metadata>(?i:/metadata)))?"
)


class V1:
    """`/v1/…`."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.fixed: dict[str, Methods] = {"/v1/models": {b"GET": Route(edge.models, SEE)}}
        self.verbs: dict[str, tuple[Handler, str]] = {
            "predict": (self._ask, "v1_predict"),
            "classify": (self._ask, "tf_classify"),
            "regress": (self._ask, "tf_regress"),
            "explain": (self._explain, "v1_explain"),
        }
        """What `POST /v1/models/M:verb` does, and the codec of its body."""

    def find(self, parts: list[str]) -> Methods | None:
        """See `base.Routes`."""
        found = _PATH.fullmatch("/".join(parts))
        if found is None:
            return None
        where: dict[str, Any] = {
            "model": found["model"],
            "number": None if found["number"] is None else int(found["number"]),
            "label": found["label"] or "",
        }
        if found["verb"] is not None:
            known = self.verbs.get(found["verb"].lower())
            return None if known is None else {b"POST": Route(known[0], INVOKE, wire=known[1], **where)}
        return {b"GET": Route(self._metadata if found["metadata"] else self._status, SEE, **where)}

    def target(self, route: Route) -> Deployment | Version:
        """What the route's path names: a deployment, or one of its versions by number or label. Raises NotFound, Unavailable or InvalidInput."""
        target = self.edge.plane.find(route.model, route.number)
        return labelled(target, route.label.lower()) if route.label and isinstance(target, Deployment) else target

    def _ask(self, exchange: Exchange, route: Route) -> None:
        self.edge.ask(exchange, self.target(route), route.wire)

    def _explain(self, exchange: Exchange, route: Route) -> None:
        self.edge.explain(exchange, self.target(route), route.wire)

    def _status(self, exchange: Exchange, route: Route) -> None:
        target = self.target(route)
        numbers = sorted(target.versions, reverse=True) if isinstance(target, Deployment) else [target.number]
        states = [{"version": str(number), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}} for number in numbers]
        union = {"name": route.model, "ready": True} if isinstance(target, Deployment) else {}
        self.edge.json(exchange, {**union, "model_version_status": states})

    def _metadata(self, exchange: Exchange, route: Route) -> None:
        target = self.target(route)
        version = target.champion if isinstance(target, Deployment) else target
        self.edge.json(exchange, tfserving.metadata(route.model, version.number, version.schema))


def labelled(deployment: Deployment, label: str) -> Version:
    """The version under `label`: `champion` (or `stable`) has most traffic, `challenger` (or `canary`) is the one beside it. Raises InvalidInput."""
    if label in {"champion", "stable"}:
        return deployment.champion
    others = [digest for digest in deployment.plan.weights if digest != deployment.champion.digest]
    if label in {"challenger", "canary"} and len(others) == 1:
        return deployment.by_digest[others[0]]
    raise InvalidInput("no version has this label; there are champion and, during a rollout, challenger", field="label", rule="known")
