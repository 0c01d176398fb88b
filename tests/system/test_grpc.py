"""gRPC as its own client library speaks it, against a running data plane: every method, sizes, deadlines, keys, drains."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelyard.protocols.messages import kind
from serving import Home, Running, home_with, running

OIP = "/inference.GRPCInferenceService/"
BIG = 3 << 20


def method(channel: grpc.Channel, path: str, answer: str, shape: str = "unary_unary") -> Any:
    """A method as generated code would make it."""
    path = path if path.startswith("/") else OIP + path
    answer = answer if "." in answer else f"inference.{answer}"
    return getattr(channel, shape)(
        path, request_serializer=lambda message: message.SerializeToString(), response_deserializer=kind(answer).FromString
    )


def ask(name: str, *tensors: tuple[str, str, list[int], bytes], **more: Any) -> Any:
    """A ModelInferRequest with raw tensors."""
    message = kind("inference.ModelInferRequest")(model_name=name, **more)
    for tensor, datatype, shape, raw in tensors:
        message.inputs.add(name=tensor, datatype=datatype, shape=shape)
        message.raw_input_contents.append(raw)
    return message


def grid(rows: int = 1, **more: Any) -> Any:
    values = np.resize(np.array([1, 2, 3, 4], np.float32), (rows, 4))
    return ask("grid", ("X", "FP32", [rows, 4], values.tobytes()), **more)


def slow(turns: float) -> Any:
    return ask("slow", ("turns", "FP64", [1, 1], np.array([turns], np.float64).tobytes()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = home_with(tmp_path_factory.mktemp("grpc") / "home", "line", "shop", "grid", "slow")
    with running(home) as made:
        yield made


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.grpc)) as made:
        yield made


@pytest.mark.system
def test_what_is_served(channel: grpc.Channel) -> None:
    def tell(name: str, /, **asked: Any) -> Any:
        return method(channel, name, f"{name}Response")(kind(f"inference.{name}Request")(**asked))

    assert tell("ServerLive").live
    assert tell("ServerReady").ready
    assert tell("ModelReady", name="grid").ready and tell("ModelReady", name="grid", version="1").ready
    assert not tell("ModelReady", name="none").ready and not tell("ModelReady", name="grid", version="9").ready
    about = tell("ServerMetadata")
    assert about.name == "modelyard" and "binary_tensor_data" in about.extensions
    model = tell("ModelMetadata", name="grid")
    assert [(each.name, each.datatype, list(each.shape)) for each in model.inputs] == [("X", "FP32", [-1, 4])]
    assert model.outputs[1].parameters["classes"].string_param == "[0, 1]"
    assert tell("ModelMetadata", name="line").inputs[2].parameters["nullable"].bool_param
    assert {(each.name, each.version, each.state) for each in tell("RepositoryIndex").models} >= {("grid", "1", "READY"), ("shop", "1", "READY")}
    separate = method(channel, "/inference.model_repository.ModelRepositoryService/RepositoryIndex", "RepositoryIndexResponse")
    assert separate(kind("inference.RepositoryIndexRequest")()).models


@pytest.mark.system
def test_an_inference_and_its_id(channel: grpc.Channel) -> None:
    infer = method(channel, "ModelInfer", "ModelInferResponse")
    answer, call = infer.with_call(grid(3))
    assert (answer.model_name, answer.model_version) == ("grid", "1")
    assert np.frombuffer(answer.raw_output_contents[1], np.float32).reshape(3, 2).sum(axis=1) == pytest.approx([1, 1, 1])
    metadata = dict(call.initial_metadata())
    assert metadata["x-prediction-id"] == answer.id
    assert infer(grid(id="mine")).id == "mine"
    strings = b"\5\0\0\0paris"
    shop = infer(ask("shop", ("city", "BYTES", [1, 1], strings), ("size", "FP64", [1, 1], np.array([3.0]).tobytes())))
    assert np.frombuffer(shop.raw_output_contents[0]) == [6.0]


@pytest.mark.system
@pytest.mark.parametrize(
    ("message", "code", "code_name"),
    [
        (ask("none"), grpc.StatusCode.NOT_FOUND, "not_found"),
        (grid(model_version="7"), grpc.StatusCode.NOT_FOUND, "not_found"),
        (ask("grid"), grpc.StatusCode.INVALID_ARGUMENT, "schema_mismatch"),
        (ask("grid", ("X", "FP32", [1, 4], np.full(4, np.inf, np.float32).tobytes())), grpc.StatusCode.INVALID_ARGUMENT, "schema_mismatch"),
        (
            ask("shop", ("city", "BYTES", [1, 1], b"\4\0\0\0oslo"), ("size", "FP64", [1, 1], bytes(8))),
            grpc.StatusCode.INVALID_ARGUMENT,
            "schema_mismatch",
        ),
    ],
)
def test_a_refusal_names_field_and_rule(channel: grpc.Channel, message: Any, code: grpc.StatusCode, code_name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        method(channel, "ModelInfer", "ModelInferResponse")(message)
    assert caught.value.code() == code
    metadata = dict(caught.value.trailing_metadata())
    assert metadata["x-error-code"] == code_name
    assert metadata["x-error-field"] and metadata["x-error-rule"]


@pytest.mark.system
def test_unknown_methods_and_loads_are_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        method(channel, "ModelConfig", "ModelInferResponse")(grid())
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        method(channel, "RepositoryModelLoad", "RepositoryModelLoadResponse")(kind("inference.RepositoryModelLoadRequest")(model_name="grid"))
    assert "modelyard deploy" in caught.value.details()


@pytest.mark.system
def test_a_stream_answers_in_order_and_goes_on_behind_an_error(channel: grpc.Channel) -> None:
    talk = method(channel, "ModelStreamInfer", "ModelStreamInferResponse", "stream_stream")
    asked = [grid(id="0"), grid(id="1"), ask("none"), *(grid(id=str(at)) for at in range(3, 200))]
    answers = list(talk(iter(asked)))
    assert [each.infer_response.id for each in answers] == ["0", "1", "", *map(str, range(3, 200))]
    assert "no model" in answers[2].error_message
    held = threading.Event()

    def one_by_one() -> Iterator[Any]:
        yield grid(id="a")
        held.wait(20)
        yield grid(id="b")

    stream = talk(one_by_one())
    assert next(stream).infer_response.id == "a"
    held.set()
    assert next(stream).infer_response.id == "b"


@pytest.mark.system
def test_messages_up_to_the_limit_and_not_above(server: Running, channel: grpc.Channel) -> None:
    infer = method(channel, "ModelInfer", "ModelInferResponse")
    rows = 7_000
    answer = infer(grid(rows))
    assert len(answer.raw_output_contents[0]) == rows * 8
    # Several at once share the connection's room.
    with ThreadPoolExecutor(8) as pool:
        padded = grid()
        padded.parameters["pad"].string_param = "x" * (3 << 20)
        assert all(pool.map(lambda _: infer(padded).id, range(24)))
    with pytest.raises(grpc.RpcError) as caught:
        infer(ask("grid", ("X", "FP32", [1 << 18, 4], bytes(5 << 20))))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_message_bytes" in caught.value.details()
    assert infer(grid()).id


@pytest.mark.system
def test_gzip_and_pings_and_fifty_at_once(server: Running) -> None:
    options = [("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)]
    with grpc.insecure_channel(str(server.grpc), options=options, compression=grpc.Compression.Gzip) as channel:
        infer = method(channel, "ModelInfer", "ModelInferResponse")
        with ThreadPoolExecutor(50) as pool:
            ids = set(pool.map(lambda at: infer(grid(1 + at % 7), timeout=30).id, range(500)))
        assert len(ids) == 500
        time.sleep(2.5)  # pings go to and fro
        assert infer(grid(500)).id


@pytest.mark.system
def test_a_deadline_and_a_cancelled_call(server: Running, channel: grpc.Channel) -> None:
    infer = method(channel, "ModelInfer", "ModelInferResponse")
    with pytest.raises(grpc.RpcError) as caught:
        infer(slow(200_000), timeout=0.3)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    future = infer.future(slow(1000))
    future.cancel()
    assert infer(grid()).id
    assert server.is_well()


@pytest.mark.system
def test_health_and_its_watch(server: Running, channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService", "grpc.health.v1.Health"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="none"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="none"))
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    for each in (watch, unknown):
        each.cancel()


@pytest.mark.system
def test_reflection_tells_services_and_files(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "inference.GRPCInferenceService" in database.get_services()
    file = database.FindFileContainingSymbol("inference.GRPCInferenceService.ModelInfer")
    assert {each.name for each in file.service} == {"GRPCInferenceService"}
    assert database.FindFileByName("inference.proto").package == "inference"
    with pytest.raises(KeyError):
        database.FindFileContainingSymbol("none.Such")
    v1 = method(channel, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "grpc.reflection.v1.ServerReflectionResponse", "stream_stream")
    (answer,) = v1(iter([kind("grpc.reflection.v1.ServerReflectionRequest")(list_services="")]))
    assert "grpc.health.v1.Health" in {each.name for each in answer.list_services_response.service}


@pytest.mark.system
def test_keys_are_asked_for_and_health_is_public(tmp_path: Path) -> None:
    home = home_with(tmp_path / "home", "grid")
    (tmp_path / "keys").write_text(hashlib.sha256(b"secret").hexdigest() + " test\n")
    with running(home, "--keys-file", str(tmp_path / "keys")) as server, grpc.insecure_channel(str(server.grpc)) as channel:
        infer = method(channel, "ModelInfer", "ModelInferResponse")
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            with pytest.raises(grpc.RpcError) as caught:
                infer(grid(), metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert infer(grid(), metadata=(("authorization", "Bearer secret"),)).id
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
        more: queue.Queue[Any] = queue.Queue()
        talk = method(channel, "ModelStreamInfer", "ModelStreamInferResponse", "stream_stream")(
            iter(more.get, None), metadata=(("authorization", "Bearer secret"),)
        )
        more.put(grid())
        assert next(talk).infer_response.id
        (tmp_path / "keys").write_text("")
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                infer(grid(), metadata=(("authorization", "Bearer secret"),))
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED
                break
            time.sleep(0.05)
        else:
            raise AssertionError("a revoked key is still taken")
        more.put(grid())  # on the stream that was opened before
        with pytest.raises(grpc.RpcError) as caught:
            next(talk)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.system
def test_a_drain_answers_what_was_asked(tmp_path: Path) -> None:
    home = home_with(tmp_path / "home", "slow", "grid")
    with running(home) as server, grpc.insecure_channel(str(server.grpc)) as channel:
        infer = method(channel, "ModelInfer", "ModelInferResponse")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == 1
        waiting = infer.future(slow(3000))
        infer(grid())
        server.process.terminate()
        assert waiting.result(20).id
        assert server.process.wait(20) == 0
        statuses = []
        with pytest.raises(grpc.RpcError) as caught:
            statuses += [each.status for each in watch]
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.system
def test_a_worker_that_dies_is_replaced_on_the_same_port(server: Running, channel: grpc.Channel) -> None:
    import os
    import signal

    infer = method(channel, "ModelInfer", "ModelInferResponse")
    infer(grid())
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 30
    while True:
        try:
            assert infer(grid(), wait_for_ready=True, timeout=30).id
            break
        except grpc.RpcError as error:  # what was under way at the kill is lost
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() < until


@pytest.mark.system
def test_the_http_port_answers_grpc_too_unless_that_is_off(server: Running, tmp_path: Path) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        infer = method(channel, "ModelInfer", "ModelInferResponse")
        assert infer(grid()).id
        assert server.is_well()
        assert infer(grid()).id
    with running(home_with(tmp_path / "home", "grid"), "--grpc-port", "-1") as off, grpc.insecure_channel(f"127.0.0.1:{off.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            method(channel, "ModelInfer", "ModelInferResponse")(grid(), timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert off.is_well()


@pytest.mark.system
def test_a_taken_port_is_seen_and_gr_pc_can_be_off(tmp_path: Path) -> None:
    import subprocess

    from serving import command

    home: Home = home_with(tmp_path / "home", "grid")
    with running(home) as server:
        other = Home(tmp_path / "other")
        other.write()
        flags = ["--grpc-port", str(server.grpc).rpartition(":")[2]]
        done = subprocess.run([*command(other), *flags], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert "--grpc-port" in done.stderr
    with running(home, "--grpc-port", "-1") as server:
        assert server.grpc is None
        assert server.is_well()
