"""From an original model to a graph that answers the same, with the proof; or a refusal that says why.

Hides the order in which ways are tried. A way counts only when every row of the data is answered within tolerance; nothing is served on
trust in a converter.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from modelyard.errors import ModelFailed, ModelyardError, Unconvertible
from modelyard.runtime.binding import Binding
from modelyard.runtime.onnx import Onnx, first_line
from modelyard.runtime.parity import Parity, prove
from modelyard.runtime.replay import answer_in_batches, batch_bits

if TYPE_CHECKING:
    from modelyard.runtime.data import Table
    from modelyard.runtime.originals.base import Original
    from modelyard.types import Array, Schema, Tolerance

PROOF_ROWS = 8192
"""Rows that are asked at once during the proof, so that memory does not grow with the data."""

SPEED_ROWS = 48
PROBE_ROWS = 32
_ASKED = 0.4
"""The share of the work that asking the original is, for progress."""

UNKNOWN = "modelyard-unknown"

Way = Literal["given", "exact", "double", "single"]
Progress = Callable[[str, float], None]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One way that was tried, and why it was chosen or not."""

    method: str
    chosen: bool
    reason: str


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """A graph that answers as the original does, with the proof and every attempt made on the way to it.

    `outputs` are its answers to every row, as the proof found them; None where nobody kept them.
    """

    model: bytes
    binding: Any  # the Binding of a graph, or the Code of a model that is code
    method: str
    parity: Parity
    attempts: tuple[Attempt, ...]
    outputs: dict[str, Any] | None = None


def convert(original: Original, table: Table, schema: Schema, *, tolerance: Tolerance, progress: Progress | None = None) -> Conversion:
    """The first way whose graph gives the original's answers on every row of `table`.

    Raises Unconvertible with every attempt's reason and what else will serve the model.
    """
    tell = progress or _silent
    asked = _Asked(original, table, schema, tolerance, tell)
    attempts: list[Attempt] = []
    models: set[bytes] = set()
    ways: tuple[Way, ...] = ("given",) if original.kind == "onnx" else ("exact", "double", "single")
    for number, way in enumerate(ways):

        def proving(share: float, number: int = number) -> None:
            tell("proving parity", _ASKED + (1 - _ASKED) * (number + share) / len(ways))

        tell(f"writing the graph: {_NAMES[way]}", _ASKED + (1 - _ASKED) * number / len(ways))
        found = _try(asked, way, models, attempts, proving)
        if found is not None:
            return found
    raise Unconvertible(_refusal(original, attempts), field="model", rule="parity")


def _try(asked: _Asked, way: Way, models: set[bytes], attempts: list[Attempt], proving: Callable[[float], None]) -> Conversion | None:
    """The conversion by this way; None where it gives none, with the reason added to `attempts`, or where its graph is one of `models`."""
    method = _NAMES[way]
    try:
        model, binding, parts = _build(asked, way)
        method += parts
        if model in models:
            return None
        models.add(model)
        runtime = Onnx(model, binding, asked.schema)
        parity, outputs = asked.proof(runtime, proving)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - converters raise whatever they like; the reason is kept and the next way tried
        if isinstance(error, ModelFailed):
            reason = f"the graph fails: {first_line(error.__cause__ or error)}"
        else:
            reason = error.message if isinstance(error, ModelyardError) else first_line(error)
        if all(attempt.reason != reason for attempt in attempts):
            attempts.append(Attempt(method=method, chosen=False, reason=reason))
        return None
    attempts.append(Attempt(method=method, chosen=parity.passed, reason=parity.describe()))
    if not parity.passed:
        return None
    spoken = asked.speeds(runtime, parity)
    return Conversion(model=model, binding=binding, method=method, parity=spoken, attempts=tuple(attempts), outputs=outputs)


def _silent(step: str, share: float) -> None:
    """For callers that show no progress."""


_NAMES = {
    "given": "as given",
    "exact": "trees and steps in double",
    "double": "stock converter in double",
    "single": "stock converter in float32",
}


def _refusal(original: Original, attempts: list[Attempt]) -> str:
    reasons = "; ".join(f"{attempt.method}: {attempt.reason}" for attempt in attempts)
    instead = getattr(original, "instead", "another step in place of the one named; or a model that you export to ONNX yourself, packaged as a file")
    return (
        f"{original.title} has no graph that gives its answers. {reasons}. What else will serve it: a wider --tolerance, where the difference is one "
        f"that you accept; {instead}"
    )


