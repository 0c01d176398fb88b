"""bundle.parts: what members a bundle with code may have, by path and by content."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest

from modelyard.bundle import parts
from modelyard.errors import PayloadTooLarge, UnsupportedFormat

CODE = {"code/churn.py": b"def predict(inputs):\n    return inputs['X']\n"}


def saved(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def archive(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, data in entries.items():
            made.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return file.getvalue()


def safetensors(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


TENSORS = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("code/churn/__init__.py", b""),
        ("code/churn/vocabulary.txt", "größer".encode()),
        ("files/weights.npz", saved(w=np.ones(3))),
        ("files/facts.json", b'{"a": [1, 2]}'),
        ("files/w.safetensors", safetensors(TENSORS, bytes(8))),
    ],
)
def test_source_and_data_are_taken(path: str, data: bytes) -> None:
    parts.check({**CODE, path: data})


@pytest.mark.parametrize(
    "path",
    [
        "code/../evil.py", "code/a/../../evil.py", "/etc/evil.py", "code/.hidden.py", "code//evil.py", "evil.py", "code/a\\b.py", "code/sp ace.py",
        "code/evil.py\0", "files/deep/weights.json", "code/" + "a/" * 20 + "b.py", "code/" + "a" * 300 + ".py", "code/con./x.py", "blobs/x.py",
    ],
)  # fmt: skip
def test_a_path_that_leaves_or_hides_is_refused(path: str) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        parts.check({**CODE, path: b"1"})
    assert caught.value.rule == "path"


def test_paths_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="case"):
        parts.check({**CODE, "code/Churn.py": b""})


@pytest.mark.parametrize("name", ["weights.npz", "weights.json", "weights.onnx", "weights.safetensors", "weights.skops", "weights"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_refused_under_any_name(name: str, protocol: int) -> None:
    with pytest.raises(UnsupportedFormat):
        parts.check({**CODE, f"files/{name}": pickle.dumps({"a": [1.5, 2]}, protocol)})


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.npz", saved(w=np.array([{}], dtype=object)), "objects"),
        ("a.npz", archive(data_dot_pkl=b"x"), "torch"),
        ("a.npz", archive(readme_dot_txt=b"x"), "no array"),
        ("a.npz", saved(w=np.ones(3))[:60], "whole"),
        ("a.npz", b"\x1f\x8b" + bytes(20), "joblib"),
        ("a.skops", archive(schema_dot_json=b"{}", w_dot_bin=pickle.dumps([1], 4)), "pickle"),
        ("a.skops", saved(w=np.ones(3)), "format"),
        ("a.npz", archive(schema_dot_json=b"{}"), "format"),
        ("a.json", b"{", "whole"),
        ("a.json", b"[" * 100_000, "whole"),
        ("a.onnx", b"hello", "ONNX"),
        ("a.safetensors", safetensors(TENSORS, bytes(7)), "long"),
        ("a.safetensors", safetensors({"w": {"data_offsets": [4, 8]}}, bytes(8)), "behind"),
        ("a.safetensors", (1 << 40).to_bytes(8, "little") + b"{}", "whole"),
        ("a.pt", b"anything", "npz"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("a.so", b"\x7fELF", "npz"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_refused_saying_so(name: str, data: bytes, says: str) -> None:
    with pytest.raises(UnsupportedFormat, match=says):
        parts.check({**CODE, f"files/{name}": data})


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("m.so", b"\x7fELF", "format"), ("m.pyc", b"x", "format"), ("m.sh", b"rm", "format"), ("m.py", b"\xff", "utf-8"), ("m.py", b"a\0", "utf-8"),
        ("m.py", b"def f(:", "syntax"), ("m.pkl", pickle.dumps(1), "format"),
    ],
)  # fmt: skip
def test_code_is_text_that_python_reads(name: str, data: bytes, rule: str) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        parts.check({**CODE, f"code/{name}": data})
    assert caught.value.rule == rule


def test_there_is_some_code_and_not_too_much() -> None:
    with pytest.raises(UnsupportedFormat, match=r"\.py"):
        parts.check({"files/a.json": b"1"})
    with pytest.raises(PayloadTooLarge):
        parts.check_paths(f"code/m{number}.py" for number in range(parts.COUNT_LIMIT + 1))
