"""Drift that pages: for each input and output an e-detector against its distribution in the reference, at its share of the alarm budget.

Hides how counts become evidence (`monitor.edetector`), what an ordinary week accounts for (`monitor.cycles`) and how the state is written. It must
not weigh what drift does to the model: that is priced elsewhere. What a page promises is the law of `monitor.edetector`.

Where the bundle does not tell of cycles (its rows came without times), the first week is learnt: until then only missing values, and values that the
reference did not know, can page. A new release keeps what was learnt of features of the same name, since cycles belong to the traffic.
"""

from __future__ import annotations

import math
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from modelyard.monitor import budget, cycles, directions, edetector, persistence, weight
from modelyard.monitor.base import MINUTE_S, Judged
from modelyard.monitor.cycles import Cycles, Spread
from modelyard.monitor.directions import DOWN, MISSING, NAMES, NARROWER, OUTSIDE, UP, WIDER, Directions
from modelyard.monitor.edetector import BETS, Bets, Detected
from modelyard.monitor.persistence import Persistence
from modelyard.monitor.series import Series
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.monitor.base import Evidence, Reference
    from modelyard.monitor.profile import FeatureProfile
    from modelyard.types import Array, Digest, Outcome

FORMAT = 1
LEAST_ROWS = 100
"""A reference of fewer rows says too little to be held against anything."""
MOST_VERDICTS = 200
"""With more streams than this (an image), those that never spoke up are only summed up."""
_ABOVE = 3.0  # R is kept within e^3 of its threshold, so that an alarm ends soon after its cause
_HELD_S, _HELD_IN_CYCLES_S = 3600.0, 86_400.0  # a shift of what goes up and down by the hour may only show at its peaks
_UNKNOWN_CYCLES = 1.0  # what cycles may account for, in deviations, in a week that is not learnt yet: of what is never missing, one row in a hundred
_KNOWN = 64
_ALIKE = 0.5
"""Evidence in two directions that differs by less than e^0.5 says nothing of which it is."""
_BEFORE = (15, 16)  # how many arrays were written before


class _Written(msgspec.Struct, frozen=True, array_like=True):
    """The state as bytes: arrays of float32 (times float64), row-major."""

    format: int
    digest: str
    names: tuple[str, ...]
    scalars: tuple[float, float, int, int]
    lengths: tuple[tuple[float, int], ...]
    arrays: tuple[bytes, ...]


class _State(NamedTuple):
    """What is carried from turn to turn. By stream: `quiet_at` and `quiet_rows` are when little spoke for a shift, and how many rows came since;
    `began` when the last shift that paged is thought to have begun (NaN: none yet), `until` to when it is told.
    `peak` is the most evidence of what is told, as a logarithm. `rows` were seen in all.
    """

    detected: Detected
    cycles: Cycles
    quiet_at: Array
    quiet_rows: Array
    began: Array
    until: Array
    peak: Array
    persistence: Persistence
    rows: int


class Drift:
    """One instance serves any number of deployments; it keeps nothing of them but the directions of the latest references."""

    rule = "drift"
    pages = True

    def __init__(self) -> None:
        self._known: dict[tuple[Digest, int], Directions] = {}

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """A Verdict `drift:<feature>` for each input and output and, while none speaks up, one on all. State of another release begins anew."""
        reference = evidence.reference
        if not reference.profile.features or reference.profile.rows < LEAST_ROWS:
            rows = reference.profile.rows
            said = f"the reference has {rows:,} rows: drift is judged against {LEAST_ROWS} or more" if rows else "the bundle carries no profile"
            return Judged((Verdict(outcome="unknown", rule=self.rule, evidence=said),), state)
        known = self._directions(reference)
        before, is_new = _read(state, known, reference)
        streams = _streams(known, reference, evidence)
        after, made, skipped = _follow(before, known, streams, evidence)
        after = _placed(before, after, known, evidence)
        verdicts = _verdicts(after, known, streams, made)
        if all(verdict.outcome not in ("fail", "warn") for verdict in verdicts):
            verdicts.insert(0, _summary(after, streams, skipped=skipped, late=_late(known, evidence), is_new=is_new and bool(state)))
        if after.rows and evidence.now - after.cycles.at - MINUTE_S > evidence.settings.window_s:
            verdicts = [_unseen(verdict, after.cycles.at + MINUTE_S) for verdict in verdicts]
        return Judged(tuple(verdicts), _write(after, known, reference.digest))

    def _directions(self, reference: Reference) -> Directions:
        key = (reference.digest, reference.profile.rows)
        if key not in self._known:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[key] = directions.directions(reference.profile)
        return self._known[key]


