"""The Arrow IPC streaming format: bytes to columns and back.

Hides flatbuffers, the framing of messages, validity bitmaps, dictionaries and compressed buffers. Written here because a body comes from anybody: the
C reader that is to be had ends the process on hostile bytes (docs/decisions/0010). Here every offset and length is compared with what there is before
it is used; Python's integers do not overflow, and numeric buffers become arrays without a copy. It must not know a model's schema. Source: "Arrow
Columnar Format" and its `format/*.fbs`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from modelyard.errors import MalformedPayload, PayloadTooLarge, UnsupportedMedia
from modelyard.protocols.base import check_strings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelyard.types import Array

UNPACKED_BYTES = 16 << 20
"""What the compressed buffers of one stream may unpack to, together."""
FIELDS = 10_000
BATCHES = 4_096
PARTS = 65_536
"""Columns of all batches together: each costs ten microseconds, however short it is."""
DEPTH = 8

_INT, _FLOAT, _UTF8, _BOOL, _LIST, _FIXED, _NULL, _LARGE_UTF8, _LARGE_LIST, _UTF8_VIEW = 2, 3, 5, 6, 12, 16, 1, 20, 21, 24
_OTHERS = {
    4: "binary", 7: "decimal", 8: "date", 9: "time", 10: "timestamp", 11: "interval", 13: "struct", 14: "union", 15: "fixed-size binary", 17: "map",
    18: "duration", 19: "large binary", 22: "run-end encoded", 23: "binary view", 25: "list view", 26: "large list view",
}  # fmt: skip
_FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype("<f2"), 1: np.dtype("<f4"), 2: np.dtype("<f8")}
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_GO_ON = b"\xff\xff\xff\xff"


class Read:
    """One column as it was read: `values` [n] or [n, k, …] (numbers, flags) or [n] of `str` (object), and which rows are missing (None: none)."""

    __slots__ = ("missing", "values")

    def __init__(self, values: Array, missing: Array | None) -> None:
        self.values = values
        self.missing = missing


def read(body: bytes | bytearray | memoryview) -> dict[str, Read]:
    """The columns of the stream in `body`, batches end to end. Raises MalformedPayload, PayloadTooLarge or UnsupportedMedia, by column and rule."""
    return _Stream(memoryview(body)).read()


def _bad(what: str, rule: str = "arrow") -> NoReturn:
    raise MalformedPayload(f"the Arrow stream is malformed: {what}", field="body", rule=rule)


class _Table:
    """A flatbuffers table in `buffer` at `at`; every access is checked."""

    __slots__ = ("at", "buffer", "vtable", "vtable_size")

    def __init__(self, buffer: memoryview, at: int) -> None:
        self.buffer = buffer
        self.at = at
        self.vtable = at - self.number("<i", at)
        self.vtable_size = self.number("<H", self.vtable)

    def number(self, form: str, at: int) -> Any:
        if at < 0 or at + struct.calcsize(form) > len(self.buffer):
            _bad("an offset leads outside the metadata")
        return struct.unpack_from(form, self.buffer, at)[0]

    def _field(self, slot: int) -> int:
        entry = 4 + 2 * slot
        if entry + 2 > self.vtable_size:
            return 0
        offset = self.number("<H", self.vtable + entry)
        return self.at + offset if offset else 0

    def scalar(self, slot: int, form: str, default: Any = 0) -> Any:
        at = self._field(slot)
        return self.number(form, at) if at else default

    def table(self, slot: int) -> _Table | None:
        at = self._field(slot)
        return _Table(self.buffer, at + self.number("<I", at)) if at else None

    def _vector(self, slot: int, size: int) -> tuple[int, int]:
        at = self._field(slot)
        if not at:
            return 0, 0
        start = at + self.number("<I", at)
        count = self.number("<I", start)
        if count * size > len(self.buffer) - start - 4:
            _bad("a vector leads outside the metadata")
        return start + 4, count

    def tables(self, slot: int) -> list[_Table]:
        start, count = self._vector(slot, 4)
        return [_Table(self.buffer, at + self.number("<I", at)) for at in range(start, start + 4 * count, 4)]

    def pairs(self, slot: int) -> list[tuple[int, int]]:
        start, count = self._vector(slot, 16)
        return [struct.unpack_from("<qq", self.buffer, at) for at in range(start, start + 16 * count, 16)]

    def longs(self, slot: int) -> list[int]:
        start, count = self._vector(slot, 8)
        return [self.number("<q", at) for at in range(start, start + 8 * count, 8)]

    def text(self, slot: int) -> str:
        start, count = self._vector(slot, 1)
        try:
            return str(self.buffer[start : start + count], "utf-8")
        except UnicodeDecodeError:
            _bad("a name is not UTF-8", "utf8")


class _Field:
    """One field of the stream's schema, and its children."""

    __slots__ = ("children", "dictionary", "dtype", "kind", "name", "size")

    def __init__(self, table: _Table, depth: int = 0) -> None:
        if depth > DEPTH:
            _bad("its fields are nested too deeply", "depth")
        self.name = table.text(0)
        self.kind: int = table.scalar(2, "<B")
        self.dictionary: int | None = None
        self.dtype: np.dtype[Any] | None = None
        self.size = 0
        self.children: list[_Field] = []
        kind = table.table(3)
        if self.kind in {_INT, _FLOAT, _FIXED} and kind is None:
            _bad("a type is missing")
        if self.kind == _INT:
            self.dtype = _integer(kind)
        elif self.kind == _FLOAT and kind is not None:
            precision = kind.scalar(0, "<h")
            if precision not in _FLOATS:
                _bad("a float of an unknown precision")
            self.dtype = _FLOATS[precision]
        elif self.kind in {_FIXED, _LIST, _LARGE_LIST}:
            self.size = kind.scalar(0, "<i") if self.kind == _FIXED and kind is not None else 0
            self.children = [_Field(child, depth + 1) for child in table.tables(5)]
            if len(self.children) != 1 or self.size < 0:
                _bad("a list has one kind of element")
            if self.children[0].kind not in {_INT, _FLOAT, _FIXED, _LIST, _LARGE_LIST} or self.children[0].dictionary is not None:
                raise UnsupportedMedia("lists in an Arrow stream hold numbers here", field="body", rule="arrow_type")
        elif self.kind not in {_UTF8, _LARGE_UTF8, _UTF8_VIEW, _BOOL, _NULL}:
            raise UnsupportedMedia(f"an Arrow column of type {_OTHERS.get(self.kind, 'unknown')} is not read here", field="body", rule="arrow_type")
        encoding = table.table(4)
        if encoding is not None:
            self.dictionary = encoding.scalar(0, "<q")
            index = encoding.table(1)
            self.dtype = np.dtype("<i4") if index is None else _integer(index)


