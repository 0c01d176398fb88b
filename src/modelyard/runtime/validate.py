"""The schema check of every request: what the schema does not allow never reaches a model.

Hides how the check is made cheap: a Checker is compiled once per schema and looks at all floats in one pass. It checks what it is given as a
whole: whoever batches checks the batch, and request by request only when that fails, so that a bad request is refused alone at no cost to the good.
It must never echo data: messages name the field, the rule and what the schema says, nothing that came in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import SchemaMismatch
from modelyard.runtime.data import DTYPES

if TYPE_CHECKING:
    from modelyard.types import Array, Schema, TensorSpec


def internal_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """The dtype in which values of `spec` travel inside: that of its datatype, float64 for a nullable boolean or integer."""
    dtype = DTYPES[spec.datatype]
    return np.dtype(np.float64) if spec.is_nullable and dtype.kind in "biu" else dtype


def row_bytes(schema: Schema) -> int:
    """What one row of the inputs takes inside; of a dimension that is open, one element, and of a text its reference."""
    return sum(internal_dtype(spec).itemsize * math.prod(max(size, 1) for size in spec.shape[1:]) for spec in schema.inputs)


def check(schema: Schema, inputs: Mapping[str, Array]) -> None:
    """Compile and ask once: see `Checker.check`."""
    rows = len(next(iter(inputs.values()))) if inputs else 0
    Checker(schema).check(inputs, rows)


class Checker:
    """The check of one schema, compiled. Holds no state of a request: any thread may ask at any time."""

    def __init__(self, schema: Schema) -> None:
        self._specs = {spec.name: spec for spec in schema.inputs}
        groups: dict[tuple[int, ...], list[tuple[str, np.dtype[Any]]]] = {}
        for spec in schema.inputs:
            groups.setdefault(spec.shape[1:], []).append((spec.name, internal_dtype(spec)))
        self._groups = tuple((shape, -1 in shape, tuple(fields)) for shape, fields in groups.items())
        floats: dict[tuple[np.dtype[Any], int], list[str]] = {}
        for spec in schema.inputs:
            dtype = internal_dtype(spec)
            if dtype.kind == "f" and not spec.is_nullable and dtype.itemsize > 2 and len(spec.shape) == 2 and spec.shape[1] > 0:
                floats.setdefault((dtype, spec.shape[1]), []).append(spec.name)
        # A product with zeros is zero unless a value is NaN or infinite: one BLAS call, half the time of isfinite on a single row.
        sizes = {key: key[1] * len(names) for key, names in floats.items()}
        self._sums = tuple((tuple(names), _zeros(key[0]), sizes[key], _zeros(key[0])[: sizes[key]]) for key, names in floats.items())
        summed = {name for names, *_ in self._sums for name in names}
        self._others = tuple((spec.name, rule) for spec in schema.inputs if spec.name not in summed and (rule := _rule(spec)) is not None)
        self._known = tuple(
            (spec.name, frozenset(spec.categories) | ({None} if spec.is_nullable else set()))
            for spec in schema.inputs
            if spec.categories is not None and not spec.unknown_allowed
        )

    def check(self, inputs: Mapping[str, Array], rows: int) -> None:
        """Pass `inputs` of `rows` rows, in the form of InferenceRequest, or raise SchemaMismatch with field and rule.

        Rules: `missing`, `unexpected`, `rows`, `shape`, `type`, `nullable`, `finite`, `category`.
        """
        if rows < 1:
            raise SchemaMismatch("a request has at least one row", field=next(iter(self._specs)), rule="rows")
        if len(inputs) != len(self._specs):
            self._names(inputs)
        for shape, is_open, fields in self._groups:
            expected = (rows, *shape)
            for name, dtype in fields:
                try:
                    array = inputs[name]
                except KeyError:
                    raise SchemaMismatch(f"{name!r} is missing", field=name, rule="missing") from None
                # numpy's own dtypes are single objects, so the first question nearly always settles it.
                if array.dtype is not dtype and array.dtype != dtype:
                    raise self._mismatch(name, "type")
                if array.shape != expected and not (is_open and _fits(array.shape, expected)):
                    raise self._shape(name, array, rows)
        for names, zeros, width, of_one_row in self._sums:
            values = inputs[names[0]] if len(names) == 1 else np.concatenate([inputs[name] for name in names], axis=1)
            size = rows * width
            is_finite = _are_finite(values) if size > _AT_ONCE else math.isfinite(np.vdot(values, of_one_row if rows == 1 else zeros[:size]))
            if not is_finite:
                for name in names:
                    self._finite(name, inputs[name])
        for name, rule in self._others:
            rule(self, name, inputs[name])
        for name, known in self._known:
            items = inputs[name].ravel().tolist()
            if not known.issuperset(items) and not known.issuperset(item for item in items if not _is_nan(item)):
                raise self._mismatch(name, "category")

    def _names(self, inputs: Mapping[str, Array]) -> None:
        for name in self._specs:
            if name not in inputs:
                raise SchemaMismatch(f"{name!r} is missing", field=name, rule="missing")
        # The name of a field that the schema does not have came in with the data: it is counted, not echoed.
        extra = sum(name not in self._specs for name in inputs)
        if extra:
            raise SchemaMismatch(f"{extra} field(s) beyond the schema's: {', '.join(self._specs)}", field="inputs", rule="unexpected")

    def _finite(self, name: str, array: Array) -> None:
        if _are_finite(array):
            return
        if np.isnan(array).any():
            raise self._mismatch(name, "nullable")
        if np.isinf(array).any():
            raise self._mismatch(name, "finite")

    def _nullable(self, name: str, array: Array) -> None:
        if np.isinf(array).any():
            raise self._mismatch(name, "finite")

    def _nullable_integers(self, name: str, array: Array) -> None:
        self._nullable(name, array)
        dtype = DTYPES[self._specs[name].datatype]
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        present = array[~np.isnan(array)]
        if ((present != np.rint(present)) | (present < low) | (present > high)).any():
            raise self._mismatch(name, "type")

    def _strings(self, name: str, array: Array) -> None:
        found = set(map(type, array.ravel().tolist()))
        if found == _TEXT:
            return
        if type(None) in found and not self._specs[name].is_nullable:
            raise self._mismatch(name, "nullable")
        if not found <= _TEXT_OR_MISSING:
            raise self._mismatch(name, "type")

    def _shape(self, name: str, array: Array, rows: int) -> SchemaMismatch:
        spec = self._specs[name]
        if array.ndim and array.shape[0] != rows:
            return SchemaMismatch(f"{name!r} has not as many rows as the other inputs", field=name, rule="rows")
        return SchemaMismatch(f"{name!r} has shape {list(spec.shape)} (-1: the rows, or any length)", field=name, rule="shape")

    def _mismatch(self, name: str, rule: str) -> SchemaMismatch:
        spec = self._specs[name]
        text = {
            "type": f"{name!r} takes {spec.datatype}" + (" or null" if spec.is_nullable else ""),
            "nullable": f"{name!r} may not be null or NaN",
            "finite": f"{name!r} takes finite numbers only",
            "category": f"{name!r} takes only the values that the model knows" + _listed(spec),
        }[rule]
        return SchemaMismatch(text, field=name, rule=rule)


_TEXT = {str}
_TEXT_OR_MISSING = {str, type(None)}
_LISTED = 20
_AT_ONCE = 4096


@cache
def _zeros(dtype: np.dtype[Any]) -> Array:
    """One for all checkers: with many models it stays in the core's caches."""
    zeros = np.zeros(_AT_ONCE, dtype)
    zeros.flags.writeable = False
    return zeros


def _rule(spec: TensorSpec) -> Any:
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "O":
        return Checker._strings
    if dtype.kind == "f":
        return Checker._nullable if spec.is_nullable else Checker._finite
    return Checker._nullable_integers if spec.is_nullable else None


def _are_finite(values: Array) -> bool:
    """Whether all are. Law: a sum of squares is finite only where every value is; where it is not, they are looked at one by one.

    One pass of BLAS that writes nothing, a third of the time of isfinite and all where a large array (an image) comes from beyond the caches.
    """
    return (values.dtype.itemsize > 2 and math.isfinite(np.vdot(values, values))) or bool(np.isfinite(values).all())


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, have) for have, want in zip(shape, wanted, strict=True))


def _listed(spec: TensorSpec) -> str:
    values = (spec.categories or ()) if spec.tag is None else ()
    if not values:
        return ""
    return f": {', '.join(map(repr, values[:_LISTED]))}{', …' if len(values) > _LISTED else ''}"
