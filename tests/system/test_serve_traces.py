"""A real OTLP receiver: what a real server sends it, and what a server does when it does not answer."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from modelyard.protocols.messages import kind
from serving import home_with, line_row, running

pytestmark = pytest.mark.system

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver:
    """OTLP over HTTP, in protobuf. `spans` are those that came; while `hold` is set nothing is answered."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.release = Event()
        self.release.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
                receiver.release.wait(30)
                receiver.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def wait(self, count: int) -> list[Any]:
        until = time.monotonic() + 30
        while len(self.spans) < count and time.monotonic() < until:
            time.sleep(0.05)
        return self.spans


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.release.set()
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


def test_a_request_is_a_server_span_with_its_stages_under_the_callers_trace(tmp_path: Path) -> None:
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=abc", "baggage": "who=canary4711"}
    with receiving() as receiver:
        settings = {"trace_endpoint": receiver.url, "trace_sample_rate": 0.0}
        with running(home_with(tmp_path / "h", "line"), settings=settings) as server:
            asked = server.ask("POST", "/v2/models/line/infer", {"inputs": line_row(), "id": "mine"}, headers=headers)
            assert asked.status == 200 and asked.headers["traceparent"] == headers["traceparent"]
            assert server.infer("line", line_row()).status == 200  # nobody's trace, and the share is none
            unsampled = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
            assert server.ask("POST", "/v2/models/line/infer", {"inputs": line_row()}, headers=unsampled).status == 200
            spans = receiver.wait(5)
            refused = server.ask("POST", "/v1/models/line:predict", {"instances": [{"a": "canary4711"}]}, headers=headers)
            assert refused.status == 400
            receiver.wait(6)
            assert b'modelyard_traces_total{outcome="sent"} 2' in server.ask("GET", "/metrics").body
    root, *stages = spans[:5]
    assert (root.trace_id.hex(), root.parent_span_id.hex(), root.trace_state) == (TRACE, SPAN, "vendor=abc")
    assert (root.name, root.kind) == ("POST /v2/models/{model}/infer", root.SPAN_KIND_SERVER)
    told = attributes(root)
    assert told["http.route"] == "/v2/models/{model}/infer" and told["http.response.status_code"] == 200
    assert told["modelyard.model.name"] == "line" and told["modelyard.prediction.id"] == "mine"
    assert [stage.name for stage in stages] == ["decode", "queue", "predict", "encode"]
    at = root.start_time_unix_nano
    assert abs(at / 1e9 - time.time()) < 120
    for stage in stages:
        assert (stage.trace_id, stage.parent_span_id) == (root.trace_id, root.span_id) and stage.span_id != root.span_id
        assert at <= stage.start_time_unix_nano <= stage.end_time_unix_nano <= root.end_time_unix_nano
        at = stage.end_time_unix_nano
    assert receiver.resources[0]["service.name"] == "modelyard" and receiver.resources[0]["service.instance.id"].endswith("-0")
    assert len({span.span_id for span in receiver.spans}) == len(receiver.spans)
    failed = next(span for span in receiver.spans if attributes(span).get("http.response.status_code") == 400)
    assert attributes(failed)["modelyard.error.code"] == "schema_mismatch" and failed.status.code == 0
    assert "canary" not in str(receiver.spans) and "canary" not in server.log.read_text()


def test_grpc_calls_and_explanations_are_traced_too(tmp_path: Path) -> None:
    context = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=abc"))
    with receiving() as receiver:
        settings = {"trace_endpoint": receiver.url, "trace_sample_rate": 0.0}
        with running(home_with(tmp_path / "h", "line", "grid"), settings=settings) as server, grpc.insecure_channel(str(server.grpc)) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=kind("inference.ModelInferResponse").FromString,
            )
            message = kind("inference.ModelInferRequest")(model_name="grid", id="mine")
            message.inputs.add(name="X", datatype="FP32", shape=[1, 4])
            message.raw_input_contents.append(bytes(16))
            assert infer(message, metadata=context).id == "mine"
            with pytest.raises(grpc.RpcError) as caught:
                infer(kind("inference.ModelInferRequest")(model_name="none"), metadata=context)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            body = {"instances": [[1, 2, 3]]}
            assert server.ask("POST", "/v1/models/line:explain", body, headers=dict(context)).status == 200
            receiver.wait(10)
    roots = {span.name: [] for span in receiver.spans if span.kind == span.SPAN_KIND_SERVER}
    for span in receiver.spans:
        if span.kind == span.SPAN_KIND_SERVER:
            assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, SPAN, "vendor=abc")
            roots[span.name].append(span)
    answered, refused = sorted(roots["inference.GRPCInferenceService/ModelInfer"], key=lambda span: attributes(span)["rpc.grpc.status_code"])
    assert attributes(answered)["rpc.method"] == "ModelInfer" and attributes(answered)["modelyard.prediction.id"] == "mine"
    assert (attributes(refused)["rpc.grpc.status_code"], refused.status.code) == (5, 0)
    (explained,) = roots["POST /v1/models/{model}:explain"]
    stages = [span.name for span in receiver.spans if span.parent_span_id == explained.span_id]
    assert stages == ["decode", "queue", "explain"]


def test_a_receiver_that_does_not_answer_costs_traces_and_no_request(tmp_path: Path) -> None:
    with receiving() as receiver:
        receiver.release.clear()
        settings = {"trace_endpoint": receiver.url, "trace_sample_rate": 1.0}
        with running(home_with(tmp_path / "h", "line"), settings=settings) as server:
            body = b"".join(one_request(number) for number in range(2500))
            answers = server.send(body)
            assert len(answers) == 2500 and {answer.status for answer in answers} == {200}
            metrics = server.ask("GET", "/metrics").body.decode()
            (dropped,) = (line for line in metrics.splitlines() if line.startswith('modelyard_traces_total{outcome="dropped"}'))
            assert float(dropped.split()[-1]) > 0
        assert server.process.returncode == 0


def test_nobody_at_the_endpoint_is_counted_too(tmp_path: Path) -> None:
    settings = {"trace_endpoint": "http://127.0.0.1:9", "trace_sample_rate": 1.0}
    with running(home_with(tmp_path / "h", "line"), settings=settings) as server:
        assert server.infer("line", line_row()).status == 200
    assert server.process.returncode == 0


def one_request(number: int) -> bytes:
    body = b'{"instances":[[1,2,3]]}'
    head = b"POST /v1/models/line:predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return head + (b"Connection: close\r\n\r\n" if number == 2499 else b"\r\n") + body
