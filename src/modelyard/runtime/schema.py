"""The schema of a model, learnt from the data that it was trained or tried on.

Hides how it is decided what may come: types and missing values from the data, and by asking the original model, whether it accepts a value
that it has not seen. It must not show values of tagged columns, and never widens: what the data and the model do not show to be
accepted is refused at the door.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.errors import InvalidConfig, InvalidInput
from modelyard.runtime.data import DTYPES, Table
from modelyard.runtime.validate import check
from modelyard.types import Schema, TensorSpec

if TYPE_CHECKING:
    from modelyard.types import Array, Scalar, Tag, Task

TAGS = ("drop", "hash", "mask")
TRIAL_ROWS = 8
LISTED_CATEGORIES = 1000
"""More observed texts than this are not listed in the schema where others may come as well (free text, identifiers)."""


def infer(
    table: Table,
    *,
    outputs: tuple[TensorSpec, ...],
    task: Task,
    classes: tuple[Scalar, ...] | None,
    tags: Mapping[str, Tag] | None = None,
    accepts: Callable[[Table], bool],
) -> Schema:
    """The schema of a model over `table`; `accepts` asks the original model whether it answers the rows of a changed table.

    A column is nullable where the data has missing values. An unknown category is allowed exactly where the model answers one; a column of numbers
    outside whose values the model refuses to answer (an encoder over integers) is categorical too. Raises InvalidConfig for a tag without its
    column, SchemaMismatch when the data itself does not fit (an infinity, say).
    """
    tags = tags or {}
    for name, tag in tags.items():
        if name not in table.columns:
            raise InvalidConfig(f"the tag {tag!r} names a column that the data does not have: {name!r}", field=name, rule="exists")
        if tag not in TAGS:
            raise InvalidConfig(f"the tag of {name!r} is one of {', '.join(TAGS)}", field=name, rule="tag")
    trial = table.take(_trial_rows(table))
    closed = _refusing(table, trial, accepts)
    inputs = tuple(_spec(table, name, tags.get(name), is_closed=name in closed) for name in table.columns)
    schema = Schema(inputs=inputs, outputs=outputs, layout=table.layout, task=task, classes=classes)
    check(schema, conform(schema, table.columns))
    return schema


def closed_values(schema: Schema, table: Table) -> dict[str, tuple[Scalar, ...]]:
    """By name, the values that each tagged column takes where the model takes no others: the schema says only that there are such."""
    found: dict[str, tuple[Scalar, ...]] = {}
    for spec in schema.inputs:
        if spec.tag is not None and not spec.unknown_allowed:
            values, kind = table.columns[spec.name], table.kinds[spec.name]
            known = _categories(values[~missing(values)], kind.categories, is_text=spec.datatype == "BYTES", is_closed=True)
            found[spec.name] = known or ()
    return found


def conform(schema: Schema, columns: Mapping[str, Array]) -> dict[str, Array]:
    """The columns of other data (a second file, with or without missing values) in the dtypes that the check of `schema` expects.

    Only what the wire would accept is cast: an integer for a float, a float of either width, an integral float for an integer. The rest is
    left for the check.
    """
    conformed: dict[str, Array] = {}
    for spec in schema.inputs:
        array = columns.get(spec.name)
        if array is not None:
            conformed[spec.name] = _cast(array, spec)
    return {**{name: array for name, array in columns.items() if name not in conformed}, **conformed}


def _cast(array: Array, spec: TensorSpec) -> Array:
    target = DTYPES[spec.datatype]
    if target.kind == "O" or array.dtype.kind == "O":
        return array
    if target.kind == "f":
        return array.astype(target, copy=False) if array.dtype.kind in "iuf" else array
    if spec.is_nullable:
        return array.astype(np.float64, copy=False)
    if array.dtype == target or (array.dtype.kind == "b") != (target.kind == "b"):
        return array
    exact = array.astype(target) if np.isfinite(array).all() else array
    return exact if exact is not array and (exact == array).all() else array


def _trial_rows(table: Table) -> Array:
    """A few rows without missing values where there are any: the trial is of one value, all else should be ordinary."""
    whole = np.ones(table.rows, bool)
    for values in table.columns.values():
        whole &= ~missing(values).reshape(table.rows, -1).any(axis=1)
    rows = np.flatnonzero(whole)
    return (rows if len(rows) else np.arange(table.rows))[:TRIAL_ROWS]


def missing(values: Array) -> Array:
    """Which values are missing (NaN, None), in the shape of `values`."""
    if values.dtype == object:
        return np.fromiter((value is None for value in values.ravel().tolist()), bool, values.size).reshape(values.shape)
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _refusing(table: Table, trial: Table, accepts: Callable[[Table], bool]) -> set[str]:
    """The columns in which the model does not answer an unseen value. All at once first: most models answer, and one call then settles it."""
    unseen = {name: value for name in table.columns if (value := _unseen(table, name)) is not None}
    if not unseen or _answers(trial, unseen, accepts):
        return set()
    return {name for name, value in unseen.items() if not _answers(trial, {name: value}, accepts)}


def _answers(trial: Table, values: Mapping[str, Scalar], accepts: Callable[[Table], bool]) -> bool:
    try:
        for name, value in values.items():
            trial = trial.replace(name, value)
    except InvalidInput:  # the column's own type (an Enum) does not hold it, so the model never sees it
        return False
    return accepts(trial)


def _unseen(table: Table, name: str) -> Scalar | None:
    """A value of the column's type that it never has; None where there is no such question (booleans, arrays of numbers)."""
    values, kind = table.columns[name], table.kinds[name]
    if kind.datatype == "BYTES":
        known = set(kind.categories or ()) | set(values.ravel().tolist())
        text = "modelyard-unseen"
        while text in known:
            text += "-"
        return text
    dtype = DTYPES[kind.datatype]
    if dtype.kind == "b" or table.layout != "frame":
        return None
    present = values[~missing(values)]
    if not len(present) or not np.isfinite(present).all():
        return None
    high = max([present.max().item(), *(kind.categories or ())])
    low = min([present.min().item(), *(kind.categories or ())])
    if dtype.kind == "f":
        beyond = float(dtype.type(high + (abs(high) or 1.0) * 0.37))
        return beyond if math.isfinite(beyond) else low / 2
    limits = np.iinfo(dtype)
    return int(high) + 1 if high < limits.max else int(low) - 1 if low > limits.min else None


