"""The data plane's gRPC services: which method asks what, in which wire, and how answers and refusals look.

Hides the methods of every service that is spoken here. It must not compute, batch or frame. A call's straight way: `rpc` → here →
`protocols.X.decode` → `DataPlane.infer` → `router` → `batching` → `runtime.predict` → `protocols.X.encode` → `rpc`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Literal

from modelyard.errors import Denied, MalformedPayload, ModelyardError, NotFound, Unauthenticated
from modelyard.protocols import messages, oip_v2_grpc, wire
from modelyard.protocols.messages import kind, parse
from modelyard.security.policy import INVOKE, LOAD, PUBLIC, SEE, Right
from modelyard.serve.access import Access
from modelyard.serve.dataplane import DataPlane, Deployment, Version
from modelyard.serve.edge import Edge
from modelyard.serve.errors import GRPC, INTERNAL, NOT_FOUND, STATUS, UNAVAILABLE
from modelyard.serve.grpc import Head
from modelyard.serve.grpc_tensorflow import TensorFlowServing
from modelyard.serve.metrics import Meter
from modelyard.serve.rpc import Call, Route, Talk
from modelyard.types import TensorSpec

EXTENSIONS = ("binary_tensor_data", "model_repository")
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3


class GrpcEdge:
    """The services over one DataPlane. Lives in the event loop; the server calls `admit`, `handle`, `fail` and `tick`."""

    def __init__(self, plane: DataPlane, *, edge: Edge, meter: Meter, access: Access) -> None:
        self.plane = plane
        self._edge = edge
        self._meter = meter
        self._access = access
        self.routes: dict[str, Route] = {}
        oip = "/inference.GRPCInferenceService/"
        self._add(oip + "ServerLive", self._live, PUBLIC)
        self._add(oip + "ServerReady", self._ready, PUBLIC)
        self._add(oip + "ModelReady", self._model_ready, SEE)
        self._add(oip + "ServerMetadata", self._server, SEE)
        self._add(oip + "ModelMetadata", self._model, SEE)
        self._add(oip + "ModelInfer", self._infer, INVOKE)
        self._add(oip + "ModelStreamInfer", self._infer_in_stream, INVOKE, is_talk=True, in_band=_stream_error)
        for service in (oip, "/inference.model_repository.ModelRepositoryService/"):
            self._add(service + "RepositoryIndex", self._index, SEE)
            self._add(service + "RepositoryModelLoad", partial(self._change, "load"), LOAD)
            self._add(service + "RepositoryModelUnload", partial(self._change, "unload"), LOAD)
        self._add("/grpc.health.v1.Health/Check", self._check, PUBLIC)
        self._add("/grpc.health.v1.Health/Watch", self._watch, PUBLIC, is_talk=True, tick=self._watched)
        for version in ("v1", "v1alpha"):
            self._add(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", self._reflect, SEE, is_talk=True)
        self.routes |= TensorFlowServing(plane, edge).routes
        self.services = tuple(sorted({path.split("/")[1] for path in self.routes}))

    def _add(self, path: str, handler: Callable[[Call], None], right: Right, **more: Any) -> None:
        self.routes[path] = Route(handler, right, **more)

    # What the server calls.

    def admit(self, head: Head) -> None:
        """Find the route of `head`, and whether its caller may ask. Raises Denied."""
        route = head.route
        if route is None:
            route = head.route = self.routes.get(head.path)
        access = self._access
        if head.admitted != access.epoch and (route is None or route.right != PUBLIC):
            caller = access.caller(head.authorization, host=head.host, origin=head.origin)
            caller.require(SEE if route is None else route.right)
            head.caller, head.admitted = caller, access.epoch
            head.priority = max(head.priority, caller.lowest)

    def handle(self, call: Call) -> None:
        """Answer `call` now or with a later batch; whatever goes wrong becomes an answer.

        A stream may stay open for long, so each of its messages asks again whether the key is still good: one that is not ends the stream.
        """
        if call.head.admitted != self._access.epoch and call.route.right != PUBLIC:
            try:
                self.admit(call.head)
            except Denied as error:
                call.stream.fail(error)
                return
        try:
            call.route.handler(call)
        except ModelyardError as error:
            self.fail(call, error)
        except Exception as error:  # noqa: BLE001 - the last line of defence: one call must not end the others
            failure = ModelyardError("the server failed on this request")
            failure.__cause__ = error
            self.fail(call, failure)

    def fail(self, call: Call, error: ModelyardError) -> None:
        """Refuse `call` with `error`, count it, and log one line."""
        if call.version is not None:
            call.version.failed(error.code, monotonic() - call.received_s, call)
        else:
            self._meter.failed(error.code)
        tracer = self._edge.tracer
        if tracer is not None:
            code = GRPC.get(type(error), INTERNAL)
            outcome = {"rpc.grpc.status_code": code}
            tracer.failed(call, code=error.code, is_fault=code in {INTERNAL, UNAVAILABLE}, status=outcome, ended_s=monotonic())
        self._edge.log_failure(call, error, STATUS.get(type(error), 500))
        if isinstance(error, Unauthenticated) and call.head.authorization:
            hold_back_s = self._access.hold_back_s()
            if hold_back_s:
                call.stream.server.loop.call_later(hold_back_s, call.refuse, error)
                return
        call.refuse(error)

    def tick(self, talk: Talk) -> None:
        """Called about every half second for each stream that stays open."""
        if talk.route.tick is not None:
            talk.route.tick(talk)

    # Predictions.

    def _infer(self, call: Call) -> None:
        name, version = oip_v2_grpc.address(call.body)
        self._edge.ask(call, self._find(call, name, version), "oip_v2_grpc", again=self.handle)

    def _infer_in_stream(self, call: Call) -> None:
        name, version = oip_v2_grpc.address(call.body)
        self._edge.ask(call, self._find(call, name, version), "oip_v2_grpc_stream", again=self.handle)

    def _find(self, call: Call, name: str, version: str) -> Deployment | Version:
        """What answers under `name`. Raises Forbidden where the caller's key is for other models, NotFound, Unavailable."""
        caller = call.head.caller
        if caller.models is not None:
            caller.require_model(name)
        return self.plane.find(name, _number(version))

    # What is served, and how it stands. None of these is ever queued.

    def _live(self, call: Call) -> None:
        call.reply(wire.integer(1, 1))

    def _ready(self, call: Call) -> None:
        call.reply(wire.integer(1, int(self._edge.is_ready)))

    def _model_ready(self, call: Call) -> None:
        asked = parse(kind("inference.ModelReadyRequest"), call.body)
        try:
            self._find(call, asked.name, asked.version)
            is_ready = self._edge.is_ready
        except NotFound:
            is_ready = False
        call.reply(wire.integer(1, int(is_ready)))

    def _server(self, call: Call) -> None:
        _send(call, "inference.ServerMetadataResponse", name="modelyard", version=self._edge.release, extensions=EXTENSIONS)

    def _model(self, call: Call) -> None:
        asked = parse(kind("inference.ModelMetadataRequest"), call.body)
        target = self._find(call, asked.name, asked.version)
        version = target.champion if isinstance(target, Deployment) else target
        schema = version.schema
        _send(
            call,
            "inference.ModelMetadataResponse",
            name=asked.name,
            versions=[str(number) for number in sorted(self.plane.deployments[asked.name].versions)],
            platform=version.platform,
            inputs=[_tensor(spec) for spec in schema.inputs],
            outputs=[_tensor(spec, schema.classes if spec.name == "probability" else None) for spec in schema.outputs],
        )

    def _index(self, call: Call) -> None:
        asked = parse(kind("inference.RepositoryIndexRequest"), call.body)
        repository = self._edge.repository
        if repository is None or asked.ready:
            self._tell_index(call, ())
        else:
            self._edge.later(repository.names(), partial(self._tell_index, call), partial(self.fail, call))

    def _tell_index(self, call: Call, names: tuple[str, ...]) -> None:
        _send(call, "inference.RepositoryIndexResponse", models=self._edge.index(call.head.caller, names))

    def _change(self, verb: Literal["load", "unload"], call: Call) -> None:
        asked = parse(kind("inference.RepositoryModelLoadRequest"), call.body)  # the request to unload has the same fields
        from modelyard.serve.repository import Change, refuse_overrides

        refuse_overrides(asked.parameters)
        name = asked.model_name or asked.repository_name  # KServe's clients give the name in the first field
        done = partial(call.reply, wire.tagged(1, name.encode()) + wire.integer(2, 1))
        self._edge.change(Change(verb, name, timeout_s=call.head.timeout_s), call.head.caller, done, partial(self.fail, call))

    # Health.

    def _status(self, service: str) -> int:
        if service and service not in self.services:
            return _SERVICE_UNKNOWN
        return _SERVING if self._edge.is_ready else _NOT_SERVING

    def _check(self, call: Call) -> None:
        status = self._status(parse(kind("grpc.health.v1.HealthCheckRequest"), call.body).service)
        if status == _SERVICE_UNKNOWN:
            raise NotFound("no service of this name is here", field="service", rule="known")
        call.reply(wire.integer(1, status))

    def _watch(self, call: Call) -> None:
        talk = call.stream
        if not isinstance(talk, Talk) or talk.memory is not None:
            raise MalformedPayload("this method takes one message", field="message", rule="unary")
        service = parse(kind("grpc.health.v1.HealthCheckRequest"), call.body).service
        status = self._status(service)
        talk.memory = service, status
        call.reply(wire.integer(1, status))

    def _watched(self, talk: Talk) -> None:
        if talk.memory is not None and (status := self._status(talk.memory[0])) != talk.memory[1]:
            talk.memory = talk.memory[0], status
            talk.say(wire.integer(1, status))

    # Reflection.

    def _reflect(self, call: Call) -> None:
        package = call.head.path.split("/")[1].removesuffix(".ServerReflection")
        asked = parse(kind(f"{package}.ServerReflectionRequest"), call.body)
        answer = kind(f"{package}.ServerReflectionResponse")(valid_host=asked.host, original_request=asked)
        what = asked.WhichOneof("message_request")
        try:
            match what:
                case "list_services":
                    for service in self.services:
                        answer.list_services_response.service.add(name=service)
                case "file_by_filename":
                    _add_files(answer, asked.file_by_filename)
                case "file_containing_symbol":
                    _add_files(answer, _file_of(asked.file_containing_symbol))
                case "all_extension_numbers_of_type":
                    answer.all_extension_numbers_response.base_type_name = (
                        messages.pool().FindMessageTypeByName(asked.all_extension_numbers_of_type).full_name
                    )
                case _:
                    raise KeyError
        except KeyError:
            answer.error_response.error_code = NOT_FOUND
            answer.error_response.error_message = "not found"
        call.reply(answer.SerializeToString())


