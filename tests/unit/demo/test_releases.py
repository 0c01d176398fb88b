import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pandas as pd
import pytest

from modelyard.demo import bikes, releases
from modelyard.errors import DeadlineExceeded
from modelyard.types import Schema, TensorSpec

SCHEMA = Schema(
    inputs=tuple(TensorSpec(name=name, datatype="INT64", shape=(-1, 1)) for name in bikes.FEATURES),
    outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),),
    layout="frame",
    task="regression",
)
HOURS = pd.DataFrame({name: range(8) for name in (*bikes.FEATURES, bikes.TARGET)})


def seen(weight, *, last=None, is_moving=True):
    deployment = {"name": bikes.NAME, **({"rollout": {}} if is_moving else {}), **({"last": last} if last else {})}
    return {"deployments": [{"deployment": deployment, "serving": [{"version": 1, "weight": 100 - weight}, {"version": 2, "weight": weight}]}]}


def ended(version, outcome):
    return {"goal": {"version": version}, "verdict": {"outcome": outcome, "evidence": "so it was"}}


class Told:
    """A world whose status says one thing after the other, and its history the steps of version 2."""

    def __init__(self, *said, steps=()):
        self.said = list(said)
        self.steps = [{"what": "step", "version": 1, "weight": 100}, {"what": "deploy", "version": 2, "weight": 0}]
        self.steps += [{"what": "step", "version": 2, "weight": weight} for weight in steps]
        self.asked = []

    def verb(self, *arguments):
        self.asked.append(arguments)
        if arguments[0] == "history":
            return self.steps
        if arguments[0] != "status":
            return {}
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(releases, "POLL_S", 0.0)
    monkeypatch.setattr(releases, "STEP_S", 0.2)


def test_the_weights_are_those_of_the_history_however_seldom_somebody_looked():
    before = ended(1, "pass")
    told = Told(seen(0, last=before), seen(10, last=before), seen(0, is_moving=False, last=ended(2, "pass")), steps=(10, 50, 100))
    weights, last = releases._followed(told, 2, lambda *_: None)
    assert weights == (10, 50, 100)
    assert last["verdict"]["outcome"] == "pass"


def test_what_went_back_never_had_everything():
    weights, last = releases._followed(Told(seen(10), seen(0, is_moving=False, last=ended(2, "fail")), steps=(10,)), 2, lambda *_: None)
    assert weights == (10,)
    assert last["verdict"]["evidence"] == "so it was"


def test_a_rollout_that_does_not_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(releases, "LIMIT_S", 0.05)
    with pytest.raises(DeadlineExceeded):
        releases._followed(Told(seen(10)), 2, lambda *_: None)


class Answering(BaseHTTPRequestHandler):
    """Version 2 answers each hour rightly, version 1 is off by ten; hour 7 is refused."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        hour = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"][0]["hour"]
        version = 1 + hour % 2
        content = json.dumps({"predictions": [hour if version == 2 else hour + 10]}).encode()
        self.send_response(503 if hour == 7 else 200)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-model-version", str(version))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def world():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    told = Told(seen(10), seen(0, is_moving=False, last=ended(2, "fail")), steps=(10,))
    told.settings = SimpleNamespace(host="127.0.0.1", port=server.server_address[1])
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def test_answers_are_counted_by_who_gave_them_and_failures_by_reason(world):
    asking = releases.Asking(world, SCHEMA, HOURS)
    with asking:
        until = time.monotonic() + 20
        while time.monotonic() < until and not (asking.failed and len(asking.errors) == 2):
            time.sleep(0.01)
    assert set(asking.errors) == {1, 2}
    assert set(asking.errors[1]) == {10.0} and set(asking.errors[2]) == {0.0}
    assert set(asking.failed) == {"HTTP 503"}


def test_a_release_says_what_became_of_it(world):
    found = releases.release(world, "bikes:2", releases.Asking(world, SCHEMA, HOURS), guards=("error_rate<1%",), tell=lambda *_: None)
    deploy = next(asked for asked in world.asked if asked[0] == "deploy")
    assert deploy[1] == "bikes:2" and deploy[deploy.index("--guard") + 1] == "error_rate<1%"
    assert (found.version, found.is_live, found.weights, found.why) == (2, False, (10,), "so it was")
    assert found.answered[1] > 0 < found.answered[2]
    assert found.errors == {1: 10.0, 2: 0.0}
    assert found.failed > 0
