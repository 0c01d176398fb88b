"""Fuzz of the gRPC wires (fault 28): messages that are wrong, what the server made of them, and messages that try to become as much as possible.

`fuzz(server, count)` is what tests and `make faults` call; `growths(limit_bytes)` is run by a process of its own, since what protobuf takes is seen
in resident memory alone. Nothing here is timed against a bar: figures are reported, and who calls judges them.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from h2 import Socketed, connected, fields

from modelyard.errors import InvalidInput
from modelyard.protocols import bind, wire
from modelyard.protocols.messages import kind
from modelyard.serve import http2
from modelyard.types import Schema, TensorSpec
from serving import LINE, Running

CANARY = b"canary4711"
OIP, TF = "/inference.GRPCInferenceService/", "/tensorflow.serving.PredictionService/"
FLOAT, DOUBLE, STRING, INT64 = 1, 2, 7, 9
STATUSES = {"0", "3", "5", "8"}
"""Answered, invalid, for a model that is not there, too large."""


class Good(NamedTuple):
    """A message that is answered, from which wrong ones are made."""

    path: str
    body: bytes
    is_stream: bool = False


def infer(name: str, *tensors: tuple[str, str, list[int], str, Any], **more: Any) -> bytes:
    """A ModelInferRequest; values stand in the field of contents that is named, or raw."""
    message = kind("inference.ModelInferRequest")(model_name=name, **more)
    for called, datatype, shape, where, values in tensors:
        made = message.inputs.add(name=called, datatype=datatype, shape=shape)
        if where == "raw":
            message.raw_input_contents.append(values)
        else:
            getattr(made.contents, where).extend(values)
    return bytes(message.SerializeToString())


def predict(name: str, **tensors: tuple[int, list[int], str, Any]) -> bytes:
    """A PredictRequest."""
    inputs = {
        called: {"dtype": dtype, "tensor_shape": {"dim": [{"size": size} for size in shape]}, where: values}
        for called, (dtype, shape, where, values) in tensors.items()
    }
    return bytes(kind("tensorflow.serving.PredictRequest")(model_spec={"name": name}, inputs=inputs).SerializeToString())


def examples(message: str, name: str, rows: list[dict[str, list[float]]]) -> bytes:
    """A ClassificationRequest or RegressionRequest."""
    made = [{"features": {"feature": {key: {"float_list": {"value": values}} for key, values in row.items()}}} for row in rows]
    return bytes(kind(f"tensorflow.serving.{message}")(model_spec={"name": name}, input={"example_list": {"examples": made}}).SerializeToString())


def goods() -> list[Good]:
    """Good messages of every method, of a server with the models `line`, `shop` and `grid`."""
    rows = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], "<f4")
    asked = [
        infer("grid", ("X", "FP32", [2, 4], "raw", rows.tobytes()), id="i"),
        infer("grid", ("X", "FP32", [1, 4], "fp32_contents", [1, 2, 3, 4])),
        infer(
            "line",
            ("a", "FP64", [1, 1], "fp64_contents", [1.0]),
            ("b", "INT64", [1, 1], "int64_contents", [2]),
            ("c", "FP32", [1, 1], "fp32_contents", [3.0]),
        ),
        infer("line", ("X", "INT32", [1, 3], "int_contents", [1, 2, 3]), parameters={"p": {"int64_param": 1}}, outputs=[{"name": "prediction"}]),
        infer("shop", ("city", "BYTES", [1, 1], "bytes_contents", [b"paris"]), ("size", "FP64", [1, 1], "fp64_contents", [2.0])),
    ]
    found = [Good(f"{OIP}ModelInfer", body) for body in asked] + [Good(f"{OIP}ModelStreamInfer", body, is_stream=True) for body in asked]
    found += [
        Good(f"{TF}Predict", predict("grid", X=(FLOAT, [2, 4], "tensor_content", rows.tobytes()))),
        Good(
            f"{TF}Predict",
            predict("line", a=(DOUBLE, [1], "double_val", [1.0]), b=(INT64, [1], "int64_val", [2]), c=(FLOAT, [1], "float_val", [3.0])),
        ),
        Good(f"{TF}Predict", predict("shop", city=(STRING, [1], "string_val", [b"paris"]), size=(DOUBLE, [1], "double_val", [1.0]))),
        Good(f"{TF}Classify", examples("ClassificationRequest", "grid", [{"X": [1, 2, 3, 4]}])),
        Good(f"{TF}Regress", examples("RegressionRequest", "line", [{"a": [1], "b": [2], "c": [3]}])),
        Good(
            f"{TF}GetModelMetadata",
            kind("tensorflow.serving.GetModelMetadataRequest")(model_spec={"name": "line"}, metadata_field=["signature_def"]).SerializeToString(),
        ),
        Good(
            "/tensorflow.serving.ModelService/GetModelStatus",
            kind("tensorflow.serving.GetModelStatusRequest")(model_spec={"name": "line"}).SerializeToString(),
        ),
        Good(f"{OIP}ModelMetadata", kind("inference.ModelMetadataRequest")(name="line").SerializeToString()),
        Good(f"{OIP}ModelReady", kind("inference.ModelReadyRequest")(name="line", version="1").SerializeToString()),
        Good(f"{OIP}RepositoryIndex", kind("inference.RepositoryIndexRequest")(ready=True).SerializeToString()),
    ]
    return found


def changed(draw: random.Random, body: bytes) -> bytes:
    """`body` with a few bytes, a field's sort, or a length changed, or a field put in."""
    made = bytearray(body)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.choice((0, len(made), draw.randrange(len(made) + 1), draw.randrange(len(made) + 1)))  # at its ends it is a field of the whole
        match draw.randrange(7):
            case 0:
                made[at : at + 1] = draw.randbytes(1)
            case 1:  # another sort of field, or another field
                if at < len(made):
                    made[at] = made[at] & ~7 | draw.choice((0, 1, 2, 3, 5)) if draw.random() < 0.6 else made[at] ^ 8
            case 2:
                number, sort = draw.randrange(1, 9), draw.choice((0, 1, 2, 5))
                content = {0: wire.varint(draw.choice((0, 1, -1, 2**31))), 1: bytes(8), 2: b"\2\x08\1", 5: bytes(4)}[sort]
                made[at:at] = wire.varint(number << 3 | sort) + content
            case 3:
                made[at:] = b""
            case 4:
                made[at : at + draw.randrange(1, 9)] = b""
            case 5:
                made[at:at] = draw.choice((b"\xff" * 9 + b"\1", CANARY, b"\x0a\0", b"\x2a\0", bytes(8)))
            case _:
                made += made[: draw.randrange(len(made) + 1)]
    return bytes(made)


