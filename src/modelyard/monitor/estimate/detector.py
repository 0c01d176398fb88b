"""The detector `estimated_performance`: how well the model does where no label has come yet, window by window, and a page where it surely fails.

Hides when a window is full and how certain "surely" is. Windows do not overlap. A figure fails when in two windows on end its best plausible value
lies beyond the bound, which is of days as a whole (`estimate.hours`); how plausible goes by the alarm budget: were each window, with nothing wrong,
to lie beyond with a chance of `false pages a month / windows a month`, no more pages could come of it, however the windows hang together. It cannot
see a change in the truth itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelyard.monitor import profile
from modelyard.monitor.base import Judged
from modelyard.monitor.budget import MONTH_S
from modelyard.monitor.estimate import estimator, hours, prices, reconcile
from modelyard.monitor.estimate.estimator import Estimated, Figure
from modelyard.monitor.estimate.figures import LOWER_IS_BETTER
from modelyard.monitor.estimate.hours import Hour
from modelyard.monitor.estimate.reconcile import Pair, Reconciled
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.monitor.base import Evidence, Labelled, Minute, Reference
    from modelyard.monitor.estimate.learnt import Learnt
    from modelyard.monitor.settings import Monitored
    from modelyard.types import Array

WINDOW_S = 900
"""A window is at least so long."""
WINDOW_ROWS = 500
"""A window has at least so many rows; of those logged with their inputs at least `LOGGED_ROWS`, or the outputs' profile is judged instead."""
LOGGED_ROWS = 200
REMEMBERED = 64
ON_END = 2
JUDGED = ("accuracy", "auc", "mae", "rmse")
_FORMAT = 1


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One closed window: the figures as estimated (value, low, high, deviation) and, as labels come, as they came true (value, labels, variance)."""

    start: float
    end: float
    rows: int
    effective: float
    unknown: float
    why: str = ""
    estimated: dict[str, tuple[float, float, float, float]] = {}
    realised: dict[str, tuple[float, int, float]] = {}
    is_beyond: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered: the window that fills (from when, its minutes' counts), the closed ones, oldest first, by figure what the hours of the last
    week were, which of them had rows (`seen`), and how many minutes were counted in other bins."""

    format: int
    digest: str
    start: float = 0.0
    rows: int = 0
    counts: bytes = b""
    windows: tuple[Window, ...] = ()
    foreign: int = 0
    hours: dict[str, tuple[Hour, ...]] = {}
    seen: tuple[Hour, ...] = ()


class EstimatedPerformance:
    """See `monitor.base.Detector`."""

    rule = "estimated_performance"
    pages = True

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """A verdict for each figure of the last full window."""
        reference = evidence.reference
        learnt = reference.learnt
        if learnt is None or (learnt.estimator is None and not learnt.outputs):
            why = "the bundle carries no labelled rows: package it with labels or, better, with evaluation data that it was not trained on"
            return Judged((Verdict(outcome="unknown", rule=self.rule, evidence=why),), b"")
        remembered, begins = _read(state, reference)
        grown = _grown(remembered, evidence, learnt)
        windows = tuple(_with_truth(window, evidence.labelled, reference) for window in grown.windows)
        kept = msgspec.structs.replace(grown, windows=windows)
        return Judged(self._verdicts(evidence, kept, begins), msgspec.msgpack.encode(kept))

    def _verdicts(self, evidence: Evidence, state: State, begins: str) -> tuple[Verdict, ...]:
        if not state.windows:
            waits = f"the first window takes {WINDOW_ROWS:,} rows and {WINDOW_S // 60} minutes: {state.rows:,} rows have come{begins}"
            if state.foreign:
                waits += f"; {state.foreign:,} minutes were counted in other bins than the reference's"
            return (Verdict(outcome="unknown", rule=self.rule, evidence=waits),)
        last = state.windows[-1]
        span = (last.start, last.end)
        numbers = {"rows": float(last.rows), "effective_rows": last.effective, "unknown_share": last.unknown}
        if last.why:
            return (Verdict(outcome="unknown", rule=self.rule, evidence=f"not estimated: {last.why}", numbers=numbers, window=span),)
        beside = {name: value for name, (value, *_) in last.estimated.items() if name not in JUDGED}
        told = tuple(
            _verdict(self.rule, name, evidence, state.windows, numbers | (beside if name == "accuracy" else {}))
            for name in last.estimated
            if name in JUDGED
        )
        is_silent = not any(minute.counts is not None for minute in evidence.recent) and evidence.now - last.end > evidence.settings.window_s
        return tuple(map(_unseen, told)) if is_silent else told


