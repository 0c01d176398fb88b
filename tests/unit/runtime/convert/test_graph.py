"""One graph's bytes and binding: constants, selections, what is left out, parts made elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from modelyard.runtime.convert.graph import Graph, single


def build(*, unused: bool = True) -> tuple[bytes, object]:
    graph = Graph()
    names = [("a", "float64", "nan"), ("s", "string", "nan"), ("b", "float32", "nan"), ("c", "float64", "nan")]
    columns = graph.frame(names if unused else [names[0], names[3]])  # type: ignore[arg-type]
    wanted = tuple(column for column in columns if column.name in ("c", "a"))[::-1]
    total = graph.node("Mul", [graph.join(wanted), graph.constant([2.0, 3.0])])
    return graph.finish([("y", total, TensorProto.DOUBLE, 2)])


def test_the_same_calls_give_the_same_bytes_and_a_valid_model() -> None:
    first, second = build(), build()
    assert first == second
    onnx.checker.check_model(onnx.load_model_from_string(first[0]))


def test_columns_that_nothing_reads_do_not_travel() -> None:
    model, binding = build()
    assert [(given.graph, given.inputs, given.dtype) for given in binding.inputs] == [("numbers", ("a", "c"), "float64")]
    found = onnxruntime.InferenceSession(model).run(None, {"numbers": np.array([[1.0, 10.0]])})[0]
    assert found.tolist() == [[20.0, 3.0]]


def test_selections_of_all_columns_in_order_cost_no_node() -> None:
    graph = Graph()
    columns = graph.matrix("X", "float64", 3)
    assert graph.join(columns) == "X"
    assert graph.join(columns[:2]) != "X"
    assert graph.join(columns[:2]) == graph.join(columns[:2])


def test_equal_constants_share_one_tensor_and_unequal_do_not() -> None:
    graph = Graph()
    assert graph.constant([1.0]) == graph.constant([1.0])
    assert graph.constant([1.0]) != graph.constant([[1.0]])
    assert graph.constant([0.0]) != graph.constant([-0.0])
    assert graph.constant(["a", "bc"], "string") != graph.constant(["ab", "c"], "string")


def test_a_float32_column_is_rounded_after_a_step() -> None:
    graph = Graph()
    columns = graph.matrix("X", "float32", 1)
    third = graph.node("Mul", [graph.join(columns), graph.constant([1 / 3])])
    (made,) = graph.split(third, 1, single(columns))
    model, _ = graph.finish([("y", graph.join((made,)), TensorProto.DOUBLE, 1)])
    found = onnxruntime.InferenceSession(model).run(None, {"X": np.array([[1.0]], np.float32)})[0]
    assert found[0, 0] == np.float64(np.float32(1 / 3))


def test_a_part_made_elsewhere_is_renamed_with_its_inner_graphs() -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in ("t1", "y"))
    then = helper.make_graph(
        [helper.make_node("Add", ["t1", "one"], ["t2"])], "then", [], [helper.make_tensor_value_info("t2", TensorProto.DOUBLE, None)]
    )
    other = helper.make_graph([helper.make_node("Neg", ["t1"], ["t2"])], "else", [], [helper.make_tensor_value_info("t2", TensorProto.DOUBLE, None)])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)
    constants = [helper.make_tensor("one", TensorProto.DOUBLE, [], [1.0]), helper.make_tensor("yes", TensorProto.BOOL, [], [True])]
    part = helper.make_model(helper.make_graph([node], "part", [x], [y], constants), opset_imports=[helper.make_opsetid("", 18)])
    graph = Graph()
    columns = graph.matrix("X", "float64", 1)
    doubled = graph.node("Add", [graph.join(columns), graph.join(columns)])
    (made,) = graph.include(part, {"t1": doubled})
    model, _ = graph.finish([("y", made, TensorProto.DOUBLE, 1)])
    assert onnxruntime.InferenceSession(model).run(None, {"X": np.array([[4.0]])})[0].tolist() == [[9.0]]


def test_a_part_of_a_later_opset_is_refused() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 1])
    part = helper.make_model(helper.make_graph([], "part", [value], [value]), opset_imports=[helper.make_opsetid("", 99)])
    with pytest.raises(ValueError, match="opset 99"):
        Graph().include(part, {"x": "X"})
