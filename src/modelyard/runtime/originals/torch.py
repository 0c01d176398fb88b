"""A PyTorch module: exported to a graph by torch.export, and asked beside it row by row.

Hides the exporter: how a table becomes the module's arguments, what the graph's inputs and outputs are called, and what the exporter writes into
it that differs from machine to machine. It must not pickle, trace by example or change the module. What torch.export cannot express is refused,
naming the way that works: the module's source as code and its weights as data.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import Unconvertible
from modelyard.runtime.onnx import first_line
from modelyard.runtime.originals.base import distributions
from modelyard.runtime.originals.onnx import OnnxModel

if TYPE_CHECKING:
    from modelyard.runtime.binding import Binding
    from modelyard.runtime.data import Table
    from modelyard.types import Array, Scalar, Task, TensorSpec

SAMPLE_ROWS = 3
INSTEAD = (
    "serve it as code: a class whose load(files) builds the module and loads its weights from safetensors and whose predict(inputs) asks it; then "
    "modelyard.package(TheClass, name=…, data=…, code=['its_file.py'], files={'weights': 'weights.safetensors'})"
)


class TorchModel:
    """A module in evaluation mode, on the CPU, beside the graph that was exported from it. It is asked in this process, which has it already."""

    kind = "onnx"
    task: Task = "other"
    classes: tuple[Scalar, ...] | None = None
    instead = INSTEAD

    def __init__(self, module: Any) -> None:
        self.model = module
        self.title = f"torch {type(module).__name__}"
        self.packages = distributions({"torch", "numpy", "onnxruntime"})
        self._dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), None)
        self._takes = _parameters(module)
        self.outputs: tuple[TensorSpec, ...] = ()

    def learn(self, table: Table) -> None:
        """Export it, by the types and shapes of `table`. Raises Unconvertible with torch's reason, and the way that works."""
        self._graph = OnnxModel(self._export(table))
        self.served = self._graph.served
        self.outputs = self._graph.outputs

    def bind(self, table: Table) -> Binding:
        """How columns meet the graph's inputs, see `OnnxModel.bind`."""
        return self._graph.bind(table)

    def predict(self, table: Table) -> dict[str, Array]:
        """See `Original.predict`: the module's own answers."""
        answers = self._ask(self._arguments(table))
        return {name: value.detach().cpu().numpy() for name, value in answers.items()}

    def _arguments(self, table: Table) -> dict[str, Any]:
        """The module's arguments by name: a column for each of several, all columns side by side for the only one."""
        import torch

        columns = table.columns
        texts = [name for name, column in columns.items() if column.dtype == object]
        if texts:
            raise Unconvertible(f"a torch module takes numbers; column {texts[0]!r} is text", field=texts[0], rule="type")
        if len(self._takes) == 1 and set(columns) != set(self._takes):
            wide = (
                next(iter(columns.values()))
                if len(columns) == 1
                else np.concatenate([each.reshape(table.rows, -1) for each in columns.values()], axis=1)
            )
            given = {self._takes[0]: wide}
        else:
            absent = [name for name in self._takes if name not in columns]
            if absent:
                raise Unconvertible(f"forward takes {absent[0]!r}, and the data has nothing of that name", field=absent[0], rule="exists")
            given = {name: columns[name] for name in self._takes}
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in given.items()}
        return {name: each.to(self._dtype) if self._dtype is not None and each.is_floating_point() else each for name, each in tensors.items()}

    def _ask(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                return _named(self.model(**arguments))
        finally:
            self.model.train(was_training)

    def _export(self, table: Table) -> bytes:
        import torch

        sample = table.take(np.resize(np.arange(table.rows), SAMPLE_ROWS))
        arguments = self._arguments(sample)
        try:
            outputs = list(self._ask(arguments))
        except Unconvertible:
            raise
        except Exception as error:
            raise Unconvertible(f"{self.title} does not answer the data that was given: {first_line(error)}", field="data") from error
        was_training = self.model.training
        self.model.eval()
        try:
            with _quietly():
                program = torch.onnx.export(
                    self.model,
                    kwargs=arguments,
                    dynamo=True,
                    verbose=False,
                    input_names=list(arguments),
                    output_names=outputs,
                    dynamic_shapes={name: {0: torch.export.Dim("batch", min=1)} for name in arguments},
                )
                proto = program.model_proto
        except ImportError as error:
            raise Unconvertible(
                f"to export {self.title} torch needs {error.name or 'onnxscript'}; install it, or {INSTEAD}", field="model"
            ) from error
        except Exception as error:
            raise Unconvertible(
                f"torch.export cannot express {self.title}: {_reason(error)}. Else {INSTEAD}", field="model", rule="export"
            ) from error
        finally:
            self.model.train(was_training)
        _without_places(proto)
        return bytes(proto.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter warns of, logs and prints: graphs of several screens, also where it succeeds."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of the exporter's failure."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.sub(r"\x1b\[\d+m", "", first_line(error)).rstrip(".")


def _parameters(module: Any) -> list[str]:
    """The arguments that forward needs."""
    found = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in found if each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    if not names:
        raise Unconvertible(f"{type(module).__name__}.forward takes no named tensor; {INSTEAD}", field="model", rule="inputs")
    return names


def _named(answer: Any) -> dict[str, Any]:
    """What forward gave as tensors by name. Raises Unconvertible for anything but a tensor, a tuple of them or a dictionary of them."""
    import torch

    if isinstance(answer, torch.Tensor):
        return {"output": answer}
    if isinstance(answer, (tuple, list)):
        answer = {f"output_{number}": each for number, each in enumerate(answer)}
    if not isinstance(answer, Mapping) or not answer or any(not isinstance(each, torch.Tensor) for each in answer.values()):
        raise Unconvertible(f"forward gives a tensor, several, or a dictionary of them; else {INSTEAD}", field="model", rule="outputs")
    return {str(name): each for name, each in answer.items()}


def _without_places(proto: Any) -> None:
    """Take out what tells of the machine and not of the model: stack traces, notes, the exporter's version."""
    proto.producer_version = proto.doc_string = ""
    del proto.metadata_props[:]
    for graph in (proto.graph, *proto.functions):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for value in graph.value_info:
            del value.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
