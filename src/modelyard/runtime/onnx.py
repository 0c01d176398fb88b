"""Runs an ONNX graph in this process.

Hides onnxruntime: its session, its options and its exceptions. It must not load a converter or the `onnx` package; a serving
worker imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.config import quiet_onnxruntime
from modelyard.errors import ModelFailed, UnsupportedFormat
from modelyard.runtime.binding import Feeder, feeder

if TYPE_CHECKING:
    from modelyard.runtime.binding import Binding
    from modelyard.types import Array, Schema


def session(model: bytes) -> Any:
    """An onnxruntime session of one thread for `model`. Raises UnsupportedFormat when onnxruntime cannot load it.

    One thread: workers are the unit of parallelism, and the order of additions must not depend on the number of cores.
    """
    quiet_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # both hold memory for the largest batch ever seen, and make single rows no faster
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UnsupportedFormat(f"onnxruntime {onnxruntime.__version__} cannot load this graph: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of what a library said, at most 300 characters: enough to name the operator, no dump of a graph."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class Onnx:
    """A Runtime over one session. `predict` is safe in several threads at once; whoever opened it closes it."""

    def __init__(self, model: bytes, binding: Binding, schema: Schema) -> None:
        self._run = session(model).run
        self._feed = _feed(tuple((given.graph, feeder(given, schema)) for given in binding.inputs))
        self._names = tuple(output.name for output in binding.outputs)
        self._fetch = [output.graph for output in binding.outputs]
        self._first = schema.inputs[0].name
        self._limit = binding.max_batch_rows

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runtime.predict`."""
        if self._limit is not None and len(inputs[self._first]) > self._limit:
            return self._in_parts(inputs, self._limit)
        try:
            return dict(zip(self._names, self._run(self._fetch, self._feed(inputs)), strict=True))
        except Exception as error:
            raise ModelFailed("the model failed on an input that its schema accepts") from error

    def _in_parts(self, inputs: Mapping[str, Array], limit: int) -> dict[str, Array]:
        rows = len(inputs[self._first])
        parts = [self.predict({name: array[at : at + limit] for name, array in inputs.items()}) for at in range(0, rows, limit)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}

    def close(self) -> None:
        """See `Runtime.close`."""
        self._run = _closed


def _closed(*_: object) -> list[Array]:
    raise RuntimeError("the runtime is closed")


def _feed(feeders: tuple[tuple[str, Feeder], ...]) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """All graph inputs from the schema's arrays; the common case of one input is spared its loop."""
    if len(feeders) == 1:
        ((graph, feed),) = feeders
        return lambda inputs: {graph: feed(inputs)}
    return lambda inputs: {graph: feed(inputs) for graph, feed in feeders}
