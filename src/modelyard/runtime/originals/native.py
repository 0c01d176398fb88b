"""Frames in the forms that training libraries take.

Hides that not every library takes every frame. It must not change a value: only the container changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import Unconvertible

if TYPE_CHECKING:
    from modelyard.runtime.data import Table
    from modelyard.types import Array


def as_numpy(table: Table) -> Array:
    """The columns side by side, [rows, columns]. Raises Unconvertible when one of them is text."""
    texts = [name for name, column in table.columns.items() if column.dtype == object]
    if texts:
        raise Unconvertible(
            f"the model takes numbers; column {texts[0]!r} is text. Install pandas and give the data as a DataFrame", field=texts[0], rule="type"
        )
    return np.concatenate([column.reshape(table.rows, -1) for column in table.columns.values()], axis=1)


def declared(native: Any) -> dict[int, tuple[Any, ...] | None]:
    """By position, the categories that each column of a pandas frame declares, in the order of their codes."""
    if type(native).__module__.partition(".")[0] != "pandas":
        return {}
    found = [getattr(dtype, "categories", None) for dtype in native.dtypes]
    return {index: None if each is None else tuple(each.tolist()) for index, each in enumerate(found)}


def as_pandas(table: Table, categories: Mapping[str, Sequence[Any]] | None = None) -> Any:
    """A pandas frame of the columns, those in `categories` as categoricals with these values in this order."""
    try:
        import pandas as pd
    except ImportError as error:
        raise Unconvertible("pandas is needed to ask this model about columns with names; install modelyard[pandas]") from error
    made = {}
    for name, column in table.columns.items():
        flat = column.reshape(-1)
        if categories and name in categories:
            made[name] = pd.Series(pd.Categorical(flat, categories=list(categories[name])))
        else:
            made[name] = pd.Series(flat)
    return pd.DataFrame(made)
