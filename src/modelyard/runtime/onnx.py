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
from modelyard.runtime.validate import row_bytes

if TYPE_CHECKING:
    from modelyard.runtime.binding import Binding
    from modelyard.types import Array, Schema

TOGETHER_BYTES = 1 << 20
"""Of inputs in one run: more leave the core's caches, and a run gains nothing by rows that large (images). One row always runs."""
WIDE_BYTES = 64 << 10
"""A row of so many bytes runs through blocks of memory so large that fetching them anew for each run costs a good part of it."""


def session(model: bytes, *, is_wide: bool = False) -> Any:
    """An onnxruntime session of one thread for `model`. Raises UnsupportedFormat when onnxruntime cannot load it.

    One thread: workers are the unit of parallelism, and the order of additions must not depend on the number of cores.
    """
    quiet_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Both hold memory for the largest batch ever seen, and make single small rows no faster; for wide ones (a hundredth) `Onnx` bounds what is held.
    options.enable_cpu_mem_arena = is_wide
    options.enable_mem_pattern = is_wide
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
        is_wide = row_bytes(schema) >= WIDE_BYTES
        self._run = _run_of(session(model, is_wide=is_wide))
        self._giving_back = _giving_back() if is_wide else None
        self._kept_bytes = max(TOGETHER_BYTES, row_bytes(schema))
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
            fed = self._feed(inputs)
            is_large = self._giving_back is not None and sum(array.nbytes for array in fed.values()) > self._kept_bytes
            return dict(zip(self._names, self._run(self._fetch, fed, self._giving_back if is_large else None), strict=True))
        except Exception as error:
            raise ModelFailed("the model failed on an input that its schema accepts") from error

    def _in_parts(self, inputs: Mapping[str, Array], limit: int) -> dict[str, Array]:
        rows = len(inputs[self._first])
        parts = [self.predict({name: array[at : at + limit] for name, array in inputs.items()}) for at in range(0, rows, limit)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}

    def close(self) -> None:
        """See `Runtime.close`."""
        self._run = _closed


def _run_of(opened: Any) -> Callable[..., list[Array]]:
    """What runs the session: its `run` looks for missing inputs, foreign memory and captured graphs of a GPU first, which none of ours has, and
    takes a fifth of a small run's time for it. A release of onnxruntime that has nothing behind that is asked the common way.
    """
    run: Callable[..., list[Array]] = getattr(getattr(opened, "_sess", None), "run", None) or opened.run
    return run


def _giving_back() -> Any:
    """The options of a run behind which the session lets go of the memory that it kept."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _closed(*_: object) -> list[Array]:
    raise RuntimeError("the runtime is closed")


def _feed(feeders: tuple[tuple[str, Feeder], ...]) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """All graph inputs from the schema's arrays; the common case of one input is spared its loop."""
    if len(feeders) == 1:
        ((graph, feed),) = feeders
        return lambda inputs: {graph: feed(inputs)}
    return lambda inputs: {graph: feed(inputs) for graph, feed in feeders}
