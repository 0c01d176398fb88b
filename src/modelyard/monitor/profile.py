"""Profiles of data: counts in fixed bins, which merge exactly, in any order, and are compared with a test that holds at the actual size.

Hides the bins (quantiles of the reference, its commonest categories), how blocks of rows are counted in a few numpy calls, and how moments are
kept as integers. It imports numpy and msgspec only, since every worker loads it. It must not keep a value of a tagged column: `drop` is not
profiled, of `hash` and `mask` only missing values are counted.

Two laws, held by `tests/property/test_profile_laws.py`: `merge(profile(A), profile(B)) == profile(A + B)` bit for bit, and merging knows no order.
Moments are exact because they are sums of integers: a value counts as the nearest multiple of the feature's quantum (its observed range in
2^15 to 2^16 parts), at most 2^20 quanta (at least 16 ranges) from the centre.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from modelyard.errors import Conflict, MalformedPayload, NotFound
from modelyard.types import Scalar

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.types import Array, Schema, TensorSpec

BINS = 10
SEPARATE_VALUES = 12
"""A column of no more distinct numbers than this has a bin for each."""
TOP_CATEGORIES = 64
PROFILED_ELEMENTS = 1024
"""Of an array with more elements in a row than this (an image), evenly spaced ones are profiled."""
BLOCK_ROWS = 512
_CHUNK_ROWS = 1024  # so that a block stays in the cache, and sums of squares below 2^53
_FEW_ROWS = 16
_CLIP = float(1 << 20)
_LOW_BITS = 26
_BLOB_LIMIT_BYTES = 64 << 20
_PLANES = b"\x01"
"""With this begins a blob whose counts lie byte by byte; a stream of zlib's never does."""


class FeatureProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature or output: its bins, and how often they were hit.

    `source` and `element` say which tensor of the schema, and which element of a row of it. kind `number`: `edges` are the lower ends of the
    bins, the last one is just above the largest value; `counts` are (below, bin …, above). kind `category`: `counts` are (category …, other); all
    categories are known where `is_complete`, so that other means unseen. kind `missing` counts nothing but missing values. `total` and `squares` are
    the exact sums of (value - centre) / 2^exponent, rounded, and of its square.
    """

    name: str
    role: Literal["input", "output"]
    kind: Literal["number", "category", "missing"]
    source: str
    element: int = 0
    edges: tuple[float, ...] = ()
    categories: tuple[Scalar, ...] = ()
    is_complete: bool = True
    centre: float = 0.0
    exponent: int = 0
    rows: int = 0
    missing: int = 0
    counts: tuple[int, ...] = ()
    total: int = 0
    squares: int = 0

    @property
    def present(self) -> int:
        """Rows that had a value."""
        return self.rows - self.missing

    @property
    def mean(self) -> float:
        """Of kind `number`; NaN without values."""
        return self.centre + math.ldexp(self.total / self.present, self.exponent) if self.present else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of kind `number`; NaN without values."""
        if not self.present:
            return math.nan
        variance = self.squares * self.present - self.total**2
        return math.ldexp(math.sqrt(variance) / self.present, self.exponent)

    @property
    def outside(self) -> int:
        """Rows beyond the reference's range, or (where all categories are known) of an unseen category."""
        if self.kind == "number":
            return self.counts[0] + self.counts[-1]
        return self.counts[-1] if self.kind == "category" and self.is_complete else 0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Features in the schema's order, inputs before outputs."""

    features: tuple[FeatureProfile, ...]

    @property
    def rows(self) -> int:
        """The most rows that a feature has seen."""
        return max((feature.rows for feature in self.features), default=0)

    def __add__(self, other: Profile) -> Profile:
        """Both, side by side: of inputs and of outputs."""
        return Profile(features=self.features + other.features)


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How far live data of one feature lies from the reference.

    `effect` is the population stability index less what chance alone gives at these sizes, 0 at least; `mean_shift` the means' distance in
    standard deviations of the reference (None without); `p` the chance of so large a difference where nothing has changed (for numbers the
    smaller, doubled, of a test for any difference and one for a shift of ranks), `q` the same after Benjamini and Hochberg over all features.
    Shares are of rows.
    """

    feature: str
    role: str
    rows: int
    effect: float
    mean_shift: float | None
    p: float
    q: float
    missing: float
    missing_reference: float
    outside: float


def measure(columns: Mapping[str, Array], schema: Schema) -> Profile:
    """The profile of model inputs, bins and counts; the same bytes on every machine."""
    return _measure(columns, schema.inputs, "input", schema)


def measure_outputs(outputs: Mapping[str, Array], schema: Schema) -> Profile:
    """The profile of a model's outputs. They carry the machine's float noise, so it belongs to an attestation."""
    return _measure(outputs, schema.outputs, "output", schema)


def encode(profile: Profile) -> bytes:
    """Canonical JSON."""
    return msgspec.json.encode(profile, order="sorted")


def decode(data: bytes) -> Profile:
    """`decode(encode(p)) == p`. Raises MalformedPayload."""
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except msgspec.MsgspecError as error:
        raise MalformedPayload("not a profile of this release") from error
    for feature in profile.features:
        if len(feature.counts) != _cells(feature) or list(feature.edges) != sorted(set(feature.edges)) or abs(feature.exponent) > 1100:
            raise MalformedPayload(f"the profile's bins of {feature.name!r} do not fit together")
    return profile


def reference(bundle: Bundle) -> Profile:
    """What a bundle's live data is counted against: the profile of its inputs, and of its outputs where it carries one. Raises MalformedPayload."""
    inputs = decode(bundle.read("profile"))
    try:
        return inputs + decode(bundle.read("output-profile"))
    except NotFound:
        return inputs