@dataclass
class Report:
    """What came back: statuses, refusals by method, the slowest answer, and everything that must not be."""

    cases: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def fuzz(server: Running, count: int, *, seed: int = 28) -> Report:
    """Ask `count` fuzzed calls, one after the other, and say what became of them."""
    draw, good, report = random.Random(seed), goods(), Report()
    with ExitStack() as open_now:
        caller: Socketed | None = None
        for _ in range(count):
            began = draw.choice(good)
            body = changed(draw, began.body) or b"\0"
            if caller is None:
                caller = open_now.enter_context(connected(str(server.grpc)))
                caller.send(http2.window_update(0, 1 << 30))
            report.cases += 1
            start = time.perf_counter()
            number = caller.call(body, fields(began.path))
            answer = caller.answer(number)
            report.slowest_s = max(report.slowest_s, time.perf_counter() - start)
            status = answer.get("grpc-status", "none")
            report.statuses[status] += 1
            if wrong := judge(began, status, answer, caller.body(number)):
                report.faults.append(f"{wrong} on {began.path}: {answer} to {body[:200]!r}")
            elif status != "0":
                report.refused[began.path] += 1
            caller.frames.clear()
            if caller.is_closed or caller.is_cut or caller.next_id > 10_000:
                open_now.close()
                caller = None
    return report


def judge(began: Good, status: str, answer: dict[str, str], body: bytes) -> str:
    """What is wrong with an answer; nothing when it is one, or a refusal that names field and rule and holds nothing that was sent."""
    if status not in STATUSES:
        return f"status {status}"
    if status == "0":  # a stream tells its refusals within, and goes on
        if began.is_stream and b"the server failed" in body:
            return "a failure of the server"
        return "an echo of what was sent" if began.is_stream and CANARY in body and wire.tagged(3, CANARY) not in body else ""
    if CANARY.decode() in answer.get("grpc-message", ""):
        return "an echo of what was sent"
    return "" if answer.get("x-error-field") and answer.get("x-error-rule") else "a refusal without field or rule"


# What reading may take.


def _spec(datatype: Any) -> Schema:
    return Schema(inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1, 1)),), outputs=LINE.outputs, layout="frame", task="regression")


def _tensors(datatype: str, where: str, values: Callable[[int], Any], wanted: str = "") -> Callable[[int], tuple[str, Schema, bytes]]:
    return lambda count: ("oip_v2_grpc", _spec(wanted or datatype), infer("m", ("x", datatype, [count, 1], where, values(count))))


