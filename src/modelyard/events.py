"""Append-only facts on their way from the data plane to the control plane: observations, in segments, through a spool folder.

Hides the form of a segment (data only, hashed, bounded) and of the spool (names, byte cap, what goes first when it is full), and by which ids are
chosen where not all can be kept. Workers write, the control process reads; neither calls the other. It must not know what the counts mean, and
must not keep the data plane waiting: a write does not wait for the disk, and what finds no room is dropped and counted.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import numpy as np

from modelyard.errors import MalformedPayload, ModelyardError, NotFound
from modelyard.files import make_folder, read_limited, write_atomically
from modelyard.types import Datatype, Digest

if TYPE_CHECKING:
    from modelyard.types import Array

SUFFIX = ".segment"
SEGMENT_LIMIT_BYTES = 256 << 20
SENT_LIMIT_BYTES = 4 << 20
"""Of a segment that goes to another machine; many of a minute become one, or a few."""
SET_ASIDE = 100
_MAGIC = b"modelyard segment 2\n"
_COARSE = b"modelyard segment 1\n"
"""As 0.1.0 wrote them: latencies in buckets of an eighth of an octave."""
_HASH_BYTES = 32
GROUPS = 256
"""Of callers: enough that a group more or less decides nothing, and few enough that each has many requests."""
OUTPUT_GROUPS = 64
"""Of callers, by which outputs are counted: fewer, since each bin is counted by all of them."""
_LOOK_S = 5.0
_INPUTS_UNTIL = 0.6
_PREDICTIONS_UNTIL = 0.85
_BUCKETS_PER_OCTAVE = 32
HALF = 16
LAST_BUCKET = 35 * _BUCKETS_PER_OCTAVE  # 2^35 µs: nine hours
_OFFSET = math.log2(1e6) * _BUCKETS_PER_OCTAVE + 1e-9
_FEW = 8
_MANY = 64
_LARGE = 64
"""So many rows a request on average make it a large one."""
_ALL = 1 << 32
_FACTOR = 0x9E3779B1
_POWERS = np.cumprod(np.full(1 << 15, _FACTOR, dtype=np.uint32), dtype=np.uint32)
_TURNS = np.arange(1 << 12, dtype=np.uint32) * np.uint32(_FACTOR)
_INVERSES = np.cumprod(np.full(1 << 15, pow(_FACTOR, -1, _ALL), dtype=np.uint32), dtype=np.uint32)


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One named column of logged rows: numbers as little-endian bytes, texts as a list with None for missing. `shape` is that of one row."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    values: bytes | tuple[str | None, ...]


class Rows(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Logged rows: of all predictions of the segment those whose id falls into `share` (see `positions`).

    `times` are little-endian float64, seconds since 1970, UTC. `groups` has a byte a row, the group of its caller (`Callers`); nothing where callers
    do not stay with a version.
    """

    share: float
    ids: tuple[str, ...]
    times: bytes
    columns: tuple[Column, ...]
    groups: bytes = b""


class ProfileCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The counts (`monitor.profile.pack`) of the rows whose id falls into `share`."""

    share: float
    counts: bytes


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that got no prediction, of one error code, and how long they took together."""

    requests: int
    seconds: float


