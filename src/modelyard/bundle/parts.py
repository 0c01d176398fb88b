"""The members of a model that is code: source text below `code/`, data below `files/`, each a layer of its own.

Hides which paths and which contents such members may have. Source is UTF-8 text; data is npz, safetensors, skops, ONNX or JSON, told by content
and not by name: a pickle is refused under any name. It is asked when a bundle is built and again when one is opened, and it must not run, import
or unpickle anything.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping

from modelyard.bundle import selfcontained
from modelyard.errors import PayloadTooLarge, UnsupportedFormat

CODE, FILES = "code/", "files/"
COUNT_LIMIT = 2_000
CODE_LIMIT_BYTES = 16 << 20
FILE_LIMIT_BYTES = 2 << 30
UNPACKED_LIMIT_BYTES = 4 << 30
TEXTS = (".csv", ".json", ".md", ".py", ".pyi", ".toml", ".tsv", ".txt", ".typed", ".yaml", ".yml")
DATA = (".json", ".npz", ".onnx", ".safetensors", ".skops")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DEPTH, _LENGTH = 12, 240
_SAFE_WAY = "a model's data is npz (numpy.savez), safetensors, skops, ONNX or JSON; none of them runs code when it is read"
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x04\x22\x4d\x18")


def check(parts: Mapping[str, bytes]) -> None:
    """Refuse members of a path or content that a bundle does not carry. Raises UnsupportedFormat or PayloadTooLarge naming the member."""
    if not any(path.startswith(CODE) and path.endswith(".py") for path in parts):
        raise UnsupportedFormat("a model that is code has at least one .py member", field="code", rule="exists")
    check_paths(parts)
    for path, data in parts.items():
        if path.startswith(CODE):
            _code(path, data)
        else:
            _data(path, data)


def check_paths(paths: Iterable[str]) -> None:
    """Refuse paths that leave their folder, hide, or differ in case only. Raises UnsupportedFormat or PayloadTooLarge."""
    seen: dict[str, str] = {}
    count = 0
    for path in paths:
        count += 1
        segments = path.split("/")
        if not path.startswith((CODE, FILES)) or len(segments) < 2 or (segments[0] == "files" and len(segments) != 2):
            raise _refused(path, "a member lies below code/ or directly in files/", "path")
        if len(segments) > _DEPTH or len(path) > _LENGTH or any(not _SEGMENT.fullmatch(each) or each.endswith(".") for each in segments):
            raise _refused(path, "a path is made of A-Z a-z 0-9 . _ -, no part begins with a dot or is `..`", "path")
        if seen.setdefault(path.lower(), path) != path:
            raise _refused(path, f"it differs from {seen[path.lower()]!r} in case only", "path")
    if count > COUNT_LIMIT:
        raise PayloadTooLarge(f"a model's code and data are at most {COUNT_LIMIT:,} members", field="code", rule="count")


def _refused(path: str, why: str, rule: str) -> UnsupportedFormat:
    return UnsupportedFormat(f"{path[:_LENGTH]!r} is not taken: {why}", field=path[:_LENGTH], rule=rule)


def _code(path: str, data: bytes) -> None:
    if not path.endswith(TEXTS):
        raise _refused(path, f"code is .py and text beside it ({', '.join(TEXTS)}); trained state goes into files, as data", "format")
    if len(data) > CODE_LIMIT_BYTES:
        raise PayloadTooLarge(f"{path} has {len(data):,} bytes; code has at most {CODE_LIMIT_BYTES:,}", field=path, rule="size")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(path, "it is not UTF-8 text", "utf-8") from error
    if "\0" in text:
        raise _refused(path, "it is not text", "utf-8")
    if path.endswith(".py"):
        try:
            compile(text, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            raise _refused(path, f"it is not Python of this version{f' (line {line})' if line else ''}", "syntax") from error


def _data(path: str, data: bytes) -> None:
    import zipfile  # with what it unpacks by: only models that are code hold members

    if (what := pickled(data)) is not None:
        raise _refused(path, f"it is {what}, which runs code when it is read; {_SAFE_WAY}", "format")
    if not path.endswith(DATA):
        raise _refused(path, _SAFE_WAY, "format")
    if len(data) > FILE_LIMIT_BYTES:
        raise PayloadTooLarge(f"{path} has {len(data):,} bytes; a data member has at most {FILE_LIMIT_BYTES:,}", field=path, rule="size")
    try:
        if path.endswith(".json"):
            json.loads(data)
        elif path.endswith(".safetensors"):
            _safetensors(path, data)
        elif path.endswith(".onnx"):
            if data[:1] not in (b"\x08", b"\x3a", b"\x12", b"\x42"):
                raise _refused(path, "it is not an ONNX model", "format")
            selfcontained.check(data)
        else:
            _archive(path, data)
    except (ValueError, RecursionError, KeyError, TypeError, zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise _refused(path, f"it is not a whole {path.rpartition('.')[2]} file", "format") from error


def pickled(data: bytes) -> str | None:
    """What `data` is if reading it runs code: a pickle and its relatives, by their first bytes; None for anything else."""
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle"
    if data[:1] in (b"(", b"c", b"]", b"}", b"l") and data[:8192].rstrip().endswith(b".") and len(data) <= 8192:
        return "a pickle"
    if data.startswith(_COMPRESSED):
        return "a compressed file, as joblib writes"
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file"
    if data.startswith(b"PK\x03\x04"):
        import zipfile

        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, ValueError, OSError):
            return None
        if any(name.endswith((".pkl", ".pickle")) for name in names):
            return "an archive with a pickle in it, as torch.save writes"
    return None


def _safetensors(path: str, data: bytes) -> None:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(100 << 20, len(data) - 8):
        raise _refused(path, "it is not a whole safetensors file", "format")
    header = json.loads(data[8 : 8 + size])
    spans = sorted(tuple(each["data_offsets"]) for name, each in header.items() if name != "__metadata__")
    at = 0
    for start, end in spans:
        if start != at or end < start:
            raise _refused(path, "its tensors do not lie one behind another", "format")
        at = end
    if at != len(data) - 8 - size:
        raise _refused(path, "its tensors are not as long as it", "format")


def _archive(path: str, data: bytes) -> None:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > UNPACKED_LIMIT_BYTES:
            raise PayloadTooLarge(f"{path} unpacks to more than {UNPACKED_LIMIT_BYTES:,} bytes", field=path, rule="size")
        names = [entry.filename for entry in entries]
        if len(set(names)) != len(names) or any(name.startswith("/") or ".." in name.split("/") for name in names):
            raise _refused(path, "an entry of it stands twice or leaves its folder", "path")
        is_skops = path.endswith(".skops")
        if is_skops != ("schema.json" in names):
            raise _refused(path, "it is not a file of the format that its name says", "format")
        for entry in entries:
            with archive.open(entry) as member:
                head = member.read(8192)
            if not is_skops and not entry.filename.endswith(".npy"):
                raise _refused(path, f"its entry {entry.filename[:80]!r} is no array", "format")
            if entry.filename.endswith(".npy"):
                _no_objects(path, head)
            elif pickled(head) is not None:
                raise _refused(path, f"its entry {entry.filename[:80]!r} is a pickle", "format")


def _no_objects(path: str, head: bytes) -> None:
    """An array of Python objects is a pickle inside an array's file: its type says so."""
    if not head.startswith(b"\x93NUMPY"):
        raise _refused(path, "an entry of it is no array", "format")
    from numpy.lib import format as npy

    file = io.BytesIO(head)
    version = npy.read_magic(file)
    _, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise _refused(path, f"it holds an array of Python objects, which is a pickle; {_SAFE_WAY}", "format")
