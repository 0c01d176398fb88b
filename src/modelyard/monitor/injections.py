"""Drifts that are put into rows on purpose, to learn what would be seen of them.

Hides how each kind changes values of a column's own type. Pure: rows and a generator in, rows out; what was given is not changed. The kinds are those
of the field's benchmark protocols: a moved mean, a wider spread, another unit, missing values, swapped and unseen categories, a default, shuffled
values, swapped labels, another prior. It must not judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array, Schema, TensorSpec

Kind = Literal["mean", "spread", "unit", "missing", "swap", "unseen", "default", "shuffle", "labels", "prior"]
SIZES: dict[Kind, tuple[float, ...]] = {
    "mean": (0.1, 0.25, 0.5, 1.0, 2.0),
    "spread": (0.25, 0.5, 1.0, 2.0),
    "unit": (10.0,),
    "missing": (0.05, 0.2, 1.0),
    "swap": (0.1, 0.3, 1.0),
    "unseen": (0.02, 0.1, 1.0),
    "default": (0.1, 0.3, 1.0),
    "shuffle": (0.3, 1.0),
    "labels": (0.05, 0.1, 0.25, 0.5),
    "prior": (0.25, 0.5, 0.75),
}
"""How large each kind is tried: `mean` and `spread` in standard deviations, `unit` as a factor, the others as a share of the rows (`prior`: of those
of one class that stay away).
"""
OF_LABELS: tuple[Kind, ...] = ("labels", "prior")
UNSEEN = "modelyard-unseen"


class Drift(NamedTuple):
    """One change of one column (None: of the labels), abrupt, or growing evenly over `ramp_rows`."""

    kind: Kind
    column: str | None
    size: float
    element: int = 0
    ramp_rows: int = 0

    @property
    def said(self) -> str:
        """In words."""
        of = f"{self.size:g} sd" if self.kind in ("mean", "spread") else f"x{self.size:g}" if self.kind == "unit" else f"{self.size:.0%}"
        return f"{self.kind} {of}{' growing' if self.ramp_rows else ''}"


class Rows(NamedTuple):
    """Inputs by name with the rows first, and labels (None: not known)."""

    inputs: Mapping[str, Array]
    labels: Array | None

    def take(self, rows: Array) -> Rows:
        """Those rows, in that order."""
        return Rows({name: values[rows] for name, values in self.inputs.items()}, None if self.labels is None else self.labels[rows])

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.inputs.values()))) if self.inputs else 0


def kinds(spec: TensorSpec) -> tuple[Kind, ...]:
    """The kinds that a column's type and the schema allow: what a request could not bring is not tried."""
    is_text = spec.datatype == "BYTES"
    found: list[Kind] = ["default", "shuffle"]
    if is_text or spec.categories is not None or spec.datatype == "BOOL":
        found.append("swap")
    if is_text and spec.unknown_allowed:
        found.append("unseen")
    if not is_text and spec.datatype != "BOOL" and spec.categories is None:
        found += ["mean", "spread", "unit"]
    if spec.is_nullable:
        found.append("missing")
    return tuple(found)


def inject(drift: Drift, rows: Rows, usual: Rows, rng: np.random.Generator, *, schema: Schema) -> Rows:
    """`rows` with the drift in them from the first on. `usual` are rows without it, by which spread and commonest values are known."""
    count = rows.size
    amount = np.minimum(1.0, np.arange(1, count + 1) / drift.ramp_rows) if drift.ramp_rows else np.ones(count)
    if drift.kind == "labels":
        return _swapped_labels(drift, rows, usual, rng, amount)
    if drift.kind == "prior":
        return _prior(drift, rows, usual, rng, amount)
    spec = next(each for each in schema.inputs if each.name == drift.column)
    values = rows.inputs[spec.name].copy()
    flat = values.reshape(count, -1)
    known = usual.inputs[spec.name].reshape(usual.size, -1)[:, drift.element]
    mine = flat[:, drift.element]
    if drift.kind in ("mean", "spread", "unit"):
        flat[:, drift.element] = _cast(_moved(drift, mine.astype(np.float64), known.astype(np.float64), amount), values.dtype, spec)
    else:
        flat[:, drift.element] = _hit(drift, mine, known, rng.random(len(mine)) < drift.size * amount, rng)
    return Rows({**rows.inputs, spec.name: flat.reshape(values.shape)}, rows.labels)