def _tensorflow(dtype: int, where: str, values: Callable[[int], Any], wanted: str) -> Callable[[int], tuple[str, Schema, bytes]]:
    return lambda count: ("tfserving_grpc", _spec(wanted), predict("m", x=(dtype, [count, 1], where, values(count))))


def _parts(codec: str, message: str, part: bytes, **more: Any) -> Callable[[int], tuple[str, Schema, bytes]]:
    head = bytes(kind(message)(**more).SerializeToString())
    return lambda count: (codec, _spec("FP64"), head + part * count)


def _rows(row: dict[str, list[float]]) -> Callable[[int], tuple[str, Schema, bytes]]:
    one = examples("RegressionRequest", "", [row])[2:]  # behind the (empty) model_spec
    within = kind("tensorflow.serving.RegressionRequest").FromString(b"\x0a\0" + one).input.example_list.SerializeToString()
    head = bytes(kind("tensorflow.serving.RegressionRequest")(model_spec={"name": "m"}).SerializeToString())
    return lambda count: ("tf_regress_grpc", _spec("FP64"), head + wire.tagged(2, wire.tagged(1, within * count)))


def _texts(count: int) -> list[bytes]:
    return [b"%c%c" % (97 + at % 26, 97 + at // 26 % 26) for at in range(count)]


MOST: dict[str, tuple[int, Callable[[int], tuple[str, Schema, bytes]]]] = {
    "strings": (4, _tensors("BYTES", "bytes_contents", _texts)),
    "empty strings": (2, _tensors("BYTES", "bytes_contents", lambda count: [b""] * count)),
    "integers": (1, _tensors("INT64", "int64_contents", lambda count: [1] * count)),
    "larger integers": (2, _tensors("INT64", "int64_contents", lambda count: [9999] * count)),
    "integers for floats": (1, _tensors("INT32", "int_contents", lambda count: [1] * count, "FP64")),
    "flags": (1, _tensors("BOOL", "bool_contents", lambda count: [True] * count)),
    "floats": (4, _tensors("FP32", "fp32_contents", lambda count: np.ones(count), "FP64")),
    "empty inputs": (2, _parts("oip_v2_grpc", "inference.ModelInferRequest", b"\x2a\0", model_name="m")),
    "empty parameters": (2, _parts("oip_v2_grpc", "inference.ModelInferRequest", b"\x22\0", model_name="m")),
    "empty outputs": (2, _parts("oip_v2_grpc", "inference.ModelInferRequest", b"\x32\0", model_name="m")),
    "empty raw values": (2, _parts("oip_v2_grpc", "inference.ModelInferRequest", b"\x3a\0", model_name="m")),
    "numbers of no field": (2, _parts("oip_v2_grpc", "inference.ModelInferRequest", b"\x78\0", model_name="m")),
    "TensorFlow's integers": (1, _tensorflow(INT64, "int64_val", lambda count: [1] * count, "INT64")),
    "TensorFlow's strings": (4, _tensorflow(STRING, "string_val", _texts, "BYTES")),
    "TensorFlow's floats": (4, _tensorflow(FLOAT, "float_val", lambda count: np.ones(count), "FP64")),
    "TensorFlow's empty inputs": (2, _parts("tfserving_grpc", "tensorflow.serving.PredictRequest", b"\x12\0", model_spec={"name": "m"})),
    "examples": (21, _rows({"x": [1.0]})),
    "empty examples": (2, _rows({})),
}
"""By name: bytes that each item takes in the message, and what makes one of so many items (codec, schema, body)."""


def growths(limit_bytes: int) -> Iterator[tuple[str, int, int, bool]]:
    """For each of MOST, of `limit_bytes` and of fractions of it down to those that are read: the name, the body's size, by how much the process grew
    while it was read or refused, and whether it was read. Each in a process of its own, forked from this one."""
    for name, (item_bytes, make) in MOST.items():
        for part in (1, 2, 3, 4, 6, 8, 16, 32):
            codec, schema, body = make((limit_bytes - 200) // item_bytes // part)
            decode = bind("m", schema)[codec].decode
            grown, was_read = _forked(lambda decode=decode, body=body: decode(body, ""))
            yield name, len(body), grown, was_read
            if was_read:
                break


def _forked(work: Callable[[], Any]) -> tuple[int, bool]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # else what was freed before would be taken again unseen
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins here
            before, was_read = _peak_bytes(), True
            try:
                work()
            except InvalidInput:
                was_read = False
            os.write(writing, json.dumps([_peak_bytes() - before, was_read]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        grown, was_read = json.loads(answer.read())
    os.waitpid(child, 0)
    return grown, was_read


def _peak_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    print(json.dumps([*growths(int(sys.argv[1])), ("held", 0, *_forked(lambda: bytearray(64 << 20)))]))
