"""What JSON and raw values mean under a TensorSpec, alike on every wire.

Hides the casts: an int for a float, FP32 for FP64 and back, an integral float for an int, null for missing where that is
allowed, and nothing else. Sizes and shape products are compared before anything is allocated. Messages name field and rule and
hold nothing that the caller sent. Values are judged against ranges and categories later, by `runtime.validate`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import chain
from math import inf, nan, prod
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from modelyard.errors import MalformedPayload, PayloadTooLarge, SchemaMismatch
from modelyard.types import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard.types import Array

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
DATATYPES = {dtype: name for name, dtype in NUMPY.items()}
WIDENED_BYTES = 16 << 20
"""What a tensor of a smaller datatype than the model's may take beyond twice its size."""
LARGE_BYTES = 4096
"""A tensor of so many bytes that lies askew in its message is put straight once: numpy would copy it anew for each look at it."""
EXACT_INTEGERS = 2.0**53
"""Up to here every integer is a float64."""

_NONE = type(None)
_NUMBER = re.compile(r"\s*([+-]?(\d{1,400}(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?|[+-]?(?i:nan|inf(inity)?))\s*", re.ASCII)
_FLAGS = {"true": True, "false": False}
FEW = 64
"""Up to so many numbers Python is the quicker."""
_LIMITS = {name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for name, dtype in NUMPY.items() if dtype.kind in "iu"} | {"FP16": (0, 0xFFFF)}
_KINDS = {"b": "boolean", "i": "integer", "f": "number", "s": "string"}


def kind_of(datatype: str) -> str:
    """`b`, `i`, `f` or `s` for a wire datatype; `?` for a name that is none."""
    if datatype == "BOOL":
        return "b"
    if datatype == "BYTES":
        return "s"
    if datatype in NUMPY:
        return "f" if datatype.startswith("FP") else "i"
    return "?"