def _spec(table: Table, name: str, tag: Tag | None, *, is_closed: bool) -> TensorSpec:
    values, kind = table.columns[name], table.kinds[name]
    shape = (-1, *values.shape[1:])
    gone = missing(values)
    spec = TensorSpec(name=name, datatype=kind.datatype, shape=shape, is_nullable=bool(gone.any()), unknown_allowed=not is_closed, tag=tag)
    if tag is not None:
        return spec
    categories = _categories(values[~gone], kind.categories, is_text=kind.datatype == "BYTES", is_closed=is_closed)
    low, high = _range(values) if kind.datatype != "BYTES" else ((), ())
    return msgspec.structs.replace(spec, categories=categories, minimum=low, maximum=high)


def _categories(present: Array, declared: tuple[Scalar, ...] | None, *, is_text: bool, is_closed: bool) -> tuple[Scalar, ...] | None:
    if not (is_text or declared is not None or is_closed):
        return None
    observed: set[Any] = set(present.tolist()) if present.dtype == object or len(present) == 0 else set(np.unique(present).tolist())
    found = sorted(observed | set(declared or ()))
    if not is_closed and len(found) > LISTED_CATEGORIES:
        return None
    return tuple(found)


def _range(values: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The observed range per element of the last dimension; 0 to 0 for an element that never had a value."""
    flat = values.astype(np.float64).reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    present = ~np.isnan(flat)
    low = np.where(present, flat, np.inf).min(axis=0, initial=np.inf)
    high = np.where(present, flat, -np.inf).max(axis=0, initial=-np.inf)
    empty = ~present.any(axis=0)
    low[empty] = high[empty] = 0.0
    return tuple(low.tolist()), tuple(high.tolist())
