"""The session behind the port: failures translated, quiet, single-threaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from converting import converted
from sklearn.linear_model import LinearRegression

from modelyard.errors import ModelFailed, UnsupportedFormat
from modelyard.runtime.onnx import _run_of, first_line, session


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(UnsupportedFormat, match=r"onnxruntime [\d.]+ cannot load this graph"):
        session(b"\x08\x01nothing")


def test_the_cause_of_a_failure_is_chained_and_its_text_withheld(numbers: np.ndarray, target: np.ndarray) -> None:
    runtime = converted(LinearRegression().fit(numbers, target), numbers).runtime
    with pytest.raises(ModelFailed) as failed:
        runtime.predict({"X": numbers[:, :2]})
    assert failed.value.__cause__ is not None
    assert "X" not in failed.value.message
    with pytest.raises(ModelFailed):
        runtime.predict({"Y": numbers})


def test_what_a_library_says_is_cut_to_a_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 1000))) == 300


def test_a_session_is_run_without_what_its_wrapper_asks_first_where_that_is_to_be_had(numbers: np.ndarray, target: np.ndarray) -> None:
    runtime = converted(LinearRegression().fit(numbers, target), numbers).runtime
    assert type(runtime._run.__self__).__module__.startswith("onnxruntime.capi.onnxruntime_pybind11_state")

    class Other:
        def run(self) -> str:
            return "the common way"

    assert _run_of(Other())() == "the common way"


WATCH = """
import os, sys, threading, pathlib
from modelyard.runtime.onnx import session

def threads():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()

import numpy
before = threads()
try:
    session(b"")
except Exception:
    pass
files = sorted(str(path) for path in pathlib.Path(os.environ["HOME"]).rglob("*"))
print(threads() - before, files, sorted(set(sys.modules) & {"onnx", "sklearn", "pandas", "skl2onnx"}))
"""


def test_loading_it_starts_no_thread_writes_no_file_and_brings_no_converter(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    found = subprocess.run([sys.executable, "-c", WATCH], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0 [] []"


HOLD = """
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper
from modelyard.runtime import onnx as under_test
from modelyard.runtime.binding import Binding, GraphInput, GraphOutput
from modelyard.serve.loading import give_back_memory, resident_bytes
from modelyard.types import Schema, TensorSpec

if sys.argv[1] == "keeps":
    under_test._giving_back = lambda: None
X = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 256, 256])
Y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["n", 256])
nodes = [helper.make_node("Exp", ["X"], ["h"]), helper.make_node("Neg", ["h"], ["g"]), helper.make_node("ReduceMax", ["g"], ["Y"], keepdims=0)]
nodes[-1].attribute.append(helper.make_attribute("axes", [2]))
graph = helper.make_graph(nodes, "wide", [X], [Y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9).SerializeToString()
spec = TensorSpec(name="X", datatype="FP32", shape=(-1, 256, 256))
given = GraphInput(graph="X", inputs=("X",), dtype="float32")
binding = Binding(kind="onnx", inputs=(given,), outputs=(GraphOutput(name="Y", graph="Y"),))
runtime = under_test.Onnx(model, binding, Schema(inputs=(spec,), outputs=(), layout="tensor", task="other"))
image = np.zeros((1, 256, 256), np.float32)
runtime.predict({"X": image})
many = np.repeat(image, 400, axis=0)
before = resident_bytes()
runtime.predict({"X": many})
give_back_memory()
print(resident_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("mode", ["gives back", "keeps"])
def test_a_session_of_wide_rows_gives_back_what_a_large_run_took(mode: str) -> None:
    """Such a run takes at least 100 MiB; the control switches the giving back off."""
    done = subprocess.run([sys.executable, "-c", HOLD, mode], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 50 << 20) == (mode == "keeps")