class Column:
    """One input of a schema and the ways of filling it; immutable, shared by all requests."""

    __slots__ = ("dtype", "is_scalar", "kind", "name", "one_row", "one_row_shape", "rank", "shape", "spec", "width")

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.kind = kind_of(spec.datatype)
        # A nullable flag or integer travels as float64, so that missing has a value (NaN).
        self.dtype = np.dtype("<f8") if spec.is_nullable and self.kind in "bi" else NUMPY[spec.datatype]
        self.shape = spec.shape
        self.rank = len(spec.shape)
        self.width = prod(spec.shape[1:]) if all(size >= 0 for size in spec.shape[1:]) else -1
        self.one_row_shape = (1, *spec.shape[1:])
        self.one_row = list(self.one_row_shape) if self.width > 0 and spec.shape[:1] in {(-1,), (1,)} else None
        """What `fit` is not asked about, since most requests say it; None where a row has an open dimension."""
        self.is_scalar = self.width == 1 and self.rank <= 2
        """One value a row: what records and columns carry directly."""

    def refuse(self, message: str, rule: str) -> NoReturn:
        """Raise SchemaMismatch for this field."""
        raise SchemaMismatch(f"input '{self.name}': {message}", field=self.name, rule=rule)

    def fit(self, shape: list[int]) -> tuple[int, ...]:
        """The full shape of a tensor said to have `shape`; [-1] is taken for [-1, 1]. Nothing is allocated. Raises SchemaMismatch."""
        if len(shape) == 1 and self.rank == 2 and self.shape[1] == 1:
            shape = [*shape, 1]
        if len(shape) != self.rank:
            self.refuse(f"its shape has {self.rank} dimensions", "shape")
        for size, wanted in zip(shape, self.shape, strict=True):
            if size < 1 or (wanted >= 0 and size != wanted):
                self.refuse(f"its shape is {list(self.shape)} with at least one row, -1 being open", "shape")
        return tuple(shape)

    def accept(self, datatype: str, *, is_binary: bool = False) -> None:
        """Raise SchemaMismatch unless a tensor said to be of `datatype` may stand for this input; half floats travel in binary forms only."""
        if datatype == "FP16" and not is_binary:
            self.refuse("FP16 does not travel as JSON; send it as binary data (binary_data_size), or the numbers as FP32", "datatype")
        if datatype == self.spec.datatype:
            return
        given = kind_of(datatype)
        if given == "?":
            self.refuse("its datatype is not one of the Open Inference Protocol", "datatype")
        if (given, self.kind) not in {("f", "f"), ("i", "f"), ("i", "i"), ("f", "i")}:
            self.refuse(f"its datatype is {self.spec.datatype}", "datatype")

    def parse(self, text: str) -> Any:
        """The JSON value that `text` (a cell of CSV, a field of a query) stands for: an empty one is missing. What is no number stays text, and is
        refused as such later."""
        if text == "":
            return None
        if self.kind == "s":
            return text
        if self.kind == "b":
            return _FLAGS.get(text.lower(), text)
        if not _NUMBER.fullmatch(text):
            return text
        try:
            return int(text)
        except ValueError:
            return float(text)

    def parse_all(self, texts: Sequence[str]) -> list[Any]:
        """As `parse` for each of `texts`, at once where all are plain numbers."""
        if self.kind in "fi":
            joined = "".join(texts)
            if joined.isascii() and "_" not in joined:  # Python would read 1_0, and digits of every script
                with suppress(ValueError):
                    made = list(map(float if self.kind == "f" else int, texts))
                    if inf not in made and -inf not in made:  # from an exponent without end
                        return made
        return [self.parse(text) for text in texts]

    def from_flat(self, values: list[Any], shape: tuple[int, ...]) -> Array:
        """JSON values in row-major order as an array of `shape` (which has as many elements)."""
        kinds = set(map(type, values))
        if kinds - _ALLOWED[self.kind]:
            if _NONE in kinds:
                return self._with_missing(values, shape)
            self.refuse(f"expects {_KINDS[self.kind]} values", "type")
        if self.kind == "s":
            strings = np.empty(len(values), object)
            strings[:] = values
            return strings.reshape(shape)
        if float in kinds and self.kind == "i":
            values = self._integral(values)
        try:
            if self.dtype.itemsize < 8 and self.kind == "f":
                with np.errstate(over="ignore"):  # Inf, which the schema check refuses
                    return np.array(values, self.dtype).reshape(shape)
            return np.array(values, self.dtype).reshape(shape)
        except OverflowError:
            self.refuse(f"a value is outside {self.spec.datatype}", "range")

    def _with_missing(self, values: list[Any], shape: tuple[int, ...]) -> Array:
        if not self.spec.is_nullable:
            self.refuse("null is not allowed", "nullable")
        if set(map(type, values)) - _ALLOWED[self.kind] - {_NONE}:
            self.refuse(f"expects {_KINDS[self.kind]} values or null", "type")
        if self.kind == "s":
            strings = np.empty(len(values), object)
            strings[:] = values
            return strings.reshape(shape)
        if self.kind == "i":
            values = self._integral(values)
        try:
            with np.errstate(over="ignore"):
                return np.array([nan if value is None else value for value in values], self.dtype).reshape(shape)
        except OverflowError:
            self.refuse(f"a value is outside {self.spec.datatype}", "range")

    def _integral(self, values: list[Any]) -> list[Any]:
        if any(type(value) is float and not value.is_integer() for value in values):
            self.refuse("expects integer values", "integral")
        return [value if value is None else int(value) for value in values]

    def from_nested(self, data: list[Any], shape: tuple[int, ...]) -> Array:
        """Flat or nested JSON values of a tensor of `shape`. Raises SchemaMismatch when they are not as many, or nested otherwise."""
        if data and type(data[0]) is list:
            data = self._flatten(data, shape)
        if len(data) != prod(shape):
            self.refuse("has not as many values as its shape says", "size")
        return self.from_flat(data, shape)

    def from_rows(self, rows: list[Any]) -> Array:
        """One JSON value per row, each nested as one row of this input is (a bare value for one value a row)."""
        if self.is_scalar and not (rows and type(rows[0]) is list):
            return self.from_flat(rows, (len(rows), *self.shape[1:]))
        sizes = [len(rows)]
        level: Any = rows
        for wanted in self.shape[1:]:
            level = level[0] if type(level) is list and level else None
            if type(level) is not list or (wanted >= 0 and len(level) != wanted) or not level:
                self.refuse(f"a row is nested as {list(self.shape[1:])}", "shape")
            sizes.append(len(level))
        return self.from_nested(rows, tuple(sizes))

    def _flatten(self, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
        if len(shape) == 2 and shape[1] == 1 and len(data) == 1 and type(data[0]) is list and len(data[0]) == shape[0] != 1:
            self.refuse(f"its values are nested as {list(self.shape)}", "shape")
        level = data
        for depth, size in enumerate(shape):
            if depth and not all(type(item) is list and len(item) == size for item in level):
                self.refuse("its values are not nested as its shape says", "shape")
            if depth:
                level = list(chain.from_iterable(level))
            elif len(level) != size:
                self.refuse("has not as many values as its shape says", "size")
        return level

    def from_array(self, array: Array, datatype: str, *, is_binary: bool = False) -> Array:
        """An array of the wire's `datatype` (of a binary form, or not) cast to what travels inside."""
        self.accept(datatype, is_binary=is_binary)
        if self.kind == "s" or array.dtype == self.dtype:
            return array
        if array.size * self.dtype.itemsize > 2 * array.nbytes + WIDENED_BYTES:
            raise PayloadTooLarge(
                f"input '{self.name}': its values take too much as {self.spec.datatype}; send fewer rows at a time", field=self.name, rule="widened"
            )
        if self.kind == "i":
            return self._cast_to_int(array)
        with np.errstate(over="ignore"):
            return array.astype(self.dtype)

    def _cast_to_int(self, array: Array) -> Array:
        if array.dtype.kind == "f":
            if array.dtype.itemsize == 2:
                array = array.astype(np.float32)  # half floats do not compare with the limits of integers
            missing = np.isnan(array)
            has_missing = bool(missing.any())
            if has_missing and not self.spec.is_nullable:
                self.refuse("NaN is not allowed", "nullable")
            present = array[~missing] if has_missing else array
            if not bool((np.isfinite(present) & (present == np.floor(present))).all()):
                self.refuse("expects integer values", "integral")
            if present.size and max(float(present.max()), -float(present.min())) > EXACT_INTEGERS:
                self.refuse("expects integers that a float holds exactly", "integral")
        limits = np.iinfo(NUMPY[self.spec.datatype])
        with np.errstate(invalid="ignore"):
            is_outside = (array < limits.min) | (array > limits.max)
        if bool(is_outside.any()):
            self.refuse(f"a value is outside {self.spec.datatype}", "range")
        return array.astype(self.dtype)


_ALLOWED: dict[str, set[type]] = {"b": {bool}, "i": {int, float}, "f": {int, float}, "s": {str}}


def from_raw(column: Column, raw: memoryview, datatype: str, shape: tuple[int, ...]) -> Array:
    """The array of `shape` in the bytes of a binary tensor: little-endian, row-major; a BYTES element is its length (uint32) and UTF-8."""
    column.accept(datatype, is_binary=True)
    if datatype == "BYTES":
        return _strings(column, raw, prod(shape)).reshape(shape)
    dtype = NUMPY[datatype]
    if prod(shape) * dtype.itemsize != len(raw):
        column.refuse("its bytes are not as many as shape and datatype say", "size")
    if datatype == "BOOL":
        flags = np.frombuffer(raw, np.uint8)
        if flags.size and int(flags.max()) > 1:
            column.refuse("a BOOL is one byte, 0 or 1", "type")
        return flags.astype(column.dtype).reshape(shape)
    values = column.from_array(np.frombuffer(raw, dtype).reshape(shape), datatype, is_binary=True)
    return values.copy() if len(raw) >= LARGE_BYTES and not values.flags.aligned else values


def _strings(column: Column, raw: memoryview, count: int) -> Array:
    if count * 4 > len(raw):
        column.refuse("its bytes are not as many as shape and datatype say", "size")
    strings = np.empty(count, object)
    at = 0
    try:
        for index in range(count):
            size = int.from_bytes(raw[at : at + 4], "little")
            if len(raw) - at - 4 < size:
                column.refuse("its bytes are not as many as shape and datatype say", "size")
            strings[index] = str(raw[at + 4 : at + 4 + size], "utf-8")
            at += 4 + size
    except UnicodeDecodeError as error:
        raise MalformedPayload(f"input '{column.name}': a string is not UTF-8", field=column.name, rule="utf8") from error
    if at != len(raw):
        column.refuse("its bytes are not as many as shape and datatype say", "size")
    return strings


def from_field(column: Column, values: Sequence[Any], datatype: str) -> Array:
    """The values of a message's repeated field as a row of `datatype`; half floats come as their bits. Nothing is made of a value but its place.

    Raises SchemaMismatch for a number that is not of the datatype, MalformedPayload for what is no text.
    """
    if datatype == "BYTES":
        texts = np.empty(len(values), object)
        try:
            for at, value in enumerate(values):
                texts[at] = value.decode()
        except UnicodeDecodeError as error:
            raise MalformedPayload(f"input '{column.name}': a string is not UTF-8", field=column.name, rule="utf8") from error
        return texts
    if kind_of(datatype) in "bf" and datatype != "FP16":
        return np.fromiter(values, NUMPY[datatype], len(values))
    given: Any = list(values) if len(values) <= FEW else np.fromiter(values, np.uint64 if datatype == "UINT64" else np.int64, len(values))
    if len(given):
        ends = (min(given), max(given)) if isinstance(given, list) else (int(given.min()), int(given.max()))
        if ends[0] < _LIMITS[datatype][0] or ends[1] > _LIMITS[datatype][1]:
            column.refuse("holds values that are not of the datatype that it names", "datatype")
    bits = np.asarray(given, np.uint16 if datatype == "FP16" else NUMPY[datatype])
    return bits.view(np.float16) if datatype == "FP16" else bits


def to_raw(array: Array, datatype: str) -> bytes:
    """The bytes of `array` as a binary tensor (the form that `from_raw` reads)."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, NUMPY[datatype]).tobytes()
    texts = [("" if item is None else str(item)).encode() for item in array.ravel().tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