def bound(name: str, quality: Mapping[str, float], settings: Monitored) -> float | None:
    """Where a figure begins to be harm: where the settings say, else what they tolerate below (errors: above) the reference's. None without one."""
    given = settings.bounds.get(name)
    stated = None if given is None else given.most if name in LOWER_IS_BETTER else given.least
    if stated is not None or name not in quality:
        return stated
    ours = settings.estimated_performance
    return quality[name] * (1.0 + ours.smallest_rise) if name in LOWER_IS_BETTER else quality[name] - ours.smallest_loss


def _verdict(rule: str, name: str, evidence: Evidence, windows: Sequence[Window], numbers: Mapping[str, float]) -> Verdict:
    last = windows[-1]
    reference = evidence.reference
    value, low, high, _ = last.estimated[name]
    limit, before = bound(name, reference.quality, evidence.settings), reference.quality.get(name)
    seen = _reconciled(windows, name)
    told = {**numbers, "value": value, "low": low, "high": high}
    told |= {} if limit is None or before is None else {"reference": before, "bound": limit}
    told |= {"bias": seen.bias, "bias_error": seen.error, "labelled_windows": float(seen.windows)} if seen.windows else {}
    text = f"{name} is estimated at {value:.4g} ({low:.4g} to {high:.4g})"
    text += f", {before:.4g} on the reference" if before is not None else ""
    text += f"; in {seen.windows} windows with labels it was {abs(seen.bias):.2g} too {'low' if seen.bias > 0 else 'high'}" if seen.windows else ""
    if reference.learnt is not None and not reference.learnt.is_held_out:
        text += "; learnt from the rows packaged, on which the model may have been trained"
    beyond = [name in window.is_beyond for window in windows[-ON_END:]]
    outcome = "pass" if not beyond[-1] else "fail" if len(beyond) == ON_END and all(beyond) else "warn"
    if limit is None:
        outcome = "unknown"
        text += "; nothing to hold it against"
    elif not beyond[-1] and (low > limit if name in LOWER_IS_BETTER else high < limit):
        text += f"; the bound of {limit:.4g} is of days as a whole, and these hours are not known to be worse than they are wont to be"
    harm = None
    if before is not None:
        harm = max(0.0, value / before - 1.0 if name in LOWER_IS_BETTER and before > 0 else before - value)
    return Verdict(
        outcome=outcome,  # type: ignore[arg-type]
        rule=f"{rule}:{name}",
        evidence=text,
        numbers=told,
        window=(last.start, last.end),
        columns=last.columns if outcome in ("warn", "fail") else (),
        harm=harm,
    )


def _unseen(verdict: Verdict) -> Verdict:
    """What a verdict is worth where no row has come for long: what was well before is unknown now."""
    if verdict.outcome != "pass":
        return verdict
    return msgspec.structs.replace(verdict, outcome="unknown", evidence=f"{verdict.evidence}; no row has come of late")


# -- windows ---------------------------------------------------------------------------------------------------------------------------------


def _read(state: bytes, reference: Reference) -> tuple[State, str]:
    """What was remembered, and what to say where it is begun anew."""
    fresh = State(format=_FORMAT, digest=reference.digest)
    if not state:
        return fresh, ""
    try:
        found = msgspec.msgpack.decode(state, type=State)
    except msgspec.MsgspecError:
        return fresh, "; what was remembered is not of this release, so it begins anew"
    if found.format != _FORMAT:
        return fresh, "; what was remembered is of another release, so it begins anew"
    return (found, "") if found.digest == reference.digest else (fresh, "")


def _grown(state: State, evidence: Evidence, learnt: Learnt) -> State:
    """With the rows of the fresh minutes, and the windows closed that they fill."""
    for minute in evidence.fresh:
        state = _with_minute(state, minute, evidence.reference)
        end = float(minute.start + minute.span_s)
        if state.rows >= WINDOW_ROWS and end - state.start >= WINDOW_S:
            state = _closed(state, end, evidence, learnt)
    return state


def _with_minute(state: State, minute: Minute, reference: Reference) -> State:
    counts = minute.counts
    if counts is None:
        return state
    if len(counts) != profile.size(reference.profile):
        return msgspec.structs.replace(state, foreign=state.foreign + 1)
    had = profile.unpack(state.counts) if state.rows else 0
    return msgspec.structs.replace(
        state,
        start=min(state.start, float(minute.start)) if state.rows else float(minute.start),
        rows=state.rows + int(counts[0]),
        counts=profile.pack(had + counts),
    )


