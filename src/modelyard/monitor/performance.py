"""How well a model does, by the labels that have come: the figures of each window of its predictions' own time, and whether a promise is broken.

Figures have intervals, and each window says how many of its predictions have a label. What pages is no window's figure but a test that may be asked
after every label for ever (`monitor.risk`): against what the bundle's reference reached (on rows held out from training) less the smallest loss worth
a page, or the bound that the settings give. A bound is of days and weeks as a whole: a rush hour that is beyond it every day breaks none, so scores
are judged without their rhythm (`monitor.rhythm`). Hides how accuracy, AUC, MAE and RMSE become means of scores between 0 and 1. Pure. It must not
know where labels come from.

Sources: Wilson (JASA 1927) for a share; DeLong, DeLong and Clarke-Pearson (Biometrics 1988) for an AUC. The mean of a score that is cut off is at
most that of the whole, so that a bound on the one is a test of the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from modelyard.monitor import remembered, risk, weight
from modelyard.monitor import rhythm as rhythms
from modelyard.monitor.base import Evidence, Judged, Labelled
from modelyard.monitor.rhythm import Rhythm
from modelyard.monitor.risk import Cursor, Risk, Terms
from modelyard.types import Digest, Verdict

if TYPE_CHECKING:
    from modelyard.monitor.settings import Monitored
    from modelyard.types import Array, Schema

FORMAT = 2
RULE = "performance"
WINDOWS = 14
"""How many windows are told, the latest."""
LEAST_ROWS = 30
"""With fewer labels there is no figure worth telling."""
CUT = {"mae": 10.0, "rmse": 30.0}
"""Errors (and squared ones) count up to this many times their bound: one mad label is not a page."""
UNPAIRED = 512
AT_FIRST = 4.0
"""While a rhythm is not known its hours may lie beyond the bound so many times, by their odds: what is worse pages at once."""
_DAY_S = 86_400
_HOUR_S = 3600
_Z = 1.96


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of some labelled predictions, with its 95 % interval."""

    value: float
    low: float
    high: float


