"""Plain ONNX: ZipMap taken away, inputs met by name or side by side, and what cannot be served refused."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pandas as pd
import pytest
from converting import converted, learnt
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

from modelyard.errors import MalformedPayload, SchemaMismatch, Unconvertible, UnsupportedFormat
from modelyard.runtime.data import read
from modelyard.runtime.originals import adapt
from modelyard.runtime.originals.onnx import OnnxModel


def graph(nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def value(name: str, shape: list[int | str | None], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture(scope="module")
def floats(numbers: np.ndarray) -> np.ndarray:
    return numbers[:, [0, 2]].astype(np.float32)


@pytest.mark.parametrize("texts", [True, False])
def test_a_classifier_with_zipmap_becomes_label_and_probability(texts: bool, floats: np.ndarray, two: np.ndarray) -> None:
    labels = two if texts else (two == "yes").astype(int)
    model = RandomForestClassifier(4, random_state=0).fit(floats, labels)
    exported = to_onnx(model, floats[:1])
    assert any(node.op_type == "ZipMap" for node in exported.graph.node)
    found = converted(exported, floats)
    assert found.schema.classes == tuple(model.classes_.tolist())
    assert [spec.name for spec in found.schema.outputs] == ["label", "probability"]
    assert found.conversion.method == "as given"
    answers = found.runtime.predict({"X": floats[:6]})
    assert answers["label"].tolist() == model.predict(floats[:6]).tolist()
    np.testing.assert_allclose(answers["probability"], model.predict_proba(floats[:6]), atol=1e-6)


def test_a_graph_without_zipmap_is_served_byte_for_byte(floats: np.ndarray, target: np.ndarray) -> None:
    exported = to_onnx(LinearRegression().fit(floats, target), floats[:1]).SerializeToString()
    found = converted(exported, floats)
    assert found.conversion.model == exported
    assert found.schema.task == "other"
    assert found.runtime.predict({"X": floats[:4]})["variable"].shape == (4, 1)


def test_a_frame_meets_one_wide_input_or_inputs_of_its_names(floats: np.ndarray, target: np.ndarray) -> None:
    frame = pd.DataFrame(floats, columns=["a", "b"])
    wide = converted(to_onnx(LinearRegression().fit(floats, target), floats[:1]), frame)
    assert wide.conversion.binding.inputs[0].inputs == ("a", "b")
    total = graph([helper.make_node("Add", ["b", "a"], ["y"])], [value("b", [None, 1]), value("a", [None, 1])], [value("y", [None, 1])])
    named = converted(total, frame)
    assert [given.inputs for given in named.conversion.binding.inputs] == [("b",), ("a",)]
    with pytest.raises(SchemaMismatch, match="input 'b' has no column"):
        OnnxModel(total.SerializeToString()).bind(read(frame[["a"]])[0])


def test_named_tensors_of_any_shape() -> None:
    nodes = [helper.make_node("ReduceSum", ["image", "axes"], ["sum"], keepdims=0), helper.make_node("Add", ["sum", "bias"], ["y"])]
    nodes.insert(0, helper.make_node("Constant", [], ["axes"], value=helper.make_tensor("a", TensorProto.INT64, [2], [1, 2])))
    model = graph(nodes, [value("image", ["N", 3, 4]), value("bias", ["N"])], [value("y", ["N"])])
    data = {"image": np.arange(60, dtype=np.float32).reshape(5, 3, 4), "bias": np.arange(5, dtype=np.float32)}
    found = converted(model, data)
    assert found.schema.layout == "tensors"
    assert found.runtime.predict(data)["y"].tolist() == (data["image"].sum(axis=(1, 2)) + data["bias"]).tolist()


def test_a_batch_of_one_is_asked_row_by_row(floats: np.ndarray) -> None:
    model = graph([helper.make_node("Neg", ["x"], ["y"])], [value("x", [1, 2])], [value("y", [1, 2])])
    found = converted(model, floats[:70])
    assert found.conversion.binding.max_batch_rows == 1
    assert found.runtime.predict({"X": floats[:5]})["y"].tolist() == (-floats[:5]).tolist()
    with pytest.raises(Unconvertible, match="exactly 7 rows"):
        fixed = graph([helper.make_node("Neg", ["x"], ["y"])], [value("x", [7, 2])], [value("y", [7, 2])])
        OnnxModel(fixed.SerializeToString()).bind(read(floats)[0])


def test_an_output_without_a_row_for_each_row_is_refused(floats: np.ndarray) -> None:
    model = graph([helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0)], [value("x", [None, 2])], [value("y", [])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = adapt(model)
    with pytest.raises(Unconvertible, match="one answer per row"):
        original.predict(read(floats)[0])


def test_what_is_no_model_or_not_whole(floats: np.ndarray) -> None:
    with pytest.raises(MalformedPayload):
        adapt(b"\x08\x09 not protobuf \xff\xff")
    with pytest.raises(MalformedPayload, match="no outputs"):
        adapt(b"")
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    model = graph([helper.make_node("Mul", ["x", "w"], ["y"])], [value("x", [None, 2])], [value("y", [None, 2])])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    model.graph.initializer.append(tensor)
    with pytest.raises(UnsupportedFormat, match="in other files"):
        adapt(model)
    unknown = graph([helper.make_node("Nonsense", ["x"], ["y"], domain="mine")], [value("x", [None, 2])], [value("y", [None, 2])])
    with pytest.raises(UnsupportedFormat, match="cannot load this graph"):
        adapt(unknown)


def test_the_schema_is_learnt_over_the_graph(floats: np.ndarray, two: np.ndarray) -> None:
    original = adapt(to_onnx(RandomForestClassifier(2, random_state=0).fit(floats, two), floats[:1]).SerializeToString())
    schema = learnt(original, read(floats)[0])
    assert schema.inputs[0].datatype == "FP32"
    assert original.title == "ONNX graph (skl2onnx)"
    assert "onnxruntime" in original.packages
