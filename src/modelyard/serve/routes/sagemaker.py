"""The routes of Amazon SageMaker: one model at `/invocations` (MLflow's route as well), several at `/models/…`.

Hides its paths and the form of its lists. Predictions go to `Edge.ask`, in the forms of `/invocations`. What the platform adds in headers
(`X-Amzn-SageMaker-Custom-Attributes`, `X-Amzn-SageMaker-Target-Model`) is ignored: the path names the model. Sources: SageMaker's "Use Your Own
Inference Code" and "Multi-Model Endpoints: contract for custom containers".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from modelyard.config import cores
from modelyard.protocols.base import read_json
from modelyard.security.policy import INVOKE, LOAD, SEE
from modelyard.serve.dataplane import Deployment
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge
    from modelyard.serve.server import Exchange

PAGE = 100


class _Load(msgspec.Struct, frozen=True):
    """What a load is asked with."""

    model_name: str
    url: str


_LOAD = msgspec.json.Decoder(_Load)


class SageMaker:
    """`/invocations`, `/execution-parameters`, `/models`, `/models/M`, `/models/M/invoke`."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.fixed: dict[str, Methods] = {
            "/invocations": {b"POST": Route(edge.predict_single, INVOKE, wire="mlflow", has_forms=True, is_strict=True)},
            "/execution-parameters": {b"GET": Route(self._parameters, SEE)},
            "/models": {b"GET": Route(self._list, SEE), b"POST": Route(self._load, LOAD)},
        }

    def find(self, parts: list[str]) -> Methods | None:
        """See `base.Routes`."""
        match parts:
            case ["", "models", name]:
                return {b"GET": Route(self._model, SEE, model=name), b"DELETE": Route(self._unload, LOAD, model=name)}
            case ["", "models", name, "invoke"]:
                return {b"POST": Route(self.edge.predict, INVOKE, model=name, wire="mlflow", has_forms=True, is_strict=True)}
        return None

    def _load(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        asked = read_json(_LOAD, exchange.body)
        from modelyard.serve.repository import Change

        change = Change("load", asked.model_name, place=asked.url, is_new=True, timeout_s=exchange.head.timeout_s)
        self.edge.change(change, exchange.head.caller, partial(self.edge.json, exchange, {}), partial(self.edge.fail, exchange))

    def _unload(self, exchange: Exchange, route: Route) -> None:
        from modelyard.serve.repository import Change

        change = Change("unload", route.model, timeout_s=exchange.head.timeout_s)
        self.edge.change(change, exchange.head.caller, partial(self.edge.json, exchange, {}), partial(self.edge.fail, exchange))

    def _parameters(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        settings = self.edge.settings
        largest = max(1, min(settings.max_json_bytes, settings.max_body_bytes) >> 20)
        told = {"MaxConcurrentTransforms": settings.workers or cores(), "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": largest}
        self.edge.json(exchange, told)

    def _list(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        after = parse_qs(exchange.head.query).get("next_page_token", [""])[-1]
        names = [name for name in sorted(filter(exchange.head.caller.sees, self.edge.plane.deployments)) if name > after]
        told: dict[str, Any] = {"models": [_described(self.edge.plane.deployments[name]) for name in names[:PAGE]]}
        if len(names) > PAGE:
            told["nextPageToken"] = names[PAGE - 1]
        self.edge.json(exchange, told)

    def _model(self, exchange: Exchange, route: Route) -> None:
        target = self.edge.plane.find(route.model)
        if isinstance(target, Deployment):
            self.edge.json(exchange, _described(target))


def _described(deployment: Deployment) -> dict[str, str]:
    """A model as this platform lists it, by the url that it gave; of one that it did not load the digest stands for the place, which is nobody's
    business."""
    return {"modelName": deployment.name, "modelUrl": deployment.plan.url or deployment.champion.digest}