def _integer(table: _Table | None) -> np.dtype[Any]:
    width = table.scalar(0, "<i") if table is not None else 0
    if width not in {8, 16, 32, 64} or table is None:
        _bad("an integer of an unknown width")
    return np.dtype(f"<{'i' if table.scalar(1, '<?', False) else 'u'}{width // 8}")


class _Stream:
    """The messages of one stream, in order."""

    def __init__(self, body: memoryview) -> None:
        self.body = body
        self.at = 0
        self.unpacked = 0
        self.strings = 0

    def read(self) -> dict[str, Read]:
        first = self._message()
        if first is None or first[0] != _SCHEMA:
            _bad("it does not begin with a schema")
        if first[1].scalar(0, "<h"):
            raise UnsupportedMedia("big-endian Arrow streams are not read here", field="body", rule="arrow_endian")
        tables = first[1].tables(1)
        if len(tables) > FIELDS:
            raise PayloadTooLarge(f"an Arrow stream has at most {FIELDS:,} columns", field="body", rule="columns")
        fields = [_Field(table) for table in tables]
        names = [field.name for field in fields]
        if len(set(names)) != len(names):
            raise MalformedPayload("a column of the Arrow stream stands twice", field="body", rule="unique")
        encoded = {field.dictionary: field for field in fields if field.dictionary is not None}
        dictionaries: dict[int, Read] = {}
        parts: list[list[Read]] = [[] for _ in fields]
        batches = 0
        while (message := self._message()) is not None:
            kind, table, body = message
            batches += 1
            if batches > BATCHES or batches * len(fields) > PARTS:
                told = f"an Arrow stream has at most {BATCHES:,} batches, and {PARTS:,} columns in all of them; send larger batches"
                raise PayloadTooLarge(told, field="body", rule="batches")
            if kind == _BATCH:
                batch = _Batch(self, table, body)
                for into, field in zip(parts, fields, strict=True):
                    into.append(batch.encoded(field, dictionaries) if field.dictionary is not None else batch.column(field, batch.rows))
            elif kind == _DICTIONARY:
                data = table.table(1)
                known = encoded.get(table.scalar(0, "<q"))
                if data is None or known is None:
                    _bad("a dictionary belongs to no column")
                batch = _Batch(self, data, body)
                values = batch.column(known, batch.rows, is_dictionary=True)
                key = known.dictionary or 0
                if table.scalar(2, "<?", False) and key in dictionaries:
                    values = _joined([dictionaries[key], values])
                dictionaries[key] = values
            else:
                _bad("a message is neither batch nor dictionary")
        return {field.name: _joined(read) for field, read in zip(fields, parts, strict=True) if read}

    def _message(self) -> tuple[int, _Table, memoryview] | None:
        """Kind, header and body of the next message; None at the end."""
        if self.at == len(self.body):
            return None
        if bytes(self.body[self.at : self.at + 4]) == _GO_ON:
            self.at += 4
        (size,) = struct.unpack("<i", self._take(4))
        if size == 0:
            if self.at != len(self.body):
                _bad("there are bytes behind its end", "size")
            return None
        metadata = self._take(size)
        message = _Table(metadata, struct.unpack_from("<I", metadata)[0] if len(metadata) >= 4 else -1)
        header = message.table(2)
        if header is None:
            _bad("a message has no header")
        length = message.scalar(3, "<q")
        return message.scalar(1, "<B"), header, self._take(length)

    def _take(self, size: int) -> memoryview:
        if size < 0 or self.at + size > len(self.body):
            _bad("a length leads outside the body", "size")
        self.at += size
        return self.body[self.at - size : self.at]

    def count_strings(self, count: int) -> None:
        self.strings += count
        check_strings(self.strings)