class _Streams(NamedTuple):
    """How each stream is judged: its name in rules, whether it may page, and the logarithm of its threshold."""

    names: tuple[str, ...]
    may_page: Array
    needed: Array
    smallest: float
    first_s: float


def _streams(known: Directions, reference: Reference, evidence: Evidence) -> _Streams:
    weights = budget.stream_weights(known.features, reference.importance)
    total = evidence.false_pages if evidence.false_pages > 0 else 1.0  # told not to page: what would
    shares = budget.split(total, dict(enumerate(weights)))
    mean = total / max(1, sum(weight > 0 for weight in weights))
    blocks = [budget.blocks_between(share or mean, block_s=MINUTE_S) for share in shares.values()]
    inputs = {feature.name for feature in known.features if feature.role == "input"}
    names = tuple(f"output {each.name}" if each.role == "output" and each.name in inputs else each.name for each in known.features)
    settings = evidence.settings.drift
    return _Streams(names, np.array(weights) > 0, np.log(blocks), settings.smallest_shift, settings.learn_days * cycles.DAY_S)


def _follow(state: _State, known: Directions, streams: _Streams, evidence: Evidence) -> tuple[_State, Bets, int]:
    """The state after all fresh minutes, the bets of the last, and how many rows could not be read."""
    made = _bets(state, known, streams)
    found = edetector.evidence(state.detected, made)
    skipped = 0
    for minute in evidence.fresh:
        if minute.digest != evidence.reference.digest or minute.counts is None:
            continue
        counts = known.gather(minute.counts).astype(np.float64) if len(minute.counts) == known.size else None
        if counts is None or counts.min() < 0:
            skipped += minute.rows
            continue
        if not counts.any():
            continue
        start, weeks = float(minute.start), state.cycles.weeks
        grown = cycles.grown(state.cycles, known, counts, start, first_s=streams.first_s, suspected=found > streams.needed / 2)
        state = state._replace(cycles=grown, rows=state.rows + int(minute.counts[0]))
        if grown.weeks != weeks:
            made = _bets(state, known, streams)
        detected = edetector.advance(state.detected, known, made, counts, streams.needed + _ABOVE, fresh=persistence.fresh(state.persistence))
        found = edetector.evidence(detected, made)
        seen = persistence.grown(state.persistence, counts, start, _usual(known, state.cycles))
        state = _timed(state._replace(detected=detected, persistence=seen), streams, found, counts, start)
    return state, made, skipped


def _usual(known: Directions, seen: Cycles) -> Array:
    """Where rows lie: the reference's, and those of the last weeks where any came [way, stream, cell]."""
    rows = seen.total.sum(axis=1, keepdims=True)
    return np.stack((known.shares, np.where(rows > 0, seen.total / np.maximum(rows, 1.0), known.shares)))


def _placed(before: _State, after: _State, known: Directions, evidence: Evidence) -> _State:
    """With the first bad minute of what has begun to be told, where the window shows a sharp one: causes are told by the same (`monitor.series`)."""
    is_new = ~np.isnan(after.began) & (after.began != before.began)
    if not is_new.any():
        return after
    series = Series(evidence.reference, evidence.recent)
    places = {(each.role, each.name): place for place, each in enumerate(evidence.reference.profile.features)}
    began = after.began.copy()
    for at in np.flatnonzero(is_new):
        feature = known.features[at]
        found = series.onset(places[feature.role, feature.name]) if len(series) else None
        if found is not None and found.is_seen:
            began[at] = float(series.starts[found.first])
    return after._replace(began=began)