def merge(left: Profile, right: Profile) -> Profile:
    """The profile of the rows of both. Raises Conflict when they do not have the same bins."""
    if _bins(left) != _bins(right):
        raise Conflict("profiles with different bins cannot be merged: they belong to different models")
    return Profile(features=tuple(map(_merge, left.features, right.features)))


def _merge(left: FeatureProfile, right: FeatureProfile) -> FeatureProfile:
    return msgspec.structs.replace(
        left,
        rows=left.rows + right.rows,
        missing=left.missing + right.missing,
        counts=tuple(a + b for a, b in zip(left.counts, right.counts, strict=True)),
        total=left.total + right.total,
        squares=left.squares + right.squares,
    )


def _bins(profile: Profile) -> list[FeatureProfile]:
    return [msgspec.structs.replace(feature, rows=0, missing=0, counts=(), total=0, squares=0) for feature in profile.features]


def counted(reference: Profile, counts: Iterable[Array | None]) -> Profile | None:
    """The profile of all rows in these vectors; those of other bins, and None, are passed over. None without any."""
    length = size(reference)
    fitting = [vector for vector in counts if vector is not None and len(vector) == length]
    return filled(reference, np.sum(fitting, axis=0)) if fitting else None


def spans(profile: Profile) -> list[slice]:
    """Where in the vector of `Binner.take` each feature's `counts` stand, and right after them its missing values."""
    starts = np.cumsum([1] + [_width(feature) for feature in profile.features]).tolist()
    return [slice(start, start + _cells(feature) + 1) for start, feature in zip(starts, profile.features, strict=False)]


def size(profile: Profile) -> int:
    """How long the vector of `Binner.take` is."""
    return 1 + sum(map(_width, profile.features))


def _width(feature: FeatureProfile) -> int:
    """How many counts of a feature stand in the vector of `Binner.take`."""
    return _cells(feature) + (4 if feature.kind == "number" else 1)


def _cells(feature: FeatureProfile) -> int:
    if feature.kind == "number":
        return len(feature.edges) + 1
    return len(feature.categories) + 1 if feature.kind == "category" else 0


# -- making bins -----------------------------------------------------------------------------------------------------------------------------


