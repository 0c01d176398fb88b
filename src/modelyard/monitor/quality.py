"""Data quality as a Detector: reports what is plainly broken upstream, and may wake somebody for a column that is wholly missing or has turned
constant.

Hides the state that pages need. Breaks are found anew each turn (`monitor.breaks`) and only warn. A page is a Shiryaev-Roberts sum over blocks of
requests: a block that is wholly missing (or constant, at one value) multiplies the evidence by 1 / c, any other takes it back to nothing. c bounds
the chance of such a block by the column's own past, so a column that goes by the calendar (the hour, the season, a holiday) never pages by being
constant within an hour; where the reference is never missing, nothing of the past is needed. Some vary for days and are constant then by the
calendar (`workingday`, on a Saturday): a block that is as its whole hour was a day or a week before proves nothing, and constant columns page when a
first week is known. The sum less the number of blocks is a supermartingale, so the expected time between false pages is at least the threshold,
however often it is asked. It must not page for a column that the model does not use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from modelyard.monitor import breaks, weight
from modelyard.monitor.base import MINUTE_S, Evidence, Judged, Reference
from modelyard.monitor.breaks import Break
from modelyard.monitor.profile import FeatureProfile
from modelyard.monitor.series import Series
from modelyard.types import Digest, Verdict

FORMAT = 2
MONTH_MINUTES = 30 * 24 * 60
LEAST_CHANCE = 0.1
"""A block is never held to be less likely than this by itself, so that a page takes many of them."""
LEAST_IMPORTANCE = 0.01
"""A column with less of the answers, where that is known, does not page."""
_MOST_CHANCE = 0.9
_KNOWN_BLOCKS = 30
_RARE = 0.01
_BROKEN = 1e6
_AHEAD_S = 300.0
_STALE_RUNS = 4
_STALE_TIMES = 3
_STALE_S = 600.0
_HOUR_S, _DAY_HOURS, _WEEK_HOURS = 3_600, 24, 168
_ANY = ""
"""The look of an hour that was all of one sort, told by another release: its bins need not be these."""


class Quality:
    """The detector. Its state is bytes that it hands out, so one instance serves any number of deployments."""

    rule = "quality"
    pages = True

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """See `Detector.judge`: one verdict for each column that is broken, and one for all others."""
        reference = evidence.reference
        watched, note = _read(state, reference, evidence.now)
        series = Series(reference, evidence.recent)
        fresh = Series(reference, [each for each in evidence.fresh if each.start > watched.last])
        watched = _watch(watched, fresh, learn_s=evidence.settings.drift.learn_days * _DAY_HOURS * _HOUR_S)
        told = breaks.examine(series, evidence.settings.quality) if len(series) else ()
        requests = breaks.refused([each for each in evidence.recent if each.digest == reference.digest])
        verdicts = [_warning(each) for each in (*([requests] if requests else []), *told)]
        verdicts = list(_paged(evidence, watched, verdicts))
        verdicts += _stale(evidence, watched, {verdict.rule for verdict in verdicts})
        return Judged((_whole(series, verdicts, note), *verdicts), msgspec.msgpack.encode(watched))


# -- what is remembered ------------------------------------------------------------------------------------------------------------------------


class _Run(msgspec.Struct, array_like=True):
    """Blocks in a row that are all of one sort: the evidence, how many, since when, and how many such blocks were in runs that ended."""

    evidence: float = 0.0
    blocks: int = 0
    since: int = 0
    before: int = 0


class _Watch(msgspec.Struct, array_like=True):
    """One column: the block that is being filled (`look`: its sort so far), the whole blocks, and the runs. `stays` counts the runs of one value
    that ended in another, `longest` is how many seconds the longest of them took. `hour` (since 1970) is the one that goes on, `hour_look` what its
    blocks have been so far; `hours` are those of the last week that were all of one sort, by their place in the week: the hour and its look.
    """

    requests: int = 0
    look: str = ""
    began: int = 0
    blocks: int = 0
    gone: _Run = msgspec.field(default_factory=_Run)
    same: _Run = msgspec.field(default_factory=_Run)
    value: str = ""
    stays: int = 0
    longest: int = 0
    name: str = ""
    hour: int = 0
    hour_look: str = ""
    hours: dict[int, tuple[int, str]] = msgspec.field(default_factory=dict)


class _State(msgspec.Struct, array_like=True):
    format: int
    digest: Digest
    last: int
    columns: list[_Watch]
    since: int = 0


class _Look(NamedTuple):
    """Of one minute: `gone`, `varied`, or the only value."""

    text: str
    requests: int
    start: int


_GONE, _VARIED = "gone", "varied"


def _read(state: bytes, reference: Reference, now: float) -> tuple[_State, str]:
    """What the last turn remembered; a fresh one, and why, where it is another release's or none of ours. By which hours columns go is the traffic's,
    whoever answers.
    """
    names = [feature.name for feature in reference.profile.features]
    new = _State(FORMAT, reference.digest, -1, [_Watch(name=name) for name in names])
    if not state:
        return new, ""
    try:
        found = msgspec.msgpack.decode(state, type=_State)
    except msgspec.MsgspecError:
        return new, "; what was remembered could not be read, so that it begins anew"
    if found.format != FORMAT:
        return new, "; it begins anew with this release"
    if found.last > now + _AHEAD_S:
        return new, "; the clock went back, so that it begins anew"
    if found.digest == reference.digest and [each.name for each in found.columns] == names:
        return found, ""
    known = {each.name: {place: (hour, _ANY) for place, (hour, _) in each.hours.items()} for each in found.columns}
    for watch in new.columns:
        watch.hours = known.get(watch.name, {})
    new.since = found.since
    return new, "; it begins anew with this release"


def _watch(state: _State, fresh: Series, *, learn_s: float) -> _State:
    """With the fresh minutes counted; for `learn_s` no column pages by being constant."""
    features = fresh.reference.features
    for at in range(len(fresh)):
        live = fresh.since(at, at + 1)
        start, requests = int(fresh.starts[at]), int(min(fresh.requests[at], fresh.rows[at]))
        for old, new, watch in zip(features, live.features, state.columns, strict=True):
            _add(watch, old, _Look(_look(new), requests, start), is_learnt=start - (state.since or start) >= learn_s)
        state.last, state.since = start, state.since or start
    return state


def _look(live: FeatureProfile) -> str:
    if not live.present:
        return _GONE
    value = breaks.only_value(live)
    return _VARIED if value is None else str(value)


def _add(watch: _Watch, old: FeatureProfile, minute: _Look, *, is_learnt: bool) -> None:
    """Fill the block; judge it when it is full. Rows of one request hang together, so it is requests that fill it."""
    watch.began = watch.began if watch.requests else minute.start
    watch.look = minute.text if not watch.requests or watch.look == minute.text else _VARIED
    watch.requests += minute.requests
    if watch.requests < breaks.LEAST_REQUESTS:
        return
    is_gone, is_same = watch.look == _GONE, watch.look not in (_GONE, _VARIED)
    is_vouched = old.rows > 0 and old.missing <= _RARE * old.rows
    is_usual = _is_usual(watch)
    _step(watch.gone, is_gone, _chance(watch.gone, watch.blocks, is_vouched=is_vouched), watch.began, is_usual=is_usual and not is_vouched)
    if watch.value and watch.value != watch.look:  # the run of one value ends
        if is_same:
            watch.stays += 1
            watch.longest = max(watch.longest, watch.began - watch.same.since)
        _end(watch.same)
    is_judged = is_learnt and old.kind != "missing" and breaks.only_value(old) is None
    _step(watch.same, is_same, _chance(watch.same, watch.blocks, is_vouched=False) if is_judged else None, watch.began, is_usual=is_usual)
    watch.value = watch.look if is_same else ""
    watch.blocks += 1
    watch.requests = 0


def _is_usual(watch: _Watch) -> bool:
    """Whether the block is as its whole hour was a day or a week before; the hour it lies in is noted."""
    hour = watch.began // _HOUR_S
    if hour != watch.hour:
        place = watch.hour % _WEEK_HOURS
        watch.hours.pop(place, None)
        if watch.hour_look not in ("", _VARIED):
            watch.hours[place] = watch.hour, watch.hour_look
        watch.hour, watch.hour_look = hour, watch.look
    elif watch.hour_look != watch.look:
        watch.hour_look = _VARIED
    looks = (watch.hours.get((hour - back) % _WEEK_HOURS, (0, _VARIED)) for back in (_DAY_HOURS, _WEEK_HOURS))
    return any(at == hour - back and look in (watch.look, _ANY) for back, (at, look) in zip((_DAY_HOURS, _WEEK_HOURS), looks, strict=True))


def _end(run: _Run) -> None:
    run.before += run.blocks if run.evidence < _BROKEN else 0  # what was a break is no custom
    run.evidence, run.blocks = 0.0, 0


def _step(run: _Run, is_so: bool, chance: float | None, start: int, *, is_usual: bool) -> None:
    if not is_so:
        _end(run)
        return
    run.since = run.since if run.blocks else start
    run.blocks += 1
    if not is_usual:
        run.evidence = min((1.0 + run.evidence) / chance, 1e300) if chance is not None else 0.0


def _chance(run: _Run, blocks: int, *, is_vouched: bool) -> float | None:
    """At most how likely such a block is, by the blocks before this run; None where nobody can tell."""
    if is_vouched:
        return LEAST_CHANCE
    past = blocks - run.blocks
    if past < _KNOWN_BLOCKS:
        return None
    chance = max(LEAST_CHANCE, 2 * (run.before + 3) / past)
    return chance if chance < _MOST_CHANCE else None


# -- what is said ------------------------------------------------------------------------------------------------------------------------------


def _paged(evidence: Evidence, watched: _State, verdicts: list[Verdict]) -> Iterator[Verdict]:
    """The verdicts, those of columns that have been gone or constant for long enough made to fail."""
    features = evidence.reference.profile.features
    threshold = 2 * len(features) * MONTH_MINUTES / evidence.false_pages if evidence.false_pages > 0 else math.inf
    sure = {
        f"quality:{feature.name}": _failure(feature, watch, threshold, watched.last)
        for feature, watch in zip(features, watched.columns, strict=True)
        if max(watch.gone.evidence, watch.same.evidence) >= threshold and _is_used(evidence, feature)
    }
    yield from sure.values()
    yield from (verdict for verdict in verdicts if verdict.rule not in sure)


def _is_used(evidence: Evidence, feature: FeatureProfile) -> bool:
    known = evidence.reference.importance
    return feature.role == "output" or not known or known.get(feature.name, 0.0) >= LEAST_IMPORTANCE


def _warning(found: Break) -> Verdict:
    rule = f"quality:{found.feature}" if found.feature else "quality:requests"
    said = f"{found.feature} {found.said}" if found.feature else found.said
    when = f"since {clock(found.first)}" if found.is_seen else "in all minutes looked at"
    return Verdict(
        outcome="warn",
        rule=rule,
        evidence=f"{said}, {when}",
        numbers=found.numbers,
        window=(found.first, found.last),
        columns=(found.feature,) if found.feature else (),
    )


def _failure(feature: FeatureProfile, watch: _Watch, threshold: float, last: int) -> Verdict:
    is_gone = watch.gone.evidence >= watch.same.evidence
    run = watch.gone if is_gone else watch.same
    said = "is missing in every row" if is_gone else "has one value in every row, which it never kept for so long before,"
    return Verdict(
        outcome="fail",
        rule=f"quality:{feature.name}",
        evidence=f"{feature.name} {said} since {clock(run.since)}, in {run.blocks:,} blocks of requests",
        numbers=weight.numbers(math.log(run.evidence), math.log(threshold)) | {"blocks": float(run.blocks)},
        window=(float(run.since), float(last + MINUTE_S)),
        columns=(feature.name,),
    )


def _stale(evidence: Evidence, watched: _State, told: set[str]) -> Iterator[Verdict]:
    """Columns that change seldom, and have not for three times as long as ever."""
    for feature, watch in zip(evidence.reference.profile.features, watched.columns, strict=True):
        rule = f"quality:{feature.name}"
        stays_s = watched.last + MINUTE_S - watch.same.since
        is_late = watch.same.blocks and watch.stays >= _STALE_RUNS and stays_s > max(_STALE_S, _STALE_TIMES * watch.longest)
        if is_late and rule not in told:
            said = f"{feature.name} has not changed since {clock(watch.same.since)}, {stays_s / 60:,.0f} minutes; before, it did"
            numbers = {"stays_s": float(stays_s), "longest_s": float(watch.longest)}
            window = (float(watch.same.since), float(watched.last + MINUTE_S))
            yield Verdict(
                outcome="warn",
                rule=rule,
                evidence=f"{said} after {watch.longest / 60:,.0f} at most",
                numbers=numbers,
                window=window,
                columns=(feature.name,),
            )


def _whole(series: Series, verdicts: list[Verdict], note: str) -> Verdict:
    """What can be said of the columns together that have no verdict of their own."""
    foreign = f"; {series.foreign:,} minutes were counted in other bins than the reference's and are left out" if series.foreign else ""
    if not len(series):
        return Verdict(outcome="unknown", rule="quality", evidence=f"no row was seen{foreign}{note}")
    rows = int(series.rows.sum())
    numbers = {"rows": float(rows), "broken": float(len(verdicts)), "foreign_minutes": float(series.foreign)}
    said = f"{len(series.reference.features):,} columns of {rows:,} rows"
    if rows < breaks.LEAST_ROWS and not verdicts:
        return Verdict(
            outcome="unknown", rule="quality", evidence=f"{said} are too few to tell{foreign}{note}", numbers=numbers, window=series.window
        )
    broken = {column for verdict in verdicts for column in verdict.columns}
    found = f"all but {len(broken):,} of {said} are whole" if broken else f"{said}, none of them broken"
    is_any_whole = len(broken) < len(series.reference.features)
    return Verdict(
        outcome="pass" if is_any_whole else "warn",
        rule="quality",
        evidence=f"{found}{foreign}{note}",
        numbers=numbers,
        window=series.window,
    )


def clock(at: float) -> str:
    """A time as it is told: the minute, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