def _bets(state: _State, known: Directions, streams: _Streams) -> Bets:
    active = np.ones((len(known.features), len(NAMES) + 1), dtype=bool)
    widths = np.where(state.cycles.widths > streams.smallest / 2, state.cycles.widths, 0.0)  # less is noise, and within the margin anyway
    if streams.first_s > 0 and not state.cycles.weeks:
        active[:] = False
        active[:, [MISSING, OUTSIDE]] = True
        widths = widths + _UNKNOWN_CYCLES
    return edetector.bets(known, smallest=streams.smallest, cycles=widths, active=active)


def _timed(state: _State, streams: _Streams, found: Array, counts: Array, start: float) -> _State:
    """With what follows from the evidence `found` after a minute: since when, and to when it is told."""
    end = start + MINUTE_S
    is_quiet = found < streams.needed / 3
    quiet_at = np.where(is_quiet, end, np.minimum(state.quiet_at, end))
    quiet_rows = np.where(is_quiet, 0.0, state.quiet_rows + counts.sum(axis=1))
    is_over = found >= streams.needed
    is_held = state.until > start
    is_begin = is_over & ~is_held
    lasts = is_over | (is_held & (found >= streams.needed / 2))
    # Evidence grows evenly, on average: what took it from a third to the whole had taken half as long to reach the third.
    began = np.where(is_begin, quiet_at - (end - quiet_at) / 2, state.began)
    held_s = np.where(state.cycles.widths.max(axis=1) > streams.smallest, _HELD_IN_CYCLES_S, _HELD_S)
    until = np.where(lasts, end + held_s, np.minimum(state.until, end + held_s))  # a clock that was put back makes no alarm last longer
    peak = np.where(is_over | is_held, np.maximum(np.where(is_held, state.peak, 0.0), found), 0.0)
    return state._replace(quiet_at=quiet_at, quiet_rows=quiet_rows, began=began, until=until, peak=peak)


# -- telling ---------------------------------------------------------------------------------------------------------------------------------


class _Latest(NamedTuple):
    """Where the latest rows of each stream lie beside the reference: its cells' `shares` [stream, cell], the means of its `scores`
    [stream, direction] and the `distance` [stream], less what chance alone makes of so few rows."""

    shares: Array
    scores: Array
    distance: Array


def _latest(memory: Array, known: Directions) -> _Latest:
    rows = memory.sum(axis=1)
    shares = np.where(rows[:, None] > 0, memory / np.maximum(rows, 1e-12)[:, None], known.shares)
    squares = ((shares - known.shares) ** 2 / np.where(known.shares > 0, known.shares, 1.0)).sum(axis=1)
    distance = np.sqrt(np.maximum(squares - (known.cells - 1) / np.maximum(rows, 1.0), 0.0))
    return _Latest(shares, np.einsum("sdc,sc->sd", known.scores, shares), distance)


def _leading(terms: Array, latest: _Latest) -> Array:
    """The direction of each stream in which there is most evidence; `len(NAMES)` is none of them. Where several are alike, since evidence beyond the
    threshold is let go, the one in which the latest rows lie farthest: what moved up is not told as spread wider after a while.
    """
    most = terms.max(axis=1, keepdims=True)
    by_direction = terms[:, :-1].reshape(len(terms), len(NAMES), BETS).max(axis=2)
    is_most = by_direction >= most - _ALIKE
    farthest: Array = np.where(is_most, latest.scores, -np.inf).argmax(axis=1)
    return np.where(is_most.any(axis=1), farthest, len(NAMES))