def _closed(state: State, end: float, evidence: Evidence, learnt: Learnt) -> State:
    """With the window that fills closed at `end`."""
    reference = evidence.reference
    live = profile.filled(reference.profile, profile.unpack(state.counts))
    found = _of_log(evidence, learnt, state.start, end) or prices.binned(learnt, live)
    state = msgspec.structs.replace(state, seen=hours.noted(state.seen, state.start, end, 0.0))
    known, beyond = _held(found.figures, state, end, evidence)
    window = Window(
        start=state.start,
        end=end,
        rows=found.rows,
        effective=found.effective,
        unknown=found.unknown,
        why=found.why,
        estimated={name: (each.value, each.low, each.high, each.deviation) for name, each in found.figures.items()},
        is_beyond=beyond,
        columns=prices.guilty(learnt, live, least=evidence.settings.estimated_performance.smallest_loss / 5),
    )
    windows = (*state.windows, window)[-REMEMBERED:]
    return State(format=_FORMAT, digest=state.digest, windows=windows, foreign=state.foreign, hours=known, seen=state.seen)


def _of_log(evidence: Evidence, learnt: Learnt, start: float, end: float) -> Estimated | None:
    """By the rows of the window that were logged with their inputs; None where there are too few, or nothing was learnt for that."""
    logged = evidence.logged
    if logged is None or learnt.estimator is None:
        return None
    chosen = (logged.times >= start) & (logged.times < end)
    if int(chosen.sum()) < LOGGED_ROWS:
        return None
    inputs = {name: array[chosen] for name, array in logged.inputs.items()}
    outputs = {name: array[chosen] for name, array in logged.outputs.items()}
    return estimator.estimate(learnt.estimator, evidence.reference.schema, inputs, outputs)


def _held(found: Mapping[str, Figure], state: State, end: float, evidence: Evidence) -> tuple[dict[str, tuple[Hour, ...]], tuple[str, ...]]:
    """What is known of hours then, and the figures whose best plausible value lies beyond their bound, or beyond what these hours are allowed."""
    judged = [name for name in found if name in JUDGED]
    chance = min(0.025, evidence.false_pages * WINDOW_S / MONTH_S / max(len(judged), 1))
    reach = -NormalDist().inv_cdf(chance) if chance > 0 else math.inf
    known, beyond = dict(state.hours), []
    for name in judged:
        limit = bound(name, evidence.reference.quality, evidence.settings)
        seen = _reconciled(state.windows, name)
        is_absolute = evidence.reference.promised or name in evidence.settings.bounds
        # An estimate that was learnt from rows of the training is held against a figure that flatters as much: the truth is below both.
        value = found[name].value + (seen.correction if is_absolute else 0.0)
        error = reach * math.sqrt(found[name].deviation ** 2 + seen.variance)
        before, lost = known.get(name, ()), hours.loss(name, value)
        known[name] = hours.noted(before, state.start, end, lost)
        if limit is None:
            continue
        best, most = hours.loss(name, value - error if name in LOWER_IS_BETTER else value + error), hours.loss(name, limit)
        usual = hours.loss(name, evidence.reference.quality.get(name, limit))
        may = hours.allowed(before, state.start, end, limit=most, usual=usual, is_share=name not in LOWER_IS_BETTER)
        if best > may or (best > most and hours.of_the_day(known[name], usual=usual, seen=state.seen) - (lost - best) > most):
            beyond.append(name)
    return known, tuple(beyond)


# -- the truth, when it comes ----------------------------------------------------------------------------------------------------------------


def _with_truth(window: Window, labelled: Labelled | None, reference: Reference) -> Window:
    """With the figures of those of its predictions whose labels have come; as they were where none are at hand any more."""
    if labelled is None or window.why:
        return window
    chosen = (labelled.times >= window.start) & (labelled.times < window.end)
    count = int(chosen.sum())
    if not count:
        return window
    said = _said(labelled, chosen, reference)
    truth = labelled.truth[chosen] if reference.schema.task == "classification" else labelled.truth[chosen].astype(np.float64)
    found = estimator.realised(reference.schema, said, truth)
    realised = {name: (each.value, count, each.rows) for name, each in found.items() if name in window.estimated}
    had = max((labels for _, labels, _ in window.realised.values()), default=0)
    return msgspec.structs.replace(window, realised=realised) if count >= had else window


def _said(labelled: Labelled, chosen: Array, reference: Reference) -> dict[str, Array]:
    if reference.schema.task != "classification":
        return {"score": labelled.predicted[chosen].astype(np.float64)}
    said = {"label": labelled.predicted[chosen].astype(np.int64)}
    if labelled.probability.shape == (len(labelled.times), len(reference.schema.classes or ())):
        probability = labelled.probability[chosen]
        if probability.shape[1] <= estimator.CLASSES:
            said |= {"score": probability[:, 1]} if probability.shape[1] == 2 else {"probability": probability}
    return said


def _reconciled(windows: Sequence[Window], name: str) -> Reconciled:
    pairs = []
    for window in windows:
        if name in window.estimated and name in window.realised:
            value, _, _, deviation = window.estimated[name]
            truth, count, variance = window.realised[name]
            pairs.append(Pair(value, truth, count, variance + deviation**2))
    return reconcile.reconcile(pairs)