class Window(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A window of the predictions' own time, from `start` to before `end` (seconds since 1970, UTC): `labelled` of `answered` have a label.

    `answered` is None where nobody counted. Without figures where there are too few labels.
    """

    start: float
    end: float
    labelled: int
    answered: int | None = None
    figures: dict[str, Figure] = {}

    @property
    def completeness(self) -> float | None:
        """The share of predictions that have a label."""
        return None if not self.answered else min(1.0, self.labelled / self.answered)


class Day(msgspec.Struct, frozen=True, array_like=True):
    """A day of a stream whose rhythm is not known yet, from its first row on: what rows gained as evidence, how many they are, what they sum to."""

    since: float
    gained: tuple[float, ...] = ()
    rows: int = 0
    total: float = 0.0


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept between turns: a test per figure, of which limit it is, and its scores' rhythm; and the scores of predictions that wait for one of
    the other class to be ranked with."""

    format: int
    digest: Digest
    cursor: Cursor = Cursor()
    tests: dict[str, Risk] = {}
    limits: dict[str, float] = {}
    rhythms: dict[str, Rhythm] = {}
    days: dict[str, Day] = {}
    positives: tuple[float, ...] = ()
    negatives: tuple[float, ...] = ()


class Demand(NamedTuple):
    """Where a figure must lie: at `least` (accuracy, AUC) or at `most` (errors); `reference` is what it was there, None where it is unknown."""

    limit: float
    reference: float | None


class Performance:
    """The detector. Of a deployment whose release changes it begins anew."""

    rule = RULE
    pages = True

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """Verdicts on the labels that have come since the last turn, one for each figure that there is."""
        settings = evidence.settings.performance
        digest = evidence.reference.digest
        kept = remembered.read(state, State, form=FORMAT, digest=digest) or State(format=FORMAT, digest=digest)
        labelled = evidence.labelled
        names = figure_names(evidence.reference.schema)
        if not names:
            why = "the model is neither a classifier nor a regressor: its answers have no figure"
            return Judged((Verdict(outcome="unknown", rule=RULE, evidence=why),), remembered.written(kept))
        if labelled is None or not len(labelled.times):
            none = (Verdict(outcome="unknown", rule=f"{RULE}:{name}", evidence="no label has come yet") for name in names)
            return Judged(tuple(none), remembered.written(kept))
        demands = demanded(evidence.settings, evidence.reference.promised, names)
        mask, cursor = kept.cursor.fresh(labelled, now=evidence.now, settle_s=settings.settle_s)
        share = evidence.false_pages / max(1, len(demands))
        terms = {name: Terms(rows_between=risk.rows_between(labelled, share), bound=bound(name, each)) for name, each in demands.items()}
        kept = fed(msgspec.structs.replace(kept, cursor=cursor), _of(labelled, mask), demands, terms)
        told = windows(labelled, window_s=settings.window_s, now=evidence.now)
        shown = _Shown(told, _latest_day(labelled))
        return Judged(tuple(_verdict(name, kept, shown, demands.get(name), terms.get(name)) for name in names), remembered.written(kept))


def figure_names(schema: Schema) -> tuple[str, ...]:
    """The figures that a model of this schema can have."""
    if schema.task == "classification":
        is_ranked = schema.classes is not None and len(schema.classes) == 2 and any(spec.name == "probability" for spec in schema.outputs)
        return ("accuracy", "auc") if is_ranked else ("accuracy",)
    return ("mae", "rmse") if schema.task == "regression" else ()


def windows(labelled: Labelled, *, window_s: float, now: float, most: int = WINDOWS) -> list[Window]:
    """The figures of the latest windows that have a prediction, labelled or not; the oldest first. All are computed anew, whatever label came."""
    places = np.floor(labelled.times / window_s).astype(np.int64)
    answered = _answered(labelled.answered, window_s)
    known = sorted({*np.unique(places).tolist(), *answered} & set(range(int(now // window_s) - 100_000, int(now // window_s) + 1)))
    found = []
    for place in known[-most:]:
        chosen = places == place
        rows = int(chosen.sum())
        found.append(
            Window(
                start=place * window_s,
                end=(place + 1) * window_s,
                labelled=rows,
                answered=answered.get(place) if answered else None,
                figures=figures(_of(labelled, chosen)) if rows >= LEAST_ROWS else {},
            )
        )
    return found


def figures(labelled: Labelled) -> dict[str, Figure]:
    """Accuracy and, of two classes, AUC; or MAE and RMSE; each with its interval."""
    if labelled.truth.dtype.kind in "iu":
        found = {"accuracy": _share(int((labelled.truth == labelled.predicted).sum()), len(labelled.truth))}
        if labelled.probability.shape[1:] == (2,):
            ranked = auc(labelled.truth == 1, labelled.probability[:, 1])
            found |= {} if ranked is None else {"auc": ranked}
        return found
    errors = labelled.predicted - labelled.truth
    mae, squared = _mean(np.abs(errors)), _mean(errors**2)
    rmse = Figure(value=math.sqrt(squared.value), low=math.sqrt(max(0.0, squared.low)), high=math.sqrt(squared.high))
    return {"mae": mae, "rmse": rmse}


def auc(positive: Array, scores: Array) -> Figure | None:
    """The area under the ROC curve with DeLong's interval; None where fewer than two of a class are there, or a score is missing."""
    ones, zeros = scores[positive], scores[~positive]
    if min(len(ones), len(zeros)) < 2 or not np.isfinite(scores).all():
        return None
    zeros_sorted, ones_sorted = np.sort(zeros), np.sort(ones)
    above = (np.searchsorted(zeros_sorted, ones, "left") + np.searchsorted(zeros_sorted, ones, "right")) / 2 / len(zeros)
    below = 1 - (np.searchsorted(ones_sorted, zeros, "left") + np.searchsorted(ones_sorted, zeros, "right")) / 2 / len(ones)
    value = float(above.mean())
    error = _Z * math.sqrt(float(above.var(ddof=1)) / len(ones) + float(below.var(ddof=1)) / len(zeros))
    return Figure(value=value, low=max(0.0, value - error), high=min(1.0, value + error))


def demanded(settings: Monitored, quality: Mapping[str, float], names: Sequence[str]) -> dict[str, Demand]:
    """Where each figure must lie: within the bound that the settings give, or no further than the smallest loss from what the reference reached."""
    found = {}
    for name in names:
        given = settings.bounds.get(name)
        known = quality.get(name)
        reference = known if known is not None and math.isfinite(known) else None
        if name in CUT:
            most = given.most if given is not None and given.most is not None else None
            if most is None and reference is not None:
                most = reference * (1 + settings.performance.smallest_rise)
            if most is not None and most > 0:
                found[name] = Demand(most, reference)
        else:
            least = given.least if given is not None and given.least is not None else None
            if least is None and reference is not None:
                least = reference - settings.performance.smallest_loss
            if least is not None and 0 < least < 1:
                found[name] = Demand(least, reference)
    return found


def bound(name: str, demand: Demand) -> float:
    """What the mean of the figure's scores is at most, while the demand is met."""
    return 1 / CUT[name] if name in CUT else 1 - demand.limit


def fed(kept: State, new: Labelled, demands: Mapping[str, Demand], terms: Mapping[str, Terms]) -> State:
    """With these labelled predictions taken in, in the order in which they are judged."""
    limits = {name: demand.limit for name, demand in demands.items()}
    same = {name for name, limit in limits.items() if kept.limits.get(name) == limit}  # of another limit a test says nothing
    tests = {name: each for name, each in kept.tests.items() if name in same}
    cycles = {name: each for name, each in kept.rhythms.items() if name in same}
    days = {name: each for name, each in kept.days.items() if name in same}
    kept = msgspec.structs.replace(kept, tests=tests, rhythms=cycles, days=days, limits=limits)
    if not len(new.times):
        return kept
    for name, demand in demands.items():
        times = new.times
        if name == "accuracy":
            scores = (new.truth != new.predicted).astype(np.float64)
        elif name == "auc":
            scores, times, positives, negatives = _ranked(kept, new)
            kept = msgspec.structs.replace(kept, positives=positives, negatives=negatives)
        else:
            errors = np.abs(new.predicted - new.truth) / demand.limit
            scores = np.minimum(errors if name == "mae" else errors**2, CUT[name]) / CUT[name]
        test, cycle, day = tests.get(name, Risk()), cycles.get(name, Rhythm()), days.pop(name, None)
        for rows, date in rhythms.pieces(cycle, times):
            was_raised = test.is_raised
            cycle, part = rhythms.taken(cycle, scores[rows], times[rows], date)
            margin = part.margin if part.margin <= rhythms.MARGIN_OF_WEEK else AT_FIRST
            own = msgspec.structs.replace(terms[name], together=part.together, margin=margin)
            test, day = _judged(test, day, part.scores, times[rows], own)
            cycle = cycle if test.is_raised is was_raised else rhythms.moved(cycle)
        tests[name], cycles[name] = test, cycle
        days |= {} if day is None else {name: day}
    return msgspec.structs.replace(kept, tests={name: tests[name] for name in demands}, rhythms=cycles, days=days)


def _judged(test: Risk, day: Day | None, scores: Array, times: Array, terms: Terms) -> tuple[Risk, Day | None]:
    """With rows of one piece of the rhythm. While it is not known each is allowed its margin, and a whole day, when it is over, none."""
    if terms.margin == 1:
        return risk.feed(test, scores, times, terms=terms)[0], None
    while len(scores):
        day = Day(float(times[0])) if day is None else day
        past = np.flatnonzero(times >= day.since + _DAY_S)
        last = int(past[0]) if len(past) else len(scores)
        test, _ = risk.feed(test, scores[:last], times[:last], terms=terms)
        more = risk.gained(scores[:last], terms=terms)
        gains = tuple(a + b for a, b in zip(day.gained or (0.0,) * len(more), more, strict=True))
        day = Day(day.since, gains, day.rows + last, day.total + float(scores[:last].sum()))
        if last < len(scores):
            if not test.is_raised:
                test = risk.with_whole(test, day.gained, since=day.since, rows=day.rows, total=day.total)
            day = None
        scores, times = scores[last:], times[last:]
    return test, day


def _ranked(kept: State, new: Labelled) -> tuple[Array, Array, tuple[float, ...], tuple[float, ...]]:
    """Pairs of one of each class, in the order in which they come about, each prediction in one pair: 1 where they are ranked wrongly, ½ for a tie.

    Their mean is 1 - AUC, exactly, and pairs have nothing in common.
    """
    if new.probability.shape[1:] != (2,):
        return np.zeros(0), np.zeros(0), kept.positives, kept.negatives
    waiting: tuple[list[float], list[float]] = (list(kept.negatives), list(kept.positives))
    scores, times = [], []
    for at, truth, score in zip(new.times.tolist(), new.truth.tolist(), new.probability[:, 1].tolist(), strict=True):
        if not math.isfinite(score):
            continue
        others = waiting[1 - truth]
        if not others:
            waiting[truth].append(score)
            del waiting[truth][:-UNPAIRED]
            continue
        other = others.pop()
        high, low = (score, other) if truth else (other, score)
        scores.append(0.5 if high == low else float(high < low))
        times.append(at)
    return np.array(scores), np.array(times), tuple(waiting[1]), tuple(waiting[0])


def _latest_day(labelled: Labelled) -> Mapping[str, Figure]:
    """The figures of the last day that has labels, whatever its windows: harm is told by these, since an hour of the night is no measure of it."""
    chosen = labelled.times > labelled.times[-1] - _DAY_S
    chosen[-LEAST_ROWS:] = True  # of few an hour a day has too little to tell
    return figures(_of(labelled, chosen)) if int(chosen.sum()) >= LEAST_ROWS else {}


class _Shown(NamedTuple):
    """What is told beside the test: the latest windows, and the figures of the last day that has labels."""

    windows: Sequence[Window]
    day: Mapping[str, Figure]


def _verdict(name: str, kept: State, beside: _Shown, demand: Demand | None, terms: Terms | None) -> Verdict:
    rule, told = f"{RULE}:{name}", beside.windows
    latest = next((each for each in reversed(told) if name in each.figures), None)
    numbers = _numbers(name, told, latest)
    shown = "too few labels in every window yet" if latest is None else _shown(name, latest)
    window = None if latest is None else (latest.start, latest.end)
    if demand is None or terms is None:
        said = f"{shown}; the bundle has no {name} of rows that the model was not trained on to hold this against: set bounds.{name}"
        return Verdict(outcome="unknown", rule=rule, evidence=said, numbers=numbers, window=window)
    test = kept.tests.get(name, Risk())
    numbers |= {"limit": demand.limit, **weight.numbers(test.rise, math.log(terms.rows_between), peak=test.peak if test.is_raised else None)}
    numbers |= {} if demand.reference is None else {"reference": demand.reference}
    limit = f"over days as a whole it is to be {'at most' if name in CUT else 'at least'} {demand.limit:.4g}"
    harm = _harm(name, beside.day, demand)
    if test.is_raised:
        end = max([test.since, *(each.end for each in told[-1:])])
        said = f"{shown}; {limit}, and by the labels since the alarm began it is not"
        if test.rise < math.log(terms.rows_between):
            said += f"; {weight.said_of_held(numbers)}"
        return Verdict(outcome="fail", rule=rule, evidence=said, numbers=numbers, window=(test.since, end), harm=harm)
    if latest is None:
        return Verdict(outcome="unknown", rule=rule, evidence=shown, numbers=numbers)
    return Verdict(
        outcome="pass",
        rule=rule,
        evidence=f"{shown}; {limit}: {weight.said(numbers)}",
        numbers=numbers,
        window=window,
        harm=harm,
    )


def _numbers(name: str, told: Sequence[Window], latest: Window | None) -> dict[str, float]:
    labelled, answered = sum(each.labelled for each in told), sum(each.answered or 0 for each in told)
    numbers = {"labelled": float(labelled)} | ({"answered": float(answered), "completeness": min(1.0, labelled / answered)} if answered else {})
    if latest is not None:
        figure = latest.figures[name]
        numbers |= {name: figure.value, "low": figure.low, "high": figure.high, "rows": float(latest.labelled)}
    return numbers


def _shown(name: str, window: Window) -> str:
    figure = window.figures[name]
    shown = {"accuracy": "accuracy", "auc": "AUC", "mae": "MAE", "rmse": "RMSE"}[name]
    whole = window.completeness
    share = "" if whole is None else f", {whole:.0%} of the window's predictions"
    return f"{shown} {figure.value:.4g} ({figure.low:.4g} to {figure.high:.4g}) by {window.labelled:,} labels{share}"


def _harm(name: str, day: Mapping[str, Figure], demand: Demand) -> float | None:
    if name not in day or demand.reference is None:
        return None
    value = day[name].value
    if name in CUT:
        return max(0.0, value / demand.reference - 1) if demand.reference > 0 else None
    return max(0.0, demand.reference - value)


def _of(labelled: Labelled, chosen: Array) -> Labelled:
    probability = labelled.probability[chosen] if len(labelled.probability) == len(labelled.times) else labelled.probability
    return Labelled(labelled.times[chosen], labelled.truth[chosen], labelled.predicted[chosen], probability)


def _answered(hours: Mapping[int, int], window_s: float) -> dict[int, int]:
    """Predictions by window; windows that are no whole hours cannot be told."""
    if window_s % _HOUR_S:
        return {}
    found: dict[int, int] = {}
    for hour, rows in hours.items():
        place = int(hour // window_s)
        found[place] = found.get(place, 0) + rows
    return found


def _share(hits: int, rows: int) -> Figure:
    """A share with Wilson's interval."""
    share, extra = hits / rows, _Z**2 / rows
    middle = (share + extra / 2) / (1 + extra)
    half = _Z / (1 + extra) * math.sqrt(share * (1 - share) / rows + extra / 4 / rows)
    return Figure(value=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _mean(values: Array) -> Figure:
    value = float(values.mean())
    error = _Z * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Figure(value=value, low=max(0.0, value - error), high=value + error)