def _verdicts(state: _State, known: Directions, streams: _Streams, made: Bets) -> list[Verdict]:
    if not state.rows:
        return []
    found = edetector.evidence(state.detected, made)
    latest = _latest(state.detected.memory, known)
    leading = _leading(state.detected.sums + made.stakes, latest)
    end = state.cycles.at + MINUTE_S
    is_held = state.until > state.cycles.at
    is_learning = bool(streams.first_s > 0 and not state.cycles.weeks)
    told = []
    for at, feature in enumerate(known.features):
        if len(known.features) > MOST_VERDICTS and math.isnan(state.began[at]):
            continue
        # What spoke up in its first week was missing or unknown values: when they are over, that is known.
        outcome: Outcome = "unknown" if is_learning and math.isnan(state.began[at]) else "pass"
        if is_held[at]:
            outcome = "fail" if streams.may_page[at] else "warn"
        began = float(state.began[at]) if is_held[at] else float(state.quiet_at[at])
        numbers = _numbers(feature, latest, known, at)
        peak = float(state.peak[at]) if is_held[at] else None
        numbers |= weight.numbers(float(found[at]), float(streams.needed[at]), peak=peak) | {
            "e_value": math.exp(min(float(found[at]), 700.0)),
            "rows": float(state.quiet_rows[at]) * (1.5 if is_held[at] else 1.0),
            "margin": float(made.radius[at]),
        }
        told.append(
            Verdict(
                outcome=outcome,
                rule=f"{Drift.rule}:{streams.names[at]}",
                evidence=_sentence(feature, numbers, outcome, _moved(known, latest, at, int(leading[at]), numbers) if is_held[at] else "", began),
                numbers=numbers,
                window=(min(began, end), end),
                columns=(feature.name,),
            )
        )
    return told


def _numbers(feature: FeatureProfile, latest: _Latest, known: Directions, at: int) -> dict[str, float]:
    last = int(known.cells[at]) - 1
    numbers = {
        "effect": float(latest.distance[at]),
        "missing": float(latest.shares[at, last]),
        "missing_reference": float(known.shares[at, last]),
    }
    if feature.kind == "number":
        numbers["shift"] = float(latest.scores[at, UP])
        numbers["outside"] = float(latest.shares[at, 0] + latest.shares[at, last - 1])
    elif known.has[at, OUTSIDE]:
        numbers["outside"] = float(latest.shares[at, last - 1])
    return numbers


def _sentence(feature: FeatureProfile, numbers: dict[str, float], outcome: Outcome, moved: str, began: float) -> str:
    if outcome == "unknown":
        return f"{feature.name}: the first week is still learnt; until then only missing values and what the reference did not know can page"
    if outcome == "pass":
        return f"{feature.name} lies {numbers['effect']:.2f} from the reference in its latest rows; {weight.said(numbers)}"
    told = weight.said(numbers) if numbers["value"] >= numbers["threshold"] else weight.said_of_held(numbers)
    unused = "; the model makes no use of it, so it pages nobody" if outcome == "warn" else ""
    return f"{feature.name} {moved}, since about {_at(began)}; {told}{unused}"


def _moved(known: Directions, latest: _Latest, at: int, leading: int, numbers: dict[str, float]) -> str:
    """How a stream moved, in words, by the direction in which there is most evidence."""
    if leading in (UP, DOWN):
        return f"lies {'higher' if leading == UP else 'lower'} by {abs(numbers['shift']):.2f} deviations"
    if leading in (WIDER, NARROWER):
        return "is spread wider" if leading == WIDER else "is spread less"
    if leading == MISSING:
        return f"is missing in {numbers['missing']:.2%} of the latest rows, {numbers['missing_reference']:.2%} in the reference"
    if leading == OUTSIDE:
        return f"is in {numbers['outside']:.2%} of the latest rows what the reference did not know"
    shares, before = latest.shares[at], known.shares[at]
    cells = int(known.cells[at])
    place = int(np.argmax((shares[:cells] - before[:cells]) ** 2 / before[:cells]))
    cell = _cell(known.features[at], place, is_missing=place == cells - 1)
    return f"is otherwise distributed: {cell} in {shares[place]:.2%} of the latest rows, {before[place]:.2%} in the reference"