def _build(asked: _Asked, way: Way) -> tuple[bytes, Binding, str]:
    if way == "given":
        model: Any = asked.original
        return model.served, model.bind(asked.table), ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelyard.runtime.convert.write import write

        return write(asked.original, asked.table, asked.schema, way)


class _Asked:
    """The original's answers to every row, asked once, beside the means to compare a runtime with them."""

    def __init__(self, original: Original, table: Table, schema: Schema, tolerance: Tolerance, progress: Progress) -> None:
        self.original, self.table, self.schema = original, table, schema
        self._tolerance, self._progress = tolerance, progress
        self._native_s = 0.0
        self._answers = self._ask()
        self._probes = self._probe()

    def _ask(self) -> dict[str, Array]:
        parts = []
        for at in range(0, self.table.rows, PROOF_ROWS):
            self._progress("asking the original", _ASKED * at / self.table.rows)
            part = self.table if self.table.rows <= PROOF_ROWS else self.table.take(np.arange(at, min(at + PROOF_ROWS, self.table.rows)))
            start = time.perf_counter()
            try:
                parts.append(self.original.predict(part))
            except ModelyardError:
                raise
            except Exception as error:
                raise Unconvertible(f"{self.original.title} does not answer the data that was given: {first_line(error)}", field="data") from error
            self._native_s += time.perf_counter() - start
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _probe(self) -> tuple[dict[str, Array], dict[str, Array]] | None:
        """Rows with a category that nobody has seen, one column at a time, where the schema lets such values in: they will come."""
        sample = self.table.take(_spread(self.table.rows, PROBE_ROWS))
        inputs, answers = [], []
        for spec in self.schema.inputs:
            if spec.datatype == "BYTES" and spec.unknown_allowed and self.table.layout == "frame":
                changed = sample.replace(spec.name, UNKNOWN)
                inputs.append(changed.columns)
                answers.append(self.original.predict(changed))
        if not inputs:
            return None
        return _stacked(inputs), _stacked(answers)

    def proof(self, runtime: Onnx, tell: Callable[[float], None]) -> tuple[Parity, dict[str, Array]]:
        """Every row, then the probes; and the answers to every row. Raises ModelFailed."""
        parts, rows = [], self.table.rows
        start = time.perf_counter()
        for at in range(0, rows, PROOF_ROWS):
            tell(at / rows)
            parts.append(runtime.predict({name: array[at : at + PROOF_ROWS] for name, array in self.table.columns.items()}))
        seconds = time.perf_counter() - start
        outputs = _stacked(parts)
        parity = prove(self._answers, outputs, self.schema, self._tolerance)
        parity = msgspec.structs.replace(parity, native_bulk_us_per_row=self._native_s / rows * 1e6, converted_bulk_us_per_row=seconds / rows * 1e6)
        if parity.passed and self._probes is not None:
            inputs, answers = self._probes
            probed = prove(answers, runtime.predict(inputs), self.schema, self._tolerance)
            if not probed.passed:
                worst = msgspec.structs.replace(probed.worst, output=f"{probed.worst.output} (unknown category)") if probed.worst else None
                return msgspec.structs.replace(parity, passed=False, worst=worst, probes=probed.rows), outputs
            parity = msgspec.structs.replace(parity, probes=probed.rows)
        return parity, outputs

    def speeds(self, runtime: Onnx, parity: Parity) -> Parity:
        """What one row at a time costs on either side, and what other batch sizes change."""
        rows = _spread(self.table.rows, 64)
        inputs = {name: array[rows] for name, array in self.table.columns.items()}
        recorded = runtime.predict(inputs)
        _, converted = answer_in_batches(runtime, inputs, 1)
        singles = [self.table.take(np.array([row])) for row in rows[:SPEED_ROWS]]
        native = []
        stop = time.perf_counter() + 1.0
        for single in singles:
            start = time.perf_counter()
            self.original.predict(single)
            native.append(time.perf_counter() - start)
            if time.perf_counter() > stop and len(native) >= 3:
                break
        return msgspec.structs.replace(
            parity,
            native_us_per_row=statistics.median(native) * 1e6,
            converted_us_per_row=statistics.median(converted) * 1e6,
            batch_bits=batch_bits(runtime, inputs, recorded),
        )


def _spread(rows: int, count: int) -> Array:
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def _stacked(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
