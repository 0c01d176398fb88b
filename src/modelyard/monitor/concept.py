"""Concept drift: whether the model's error has moved from what it was, on the labelled predictions, one after another as they were answered.

Our own monitor of the risk pages, by a threshold that the alarm budget sets; ADWIN and HDDM, which the field knows, run beside it over the recent
labels and report. An error that fell is reported and becomes what the next is held against. Hides how errors become scores between 0 and 1, and that
these are held against their hour of the week, and those of one day taken together (`monitor.rhythm`). Pure. It must not know where labels come from,
nor what a good error would be: that is `monitor.performance`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from modelyard.monitor import remembered, risk, weight
from modelyard.monitor import rhythm as rhythms
from modelyard.monitor.base import Evidence, Judged, Labelled, Reference
from modelyard.monitor.rhythm import Rhythm
from modelyard.monitor.risk import Alarm, Cursor, Risk, Terms
from modelyard.types import Digest, Verdict

if TYPE_CHECKING:
    from modelyard.types import Array

FORMAT = 3
RULE = "concept"
REPORTED_ROWS = 20_000
"""The labelled predictions, the latest, over which the field's detectors are run."""
REPORTS_LEAST = 500
REPORTED_EVERY = 200
REPORTED_AGAIN = 0.1
"""So many labels, and this share of those that they are run over, must have come for them to be run again."""


class Found(msgspec.Struct, frozen=True, array_like=True):
    """What one of the field's detectors found over the recent labels: how many changes, and the time of the last."""

    name: str
    changes: int
    at: float


class Fell(msgspec.Struct, frozen=True, array_like=True):
    """An error that fell: when that was seen, since when, from what to what."""

    at: float
    since: float
    before: float
    after: float


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept between turns. `scale` is the absolute error that scores a half (regression); `unreported` labels have come since the field's
    detectors were last run."""

    format: int
    digest: Digest
    cursor: Cursor = Cursor()
    risk: Risk = Risk()
    rhythm: Rhythm = Rhythm()
    scale: float = 0.0
    rose_from: float = 0.0
    fell: Fell | None = None
    found: tuple[Found, ...] = ()
    unreported: int = 0


class ConceptDrift:
    """The detector. Of a deployment whose release changes it begins anew."""

    rule = RULE
    pages = True

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """Verdicts on the labels that have come since the last turn."""
        settings = evidence.settings.concept
        digest = evidence.reference.digest
        kept = remembered.read(state, State, form=FORMAT, digest=digest) or State(format=FORMAT, digest=digest)
        labelled = evidence.labelled
        if labelled is None or not len(labelled.times):
            return Judged((Verdict(outcome="unknown", rule=f"{RULE}:error", evidence="no label has come yet"),), remembered.written(kept))
        mask, cursor = kept.cursor.fresh(labelled, now=evidence.now, settle_s=settings.settle_s)
        terms = Terms(
            rows_between=settings.rows_between_false_pages or risk.rows_between(labelled, evidence.false_pages),
            learn_rows=settings.learn_rows,
            memory_rows=settings.memory_rows,
        )
        kept = msgspec.structs.replace(kept, cursor=cursor)
        if mask.any():
            if not kept.scale:
                kept = msgspec.structs.replace(kept, scale=_scale(evidence.reference, labelled, mask))
            kept = _noted(*fed(kept, scores(labelled, kept.scale)[mask], labelled.times[mask], terms), evidence.now)
            kept = msgspec.structs.replace(kept, unreported=kept.unreported + int(mask.sum()))
            if settings.reports and kept.unreported >= max(REPORTED_EVERY, REPORTED_AGAIN * min(len(labelled.times), REPORTED_ROWS)):
                kept = msgspec.structs.replace(kept, found=_found(labelled, kept.scale), unreported=0)
        verdicts = [_verdict(kept, labelled, evidence, terms)]
        if settings.reports:
            verdicts += _reports(kept, evidence)
        return Judged(tuple(verdicts), remembered.written(kept))


def scores(labelled: Labelled, scale: float) -> Array:
    """How wrong each answer was, from 0 to 1: a wrong class 1; an absolute error of `scale` a half, and never more than 1."""
    if labelled.truth.dtype.kind in "iu":
        wrong: Array = (labelled.truth != labelled.predicted).astype(np.float64)
        return wrong
    errors = np.abs(labelled.truth - labelled.predicted)
    found: Array = errors / (errors + scale)
    return found


def _scale(reference: Reference, labelled: Labelled, mask: Array) -> float:
    """The reference's mean absolute error; without one the median of what comes first."""
    if labelled.truth.dtype.kind in "iu":
        return 1.0
    known = reference.quality.get("mae", 0.0)
    if math.isfinite(known) and known > 0:
        return known
    return float(np.median(np.abs(labelled.truth - labelled.predicted)[mask])) or 1.0


def fed(kept: State, found: Array, times: Array, terms: Terms) -> tuple[State, list[Alarm]]:
    """With these scores taken in, without the cycle of the week, so many for one as go together; and what happened.

    What was judged before a cycle was known begins anew: a baseline of hours as they were, perhaps of a day's quietest, would be exceeded for ever.
    """
    rhythm, held, alarms = kept.rhythm, kept.risk, list[Alarm]()
    for rows, day in rhythms.pieces(rhythm, times):
        rhythm, part = rhythms.taken(rhythm, found[rows], times[rows], day)
        if part.is_known:
            held = Risk(rows=held.rows)
        held, more = risk.feed(held, part.scores, times[rows], terms=msgspec.structs.replace(terms, together=part.together, margin=part.margin))
        if any(each.kind != "returned" for each in more):  # what came and went was weather, too
            rhythm = rhythms.moved(rhythm)
        alarms += more
    return msgspec.structs.replace(kept, risk=held, rhythm=rhythm), alarms


