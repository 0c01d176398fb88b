"""What bad input gets: 4xx with field and rule, no data echoed, and the server well afterwards; good neighbours in the same batch are answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving import Running, home_with, line_row, running, tensor

pytestmark = pytest.mark.system
CANARY = "canary4711"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home_with(tmp_path_factory.mktemp("home") / "h", "line", "shop", "grid")) as server:
        yield server


@pytest.fixture(autouse=True)
def still_well(server: Running) -> Iterator[None]:
    before = server.workers()
    yield
    assert server.infer("line", line_row()).status == 200
    assert server.workers() == before


def x(values: Any, shape: list[int], datatype: str = "FP32") -> list[dict[str, Any]]:
    return [{"name": "X", "shape": shape, "datatype": datatype, "data": values}]


A, B, C = tensor("a", [1.0]), tensor("b", [2], "INT64"), tensor("c", [3.0], "FP32")
MISFITS: dict[str, tuple[str, Any, str, str]] = {
    "a missing field": ("line", [A, B], "c", "required"),
    "an extra field": ("line", [A, B, C, tensor(CANARY, [1.0])], "inputs", "unknown_input"),
    "a field twice": ("line", [A, B, C, A], "a", "unique"),
    "text for a number": ("line", line_row(a=CANARY), "a", "type"),
    "a flag for a number": ("line", line_row(a=True), "a", "type"),
    "a flag for an integer": ("line", line_row(b=True), "b", "type"),
    "a fraction for an integer": ("line", line_row(b=2.5), "b", "integral"),
    "an integer beyond 64 bits": ("line", line_row(b=2**63), "b", "range"),
    "an object for a number": ("line", line_row(a={CANARY: 1}), "a", "type"),
    "null where nothing may be missing": ("line", line_row(a=None), "a", "nullable"),
    "null for an integer": ("line", line_row(b=None), "b", "nullable"),
    "a number beyond FP32": ("line", line_row(c=1e39), "c", "finite"),
    "no such datatype": ("line", [tensor("a", [1.0], CANARY), B, C], "a", "datatype"),
    "a string datatype": ("line", [tensor("a", [1.0], "BYTES"), B, C], "a", "datatype"),
    "half floats in JSON": ("line", [tensor("a", [1.0], "FP16"), B, C], "a", "datatype"),
    "fractions under an integer datatype": ("line", [tensor("a", [1.5], "INT32"), B, C], "a", "datatype"),
    "fewer values than the shape": ("line", [tensor("a", [1.0], shape=[2, 1]), B, C], "a", "size"),
    "another width": ("line", [tensor("a", [1.0, 2.0], shape=[1, 2]), B, C], "a", "shape"),
    "another rank": ("line", [tensor("a", [1.0], shape=[1, 1, 1]), B, C], "a", "shape"),
    "no rows": ("line", [tensor("a", [], shape=[0, 1]), B, C], "a", "shape"),
    "a negative size": ("line", [tensor("a", [1.0], shape=[-1, 1]), B, C], "a", "shape"),
    "other row counts": ("line", [tensor("a", [1.0, 2.0]), B, C], "b", "rows"),
    "nothing": ("line", [], "a", "required"),
    "an unknown category": ("shop", [tensor("city", [CANARY], "BYTES"), tensor("size", [1.0])], "city", "category"),
    "a number for a category": ("shop", [tensor("city", [4711], "BYTES"), tensor("size", [1.0])], "city", "type"),
    "null for a category": ("shop", [tensor("city", [None], "BYTES"), tensor("size", [1.0])], "city", "nullable"),
    "sizes whose product overflows": ("grid", x([1.0], [16, 2**60 + 2]), "X", "shape"),
    "a long shape": ("grid", x([1.0], [1] * 100_000), "X", "shape"),
    "huge and wanting values": ("grid", x([1.0], [2**40, 4]), "X", "size"),
    "ragged rows": ("grid", x([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]], [2, 4]), "X", "shape"),
    "nested too deep": ("grid", x([[[1.0], [2.0], [3.0], [4.0]]], [1, 4]), "X", "type"),
    "a matrix of another width": ("line", x([1.0, 2.0], [1, 2]), "X", "shape"),
    "a matrix with text": ("line", x([1.0, 2, CANARY], [1, 3]), "X", "type"),
    "a matrix with a fraction for an integer": ("line", x([1.0, 2.5, 3.0], [1, 3]), "b", "integral"),
}


@pytest.mark.parametrize(("name", "inputs", "field", "rule"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_the_schema_is_refused_by_field_and_rule(server: Running, name: str, inputs: Any, field: str, rule: str) -> None:
    answer = server.infer(name, inputs)
    assert answer.status == 400, answer
    report = answer.json()
    assert (report["field"], report["rule"]) == (field, rule), report
    assert CANARY not in answer.body.decode()
    assert "4711" not in answer.body.decode()


def test_the_same_rules_hold_on_the_other_wires(server: Running) -> None:
    for instances in (
        [[1.0, 2]],
        [[1.0, 2, 3.0, 4.0]],
        [{"a": 1.0, "b": 2}],
        [{"a": 1, "b": 2, "c": 3, CANARY: 4}],
        [[CANARY, 2, 3.0]],
        [],
        [[]],
        [1.0],
        [{}],
    ):
        answer = server.predict("line", instances)
        assert answer.status == 400, (instances, answer)
        assert answer.json()["field"]
        assert answer.json()["rule"]
        assert CANARY not in answer.body.decode()


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"inputs": [',
    "NaN": json.dumps({"inputs": line_row(a=float("nan"))}).encode(),
    "Infinity": json.dumps({"inputs": line_row(a=float("inf"))}).encode(),
    "an exponent too large": json.dumps({"inputs": line_row()}).replace("[1.0]", "[1e999]").encode(),
    "5,000 digits": json.dumps({"inputs": line_row()}).replace("[1.0]", "[" + "9" * 5000 + "]").encode(),
    "a lone surrogate": b'{"id": "\\ud800", "inputs": []}',
    "an escaped half pair": b'{"id": "\\udc00x", "inputs": []}',
    "bad UTF-8": b'{"id": "\xff", "inputs": []}',
    "surrogates in UTF-8": b'{"id": "\xed\xa0\x80", "inputs": []}',
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps({"inputs": line_row()}).encode(),
    "a NUL": b'{"inputs": []}\x00',
    "a control character": b'{"id": "\x01", "inputs": []}',
    "depth": b"[" * 250_000,
    "closed depth": b"[" * 100_000 + b"]" * 100_000,
    "depth in data": b'{"inputs":[{"name":"a","shape":[1,1],"datatype":"FP64","data":' + b"[" * 60_000 + b"]" * 60_000 + b"}]}",
    "depth 120 in data": b'{"inputs":[{"name":"a","shape":[1,1],"datatype":"FP64","data":' + b"[" * 120 + b"]" * 120 + b"}]}",
    "a list": b"[]",
    "a number": b"4711",
    "comments": b'{"inputs": [] /* ' + CANARY.encode() + b" */}",
    "single quotes": b"{'inputs': []}",
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94",
    "inputs that are no list": b'{"inputs": {"a": 1}}',
    "a name that is no text": b'{"inputs": [{"name": 1, "shape": [1], "datatype": "FP64", "data": [1]}]}',
    "a shape of fractions": b'{"inputs": [{"name": "a", "shape": [1.5], "datatype": "FP64", "data": [1]}]}',
    "a shape of flags": b'{"inputs": [{"name": "a", "shape": [true], "datatype": "FP64", "data": [1]}]}',
    "a huge size": b'{"inputs": [{"name": "a", "shape": [99999999999999999999], "datatype": "FP64", "data": [1]}]}',
    "an unknown output": json.dumps({"inputs": line_row(), "outputs": [{"name": CANARY}]}).encode(),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("path", ["/v2/models/line/infer", "/v1/models/line:predict"])
def test_what_is_no_message_is_refused_without_echo(server: Running, path: str, body: bytes) -> None:
    answer = server.ask("POST", path, body)
    assert answer.status == 400, answer
    assert answer.json()["rule"]
    assert CANARY not in answer.body.decode()
    assert "4711" not in answer.body.decode()


def test_of_duplicate_keys_the_last_wins_on_every_wire(server: Running) -> None:
    v2 = json.dumps({"inputs": line_row(a=5.0)})[:-1] + ', "inputs": ' + json.dumps(line_row()) + "}"
    assert server.ask("POST", "/v2/models/line/infer", v2.encode()).json()["outputs"][0]["data"] == [321.0]
    v1 = b'{"instances": [[5.0, 2, 3.0]], "instances": [[1.0, 2, 3.0]]}'
    assert server.ask("POST", "/v1/models/line:predict", v1).json() == {"predictions": [321.0]}


ACCEPTED: dict[str, Any] = {
    "an integer for a float": line_row(a=1),
    "an integral float for an integer": line_row(b=2.0),
    "FP64 for FP32": [A, B, tensor("c", [3.0], "FP64")],
    "FP32 for FP64": [tensor("a", [1.0], "FP32"), B, C],
    "a smaller integer": [A, tensor("b", [2], "INT8"), C],
    "integers for a float": [tensor("a", [1], "INT32"), B, C],
    "FP64 for an integer": [A, tensor("b", [2.0], "FP64"), C],
    "nested": [tensor("a", [[1.0]], shape=[1, 1]), B, C],
    "without the last dimension": [tensor("a", [1.0], shape=[1]), B, C],
    "in another order": [C, A, B],
    "as one matrix": x([1.0, 2, 3.0], [1, 3]),
    "as one nested matrix": x([[1, 2, 3]], [1, 3], "INT64"),
}


@pytest.mark.parametrize("inputs", ACCEPTED.values(), ids=ACCEPTED)
def test_the_casts_that_are_accepted(server: Running, inputs: Any) -> None:
    answer = server.infer("line", inputs)
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == [321.0]


def test_null_means_missing_where_that_is_allowed(server: Running) -> None:
    assert server.infer("line", line_row(c=None)).json()["outputs"][0]["data"] == [21.0]


def test_unknown_models_versions_and_routes_are_not_found(server: Running) -> None:
    for path in (f"/v2/models/{CANARY}/infer", "/v2/models/line/versions/9/infer", f"/v1/models/{CANARY}:predict", f"/{CANARY}"):
        answer = server.ask("POST", path, {"inputs": line_row()})
        assert answer.status == 404, path
        assert answer.json()["rule"] in {"known", "loaded", "route"}
        assert CANARY not in answer.body.decode()


def test_media_that_a_route_does_not_read_is_named(server: Running) -> None:
    for path in ("/v2/models/line/infer", "/v1/models/line:predict"):
        answer = server.ask("POST", path, b"<x/>", headers={"Content-Type": "text/xml"})
        assert answer.status == 415
        assert "application/json" in answer.json()["error"]


def test_invocations_refuse_in_mlflows_form(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line")) as single:
        bodies: list[tuple[str, bytes]] = [
            ("application/json", b"{}"),
            ("application/json", b'{"instances": [[1, 2, 3]], "inputs": {"a": [1]}}'),
            ("application/json", b'{"dataframe_split": {"columns": ["a", "a", "b"], "data": [[1, 2, 3]]}}'),
            ("application/json", b'{"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2]]}}'),
            ("application/json", b'{"inputs": {"a": [1], "b": [2], "c": [3, 4]}}'),
            ("application/json", b'{"instances": [[1, 2, 3]], "params": {"x": 1}}'),
            ("text/csv", b"a,b,c\n1,2"),
            ("text/csv", b"a,b,c\n" + CANARY.encode() + b",2,3"),
            ("text/csv", b"a,b,c\n1,2,nan\n1,2,inf"),
            ("text/csv", b"a,b,c"),
            ("text/csv", b'a,b,c\n"1,2,3'),
            ("text/csv", b"a,b,c\n\xff,2,3"),
            ("application/jsonlines", b'{"a": 1}\n{'),
        ]
        for media, body in bodies:
            answer = single.ask("POST", "/invocations", body, headers={"Content-Type": media})
            assert answer.status == 400, (body, answer)
            assert answer.json()["error_code"] == "BAD_REQUEST"
            assert answer.json()["message"]
            assert CANARY not in answer.body.decode()


def test_good_neighbours_of_a_bad_request_are_answered(server: Running) -> None:
    def ask(number: int) -> tuple[int, Any]:
        answer = server.infer("line", line_row(a=float(number)) if number % 3 else line_row(c=1e39))
        return answer.status, answer.json().get("outputs", [{}])[0].get("data")

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(200)))
    for number, answer in enumerate(answers):
        assert answer == ((200, [number + 320.0]) if number % 3 else (400, None))


def test_no_data_reaches_the_log(server: Running) -> None:
    server.infer("line", line_row(a=CANARY))
    server.ask("POST", f"/v2/models/{CANARY}/infer", {"inputs": []})
    log = server.log.read_text()
    assert '"schema_mismatch"' in log
    assert CANARY not in log


def test_large_but_fitting_requests_pass_whole(server: Running) -> None:
    rows = 5000
    inputs = [tensor("a", [1.0] * rows), tensor("b", [2] * rows, "INT64"), tensor("c", [3.0] * rows, "FP32")]
    assert server.infer("line", inputs).json()["outputs"][0]["data"] == [321.0] * rows
    inputs = [tensor("a", [1.0] * 9000), tensor("b", [2] * 9000, "INT64"), tensor("c", [3.0] * 9000, "FP32")]
    answer = server.infer("line", inputs)
    assert (answer.status, answer.json()["rule"]) == (413, "rows")