def _measure(columns: Mapping[str, Array], specs: Sequence[TensorSpec], role: Literal["input", "output"], schema: Schema) -> Profile:
    features = [feature for spec in specs if spec.tag != "drop" for feature in _layout(columns[spec.name], spec, role, schema)]
    empty = Profile(features=tuple(features))
    binner = Binner(empty)
    binner.add(columns if role == "input" else {}, columns if role == "output" else {})
    return filled(empty, binner.take())


def _layout(values: Array, spec: TensorSpec, role: Literal["input", "output"], schema: Schema) -> list[FeatureProfile]:
    """The empty profiles of one tensor, with bins at the quantiles of `values`."""
    flat = values.reshape(len(values), -1)
    if spec.tag is not None:
        return [FeatureProfile(name=spec.name, role=role, kind="missing", source=spec.name)]
    width = flat.shape[1]
    elements = range(width) if width <= PROFILED_ELEMENTS else np.linspace(0, width - 1, num=PROFILED_ELEMENTS).astype(int).tolist()
    is_label = role == "output" and schema.task == "classification" and spec.name == "label"
    is_category = flat.dtype == object or spec.categories is not None or is_label
    features = []
    for element in elements:
        name = _element_name(spec, element, values.shape[1:], schema if role == "output" else None)
        empty = FeatureProfile(name=name, role=role, kind="category", source=spec.name, element=element)
        known = (schema.classes if is_label else spec.categories) or ()
        features.append(_category_bins(empty, flat[:, element], known) if is_category else _number_bins(empty, flat[:, element]))
    return features


def _element_name(spec: TensorSpec, element: int, shape: tuple[int, ...], schema: Schema | None) -> str:
    if math.prod(shape) == 1 and len(shape) <= 1:
        return spec.name
    if schema is not None and spec.name == "probability" and schema.classes is not None and len(schema.classes) == math.prod(shape):
        return f"{spec.name}[{schema.classes[element]}]"
    return f"{spec.name}[{','.join(map(str, np.unravel_index(element, shape)))}]"


