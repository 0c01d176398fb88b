"""One deployment's turn: the minutes that have closed since the last, every detector's verdicts on them, and what is to be kept until the next.

Hides which detectors there are and how they share the alarm budget, that rows come late and clocks jump, and that a detector may fail: then its
verdict is `unknown` and the others judge all the same. Pure: what was seen comes in, what is kept goes out. It must not know where either lies.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from modelyard.errors import MalformedPayload
from modelyard.monitor import budget, profile
from modelyard.monitor.base import MINUTE_S, Detector, Evidence, Labelled, Logged, Minute, Reference
from modelyard.monitor.budget import MONTH_S
from modelyard.monitor.cause import Cause, Happened
from modelyard.monitor.estimate import priced
from modelyard.monitor.explained import explained
from modelyard.monitor.quality import clock
from modelyard.monitor.settings import FIGURES
from modelyard.types import Digest, Verdict

if TYPE_CHECKING:
    from modelyard.monitor.profile import Profile
    from modelyard.monitor.settings import Monitored

DETECTORS: dict[str, str] = {
    "drift": "modelyard.monitor.drift:Drift",
    "shift": "modelyard.monitor.shift:WindowShift",
    "multivariate": "modelyard.monitor.multivariate:Multivariate",
    "estimated_performance": "modelyard.monitor.estimate.detector:EstimatedPerformance",
    "quality": "modelyard.monitor.quality:Quality",
    "slices": "modelyard.monitor.slices:Slices",
    "concept": "modelyard.monitor.concept:ConceptDrift",
    "operations": "modelyard.monitor.operations:Operations",
    "slo": "modelyard.monitor.slo:Slo",
    "performance": "modelyard.monitor.performance:Performance",
}
"""Rule -> "module:Class"; loaded when the first deployment is judged."""

GRACE_S = 20.0
"""How long after its end a minute is judged: what workers and replicas counted in it has come by then."""
CATCH_UP = 240
"""How many minutes that had traffic one turn judges at most; the next goes on from there."""
AWAY_S = 86_400
"""What lies further back than this is not judged any more after an absence: its minutes are about to become hours."""
LATE_S = 86_400
"""For how long it is counted what comes to a minute after it was judged."""
TRACKED = 80
"""How many points of each figure's course are kept, the latest: a little more than the window."""
GAPS = 20
"""How many gaps are remembered."""
STRAYED_S = 60.0
"""A clock that goes so much further than time did, or less far, was put: no request can have come in between, or minutes come twice."""
_ORDER = {"fail": 0, "warn": 1, "unknown": 2, "pass": 3}


class Span(NamedTuple):
    """Which minutes a turn needs: those that begin from `since` to before `until`; `start` is the first that is judged."""

    since: int
    start: int
    until: int


class Seen(NamedTuple):
    """What was found of a deployment's release in the `span` of a turn, at the time `now`: its `minutes`, oldest first. `missing` is what could not
    be read, and why."""

    name: str
    reference: Reference
    minutes: Sequence[Minute]
    labelled: Labelled | None
    span: Span
    now: float
    logged: Logged | None = None
    happened: Sequence[Happened] = ()
    missing: Sequence[str] = ()


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Why time is missing from a watch, or came twice, found `at` that time: the `clock` was put so many seconds forward (back: below 0) to `end`, or
    nobody watched (`away`) so many seconds until `end`.
    """

    kind: Literal["clock", "away"]
    at: float
    seconds: float
    end: float


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a deployment between turns. Minutes that begin before `through` were handed to the detectors.

    `since` is where the watch of the release began, `begun` when that was. `handed` are the requests of the minutes of the last day, so that what
    comes later is counted:
    `late` requests in all. `track` is the course of figures: by name, the beginnings of equal steps and the largest value in each. `failed` are the
    detectors that could not judge, and why; `paged` is when somebody was woken, of the last month; `causes` explain what fails, by rule. `gaps` are
    the latest, oldest first: they are told for a window.
    """

    version: int
    digest: Digest
    through: int = 0
    since: int = 0
    judged_at: float = 0.0
    states: dict[str, bytes] = {}
    handed: dict[int, int] = {}
    late: int = 0
    verdicts: tuple[Verdict, ...] = ()
    track: dict[str, tuple[tuple[int, float], ...]] = {}
    failed: dict[str, str] = {}
    paged: tuple[float, ...] = ()
    causes: dict[str, Cause] = {}
    gaps: tuple[Gap, ...] = ()
    begun: float = 0.0

    def with_gap(self, gap: Gap) -> Kept:
        """One more gap is known. Those that were found at a time that is still to come, by a clock that was put back since, were found before it."""
        before = (msgspec.structs.replace(each, at=min(each.at, gap.at)) for each in self.gaps)
        return msgspec.structs.replace(self, gaps=(*before, gap)[-GAPS:])

    def with_page(self, at: float) -> Kept:
        """Somebody was woken at that time: it counts against the alarm budget for a month."""
        return msgspec.structs.replace(self, paged=(*(each for each in self.paged if each > at - MONTH_S), at))


