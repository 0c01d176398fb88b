"""Fault 28: 10,000 fuzzed bodies over every HTTP wire, what reading a body may take, and keys that stand twice."""

from __future__ import annotations

import json
from collections.abc import Iterator

import fuzzing
import pytest
from fuzzing import ARROW, VERTEX, Good, fuzz, goods, growth, judge, large_binary, large_json

from modelyard.protocols import bind
from modelyard.protocols.arrow_ipc import UNPACKED_BYTES
from modelyard.types import Schema, TensorSpec
from serving import LINE, Answer, Running, home_with, running

pytestmark = pytest.mark.system
MIB = 1 << 20


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid")) as server:
        yield server


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line"), settings={"vertex_predict_route": VERTEX}) as server:
        yield server


def server_of(request: pytest.FixtureRequest, is_single: bool) -> Running:
    server: Running = request.getfixturevalue("single" if is_single else "several")
    return server


@pytest.mark.parametrize("is_single", [False, True])
def test_what_the_fuzz_begins_with_is_good(request: pytest.FixtureRequest, is_single: bool) -> None:
    server = server_of(request, is_single)
    for good in goods(is_single=is_single):
        headers = {"Content-Type": good.media} if good.media else {}
        if good.json_bytes is not None:
            headers["Inference-Header-Content-Length"] = str(good.json_bytes)
        answer = server.ask(good.method, good.path, good.body if good.method == "POST" else None, headers=headers)
        assert answer.status == 200, (good, answer)


@pytest.mark.parametrize(("is_single", "count"), [(False, 7000), (True, 3000)])
def test_whatever_comes_is_answered_or_refused_by_field_and_rule(request: pytest.FixtureRequest, is_single: bool, count: int) -> None:
    server = server_of(request, is_single)
    workers = server.workers()
    report = fuzz(server, count, is_single=is_single)
    assert report.faults == [], report.faults[:5]
    assert report.cases == sum(report.statuses.values()) == count
    assert set(report.refused) == {good.wire for good in goods(is_single=is_single)}
    assert sum(report.refused.values()) > count / 2  # the fuzz is one
    assert server.workers() == workers
    assert server.is_well()


def test_the_judge_finds_what_must_not_be() -> None:
    """The negative control: each kind of wrong answer is seen."""
    good = Good("mlflow", "/invocations", b"{}")

    def said(status: int, media: str, body: bytes) -> str:
        return judge(good, Answer(status, {"content-type": media}, body))

    assert "status" in said(500, "application/json", b"{}")
    assert "status" in said(429, "application/json", b"{}")
    assert "echo" in said(400, "application/json", b'{"message": "canary4711"}')
    assert "field" in said(400, "application/json", b'{"error_code": "B", "message": "m", "rule": "r"}')
    assert "another" in said(400, "application/json", b'{"error": "m", "code": "c", "rule": "r", "field": "f"}')
    assert "no JSON" in said(400, "application/json", b"<html>")
    assert "plain" in said(400, "text/plain; charset=utf-8", b"x")
    assert not said(400, "application/json", b'{"error_code": "B", "message": "m", "rule": "r", "field": "f"}')


JSON_WIRES = ("oip_v2", "v1_predict", "v1_explain", "tf_regress", "mlflow")  # the others read as these do


@pytest.mark.parametrize("wire", [*JSON_WIRES, "json_lines"])
def test_reading_json_takes_a_bounded_multiple(wire: str) -> None:
    codec = bind("line", LINE)[wire]
    media = "application/jsonlines" if wire == "json_lines" else "application/json"
    for name, body in large_json(MIB).items():  # a quarter of what may come, and of what is allowed beside the multiple
        taken = growth(lambda body: codec.decode(body, media), body)
        assert taken <= 25 * len(body) + 4 * MIB, (name, taken / len(body))


def test_reading_csv_takes_a_bounded_multiple() -> None:
    codec = bind("line", LINE)["csv"]
    bodies = {"rows": b"a,b,c\n" + b"1,2,3\n" * 65_000, "commas": b"a,b,c\n" + b"," * MIB, "quoted": b"a,b,c\n" + b'"1","2",""\n' * 65_000}
    for name, body in {**bodies, "empty lines": b"a,b,c\n" + b"\n" * MIB, "one cell": b'a,b,c\n"' + b"x" * MIB}.items():
        taken = growth(lambda body: codec.decode(body, "text/csv"), body)
        assert taken <= 25 * len(body) + 4 * MIB, (name, taken / len(body))


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT64", "BYTES"])
def test_reading_binary_takes_at_most_twice_its_size(datatype: str) -> None:
    spec = TensorSpec(name="x", datatype=datatype, shape=(-1, 1))  # type: ignore[arg-type]
    codecs = bind("m", Schema(inputs=(spec,), outputs=LINE.outputs, layout="frame", task="other"))
    for name, (body, json_bytes) in large_binary(16 * MIB).items():
        codec, media = (codecs["arrow"], ARROW) if json_bytes is None else (codecs["oip_v2"], "application/octet-stream")
        taken = growth(lambda body: codec.decode(body, media, json_bytes), body)  # noqa: B023
        size = UNPACKED_BYTES if name == "arrow packed" else len(body)  # as for a coded body, what it unpacks to counts
        assert taken <= 2 * size + 16 * MIB, (name, taken / size)


def test_growth_sees_what_is_held() -> None:
    """The negative control of the measure."""
    assert growth(lambda body: [bytes(body) for _ in range(4)] and [bytearray(body) for _ in range(4)], bytes(MIB)) > 4 * MIB


def test_of_duplicate_keys_the_last_wins_on_every_wire(several: Running, single: Running) -> None:
    wrong, right = [[5.0, 2, 3.0]], [[1.0, 2, 3.0]]
    for server, path, key in (
        (several, "/v1/models/line:predict", "instances"),
        (several, "/models/line/invoke", "instances"),
        (single, "/invocations", "dataframe_records"),
        (single, VERTEX, "instances"),
        (single, "/score", "data"),
    ):
        values = [[{"a": 5.0, "b": 2, "c": 3.0}], [{"a": 1.0, "b": 2, "c": 3.0}]] if key == "dataframe_records" else [wrong, right]
        body = f'{{"{key}": {json.dumps(values[0])}, "{key}": {json.dumps(values[1])}}}'.encode()
        said = server.ask("POST", path, body).json()
        assert (said if path == "/score" else said["predictions"]) == [321.0], path
    inputs = '"inputs": {"a": [1.0], "a": [1.0], "b": [2], "c": [9], "c": [3]}'
    assert several.ask("POST", "/v1/models/line:predict", f"{{{inputs}}}".encode()).json() == {"outputs": [321.0]}
    examples = b'{"examples": [{"a": 5, "b": 2, "c": 3, "a": 1}]}'
    assert several.ask("POST", "/v1/models/line:regress", examples).json() == {"results": [321.0]}
    lines = b'{"a": 5, "b": 2, "c": 3, "a": 1}\n'
    answer = single.ask("POST", "/invocations", lines, headers={"Content-Type": "application/jsonlines"})
    assert answer.json() == {"predictions": [321.0]}


def test_the_generator_is_the_same_every_time() -> None:
    first, second = ([request for _, request in fuzzing.cases(goods(is_single=False), 50, 1)] for _ in range(2))
    assert first == second
