"""Fault 28: JSON and tensors that are wrong in every way we know, what our OpenAPI lets others think of, 10,000 fuzzed bodies and messages."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import fuzzing
import messaging
from tests.faults import probes, scene
from tests.faults.judge import Control, Fault
from tests.faults.scene import Scene, Server

from serving import Answer, read_answer, tensor

CASES_CI = 10_000
DESCRIBED_S, DESCRIBED_LONG_S, BESIDE = 20, 600, 32
SMALL = 256 << 10
A, B, C = tensor("a", [1.0]), tensor("b", [2], "INT64"), tensor("c", [3.0], "FP32")
V2, V1 = "/v2/models/line/infer", "/v1/models/line:predict"


def _v2(a: Any = None, **more: Any) -> bytes:
    return json.dumps({"inputs": [{**A, **(a or {})}, B, C], **more}).encode()


def _raw(text: str) -> bytes:
    """A V2 body whose first value is `text`, as it stands."""
    return _v2().replace(b'"data": [1.0]', b'"data": [' + text.encode() + b"]", 1)


def bodies() -> dict[str, tuple[str, bytes]]:
    """By name: the path and the body. None of them may be answered with 200."""
    deep = {
        f"depth {depth:,} of {what}": (V1, b'{"instances":' + opening * depth)
        for depth in (120, 250_000)
        for what, opening in (("lists", b"["), ("objects", b'{"a":'))
    }
    closed = {f"depth {depth:,}, closed": (V1, b'{"instances":' + b"[" * depth + b"]" * depth + b"}") for depth in (120, 100_000)}
    wide = {
        "65,536 keys": (V1, json.dumps({f"{turn}": 1 for turn in range(20_000)}).encode()),
        "200,000 brackets": (V1, b'{"instances":[' + b"[]," * 60_000 + b"[]]}"),
    }
    numbers = {
        name: (V2, _raw(text))
        for name, text in {
            "NaN": "NaN",
            "Infinity": "Infinity",
            "-Infinity": "-Infinity",
            "1e999": "1e999",
            "an integer of 5,000 digits": "9" * 5000,
            "a lone surrogate": '"\\ud800"',
            "null": "null",
            "true": "true",
            "a string": '"1.0"',
            "an object": "{}",
            "a list too deep": "[[[[1.0]]]]",
            "hexadecimal": "0x10",
            "leading zeros": "007",
            "a trailing comma": "1.0,",
            "+1": "+1",
            "a number of 100,000 digits": "1" + "0" * 100_000,
            "1.0 and a comment": "1.0 /* x */",
        }.items()
    }
    shapes = {
        f"shape {name}": (V2, _v2({"shape": shape}))
        for name, shape in {
            "[2^4, 2^60+2]": [2**4, 2**60 + 2],
            "negative": [-1, 1],
            "[-1, -1]": [-1, -1],
            "10^9": [10**9, 1],
            "10^9 by 10^9": [10**9, 10**9],
            "2^63": [2**63, 1],
            "2^64": [2**64, 1],
            "10^400": [10**400, 1],
            "of fractions": [1.5, 1],
            "of strings": ["1", 1],
            "of nulls": [None, 1],
            "of 10,000 dimensions": [1] * 10_000,
            "empty": [],
            "zero": [0, 1],
            "two": [2, 1],
            "an object": {},
            "a number": 1,
            "true": [True, True, 2],
        }.items()
    }
    types = {f"datatype {name}": (V2, _v2({"datatype": name})) for name in ("BYTES", "INT64x", "FP65", "", "\x00", "fp64", "BOOL")}
    names = {
        f"name {name!r}"[:40]: (V2, _v2({"name": name}))
        for name in ("a\x00b", "..", "../../etc/passwd", "", "b", "A", "a" * 10_000, "\ud7ff", "\u202e")
    }
    paths = {
        f"path {path}": (path, _v2())
        for path in (
            "/v2/models/..%2f..%2fetc/infer",
            "/v2/models/line%00/infer",
            "/v2/models/../infer",
            "/v2/models/%2e%2e/infer",
            "/v2/models/line/versions/-1/infer",
            "/v2/models/line/versions/99999999999999999999/infer",
            "/v2/models/line/versions/1e1/infer",
        )
    }
    texts = {
        "an array": (V2, b"[]"),
        "a string": (V2, b'"x"'),
        "nothing": (V2, b""),
        "cut off": (V2, _v2()[:-5]),
        "two documents": (V2, _v2() * 2),
        "not UTF-8": (V2, b'{"inputs": "\xff"}'),
        "UTF-16": (V2, _v2().decode().encode("utf-16")),
        "a NUL behind": (V2, _v2() + b"\0"),
        "single quotes": (V2, _v2().replace(b'"', b"'")),
        "XML": (V2, b"<a/>"),
    }
    return {**deep, **closed, **wide, **numbers, **shapes, **types, **names, **paths, **texts}


def binaries() -> dict[str, tuple[bytes, int]]:
    """Binary tensors whose sizes lie: the body, and the length of its JSON part as the header says it."""
    made: dict[str, tuple[bytes, int]] = {}
    data = struct.pack("<d", 1.0)
    for name, size, length in (
        ("too short", 4, None),
        ("too long", 16, None),
        ("negative", -8, None),
        ("2^62", 2**62, None),
        ("of a string", "8", None),
        ("a JSON length beyond the body", 8, 10_000),
        ("a JSON length of 1", 8, 1),
        ("a fraction", 8.5, None),
    ):
        first = {"name": "a", "shape": [1, 1], "datatype": "FP64", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [first, B, C]}).encode()
        made[f"binary, {name}"] = (head + data, len(head) if length is None else length)
    return made


def run(scene_: Scene) -> None:
    with scene_.server(scene_.home("line", "shop", "grid")) as server:
        server.infer("line", [A, B, C])
        server.mark()
        _bodies(scene_, server)
        _described(scene_, server)
        count = 500 if scene_.is_control else scene_.limit if scene_.is_long else CASES_CI
        worker = server.worker()
        report = fuzzing.fuzz(server, count * 7 // 10)
        sent = messaging.fuzz(server, count)
        crashes = int(server.worker() != worker)
        with scene_.server(scene_.home("line"), settings={"vertex_predict_route": fuzzing.VERTEX}) as single:
            worker = single.worker()
            alone = fuzzing.fuzz(single, count - count * 7 // 10, is_single=True)
            crashes += int(single.worker() != worker)
        bad = sum(status >= 500 for status in report.statuses.elements()) + sum(status >= 500 for status in alone.statuses.elements())
        faults = [*report.faults, *alone.faults]
        total = report.cases + alone.cases
        scene_.item("fuzz_5xx", bad, 0, exact=True, note=f"of {total:,} bodies on every HTTP wire")
        scene_.item("fuzz_faults", len(faults), 0, exact=True, note="; ".join(faults)[:300] or "no answer, an echo, a refusal without field or rule")
        scene_.item("fuzz_crashes", crashes, 0, exact=True)
        scene_.item("fuzz_slowest", max(report.slowest_s, alone.slowest_s), 1, "s")
        told = "; ".join(sent.faults)[:300] or f"of {sent.cases:,} messages on every gRPC wire"
        scene_.item("messages_faults", len(sent.faults), 0, exact=True, note=told)
        scene_.item("messages_slowest", sent.slowest_s, 1, "s")


def _bodies(scene_: Scene, server: Server) -> None:
    wrong: list[str] = []
    slowest_s, slowest = 0.0, ""
    most, largest = -1e9, ""
    asked = {name: (path, body, {}) for name, (path, body) in bodies().items()}
    asked |= {name: (V2, body, {"Inference-Header-Content-Length": str(length)}) for name, (body, length) in binaries().items()}
    for name, (path, body, headers) in asked.items():
        with probes.Peak(server.worker(), every_s=0.002) as peak:
            answer, seconds = _ask(server, path, body, headers)
        if answer is None or not 400 <= answer.status < 500:
            wrong.append(f"{name}: {answer}")
        if len(body) <= SMALL and seconds > slowest_s:
            slowest_s, slowest = seconds, name
        spare = peak.growth_mb - (2 if headers else 25) * len(body) / 1e6
        if spare > most:
            most, largest = spare, name
    scene_.item("not_4xx", len(wrong), 0, exact=True, note="; ".join(wrong)[:600] or f"{len(asked)} bodies")
    scene_.item("slowest_small", slowest_s * 1000, 50, "ms", note=slowest)
    scene_.item("peak", max(0.0, most), 16 * 1.048576, "MB", note=f"above 25 times a JSON body, twice a binary one: {largest}")


def _described(scene_: Scene, server: Server) -> None:
    """Schemathesis over the operations of all models at once, beside callers of one of them who ask as they should."""
    seconds = 12 if scene_.is_control else DESCRIBED_LONG_S if scene_.is_long else DESCRIBED_S
    rate = server.capacity(scene.line(), connections=BESIDE, seconds=2) / 4
    loading = server.load(scene.line(), connections=BESIDE, seconds=60 + 2 * seconds, rate=rate)
    tool = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json", "--checks", "not_a_server_error"]
    bounds = ["--max-examples", "10000", "--max-time", f"{seconds}", "--seed", "28", "--phases", "examples,coverage,fuzzing", "--no-color"]
    done = subprocess.run(["nice", "-n", "10", *tool, *bounds], cwd=scene_.folder, capture_output=True, text=True, check=False)
    tally = loading.end(now=True)
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated, done.stdout[-500:] + done.stderr[-500:]
    found = max(done.stdout.count("Server error"), done.returncode)
    told = done.stdout[-300:] if found else f"of {generated[1]} requests to every operation of three models"
    scene_.item("described_5xx", found, 0, exact=True, note=told)
    scene_.item("described_beside", tally.sent - tally.good, 0, exact=True, note=f"of {tally.sent:,} right requests over {BESIDE} connections")
    slowest_ms = 1000 * float((tally.records["done"] - tally.records["due"]).max())
    scene_.item("described_p99", tally.p(99), 1000, "ms", note=f"the slowest {slowest_ms:.0f} ms, at a quarter of capacity, {rate:,.0f} requests/s")


def _ask(server: Server, path: str, body: bytes, headers: dict[str, str]) -> tuple[Answer | None, float]:
    lines = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    with server.connect(10) as connection, connection.makefile("rb") as stream:
        began = time.monotonic()
        with suppress(OSError, AssertionError, ValueError):
            connection.sendall(head.encode("latin-1") + body)
            return read_answer(stream), time.monotonic() - began
        return None, time.monotonic() - began


FAULT = Fault(
    number=28,
    name="tensors",
    title="JSON and tensors that are wrong, and 10,000 fuzzed bodies and messages",
    method=(
        "Depth 120 and 250,000, numbers that are none, shapes that overflow, types and sizes that lie, names that are paths: each "
        "refused with 4xx, up to 256 KiB within 50 ms; the worker's memory, sampled every 2 ms, grows by at most 25 times a JSON body "
        "or twice a binary one, and 16 MiB. Schemathesis makes what it can of the OpenAPI of three models at once for 20 s (the long form: 600), "
        "while 32 connections ask one of them as they should: no 5xx, and every answer of theirs right. Then the fuzz of "
        "`tests/support/fuzzing.py` over every HTTP wire, and as many of `tests/support/messaging.py` over every method of gRPC: no 5xx "
        "(INTERNAL), no crash, no answer above 1 s. The long form takes FAULTS_FUZZ (1,000,000) of each."
    ),
    run=run,
    controls=(
        Control(without="refusals", misses="not_4xx", text="what a codec refuses is called a failure of the server."),
        Control(without="refusals", misses="fuzz_5xx", text="the same."),
        Control(without="refusals", misses="messages_faults", text="the same."),
        Control(without="refusals", misses="described_5xx", text="the same."),
    ),
    headline="fuzz_5xx",
)