def load(rules: Mapping[str, str] = DETECTORS) -> dict[str, Detector]:
    """The detectors, by rule."""
    found: dict[str, Detector] = {}
    for rule, place in rules.items():
        module, _, name = place.partition(":")
        found[rule] = getattr(import_module(module), name)()
    return found


def closed(now: float, *, grace_s: float = GRACE_S) -> int:
    """The start of the first minute that is not closed yet."""
    return int((now - grace_s) // MINUTE_S) * MINUTE_S


def begin(digest: Digest, version: int, *, settings: Monitored, now: float, before: Kept | None = None) -> Kept:
    """What is kept of a release that was never judged: it is judged from the last window on, or the last day of a longer one. What detectors knew of
    the release `before` it they are handed: some of it may hold for the traffic, whoever answers.
    """
    through = int((now - min(settings.window_s, AWAY_S)) // MINUTE_S) * MINUTE_S
    if before is None:
        return Kept(version=version, digest=digest, through=through, since=through, begun=now)
    fresh = Kept(version=version, digest=digest, through=through, since=through, begun=now)
    return msgspec.structs.replace(fresh, states=before.states, paged=before.paged, gaps=before.gaps)


def strayed(kept: Kept, *, at: float, seconds: float, since: float) -> Kept:
    """What is kept when the clock stands at `at`, `seconds` ahead of where it should (behind: below 0). Of one that was put back, what was seen
    `since` then (a time by it as it stands now) is judged, perhaps for the second time.
    """
    through = min(kept.through, int(since // MINUTE_S) * MINUTE_S) if seconds < 0 else kept.through
    return msgspec.structs.replace(kept, through=through).with_gap(Gap(kind="clock", at=at, seconds=seconds, end=at))


def span(kept: Kept, *, settings: Monitored, closed: int) -> Span:
    """Which minutes the next turn needs, when those before `closed` are over: what was not judged yet, and the window before it."""
    start = kept.through
    if start > closed + MINUTE_S:
        start = closed
    elif start < closed - AWAY_S:
        start = closed - AWAY_S
    return Span(int((start - settings.window_s) // MINUTE_S) * MINUTE_S, start, max(start, closed))


def turn(kept: Kept, seen: Seen, detectors: Mapping[str, Detector], *, settings: Monitored, pages: float) -> Kept:
    """Judge what has closed since the last turn. `pages` is how often a month this deployment may page with nothing wrong.

    Never raises for what a detector does.
    """
    start, reached, now = seen.span.start, seen.span.until, seen.now
    kept = _with_gap(kept, seen.span, seen.now)
    ours = _gaps(kept.gaps, now=seen.now, window_s=settings.window_s)
    if seen.missing:
        said = f"judged without what cannot be read now; {'; '.join(seen.missing)}"
        ours.append(Verdict(outcome="unknown", rule="watch:log", evidence=said))
    fresh = [minute for minute in seen.minutes if start <= minute.start < reached]
    if len(fresh) > CATCH_UP:  # what is past is judged as of then
        fresh = fresh[:CATCH_UP]
        reached = fresh[-1].start + MINUTE_S
        now = float(reached)
    window = int((reached - settings.window_s) // MINUTE_S) * MINUTE_S
    recent = [minute for minute in seen.minutes if window <= minute.start < reached]
    handed, late = _late(kept, seen.minutes, before=start)
    if late:
        ours.append(_came_late(late, kept.late + late, seen.span))
    ran: dict[str, tuple[Verdict, ...]] = {}
    states: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    shares = budget.shares(pages, {rule: getattr(each, "needs", None) for rule, each in detectors.items() if _pages(each, settings)})
    reference = _unignored(seen.reference, settings.ignore)
    for rule, detector in detectors.items():
        if not settings.section(rule).enabled:
            continue
        evidence = Evidence(
            name=seen.name,
            reference=reference,
            fresh=fresh,
            recent=recent,
            labelled=seen.labelled,
            false_pages=shares.get(rule, 0.0),
            now=now,
            logged=seen.logged,
            settings=settings,
        )
        state = kept.states.get(rule, b"")
        try:
            judged = detector.judge(evidence, state)
            ran[rule], states[rule] = tuple(map(_finite, judged.verdicts)), judged.state
        except Exception as error:  # noqa: BLE001  # one detector's fault must not end the others' watch
            failed[rule] = repr(error)
            said = "this detector failed; the log of the control process says how, and what it knew before stands"
            ran[rule], states[rule] = (Verdict(outcome="unknown", rule=rule, evidence=said),), state
    found = tuple(_priced([each for given in ran.values() for each in given], reference, recent))
    verdicts = _without_ignored((*ours, *found), settings.ignore)
    evidence = Evidence(seen.name, reference, fresh, recent, seen.labelled, 0.0, now, logged=seen.logged, settings=settings)
    verdicts = tuple(sorted(verdicts, key=lambda verdict: importance(verdict, detectors, settings)))
    return msgspec.structs.replace(
        kept,
        version=max((minute.version for minute in fresh), default=0) or kept.version,
        through=reached,
        judged_at=seen.now,
        states=states,
        handed={
            start: requests for start, requests in {**handed, **{each.start: each.requests for each in fresh}}.items() if start >= reached - LATE_S
        },
        late=kept.late + late,
        verdicts=verdicts,
        track=_tracked(kept.track, verdicts, at=reached - MINUTE_S, step_s=max(MINUTE_S, int(settings.window_s / TRACKED * 1.1))),
        failed=failed,
        causes=explained(kept.causes, [each for each in verdicts if each.outcome == "fail"], evidence, seen.happened),
    )


def unjudged(kept: Kept, why: str, detectors: Iterable[str], *, settings: Monitored, now: float) -> Kept:
    """What is kept where nothing could be judged: every detector's verdict is unknown, and what was seen is judged when it can be."""
    rules = ("watch", *(rule for rule in detectors if settings.section(rule).enabled))
    verdicts = tuple(Verdict(outcome="unknown", rule=rule, evidence=why) for rule in rules)
    return msgspec.structs.replace(kept, judged_at=now, verdicts=verdicts, failed={})


def is_page(verdict: Verdict, detectors: Mapping[str, Detector], settings: Monitored) -> bool:
    """Whether a failing verdict may wake somebody: its detector pages, and was not told otherwise."""
    detector = detectors.get(verdict.rule.partition(":")[0])
    return verdict.outcome == "fail" and detector is not None and _pages(detector, settings)


def alarming(verdicts: Sequence[Verdict], detectors: Mapping[str, Detector], settings: Monitored) -> tuple[Verdict, ...]:
    """The verdicts as alerts are made of them: one that fails by a detector which was told not to page is a report."""
    quiet = {rule for rule, detector in detectors.items() if detector.pages and not _pages(detector, settings)}
    return tuple(
        msgspec.structs.replace(each, outcome="warn") if each.outcome == "fail" and each.rule.partition(":")[0] in quiet else each
        for each in verdicts
    )


def importance(verdict: Verdict, detectors: Mapping[str, Detector], settings: Monitored) -> tuple[float, ...]:
    """By which verdicts are sorted, the most important first: what pages, then by outcome, harm and effect."""
    harm = 0.0 if verdict.harm is None else verdict.harm
    effect = abs(verdict.numbers.get("effect", 0.0))
    return (
        0.0 if is_page(verdict, detectors, settings) else 1.0,
        float(_ORDER[verdict.outcome]),
        *(-each if math.isfinite(each) else 0.0 for each in (harm, effect)),
    )


def _finite(verdict: Verdict) -> Verdict:
    """A verdict that JSON can hold: what is no number is left out, what is beyond all numbers is the largest."""
    numbers = {name: _bounded(value) for name, value in verdict.numbers.items() if not math.isnan(value)}
    harm = None if verdict.harm is None or math.isnan(verdict.harm) else _bounded(verdict.harm)
    return msgspec.structs.replace(verdict, numbers=numbers, harm=harm)


def _bounded(value: float) -> float:
    return min(max(float(value), -sys.float_info.max), sys.float_info.max)


def _pages(detector: Detector, settings: Monitored) -> bool:
    section = settings.section(detector.rule)
    return detector.pages and section.enabled and section.pages


def _late(kept: Kept, minutes: Sequence[Minute], *, before: int) -> tuple[dict[int, int], int]:
    """What was handed or counted of each minute before `before`, and how many requests have come to those that were judged since.

    Not late is what was never judged: from before the release was watched, or while nobody watched for too long.
    """
    handed, late = dict(kept.handed), 0
    for minute in minutes:
        if before - LATE_S <= minute.start < before and minute.span_s == MINUTE_S:
            more = minute.requests - handed.get(minute.start, 0)
            if more > 0 and kept.since <= minute.start < kept.through:
                late += more
            handed[minute.start] = minute.requests
    return handed, late


def _with_gap(kept: Kept, span: Span, now: float) -> Kept:
    """With what is missing where the span does not go on from what was judged: the monitor was away, or the clock put back meanwhile."""
    seconds = float(span.start - kept.through)
    if not seconds:
        return kept
    return kept.with_gap(Gap(kind="clock" if seconds < 0 else "away", at=now, seconds=seconds, end=now if seconds < 0 else float(span.start)))


def _gaps(gaps: Sequence[Gap], *, now: float, window_s: float) -> list[Verdict]:
    """What is to be said of gaps: of each kind the latest that is no older than the window."""
    told = []
    for kind, said in (("clock", _said_of_clock), ("away", _said_of_absence)):
        mine = [each for each in gaps if each.kind == kind and now - each.at <= window_s]
        if mine:
            last = mine[-1]
            more = f"; {len(mine)} times in this window" if len(mine) > 1 else ""
            window = (last.end - max(last.seconds, 0.0), last.end)
            numbers = {"minutes": last.seconds / MINUTE_S, "times": float(len(mine))}
            told.append(Verdict(outcome="unknown", rule=f"watch:{kind}", evidence=f"{said(last)}{more}", numbers=numbers, window=window))
    return told


def _said_of_clock(gap: Gap) -> str:
    minutes = f"{abs(gap.seconds) / MINUTE_S:,.0f} minutes"
    if gap.seconds < 0:
        return f"the clock was put back by {minutes}, to {clock(gap.end)}: requests from then on may fall into minutes that were judged before"
    return f"the clock went {minutes} too far, to {clock(gap.end)} (put forward, or the machine slept): of these no request can be known"


def _said_of_absence(gap: Gap) -> str:
    return f"{gap.seconds / MINUTE_S:,.0f} minutes until {clock(gap.end)} were not judged: nobody watched for longer than a day"


def _came_late(late: int, total: int, span: Span) -> Verdict:
    return Verdict(
        outcome="warn",
        rule="watch:late",
        evidence=f"{late:,} requests came after their minutes were judged ({total:,} in all); reports count them, what pages does not",
        numbers={"late": float(late), "late_total": float(total)},
        window=(float(span.since), float(span.start)),
    )


def _unignored(reference: Reference, ignore: Sequence[str]) -> Reference:
    """The reference in which columns to ignore have no importance, whatever it says of them."""
    if not ignore:
        return reference
    inputs = [feature for feature in reference.profile.features if feature.role == "input"]
    hidden = {feature.name for feature in inputs if feature.name in ignore or feature.source in ignore}
    if not hidden:
        return reference
    known = reference.importance or dict.fromkeys((feature.name for feature in inputs), 1.0)
    kept = {name: 0.0 if name in hidden else share for name, share in known.items()}
    total = sum(kept.values())
    return reference._replace(importance={name: share / total for name, share in kept.items()} if total else kept)


def _priced(verdicts: Iterable[Verdict], reference: Reference, recent: Sequence[Minute]) -> Iterable[Verdict]:
    """With what the shift of its columns costs, where a verdict names some and not their harm, and the bundle carries by what to tell."""
    windows: dict[tuple[float, float], Profile | None] = {}
    for verdict in verdicts:
        if reference.learnt is None or verdict.outcome not in ("fail", "warn") or verdict.harm is not None or not verdict.columns:
            yield verdict
            continue
        window = verdict.window or (-math.inf, math.inf)
        try:
            if window not in windows:
                windows[window] = profile.counted(reference.profile, [each.counts for each in recent if window[0] <= each.start < window[1]])
            live = windows[window]
            yield verdict if live is None else _finite(priced(verdict, reference.learnt, live))
        except MalformedPayload:  # counts that cannot be are told by who judges them, and have no price
            yield verdict


def _without_ignored(verdicts: Sequence[Verdict], ignore: Sequence[str]) -> tuple[Verdict, ...]:
    """Those that are about no column to ignore; of several columns, one that is judged is enough."""
    hidden = set(ignore)
    if not hidden:
        return tuple(verdicts)

    def is_hidden(verdict: Verdict) -> bool:
        _, _, about = verdict.rule.partition(":")
        sources = {column.partition("[")[0] for column in verdict.columns}
        return about in hidden or (bool(verdict.columns) and (set(verdict.columns) <= hidden or sources <= hidden))

    return tuple(verdict for verdict in verdicts if not is_hidden(verdict))


def _tracked(
    track: Mapping[str, tuple[tuple[int, float], ...]], verdicts: Sequence[Verdict], *, at: int, step_s: int
) -> dict[str, tuple[tuple[int, float], ...]]:
    """The course of each detector's largest level (a value beside its threshold), and of each figure of performance, one turn further."""
    points: dict[str, float] = {}
    figures: dict[str, float] = {}
    for verdict in verdicts:
        rule, _, about = verdict.rule.partition(":")
        value, threshold = verdict.numbers.get("value"), verdict.numbers.get("threshold")
        if about in FIGURES and (figure := verdict.numbers.get(about, value if threshold is None else None)) is not None:
            figures[verdict.rule] = float(f"{figure:.4g}")
        if value is not None and threshold:
            level = float(f"{value / threshold:.4g}")
            if math.isfinite(level):
                points[rule] = max(level, points.get(rule, 0.0))
    start = at // step_s * step_s
    kept = dict(track)
    for name, value in points.items():
        before = kept.get(name, ())
        if before and before[-1][0] == start:
            before, value = before[:-1], max(value, before[-1][1])  # noqa: PLW2901  the step so far
        kept[name] = (*before, (start, value))[-TRACKED:]
    for name, value in figures.items():
        kept[name] = (*(each for each in kept.get(name, ()) if each[0] != start), (start, value))[-TRACKED:]
    return kept
