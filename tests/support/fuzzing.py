"""Fuzz of fault 28: bodies that are wrong in every way we know, on every HTTP wire, and what the server made of them.

A generator, seeded, of requests that began as good ones; a client that counts what came back. `fuzz(server, count)` is what tests and `make faults`
call; `growth(decode, body)` measures what reading a body takes. Nothing here is timed against a bar: figures are reported, and who calls judges them.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from modelyard.errors import InvalidInput
from modelyard.protocols import arrow_ipc
from serving import Answer, Running, line_row, read_answer, tensor

CANARY = "canary4711"
JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
VERTEX = "/v1/endpoints/1/deployedModels/2:predict"
SMALL_BYTES = 256 << 10
MEDIA = (JSON, "text/csv", ARROW, "application/jsonlines", "text/xml", "", "application/octet-stream", f"{JSON}; charset=utf-16")
QUERIES = ("a=1", "a=1&a=2&b=2&c=3", "a=%FF&b=1&c=2", f"a={CANARY}&b=2&c=3", "&" * 2000, "a=1&b=2&c=nan", "%00=1")
NAMES = ("../../etc/passwd", "a\u0000b", "line", "X", "label")


@dataclass(frozen=True)
class Good:
    """A request that is answered with 200, from which wrong ones are made."""

    wire: str
    path: str
    body: bytes
    media: str = JSON
    json_bytes: int | None = None
    method: str = "POST"

    @property
    def is_json(self) -> bool:
        return self.media == JSON and self.json_bytes is None and self.method == "POST"


def _binary(wire: str, path: str, tensors: list[tuple[str, Any, str]]) -> Good:
    parts, inputs = [], []
    for name, array, datatype in tensors:
        if datatype == "BYTES":
            parts.append(b"".join(len(text).to_bytes(4, "little") + text for text in array))
            shape = [len(array), 1]
        else:
            parts.append(array.tobytes())
            shape = list(array.shape)
        inputs.append({"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(parts[-1])}})
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return Good(wire, path, b"".join([head, *parts]), "application/octet-stream", len(head))


def _arrow(columns: dict[str, Any]) -> bytes:
    arrays = {name: np.asarray(values) if not isinstance(values[0], str) else np.array(values, object) for name, values in columns.items()}
    return arrow_ipc.write_schema(arrays) + arrow_ipc.write_batch(arrays)


ROWS = {"a": [1.0, 2.0], "b": [2, 3], "c": [3.0, 4.0]}
RECORDS = [{"a": 1.0, "b": 2, "c": None}, {"a": 2.0, "b": 3, "c": 4.0}]
CSV = b"a,b,c\n1.5,2,3\n4,5,\n"
LINES = b'{"a":1,"b":2,"c":3}\n[1,2,null]\n'.replace(b"[1,2,null]", b'{"c":null,"b":5,"a":4}')
PARIS = {"b64": base64.b64encode(b"paris").decode()}


def _forms(wire: str, path: str) -> list[Good]:
    """The bulk forms on one path."""
    arrow = _arrow(ROWS)
    return [Good(wire, path, CSV, "text/csv"), Good(wire, path, LINES, "application/jsonlines"), Good(wire, path, arrow, ARROW)]


def _mlflow(path: str) -> list[Good]:
    bodies: list[Any] = [
        {"dataframe_split": {"columns": ["c", "a", "b"], "index": [0], "data": [[3.0, 1.0, 2]]}},
        {"dataframe_records": RECORDS},
        {"instances": [[1.0, 2, 3.0]]},
        {"inputs": ROWS, "params": {}},
        [[1.0, 2, 3.0]],
    ]
    return [Good("mlflow", path, json.dumps(body).encode()) for body in bodies] + _forms("mlflow", path)


def goods(*, is_single: bool) -> list[Good]:
    """Good requests of every wire: of a server with the models `line`, `shop` and `grid`, or of one with `line` alone."""
    rows = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], "<f4")
    line = "/v2/models/line/infer"
    v2: list[tuple[str, Any]] = [(line, {"id": "i", "inputs": line_row(), "outputs": [{"name": "prediction"}]})]
    v2.append((line, {"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}))
    if is_single:
        score = [{"data": [[1.0, 2, 3.0]]}, {"input_data": {"columns": ["a", "b", "c"], "data": [[1.0, 2, 3.0]]}}]
        found = [Good("oip_v2", path, json.dumps(body).encode()) for path, body in v2]
        found += _mlflow("/invocations") + [Good("azureml", "/score", json.dumps(body).encode()) for body in score]
        found += [*_forms("azureml", "/score"), Good("azureml", "/score?a=1&b=2&c=3", b"", "", method="GET")]
        found += [Good("vertex", VERTEX, json.dumps({"instances": RECORDS, "parameters": {}}).encode()), *_forms("vertex", VERTEX)]
        return found
    v2.append(("/v2/models/grid/versions/1/infer", {"inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "data": rows.tolist()}]}))
    v2.append(("/v2/models/shop/infer", {"inputs": [tensor("city", ["paris"], "BYTES"), tensor("size", [2.0])]}))
    v1: list[tuple[str, Any]] = [
        ("/v1/models/line:predict", {"instances": RECORDS}),
        ("/v1/models/line:predict", {"instances": [[1.0, 2, 3.0]]}),
        ("/v1/models/line:predict", {"inputs": ROWS}),
        ("/v1/models/line/versions/1:predict", {"signature_name": "serving_default", "instances": RECORDS}),
        ("/v1/models/shop:predict", {"instances": [{"city": PARIS, "size": 1.0}]}),
        ("/v1/models/grid:predict", {"instances": rows.tolist()}),
        ("/v1/models/grid:classify", {"examples": [{"X": rows[0].tolist()}]}),
        ("/v1/models/line:regress", {"context": {"b": 2}, "examples": [{"a": [1.0], "c": 3.0}]}),
    ]
    binary = [
        _binary("oip_v2", line, [("a", np.ones((2, 1)), "FP64"), ("b", np.ones((2, 1), "<i8"), "INT64"), ("c", np.ones((2, 1), "<f2"), "FP16")]),
        _binary("oip_v2", "/v2/models/shop/infer", [("city", [b"paris", b"berlin"], "BYTES"), ("size", np.ones((2, 1)), "FP64")]),
        _binary("oip_v2", "/v2/models/grid/infer", [("X", rows, "FP32")]),
        Good("oip_v2", "/v2/models/grid/infer", rows.tobytes(), "application/octet-stream", 0),
    ]
    found = [Good("oip_v2", path, json.dumps(body).encode()) for path, body in v2] + binary
    found += [Good("v1", path, json.dumps(body).encode()) for path, body in v1]
    why = [
        ("line", {"instances": RECORDS[:1], "parameters": {"output": "prediction", "element": 0}}),
        ("grid", {"instances": [[1, 2, 3, 4]], "parameters": {"class": 1}}),
    ]
    found += [Good("v1_explain", f"/v1/models/{name}:explain", json.dumps(body).encode()) for name, body in why]
    found += [*_mlflow("/models/line/invoke"), *_forms("oip_v2", line), Good("oip_v2", "/v2/repository/index", b'{"ready": true}')]
    return found


NASTY: list[Any] = [
    None, True, False, 0, -1, -0.0, 0.5, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, "", CANARY, "\u0000", "NaN",
    [], {}, [[]], [{}], [None], {"": 1}, {"b64": "!"}, {"b64": "gA=="}, {"b64": 1}, [2**4, 2**60 + 2], [10**9, 1], [-1], [0], [1] * 2000, "x" * 5000,
    {CANARY: CANARY},
    "FP16", "BF16", "BYTES", "INT8", "FP64", "fp32", {"binary_data_size": -1}, {"binary_data_size": 2**62}, {"binary_data_size": 1.5},
    {"binary_data": 1}, [1, "x"], [[1], [2, 3]], *NAMES,
]  # fmt: skip
RAW = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "1." + "0" * 5000, '"\\ud800"', '"\\udc00\\ud800"', "1e-999", "0x10", "01", "+1",
    ".5", "'x'",
    "[" * 120 + "]" * 120, '{"a":' * 120 + "1" + "}" * 120, "//", "nul", "tru", '"\\x"', "\u2028", "",
]  # fmt: skip
DEEP = ["[" * 250_000, "[" * 250_000 + "]" * 250_000, '{"a":' * 50_000 + "1" + "}" * 50_000]
_HOLE = "\ue000hole\ue000"


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*at, key))


def _with(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    made = dict(value) if isinstance(value, dict) else list(value)
    made[at[0]] = _with(value[at[0]], at[1:], new)
    return made


def _json_changed(draw: random.Random, head: bytes) -> bytes:
    """`head` with one place changed."""
    value = json.loads(head)
    at = draw.choice(list(_places(value)))
    kind = draw.random()
    if kind < 0.5:
        return json.dumps(_with(value, at, draw.choice(NASTY))).encode()
    if kind < 0.75:
        return json.dumps(_with(value, at, _HOLE)).replace(json.dumps(_HOLE), draw.choice(RAW)).encode("utf-8", "surrogatepass")
    if kind < 0.76:
        return json.dumps(_with(value, at, _HOLE)).replace(json.dumps(_HOLE), draw.choice(DEEP)).encode()
    if kind < 0.88 and at and isinstance(at[-1], str):  # a key twice, or another name for it
        text = json.dumps(value)
        key = json.dumps(at[-1])
        return text.replace(f"{key}:", f"{key}: {json.dumps(draw.choice(NASTY))}, {key}:" if draw.random() < 0.5 else f'"{CANARY}":', 1).encode()
    return _bytes_changed(draw, head)


def _bytes_changed(draw: random.Random, body: bytes) -> bytes:
    made = bytearray(body)
    for _ in range(draw.choice((1, 1, 2, 8))):
        if not made:
            break
        at = draw.randrange(len(made))
        kind = draw.random()
        if kind < 0.3:
            made[at] = draw.choice((0, 1, 34, 44, 58, 91, 93, 123, 125, 127, 128, 255, draw.randrange(256)))
        elif kind < 0.5:
            word = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**20, len(made)))
            made[at & ~3 : (at & ~3) + 4] = word.to_bytes(4, "little")
        elif kind < 0.6:
            made[at & ~7 : (at & ~7) + 8] = draw.choice((2**62, 2**40, 2**64 - 1)).to_bytes(8, "little")
        elif kind < 0.7:
            del made[at:]
        elif kind < 0.8:
            del made[at : at + draw.randrange(1, 9)]
        elif kind < 0.9:
            made[at:at] = made[at : at + draw.randrange(1, 64)] * draw.randrange(1, 4)
        else:
            made[at:at] = draw.choice((b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b",", b"\n", b'"', CANARY.encode()))
    return bytes(made)


def cases(good: list[Good], count: int, seed: int) -> Iterator[tuple[Good, bytes]]:
    """`count` wrong (or, now and then, harmless) requests: which one each began as, and its bytes with the head."""
    draw = random.Random(seed)
    for _ in range(count):
        began = draw.choice(good)
        body, size, path, media = began.body, began.json_bytes, began.path, began.media
        headers: dict[str, str] = {}
        if size:
            head = _json_changed(draw, body[:size]) if draw.random() < 0.6 else body[:size]
            rest = _bytes_changed(draw, body[size:]) if draw.random() < 0.5 else body[size:]
            body, size = head + rest, len(head)
        elif began.is_json:
            body = _json_changed(draw, body)
        elif body:
            body = _bytes_changed(draw, body)
        chance = draw.random()
        if chance < 0.03:
            size = draw.choice((0, 1, len(body), len(body) + 1, 10**17))
        elif chance < 0.06:
            media = draw.choice(
                (JSON, "text/csv", ARROW, "application/jsonlines", "text/xml", "", "application/octet-stream", f"{JSON}; charset=utf-16")
            )
        elif chance < 0.1:
            coding = draw.choice(("gzip", "zstd", "deflate", "br"))
            packed = {"gzip": gzip.compress, "zstd": zstandard.compress}.get(coding, bytes)(body)
            body = _bytes_changed(draw, packed) if draw.random() < 0.5 else packed
            headers["Content-Encoding"] = coding
        elif chance < 0.13:
            headers["Accept"] = draw.choice((ARROW, "text/csv", "application/jsonlines", "image/png", "*/*;q=0", "a/b;q=x,,;"))
        elif chance < 0.16:
            name = draw.choice(("..", "%2e%2e", "line%00", "li%ff", CANARY, "x" * 300, "", "line:x", "%F0%9F%92%A9"))
            path = path.replace("/line", f"/{name}", 1) if "/line" in path else f"{path}/{name}"
        elif chance < 0.18 and "?" in path:
            path = (
                f"/score?{draw.choice(('a=1', 'a=1&a=2&b=2&c=3', 'a=%FF&b=1&c=2', 'a=' + CANARY + '&b=2&c=3', '&' * 2000, 'a=1&b=2&c=nan', '%00=1'))}"
            )
        lines = {"Host": "127.0.0.1", "Content-Type": media, "Content-Length": str(len(body)), **headers}
        if size is not None:
            lines["Inference-Header-Content-Length"] = str(size)
        head_lines = "".join(f"{key}: {value}\r\n" for key, value in lines.items() if value)
        yield began, f"{began.method} {path} HTTP/1.1\r\n{head_lines}\r\n".encode("latin-1") + body


@dataclass
class Report:
    """What came back: statuses, the slowest answers, and everything that must not be."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_small_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def fuzz(server: Running, count: int, *, seed: int = 28, is_single: bool = False) -> Report:
    """Ask `count` fuzzed questions, one after the other on one connection, and say what became of them."""
    report = Report()
    connection = server.connect(60)
    stream = connection.makefile("rb")
    for began, request in cases(goods(is_single=is_single), count, seed):
        report.cases += 1
        start = time.perf_counter()
        answer: Answer | None = None
        try:
            connection.sendall(request)
            answer = read_answer(stream)
        except (ConnectionError, TimeoutError):
            answer = None
        taken = time.perf_counter() - start
        report.slowest_s = max(report.slowest_s, taken)
        if len(request) <= SMALL_BYTES:
            report.slowest_small_s = max(report.slowest_small_s, taken)
        if answer is None:
            report.faults.append(f"no answer on {began.wire} {began.path}: {request[-200:]!r}")
        else:
            report.statuses[answer.status] += 1
            wrong = judge(began, answer)
            if wrong:
                report.faults.append(f"{wrong} on {began.wire} {began.path}: {answer!r} to {request[:300]!r}")
            elif answer.status != 200:
                report.refused[began.wire] += 1
        if answer is None or answer.headers.get("connection") == "close":
            stream.close()
            connection.close()
            connection = server.connect(60)
            stream = connection.makefile("rb")
    stream.close()
    connection.close()
    return report


