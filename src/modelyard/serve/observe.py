"""What leaves the data plane beside the answers: counts, profiles and sampled rows of every prediction, once a second, into the spool.

Hides how that stays cheap: rows are kept as the arrays they came in, looked at in blocks of 512 or more after the replies have left, and no object
is made per row. Above `profile_rows_s` and `log_predictions_s` rows are taken by hash of their id, at 1, ½, ¼ …, and the share is recorded. It must
not write a value of a tagged column, nor ever fail or delay a prediction: what finds no room is dropped and counted.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, count
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

import msgspec
import numpy as np

from modelyard import events
from modelyard.events import GROUPS, Callers, Failures, Latencies, Mirror, Part, ProfileCounts, Rows, Segment, Spool
from modelyard.monitor import profile
from modelyard.monitor.evidence import CALLERS, summed
from modelyard.monitor.grouped import Grouped
from modelyard.monitor.profile import BLOCK_ROWS, PROFILED_ELEMENTS, Binner, Profile, joined, reference
from modelyard.serve.usage import shared
from modelyard.types import ALONE

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.config import Settings
    from modelyard.events import EventSink
    from modelyard.serve.usage import Spent
    from modelyard.types import Array, Digest, Schema, Tag

MASKED = "***"
_HELD_BYTES = 8 << 20
_LARGE_RUNS = 8
"""Large requests wait for so many: what a look costs beside its rows is shared, and the model has left the caches cold."""
_LARGE_ROWS = 64
"""From so many rows in a run on, chosen rows are taken out of each run, and not out of all runs end to end."""
_LARGE_RUN_BYTES = 64 << 10
"""The same from so many bytes on: of images one in many is chosen."""
_WIDE_ROWS = 64
"""So many wide rows are counted together, of which only the counted elements are held: of fewer, each would fetch bins and counts anew."""
_FEW_ROWS = 64
_LOOKS = 4
"""A look takes at most so many blocks: of a share of the rows it counts as many as of a whole block, and comes less often."""
_SMALLEST_SHARE = 2.0**-20
_FEW_RECORDERS = 16
"""Where more versions than this were asked since the last flush, those with few rows keep their profile for a later one."""
_PLACED_RECORDERS, _PLACED_ROWS = 4, 64
"""Of so many recorders and more, each with no more rows than that, the rows' positions are found together."""
_HELD_FLUSHES = 10
_HELD_ROWS = 256
_NONE = Failures(requests=0, seconds=0.0)


class Observer:
    """All recorders of one worker and its end of the spool. Lives on the event loop's thread."""

    def __init__(self, settings: Settings, *, slot: int, spool: Path | None) -> None:
        self._settings = settings
        self._slot = slot
        self._sink: EventSink | None = None
        self._salt = b""
        if spool is not None:
            self._sink = Spool(spool, slot=slot, limit_bytes=settings.spool_limit_bytes)
            self._salt = events.salt(spool)
        # A recorder lives as long as its version, or until what it holds is flushed.
        self._recorders: WeakValueDictionary[tuple[str, int, Digest], Recorder] = WeakValueDictionary()
        self._busy: dict[Recorder, None] = {}
        self._holding: dict[Recorder, int] = {}
        self._attached = count()
        self._flushes = 0
        self._flushed_at = time.time()
        self._flushed_s = time.monotonic()

    def attach(self, name: str, version: int, bundle: Bundle) -> Recorder | None:
        """The recorder of one served version; None where nothing is kept. Raises MalformedPayload for a profile that this release does not read."""
        if self._sink is None:
            return None
        key = (name, version, bundle.digest)
        recorder = self._recorders.get(key)
        if recorder is None:
            recorder = Recorder(key, bundle, self._settings, busy=self._busy, salt=self._salt)
            recorder.phase = next(self._attached) % _HELD_FLUSHES
            self._recorders[key] = recorder
        return recorder

    def flush(self, spent: Spent | None = None, *, is_last: bool = False) -> None:
        """Leave what was seen since the last flush as one segment, if anything was. Called once a second, and at the end of a drain (`is_last`).

        `spent` is what the worker took meanwhile; a version with requests that only wait is told of too.

        Of many versions that are asked a little each, most of the work would be profiles of a few rows: those stay here until they have
        _HELD_ROWS, for _HELD_FLUSHES at most, some at each flush. Counters and logged rows always leave.
        """
        started_at, self._flushed_at = self._flushed_at, time.time()
        started_s, self._flushed_s = self._flushed_s, time.monotonic()
        self._flushes += 1
        for key, own in {} if spent is None else spent.versions.items():
            if own.queued and (waiting := self._recorders.get(key)) is not None:
                self._busy[waiting] = None
        if self._sink is None or not (self._busy or self._holding):
            return
        holds = len(self._busy) > _FEW_RECORDERS and not is_last
        due = [each for each, until in self._holding.items() if each not in self._busy and not (holds and self._flushes < until)]
        recorders = [*self._busy, *due]
        self._busy.clear()
        elapsed_s = max(self._flushed_s - started_s, 0.05)
        _place(recorders)
        parts = tuple(part for recorder in recorders for part in self._take(recorder, elapsed_s, holds=holds))
        if spent is not None:
            parts = shared(spent, parts)
        self._sink.write(Segment(slot=self._slot, pid=os.getpid(), started_at=started_at, ended_at=self._flushed_at, parts=parts))

    def _take(self, recorder: Recorder, elapsed_s: float, *, holds: bool) -> tuple[Part, ...]:
        following = self._flushes + 1
        until = self._holding.pop(recorder, following + (recorder.phase - following) % _HELD_FLUSHES)
        parts = recorder.take(elapsed_s, holds=holds and self._flushes < until)
        if recorder.is_holding:
            self._holding[recorder] = until
        return parts