def _file_of(symbol: str) -> str:
    """The file that says what `symbol` (a service, a method, a message or its field) is. KeyError where there is none."""
    try:
        name: str = messages.pool().FindFileContainingSymbol(symbol).name
    except KeyError:
        parent, _, last = symbol.rpartition(".")
        service = messages.pool().FindServiceByName(parent)
        name = service.FindMethodByName(last).containing_service.file.name
    return name


def _add_files(answer: Any, name: str) -> None:
    """The file `name` and all that it imports."""
    todo, done = [messages.pool().FindFileByName(name)], []
    while todo:
        file = todo.pop(0)
        if file.name not in done:
            done.append(file.name)
            todo += file.dependencies
    answer.file_descriptor_response.file_descriptor_proto.extend(messages.file_bytes(each) for each in done)


def _send(call: Call, message: str, /, **values: Any) -> None:
    call.reply(kind(message)(**values).SerializeToString())


def _stream_error(error: ModelyardError) -> bytes:
    """A ModelStreamInferResponse that tells `error`; the stream goes on."""
    return wire.tagged(1, error.message.encode())


def _number(version: str) -> int | None:
    if not version:
        return None
    if not version.isascii() or not version.isdigit() or len(version) > 9:
        raise NotFound("this version of the model is not loaded here", field="version", rule="loaded")
    return int(version)


def _tensor(spec: TensorSpec, classes: tuple[Any, ...] | None = None) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if spec.is_nullable:
        parameters["nullable"] = {"bool_param": True}
    if classes is not None:
        parameters["classes"] = {"string_param": json.dumps(list(classes), ensure_ascii=False)}
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape, "parameters": parameters}