def _cell(feature: FeatureProfile, place: int, *, is_missing: bool) -> str:
    if is_missing or feature.kind == "missing":
        return "missing" if is_missing else "present"
    if feature.kind == "category":
        return repr(feature.categories[place]) if place < len(feature.categories) else "other categories"
    if place == 0:
        return f"below {feature.edges[0]:g}"
    low = feature.edges[place - 1]
    return f"{low:g} to below {feature.edges[place]:g}" if place < len(feature.edges) else f"{low:g} and above"


def _unseen(verdict: Verdict, since: float) -> Verdict:
    """What a verdict is worth in a window without a row: what was well before is unknown now; an alarm lasts until rows say otherwise."""
    if verdict.outcome != "pass":
        return verdict
    return msgspec.structs.replace(verdict, outcome="unknown", evidence=f"no row since {_at(since)}; before, {verdict.evidence}")


def _summary(state: _State, streams: _Streams, *, skipped: int, late: int, is_new: bool) -> Verdict:
    """The verdict `drift` on all streams, none of which speaks up; `late` rows came too late to be judged."""
    learnt = state.cycles.seen_s / cycles.DAY_S
    days = streams.first_s / cycles.DAY_S
    numbers = {"streams": float(len(streams.names)), "rows": float(state.rows), "weeks": float(state.cycles.weeks)}
    outcome: Outcome = "pass"
    said = f"of {len(streams.names):,} inputs and outputs none lies beyond its margin"
    if skipped:
        outcome, said = "unknown", f"{skipped:,} rows were counted in the bins of another profile and cannot be judged"
    elif not state.rows and late:
        outcome, said = "unknown", f"rows of this release came only after their minutes were judged: {late:,}, which reports count"
    elif not state.rows:
        outcome, said = "unknown", "no row of this release was profiled yet"
    elif days and not state.cycles.weeks:
        outcome, said = "unknown", f"an ordinary week is still learnt: {learnt:.1f} of {days:g} days were seen"
    if is_new:
        said += "; the release is another than the last time, so all begins anew but what was learnt of cycles"
    end = state.cycles.at + MINUTE_S
    return Verdict(outcome=outcome, rule=Drift.rule, evidence=said, numbers=numbers, window=(end, end) if state.rows else None)


def _late(known: Directions, evidence: Evidence) -> int:
    """How many rows of the release lie in minutes of the window that were handed over before they had any."""
    first = evidence.fresh[0].start if evidence.fresh else math.inf
    ours = (each for each in evidence.recent if each.digest == evidence.reference.digest and each.start < first)
    return sum(int(each.counts[0]) for each in ours if each.counts is not None and len(each.counts) == known.size)


def _at(when: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))
    except (OverflowError, OSError, ValueError):  # a clock that stands nowhere
        return f"second {when:g}"


# -- state -----------------------------------------------------------------------------------------------------------------------------------


def _begin(known: Directions, reference: Reference) -> _State:
    count = len(known.features)
    return _State(
        detected=edetector.begin(known),
        cycles=cycles.begin(known, _carried(known, reference)),
        quiet_at=np.full(count, np.inf),
        quiet_rows=np.zeros(count),
        began=np.full(count, np.nan),
        until=np.full(count, -np.inf),
        peak=np.zeros(count),
        persistence=persistence.begin(*known.shares.shape),
        rows=0,
    )


def _carried(known: Directions, reference: Reference) -> Array | None:
    """What the bundle tells of cycles, if it tells of all streams."""
    told = {} if reference.learnt is None else reference.learnt.cycles
    rows = [told.get(name) for name in _names(known)]
    if not rows or any(row is None or len(row) != len(NAMES) + 1 for row in rows):
        return None
    return np.array(rows, dtype=np.float64)


