import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from modelyard.demo import traffic
from modelyard.types import Schema, TensorSpec

SCHEMA = Schema(
    inputs=(
        TensorSpec(name="hour", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="season", datatype="BYTES", shape=(-1, 1)),
    ),
    outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),),
    layout="frame",
    task="regression",
)


class Doubling(BaseHTTPRequestHandler):
    """Answers twice the hour on both wires; refuses hour 13."""

    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(self.path)
        if "instances" in body:
            hour, key = body["instances"][0]["hour"], f"s-{body['instances'][0]['hour']}"
            answer = {"predictions": [2 * hour]}
        else:
            assert [tensor["shape"] for tensor in body["inputs"]] == [[1, 1], [1, 1]]
            hour, key = body["inputs"][0]["data"][0], body["id"]
            answer = {"id": key, "outputs": [{"name": "prediction", "data": [2 * hour]}]}
        content = json.dumps(answer).encode()
        self.send_response(422 if hour == 13 else 200)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-prediction-id", key)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Doubling)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def rows(hours):
    return [(f"c-{hour}", {"hour": hour, "season": "fall", "cnt": 1}) for hour in hours]


def test_each_row_gets_its_own_answer_on_both_wires(server):
    answers = traffic.send(*server.server_address, "bikes", SCHEMA, rows(range(10)), connections=3)
    assert [answers.predictions[key] for key in answers.ids] == [2 * hour for hour in range(10)]
    assert {key[:2] for key in answers.ids} == {"c-", "s-"}
    assert set(server.seen) == {"/v2/models/bikes/infer", "/v1/models/bikes:predict"}
    assert answers.refused == {}
    assert len(answers.latencies_s) == 10


def test_a_refused_row_is_counted_and_has_no_prediction(server):
    answers = traffic.send(*server.server_address, "bikes", SCHEMA, rows([12, 13, 14]), connections=1)
    assert answers.refused == {"422": 1}
    assert answers.ids[1] == ""
    assert len(answers.predictions) == 2


def test_nobody_listening_is_counted_not_raised(server):
    address = server.server_address
    server.server_close()
    answers = traffic.send(*address, "bikes", SCHEMA, rows([1, 2]), connections=2)
    assert sum(answers.refused.values()) == 2
    assert answers.predictions == {}
