"""bundle.selfcontained: weights outside the model file are found wherever they hide, and nothing else is taken for them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.bundle import selfcontained
from modelyard.errors import UnsupportedFormat


def weights(location: str | None) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, dtype=np.float32), "w")
    if location is not None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    return tensor


def node(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], value=tensor)


def graph(nodes: list[onnx.NodeProto] | None = None, **given: list[TensorProto]) -> onnx.GraphProto:
    # A column called "location" is a name like any other.
    nodes = [helper.make_node("Identity", ["location"], ["y"]), *(nodes or [])]
    name = helper.make_tensor_value_info("location", TensorProto.FLOAT, [None])
    return helper.make_graph(nodes, "g", [name], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])], **given)


def sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.arange(4), "i"), [9])


def model(where: str, location: str | None) -> bytes:
    tensor = weights(location)
    if where == "initializer":
        made = helper.make_model(graph(initializer=[tensor]))
    elif where == "constant":
        made = helper.make_model(graph([node(tensor)]))
    elif where == "subgraph":
        branch = helper.make_graph([node(tensor)], "b", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])])
        made = helper.make_model(graph([helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)]))
    elif where == "function":
        function = helper.make_function("d", "F", [], ["w"], [node(tensor)], [helper.make_opsetid("", 20)])
        made = helper.make_model(graph(), functions=[function])
    elif where == "sparse":
        made = helper.make_model(graph([helper.make_node("Constant", [], ["w"], sparse_value=sparse(tensor))]))
    else:
        made = helper.make_model(graph())
        made.training_info.add().initialization.CopyFrom(graph([node(tensor)]))
    helper.set_model_props(made, {"location": "Oslo"})
    return made.SerializeToString()


@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph", "function", "sparse", "training"])
def test_external_data_is_refused_wherever_it_hides(where: str) -> None:
    selfcontained.check(model(where, None))
    for location in ("weights.bin", "a/../../etc/passwd", "/etc/passwd"):
        with pytest.raises(UnsupportedFormat, match="other files"):
            selfcontained.check(model(where, location))


def test_trees_with_many_numbers_are_walked() -> None:
    numbers = helper.make_node("T", ["location"], ["z"], ints=list(range(200_000)), floats=[0.5] * 100_000, strings=["location"] * 100)
    selfcontained.check(helper.make_model(graph([numbers])).SerializeToString())
    with pytest.raises(UnsupportedFormat):
        selfcontained.check(helper.make_model(graph([numbers, node(weights("x"))])).SerializeToString())


def test_a_key_written_in_an_unusual_way_is_found() -> None:
    # Protobuf allows a length of 8 to be written in two bytes, and a value before its key.
    entry = b"\x12\x01x\x0a\x88\x00location"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    inner = b"\x2a" + bytes([len(tensor)]) + tensor
    with pytest.raises(UnsupportedFormat, match="other files"):
        selfcontained.check(b"\xba\x00" + bytes([len(inner)]) + inner)


def test_a_tag_that_readers_would_cut_to_another_field_is_refused() -> None:
    # onnxruntime's protobuf keeps the low 32 bits of a tag; by all its bits this one is no graph.
    inner = graph(initializer=[weights("x")]).SerializeToString()
    size = bytes([len(inner) & 0x7F | 0x80, len(inner) >> 7])
    with pytest.raises(UnsupportedFormat, match="other files"):
        selfcontained.check(b"\x3a" + size + inner)
    with pytest.raises(UnsupportedFormat):
        selfcontained.check(b"\xba\x80\x80\x80\x10" + size + inner)


@pytest.mark.parametrize(
    "data", [b"location", b"\x3a\xff\xff\xff\x7flocation", b"\x3b location", b"\x08" + b"\xff" * 12 + b"location", b"\x0dlo location"]
)
def test_what_is_no_protobuf_is_refused_not_crashed_on(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        selfcontained.check(data)


def test_graphs_nested_without_end_are_refused() -> None:
    data = b"location"
    for _ in range(80):  # Graph.node(1) > Node.attribute(5) > Attribute.g(6)
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            size = len(data)
            data = tag + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + data
    size = len(data)
    with pytest.raises(UnsupportedFormat, match="nested"):
        selfcontained.check(b"\x3a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + data)