def _parts(state: _State) -> tuple[Array, ...]:
    c = state.cycles
    spreads = (part for each in c.spreads for part in (each.sums, each.farthest, each.proven))
    small = (c.widths, state.detected.sums, state.detected.memory, state.quiet_rows, c.blocks, c.total, *spreads)
    p = state.persistence
    large = (state.quiet_at, state.began, state.until, state.peak, p.changes, p.expected, p.together, p.apart)
    return (*(each.astype("<f4") for each in small), *(each.astype("<f8") for each in large), p.latest.astype("<f4"))


def _names(known: Directions) -> tuple[str, ...]:
    return tuple(map(cycles.key, known.features))


def _write(state: _State, known: Directions, digest: Digest) -> bytes:
    c = state.cycles
    lengths = tuple((lasted_s, each.blocks) for lasted_s, each in zip(c.lasted_s, c.spreads, strict=True))
    written = _Written(FORMAT, digest, _names(known), (c.at, c.seen_s, c.weeks, state.rows), lengths, tuple(each.tobytes() for each in _parts(state)))
    return zlib.compress(msgspec.msgpack.encode(written), 1)


def _read(data: bytes, known: Directions, reference: Reference) -> tuple[_State, bool]:
    """The state, and whether it begins anew: for the first time, of another release, or from bytes that are none of ours."""
    empty = _begin(known, reference)
    if not data:
        return empty, True
    try:
        written = msgspec.msgpack.decode(zlib.decompress(data), type=_Written)
        if written.format != FORMAT:
            return empty, True
        if written.digest != reference.digest or written.names != _names(known):
            return _inherited(empty, written, known), True
        return _unpacked(empty, written), False
    except (zlib.error, msgspec.MsgspecError, ValueError, IndexError):
        return empty, True


def _unpacked(empty: _State, written: _Written) -> _State:
    """Raises ValueError where the arrays are not of these shapes."""
    shapes = [(each.shape, each.dtype) for each in _parts(empty)]
    given = written.arrays
    if len(given) in _BEFORE:  # an earlier release wrote neither peaks nor how rows persist
        given = (*given, *(each.tobytes() for each in _parts(empty)[len(given) :]))
    arrays: list[Any] = [np.frombuffer(data, dtype=kind).reshape(shape).astype(np.float64) for data, (shape, kind) in zip(given, shapes, strict=True)]
    widths, sums, memory, quiet_rows, blocks, total, *parts, quiet_at, began, until, peak, changes, expected, together, apart, latest = arrays
    at, seen_s, weeks, rows = written.scalars
    triples = zip(written.lengths, parts[0::3], parts[1::3], parts[2::3], strict=True)
    spreads = tuple(Spread(count, moments, farthest, proven) for (_, count), moments, farthest, proven in triples)
    grown = Cycles(at, seen_s, weeks, tuple(lasted_s for lasted_s, _ in written.lengths), blocks, total, spreads, widths)
    persisting = Persistence(changes, expected, together, apart, latest, at)
    return _State(Detected(sums, memory), grown, quiet_at, quiet_rows, began, until, peak, persisting, rows)


def _inherited(empty: _State, written: _Written, known: Directions) -> _State:
    """A new state that knows the cycles of features of the same name and kind, when a week was learnt and all of them are among those."""
    weeks = written.scalars[2]
    places = {name: place for place, name in enumerate(written.names)}
    names = _names(known)
    if not weeks or not all(name in places for name in names):
        return empty
    widths = np.frombuffer(written.arrays[0], dtype="<f4").reshape(len(written.names), -1).astype(np.float64)
    kept = widths[[places[name] for name in names]]
    if kept.shape != empty.cycles.widths.shape:
        return empty
    return empty._replace(cycles=empty.cycles._replace(weeks=weeks, widths=np.maximum(kept, empty.cycles.widths)))
