"""The process of one model that is code: shuts itself in, loads the model, and answers frames until its socket closes.

Hides the author's contract behind frames: a class that is made without arguments, is given its files by `load(files)` if it has that, and answers
`predict(inputs)`; or a plain function. Started by `process.py` as `python -I -m modelyard.runtime.isolated.child`; reads nothing but what it
inherits: a socket and a file of members, both verified by who started it. It must not run a line of the model before `sandbox.enter`, and must not
write to anything that anybody reads but the socket.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import mmap
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from modelyard.runtime.isolated import codec, sandbox

if TYPE_CHECKING:
    from modelyard.types import Array

BODY_LIMIT_BYTES = 1 << 30
TEXT_LIMIT = 300

Predict = Callable[[dict[str, "Array"]], Any]


class Refusal(Exception):
    """The model does not keep the contract; the text is for its author."""


class Files(Mapping[str, bytes]):
    """The model's data members by name, with or without the ending of the format; each is copied when it is asked for."""

    def __init__(self, held: mmap.mmap | bytes, places: Mapping[str, tuple[int, int]]) -> None:
        self._held = held
        self._places = places
        self._short = {name.rpartition(".")[0]: place for name, place in places.items()}

    def __getitem__(self, name: str) -> bytes:
        start, size = self._places[name] if name in self._places else self._short[name]
        return bytes(self._held[start : start + size])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def load(entry: str, files: Mapping[str, bytes]) -> tuple[Predict, dict[str, Any]]:
    """The function that answers, and what the model says of itself: `classes` and `max_batch_rows`. Raises Refusal."""
    module, _, name = entry.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        raise Refusal(f"{module} has no {name}")
    if isinstance(found, type):
        model = found()
        if hasattr(model, "load"):
            model.load(files)
        elif files:
            raise Refusal(f"{name} has no load(files), and files were given")
        predict = getattr(model, "predict", None)
        if not callable(predict):
            raise Refusal(f"{name} has no predict(inputs)")
    elif callable(found):
        if files:
            raise Refusal(f"{name} is a function, which has no load(files), and files were given")
        model, predict = found, found
    else:
        raise Refusal(f"{name} is neither a class nor a function")
    return cast("Predict", predict), _said(model)


def _said(model: object) -> dict[str, Any]:
    said: dict[str, Any] = {}
    classes = getattr(model, "classes", None)
    if classes is not None:
        plain = np.asarray(classes).tolist()
        if not isinstance(plain, list) or any(not isinstance(each, str | bool | int | float) for each in plain):
            raise Refusal("classes is a flat list of texts, numbers or booleans")
        said["classes"] = plain
    rows = getattr(model, "max_batch_rows", None)
    if rows is not None:
        if type(rows) is not int or rows < 1:
            raise Refusal("max_batch_rows is a number above 0")
        said["max_batch_rows"] = rows
    return said


def answered(answer: Any, rows: int) -> dict[str, Array]:
    """What `predict` gave as named arrays of `rows` rows. Raises Refusal for what is neither an array nor a dictionary of arrays."""
    named = answer if isinstance(answer, Mapping) else {"prediction": answer}
    found: dict[str, Array] = {}
    for name, value in named.items():
        array = np.asarray(value)
        if not isinstance(name, str) or not name or array.ndim == 0 or len(array) != rows:
            raise Refusal("predict(inputs) gives an array, or a dictionary of arrays by name, with one answer per row")
        if array.dtype.kind in "UT":
            array = array.astype(object)
        found[name] = array
    if not found:
        raise Refusal("predict(inputs) gives at least one output")
    return found