def _number_bins(empty: FeatureProfile, values: Array) -> FeatureProfile:
    present = np.sort(values[np.isfinite(values)].astype(np.float64)) + 0.0  # -0.0 becomes 0.0: which of them comes first is the order's chance
    if not len(present):
        present = np.zeros(1)
    distinct = np.unique(present)
    lower = distinct if len(distinct) <= SEPARATE_VALUES else np.unique(present[np.arange(BINS) * len(present) // BINS])
    top = min(math.nextafter(present[-1].item(), math.inf), np.finfo(np.float64).max.item())
    edges = tuple(lower.tolist()) + ((top,) if top > lower[-1] else ())
    low, high = present[0].item(), present[-1].item()
    spread = high - low or abs(high) or 1.0
    exponent = min(max(math.frexp(spread)[1] if math.isfinite(spread) else 1024, -1000), 1000) - 16
    return msgspec.structs.replace(empty, kind="number", edges=edges, centre=present[len(present) // 2].item(), exponent=exponent)


def _category_bins(empty: FeatureProfile, values: Array, known: Sequence[Scalar]) -> FeatureProfile:
    counts: Counter[Any] = Counter(dict.fromkeys(known, 0))
    counts.update(value for value in values.tolist() if not _is_missing(value))
    ranked = sorted(counts, key=lambda value: (-counts[value], str(value)))
    top = tuple(sorted(ranked[:TOP_CATEGORIES], key=str))
    return msgspec.structs.replace(empty, categories=top, is_complete=len(ranked) <= TOP_CATEGORIES)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


# -- counting --------------------------------------------------------------------------------------------------------------------------------


class Binner:
    """Counts rows in the bins of a profile. One thread owns it; the arrays that are added must not change until they are counted.

    Rows are held until there are `block_rows`, then counted together; `take` counts what is held. 30 features cost .4 to 1.1 µs a row.
    """

    def __init__(self, profile: Profile, *, block_rows: int = BLOCK_ROWS) -> None:
        self._block_rows = block_rows
        features = profile.features
        numbers = [feature for feature in features if feature.kind == "number"]
        self._numbers = _Numbers(numbers)
        self._categories = [(feature, _index(feature.categories), Counter[Any]()) for feature in features if feature.kind == "category"]
        self._hidden = [(feature, [0]) for feature in features if feature.kind == "missing"]
        self._features = features
        self._rows = 0
        self._held: list[tuple[Mapping[str, Array], Mapping[str, Array], int]] = []
        self._held_rows = 0
        self._first = next(((feature.role, feature.source) for feature in features), None)
        self._picked = {(role, source): elements for role, source, _, elements in self._numbers.sources if elements is not None}
        ends = np.cumsum([1] + [_width(feature) for feature in features]).tolist()
        places = list(pairwise(ends))
        self._size = ends[-1]
        self._of_numbers = np.array(
            [at for place, feature in enumerate(features) if feature.kind == "number" for at in range(*places[place])], dtype=np.int64
        )
        self._of_categories = [slice(*places[place]) for place, feature in enumerate(features) if feature.kind == "category"]
        self._of_hidden = [places[place][0] for place, feature in enumerate(features) if feature.kind == "missing"]

    def add(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Count the rows of named arrays with the rows first; what the profile does not name is passed over."""
        if self._first is None:
            return
        role, source = self._first
        rows = len((inputs if role == "input" else outputs)[source])
        if self._picked:
            inputs, outputs = self._pick("input", inputs), self._pick("output", outputs)
        self._held.append((inputs, outputs, rows))
        self._held_rows += rows
        if self._held_rows >= self._block_rows:
            self._count()

    def take(self) -> Array:
        """The counts since the last `take`, as a vector for `pack` and `filled`; begins anew."""
        self._count()
        taken = np.empty(self._size, dtype=np.int64)
        taken[0] = self._rows
        taken[self._of_numbers] = self._numbers.take(self._rows)
        for where, (_, index, counter) in zip(self._of_categories, self._categories, strict=True):
            taken[where] = _fold(counter, index)
            counter.clear()
        for at, (_, cell) in zip(self._of_hidden, self._hidden, strict=True):
            taken[at], cell[0] = cell[0], 0
        self._rows = 0
        return taken

    def _pick(self, role: str, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """`arrays` with those of many elements a row (an image) cut down to the ones that are counted: they need not be held, nor fetched anew."""
        picked = {source: elements for (side, source), elements in self._picked.items() if side == role}
        return {
            source: values.reshape(len(values), -1).take(picked[source], axis=1) if source in picked else values for source, values in arrays.items()
        }

    def _count(self) -> None:
        if not self._held_rows:
            return
        held, rows = self._held, self._held_rows
        self._held, self._held_rows = [], 0
        self._rows += rows

        sides = {"input": [inputs for inputs, _, _ in held], "output": [outputs for _, outputs, _ in held]}

        def gather(role: str, source: str) -> Array:
            return joined([side[source] for side in sides[role]])

        self._numbers.count(gather, rows)
        for feature, index, counter in self._categories:
            values = gather(feature.role, feature.source)
            counter.update((values if values.ndim == 1 else values.reshape(rows, -1)[:, feature.element]).tolist())
            if len(counter) > 4 * len(index) + 4096:  # texts that are never the same must not pile up until `take`
                folded = _fold(counter, index)
                counter.clear()
                counter.update(dict(zip(index, folded, strict=False)) | {_OTHER: folded[-2], None: folded[-1]})
        for feature, cell in self._hidden:
            cell[0] += _missing_rows(gather(feature.role, feature.source))


def joined(chunks: Sequence[Array]) -> Array:
    """Arrays of one dtype and one shape of row, end to end.

    Small arrays are joined as bytes, which takes a fifth of the time of np.concatenate (64 single values: 3 µs for 14).
    """
    first = chunks[0]
    if len(chunks) == 1:
        return first
    if first.dtype.kind != "O" and first.nbytes <= 4096:
        try:
            return np.frombuffer(b"".join(chunks), dtype=first.dtype).reshape(-1, *first.shape[1:])  # type: ignore[arg-type]
        except (BufferError, TypeError, ValueError):  # a view with gaps has no bytes to join
            pass
    return np.concatenate(chunks)


def places(feature: FeatureProfile, values: Array) -> Array:
    """In which of its `counts` each value [row] of a feature falls; right after them the missing ones. As a Binner counts them."""
    if feature.kind == "number":
        numbers = values.astype(np.float64)
        return np.where(np.isnan(numbers), _cells(feature), np.searchsorted(feature.edges, numbers, side="right"))
    index, other = _index(feature.categories), len(feature.categories)
    found = (other + 1 if _is_missing(value) else index.get(value, other) for value in values.tolist())
    return np.fromiter(found, np.int64, len(values))


class _Other:
    """The key under which folded rare categories are counted."""


_OTHER = _Other()


def _index(categories: Sequence[Scalar]) -> dict[Any, int]:
    return {category: place for place, category in enumerate(categories)}


def _fold(counter: Counter[Any], index: Mapping[Any, int]) -> list[int]:
    """Counts of (category …, other, missing)."""
    cells = [0] * (len(index) + 2)
    for value, count in counter.items():
        cells[-1 if _is_missing(value) else index.get(value, -2)] += count
    return cells


def _missing_rows(values: Array) -> int:
    if values.dtype == object:
        flat = values.reshape(len(values), -1)
        return sum(any(item is None for item in row) for row in flat.tolist())
    if values.dtype.kind != "f":
        return 0
    return int(np.isnan(values).reshape(len(values), -1).any(axis=1).sum())


class _Numbers:
    """Counts all numeric features of a block at once.

    A bin's count is the difference of two counts of `value >= edge`. In a block of many rows these are places in the sorted columns, a third of the
    time of comparing each value with each edge; in one of few rows (wide ones, such as images) each row is compared with all edges at once. The first
    edge of each feature is -inf, which only NaN does not reach.
    """

    def __init__(self, features: Sequence[FeatureProfile]) -> None:
        self._features = features
        size = len(features)
        longest = max((len(feature.edges) for feature in features), default=0)
        self._edges = np.full((size, longest + 1), np.inf)
        for place, feature in enumerate(features):
            self._edges[place, 0] = -np.inf
            self._edges[place, 1 : len(feature.edges) + 1] = feature.edges
        self._centres = np.array([[feature.centre] for feature in features])
        self._scales = np.array([[math.ldexp(1.0, -feature.exponent)] for feature in features])
        self._reached = np.zeros((size, longest + 1), dtype=np.int64)
        self._moments = np.zeros((3, size), dtype=np.int64)
        self.sources = _sources(features)
        # Which of (bins of all features, side by side; missing; total; squares in two parts) make up the counts, feature by feature.
        cells = [len(feature.edges) + 1 for feature in features]
        self._is_bin = np.arange(longest + 1) < np.array(cells, dtype=np.int64).reshape(-1, 1)
        wide = size * (longest + 1)
        self._order = np.array(
            [
                at
                for place, count in enumerate(cells)
                for at in (*range(place * (longest + 1), place * (longest + 1) + count), *range(wide + place, wide + 4 * size, size))
            ],
            dtype=np.int64,
        )

    def count(self, gather: Any, rows: int) -> None:
        if not self._features:
            return
        sources = [(place, gather(role, source).reshape(rows, -1)) for role, source, place, _ in self.sources]
        for start in range(0, rows, _CHUNK_ROWS):
            stop = min(start + _CHUNK_ROWS, rows)
            block = np.empty((len(self._features), stop - start))
            for place, values in sources:
                part = values[start:stop]
                block[place : place + part.shape[1]] = part.T
            self._count_block(block, stop - start)

    def _count_block(self, block: Array, rows: int) -> None:
        """Count `block` [features, rows], which is sorted and overwritten: what a look fetches besides, the next requests miss in the caches."""
        if rows <= _FEW_ROWS:
            for row in block.T:
                self._reached += row[:, None] >= self._edges
            has_missing = bool(np.isnan(block).any())
        else:
            block.sort(axis=1)  # NaN comes last
            has_missing = bool(np.isnan(block[:, -1]).any())
            present = rows - np.isnan(block).sum(axis=1, keepdims=True) if has_missing else rows
            below = [column.searchsorted(edges) for column, edges in zip(block, self._edges, strict=True)]
            self._reached += present - np.concatenate(below).reshape(self._reached.shape)
        with np.errstate(all="ignore"):
            block -= self._centres
            block *= self._scales
        np.rint(block, out=block)
        np.minimum(np.maximum(block, -_CLIP, out=block), _CLIP, out=block)
        if has_missing:
            np.copyto(block, 0.0, where=np.isnan(block))
        squares = np.vecdot(block, block).astype(np.int64)  # integers below 2^53: exact in any order
        self._moments[0] += block.sum(axis=1).astype(np.int64)
        self._moments[1] += squares >> _LOW_BITS
        self._moments[2] += squares & ((1 << _LOW_BITS) - 1)

    def take(self, rows: int) -> Array:
        """Feature by feature: (below, bin …, above), missing, total, squares in two parts."""
        moments, reached = self._moments, self._reached * self._is_bin
        moments[1] += moments[2] >> _LOW_BITS
        moments[2] &= (1 << _LOW_BITS) - 1
        missing = rows - reached[:, 0]
        reached[:, :-1] -= reached[:, 1:]
        taken: Array = np.concatenate((reached.ravel(), missing, moments.ravel()))[self._order]
        self._reached[:] = 0
        moments[:] = 0
        return taken


def _sources(features: Sequence[FeatureProfile]) -> list[tuple[str, str, int, Array | None]]:
    """Per tensor: role, name, the place of its first feature, and which elements (None: all, in order)."""
    found: list[tuple[str, str, int, list[int]]] = []
    for place, feature in enumerate(features):
        if found and found[-1][:2] == (feature.role, feature.source):
            found[-1][3].append(feature.element)
        else:
            found.append((feature.role, feature.source, place, [feature.element]))
    return [
        (role, source, place, None if elements == list(range(len(elements))) and len(elements) < PROFILED_ELEMENTS else np.array(elements))
        for role, source, place, elements in found
    ]


def pack(counts: Array) -> bytes:
    """A vector of counts as a small blob: the lowest bytes of all counts first, the highest, which are nearly all zero, last."""
    unsigned = (counts << 1 ^ counts >> 63).astype("<u8")  # so that those of small negative numbers are too
    return _PLANES + zlib.compress(unsigned.view(np.uint8).reshape(-1, 8).T.tobytes(), 1)


def unpack(blob: bytes, *, limit_bytes: int = _BLOB_LIMIT_BYTES) -> Array:
    """`unpack(pack(v)) == v`; vectors of one profile are merged by adding them. Raises MalformedPayload, also for one larger than `limit_bytes`."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(blob.removeprefix(_PLANES), max(1, min(limit_bytes, _BLOB_LIMIT_BYTES)))
    except zlib.error as error:
        raise MalformedPayload("not a blob of profile counts") from error
    if not reader.eof or reader.unused_data or len(data) % 8 or not data:
        raise MalformedPayload("not a blob of profile counts")
    if not blob.startswith(_PLANES):  # as 0.1.0 wrote them
        return np.frombuffer(data, dtype="<i8").astype(np.int64)
    unsigned = np.ascontiguousarray(np.frombuffer(data, dtype=np.uint8).reshape(8, -1).T).view("<u8").reshape(-1)
    return (unsigned >> np.uint64(1)).astype(np.int64) ^ -(unsigned & np.uint64(1)).astype(np.int64)


def filled(reference: Profile, counts: Array) -> Profile:
    """The profile with the reference's bins and a Binner's counts. Raises MalformedPayload when they are not of these bins."""
    widths = [_width(feature) for feature in reference.features]
    if len(counts) != 1 + sum(widths) or (counts[0] < 0):
        raise MalformedPayload("the counts do not belong to this profile's bins")
    values: list[int] = counts.tolist()
    features = []
    start = 1
    for feature, width in zip(reference.features, widths, strict=True):
        cells = _cells(feature)
        part = values[start : start + width]
        start += width
        total, high, low = part[cells + 1 :] if feature.kind == "number" else (0, 0, 0)
        features.append(
            msgspec.structs.replace(
                feature, rows=values[0], counts=tuple(part[:cells]), missing=part[cells], total=total, squares=(high << _LOW_BITS) + low
            )
        )
    return Profile(features=tuple(features))


# -- comparing -------------------------------------------------------------------------------------------------------------------------------


def compare(reference: Profile, live: Profile) -> tuple[Shift, ...]:
    """Each feature's shift, the largest effect first. Raises Conflict when the profiles do not have the same bins."""
    if _bins(reference) != _bins(live):
        raise Conflict("profiles with different bins cannot be compared: they belong to different models")
    pairs = [(old, new) for old, new in zip(reference.features, live.features, strict=True) if old.rows and new.rows]
    tested = [_test(old, new) for old, new in pairs]
    adjusted = _benjamini_hochberg([p for _, p in tested])
    shifts = [
        Shift(
            feature=new.name,
            role=new.role,
            rows=new.rows,
            effect=effect,
            mean_shift=_mean_shift(old, new),
            p=p,
            q=q,
            missing=new.missing / new.rows,
            missing_reference=old.missing / old.rows,
            outside=new.outside / new.rows,
        )
        for (old, new), (effect, p), q in zip(pairs, tested, adjusted, strict=True)
    ]
    return tuple(sorted(shifts, key=lambda shift: (-shift.effect, shift.p, shift.feature)))


def _mean_shift(old: FeatureProfile, new: FeatureProfile) -> float | None:
    if old.kind != "number" or not old.present or not new.present:
        return None
    deviation = old.deviation
    return (new.mean - old.mean) / deviation if deviation > 0 else None


def _test(old: FeatureProfile, new: FeatureProfile) -> tuple[float, float]:
    """Effect size and p of one feature."""
    cells = [(float(a), float(b)) for a, b in zip(old.counts, new.counts, strict=True)]
    if old.kind == "missing":
        cells = [(float(old.present), float(new.present))]
    gone = (float(old.missing), float(new.missing))
    apart = _apart([*cells, gone])
    cells = _pooled(cells, ordered=old.kind == "number")
    ranked = cells if old.kind == "number" else []
    least = 5.0 / _smaller_share(old.rows, new.rows)
    cells = [*cells, gone] if sum(gone) >= least or len(cells) == 0 else [(cells[0][0] + gone[0], cells[0][1] + gone[1]), *cells[1:]]
    cells = [cell for cell in cells if sum(cell)]
    is_exact = len(cells) < 2
    cells = apart if is_exact else cells
    if len(cells) < 2:
        return 0.0, 1.0
    n, m = float(old.rows), float(new.rows)
    size = len(cells)
    shares = [((a + 0.5) / (n + size / 2), (b + 0.5) / (m + size / 2)) for a, b in cells]
    index = sum((now - then) * math.log(now / then) for then, now in shares)
    effect = max(0.0, index - (size - 1) * (1 / n + 1 / m))
    if is_exact:
        return effect, _exact_test(cells[1], n, m)
    p = _g_test(cells, n, m)
    return effect, min(1.0, 2 * min(p, _rank_test(ranked))) if len(ranked) > 1 else p


def _smaller_share(n: int, m: int) -> float:
    return min(n, m) / (n + m)


def _pooled(cells: list[tuple[float, float]], *, ordered: bool) -> list[tuple[float, float]]:
    """Neighbours (for categories: the rarest) joined until each cell is expected five times in the smaller sample.

    Below that the test's p is not to be trusted (Cochran 1954).
    """
    n, m = sum(a for a, _ in cells), sum(b for _, b in cells)
    if not n or not m:
        return [(n, m)]
    least = 5.0 * (n + m) / min(n, m)
    if not ordered:
        cells = sorted(cells, key=lambda cell: (sum(cell), cell))
    pooled: list[tuple[float, float]] = []
    a = b = 0.0
    for old, new in cells:
        a, b = a + old, b + new
        if a + b >= least:
            pooled.append((a, b))
            a = b = 0.0
    if a + b and pooled:
        last = pooled.pop()
        pooled.append((last[0] + a, last[1] + b))
    return pooled or [(n, m)]


def _apart(cells: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The fullest cell and all others as one; one alone where nothing lies elsewhere."""
    most = max(cells, key=sum)
    rest = sum(a for a, _ in cells) - most[0], sum(b for _, b in cells) - most[1]
    return [most, rest] if sum(rest) else [most]


def _exact_test(cell: tuple[float, float], n: float, m: float) -> float:
    """Fisher's exact test of one cell against all else, for cells of which too few are expected for `_g_test`; doubled, and never too small.

    Of a much larger sample that lies in one cell alone, all cells of the smaller one come to too few. The tail is bounded by a geometric series.
    """
    (a, b), r = cell, sum(cell)
    if a * (n + m) <= r * n:
        a, b, n, m = b, a, m, n
    ratio = (n - a) * b / ((a + 1) * (m - b + 1))
    if ratio >= 1:
        return 1.0
    return min(1.0, 2 * math.exp(_log_choose(n, a) + _log_choose(m, b) - _log_choose(n + m, r)) / (1 - ratio))


def _log_choose(n: float, k: float) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _g_test(cells: list[tuple[float, float]], n: float, m: float) -> float:
    """Log-likelihood ratio test of one distribution behind both samples, with Williams' correction (1976)."""
    total = n + m
    statistic = 0.0
    for a, b in cells:
        both = a + b
        for observed, size in ((a, n), (b, m)):
            if observed:
                statistic += observed * math.log(observed * total / (both * size))
    freedom = len(cells) - 1
    correction = 1 + (total / n + total / m - 1) * (sum(total / (a + b) for a, b in cells) - 1) / (6 * total * freedom)
    return chi_square_tail(2 * statistic / correction, freedom)


def _rank_test(cells: list[tuple[float, float]]) -> float:
    """Wilcoxon's test on bins: every value has the middle rank of its bin. It finds small shifts of the whole, which a G-test spreads thin."""
    n, m = sum(a for a, _ in cells), sum(b for _, b in cells)
    total = n + m
    below = spread = centred = 0.0
    for a, b in cells:
        score = below + (a + b) / 2 - total / 2
        below += a + b
        spread += (a + b) * score**2
        centred += b * score
    variance = n * m / (total - 1) * spread / total
    return chi_square_tail(centred**2 / variance, 1) if variance > 0 else 1.0


def chi_square_tail(value: float, freedom: int) -> float:
    """The chance that chi-square with `freedom` (a whole number) is `value` or more: the finite sums of Abramowitz and Stegun, 26.4.4 and 26.4.5."""
    if value <= 0:
        return 1.0
    half = value / 2
    if freedom % 2:
        term = math.sqrt(half / math.pi) * 2 * math.exp(-half)
        tail = math.erfc(math.sqrt(half))
        for step in range(1, freedom // 2 + 1):
            tail += term
            term *= half / (step + 0.5)
    else:
        term = math.exp(-half)
        tail = 0.0
        for step in range(1, freedom // 2 + 1):
            tail += term
            term *= half / step
    return min(1.0, tail)


def _benjamini_hochberg(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda place: values[place], reverse=True)
    adjusted = [1.0] * len(values)
    least = 1.0
    for rank, place in enumerate(order):
        least = min(least, values[place] * len(values) / (len(values) - rank))
        adjusted[place] = least
    return adjusted