def _place(recorders: Sequence[Recorder]) -> None:
    """Find the positions of what few rows each recorder holds, of all at once: a call for each takes a quarter of what its second does."""
    held = [(recorder, ids) for recorder in recorders if (ids := recorder.held_ids(_PLACED_ROWS))]
    if len(held) < _PLACED_RECORDERS:
        return
    found = events.positions([each for _, ids in held for each in ids])
    end = 0
    for recorder, ids in held:
        start, end = end, end + len(ids)
        recorder.place(found[start:end])


class Answers(msgspec.Struct, frozen=True):
    """How a version's outputs are counted, so that those of another can be counted alike: bins, and what a row of each is (shape, is text)."""

    bins: Profile
    rows: dict[str, tuple[tuple[int, ...], bool]]

    def fit(self, other: Answers) -> bool:
        """Whether outputs counted in these bins may be those of `other`."""
        return all(self.rows[feature.source] == other.rows.get(feature.source) for feature in self.bins.features)


class Recorder:
    """What one version's answers leave behind. One thread owns it; the arrays that it is given must not change any more."""

    def __init__(
        self, key: tuple[str, int, Digest], bundle: Bundle, settings: Settings, *, busy: dict[Recorder, None] | None = None, salt: bytes = b""
    ) -> None:
        self.key = key
        self.phase = 0
        """At which of _HELD_FLUSHES flushes what it holds leaves: if all did at the same, requests would wait for that one."""
        self._busy = {} if busy is None else busy
        self._block_rows, self._most_rows = _block_rows(bundle.schema)
        self._is_wide = self._block_rows < BLOCK_ROWS
        known = reference(bundle)
        self._known = known
        self._counted_rows = max(self._block_rows, min(_WIDE_ROWS, _counted_rows(bundle.schema))) if self._is_wide else self._block_rows
        self._binner = Binner(known, block_rows=self._counted_rows)
        self._redactor = Redactor(bundle.schema, salt)
        self._loose = _loose(bundle)
        self.answers = _answers(known, bundle.schema, self._loose)
        self._generation = 0
        self._has_groups = False
        self._compared: Answers | None = None
        self._outputs: Binner | None = None
        self._grouped: Grouped | None = None
        self._past: list[Part] = []
        self._past_rows = 0
        self._profile_rows_s = settings.profile_rows_s
        self._log_rows_s = settings.log_predictions_s
        self._input_rate = settings.input_sample_rate
        self._profile_at(_share(0.0, self._profile_rows_s))
        self._held: list[_Run] = []
        self._held_rows = 0
        self._positions: Array | None = None
        self._profiled = 0
        self._begin()

    def _begin(self) -> None:
        self._requests = 0
        self._rows = 0
        self._failures: dict[str, Failures] = {}
        self._latencies = Latencies()
        self._log_share = 1.0 if self._log_rows_s > 0 else 0.0
        self._profiles: list[ProfileCounts] = []
        self._own: Array | None = None
        self._mirror: _Mirror | None = None
        self._asked: Array | None = None
        self._took: dict[int, int] = {}
        self._erred: dict[int, int] = {}
        self._predictions = _Kept()
        self._inputs = _Kept()

    def enter(self, generation: int, compared: Answers | None = None, *, has_groups: bool = False) -> None:
        """From now on count under the plan `generation`, and the outputs as those of `compared` are (None: not apart from the profile).

        `has_groups`: callers stay with a version, so requests, and outputs, are counted by the groups of their callers too.
        """
        if compared is not None and not (compared.bins.features and compared.fit(self.answers)):
            compared = None
        if generation == self._generation and compared is self._compared and has_groups == self._has_groups:
            return
        self._look()
        if self._is_begun or self.is_holding:
            self._past.append(self._close())
        self._generation, self._compared, self._has_groups = generation, compared, has_groups
        self._outputs = None if compared is None or compared is self.answers else Binner(compared.bins, block_rows=self._counted_rows)
        grouped = Grouped(compared.bins) if has_groups and compared is not None else None
        self._grouped = grouped if grouped is not None and grouped.is_counting else None

    @property
    def is_holding(self) -> bool:
        """Whether the profile of some rows has not left yet."""
        return self._profiled > 0

    @property
    def _is_begun(self) -> bool:
        return bool(self._requests or self._failures or self._mirror is not None)

    def answered(
        self,
        ids: list[str],
        rows: list[int],
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        latencies_s: list[float],
        *,
        groups: list[int] | None = None,
    ) -> None:
        """Record one run that was answered: `rows[i]` rows of each array belong to request `ids[i]`. Call it after the replies have been written."""
        if not self._held_rows and not self._requests:
            self._busy[self] = None
        self._held.append((ids, rows, inputs, outputs, latencies_s, time.time(), groups))
        self._held_rows += rows[0] if len(rows) == 1 else sum(rows)
        if self._held_rows >= self._look_rows and (len(self._held) >= _LARGE_RUNS or self._held_rows >= self._most_rows):
            self._look()

    def failed(self, code: str, latency_s: float, group: int = ALONE) -> None:
        """Record one request that got no prediction."""
        self._busy[self] = None
        before = self._failures.get(code, _NONE)
        self._failures[code] = Failures(requests=before.requests + 1, seconds=before.seconds + latency_s)
        if self._has_groups and code not in CALLERS:
            of = os.urandom(1)[0] if group == ALONE else group
            self._erred[of] = self._erred.get(of, 0) + 1

    def mirrored(
        self,
        *,
        sent: int = 0,
        shed: int = 0,
        failed: int = 0,
        rows: int = 0,
        disagreed: int = 0,
        latencies_s: Sequence[float] = (),
        outputs: Sequence[Mapping[str, Array]] = (),
    ) -> None:
        """Record requests that this version was asked, or was to be asked, beside the champion; `outputs` are its answers, run by run."""
        self._busy[self] = None
        if self._mirror is None:
            self._mirror = _Mirror(None if self._compared is None else self._compared.bins)
        fitted = [{name: self._fitted(name, values) for name, values in each.items()} for each in outputs]
        self._mirror.add((sent, shed, failed, rows, disagreed), latencies_s, fitted)

    def _fitted(self, name: str, values: Array) -> Array:
        loose = self._loose.get((_OUTPUTS, name))
        return values if loose is None else _fitted(values, loose.shape)

    def take(self, elapsed_s: float, *, holds: bool = False) -> tuple[Part, ...]:
        """All that was seen in the last `elapsed_s` seconds, a part per generation; begins anew, profiling the share that this traffic asks for.

        Where it `holds`, the profile of few rows waits for more of the same share (`is_holding`).
        """
        self._look()
        share = _share((self._past_rows + self._rows) / elapsed_s, self._profile_rows_s)
        holds = holds and self._profiled < _HELD_ROWS and 2 * self._profiled <= self._profile_rows_s and share == self._profile_share
        parts = (*self._past, self._close(holds=holds)) if self._is_begun or not self._past else tuple(self._past)
        self._past, self._past_rows = [], 0
        self._profile_at(share)
        return parts

    def _close(self, *, holds: bool = False) -> Part:
        """What was seen since the last part, as one, but for the profile where it `holds`; begins the next."""
        if not holds:
            self._close_profile()
        name, version, digest = self.key
        part = Part(
            name=name,
            version=version,
            digest=digest,
            requests=self._requests,
            rows=self._rows,
            failures=self._failures,
            latencies=self._latencies.buckets(),
            profiles=tuple(self._profiles),
            predictions=self._predictions.close(self._log_share),
            inputs=self._inputs.close(min(self._input_rate, self._log_share)),
            generation=self._generation,
            outputs=self._by_output(),
            mirror=None if self._mirror is None else self._mirror.close(),
            callers=self._by_caller(),
        )
        self._past_rows += self._rows
        self._begin()
        return part

    def _by_caller(self) -> Callers | None:
        """What was asked, what failed and what was answered, by groups of callers."""
        if not self._has_groups:
            return None
        asked = {} if self._asked is None else {group: int(self._asked[group]) for group in np.flatnonzero(self._asked).tolist()}
        outputs = {} if self._grouped is None else self._grouped.take()
        return Callers(asked=summed(asked, self._erred), failed=self._erred, took=self._took, outputs=outputs)

    def _by_output(self) -> dict[str, tuple[int, ...]]:
        """The outputs of the profiled rows by the bins that they are compared in; of the champion's own these are the profile's."""
        if self._compared is None:
            return {}
        bins, counts = (self._known, self._own) if self._outputs is None else (self._compared.bins, self._outputs.take())
        return {} if counts is None else by_output(bins, counts)

    def held_ids(self, most: int) -> list[str] | None:
        """The ids of the requests that are held, of one row each; None where they are more than `most`, or some of several rows."""
        if not 0 < self._held_rows <= most:
            return None
        ids = [each for run in self._held for each in run[0]]
        return ids if len(ids) == self._held_rows else None

    def place(self, positions: Array) -> None:
        """The positions of what `held_ids` gave: they need not be found again when that is looked at next."""
        self._positions = positions

    def _look(self) -> None:
        """Take in the block that is held."""
        if not self._held_rows:
            return
        block = _Block(self._held, self._held_rows, self._loose, self._positions)
        self._held, self._held_rows, self._positions = [], 0, None
        self._requests += len(block.ids)
        self._rows += block.rows
        self._latencies.add(block.latencies_s)
        if self._has_groups:
            counts = np.bincount(block.groups, minlength=GROUPS)
            self._asked = counts if self._asked is None else self._asked + counts
            cells, times = np.unique(events.half_octaves(block.latencies_s) * GROUPS + block.groups, return_counts=True)
            self._took = summed(self._took, dict(zip(cells.tolist(), times.tolist(), strict=True)))
        self._profile(block)
        self._log(block)

    def _profile(self, block: _Block) -> None:
        if self._profile_share <= 0:
            return
        chosen = None
        if self._profile_share == 1:
            taken = block.rows
            for inputs, outputs in block.runs() if self._is_wide else ((block.inputs(), block.outputs()),):
                self._count(inputs, outputs)
        else:
            chosen = np.flatnonzero(block.positions < events.threshold(self._profile_share))
            taken = len(chosen)
            if taken:
                self._count(block.inputs(chosen), block.outputs(chosen))
        if self._grouped is not None and taken:
            self._grouped.add(block.outputs(chosen), block.owners(chosen))
        self._profiled += taken
        if self._profiled > self._profile_rows_s and self._profile_share > _SMALLEST_SHARE:
            # More than a second's worth within one: what was counted stays, with its share; the rest is counted at half of it.
            self._close_profile()
            self._profile_at(self._profile_share / 2)

    def _profile_at(self, share: float) -> None:
        """From now on count this share of the rows."""
        self._profile_share = share
        self._look_rows = min(self._most_rows, round(self._block_rows * min(_LOOKS, 1 / share if share else _LOOKS)))

    def _count(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._binner.add(inputs, outputs)
        if self._outputs is not None:
            self._outputs.add({}, outputs)

    def _close_profile(self) -> None:
        if self._profiled:
            counts = self._binner.take()
            if self._compared is self.answers:
                self._own = counts if self._own is None else self._own + counts
            self._profiles.append(ProfileCounts(share=self._profile_share, counts=profile.pack(counts)))
            self._profiled = 0

    def _log(self, block: _Block) -> None:
        if self._log_share <= 0:
            return
        chosen = np.flatnonzero(block.positions < events.threshold(self._log_share))
        # First the share, then the rows: of large requests most would be named and copied to be dropped again.
        while self._predictions.rows + len(chosen) > self._log_rows_s and self._log_share > _SMALLEST_SHARE:
            self._log_share /= 2
            self._predictions.thin(self._log_share)
            self._inputs.thin(min(self._input_rate, self._log_share))
            chosen = chosen[block.positions[chosen] < events.threshold(self._log_share)]
        if not len(chosen):
            return
        self._predictions.add(block, chosen, block.logged(_OUTPUTS, chosen), has_groups=self._has_groups)
        with_inputs = chosen[block.positions[chosen] < events.threshold(min(self._input_rate, self._log_share))]
        if len(with_inputs):
            self._inputs.add(block, with_inputs, self._redactor.columns(block.logged(_INPUTS, with_inputs)))


def _answers(known: Profile, schema: Schema, loose: Mapping[tuple[int, str], _Loose]) -> Answers:
    features = tuple(feature for feature in known.features if feature.role == "output" and feature.kind != "missing")
    rows = {}
    for spec in schema.outputs:
        found = loose.get((_OUTPUTS, spec.name))
        rows[spec.name] = (spec.shape[1:] if found is None else found.shape, spec.datatype == "BYTES")
    return Answers(Profile(features=features), rows)


def by_output(bins: Profile, counts: Array) -> dict[str, tuple[int, ...]]:
    """Counts by output, missing ones last."""
    found = profile.filled(bins, counts)
    outputs = [feature for feature in found.features if feature.role == "output" and feature.kind != "missing"]
    return {feature.name: (*feature.counts, feature.missing) for feature in outputs} if found.rows else {}


def _share(rows_s: float, limit_rows_s: float) -> float:
    """The largest of 1, ½, ¼ … at which `rows_s` stay within the limit; 0 where nothing is to be kept."""
    if limit_rows_s <= 0:
        return 0.0
    share = 1.0
    while rows_s * share > limit_rows_s and share > _SMALLEST_SHARE:
        share /= 2
    return share


def _block_rows(schema: Schema) -> tuple[int, int]:
    """How many rows are looked at together, and how many may be held: wide ones (images) must not pile up."""
    row_bytes = sum(8 * math.prod(max(size, 1) for size in spec.shape[1:]) for spec in (*schema.inputs, *schema.outputs))
    most = max(1, _HELD_BYTES // row_bytes)
    return min(BLOCK_ROWS, most), most


def _counted_rows(schema: Schema) -> int:
    """How many rows' counted elements may be held."""
    return _HELD_BYTES // sum(
        8 * min(math.prod(max(size, 1) for size in spec.shape[1:]), PROFILED_ELEMENTS) for spec in (*schema.inputs, *schema.outputs)
    )


def _rows(arrays: Mapping[str, Array], chosen: Array) -> dict[str, Array]:
    """The rows `chosen`, in order and none twice."""
    return {name: _taken(values, chosen) for name, values in arrays.items()}


def _taken(values: Array, chosen: Array) -> Array:
    return values if len(chosen) == len(values) else values.take(chosen, axis=0)  # half the time of values[chosen]


_Run = tuple[list[str], list[int], Mapping[str, "Array"], Mapping[str, "Array"], list[float], float, list[int] | None]
"""Ids, their rows, inputs, outputs, latencies, when the run was answered, and the groups of the callers, if they have any."""


_INPUTS: Literal[2] = 2
_OUTPUTS: Literal[3] = 3


class _Loose(msgspec.Struct, frozen=True):
    """A tensor whose rows may have another shape from run to run: `shape` is that of the golden rows, which the profile was measured on.

    Where the schema leaves its shape open (`is_text`) the log keeps each row as JSON, so that rows of any shape share one column.
    """

    shape: tuple[int, ...]
    is_text: bool


def _loose(bundle: Bundle) -> dict[tuple[int, str], _Loose]:
    """By place and name, the tensors that are not of one shape: open ones, and all that a plain ONNX model answers (nothing holds it to its word)."""
    schema = bundle.schema
    found: dict[tuple[int, str], _Loose] = {}
    for spec in schema.inputs:
        if -1 in spec.shape[1:]:
            found[_INPUTS, spec.name] = _Loose(bundle.golden.inputs[spec.name].shape[1:], is_text=True)
    for spec in schema.outputs:
        if schema.task == "other" or -1 in spec.shape[1:]:
            found[_OUTPUTS, spec.name] = _Loose(bundle.golden.outputs[spec.name].shape[1:], is_text=-1 in spec.shape[1:])
    return found


def _fitted(values: Array, shape: tuple[int, ...]) -> Array:
    """`values` [rows, …] cut or filled up with missing values to `shape` per row; numbers as floats. Other numbers of dimensions are all missing."""
    is_text = values.dtype == object
    dtype = object if is_text else np.result_type(values.dtype, np.float32)
    if values.shape[1:] == shape:
        return values.astype(dtype, copy=False)
    fitted = np.full((len(values), *shape), None if is_text else np.nan, dtype=dtype)
    if values.ndim == fitted.ndim:
        common = tuple(slice(0, min(have, want)) for have, want in zip(values.shape, fitted.shape, strict=True))
        fitted[common] = values[common]
    return fitted


def _as_text(row: Array) -> str | None:
    """One row as JSON (NaN as null); None where all of it is missing."""
    items = row.ravel().tolist()
    if items and all(item is None or item != item for item in items):  # noqa: PLR0124  only NaN differs from itself
        return None
    return msgspec.json.encode(row.tolist()).decode()


class _Block:
    """Answered runs end to end; what is not asked for is not put together."""

    def __init__(self, runs: list[_Run], rows: int, loose: Mapping[tuple[int, str], _Loose], positions: Array | None = None) -> None:
        self._runs = runs
        self._loose = loose
        self._joined: dict[int, dict[str, Array]] = {}
        self._even: dict[tuple[int, str], Array] = {}
        self.rows = rows
        self.ids = list(chain.from_iterable([run[0] for run in runs]))
        self.latencies_s = list(chain.from_iterable([run[4] for run in runs]))
        self._counts = None if rows == len(self.ids) else np.array([count for run in runs for count in run[1]], dtype=np.int64)
        self._positions = positions
        self._groups: Array | None = None

    @property
    def groups(self) -> Array:
        """Of each request the group of its caller; of one that is drawn for itself, any."""
        if self._groups is None:
            found = np.fromiter(chain.from_iterable([run[6] or [ALONE] * len(run[0]) for run in self._runs]), np.int64, len(self.ids))
            alone = np.flatnonzero(found == ALONE)
            found[alone] = np.frombuffer(os.urandom(len(alone)), dtype=np.uint8)
            self._groups = found
        return self._groups

    def owners(self, chosen: Array | None = None) -> Array:
        """Of each row, or each chosen one, the group of its caller."""
        if chosen is None and self._counts is not None:
            return np.repeat(self.groups, self._counts)
        return self.groups if chosen is None else self.groups[self.requests(chosen)]

    @property
    def positions(self) -> Array:
        """Of each row, see `events.positions`."""
        if self._positions is None:
            self._positions = events.positions(self.ids, self._counts)
        return self._positions

    def inputs(self, chosen: Array | None = None) -> dict[str, Array]:
        """All rows, or the chosen ones."""
        return self._join(_INPUTS) if chosen is None else self._pick(_INPUTS, chosen)

    def outputs(self, chosen: Array | None = None) -> dict[str, Array]:
        """All rows, or the chosen ones."""
        return self._join(_OUTPUTS) if chosen is None else self._pick(_OUTPUTS, chosen)

    def runs(self) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Inputs and outputs run by run: wide rows are not put end to end for the few elements that are counted of them."""
        for run in self._runs:
            inputs = {name: self._fit(_INPUTS, name, [values]) for name, values in run[_INPUTS].items()}
            yield inputs, {name: self._fit(_OUTPUTS, name, [values]) for name, values in run[_OUTPUTS].items()}

    def _pick(self, place: Literal[2, 3], chosen: Array) -> dict[str, Array]:
        if place in self._joined or not self._is_large(place):
            return _rows(self._join(place), chosen)
        parts = self._picked(place, chosen)
        return {name: self._fit(place, name, [part[name] for part in parts]) for name in parts[0]}

    def _picked(self, place: Literal[2, 3], chosen: Array) -> list[dict[str, Array]]:
        """The chosen rows of each run that has any."""
        ends = list(accumulate([sum(run[1]) for run in self._runs]))
        bounds = [0, *chosen.searchsorted(ends).tolist()]
        return [
            _rows(run[place], chosen[first:last] - start)
            for run, start, first, last in zip(self._runs, [0, *ends[:-1]], bounds[:-1], bounds[1:], strict=True)
            if last > first
        ]

    def _is_large(self, place: Literal[2, 3]) -> bool:
        """Whether the runs have so many rows, or so wide ones, that it pays to take the chosen out of each."""
        runs = self._runs
        return self.rows >= _LARGE_ROWS * len(runs) or sum(values.nbytes for values in runs[0][place].values()) >= _LARGE_RUN_BYTES

    def logged(self, place: Literal[2, 3], chosen: Array) -> dict[str, Array]:
        """The chosen rows as the log keeps them."""
        kept = self._pick(place, chosen)
        for (where, name), loose in self._loose.items():
            if where != place:
                continue
            if loose.is_text:
                rows = [row for run in self._runs for row in run[place][name]]
                kept[name] = np.array([_as_text(rows[at]) for at in chosen.tolist()], dtype=object)
            elif (even := self._as_given(place, name, loose.shape, chosen)) is not None:
                kept[name] = even  # integers stay what they are
        return kept

    def _join(self, place: Literal[2, 3]) -> dict[str, Array]:
        if place not in self._joined and len(self._runs) == 1 and not self._loose:
            self._joined[place] = dict(self._runs[0][place])
        elif place not in self._joined:
            self._joined[place] = {name: self._whole(place, name) for name in self._runs[0][place]}
        return self._joined[place]

    def _whole(self, place: Literal[2, 3], name: str) -> Array:
        """A tensor of all runs, as it is counted."""
        loose = self._loose.get((place, name)) if self._loose else None
        even = None if loose is None else self._as_given(place, name, loose.shape)
        return self._fit(place, name, [run[place][name] for run in self._runs]) if even is None or loose is None else _fitted(even, loose.shape)

    def _as_given(self, place: Literal[2, 3], name: str, shape: tuple[int, ...], chosen: Array | None = None) -> Array | None:
        """All rows of a tensor, or the chosen ones, as the runs gave them, where every row has this shape and all have one datatype; else None."""
        if (place, name) not in self._even:
            parts = [run[place][name] for run in self._runs]
            if not all(part.shape[1:] == shape and part.dtype == parts[0].dtype for part in parts):
                return None
            if chosen is not None and self._is_large(place):
                return joined([part[name] for part in self._picked(place, chosen)])
            self._even[place, name] = joined(parts)
        even = self._even[place, name]
        return even if chosen is None else _taken(even, chosen)

    def _fit(self, place: Literal[2, 3], name: str, parts: list[Array]) -> Array:
        """`parts` end to end."""
        loose = self._loose.get((place, name)) if self._loose else None
        if loose is None:
            return joined(parts)
        if len({part.dtype for part in parts}) == 1 and all(shape[1:] == loose.shape for shape in {part.shape for part in parts}):
            return _fitted(joined(parts), loose.shape)
        return joined([_fitted(part, loose.shape) for part in parts])

    def requests(self, chosen: Array) -> Array:
        """To which request each of the chosen rows belongs."""
        return chosen if self._counts is None else np.searchsorted(np.cumsum(self._counts), chosen, side="right")

    def identify(self, chosen: Array) -> tuple[list[str], Array]:
        """Prediction ids and times of the chosen rows."""
        if self._counts is None and len(chosen) == self.rows <= _FEW_ROWS:  # a sixth of the time of what follows
            return self.ids, np.array([run[5] for run in self._runs for _ in run[0]])
        requests = self.requests(chosen)
        if self._counts is None:
            ids = self.ids if len(chosen) == self.rows else [self.ids[request] for request in chosen.tolist()]
        else:
            ends = np.cumsum(self._counts)
            within = (chosen - (ends - self._counts)[requests]).tolist()
            counts = self._counts.tolist()
            ids = [events.prediction_id(self.ids[at], row, counts[at]) for at, row in zip(requests.tolist(), within, strict=True)]
        runs = np.searchsorted(np.cumsum([len(run[0]) for run in self._runs]), requests, side="right")
        return ids, np.array([run[5] for run in self._runs])[runs]


class _Mirror:
    """Counts of mirrored requests."""

    __slots__ = ("_bins", "_counts", "_latencies", "_outputs")

    def __init__(self, bins: Profile | None) -> None:
        self._bins = bins
        self._outputs = None if bins is None else Binner(bins)
        self._latencies = Latencies()
        self._counts = (0, 0, 0, 0, 0)

    def add(self, counts: tuple[int, int, int, int, int], latencies_s: Sequence[float], outputs: Sequence[Mapping[str, Array]]) -> None:
        sent, shed, failed, rows, disagreed = map(add, self._counts, counts)
        self._counts = sent, shed, failed, rows, disagreed
        if latencies_s:
            self._latencies.add(latencies_s)
        if self._outputs is not None:
            for each in outputs:
                self._outputs.add({}, each)

    def close(self) -> Mirror:
        sent, shed, failed, rows, disagreed = self._counts
        return Mirror(
            sent=sent,
            shed=shed,
            failed=failed,
            rows=rows,
            disagreed=disagreed,
            latencies=self._latencies.buckets(),
            outputs={} if self._bins is None or self._outputs is None else by_output(self._bins, self._outputs.take()),
        )


class _Kept:
    """Rows for the log, thinned as the share falls."""

    __slots__ = ("_columns", "_groups", "_ids", "_positions", "_times", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._ids: list[str] = []
        self._positions: list[Array] = []
        self._times: list[Array] = []
        self._columns: list[dict[str, Array]] = []
        self._groups: list[Array] = []

    def add(self, block: _Block, chosen: Array, columns: dict[str, Array], *, has_groups: bool = False) -> None:
        """`columns` are those of the chosen rows."""
        if has_groups:
            self._groups.append(block.owners(chosen).astype(np.uint8))
        ids, times = block.identify(chosen)
        self.rows += len(ids)
        self._ids += ids
        self._times.append(times)
        self._positions.append(_taken(block.positions, chosen))
        self._columns.append(columns)

    def thin(self, share: float) -> None:
        if not self.rows:
            return
        positions, times, columns = self._together()
        keep = np.flatnonzero(positions < events.threshold(share))
        self._ids = [self._ids[row] for row in keep.tolist()]
        self._positions, self._times, self._columns = [positions[keep]], [times[keep]], [_rows(columns, keep)]
        self._groups = [np.concatenate(self._groups)[keep]] if self._groups else []
        self.rows = len(keep)

    def _together(self) -> tuple[Array, Array, dict[str, Array]]:
        if len(self._columns) == 1:
            return self._positions[0], self._times[0], self._columns[0]
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        return np.concatenate(self._positions), np.concatenate(self._times), columns

    def close(self, share: float) -> Rows | None:
        if not self.rows:
            return None
        _, times, columns = self._together()
        named = tuple(events.column(name, values) for name, values in columns.items())
        groups = b"".join(each.tobytes() for each in self._groups)
        return Rows(share=share, ids=tuple(self._ids), times=times.astype("<f8").tobytes(), columns=named, groups=groups)


class Redactor:
    """What may be written of a schema's inputs: `drop` is absent, `hash` a keyed SHA-256 per row, `mask` a constant; missing stays missing."""

    def __init__(self, schema: Schema, salt: bytes) -> None:
        self._tags: dict[str, Tag] = {spec.name: spec.tag for spec in schema.inputs if spec.tag is not None}
        self._salt = salt

    def columns(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """`inputs` without a tagged value."""
        if not self._tags:
            return dict(inputs)
        written = {}
        for name, values in inputs.items():
            tag = self._tags.get(name)
            if tag is None:
                written[name] = values
            elif tag != "drop":
                hidden = np.empty(len(values), dtype=object)
                hidden[:] = [self._hidden(tag, row) for row in values.reshape(len(values), -1).tolist()]
                written[name] = hidden
        return written

    def _hidden(self, tag: Tag, row: list[Any]) -> str | None:
        if all(item is None or item != item for item in row):  # noqa: PLR0124  only NaN differs from itself
            return None
        if tag == "mask":
            return MASKED
        return hmac.digest(self._salt, repr(row).encode("utf-8", "surrogatepass"), hashlib.sha256).hex()