class Talk:
    """Answers the frames of one socket, one after another."""

    def __init__(self, connection: socket.socket, predict: Predict) -> None:
        self._connection = connection
        self._predict = predict
        self._reader = codec.Reader(limit_bytes=BODY_LIMIT_BYTES)
        self._writer = codec.Writer()

    def run(self) -> None:
        """Until the other side closes."""
        receive, reader = self._connection.recv_into, self._reader
        while True:
            frame = reader.next()
            while frame is None:
                count = receive(reader.room())
                if count == 0:
                    return
                reader.filled(count)
                frame = reader.next()
            self._answer(frame)

    def _answer(self, frame: codec.Frame) -> None:
        if frame.kind == codec.LIBRARIES:
            self._connection.sendall(codec.note(codec.LIBRARIES, frame.ident, {"modules": libraries()}))
            return
        inputs = self._reader.tensors(frame)
        rows = len(next(iter(inputs.values())))
        start = time.perf_counter()
        try:
            outputs = answered(self._predict(inputs), rows)
            micros = min(int((time.perf_counter() - start) * 1e6), 0xFFFFFFFF)
            buffers = self._writer.tensors(codec.ANSWER, frame.ident, outputs, micros=micros)
        except MemoryError:
            # What it holds is unknown now: a fresh process answers the next.
            self._connection.sendall(codec.note(codec.FAILED, frame.ident, {"kind": "MemoryError", "text": "", "out_of_memory": True}))
            os._exit(1)
        except Exception as error:  # noqa: BLE001 - a model's code may raise anything
            self._connection.sendall(codec.note(codec.FAILED, frame.ident, told(error)))
            return
        if len(buffers) == 1:
            self._connection.sendall(buffers[0])
        else:
            for buffer in buffers:
                self._connection.sendall(buffer)


def told(error: BaseException) -> dict[str, str]:
    """An error for the author: its class, its first line, and the place in the model's own code."""
    text = (str(error).strip().splitlines() or [""])[0][:TEXT_LIMIT]
    frames = [each for each in traceback.extract_tb(error.__traceback__) if f"{os.sep}code{os.sep}" in each.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return {"kind": type(error).__name__[:TEXT_LIMIT], "text": text.encode("utf-8", "replace").decode(), "where": where}


OWN = frozenset(name.partition(".")[0] for name in sys.modules)
"""What this file itself loads, the standard library's modules left aside."""


def libraries() -> list[str]:
    """The top-level modules beyond the standard library's that the model's code has loaded."""
    found = {name.partition(".")[0] for name in list(sys.modules)}
    return sorted(found - set(sys.stdlib_module_names) - OWN)


def unpack(descriptor: int, code: Path) -> Files:
    """Write the code members below `code` and give the data members. The file: 8 bytes length, JSON of (path, start, size), the bytes."""
    size = os.fstat(descriptor).st_size
    held: mmap.mmap | bytes = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    os.close(descriptor)
    length = int.from_bytes(held[:8], "little")
    places: dict[str, tuple[int, int]] = {}
    for path, start, count in json.loads(held[8 : 8 + length]):
        kind, _, name = path.partition("/")
        if kind == "files":
            places[name] = (8 + length + start, count)
            continue
        target = code / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(held[8 + length + start : 8 + length + start + count])
    return Files(held, places)


def main(argv: list[str]) -> int:
    """Serve one model; `argv` is one JSON object that `process.py` wrote."""
    given = json.loads(argv[1])
    connection = socket.socket(fileno=given["socket"])
    os.umask(0o077)
    try:
        if not given["weak"]:
            sandbox.keep_apart(given["closed"])
        means = sandbox.enter(given["scratch"], memory_bytes=given["memory_bytes"], user=given["user"], parent=given["parent"], weak=given["weak"])
    except OSError as error:
        connection.sendall(codec.note(codec.REFUSED, 0, {"kind": "isolation", "text": str(error)}))
        return 1
    try:
        code = Path(given["scratch"]) / "code"
        code.mkdir()
        files = unpack(given["members"], code)
        sys.path.insert(0, str(code))
        sys.dont_write_bytecode = True
        predict, said = load(given["entry"], files)
    except BaseException as error:  # noqa: BLE001 - SystemExit included: the author is told, whatever it was
        connection.sendall(codec.note(codec.REFUSED, 0, told(error)))
        return 1
    gc.collect()
    gc.freeze()
    connection.sendall(codec.note(codec.READY, 0, {**said, **means._asdict()}))
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        Talk(connection, predict).run()
    return 0


if __name__ == "__main__":
    code_ = main(sys.argv)
    os._exit(code_)  # threads of the model's must not keep the process