class Mirror(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of requests that were asked of a version beside the one that answered.

    Chosen were `sent` + `shed`: `sent` ran to their end, `failed` of them without an answer, `shed` found no room. Of `rows` in answers that were
    compared with the champion's, `disagreed` differ (docs/architecture/07-observations.md says when). `latencies` counts the answers by what they
    took, `outputs` as in a Part.
    """

    sent: int = 0
    shed: int = 0
    failed: int = 0
    rows: int = 0
    disagreed: int = 0
    latencies: dict[int, int] = {}
    outputs: dict[str, tuple[int, ...]] = {}


class Callers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How requests lie among their callers, where these stay with a version: by group of callers how many there were, and how many of them `failed`
    by the fault of server or model; `took` counts the answered ones by GROUPS times their half octave (`half_octaves`) and the group. A group, one of
    GROUPS, is a hash of the caller that has nothing to do with which version it was given. `outputs` counts rows as a Part does, for each of
    OUTPUT_GROUPS (the group modulo that) one after the other; nothing where a version has too many bins for that.
    """

    asked: dict[int, int] = {}
    failed: dict[int, int] = {}
    took: dict[int, int] = {}
    outputs: dict[str, tuple[int, ...]] = {}


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What serving one version took, as each of its workers found it once a second. `+` is exact, and in any order the same.

    `cpu_us` is processor time: the version's share of the worker's, and all of its own processes'. `ran_us` is how long its model ran, by the clock.
    Looks were `looks`: `resident_bytes` (the worker and the version's own processes) and `queued` (requests that wait) are summed over them, the most
    that one look found stands beside.
    """

    looks: int = 0
    cpu_us: int = 0
    ran_us: int = 0
    resident_bytes: int = 0
    most_resident_bytes: int = 0
    queued: int = 0
    most_queued: int = 0

    def __add__(self, other: Use) -> Use:
        """Both."""
        return Use(
            looks=self.looks + other.looks,
            cpu_us=self.cpu_us + other.cpu_us,
            ran_us=self.ran_us + other.ran_us,
            resident_bytes=self.resident_bytes + other.resident_bytes,
            most_resident_bytes=max(self.most_resident_bytes, other.most_resident_bytes),
            queued=self.queued + other.queued,
            most_queued=max(self.most_queued, other.most_queued),
        )


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one worker saw of one version since its last segment, all of it under the plan of one `generation` (0: written before parts said so).

    `latencies` counts answered requests by bucket, `dropped` rows by what of them found no room. `outputs` counts the profiled rows by output, in the
    bins of the deployment's champion, missing ones last; only while a plan names more than one version. What is mirrored stands in `mirror` alone.
    `callers` is there only while the plan keeps callers with a version.
    Of several parts of one version in a segment the last has the `use` of all (None: nobody looked, or written before parts said so).
    """

    name: str
    version: int
    digest: Digest
    requests: int = 0
    rows: int = 0
    failures: dict[str, Failures] = {}
    latencies: dict[int, int] = {}
    profiles: tuple[ProfileCounts, ...] = ()
    predictions: Rows | None = None
    inputs: Rows | None = None
    dropped: dict[str, int] = {}
    generation: int = 0
    outputs: dict[str, tuple[int, ...]] = {}
    mirror: Mirror | None = None
    use: Use | None = None
    callers: Callers | None = None


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """True answers of a deployment's predictions, given to one host `at` a time: by prediction id, what is true and since when that is known."""

    name: str
    at: float
    ids: tuple[str, ...]
    truths: tuple[str, ...]
    known: tuple[float, ...]


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """About a second of one worker. Times are seconds since 1970, UTC. `lost` counts the segments before this one that found no room at all.

    `labels` are of what hosts tell each other alone (`monitor.relay`).
    """

    slot: int
    pid: int
    started_at: float
    ended_at: float
    parts: tuple[Part, ...]
    lost: int = 0
    labels: tuple[Labels, ...] = ()


class EventSink(Protocol):
    """Where facts go. `write` never blocks on another process and never raises for want of room: it drops and counts."""

    def write(self, segment: Segment) -> None: ...


# -- which ids are kept ----------------------------------------------------------------------------------------------------------------------


def positions(ids: Sequence[str], counts: Array | None = None) -> Array:
    """For each row of each id a number below 2^32, spread evenly, the same wherever it is asked. `counts[i]` rows belong to `ids[i]` (None: one).

    A row is in a share `s` when its number is below s · 2^32; so shares are nested, and whether a prediction was kept is known from its id alone.
    """
    if counts is None:
        hashes = _hashes(ids)
    elif len(ids) and len(ids) * _LARGE <= counts.sum() and counts.max() <= len(_TURNS):  # large requests: a fifth of the time
        of_ids = [np.uint32(_hash(ids[0]))] if len(ids) == 1 else _hashes(ids)
        hashes = np.concatenate([of_id ^ _TURNS[:count] for of_id, count in zip(of_ids, counts.tolist(), strict=True)])
    else:
        ends = np.cumsum(counts)
        rows = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
        hashes = np.repeat(_hashes(ids), counts) ^ (rows.astype(np.uint32) * np.uint32(_FACTOR))
    return _spread(hashes)


def positions_of(ids: Sequence[str], rows: Sequence[int]) -> Array:
    """As `positions`, of one row of each id: that with the number `rows[i]`."""
    return _spread(_hashes(ids) ^ (np.asarray(rows, dtype=np.uint32) * np.uint32(_FACTOR)))


def _spread(hashes: Array) -> Array:
    """In place: the finaliser of MurmurHash3, since hashes of counters are too regular."""
    shifted = np.empty_like(hashes)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashes ^= np.right_shift(hashes, np.uint32(shift), out=shifted)
        hashes *= np.uint32(factor)
    hashes ^= np.right_shift(hashes, np.uint32(16), out=shifted)
    return hashes


def _hash(id: str) -> int:
    """What `_hashes` gives for one id."""
    data = id.encode("utf-8", "replace")
    if len(data) >= len(_POWERS):
        return int(_hashes([id])[0])
    found = ord("\n")
    for byte in reversed(data):
        found = (found * _FACTOR + byte) & 0xFFFFFFFF
    return found


def _hashes(ids: Sequence[str]) -> Array:
    """A 32-bit polynomial hash of each id's UTF-8 bytes and a newline; all ids in a few array operations, a third of the time of a CRC each."""
    text = "\n".join(ids)
    if text.isascii():
        data = text.encode()
        even = _even_hashes(data, len(ids))
        if even is not None:
            return even
        sizes = np.fromiter(map(len, ids), np.int64, len(ids))
    else:
        encoded = [name.encode("utf-8", "replace") for name in ids]
        data = b"\n".join(encoded)
        sizes = np.fromiter(map(len, encoded), np.int64, len(ids))
    if len(data) >= len(_POWERS):
        if len(ids) == 1:
            return _hashes([hashlib.sha256(data).hexdigest()])
        return np.concatenate([_hashes(ids[: len(ids) // 2]), _hashes(ids[len(ids) // 2 :])])
    if not len(ids):
        return np.zeros(0, dtype=np.uint32)
    terms = np.frombuffer(data + b"\n", dtype=np.uint8) * _POWERS[: len(data) + 1]
    starts = np.cumsum(sizes + 1) - (sizes + 1)
    hashes: Array = np.add.reduceat(terms, starts, dtype=np.uint32) * _INVERSES[starts]
    return hashes


def _even_hashes(data: bytes, count: int) -> Array | None:
    """What `_hashes` gives for `count` ids of one length, such as those that are made here, in a third of the time; None where they are not that."""
    wide, rest = divmod(len(data) + 1, count or 1)
    if rest or not 1 <= wide <= len(_POWERS) or data.count(b"\n") != count - 1:
        return None
    lines = np.frombuffer(data + b"\n", dtype=np.uint8).reshape(count, wide)
    if count > 1 and not (lines[:, -1] == ord("\n")).all():
        return None
    hashes: Array = np.einsum("ij,j->i", lines.astype(np.uint32), _POWERS[:wide])
    hashes *= _INVERSES[0]
    return hashes


def threshold(share: float) -> int:
    """Positions below it are in the share."""
    return math.ceil(share * _ALL)


def prediction_id(id: str, row: int, rows: int) -> str:
    """The id of one row of a request: the request's own where it has one row, else with the row appended."""
    return id if rows == 1 else f"{id}/{row}"


# -- latencies -------------------------------------------------------------------------------------------------------------------------------


class Latencies:
    """Counts of latencies by bucket; bucket b holds 2^(b/32) to 2^((b+1)/32) µs. One thread owns it."""

    __slots__ = ("_few", "_many")

    def __init__(self) -> None:
        self._few: dict[int, int] = {}
        self._many: Array | None = None  # made for a version that is asked much: one that is not would fetch all buckets for a few counts

    def add(self, seconds: Sequence[float]) -> None:
        """Count some."""
        few = self._few
        if len(seconds) <= _FEW:  # numpy's calls would cost more
            for each in seconds:
                bucket = min(int(math.log2(max(each, 1e-6)) * _BUCKETS_PER_OCTAVE + _OFFSET), LAST_BUCKET)
                few[bucket] = few.get(bucket, 0) + 1
            return
        found = (np.log2(np.maximum(seconds, 1e-6)) * _BUCKETS_PER_OCTAVE + _OFFSET).astype(np.int64)
        np.minimum(found, LAST_BUCKET, out=found)
        if len(seconds) > _MANY:
            counts = np.bincount(found, minlength=LAST_BUCKET + 1)
            self._many = counts if self._many is None else np.add(self._many, counts, out=self._many)
            return
        for bucket in found.tolist():
            few[bucket] = few.get(bucket, 0) + 1

    def buckets(self) -> dict[int, int]:
        """The buckets that hold any."""
        found = dict(self._few)
        if self._many is not None:
            for bucket in np.flatnonzero(self._many).tolist():
                found[bucket] = found.get(bucket, 0) + int(self._many[bucket])
        return dict(sorted(found.items()))


def half_octaves(seconds: Sequence[float]) -> Array:
    """In which half octave each latency lies: HALF buckets of latencies are one."""
    found = (np.log2(np.maximum(seconds, 1e-6)) * _BUCKETS_PER_OCTAVE + _OFFSET).astype(np.int64)
    return np.minimum(found, LAST_BUCKET) // HALF


def refined(buckets: Mapping[int, int]) -> dict[int, int]:
    """Counts by the buckets of 0.1.0, eight to an octave, by those of today: each in the middle of its four."""
    return {min(4 * bucket + 2, LAST_BUCKET): count for bucket, count in buckets.items()}


def bucket_edge_s(bucket: int) -> float:
    """The least latency of a bucket, in seconds; the first also holds whatever is shorter."""
    return float(2 ** (bucket / _BUCKETS_PER_OCTAVE)) * 1e-6 if bucket > 0 else 0.0


def bucket_place(seconds: float) -> float:
    """In which bucket a latency lies (the whole part) and how far within; a whole number at the lower end, to one part in ten million."""
    if seconds < 1e-6:
        return 0.5 if seconds > 0 else 0.0
    place = math.log2(seconds * 1e6) * _BUCKETS_PER_OCTAVE
    return float(round(place)) if abs(place - round(place)) < 1e-6 else place


def quantile_s(buckets: Mapping[int, int], share: float) -> float:
    """The latency that `share` of the requests do not exceed, within 1.1 %; NaN without requests."""
    wanted = share * sum(buckets.values())
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted and seen:
            return float(2 ** ((bucket + 0.5) / _BUCKETS_PER_OCTAVE)) * 1e-6
    return math.nan


# -- the form of a segment -------------------------------------------------------------------------------------------------------------------

_KINDS: dict[str, Datatype] = {
    "?": "BOOL",
    "b": "INT8",
    "h": "INT16",
    "i": "INT32",
    "l": "INT64",
    "q": "INT64",
    "B": "UINT8",
    "H": "UINT16",
    "I": "UINT32",
    "L": "UINT64",
    "Q": "UINT64",
    "e": "FP16",
    "f": "FP32",
    "d": "FP64",
}
_DTYPES = {datatype: np.dtype(char).newbyteorder("<") for char, datatype in _KINDS.items()}


def column(name: str, values: Array) -> Column:
    """`values` [rows, …] as a Column; a trailing dimension of one is left out."""
    shape = () if values.ndim < 2 or values.shape[1:] == (1,) else tuple(values.shape[1:])
    if values.dtype == object:
        return Column(name=name, datatype="BYTES", shape=shape, values=tuple(values.ravel().tolist()))
    datatype = _KINDS[values.dtype.char]
    data = np.ascontiguousarray(values, dtype=_DTYPES[datatype]).tobytes()
    return Column(name=name, datatype=datatype, shape=shape, values=data)


def column_array(item: Column, rows: int) -> Array:
    """The values of a Column, [rows, *shape]. Raises MalformedPayload when they are not as many as that."""
    try:
        if item.datatype == "BYTES":
            if isinstance(item.values, bytes):
                raise ValueError
            array = np.empty(len(item.values), dtype=object)
            array[:] = item.values
        else:
            if not isinstance(item.values, bytes):
                raise ValueError
            array = np.frombuffer(item.values, dtype=_DTYPES[item.datatype])
        return array.reshape(rows, *item.shape)
    except ValueError as error:
        raise MalformedPayload("a segment's column does not have the size that it claims") from error


def times_array(rows: Rows) -> Array:
    """When each row was answered, float64 seconds since 1970, UTC. Raises MalformedPayload."""
    if len(rows.times) != 8 * len(rows.ids):
        raise MalformedPayload("a segment's times do not have the size that they claim")
    return np.frombuffer(rows.times, dtype="<f8")


def groups_array(rows: Rows) -> Array | None:
    """The group of each row's caller; None where they have none. Raises MalformedPayload."""
    if not rows.groups:
        return None
    if len(rows.groups) != len(rows.ids):
        raise MalformedPayload("a segment's groups do not have the size that they claim")
    return np.frombuffer(rows.groups, dtype=np.uint8)


def encode(segment: Segment) -> bytes:
    """The bytes of a segment file."""
    body = msgspec.msgpack.encode(segment)
    return _MAGIC + hashlib.sha256(body).digest() + body


def decode(data: bytes) -> Segment:
    """`decode(encode(s)) == s`; a segment of 0.1.0 is read too. Raises MalformedPayload for anything else, whole or in part."""
    head = len(_MAGIC) + _HASH_BYTES
    if not data.startswith((_MAGIC, _COARSE)) or hashlib.sha256(data[head:]).digest() != data[len(_MAGIC) : head]:
        raise MalformedPayload("not a whole segment")
    try:
        segment = msgspec.msgpack.decode(data[head:], type=Segment)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MalformedPayload("not a segment of this release") from error
    for part in segment.parts:
        for rows in (part.predictions, part.inputs):
            if rows is not None:
                times_array(rows)
                groups_array(rows)
                for item in rows.columns:
                    column_array(item, len(rows.ids))
    if data.startswith(_COARSE):
        parts = tuple(msgspec.structs.replace(part, latencies=refined(part.latencies)) for part in segment.parts)
        return msgspec.structs.replace(segment, parts=parts)
    return segment


# -- the spool -------------------------------------------------------------------------------------------------------------------------------


class Spool:
    """The worker's end of a spool folder: an EventSink with a byte cap that all workers share. One thread owns it.

    A segment is named slot-pid-sequence. The sequence starts at the worker's start in milliseconds, so that a worker that gets the pid of a
    dead one never takes its names. As the spool fills, inputs go first, then predictions, then whole segments; each loss is counted in what
    follows.
    """

    def __init__(self, folder: Path, *, slot: int, limit_bytes: int) -> None:
        self.folder = make_folder(folder)
        self._limit_bytes = limit_bytes
        self._prefix = f"{slot}-{os.getpid()}-"
        self._sequence = time.time_ns() // 1_000_000
        self._used_bytes = 0
        self._looked_s = -math.inf
        self._lost = 0

    def write(self, segment: Segment) -> None:
        """Leave a segment for the control process; drops what finds no room (cap or disk) and counts it."""
        used = self._used() / self._limit_bytes if self._limit_bytes > 0 else 1.0
        if used > _PREDICTIONS_UNTIL:
            segment = without(segment, "predictions")
        if used > _INPUTS_UNTIL:
            segment = without(segment, "inputs")
        segment = msgspec.structs.replace(segment, lost=self._lost)
        data = encode(segment)
        if self._used_bytes + len(data) > self._limit_bytes or len(data) > SEGMENT_LIMIT_BYTES:
            self._lost += 1
            return
        self._sequence += 1
        try:
            write_atomically(self.folder / f"{self._prefix}{self._sequence}{SUFFIX}", data, mode=0o600, durable=False)
        except ModelyardError:
            self._lost += 1
        else:
            self._used_bytes += len(data)
            self._lost = 0

    def _used(self) -> int:
        """Bytes in the folder: looked up every few seconds, counted on in between."""
        now = time.monotonic()
        if now - self._looked_s > _LOOK_S:
            try:
                self._used_bytes = size_bytes(self.folder)
            except OSError:
                self._used_bytes = self._limit_bytes
            # A folder that takes long to list is looked at less often: at most a hundredth of the time.
            self._looked_s = now + 100 * (time.monotonic() - now)
        return self._used_bytes


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of a segment; None for other files, and for one that the control process took in between."""
    try:
        return entry.stat(follow_symlinks=False) if entry.name.endswith(SUFFIX) else None
    except OSError:
        return None


def without(segment: Segment, what: Literal["predictions", "inputs"]) -> Segment:
    """The segment with those rows dropped, and counted as such."""
    parts = []
    for part in segment.parts:
        rows: Rows | None = getattr(part, what)
        if rows is not None:
            dropped = {**part.dropped, what: part.dropped.get(what, 0) + len(rows.ids)}
            part = msgspec.structs.replace(part, **{what: None, "dropped": dropped})  # noqa: PLW2901
        parts.append(part)
    return msgspec.structs.replace(segment, parts=tuple(parts))


def numbered(name: str) -> tuple[str, int]:
    """Whose segment a file of this name is, and which of that source's; a name without a number is the only one of its source."""
    source, _, number = name.removesuffix(SUFFIX).rpartition("-")
    return (source, int(number)) if source and number.isascii() and number.isdigit() and len(number) < 19 else (name, 0)


def pending(folder: Path) -> list[Path]:
    """The segments that wait in a spool, the oldest first; none where there is no spool yet."""
    try:
        with os.scandir(folder) as entries:
            found = [(status.st_mtime_ns, entry.name) for entry in entries if (status := _status(entry)) is not None]
    except FileNotFoundError:
        return []
    return [folder / name for _, name in sorted(found)]


def set_aside(path: Path) -> bool:
    """Move what is not a segment out of the spool's way, of which the newest hundred are kept; whether that could be done."""
    try:
        folder = make_folder(path.parent / "set-aside")
        path.rename(folder / path.name)
        for old in sorted(folder.iterdir(), key=lambda item: item.lstat().st_mtime_ns)[:-SET_ASIDE]:
            old.unlink()
    except (OSError, ModelyardError):
        return not path.exists()
    return True


def size_bytes(folder: Path, *, least_bytes: int = 0) -> int:
    """What the segments in a spool take, each at least `least_bytes`; nothing where there is no spool yet. Raises OSError."""
    try:
        with os.scandir(folder) as entries:
            return sum(max(status.st_size, least_bytes) for entry in entries if (status := _status(entry)) is not None)
    except FileNotFoundError:
        return 0


def read(path: Path) -> Segment:
    """The segment in `path`. Raises NotFound, or MalformedPayload when it is not one."""
    try:
        return decode(read_limited(path, SEGMENT_LIMIT_BYTES))
    except (NotFound, MalformedPayload):
        raise
    except ModelyardError as error:
        raise MalformedPayload(f"{path.name} is not a segment") from error


def salt(folder: Path) -> bytes:
    """The key of this spool's hashes, made by whoever asks first; it stays in the folder, readable by its owner alone."""
    path = folder / "salt"
    try:
        return read_limited(path, 64)
    except NotFound:
        mine = folder / f".salt-{os.getpid()}-{os.urandom(4).hex()}"
        write_atomically(mine, os.urandom(32), mode=0o600)
        try:
            path.hardlink_to(mine)
        except FileExistsError:
            pass
        finally:
            mine.unlink()
        return read_limited(path, 64)