def _hit(drift: Drift, values: Array, known: Array, hit: Array, rng: np.random.Generator) -> Array:
    changed = values.copy()
    if drift.kind == "missing":
        changed[hit] = None if values.dtype == object else np.nan
    elif drift.kind == "unseen":
        changed[hit] = UNSEEN
    elif drift.kind == "default":
        changed[hit] = _common(known)[0]
    elif drift.kind == "shuffle":
        changed[hit] = rng.permutation(values[hit])
    else:
        first, second = _common(known)[:2] if len(_common(known)) > 1 else _common(known) * 2
        changed[hit & (values == first)] = second
        changed[hit & (values == second)] = first
    return changed


def _moved(drift: Drift, values: Array, known: Array, amount: Array) -> Array:
    present = known[np.isfinite(known)]
    middle, deviation = (float(present.mean()), float(present.std())) if len(present) else (0.0, 1.0)
    if drift.kind == "mean":
        return values + drift.size * deviation * amount
    if drift.kind == "spread":
        return np.asarray(middle + (values - middle) * (1 + drift.size * amount))
    return np.asarray(values * (1 + (drift.size - 1) * amount))


def _cast(values: Array, dtype: np.dtype[np.generic], spec: TensorSpec) -> Array:
    """As the column's own type; whole numbers stay whole and within it."""
    if dtype.kind in "iu" or spec.datatype.startswith(("INT", "UINT")):
        rounded = np.rint(values)
        bits = np.iinfo(spec.datatype.lower())
        return np.clip(rounded, max(bits.min, -(2**53)), min(bits.max, 2**53)).astype(dtype)
    return values.astype(dtype)


def _common(known: Array) -> list[object]:
    """The values, the commonest first; of equals the first in order."""
    counts: dict[object, int] = {}
    for value in known.tolist():
        if value is not None and not (isinstance(value, float) and math.isnan(value)):
            counts[value] = counts.get(value, 0) + 1
    return sorted(counts, key=lambda value: (-counts[value], str(value))) or [None]


def _swapped_labels(drift: Drift, rows: Rows, usual: Rows, rng: np.random.Generator, amount: Array) -> Rows:
    """One class (of the usual rows the commonest) gets the next one's label; a number is moved by so many of its deviations."""
    if rows.labels is None or usual.labels is None:
        return rows
    labels = rows.labels.copy()
    if labels.dtype.kind == "f":
        return Rows(rows.inputs, labels + 2 * drift.size * float(np.nanstd(usual.labels)) * amount)
    common = _common(usual.labels)
    hit = (rng.random(len(labels)) < drift.size * amount) & (labels == common[0])
    labels[hit] = common[min(1, len(common) - 1)]
    return Rows(rows.inputs, labels)


def _prior(drift: Drift, rows: Rows, usual: Rows, rng: np.random.Generator, amount: Array) -> Rows:
    """Of the commonest class (of numbers: of the upper half) so many rows stay away; others of `rows` come in their place."""
    if rows.labels is None or usual.labels is None:
        return rows
    is_number = rows.labels.dtype.kind == "f"
    is_class: Array = rows.labels > np.nanmedian(usual.labels) if is_number else rows.labels == _common(usual.labels)[0]
    gone = is_class & (rng.random(len(is_class)) < drift.size * amount)
    others = np.flatnonzero(~is_class)
    if not gone.any() or not len(others):
        return rows
    picked = np.arange(rows.size)
    picked[gone] = rng.choice(others, size=int(gone.sum()))
    return rows.take(picked)