def judge(began: Good, answer: Answer) -> str:
    """What is wrong with `answer`; nothing when it is a prediction, or a refusal that names field and rule in the wire's own form."""
    if answer.status == 200:
        return ""
    if not 400 <= answer.status < 500 or answer.status == 429:
        return f"status {answer.status}"
    if CANARY.encode() in answer.body or b"4711" in answer.body:
        return "an echo of what was sent"
    if answer.headers["content-type"].startswith("text/plain"):
        return "" if answer.status == 415 and began.wire == "mlflow" else "plain text"
    try:
        said = answer.json()
    except ValueError:
        return "a refusal that is no JSON"
    if not said.get("rule") or not said.get("field"):
        return "a refusal without field or rule"
    own = {"mlflow": {"error_code", "message"}, "azureml": {"message"}}.get(began.wire, {"error"})
    is_of_the_wire = said.get("code") not in {"malformed_message", "not_found", "invalid_input"} and answer.status == 400
    return "" if own <= said.keys() or not is_of_the_wire else "a refusal in another wire's form"


def growth(decode: Callable[[bytes], Any], body: bytes) -> int:
    """The most bytes that were held at once, beyond the body, while `decode` read it or refused it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with suppress(InvalidInput):
            decode(body)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def large_json(limit_bytes: int) -> dict[str, bytes]:
    """Bodies near `limit_bytes` that try to become as much as possible."""

    def filled(start: str, item: str, end: str) -> bytes:
        return (start + item * ((limit_bytes - len(start) - len(end)) // len(item)) + end).encode()

    flat = '{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":['
    return {
        "numbers": filled(flat, "1,", "1]}]}"),
        "fractions": filled(flat, "1.5,", "1]}]}"),
        "nulls": filled(flat, "null,", "1]}]}"),
        "empty lists": filled(flat, "[],", "1]}]}"),
        "nested lists": filled(flat, "[[[[1]]]],", "1]}]}"),
        "rows": filled('{"instances":[', "[1,2,3],", "[1,2,3]]}"),
        "empty objects": filled('{"instances":[', "{},", "{}]}"),
        "tiny records": filled('{"instances":[', '{"a":1},', '{"a":1}]}'),
        "short strings": filled('{"instances":[', '"ab",', '"ab"]}'),
        "distinct strings": b'{"instances":[' + ",".join(f'"{at:x}"' for at in range(limit_bytes // 9)).encode() + b"]}",
        "columns": filled('{"inputs":{"a":[', "1,", "1]}}"),
        "keys": b'{"instances":[{' + ",".join(f'"{at:x}":1' for at in range(limit_bytes // 11)).encode() + b"}]}",
        "rows of NaN": filled('{"instances":[', "[NaN,2,3],", "[1,2,3]]}"),
        "b64": filled('{"instances":[', '{"b64":"YQ=="},', "{}]}"),
        "depth": b'{"instances":' + b"[" * (limit_bytes - 20),
        "features": filled('{"examples":[', '{"a":1,"b":[2],"c":3},', '{"a":1,"b":2,"c":3}]}'),
        "split": filled('{"dataframe_split":{"columns":["a","b","c"],"data":[', "[1,2,3],", "[1,2,3]]}}"),
        "lines": filled("", "[1,2,3]\n", ""),
    }


def large_binary(limit_bytes: int) -> dict[str, tuple[bytes, int | None]]:
    """Bodies near `limit_bytes` with binary parts; the length of their JSON part, None for Arrow streams."""
    made: dict[str, tuple[bytes, int | None]] = {}
    for name, item, datatype in (("floats", b"\0" * 8, "FP64"), ("halves", b"\0" * 2, "FP16"), ("strings", b"\x01\0\0\0x", "BYTES")):
        count = (limit_bytes - 300) // len(item)
        head = json.dumps(
            {"inputs": [{"name": "x", "shape": [count, 1], "datatype": datatype, "parameters": {"binary_data_size": count * len(item)}}]}
        ).encode()
        made[name] = (head + item * count, len(head))
    made["raw"] = (bytes(limit_bytes & ~7), 0)
    made["arrow floats"] = (_arrow({"x": np.zeros(limit_bytes // 8 - 100)}), None)
    made["arrow strings"] = (_arrow({"x": ["x"] * (limit_bytes // 6)}), None)
    sink = io.BytesIO()
    table = pa.table({"x": pa.array(np.zeros(arrow_ipc.UNPACKED_BYTES // 8 - 100))})
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    made["arrow packed"] = (sink.getvalue(), None)
    return made
