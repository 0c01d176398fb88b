"""runtime.isolated.child: the author's contract, here without a process."""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.runtime.isolated.child import Files, Refusal, answered, libraries, load, told, unpack


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str) -> str:
        name = f"contract_{secrets.token_hex(6)}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


CLASS = """
class M:
    classes = ("a", "b")
    max_batch_rows = 3
    def load(self, files): self.w = files["w"]
    def predict(self, inputs): return self.w
"""


def test_a_class_is_made_loaded_and_asked(module: Any) -> None:
    name = module(CLASS)
    predict, said = load(f"{name}:M", {"w": b"x"})
    assert predict({}) == b"x" and said == {"classes": ["a", "b"], "max_batch_rows": 3}


def test_a_function_is_asked(module: Any) -> None:
    predict, said = load(f"{module('def f(inputs): return 1')}:f", {})
    assert predict({}) == 1 and said == {}


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("x = 1", {}), ("f = 3", {}), ("def f(i): pass", {"w": b""}), ("class f: pass", {}), ("class f:\n    def predict(self, i): pass", {"w": b""}),
        ("class f:\n    classes = 3\n    def predict(self, i): pass", {}), ("class f:\n    classes = [[1]]\n    def predict(self, i): pass", {}),
        ("class f:\n    max_batch_rows = 0\n    def predict(self, i): pass", {}),
        ("class f:\n    max_batch_rows = True\n    def predict(self, i): pass", {}),
    ],
)  # fmt: skip
def test_what_does_not_keep_the_contract_is_refused(module: Any, source: str, files: dict[str, bytes]) -> None:
    with pytest.raises(Refusal):
        load(f"{module(source)}:f", files)


def test_answers_are_named_arrays_of_as_many_rows() -> None:
    assert answered([1, 2], 2)["prediction"].tolist() == [1, 2]
    assert answered({"a": np.array(["x", "y"])}, 2)["a"].dtype == object
    for bad in (1.0, [1], {}, {"a": 1}, {"": [1, 2]}, {1: [1, 2]}, None):
        with pytest.raises(Refusal):
            answered(bad, 2)


def test_an_error_is_told_by_kind_first_line_and_place_in_the_code(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "m.py").write_text("def f():\n    raise KeyError('first\\nsecond')\n")
    space: dict[str, Any] = {}
    exec(compile((folder / "m.py").read_text(), str(folder / "m.py"), "exec"), space)
    try:
        space["f"]()
    except KeyError as error:
        found = told(error)
    assert found["kind"] == "KeyError" and found["where"] == "m.py:2"
    assert len(told(ValueError("x" * 9999))["text"]) == 300


def test_members_are_unpacked_into_source_and_files(tmp_path: Path) -> None:
    listed = json.dumps([["code/a/b.py", 0, 3], ["files/w.npz", 3, 2]]).encode()
    with tempfile.TemporaryFile() as file:
        file.write(len(listed).to_bytes(8, "little") + listed + b"abcde")
        file.flush()
        files = unpack(os.dup(file.fileno()), tmp_path)
    assert (tmp_path / "a" / "b.py").read_bytes() == b"abc"
    assert dict(files) == {"w.npz": b"de"} and files["w"] == b"de" and len(files) == 1
    with pytest.raises(KeyError):
        files["other"]
    assert isinstance(files, Files)


def test_own_libraries_are_not_the_models() -> None:
    assert "numpy" not in libraries() and "modelyard" not in libraries() and "sys" not in libraries()
    assert sys.modules
