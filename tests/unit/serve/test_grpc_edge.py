"""The services: each method that the descriptors name is answered or refused on purpose, and only health is public."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from modelyard.config import Settings
from modelyard.errors import Forbidden, NotFound, Unauthenticated
from modelyard.protocols import messages
from modelyard.protocols.messages import kind
from modelyard.security.policy import rights
from modelyard.serve.access import ANYONE, Caller
from modelyard.serve.admission import NORMAL
from modelyard.serve.edge import Edge
from modelyard.serve.grpc import Head
from modelyard.serve.grpc_edge import GrpcEdge
from modelyard.serve.rpc import Call, Talk
from modelyard.types import Principal

PUBLIC = {"ServerLive", "ServerReady", "Check", "Watch"}


class Plane:
    deployments: dict[str, Any] = {}
    is_ready = True

    def find(self, name: str, number: int | None = None) -> Any:
        raise NotFound("no model of this name is served here", field="model", rule="known")


class Meter:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def failed(self, code: str) -> None:
        self.codes.append(code)


class Keys:
    """Access with one key, which is for the model `mine`."""

    epoch = 0
    good = b"Bearer k"

    def caller(self, authorization: bytes, *, host: bytes, origin: bytes) -> Caller:
        if origin:
            raise Forbidden("pages of other origins may not ask here")
        if authorization != self.good:
            raise Unauthenticated("no valid access key")
        return Caller(Principal("key:k"), rights(["invoker"]), frozenset({"mine"}), lowest=NORMAL)

    def hold_back_s(self) -> float:
        return 0.0


class Open(Keys):
    """Access where no key is wanted."""

    def caller(self, authorization: bytes, *, host: bytes, origin: bytes) -> Caller:
        return ANYONE


class Asked:
    """A call without a stream."""

    def __init__(self, path: str, message: bytes, *more: tuple[bytes, bytes]) -> None:
        self.head = head(path, *more)
        self.route: Any = None
        self.body = message
        self.version: Any = None
        self.received_s = 0.0
        self.stream: Any = None
        self.said: list[Any] = []
        self.reply = self.said.append
        self.refuse = self.said.append


def head(path: str, *more: tuple[bytes, bytes]) -> Head:
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b"content-type", b"application/grpc")]
    return Head([*fields, *more])


@contextmanager
def edge(keys: Any = None) -> Iterator[GrpcEdge]:
    plane, meter = cast(Any, Plane()), cast(Any, Meter())
    yield GrpcEdge(plane, edge=Edge(plane, Settings(), meter=meter, metrics=bytes), meter=meter, access=keys or cast(Any, Open()))


def ask(made: GrpcEdge, path: str, message: bytes = b"") -> Any:
    asked = Asked(path, message)
    made.admit(asked.head)
    asked.route = asked.head.route
    made.handle(cast(Call, asked))
    return asked.said[0]


def described() -> set[str]:
    """Every method of every service in our descriptors."""
    found = set()
    for name in ("inference", "model_repository", "health", "reflection_v1", "reflection_v1alpha", "tensorflow_serving"):
        for service in messages.pool().FindFileByName(f"{name}.proto").services_by_name.values():
            found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return found


def test_every_method_described_is_there_and_no_other() -> None:
    with edge() as made:
        assert set(made.routes) == described()
        talks = {path for path, route in made.routes.items() if route.is_talk}
        for path in made.routes:
            service, method = path[1:].split("/")
            found = messages.pool().FindServiceByName(service).FindMethodByName(method)
            assert (path in talks) == (found.client_streaming or found.server_streaming)
            assert (made.routes[path].right == "public") == (method in PUBLIC)


@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/ModelInfer", "/none.Such/Method"])
def test_only_health_goes_without_a_key(path: str) -> None:
    with edge(Keys()) as made:
        with pytest.raises(Unauthenticated):
            made.admit(head(path))
        let_in = head(path, (b"authorization", b"Bearer k"))
        made.admit(let_in)
        assert let_in.admitted == 0
        first = head(path, (b"authorization", b"Bearer k"), (b"x-priority", b"high"))
        made.admit(first)
        assert first.priority == NORMAL  # which is the key's highest
        with pytest.raises(Forbidden):
            made.admit(head(path, (b"authorization", b"Bearer k"), (b"origin", b"https://elsewhere")))
        for public in ("/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerLive"):
            made.admit(head(public))


def test_a_key_for_one_model_asks_for_that_one_and_loads_none() -> None:
    with edge(Keys()) as made:
        key = (b"authorization", b"Bearer k")
        infer = "/inference.GRPCInferenceService/ModelInfer"
        for name, kind_of_error in (("mine", NotFound), ("other", Forbidden)):  # whether there is such a model or not
            asked = Asked(infer, kind("inference.ModelInferRequest")(model_name=name).SerializeToString(), key)
            made.admit(asked.head)
            asked.route = asked.head.route
            made.handle(cast(Call, asked))
            assert type(asked.said[0]) is kind_of_error
        with pytest.raises(Forbidden):
            made.admit(head("/inference.GRPCInferenceService/RepositoryModelLoad", key))


class Stream:
    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.fail = self.failures.append


def test_each_message_of_an_open_stream_asks_whether_its_key_is_still_good() -> None:
    keys = Keys()
    with edge(keys) as made:

        def say(path: str, key: bytes) -> Any:
            asked = Asked(path, b"", (b"authorization", key))
            asked.stream = Stream()
            made.admit(asked.head)
            asked.route = asked.head.route
            return asked

        infer = "/inference.GRPCInferenceService/ModelStreamInfer"
        good, revoked = say(infer, b"Bearer k"), say(infer, b"Bearer k")
        public = say("/inference.GRPCInferenceService/ServerLive", b"Bearer k")
        keys.epoch += 1
        made.handle(cast(Call, good))
        assert good.said and not good.stream.failures
        keys.good = b"Bearer other"
        keys.epoch += 1
        made.handle(cast(Call, revoked))
        assert [type(error) for error in revoked.stream.failures] == [Unauthenticated]
        assert not revoked.said
        made.handle(cast(Call, public))
        assert public.said and not public.stream.failures


def test_health_follows_readiness() -> None:
    with edge() as made:
        check, response = "/grpc.health.v1.Health/Check", kind("grpc.health.v1.HealthCheckResponse")
        assert response.FromString(ask(made, check)).status == 1
        made._edge.is_draining = True
        assert response.FromString(ask(made, check)).status == 2
        assert not kind("inference.ServerReadyResponse").FromString(ask(made, "/inference.GRPCInferenceService/ServerReady")).ready
        assert isinstance(ask(made, check, kind("grpc.health.v1.HealthCheckRequest")(service="x").SerializeToString()), NotFound)


def test_a_watch_is_told_of_a_change() -> None:
    with edge() as made:

        class Watching(Talk):
            def __init__(self) -> None:
                self.memory: Any = ("", 1)
                self.said: list[bytes] = []

            def say(self, data: bytes) -> None:
                self.said.append(data)

        talk = Watching()
        talk.route = made.routes["/grpc.health.v1.Health/Watch"]
        made.tick(talk)
        assert talk.said == []
        made._edge.is_draining = True
        made.tick(talk)
        made.tick(talk)
        assert talk.said == [b"\x08\x02"]


def test_what_fails_within_becomes_a_refusal() -> None:
    async def run() -> None:
        with edge() as made:
            refusal = ask(made, "/inference.GRPCInferenceService/ModelInfer", b"\x0a\x01m")
            assert isinstance(refusal, NotFound)
            made.plane = cast(Any, None)
            assert type(ask(made, "/inference.GRPCInferenceService/ModelInfer", b"\x0a\x01m")).__name__ == "ModelyardError"

    asyncio.run(run())


@pytest.mark.parametrize("version", ["x", "1.0", "-1", "1234567890", "\u0661"])
def test_a_version_is_a_plain_number(version: str) -> None:
    with edge() as made:
        message = kind("inference.ModelInferRequest")(model_name="m", model_version=version).SerializeToString()
        refusal = ask(made, "/inference.GRPCInferenceService/ModelInfer", message)
        assert isinstance(refusal, NotFound) and refusal.field == "version"
