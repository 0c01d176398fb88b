"""Several versions of one deployment behind real sockets: who answers is said on every wire, and requests with one value stay with one version."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from modelyard import events
from modelyard.events import Mirror
from modelyard.monitor.labels import Ledger, answers
from modelyard.monitor.log import PredictionLog
from modelyard.monitor.windows import Windows
from modelyard.protocols.messages import kind
from modelyard.serve.router import Router
from modelyard.types import TrafficPlan
from serving import Home, Running, line_row, read_answer, running, tensor

GOLDEN = Path(__file__).parents[1] / "golden"
REQUESTS = {path.name.removesuffix(".request.http"): path.read_bytes() for path in sorted((GOLDEN / "wires").glob("*.request.http"))}
MESSAGES = {path.name.removesuffix(".request.pb"): path.read_bytes() for path in sorted((GOLDEN / "messages").glob("*.request.pb"))}
VERTEX = {"vertex_predict_route": "/v1/endpoints/1/deployedModels/2:predict", "vertex_health_route": "/v1/endpoints/1/deployedModels/2"}
OFFSETS = {"line": 1000.0, "shop": 1000.0, "grid": 100.0, "half": 8.0}
METHODS = {
    "triton": "/inference.GRPCInferenceService/ModelInfer",
    "kserve": "/inference.GRPCInferenceService/ModelInfer",
    "tensorflow-predict": "/tensorflow.serving.PredictionService/Predict",
    "tensorflow-classify": "/tensorflow.serving.PredictionService/Classify",
}
ANSWERS = {
    "ModelInfer": "inference.ModelInferResponse",
    "Predict": "tensorflow.serving.PredictResponse",
    "Classify": "tensorflow.serving.ClassificationResponse",
}
TURNS = 24

pytestmark = pytest.mark.system


def model_of(request: bytes) -> str:
    """The kind of model that a recorded request is for; `line` where its path names none."""
    found = re.match(rb"\w+ /(?:v[12]/)?models/(\w+)", request)
    return found[1].decode() if found else "line"


def two_versions(folder: Path, model: str, **more: Any) -> tuple[Home, list[Any]]:
    home = Home(folder / "h")
    versions = [home.add(model, offset=offset) for offset in (0.0, OFFSETS[model])]
    home.deploy(model, dict.fromkeys(versions, 50), **more)
    return home, versions


@pytest.fixture(scope="module", params=OFFSETS)
def halves(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    """A kind of model, and a server on which two versions of it answer half of the requests each."""
    home, _ = two_versions(tmp_path_factory.mktemp("halves"), request.param)
    with running(home, settings=VERTEX) as server:
        yield request.param, server


def test_every_http_answer_names_who_gave_it(halves: tuple[str, Running]) -> None:
    model, server = halves
    for case, recorded in REQUESTS.items():
        if model_of(recorded) != model:
            continue
        request = re.sub(rb"\r\nHost: [^\r]*", b"\r\nHost: 127.0.0.1:%d" % server.port, recorded)
        bodies: dict[str, set[bytes]] = defaultdict(set)
        with server.connect() as connection, connection.makefile("rb") as stream:
            for _ in range(TURNS):
                connection.sendall(request)
                answer = read_answer(stream)
                assert answer is not None
                assert answer.status == 200, (case, answer)
                assert answer.headers["x-model-name"] == model
                version = answer.headers["x-model-version"]
                bodies[version].add(re.sub(rb'"id":"[^"]*"', b"", answer.body))
                if answer.body.startswith(b'{"model_name"'):
                    assert f'"model_version":"{version}"'.encode() in answer.body
        assert all(len(each) == 1 for each in bodies.values()), (case, bodies)
        assert len(set.union(*bodies.values())) == len(bodies), (case, bodies)
        assert set(bodies) == ({"1"} if "/versions/1" in recorded.decode("latin-1").partition("\r\n")[0] else {"1", "2"}), case


def test_every_grpc_answer_names_who_gave_it(halves: tuple[str, Running]) -> None:
    model, server = halves
    with grpc.insecure_channel(str(server.grpc)) as channel:
        for case, recorded in MESSAGES.items():
            if not case.endswith(model):
                continue
            path = next(path for client, path in METHODS.items() if case.startswith(client))
            ask = channel.unary_unary(path, response_deserializer=kind(ANSWERS[path.rpartition("/")[2]]).FromString)
            bodies: dict[str, set[bytes]] = defaultdict(set)
            for _ in range(TURNS):
                answer, call = ask.with_call(recorded)
                metadata = dict(call.initial_metadata())
                version = metadata["x-model-version"]
                assert metadata["x-model-name"] == model
                if path.endswith("ModelInfer"):
                    assert (answer.model_name, answer.model_version) == (model, version)
                    answer.id = ""
                else:
                    assert (answer.model_spec.name, str(answer.model_spec.version.value)) == (model, version)
                answer.ClearField("model_version") if path.endswith("ModelInfer") else answer.ClearField("model_spec")
                bodies[version].add(answer.SerializeToString(deterministic=True))
            assert {version: len(each) for version, each in bodies.items()} == {"1": 1, "2": 1}, case
            assert bodies["1"] != bodies["2"], case


def test_explanations_refusals_and_streams_name_it_too(tmp_path: Path) -> None:
    home, _ = two_versions(tmp_path, "line")
    with running(home) as server:
        explained = [server.ask("POST", "/v1/models/line:explain", {"instances": [{"a": 1.0, "b": 2, "c": 3.0}]}) for _ in range(12)]
        assert {answer.headers["x-model-version"] for answer in explained} == {"1", "2"}
        refused = server.infer("line", [tensor("a", [1.0])])
        assert refused.status == 400
        assert refused.headers["x-model-name"] == "line"
        with grpc.insecure_channel(str(server.grpc)) as channel:
            stream = channel.stream_stream(
                "/inference.GRPCInferenceService/ModelStreamInfer", response_deserializer=kind("inference.ModelStreamInferResponse").FromString
            )
            answers = [each.infer_response for each in stream(iter([grpc_line()] * TURNS))]
        assert {each.model_version for each in answers} == {"1", "2"}
        for each in answers:
            assert float(np.frombuffer(each.raw_output_contents[0])[0]) == (321.0 if each.model_version == "1" else 1321.0)


def grpc_line(a: float = 1.0) -> bytes:
    message = kind("inference.ModelInferRequest")(model_name="line")
    for name, datatype, value in (("a", "FP64", np.float64(a)), ("b", "INT64", np.int64(2)), ("c", "FP32", np.float32(3))):
        message.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        message.raw_input_contents.append(value.tobytes())
    data: bytes = message.SerializeToString()
    return data


def asked_in_every_way(server: Running, channel: grpc.Channel, *, a: float = 1.0, user: str = "") -> list[str]:
    """The versions that answered one question, over several wires and routes, each on a connection of its own."""
    given = {"x-user": user} if user else {}
    rest = [
        server.ask("POST", "/v2/models/line/infer", {"inputs": line_row(a=a)}, headers=given),
        server.ask("POST", "/v2/models/line/infer", {"inputs": [tensor("a", [a], "FP32"), *line_row()[1:]]}, headers=given),
        server.ask("POST", "/v1/models/line:predict", {"instances": [{"a": a, "b": 2, "c": 3.0}, {"a": -7.0, "b": 2, "c": 3.0}]}, headers=given),
        server.ask("POST", "/invocations", {"inputs": {"a": [a], "b": [2], "c": [3.0]}}, headers=given),
        server.ask("POST", "/invocations", f"a,b,c\n{a},2,3.0\n".encode(), headers={**given, "Content-Type": "text/csv"}),
    ]
    ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", response_deserializer=kind("inference.ModelInferResponse").FromString)
    return [answer.headers["x-model-version"] for answer in rest] + [ask(grpc_line(a), metadata=tuple(given.items())).model_version]


def test_requests_with_one_header_stay_with_one_version_on_every_wire_worker_and_host(tmp_path: Path) -> None:
    found = []
    for host in ("one", "other"):
        home, _ = two_versions(tmp_path / host, "line", sticky="header:X-User")
        with running(home, workers=2) as server, grpc.insecure_channel(str(server.grpc)) as channel:
            by_user = {
                user: Counter(asked_in_every_way(server, channel, user=user)) for user in ("ada", "bob", "eve", "kim", "lin", "max", "ned", "zoe")
            }
            assert all(len(versions) == 1 for versions in by_user.values()), by_user
            found.append({user: next(iter(versions)) for user, versions in by_user.items()})
            assert len(set(asked_in_every_way(server, channel) + asked_in_every_way(server, channel))) == 2, "without the header nobody stays"
    assert found[0] == found[1]
    assert set(found[0].values()) == {"1", "2"}


def test_requests_with_one_value_of_a_field_stay_with_one_version_on_every_wire(tmp_path: Path) -> None:
    home, versions = two_versions(tmp_path, "line", sticky="field:a")
    with running(home, workers=2) as server, grpc.insecure_channel(str(server.grpc)) as channel:
        by_value = {a: set(asked_in_every_way(server, channel, a=a)) for a in (0.5, 1.0, 2.0, 3.0, 4.25, 5.0, 6.0, 7.0)}
        assert all(len(found) == 1 for found in by_value.values()), by_value
        assert set.union(*by_value.values()) == {"1", "2"}
        named = server.ask("POST", f"/v2/models/line/versions/{versions[1][1]}/infer", json.dumps({"inputs": line_row(a=1.0)}).encode())
        assert named.headers["x-model-version"] == "2", "who names a version gets it"


def test_a_shadow_is_asked_what_the_champion_answered_and_answers_nobody(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    old, new = (home.add("line", offset=offset) for offset in (0.0, 1000.0))
    home.deploy("line", {old: 100}, shadows={new: 1.0}, champion=old[0])
    windows = Windows(tmp_path / "windows.sqlite")
    with running(home, "--spool", str(tmp_path / "spool")) as server:
        for number in range(30):
            answer = server.infer("line", line_row(a=float(number)))
            assert answer.headers["x-model-version"] == "1"
            assert answer.json()["outputs"][0]["data"] == [320.0 + number]
        until = time.monotonic() + 20
        while True:
            segments = {path.name: events.read(path) for path in events.pending(tmp_path / "spool")}
            windows.take(segments, day_of=lambda at: "1970-01-01")
            seen = windows.evidence("line", 1)
            mirror = seen[new[0]].mirror if new[0] in seen else Mirror()
            if mirror.sent + mirror.shed == 30 or time.monotonic() > until:
                break
            time.sleep(0.1)
        assert (mirror.sent + mirror.shed, mirror.failed) == (30, 0)
        assert mirror.sent > 0
        assert mirror.rows == mirror.disagreed == mirror.sent
        assert (seen[old[0]].requests, seen[new[0]].requests) == (30, 0)
        assert sum(seen[old[0]].outputs["prediction"]) == 30
        metrics = server.ask("GET", "/metrics").body.decode()
        assert f'modelyard_mirrored_requests_total{{model_name="line",model_version="2",outcome="answered"}} {mirror.sent}\n' in metrics
        assert f'modelyard_mirrored_rows_total{{model_name="line",model_version="2",outcome="disagreed"}} {mirror.rows}\n' in metrics
    windows.close()


@pytest.mark.parametrize("sticky", ["header:X-User", "field:a"])
def test_where_callers_stay_their_groups_are_counted_and_their_labels_find_them(tmp_path: Path, sticky: str) -> None:
    """All that a caller asks and fails counts under one group, of the version that it was given; so do its labels."""
    home, versions = two_versions(tmp_path, "line", sticky=sticky)
    router = Router(TrafficPlan(name="line", generation=1, weights={digest: 50 for digest, _ in versions}, versions=dict(versions), sticky=sticky))
    windows, log, ledger = Windows(tmp_path / "windows.sqlite"), PredictionLog(tmp_path / "log"), Ledger(tmp_path / "labels.sqlite")
    expected: dict[str, Counter[int]] = {digest: Counter() for digest, _ in versions}
    owned: dict[str, int] = {}
    by_version = {str(version): digest for digest, version in versions}
    with running(home, "--spool", str(tmp_path / "spool")) as server:
        for user in range(12):
            group = router.place(b"%d" % user)[1]
            for turn in range(user % 3 + 1):
                body = json.dumps({"id": f"{user}-{turn}", "inputs": line_row(a=float(user))}).encode()
                answer = server.ask("POST", "/v2/models/line/infer", body, headers={"X-User": str(user)})
                expected[by_version[answer.headers["x-model-version"]]][group] += 1
                owned[f"{user}-{turn}"] = group
        until = time.monotonic() + 20
        while True:
            windows.take({path.name: events.read(path) for path in events.pending(tmp_path / "spool")}, day_of=lambda at: "1970-01-01")
            seen = windows.evidence("line", 1)
            if sum(each.requests for each in seen.values()) == len(owned) or time.monotonic() > until:
                break
            time.sleep(0.1)
    assert {digest: each.callers.asked for digest, each in seen.items()} == {digest: dict(counts) for digest, counts in expected.items() if counts}
    assert not any(each.callers.failed for each in seen.values())
    for group in windows.staged(limit_bytes=1 << 20):
        log.write(group)
        windows.written(group)
    ledger.give("line", [(key, 1.0) for key in owned], at=time.time())
    found = answers(ledger, log, windows, "line", since=0.0, now=time.time())
    assert sorted(group for each in found.values() for group in each.groups.tolist()) == sorted(owned.values())
    for store in (windows, ledger):
        store.close()
