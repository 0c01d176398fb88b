"""Records read straight into typed rows, whose columns are made when somebody asks: once per batch, not once per request.

Hides that a request of one record over fourteen columns would otherwise be fourteen arrays, to be joined fourteen times. It reads what well-behaved
clients send and nothing else: whatever it does not take goes to the general reading, which takes more and says what is wrong. Law: what both
take means the same, bit for bit (`tests/unit/protocols/test_rows.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from modelyard.protocols.records import Records
from modelyard.protocols.tensors import NUMPY, Column
from modelyard.types import InferenceRequest

if TYPE_CHECKING:
    from modelyard.types import Array

_INT64 = np.iinfo(np.int64)


class Rows(Mapping[str, "Array"]):
    """The inputs of one request as rows; a mapping of arrays, like those of any other. Immutable."""

    __slots__ = ("_columns", "_layout", "_rows")

    def __init__(self, layout: Layout, rows: Sequence[tuple[Any, ...]]) -> None:
        self._layout = layout
        self._rows = rows
        self._columns: dict[str, Array] | None = None

    @property
    def columns(self) -> dict[str, Array]:
        """The arrays by name, made when first asked for."""
        if self._columns is None:
            self._columns = self._layout.columns(self._rows)
        return self._columns

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.names)

    def __len__(self) -> int:
        return len(self._layout.names)

    def first(self, name: str) -> Any:
        """What stands under `name` in the first row, as the array would hold it; None or NaN where it is missing."""
        place, dtype = self._layout.places[name]
        value = self._rows[0][place]
        return value if value is None or dtype.kind == "O" else dtype.type(value).item()

    def joined(self, others: Sequence[Mapping[str, Array]]) -> dict[str, Array] | None:
        """The arrays of this and all `others`, end to end; None where one of them is of another kind."""
        layout = self._layout
        parts = [self._rows]
        for other in others:
            if type(other) is not Rows or other._layout is not layout:
                return None
            parts.append(other._rows)
        return layout.columns(list(chain.from_iterable(parts)))


def together(parts: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    """The inputs of several requests end to end. Raises ValueError where their rows are of different shapes."""
    first = parts[0]
    if type(first) is Rows:
        if len(parts) == 1:
            return first.columns
        joined = first.joined(parts[1:])
        if joined is not None:
            return joined
    if len(parts) == 1:
        return first
    return {name: np.concatenate([part[name] for part in parts]) for name in first}


class Layout:
    """How the rows of one schema become columns: those of one dtype are filled together, each is one stretch of memory."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.names = tuple(column.name for column in columns)
        self.places = {column.name: (place, column.dtype) for place, column in enumerate(columns)}
        groups: dict[np.dtype[Any], list[tuple[int, Column]]] = {}
        for place, column in enumerate(columns):
            groups.setdefault(column.dtype, []).append((place, column))
        self._groups = tuple(
            (dtype, tuple(place for place, _ in members), tuple((column.name, column.shape[1:]) for _, column in members))
            for dtype, members in groups.items()
        )

    def columns(self, rows: Sequence[tuple[Any, ...]]) -> dict[str, Array]:
        """The arrays of `rows`, in the schema's order."""
        turned = tuple(zip(*rows, strict=True))
        count = len(rows)
        made: dict[str, Any] = dict.fromkeys(self.names)
        for dtype, places, members in self._groups:
            block = np.empty((len(places), count), dtype)
            with np.errstate(over="ignore"):  # Inf, which the schema check refuses
                block[:] = [turned[place] for place in places]
            for (name, shape), values in zip(members, block, strict=True):
                made[name] = values.reshape(count, *shape)
        return made


class RecordReader:
    """Reads `{"instances": [{…}, …]}` of one frame. Make it by `of`, which says where it cannot."""

    def __init__(self, layout: Layout, record: type[msgspec.Struct]) -> None:
        self._layout = layout
        message = msgspec.defstruct("Message", [("instances", list[record])], forbid_unknown_fields=True)  # type: ignore[valid-type]
        self._decode = msgspec.json.Decoder(message).decode

    @classmethod
    def of(cls, records: Records) -> RecordReader | None:
        """The reader for a frame of scalar columns; None for any other schema, and for a name or datatype that cannot be typed."""
        if not records.is_table:
            return None
        kinds = [_kind(column) for column in records.order]
        if None in kinds:
            return None
        fields = [(f"f{place}", kind) for place, kind in enumerate(kinds)]
        names = {f"f{place}": column.name for place, column in enumerate(records.order)}
        try:
            record = msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True, gc=False)
        except ValueError:  # a name with quotes or control characters
            return None
        return cls(Layout(records.order), record)

    def read(self, body: bytes | bytearray) -> InferenceRequest | None:
        """The question in `body`; None where it is to be read in general."""
        try:
            message: Any = self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        rows = [msgspec.structs.astuple(record) for record in message.instances]
        return InferenceRequest(Rows(self._layout, rows), len(rows)) if rows else None


def _kind(column: Column) -> Any:
    """The type by which msgspec reads a value of this column; None where there is none that takes no more than the general reading."""
    kind: Any
    if column.kind == "i":
        limits = np.iinfo(NUMPY[column.spec.datatype])
        if limits.max > _INT64.max:
            return None
        kind = Annotated[int, msgspec.Meta(ge=int(limits.min), le=int(limits.max))]
    else:
        kind = {"b": bool, "f": float, "s": str}.get(column.kind)
    return kind | None if kind is not None and column.spec.is_nullable else kind