class _Batch:
    """One record batch: its nodes and buffers, taken in the order in which the format lists them."""

    def __init__(self, stream: _Stream, table: _Table, body: memoryview) -> None:
        self.stream = stream
        self.body = body
        self.rows: int = table.scalar(0, "<q")
        self.nodes = iter(table.pairs(1))
        self.buffers = iter(table.pairs(2))
        self.views = iter(table.longs(4))
        compression = table.table(3)
        self.codec = None if compression is None else compression.scalar(0, "<b")
        if self.rows < 0:
            _bad("a batch has a negative number of rows", "size")
        if self.codec not in {None, 1}:
            raise UnsupportedMedia(
                "Arrow buffers may be compressed with zstd; this codec is not read here (LZ4 is not)", field="body", rule="arrow_codec"
            )

    def _node(self, rows: int) -> None:
        length, nulls = next(self.nodes, (-1, -1))
        if length != rows or not -1 <= nulls <= length:
            _bad("a column has another length than its batch", "size")

    def _buffer(self) -> memoryview:
        offset, length = next(self.buffers, (-1, -1))
        if offset < 0 or length < 0 or offset + length > len(self.body):
            _bad("a buffer lies outside its message", "size")
        buffer = self.body[offset : offset + length]
        return buffer if self.codec is None or not length else self._unpacked(buffer)

    def _unpacked(self, buffer: memoryview) -> memoryview:
        import zstandard

        if len(buffer) < 8:
            _bad("a compressed buffer has no length", "size")
        (size,) = struct.unpack_from("<q", buffer)
        if size == -1:
            return buffer[8:]
        self.stream.unpacked += size
        if size < 0 or self.stream.unpacked > UNPACKED_BYTES:
            raise PayloadTooLarge(f"the buffers of an Arrow stream unpack to at most {UNPACKED_BYTES:,} bytes", field="body", rule="body_size")
        if not size:
            return buffer[:0]
        try:
            if zstandard.frame_content_size(buffer[8:]) > size:
                _bad("a compressed buffer has another length than it says", "size")
            plain = zstandard.ZstdDecompressor().decompress(buffer[8:], max_output_size=size)
        except zstandard.ZstdError:
            _bad("a buffer is not zstd", "arrow_codec")
        if len(plain) != size:
            _bad("a compressed buffer has another length than it says", "size")
        return memoryview(plain)

    def _numbers(self, dtype: np.dtype[Any], count: int) -> Array:
        buffer = self._buffer()
        if count * dtype.itemsize > len(buffer):
            _bad("a buffer is shorter than its column", "size")
        return np.frombuffer(buffer, dtype, count)

    def _bits(self, count: int) -> Array:
        buffer = self._buffer()
        if (count + 7) // 8 > len(buffer):
            _bad("a bitmap is shorter than its column", "size")
        return np.unpackbits(np.frombuffer(buffer, np.uint8, (count + 7) // 8), count=count, bitorder="little").astype(bool)

    def _missing(self, count: int) -> Array | None:
        """Which of `count` values are missing; an absent bitmap says none."""
        offset, length = next(self.buffers, (-1, -1))
        if length == 0:
            return None
        self.buffers = _chain((offset, length), self.buffers)
        missing = ~self._bits(count)
        return missing if bool(missing.any()) else None

    def column(self, field: _Field, rows: int, *, is_dictionary: bool = False) -> Read:
        """The next column, which is of `field`'s type (of a dictionary: of its values' type)."""
        self._node(rows)
        if field.kind == _NULL:
            check_strings(rows)  # it has no buffer that would bound it
            return Read(np.full(rows, np.nan), np.ones(rows, bool))
        missing = self._missing(rows)
        if field.kind in {_UTF8, _LARGE_UTF8, _UTF8_VIEW}:
            self.stream.count_strings(rows)
            texts = self._views(rows) if field.kind == _UTF8_VIEW else self._strings(field, rows)
            return Read(texts, missing)
        if field.kind == _BOOL:
            return Read(self._bits(rows), missing)
        if field.children:
            return Read(self._lists(field, rows, missing), None)
        dtype = field.dtype
        if is_dictionary or dtype is None:
            raise UnsupportedMedia("dictionaries in an Arrow stream hold strings here", field="body", rule="arrow_type")
        return Read(self._numbers(dtype, rows), missing)

    def encoded(self, field: _Field, dictionaries: Mapping[int, Read]) -> Read:
        """The next column, of indexes into its dictionary."""
        self._node(self.rows)
        missing = self._missing(self.rows)
        indexes = self._numbers(field.dtype or np.dtype("<i4"), self.rows).astype(np.int64)
        known = dictionaries.get(field.dictionary or 0)
        if known is None:
            _bad("a dictionary is missing")
        if missing is not None:
            indexes = np.where(missing, 0, indexes)
        size = len(known.values)
        if self.rows and (int(indexes.min()) < 0 or int(indexes.max()) >= size) and not (missing is not None and bool(missing.all())):
            _bad("an index leads outside its dictionary", "size")
        if not size:
            return Read(np.full(self.rows, None, object), np.ones(self.rows, bool))
        if known.missing is not None:
            missing = known.missing[indexes] | (False if missing is None else missing)
        return Read(known.values[indexes], missing)

    def _lists(self, field: _Field, rows: int, missing: Array | None) -> Array:
        if missing is not None:
            raise MalformedPayload("a list in an Arrow stream may not be missing", field="body", rule="nullable")
        size = field.size
        if field.kind != _FIXED:
            offsets = self._numbers(np.dtype("<i4" if field.kind == _LIST else "<i8"), rows + 1) if rows else np.zeros(1, np.int64)
            size = int(offsets[1]) - int(offsets[0]) if rows else 0
            if size < 0 or int(offsets[0]) != 0 or bool((np.diff(offsets) != size).any()):
                raise MalformedPayload("the lists of an Arrow column are equally long, and begin at 0", field="body", rule="shape")
        child = self.column(field.children[0], rows * size)
        values = child.values
        if child.missing is not None:
            if values.dtype.kind != "f":
                raise MalformedPayload("an integer in a list may not be missing", field="body", rule="nullable")
            values = np.where(child.missing, values.dtype.type(np.nan), values)
        return values.reshape(rows, size, *values.shape[1:])

    def _strings(self, field: _Field, rows: int) -> Array:
        offsets = self._numbers(np.dtype("<i4" if field.kind == _UTF8 else "<i8"), rows + 1 if rows else 0).tolist()
        data = self._buffer()
        texts = np.empty(rows, object)
        try:
            for row in range(rows):
                start, end = offsets[row], offsets[row + 1]
                if not 0 <= start <= end <= len(data):
                    _bad("a string lies outside its buffer", "size")
                texts[row] = str(data[start:end], "utf-8")
        except UnicodeDecodeError:
            _bad("a string is not UTF-8", "utf8")
        return texts

    def _views(self, rows: int) -> Array:
        views = self._numbers(np.dtype("<i4"), rows * 4).reshape(rows, 4)
        count = next(self.views, 0)
        if not 0 <= count <= BATCHES:
            _bad("a column of views has a number of buffers that is none")
        buffers = [self._buffer() for _ in range(count)]
        texts = np.empty(rows, object)
        raw = views.tobytes()
        try:
            for row, (size, _, index, start) in enumerate(views.tolist()):
                if 0 <= size <= 12:
                    texts[row] = str(raw[row * 16 + 4 : row * 16 + 4 + size], "utf-8")
                elif size < 0 or not 0 <= index < count or start < 0 or start + size > len(buffers[index]):
                    _bad("a string lies outside its buffer", "size")
                else:
                    texts[row] = str(buffers[index][start : start + size], "utf-8")
        except UnicodeDecodeError:
            _bad("a string is not UTF-8", "utf8")
        return texts


def _chain(first: tuple[int, int], rest: Any) -> Any:
    yield first
    yield from rest


def _joined(parts: list[Read]) -> Read:
    if len(parts) == 1:
        return parts[0]
    if len({part.values.shape[1:] for part in parts}) != 1:
        raise MalformedPayload("the lists of an Arrow column are equally long in all batches", field="body", rule="shape")
    missing = None
    if any(part.missing is not None for part in parts):
        missing = np.concatenate([np.zeros(len(part.values), bool) if part.missing is None else part.missing for part in parts])
    return Read(np.concatenate([part.values for part in parts]), missing)


# Writing.


def write_schema(columns: Mapping[str, Array]) -> bytes:
    """The message that begins a stream of such columns."""
    fields = [_Made(_field(name, array.dtype, array.shape[1:])) for name, array in columns.items()]
    return _framed(_made_message(_SCHEMA, {1: ("tables", fields)}, 0), b"")


def write_batch(columns: Mapping[str, Array]) -> bytes:
    """`columns`, all as long, as one batch, and the end of the stream. Strings are Utf8 (None is missing), rows of arrays fixed-size lists."""
    nodes: list[tuple[int, int]] = []
    spans: list[tuple[int, int]] = []
    body = bytearray()

    def put(data: bytes) -> None:
        spans.append((len(body), len(data)))
        body.extend(data)
        body.extend(bytes(-len(body) % 8))

    rows = 0
    for array in columns.values():
        rows = count = len(array)
        for size in array.shape[1:]:
            nodes.append((count, 0))
            put(b"")
            count *= size
        if array.dtype.kind == "O":
            _put_strings(array.ravel().tolist(), nodes, put)
        else:
            nodes.append((count, 0))
            put(b"")
            put(np.packbits(array.ravel(), bitorder="little").tobytes() if array.dtype.kind == "b" else _little(array).tobytes())
    header: dict[int, tuple[str, Any]] = {0: ("<q", rows), 1: ("pairs", nodes), 2: ("pairs", spans)}
    return _framed(_made_message(_BATCH, header, len(body)), bytes(body)) + _GO_ON + bytes(4)


def _little(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _put_strings(texts: list[Any], nodes: list[tuple[int, int]], put: Any) -> None:
    present = np.array([text is not None for text in texts], bool)
    nodes.append((len(texts), len(texts) - int(present.sum())))
    put(b"" if present.all() else np.packbits(present, bitorder="little").tobytes())
    raw = [b"" if text is None else str(text).encode() for text in texts]
    put(np.cumsum([0, *map(len, raw)], dtype="<i4").tobytes())
    put(b"".join(raw))


_Fields = dict[int, tuple[str, Any]]


class _Made:
    """A flatbuffers table to be written: by slot, its form (of `struct`, or text, table, tables, pairs) and value."""

    __slots__ = ("fields",)

    def __init__(self, fields: _Fields) -> None:
        self.fields = fields


def _field(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> _Fields:
    if shape:
        child = _Made(_field("item", dtype, shape[1:]))
        return {0: ("text", name), 1: ("<?", True), 2: ("<B", _FIXED), 3: ("table", _Made({0: ("<i", shape[0])})), 5: ("tables", [child])}
    if dtype.kind == "O":
        kind, made = _UTF8, _Made({})
    elif dtype.kind == "b":
        kind, made = _BOOL, _Made({})
    elif dtype.kind == "f":
        kind, made = _FLOAT, _Made({0: ("<h", {2: 0, 4: 1, 8: 2}[dtype.itemsize])})
    else:
        kind, made = _INT, _Made({0: ("<i", dtype.itemsize * 8), 1: ("<?", dtype.kind == "i")})
    return {0: ("text", name), 1: ("<?", True), 2: ("<B", kind), 3: ("table", made), 5: ("tables", [])}


def _made_message(kind: int, header: _Fields, body_bytes: int) -> bytes:
    out = bytearray(4)
    root = _put(out, _Made({0: ("<h", 4), 1: ("<B", kind), 2: ("table", _Made(header)), 3: ("<q", body_bytes)}))
    struct.pack_into("<I", out, 0, root)
    return bytes(out)


def _framed(metadata: bytes, body: bytes) -> bytes:
    metadata += bytes(-(len(metadata) + 8) % 8)
    return b"".join((_GO_ON, struct.pack("<i", len(metadata)), metadata, body))


def _put(out: bytearray, made: _Made) -> int:
    """Append `made` and what it leads to, front to back; gives its place."""
    slots = max(made.fields, default=-1) + 1
    sizes = {slot: struct.calcsize(form) if form.startswith("<") else 4 for slot, (form, _) in made.fields.items()}
    places: dict[int, int] = {}
    end = 4
    for slot in sorted(sizes, key=lambda slot: -sizes[slot]):
        end += -end % sizes[slot]
        places[slot] = end
        end += sizes[slot]
    vtable_bytes = 4 + 2 * slots
    out.extend(bytes(-(len(out) + vtable_bytes) % 8))
    vtable = len(out)
    out.extend(struct.pack("<HH", vtable_bytes, end))
    out.extend(b"".join(struct.pack("<H", places.get(slot, 0)) for slot in range(slots)))
    at = len(out)
    out.extend(struct.pack("<i", at - vtable) + bytes(end - 4))
    for slot, (form, value) in made.fields.items():
        place = at + places[slot]
        if form.startswith("<"):
            struct.pack_into(form, out, place, value)
        else:
            target = _put_value(out, form, value)
            struct.pack_into("<I", out, place, target - place)
    return at


def _put_value(out: bytearray, form: str, value: Any) -> int:
    if form == "table":
        return _put(out, value)
    if form == "text":
        raw = value.encode()
        out.extend(bytes(-len(out) % 4))
        at = len(out)
        out.extend(struct.pack("<I", len(raw)) + raw + b"\0")
        return at
    if form == "pairs":
        out.extend(bytes(-(len(out) + 4) % 8))
        at = len(out)
        out.extend(struct.pack("<I", len(value)) + b"".join(struct.pack("<qq", *pair) for pair in value))
        return at
    out.extend(bytes(-len(out) % 4))
    at = len(out)
    out.extend(struct.pack("<I", len(value)) + bytes(4 * len(value)))
    for index, each in enumerate(value):
        place = at + 4 + 4 * index
        target = _put(out, each)
        struct.pack_into("<I", out, place, target - place)
    return at