def _noted(kept: State, alarms: list[Alarm], now: float) -> State:
    for alarm in alarms:
        if alarm.kind == "rose":
            kept = msgspec.structs.replace(kept, rose_from=alarm.before)
        elif alarm.kind == "fell":
            kept = msgspec.structs.replace(kept, fell=Fell(now, alarm.since, alarm.before, alarm.after))
    return kept


def _verdict(kept: State, labelled: Labelled, evidence: Evidence, terms: Terms) -> Verdict:
    held, rule = kept.risk, f"{RULE}:error"
    numbers = {"labels": float(held.rows), "baseline": held.baseline, "labels_as_one": kept.rhythm.together}
    if not held.bets and not (kept.fell and kept.fell.at == evidence.now):
        needed = math.ceil(terms.learn_rows * kept.rhythm.together)
        told = f"{held.rows:,} labels have come; the baseline is learnt from {needed:,}"
        return Verdict(outcome="unknown", rule=rule, evidence=told, numbers=numbers)
    numbers |= weight.numbers(held.rise, math.log(terms.rows_between), peak=held.peak if held.is_raised else None)
    numbers |= {"rows_between_false_pages": terms.rows_between}
    what = "answers are wrong" if labelled.truth.dtype.kind in "iu" else "absolute errors score"
    if held.is_raised:
        recent = _recent(kept, labelled)
        harm = _harm(kept, labelled, evidence.reference, recent)
        told = f"{recent.level:.1%} of the {what}, over {recent.rows:,} labelled predictions; {kept.rose_from:.1%} before"
        if what != "answers are wrong":
            told = f"the absolute error scores {recent.level:.3f} over {recent.rows:,} labelled predictions; {kept.rose_from:.3f} before"
        if held.rise < math.log(terms.rows_between):
            told += f"; {weight.said_of_held(numbers)}"
        window = (held.since, evidence.now)
        return Verdict(outcome="fail", rule=rule, evidence=told, numbers=numbers | {"level": recent.level}, window=window, harm=harm)
    window = (float(labelled.times[0]), evidence.now)
    fell = kept.fell
    if fell is not None and evidence.now - fell.at < evidence.settings.window_s:
        told = f"the error fell from {fell.before:.3f} to {fell.after:.3f}: what the model is asked, or its truth, has changed"
        return Verdict(outcome="warn", rule=rule, evidence=told, numbers=numbers | {"level": fell.after}, window=(fell.since, evidence.now), harm=0.0)
    told = f"the error stays at {held.baseline:.3f} over {held.rows:,} labels; {weight.said(numbers)}"
    return Verdict(outcome="pass", rule=rule, evidence=told, numbers=numbers, window=window, harm=0.0)


class _Level(NamedTuple):
    level: float
    rows: int


def _recent(kept: State, labelled: Labelled) -> _Level:
    """The mean score since the rise began; as it was at the alarm, where those rows are no longer at hand."""
    found = scores(labelled, kept.scale)[labelled.times >= kept.risk.since]
    if len(found):
        return _Level(float(found.mean()), len(found))
    return _Level(kept.risk.level, max(bet.rows for bet in kept.risk.bets))


def _harm(kept: State, labelled: Labelled, reference: Reference, recent: _Level) -> float | None:
    """Accuracy lost; or by how much of the reference's the mean absolute error is larger than before."""
    if labelled.truth.dtype.kind in "iu":
        return max(0.0, recent.level - kept.rose_from)
    errors = np.abs(labelled.truth - labelled.predicted)
    since = labelled.times >= kept.risk.since
    whole = reference.quality.get("mae", 0.0) or kept.scale
    if not since.any():
        return None
    before = float(errors[~since].mean()) if (~since).any() else whole
    return max(0.0, float(errors[since].mean()) - before) / whole


def _found(labelled: Labelled, scale: float) -> tuple[Found, ...]:
    """What ADWIN and HDDM find over the latest labels, each as river ships it."""
    if len(labelled.times) < REPORTS_LEAST:
        return ()
    times = labelled.times[-REPORTED_ROWS:]
    values = scores(labelled, scale)[-REPORTED_ROWS:]
    found = []
    for name, changes in _changes(values, is_binary=labelled.truth.dtype.kind in "iu"):
        found.append(Found(name, len(changes), float(times[changes[-1]]) if changes else 0.0))
    return tuple(found)


def _changes(values: Array, *, is_binary: bool) -> Iterator[tuple[str, list[int]]]:
    from river import drift

    detectors = {"adwin": drift.ADWIN()}
    if is_binary:  # HDDM is of errors that are made or not
        detectors |= {"hddm_a": drift.binary.HDDMA(), "hddm_w": drift.binary.HDDMW()}
    plain = values.tolist()
    for name, detector in detectors.items():
        changes = []
        for place, value in enumerate(plain):
            detector.update(value if name == "adwin" else bool(value))
            if detector.drift_detected:
                changes.append(place)
        yield name, changes


def _reports(kept: State, evidence: Evidence) -> Iterator[Verdict]:
    shown = {"adwin": "ADWIN", "hddm_a": "HDDM_A", "hddm_w": "HDDM_W"}
    for each in kept.found:
        rule = f"{RULE}:{each.name}"
        numbers = {"changes": float(each.changes)}
        is_recent = each.changes > 0 and evidence.now - each.at < evidence.settings.window_s
        changes = "1 change" if each.changes == 1 else f"{each.changes} changes"
        told = f"{shown[each.name]} sees {changes} of the error over the last {REPORTED_ROWS:,} labels at most"
        window = (each.at, evidence.now) if each.changes else None
        yield Verdict(outcome="warn" if is_recent else "pass", rule=rule, evidence=told, numbers=numbers, window=window)
