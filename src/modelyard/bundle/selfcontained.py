"""A model file carries all that it needs: ONNX whose weights lie in other files is refused.

Hides the protobuf wire format, walked here without the onnx package (2 s to import) because every load asks. The danger is a `location` that the
runtime would open as a path (`../../etc/passwd`), and weights that no digest covers. It must not judge anything else of a model.
Source: onnx.proto3, TensorProto.external_data and data_location.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelyard.errors import UnsupportedFormat

DEPTH_LIMIT = 64
# Fields that lead from a message to tensors, as {message: {field: message}}; TensorProto ends the way.
_TREE: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
# Runs of unpacked floats (field 7), ints (8) and short strings (9) in attributes, which trees have by the million, skipped in one step
# (possessively: a run is never tried again). No way of `_TREE` leads through these fields.
_SHORT_STRINGS = b"|".join(re.escape(bytes([size])) + b".{%d}" % size for size in range(32))
_RUN = re.compile(rb"(?:\x3d.{4}|\x40[\x80-\xff]{0,9}+[\x00-\x7f]|\x4a(?>" + _SHORT_STRINGS + rb"))++", re.DOTALL)


def check(model: bytes) -> None:
    """Refuse an ONNX `model` that refers to other files. Raises UnsupportedFormat.

    The key of such a reference is the word `location`; a model without it is done at once.
    """
    if b"location" not in model:
        return
    try:
        _walk(model, 0, len(model), "Model", 0)
    except IndexError as error:
        raise UnsupportedFormat("the model is not an ONNX file", field="model") from error


def _walk(data: bytes, start: int, end: int, kind: str, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise UnsupportedFormat(f"the model has graphs nested deeper than {DEPTH_LIMIT}", field="model", rule="depth")
    inner = _TREE[kind]
    for field, first, last in _fields(data, start, end):
        if kind == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and (first or last >= 0))):
            raise UnsupportedFormat(
                "the model keeps weights in other files; save it as one file and package that", field="model", rule="external data"
            )
        if field in inner and last >= 0:
            _walk(data, first, last, inner[field], depth + 1)


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field, start, end) of each length-delimited field between; for other wire types (field, value or 0, -1)."""
    while position < end:
        run = _RUN.match(data, position, end)
        if run:
            position = run.end()
            continue
        tag, position = _varint(data, position)
        if tag >> 32:
            # Readers cut a tag to 32 bits, so what looks like an unknown field here would be one of `_TREE` to them.
            raise UnsupportedFormat("the model is not an ONNX file", field="model")
        field, wire = tag >> 3, tag & 7
        start, value, is_message = position, 0, wire == 2
        if wire == 0:
            value, position = _varint(data, position)
        elif wire == 2:
            size, start = _varint(data, position)
            position = start + size
        else:
            position += {1: 8, 5: 4}.get(wire, end)  # groups (3, 4) are not part of ONNX
        if position > end:
            raise UnsupportedFormat("the model is not an ONNX file", field="model")
        yield (field, start, position) if is_message else (field, value, -1)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError
