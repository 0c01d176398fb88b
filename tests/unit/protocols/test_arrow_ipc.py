from __future__ import annotations

import io
import random
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelyard.errors import InvalidInput, MalformedPayload, PayloadTooLarge, UnsupportedMedia
from modelyard.protocols.arrow_ipc import BATCHES, UNPACKED_BYTES, read, write_batch, write_schema
from modelyard.protocols.base import STRINGS


def stream(table: Any, *, rows: int | None = None, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


TABLE = pa.table(
    {
        "double": pa.array([1.5, None, 3.5]),
        "half": pa.array(np.array([1, 2, 3], np.float16)),
        "byte": pa.array([1, -2, None], pa.int8()),
        "ulong": pa.array([2**64 - 1, 0, 1], pa.uint64()),
        "flag": pa.array([True, None, False]),
        "text": pa.array(["ä", "", None]),
        "large": pa.array(["x", None, "yy"], pa.large_string()),
        "view": pa.array(["short", "longer than twelve bytes", None], pa.string_view()),
        "coded": pa.array(["b", "a", None]).dictionary_encode(),
        "nothing": pa.nulls(3),
        "pairs": pa.array([[1.0, 2.0], [3.0, None], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
        "lists": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int16())),
        "large lists": pa.array([[1.0], [2.0], [3.0]], pa.large_list(pa.float64())),
        "image": pa.array([[[1, 2], [3, 4]]] * 3, pa.list_(pa.list_(pa.uint8(), 2), 2)),
    }
)


@pytest.mark.parametrize("rows", [None, 1, 2])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_pyarrow_writes_is_read(rows: int | None, compression: str | None) -> None:
    found = read(stream(TABLE, rows=rows, compression=compression))
    assert list(found) == TABLE.column_names
    for name, column in zip(TABLE.column_names, TABLE.columns, strict=True):
        wanted = column.to_pylist()
        values, missing = found[name].values, found[name].missing
        if values.ndim > 1:
            nested = [[np.nan if item is None else item for item in row] for row in wanted]
            np.testing.assert_array_equal(values, np.array(nested, values.dtype))
            assert missing is None
        else:
            absent = [False] * 3 if missing is None else missing.tolist()
            assert [None if is_missing else value for value, is_missing in zip(values.tolist(), absent, strict=True)] == wanted, name


def test_numbers_are_not_copied() -> None:
    body = stream(pa.table({"a": pa.array(np.arange(1000.0))}))
    values = read(body)["a"].values
    assert np.shares_memory(values, np.frombuffer(body, np.uint8))


def test_dictionaries_may_grow_and_change() -> None:
    sink = io.BytesIO()
    first, second = (pa.array(values).dictionary_encode() for values in (["a", "b"], ["c", "a"]))
    schema = pa.schema({"x": first.type})
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        writer.write_batch(pa.record_batch([first], schema=schema))
        writer.write_batch(pa.record_batch([second], schema=schema))
        both = pa.DictionaryArray.from_arrays(pa.array([0, 2]), pa.array(["c", "a", "z"]))
        writer.write_batch(pa.record_batch([both], schema=schema))
    assert read(sink.getvalue())["x"].values.tolist() == ["a", "b", "c", "a", "c", "z"]


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        (pa.table({"a": pa.array([1], pa.timestamp("s"))}), "arrow_type"),
        (pa.table({"a": pa.array([b"x"])}), "arrow_type"),
        (pa.table({"a": pa.array([{"b": 1}])}), "arrow_type"),
        (pa.table({"a": pa.array([["x"]])}), "arrow_type"),
        (pa.table({"a": pa.array([1.5]).dictionary_encode()}), "arrow_type"),
        (pa.table({"a": pa.array([[1], [2, 3]])}), "shape"),
        (pa.table({"a": pa.array([[1], None])}), "nullable"),
        (pa.table({"a": pa.array([[1, None]])}), "nullable"),
        (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), "unique"),
        (pa.table({"a": pa.array([""] * (STRINGS + 1))}), "strings"),
    ],
)
def test_what_is_not_read_is_named(table: Any, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(stream(table))
    assert caught.value.rule == rule


def test_lz4_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedMedia, match="LZ4"):
        read(stream(pa.table({"a": pa.array([1.5] * 1000)}), compression="lz4"))


def test_a_bomb_stays_packed() -> None:
    packed = stream(pa.table({"a": pa.array(np.zeros(UNPACKED_BYTES // 8 + 1))}), compression="zstd")
    assert len(packed) < 10_000
    with pytest.raises(PayloadTooLarge):
        read(packed)
    lied = packed.replace(struct.pack("<q", UNPACKED_BYTES + 8), struct.pack("<q", 8000))
    assert lied != packed
    with pytest.raises(MalformedPayload):
        read(lied)


@pytest.mark.parametrize("columns", [1, 20])
def test_batches_without_end_are_too_many(columns: int) -> None:
    empty = pa.record_batch({f"c{at}": pa.array([], pa.float64()) for at in range(columns)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, empty.schema) as writer:
        for _ in range(BATCHES + 1):
            writer.write_batch(empty)
    with pytest.raises(PayloadTooLarge) as caught:
        read(sink.getvalue())
    assert caught.value.rule == "batches"


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x00\x00\x00\x00", b"ARROW1\0\0", b"{}", bytes(64), b"\xff" * 64])
def test_what_is_no_stream_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        read(body)


def test_any_change_of_any_byte_is_read_or_refused_and_nothing_else() -> None:
    """The C reader ends the process within a thousand such cases."""
    draw = random.Random(4)
    bodies = [stream(TABLE), stream(TABLE, rows=1), stream(TABLE, compression="zstd")]
    for _ in range(3000):
        body = bytearray(draw.choice(bodies))
        for _ in range(draw.choice((1, 1, 2, 8))):
            at = draw.randrange(len(body) - 8)
            kind = draw.random()
            if kind < 0.4:
                body[at] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
            elif kind < 0.8:
                body[at & ~3 : (at & ~3) + 4] = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**20, len(body))).to_bytes(4, "little")
            elif kind < 0.95:
                body[at & ~7 : (at & ~7) + 8] = draw.choice((2**62, 2**40, 2**64 - 1)).to_bytes(8, "little")
            else:
                del body[max(16, at) :]
        try:
            read(bytes(body))
        except InvalidInput as error:
            assert error.rule


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_what_is_written_is_read_by_pyarrow_and_by_ourselves(rows: int) -> None:
    draw = np.random.default_rng(rows)
    columns = {
        "label": np.array([f"ü{at}" if at % 2 else None for at in range(rows)], object),
        "flag": draw.random(rows) > 0.5,
        "probability": draw.random((rows, 3)).astype(np.float32),
        "deep": draw.integers(0, 9, (rows, 2, 2)),
        **{dtype: draw.random(rows).astype(dtype) for dtype in ("float16", "float64", "uint8", "int16", "uint32", "int64")},
    }
    body = write_schema(columns) + write_batch(columns)
    table = pa.ipc.open_stream(body).read_all()
    table.validate(full=True)
    found = read(body)
    for name, array in columns.items():
        assert table[name].to_pylist() == array.tolist()
        if array.dtype != object:
            np.testing.assert_array_equal(found[name].values, array)
