"""Writes one ONNX graph, with the same bytes for the same model in every process.

Hides protobuf, names, opsets and ir versions. Names count up from the order of construction, constants are shared by value,
opsets are sorted and the graph's name is constant. It must not know any model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from modelyard.runtime.binding import Binding, GraphInput, GraphOutput

if TYPE_CHECKING:
    from modelyard.types import Scalar

OPSET = 19
"""The first with comparison of strings."""

TREES_OPSET = 5
"""The version of ai.onnx.ml that has TreeEnsemble in double; graphs without trees say 3, which the stock converters write for."""

IR_VERSION = 9
Kind = Literal["float64", "float32", "string"]
Absent = Literal["nan", "none"]
Mode = Literal["exact", "double", "single"]
"""`exact`: our own writers wherever there is one; `double` and `single`: every scikit-learn predictor by its stock converter, in that precision."""

_ELEMENTS = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT, "string": TensorProto.STRING}


@dataclass(frozen=True)
class Column:
    """Column `index` of the two-dimensional tensor `tensor`.

    Numbers are always double in the graph. Kind `float32` says that the original holds this column in float32, so every value here is exact in
    float32 and the result of each step must be rounded to it. `is_sparse`: the original hands it on in a sparse matrix, where 0 is absent.
    `absent`: what stands for missing text in the original's data; scikit-learn tells NaN and None apart, the wire does not. `categories`: what a
    categorical column of a frame declares, in the order of its codes.
    """

    tensor: str
    index: int
    kind: Kind
    name: str = ""
    is_sparse: bool = False
    absent: Absent = "nan"
    categories: tuple[Scalar, ...] | None = None


Columns = tuple[Column, ...]


class Graph:
    """A graph under construction. Steps take columns and give columns; nothing is gathered or joined before a step needs it in one piece."""

    def __init__(self, mode: Mode = "exact") -> None:
        self.mode = mode
        self._nodes: list[NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[TensorProto] = []
        self._inputs: list[tuple[str, Kind, int]] = []
        self._sources: dict[str, list[str]] = {}
        self._widths: dict[str, int] = {}
        self._count = 0
        self._opsets: dict[str, int] = {"": OPSET, "ai.onnx.ml": 3}
        self._joined: dict[Columns, str] = {}
        self._selections: dict[str, tuple[str, list[int]]] = {}
        self._most_rows: int | None = None
        self.stock: set[str] = set()

    # Inputs

    def matrix(self, name: str, kind: Kind, width: int, absent: Absent = "nan") -> Columns:
        """The columns of one schema input of shape [-1, width]."""
        self._inputs.append((name, kind, width))
        self._sources[name] = [name]
        tensor = name
        if kind == "float32":
            tensor = self.node("Cast", [name], to=TensorProto.DOUBLE)
        self._widths[tensor] = width
        return tuple(Column(tensor, index, kind, absent=absent) for index in range(width))

    def frame(self, columns: Iterable[tuple[str, Kind, Absent]]) -> Columns:
        """The columns of a frame: its numbers become one double input, its strings one string input, each stacked in the frame's order."""
        found = []
        for name, kind, absent in columns:
            tensor = "strings" if kind == "string" else "numbers"
            names = self._sources.setdefault(tensor, [])
            found.append(Column(tensor, len(names), kind, name, absent=absent))
            names.append(name)
        for tensor in ("numbers", "strings"):
            if tensor in self._sources:
                width = len(self._sources[tensor])
                self._inputs.append((tensor, "string" if tensor == "strings" else "float64", width))
                self._widths[tensor] = width
        return tuple(found)

    # Nodes

    def node(self, op: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """Append a node with one output and give the output's name."""
        return self.nodes(op, inputs, 1, domain=domain, **attributes)[0]

    def nodes(self, op: str, inputs: Sequence[str], outputs: int, *, domain: str = "", **attributes: Any) -> list[str]:
        """Append a node with several outputs."""
        names = [self.fresh() for _ in range(outputs)]
        node = NodeProto(op_type=op, domain=domain, input=list(inputs), output=names)
        node.attribute.extend(_attribute(name, attributes[name]) for name in sorted(attributes))
        self._nodes.append(node)
        return names

    def fresh(self) -> str:
        """A name that no other value has."""
        self._count += 1
        return f"t{self._count}"

    def constant(self, value: Any, dtype: str = "float64") -> str:
        """The name of a constant tensor; equal tensors share one."""
        array = np.asarray(value, object if dtype == "string" else dtype)
        content = "\0".join(map(str, array.reshape(-1))).encode("utf-8", "surrogatepass") if dtype == "string" else array.tobytes()
        key = (dtype, array.shape, content)
        if key not in self._constants:
            name = f"c{len(self._constants) + 1}"
            self._constants[key] = name
            tensor = numpy_helper.from_array(array, name)
            self._initializers.append(tensor)
        return self._constants[key]

    def needs(self, domain: str, version: int) -> None:
        """Raise the opset of `domain` to at least `version`."""
        self._opsets[domain] = max(self._opsets.get(domain, 1), version)

    def bound(self, rows: int) -> None:
        """Say that more than `rows` rows in one run would need too much memory."""
        self._most_rows = min(rows, self._most_rows or rows)

    # Columns

    def join(self, columns: Columns) -> str:
        """One tensor [N, len(columns)] of these columns, all numbers or all strings."""
        columns = tuple(replace(column, is_sparse=False, absent="nan", categories=None) for column in columns)
        if columns in self._joined:
            return self._joined[columns]
        runs: list[tuple[str, list[int]]] = []
        for column in columns:
            if runs and runs[-1][0] == column.tensor:
                runs[-1][1].append(column.index)
            else:
                runs.append((column.tensor, [column.index]))
        parts = []
        for tensor, indices in runs:
            parts.append(self._selected(tensor, indices))
        name = parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=1)
        self._widths[name] = len(columns)
        self._joined[columns] = name
        return name

    def _selected(self, tensor: str, indices: list[int]) -> str:
        if indices == list(range(self._widths[tensor])):
            return tensor
        name = self.node("Gather", [tensor, self.constant(indices, "int64")], axis=1)
        if tensor in self._sources:
            self._selections[name] = (tensor, indices)
        return name

    def split(self, tensor: str, width: int, kind: Kind, names: Sequence[str] = ()) -> Columns:
        """The columns of a tensor [N, width] that a step made; for kind float32 they are first rounded to it."""
        if kind == "float32":
            tensor = self.rounded(tensor)
        self._widths[tensor] = width
        return tuple(Column(tensor, index, kind, names[index] if names else "") for index in range(width))

    def rounded(self, tensor: str) -> str:
        """`tensor` with each value rounded to float32, in double."""
        return self.node("Cast", [self.node("Cast", [tensor], to=TensorProto.FLOAT)], to=TensorProto.DOUBLE)

    # Parts made elsewhere

    def include(self, part: ModelProto, inputs: Mapping[str, str]) -> list[str]:
        """Append another model's nodes with names of ours; gives the names of its outputs. Sub-graphs are renamed along."""
        for opset in part.opset_import:
            if opset.domain in ("", "ai.onnx") and opset.version > self._opsets[""]:
                raise ValueError(f"the converter wrote for opset {opset.version}; this graph is of {OPSET}")
            if opset.domain not in ("", "ai.onnx"):
                self.needs(opset.domain, opset.version)
        names = dict(inputs)
        for tensor in part.graph.initializer:
            names[tensor.name] = self._initializer(tensor)
        for node in part.graph.node:
            self._nodes.append(self._renamed(node, names))
        return [names[output.name] for output in part.graph.output]

    def _initializer(self, tensor: TensorProto) -> str:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind in "OSU":
            text = [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in array.reshape(-1)]
            return self.constant(np.array(text, object).reshape(array.shape), "string")
        return self.constant(array, array.dtype.name)

    def _renamed(self, node: NodeProto, names: dict[str, str]) -> NodeProto:
        copy = NodeProto(op_type=node.op_type, domain="" if node.domain == "ai.onnx" else node.domain)
        copy.input.extend(names[name] if name else "" for name in node.input)
        for attribute in sorted(node.attribute, key=lambda each: each.name):
            mine = copy.attribute.add()
            mine.CopyFrom(attribute)
            if attribute.HasField("g"):
                mine.g.CopyFrom(self._renamed_graph(attribute.g, names))
        for name in node.output:
            names[name] = self.fresh() if name else ""
        copy.output.extend(names[name] for name in node.output)
        return copy

    def _renamed_graph(self, graph: GraphProto, outer: dict[str, str]) -> GraphProto:
        names = dict(outer)
        copy = GraphProto(name="body")
        for value in graph.input:
            names[value.name] = self.fresh()
            copy.input.add().CopyFrom(_value_named(value, names[value.name]))
        for tensor in graph.initializer:
            names[tensor.name] = self._initializer(tensor)
        copy.node.extend(self._renamed(node, names) for node in graph.node)
        copy.output.extend(_value_named(value, names[value.name]) for value in graph.output)
        return copy

    # The whole

    def finish(self, outputs: Sequence[tuple[str, str, int, int | None]]) -> tuple[bytes, Binding]:
        """The model and its binding, for outputs (name, tensor, element type, width or None for one dimension).

        What no output needs is left out, so an unused column costs nothing; the binding names what is left.
        """
        live = {tensor for _, tensor, _, _ in outputs}
        kept = []
        for node in reversed(self._nodes):
            if live & set(node.output):
                kept.append(node)
                live |= set(_read_by(node))
        kept.reverse()
        answered = {tensor for _, tensor, _, _ in outputs}
        for tensor in [name for name, _, _ in self._inputs if len(self._sources[name]) > 1 and name not in answered]:
            self._narrow(tensor, kept)
        live = answered | {name for node in kept for name in _read_by(node)}
        renamed = [NodeProto(op_type="Identity", input=[tensor], output=[name]) for name, tensor, _, _ in outputs]
        model = ModelProto(ir_version=IR_VERSION, producer_name="modelyard")
        model.opset_import.extend(helper.make_opsetid(domain, self._opsets[domain]) for domain in sorted(self._opsets))
        graph = model.graph
        graph.name = "model"
        graph.node.extend([*kept, *renamed])
        graph.initializer.extend(tensor for tensor in self._initializers if tensor.name in live)
        inputs = [(name, kind, width) for name, kind, width in self._inputs if name in live]
        for name, kind, width in inputs:
            graph.input.add().CopyFrom(helper.make_tensor_value_info(name, _ELEMENTS[kind], ["N", width]))
        for name, _, element, output_width in outputs:
            shape: list[str | int] = ["N"] if output_width is None else ["N", output_width]
            graph.output.add().CopyFrom(helper.make_tensor_value_info(name, element, shape))
        binding = Binding(
            kind="onnx",
            inputs=tuple(GraphInput(graph=name, inputs=tuple(self._sources[name]), dtype=kind) for name, kind, _ in inputs),
            outputs=tuple(GraphOutput(name=name, graph=name) for name, *_ in outputs),
            max_batch_rows=self._most_rows,
        )
        return model.SerializeToString(deterministic=True), binding

    def _narrow(self, tensor: str, kept: list[NodeProto]) -> None:
        """Take the columns that no node reads out of a stacked input, and count the others anew."""
        readers = [node for node in kept if tensor in _read_by(node)]
        chosen = [self._selections.get(node.output[0]) for node in readers]
        if any(choice is None for choice in chosen):
            return
        used = sorted({index for choice in chosen if choice for index in choice[1]})
        if len(used) == self._widths[tensor]:
            return
        self._sources[tensor] = [self._sources[tensor][index] for index in used]
        self._inputs = [(name, kind, len(used) if name == tensor else width) for name, kind, width in self._inputs]
        for node, choice in zip(readers, chosen, strict=True):
            positions = [used.index(index) for index in choice[1]] if choice else []
            if positions == list(range(len(used))):
                node.CopyFrom(NodeProto(op_type="Identity", input=[tensor], output=list(node.output)))
            else:
                node.input[1] = self.constant(positions, "int64")


def single(columns: Columns) -> Kind:
    """The kind of number that a step over these columns computes in: float32 only where all of them are."""
    return "float32" if columns and all(column.kind == "float32" for column in columns) else "float64"


def _read_by(node: NodeProto) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _read_by(inner)
            yield from (value.name for value in attribute.g.output)


def _value_named(value: ValueInfoProto, name: str) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _attribute(name: str, value: Any) -> AttributeProto:
    """An attribute; integer arrays go in whole, because `helper.make_attribute` looks at each of a million nodes several times."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iub" and value.ndim == 1 and name != "nodes_modes":
        attribute = AttributeProto(name=name, type=AttributeProto.INTS)
        attribute.ints.extend(value.tolist())
        return attribute
    if isinstance(value, np.ndarray):
        return AttributeProto(name=name, type=AttributeProto.TENSOR, t=numpy_helper.from_array(value, name))
    return onnx.helper.make_attribute(name, value)
