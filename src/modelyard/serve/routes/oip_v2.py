"""The routes of the Open Inference Protocol V2.

Hides its paths and its metadata. Predictions go to `Edge.ask`. `POST …/infer` also reads and writes the bulk forms, by Content-Type and
Accept. Sources: Open Inference Protocol (REST), Triton's model repository extension.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.protocols.base import read_json
from modelyard.security.policy import INVOKE, LOAD, SEE
from modelyard.serve.dataplane import Deployment
from modelyard.serve.routes.base import Methods, Route

if TYPE_CHECKING:
    from modelyard.serve.edge import Edge
    from modelyard.serve.repository import Change
    from modelyard.serve.server import Exchange
    from modelyard.types import TensorSpec


class _Index(msgspec.Struct):
    """What the index is asked with; whatever stands beside is passed over unread."""

    ready: bool = False


class _Change(msgspec.Struct):
    """What a load or unload is asked with: the parameters' names count."""

    parameters: dict[str, msgspec.Raw] | None = None


_INDEX, _CHANGE = msgspec.json.Decoder(_Index), msgspec.json.Decoder(_Change)


class OipV2:
    """`/v2/…`."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.fixed: dict[str, Methods] = {
            "/v2": {b"GET": Route(self._server, SEE)},
            "/v2/models": {b"GET": Route(edge.models, SEE)},
            "/v2/repository/index": {b"POST": Route(self._index, SEE)},
        }

    def find(self, parts: list[str]) -> Methods | None:
        """See `base.Routes`."""
        match parts:
            case ["", "v2", "models", name, *rest]:
                number = None
                if rest[:1] == ["versions"] and len(rest) > 1:
                    if not rest[1].isascii() or not rest[1].isdigit() or len(rest[1]) > 19:
                        return None
                    number, rest = int(rest[1]), rest[2:]
                match rest:
                    case []:
                        return {b"GET": Route(self._model, SEE, model=name, number=number)}
                    case ["ready"]:
                        return {b"GET": Route(self._model_ready, SEE, model=name, number=number)}
                    case ["infer"]:
                        return {b"POST": Route(self.edge.predict, INVOKE, model=name, number=number, wire="oip_v2", has_forms=True)}
            case ["", "v2", "repository", "models", name, ("load" | "unload") as verb]:
                return {b"POST": Route(self._load if verb == "load" else self._unload, LOAD, model=name)}
        return None

    def _server(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self.edge.json(exchange, {"name": "modelyard", "version": self.edge.release, "extensions": ["binary_tensor_data", "model_repository"]})

    def _index(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        is_of_ready = bool(exchange.body) and read_json(_INDEX, exchange.body).ready
        repository = self.edge.repository
        if repository is None or is_of_ready:
            self._tell_index(exchange, ())
        else:
            self.edge.later(repository.names(), partial(self._tell_index, exchange), partial(self.edge.fail, exchange))

    def _tell_index(self, exchange: Exchange, names: tuple[str, ...]) -> None:
        self.edge.json(exchange, self.edge.index(exchange.head.caller, names))

    def _load(self, exchange: Exchange, route: Route) -> None:
        from modelyard.serve.repository import Change

        _refuse_overrides(exchange.body)
        self._change(exchange, Change("load", route.model, timeout_s=exchange.head.timeout_s))

    def _unload(self, exchange: Exchange, route: Route) -> None:
        from modelyard.serve.repository import Change

        _refuse_overrides(exchange.body)
        self._change(exchange, Change("unload", route.model, timeout_s=exchange.head.timeout_s))

    def _change(self, exchange: Exchange, change: Change) -> None:
        done = partial(self.edge.json, exchange, {"name": change.name, change.verb: True})
        self.edge.change(change, exchange.head.caller, done, partial(self.edge.fail, exchange))

    def _model(self, exchange: Exchange, route: Route) -> None:
        target = self.edge.plane.find(route.model, route.number)
        version = target.champion if isinstance(target, Deployment) else target
        loaded = self.edge.plane.deployments[route.model].versions
        schema = version.schema
        self.edge.json(
            exchange,
            {
                "name": route.model,
                "versions": [str(number) for number in sorted(loaded)],
                "platform": version.platform,
                "inputs": [_tensor(spec) for spec in schema.inputs],
                "outputs": [_tensor(spec, schema.classes if spec.name == "probability" else None) for spec in schema.outputs],
            },
        )

    def _model_ready(self, exchange: Exchange, route: Route) -> None:
        self.edge.plane.find(route.model, route.number)
        self.edge.json(exchange, {"name": route.model, "ready": True})


def _refuse_overrides(body: bytes | bytearray) -> None:
    """Return when the body asks for nothing but the change itself. Raises MalformedPayload, or Forbidden for `config` and `file:` overrides."""
    if not body:
        return
    asked = read_json(_CHANGE, body).parameters or {}
    from modelyard.serve.repository import refuse_overrides

    refuse_overrides(sorted(asked))


def _tensor(spec: TensorSpec, classes: tuple[Any, ...] | None = None) -> dict[str, Any]:
    described: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
    parameters: dict[str, Any] = {}
    if spec.is_nullable:
        parameters["nullable"] = True
    if classes is not None:
        parameters["classes"] = list(classes)
    if parameters:
        described["parameters"] = parameters
    return described
