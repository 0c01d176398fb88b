"""Judges whether two sets of answers are the same, row by row, and by how much they are not.

Hides the arithmetic of tolerance, labels at a tie, NaN and strings. It must stay pure (numpy alone): the same judgement is
made at packaging, at load, by gates and by `verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelyard.types import Tolerance

if TYPE_CHECKING:
    from modelyard.types import Array, Scalar, Schema


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How far one output lies from the original's over all rows; `max_rel` counts values that are not 0."""

    max_abs: float
    max_rel: float
    rows_over: int


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """The place where two answers differ most in terms of what is allowed. Values are answers, never inputs."""

    output: str
    row: int
    original: Scalar
    converted: Scalar


class BatchBits(msgspec.Struct, frozen=True, kw_only=True):
    """What answering golden rows in batches of another size changes: rows whose bits differ, and by how much at most."""

    rows: int
    max_abs: float


class Parity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The proof: every row's answer of the converted model against the original's.

    Speeds are of one row at a time (what a request meets) in microseconds; bulk speeds are of the proof's own large batches.
    """

    rows: int
    tolerance: Tolerance
    outputs: dict[str, Difference]
    labels_differing: int
    labels_excused: int
    passed: bool
    worst: Worst | None = None
    probes: int = 0
    native_us_per_row: float = 0.0
    converted_us_per_row: float = 0.0
    native_bulk_us_per_row: float = 0.0
    converted_bulk_us_per_row: float = 0.0
    batch_bits: dict[str, BatchBits] = {}

    def describe(self) -> str:
        """One sentence: how it went, naming output, row and both values where it failed."""
        if self.passed:
            largest = max((difference.max_abs for difference in self.outputs.values()), default=0.0)
            return f"{self.rows:,} rows agree; largest difference {largest:.2g}"
        over = sum(difference.rows_over for difference in self.outputs.values())
        sentence = f"{over:,} values differ in {self.rows:,} rows"
        if self.worst is not None:
            worst = self.worst
            sentence += f"; output {worst.output!r}, row {worst.row}: the original says {worst.original!r}, the converted {worst.converted!r}"
        return sentence


def prove(original: Mapping[str, Array], converted: Mapping[str, Array], schema: Schema, tolerance: Tolerance) -> Parity:
    """Compare every output of every row. A label may differ where the original's two best probabilities lie within tolerance.

    Both mappings hold the schema's outputs with the batch first. Another shape is a difference on every row.
    """
    rows = len(next(iter(original.values())))
    outputs: dict[str, Difference] = {}
    differing = excused = 0
    worst: tuple[float, Worst] | None = None
    for spec in schema.outputs:
        ours, theirs = np.asarray(converted[spec.name]), np.asarray(original[spec.name])
        is_label = spec.name == "label" and schema.task == "classification"
        excess, difference = _compare(theirs, ours, rows, tolerance, is_exact=is_label)
        over = excess > 1
        if is_label:
            differing = int(over.sum())
            excusable = _near_best(original.get("probability"), ours, schema, tolerance)
            excused = int((over & excusable).sum())
            over &= ~excusable
            excess = np.where(over, excess, 0.0)
            difference = msgspec.structs.replace(difference, rows_over=int(over.sum()))
        outputs[spec.name] = difference
        if over.any():
            row = int(np.argmax(excess))
            if worst is None or excess[row] > worst[0]:
                worst = (float(excess[row]), _place(spec.name, row, theirs, ours, tolerance))
    return Parity(
        rows=rows,
        tolerance=tolerance,
        outputs=outputs,
        labels_differing=differing,
        labels_excused=excused,
        passed=worst is None,
        worst=worst[1] if worst else None,
    )


def allowed(tolerance: Tolerance, values: Array) -> Array:
    """The largest difference allowed at each of `values`."""
    return tolerance.absolute + tolerance.relative * np.abs(values)


def _near_best(probability: Array | None, label: Array, schema: Schema, tolerance: Tolerance) -> Array:
    """Where the class that was chosen is, to the original, as likely as its own choice within tolerance."""
    if probability is None or schema.classes is None or (*label.shape, len(schema.classes)) != probability.shape:
        return np.zeros(len(label), bool)
    best = probability.max(axis=1)
    is_chosen = label.astype(object).reshape(-1, 1) == np.array([schema.classes], object)
    chosen = np.where(is_chosen, probability, -np.inf).max(axis=1)
    return np.asarray(best - chosen <= allowed(tolerance, best))


def _compare(theirs: Array, ours: Array, rows: int, tolerance: Tolerance, *, is_exact: bool) -> tuple[Array, Difference]:
    """Per row the largest difference as a multiple of what is allowed (above 1 is too much), and the figures over all rows."""
    if theirs.shape != ours.shape:
        return np.full(rows, np.inf), Difference(max_abs=float("inf"), max_rel=float("inf"), rows_over=rows)
    if is_exact or theirs.dtype.kind in "OUSb" or ours.dtype.kind in "OUSb":
        over = (theirs != ours).reshape(rows, -1).any(axis=1)
        return np.where(over, np.inf, 0.0), Difference(max_abs=0.0, max_rel=0.0, rows_over=int(over.sum()))
    x, y = theirs.reshape(rows, -1).astype(np.float64), ours.reshape(rows, -1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # beside a number that is almost none any other is as far off as can be
        delta = np.abs(x - y)
        alike = (x == y) | (np.isnan(x) & np.isnan(y))
        delta = np.where(alike, 0.0, np.where(np.isnan(delta), np.inf, delta))
        excess = np.where(alike, 0.0, delta / np.where(np.isfinite(x), allowed(tolerance, x), 1.0))
        relative = np.where((x == 0) | ~np.isfinite(x), 0.0, np.minimum(delta / np.abs(x), np.finfo(np.float64).max))
    per_row = excess.max(axis=1, initial=0.0)
    return per_row, Difference(max_abs=float(delta.max(initial=0.0)), max_rel=float(relative.max(initial=0.0)), rows_over=int((per_row > 1).sum()))


def _place(name: str, row: int, theirs: Array, ours: Array, tolerance: Tolerance) -> Worst:
    if theirs.shape != ours.shape:
        return Worst(output=name, row=row, original=f"shape {theirs.shape}", converted=f"shape {ours.shape}")
    x, y = theirs[row : row + 1].reshape(-1), ours[row : row + 1].reshape(-1)
    at = 0
    if x.size > 1 and x.dtype.kind not in "OUSb":
        with np.errstate(invalid="ignore"):
            gap = np.abs(x.astype(np.float64) - y.astype(np.float64)) / allowed(tolerance, x.astype(np.float64))
        at = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
    return Worst(output=name, row=row, original=_scalar(x[at]), converted=_scalar(y[at]))


def _scalar(value: object) -> Scalar:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and not np.isfinite(plain):
        return str(plain)  # JSON has no NaN
    return plain if isinstance(plain, (str, int, float, bool)) else str(plain)
