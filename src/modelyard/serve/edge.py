"""The data plane's routes: which path and method asks what, in which wire, and how answers and refusals look over HTTP.

Hides the paths of every wire that is spoken here. It must not compute, batch or parse HTTP. A request's straight way: `server` →
here → `protocols.X.decode` → `DataPlane.infer` → `router` → `batching` → `runtime.predict` → `protocols.X.encode` → `server`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from time import monotonic
from typing import Any

from modelyard.config import Settings
from modelyard.errors import InvalidInput, MalformedPayload, ModelyardError, NotFound, Overloaded, Unauthenticated, Unavailable
from modelyard.protocols.base import JSON_LINES, encode_json, refusal
from modelyard.serve.dataplane import DataPlane, Deployment, Version
from modelyard.serve.errors import STATUS
from modelyard.serve.http import Head
from modelyard.serve.keys import Keys
from modelyard.serve.metrics import Meter
from modelyard.serve.openapi import describe
from modelyard.serve.server import Exchange
from modelyard.types import TensorSpec

LOG_LINES_S = 20
_PROMETHEUS = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
Handler = Callable[[Exchange, "Route"], None]


class Route:
    """What a method and path ask for; resolved once per head."""

    __slots__ = ("allow", "handler", "is_public", "model", "number", "wire")

    def __init__(
        self, handler: Handler, *, model: str = "", number: int | None = None, wire: str = "", is_public: bool = False, allow: str = ""
    ) -> None:
        self.handler = handler
        self.model = model
        self.number = number
        self.wire = wire
        self.is_public = is_public
        self.allow = allow


class Edge:
    """The routes over one DataPlane. Lives in the event loop; `handle` is what the server calls."""

    def __init__(self, plane: DataPlane, settings: Settings, *, meter: Meter, metrics: Callable[[], bytes], keys: Keys | None = None) -> None:
        self.plane = plane
        self.is_draining = False
        self._timeout_s = settings.request_timeout_s
        self._meter = meter
        self._metrics = metrics
        self._keys = keys
        self._described: tuple[Any, bytes] = (None, b"")
        self._log_until_s = 0.0
        self._logged = 0
        self._fixed: dict[str, dict[bytes, Route]] = {
            "/": {b"GET": Route(self._alive, is_public=True)},
            "/ping": {b"GET": Route(self._ping, is_public=True), b"POST": Route(self._ping, is_public=True)},
            "/healthz/live": {b"GET": Route(self._live, is_public=True)},
            "/healthz/ready": {b"GET": Route(self._ready, is_public=True)},
            "/metrics": {b"GET": Route(self._text)},
            "/openapi.json": {b"GET": Route(self._openapi)},
            "/invocations": {b"POST": Route(self._invoke, wire="mlflow")},
            "/v2": {b"GET": Route(self._server)},
            "/v2/health/live": {b"GET": Route(self._live, is_public=True)},
            "/v2/health/ready": {b"GET": Route(self._ready, is_public=True)},
            "/v2/models": {b"GET": Route(self._models)},
            "/v2/repository/index": {b"POST": Route(self._index)},
            "/v1/models": {b"GET": Route(self._models)},
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer `exchange` now or with a later batch; whatever goes wrong becomes an answer."""
        head = exchange.head
        try:
            route = head.route
            if route is None:
                route = head.route = self._route(head)
            keys = self._keys
            if keys is not None and not route.is_public and head.admitted != keys.epoch:
                keys.require(head.authorization)
                head.admitted = keys.epoch
            route.handler(exchange, route)
        except ModelyardError as error:
            self.fail(exchange, error)
        except Exception as error:  # noqa: BLE001 - the last line of defence: one request must not end the others
            failure = ModelyardError("the server failed on this request")
            failure.__cause__ = error
            self.fail(exchange, failure)

    def _route(self, head: Head) -> Route:
        path = head.path if len(head.path) == 1 else head.path.rstrip("/")
        methods = self._fixed.get(path) or self._model_routes(path)
        if methods is None:
            return Route(self._unknown)
        route = methods.get(b"GET" if head.method == b"HEAD" else head.method)
        return route or Route(self._wrong_method, allow=", ".join(sorted(method.decode() for method in methods)))

    def _model_routes(self, path: str) -> dict[bytes, Route] | None:
        match path.split("/"):
            case ["", "v1", "models", name] if name.endswith(":predict"):
                return {b"POST": Route(self._predict, model=name.removesuffix(":predict"), wire="kserve_v1")}
            case ["", "v1", "models", name]:
                return {b"GET": Route(self._model_v1, model=name)}
            case ["", "v2", "models", name, *rest]:
                number = None
                if rest[:1] == ["versions"] and len(rest) > 1:
                    if not rest[1].isascii() or not rest[1].isdigit() or len(rest[1]) > 9:
                        return None
                    number, rest = int(rest[1]), rest[2:]
                match rest:
                    case []:
                        return {b"GET": Route(self._model, model=name, number=number)}
                    case ["ready"]:
                        return {b"GET": Route(self._model_ready, model=name, number=number)}
                    case ["infer"]:
                        return {b"POST": Route(self._predict, model=name, number=number, wire="oip_v2")}
        return None

    # Predictions.

    def _predict(self, exchange: Exchange, route: Route) -> None:
        self._ask(exchange, self.plane.find(route.model, route.number), route.wire)

    def _invoke(self, exchange: Exchange, route: Route) -> None:
        deployments = self.plane.deployments
        if len(deployments) != 1:
            if not self.plane.is_ready:
                raise Unavailable("the server is not ready yet")
            raise NotFound("this route answers where one model is served; ask for a model by name at /v2/models", field="model", rule="single")
        self._ask(exchange, next(iter(deployments.values())), route.wire)

    def _ask(self, exchange: Exchange, target: Deployment | Version, wire: str) -> None:
        head = exchange.head
        if isinstance(target, Deployment):
            # The champion's schema is the deployment's: a candidate accepts whatever it accepts.
            version, reader = target.pick(), target.champion
        else:
            version = reader = target
        exchange.version = version
        exchange.codec = codec = reader.codecs[wire]
        exchange.deadline_s = exchange.received_s + (head.timeout_s or self._timeout_s)
        exchange.request = codec.decode(exchange.body, head.media, head.json_bytes)
        exchange.body = b""
        exchange.prepared_s = monotonic()
        self.plane.infer(version, exchange)

    def fail(self, exchange: Exchange, error: ModelyardError) -> None:
        """Answer with `error` in the wire's own form, count it, and log one line."""
        status = STATUS.get(type(error), 500)
        lines = JSON_LINES
        if isinstance(error, Overloaded):
            lines += b"retry-after: %d\r\n" % max(1, ceil(error.retry_after_s))
        elif isinstance(error, Unavailable) and status == 503:
            lines += b"retry-after: 1\r\n"
        elif isinstance(error, Unauthenticated):
            lines += b"www-authenticate: Bearer\r\n"
        body = exchange.codec.refuse(error) if exchange.codec is not None else refusal(error)
        if exchange.version is not None:
            exchange.version.failed(error.code, monotonic() - exchange.received_s)
        else:
            self._meter.failed(error.code)
        exchange.reply(status, lines, body)
        self._log(exchange, error, status)

    def refused(self, status: int, rule: str) -> None:
        """Count a message that was no request."""
        self._meter.failed("malformed_message")
        self._write_log({"event": "refused", "status": status, "rule": rule})

    def _log(self, exchange: Exchange, error: ModelyardError, status: int) -> None:
        line: dict[str, Any] = {"event": "error", "status": status, "code": error.code, "field": error.field, "rule": error.rule}
        if exchange.version is not None:
            line |= {"model": exchange.version.name, "version": exchange.version.number}
        if exchange.head.request_id:
            line["request_id"] = exchange.head.request_id.decode("latin-1")
        if exchange.head.traceparent:
            line["traceparent"] = exchange.head.traceparent.decode("latin-1")
        if error.__cause__ is not None and not isinstance(error, InvalidInput):
            # The kind of what was raised, never its text: a library's message may hold the caller's data.
            line["cause"] = type(error.__cause__).__name__
        self._write_log(line)

    def report(self, error: ModelyardError) -> None:
        """Log a failure that belongs to no request."""
        self._write_log({"event": "error", "code": error.code, "message": error.message})

    def _write_log(self, line: dict[str, Any]) -> None:
        """One structured line; at most LOG_LINES_S a second, so that a flood of errors is not a flood of writes."""
        now = monotonic()
        if now > self._log_until_s:
            if self._logged > LOG_LINES_S:
                line["unlogged_before"] = self._logged - LOG_LINES_S
            self._log_until_s, self._logged = now + 1.0, 0
        self._logged += 1
        if self._logged <= LOG_LINES_S:
            with suppress(OSError):  # whoever read our log may be gone; answering goes on
                sys.stderr.write(json.dumps({key: value for key, value in line.items() if value is not None}) + "\n")

    # What is served, and how it stands. None of these is ever queued.

    def _json(self, exchange: Exchange, value: Any, status: int = 200) -> None:
        exchange.reply(status, JSON_LINES, encode_json(value))

    def _alive(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self._json(exchange, {"status": "alive"})

    def _live(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self._json(exchange, {"live": True})

    @property
    def is_ready(self) -> bool:
        """Whether traffic should come here."""
        return self.plane.is_ready and not self.is_draining

    def _ready(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self._json(exchange, {"ready": self.is_ready}, 200 if self.is_ready else 503)

    def _ping(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200 if self.is_ready else 503, b"", b"")

    def _server(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self._json(exchange, {"name": "modelyard", "version": _version(), "extensions": ["binary_tensor_data", "model_repository"]})

    def _models(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        self._json(exchange, {"models": sorted(self.plane.deployments)})

    def _index(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        if exchange.body:
            try:
                asked = json.loads(exchange.body)
            except ValueError as error:
                raise MalformedPayload("JSON is malformed", field="body", rule="json") from error
            if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
                raise MalformedPayload('the body is {"ready": true or false} or empty', field="ready", rule="type")
        versions = [version for _, deployment in sorted(self.plane.deployments.items()) for version in deployment.versions.values()]
        self._json(exchange, [{"name": each.name, "version": str(each.number), "state": "READY", "reason": ""} for each in versions])

    def _model(self, exchange: Exchange, route: Route) -> None:
        target = self.plane.find(route.model, route.number)
        version = target.champion if isinstance(target, Deployment) else target
        loaded = self.plane.deployments[route.model].versions
        schema = version.schema
        self._json(
            exchange,
            {
                "name": route.model,
                "versions": [str(number) for number in sorted(loaded)],
                "platform": "onnxruntime_onnx",
                "inputs": [_tensor(spec) for spec in schema.inputs],
                "outputs": [_tensor(spec, schema.classes if spec.name == "probability" else None) for spec in schema.outputs],
            },
        )

    def _model_ready(self, exchange: Exchange, route: Route) -> None:
        self.plane.find(route.model, route.number)
        self._json(exchange, {"name": route.model, "ready": True})

    def _model_v1(self, exchange: Exchange, route: Route) -> None:
        target = self.plane.find(route.model)
        versions = target.versions if isinstance(target, Deployment) else {}
        status = [{"version": str(number), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}} for number in sorted(versions)]
        self._json(exchange, {"name": route.model, "ready": True, "model_version_status": status})

    def _text(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        exchange.reply(200, _PROMETHEUS, self._metrics())

    def _openapi(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        deployments = self.plane.deployments
        if self._described[0] is not deployments:
            champions = [deployment.champion for deployment in deployments.values()]
            document = describe([(each.name, each.schema, each.loaded.bundle.card.example) for each in champions], release=_version())
            self._described = (deployments, encode_json(document))
        exchange.reply(200, JSON_LINES, self._described[1])

    def _unknown(self, exchange: Exchange, route: Route) -> None:  # noqa: ARG002
        raise NotFound("no such route; /openapi.json lists them", field="path", rule="route")

    def _wrong_method(self, exchange: Exchange, route: Route) -> None:
        lines = JSON_LINES + b"allow: %b\r\n" % route.allow.encode()
        self._meter.failed("invalid_input")
        exchange.reply(405, lines, encode_json({"error": f"this route takes {route.allow}", "code": "invalid_input", "rule": "method"}))


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


@cache
def _version() -> str:
    try:
        return version("modelyard")
    except PackageNotFoundError:
        return "unknown"
