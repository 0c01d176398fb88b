"""Plain ONNX models: already what is served, once their inputs and outputs have been given the schema's form.

Hides how a table meets the graph's inputs, and that scikit-learn's converters answer probabilities as a list of dictionaries (ZipMap), which no
wire carries. Only that last node is ever taken away; the rest of the graph stays as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.bundle import selfcontained
from modelyard.errors import MalformedPayload, SchemaMismatch, Unconvertible
from modelyard.runtime.binding import Binding, GraphInput, GraphOutput, feeder
from modelyard.runtime.onnx import session
from modelyard.runtime.originals.base import distributions, label_array, label_datatype
from modelyard.types import Schema, TensorSpec

if TYPE_CHECKING:
    from modelyard.runtime.binding import ElementType
    from modelyard.runtime.data import Table
    from modelyard.types import Array, Datatype, Scalar, Task

_DATATYPES: dict[str, tuple[ElementType, Datatype]] = {
    "tensor(bool)": ("bool", "BOOL"), "tensor(int8)": ("int8", "INT8"), "tensor(int16)": ("int16", "INT16"), "tensor(int32)": ("int32", "INT32"),
    "tensor(int64)": ("int64", "INT64"), "tensor(uint8)": ("uint8", "UINT8"), "tensor(uint16)": ("uint16", "UINT16"),
    "tensor(uint32)": ("uint32", "UINT32"), "tensor(uint64)": ("uint64", "UINT64"), "tensor(float16)": ("float16", "FP16"),
    "tensor(float)": ("float32", "FP32"), "tensor(double)": ("float64", "FP64"), "tensor(string)": ("string", "BYTES"),
}  # fmt: skip


class OnnxModel:
    """An ONNX model as given. Its session is its own, so that what is served is compared with the unchanged graph."""

    kind = "onnx"

    def __init__(self, data: bytes) -> None:
        import onnx

        selfcontained.check(data)  # before any library could open such a file
        try:
            self.model = onnx.load_model_from_string(data)
        except Exception as error:  # protobuf's DecodeError has no public home
            raise MalformedPayload("the bytes are not an ONNX model") from error
        if not self.model.graph.output:
            raise MalformedPayload("the ONNX model has no outputs")
        self._session = session(data)
        producer = self.model.producer_name or "unknown producer"
        self.title = f"ONNX graph ({producer})"
        self.packages = distributions({"onnxruntime", "numpy"})
        self.served, self._names, self.classes = self._without_zipmap(data)
        self.task: Task = "classification" if self.classes is not None else "other"

    def _without_zipmap(self, data: bytes) -> tuple[bytes, dict[str, str], tuple[Scalar, ...] | None]:
        """The bytes to serve, the schema's name of each served output, and the classes if the graph ended in one ZipMap."""
        graph = self.model.graph
        maps = [node for node in graph.node if node.op_type == "ZipMap"]
        outputs = [value.name for value in graph.output]
        if not maps:
            return data, {name: name for name in outputs}, None
        if len(maps) > 1 or len(outputs) != 2 or maps[0].output[0] not in outputs:
            raise Unconvertible("the ONNX model answers dictionaries (ZipMap) in a form that is not known; convert it with zipmap=False")
        classes: tuple[Scalar, ...] = ()
        for attribute in maps[0].attribute:
            if attribute.name == "classlabels_strings":
                classes = tuple(each.decode("utf-8") for each in attribute.strings)
            elif attribute.name == "classlabels_int64s":
                classes = tuple(attribute.ints)
        import onnx

        changed = onnx.ModelProto()
        changed.CopyFrom(self.model)
        changed.graph.node.remove(next(node for node in changed.graph.node if node.op_type == "ZipMap"))
        label = next(name for name in outputs if name != maps[0].output[0])
        element = self._producer_element(maps[0].input[0])
        kept = next(value for value in changed.graph.output if value.name == label)
        probability = onnx.helper.make_tensor_value_info(maps[0].input[0], element, ["N", len(classes)])
        del changed.graph.output[:]
        changed.graph.output.extend([kept, probability] if kept.name == label else [probability])
        return changed.SerializeToString(deterministic=True), {"label": label, "probability": maps[0].input[0]}, classes

    def _producer_element(self, tensor: str) -> int:
        import onnx

        known = onnx.shape_inference.infer_shapes(self.model).graph.value_info
        found = [value.type.tensor_type.elem_type for value in known if value.name == tensor]
        return found[0] if found and found[0] else int(onnx.TensorProto.FLOAT)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See `Original.outputs`. Without a ZipMap these are the graph's own outputs."""
        if self.classes is not None:
            return (
                TensorSpec(name="label", datatype=label_datatype(self.classes), shape=(-1,)),
                TensorSpec(name="probability", datatype=_DATATYPES[self._probability_type()][1], shape=(-1, len(self.classes))),
            )
        made = []
        for value in self._session.get_outputs():
            if value.type not in _DATATYPES:
                raise Unconvertible(f"output {value.name!r} is a {value.type}; only tensors travel", field=value.name, rule="type")
            made.append(TensorSpec(name=value.name, datatype=_DATATYPES[value.type][1], shape=_shape(value.shape)))
        return tuple(made)

    def _probability_type(self) -> str:
        return next(str(value.type) for value in session(self.served).get_outputs() if value.name == self._names["probability"])

    def predict(self, table: Table) -> dict[str, Array]:
        """See `Original.predict`: the unchanged graph's answers."""
        binding = self.bind(table)
        schema = Schema(
            inputs=tuple(TensorSpec(name=name, datatype="FP32", shape=(-1,), is_nullable=True) for name in table.columns),
            outputs=(),
            layout=table.layout,
            task=self.task,
        )
        feeds = {given.graph: feeder(given, schema)(table.columns) for given in binding.inputs}
        names = [value.name for value in self._session.get_outputs()]
        limit = binding.max_batch_rows or table.rows
        runs = [
            self._session.run(None, {graph: array[at : at + limit] for graph, array in feeds.items()}) for at in range(0, table.rows, max(1, limit))
        ]
        if self.classes is None:
            return {name: self._whole(name, [np.asarray(run[at]) for run in runs], table.rows) for at, name in enumerate(names)}
        at = names.index(self._names["label"])
        label = np.concatenate([run[at] for run in runs])
        rows: list[dict[Any, float]] = [row for run in runs for row in run[1 - at]]
        element = _DATATYPES[self._probability_type()][0]
        probability = np.array([[row[each] for each in self.classes] for row in rows], dtype=element)
        return {"label": label_array(label, self.classes), "probability": probability}

    def _whole(self, name: str, found: list[Array], rows: int) -> Array:
        whole = np.concatenate(found) if found[0].ndim else found[0]
        if whole.ndim == 0 or len(whole) != rows:
            raise Unconvertible(f"output {name!r} does not have one answer per row", field=name, rule="batch")
        return whole

    def bind(self, table: Table) -> Binding:
        """How the table's columns meet the graph's inputs: by name, or all of them side by side in the graph's one input.

        Raises SchemaMismatch naming the input without a column, or Unconvertible for inputs that are no tensors with a batch first.
        """
        graph_inputs = self._session.get_inputs()
        for value in graph_inputs:
            if value.type not in _DATATYPES or not value.shape:
                raise Unconvertible(f"input {value.name!r} is not a tensor with the batch first", field=value.name, rule="type")
        names = list(table.columns)
        limit = self._fixed_batch(graph_inputs)
        outputs = tuple(GraphOutput(name=name, graph=graph) for name, graph in self._names.items())
        by_name = {value.name for value in graph_inputs} <= set(names)
        if not by_name and len(graph_inputs) > 1:
            absent = next(value.name for value in graph_inputs if value.name not in names)
            raise SchemaMismatch(f"the graph's input {absent!r} has no column of that name in the data", field=absent, rule="exists")
        inputs = tuple(
            GraphInput(graph=value.name, inputs=(value.name,) if by_name else tuple(names), dtype=_DATATYPES[value.type][0]) for value in graph_inputs
        )
        return Binding(kind="onnx", inputs=inputs, outputs=outputs, max_batch_rows=limit)

    def _fixed_batch(self, graph_inputs: Any) -> int | None:
        fixed = {value.shape[0] for value in graph_inputs if isinstance(value.shape[0], int) and value.shape[0] > 0}
        if not fixed:
            return None
        if fixed != {1}:
            raise Unconvertible(f"the graph takes exactly {max(fixed)} rows at a time; export it with an open batch dimension", rule="batch")
        return 1


def _shape(shape: Any) -> tuple[int, ...]:
    """The schema's shape: the batch first and open, other symbols open as well."""
    return (-1, *(each if isinstance(each, int) and each > 0 else -1 for each in (shape or [None])[1:]))
