"""Golden records: the rows that a bundle is asked again wherever it lands, and the public example of a question.

Hides how rows are chosen to cover the data, and what stands in for values that may not be shown. It must not pass on a value of a tagged
column, and must not depend on anything but the data: no random numbers, no order of sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.runtime.data import DTYPES, Table, common
from modelyard.runtime.schema import missing

if TYPE_CHECKING:
    from modelyard.types import Array, Scalar, Schema, TensorSpec

AT_MOST = 512
STAND_IN = "redacted"
"""What stands for a text of a tagged column, and for a text that hardly any row shares, where the model accepts one that it has not seen."""
_SHARED_BY = 5
_ELEMENTS = 64


def choose(table: Table, *, at_least: int = 64) -> Array:
    """Indices of golden rows, ascending: all rows when there are no more than `at_least`.

    Else, column by column, a row with a missing value, one of each of the rarest categories, the smallest and largest value and the
    quartiles; then rows evenly spaced, until there are `at_least`. Never more than 512.
    """
    if table.rows <= at_least:
        return np.arange(table.rows)
    wanted = [rows for values in table.columns.values() for rows in _per_element(values)]
    # Round by round: the most telling row of every column comes before the second of any, so a cap cuts all columns alike.
    chosen: dict[int, None] = {}
    for rank in range(max(map(len, wanted), default=0)):
        for rows in wanted:
            if rank < len(rows) and len(chosen) < AT_MOST:
                chosen[rows[rank]] = None
    for row in np.linspace(0, table.rows - 1, num=at_least * 2).astype(int).tolist():
        if len(chosen) >= at_least:
            break
        chosen[row] = None
    return np.array(sorted(chosen), dtype=np.int64)


def _per_element(values: Array) -> list[list[int]]:
    """The telling rows of each element of an input; of a wide or deep one, of some elements and of the row's sum."""
    flat = values.reshape(len(values), -1)
    width = flat.shape[1]
    if width <= 4 * _ELEMENTS:
        return [_telling(flat[:, element]) for element in range(width)]
    told = [_telling(flat[:, element]) for element in np.linspace(0, width - 1, num=_ELEMENTS).astype(int).tolist()]
    if flat.dtype != object:
        told.append(_telling(np.nan_to_num(flat.astype(np.float64)).sum(axis=1)))
    return told


def _telling(values: Array) -> list[int]:
    """Rows of one column, the most telling first."""
    gone = missing(values)
    rows: list[int] = np.flatnonzero(gone)[:1].tolist()
    present = np.flatnonzero(~gone)
    if not len(present):
        return rows
    if values.dtype == object:
        first: dict[Any, int] = {}
        counts: dict[Any, int] = {}
        for row in present.tolist():
            value = values[row]
            first.setdefault(value, row)
            counts[value] = counts.get(value, 0) + 1
        return rows + [first[value] for value in sorted(counts, key=lambda value: (counts[value], value))[:_ELEMENTS]]
    order = present[np.argsort(values[present], kind="stable")]
    places = (0, len(order) - 1, len(order) // 2, len(order) // 4, 3 * len(order) // 4)
    return rows + [int(order[place]) for place in places]


def redact(table: Table, schema: Schema, values: Mapping[str, Sequence[Scalar]]) -> Table:
    """`table` with a public stand-in in every row of each tagged column.

    Where the model takes only what it knows, that is the first of `values`, which the bundle keeps apart and out of the golden records.
    """
    for spec in schema.inputs:
        if spec.tag is not None:
            column = table.columns[spec.name]
            table = table.replace(spec.name, next(iter(values[spec.name]), None) if spec.name in values else _stand_in(column, spec))
    return table


def public_example(schema: Schema, table: Table) -> dict[str, Any]:
    """One question to show to anyone: per input the medians, or the commonest values (nested lists for arrays). Never a row of the data.

    Tagged columns, and texts that hardly any row shares, are stood in for; a tagged column of which the model takes only what it knows has no
    stand-in and is left out. A column that never had a value gives None.
    """
    example: dict[str, Any] = {}
    for spec in schema.inputs:
        if spec.tag is not None and not spec.unknown_allowed:
            continue
        values = table.columns[spec.name]
        value = _stand_in(values, spec) if spec.tag is not None else _typical(values, spec)
        if isinstance(value, np.ndarray):
            example[spec.name] = value.tolist() if spec.shape != (-1, 1) else value.reshape(-1)[0].item()
        else:
            example[spec.name] = value
    return example


def _stand_in(values: Array, spec: TensorSpec) -> Scalar | Array | None:
    """A constant that says nothing of a row: medians; for text a word of ours."""
    return STAND_IN if spec.datatype == "BYTES" else _medians(values, spec)


def _typical(values: Array, spec: TensorSpec) -> Scalar | Array | None:
    if spec.datatype != "BYTES":
        if spec.categories is None:
            return _medians(values, spec)
        value = common(values.ravel().tolist())
        return int(value) if value is not None and DTYPES[spec.datatype].kind in "iu" else value
    items = values.reshape(len(values), -1)
    typical = np.empty(items.shape[1], dtype=object)
    for element in range(items.shape[1]):
        column = items[:, element].tolist()
        value = common(column)
        typical[element] = STAND_IN if spec.unknown_allowed and 0 < column.count(value) < min(_SHARED_BY, len(column)) else value
    return typical[0] if spec.shape in ((-1,), (-1, 1)) else typical.reshape(values.shape[1:])


def _medians(values: Array, spec: TensorSpec) -> Scalar | Array | None:
    """Per element the middle of the sorted values that are there (the lower of two), in the column's own type; None when there is none."""
    flat = values.reshape(len(values), -1)
    dtype = DTYPES[spec.datatype]
    middle = np.zeros(flat.shape[1], dtype=flat.dtype)
    gone = missing(flat)
    for element in range(flat.shape[1]):
        present = np.sort(flat[~gone[:, element], element])
        if len(present):
            middle[element] = present[(len(present) - 1) // 2]
        elif dtype.kind == "f":
            middle[element] = np.nan
    if flat.shape[1] == 1 and gone.all():
        return None
    middle = middle.astype(dtype)
    return middle[0].item() if spec.shape in ((-1,), (-1, 1)) else middle.reshape(values.shape[1:])
