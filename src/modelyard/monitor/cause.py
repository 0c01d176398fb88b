"""Why a verdict failed: an upstream break, a population shift or a concept shift; in which columns and rows, since which minute, beside which
release.

Hides how these are told apart. Pure; what is handed in is all that it knows. It must not guess: where the evidence cannot tell, it says so.

What broke upstream shows in the counts themselves (`monitor.breaks`) or in a column that no longer goes with the others (`monitor.alignment`). Of
the rest, the change of the error is parted in two, as Kitagawa (1955) parts a rate: what the model expects of the rows that come now (by its own
probabilities, or by the error before on rows like these), and what is left. The first is the population's, the second is what the answers mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np

from modelyard.monitor import alignment, breaks, slicing
from modelyard.monitor.base import MINUTE_S, Evidence, Labelled
from modelyard.monitor.breaks import Break
from modelyard.monitor.profile import Shift, compare
from modelyard.monitor.quality import clock
from modelyard.monitor.sampled import Sampled, sampled
from modelyard.monitor.series import Onset, Series, onset
from modelyard.monitor.slices import losses_of, phrase
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.types import Array

NEARBY_S = 1800.0
"""A release so long before the first bad minute may have brought it."""
_SOON_S = 120.0
SHOWN = 5
LEAST_ROWS = 200
ALIGNED_ROWS = 6000
"""So many of the latest rows are looked through for a wrong join."""
_MOVED = 0.02
_MOVED_Q = 0.001
_MEAN_SD = 0.05
"""A mean that moved less than this is not what moved: how the values are spread is."""
_CERTAIN = 3.0
_RENAMED = 0.5
_STRATA = 8
_OF_ERRORS = ("concept", "performance")

Kind = Literal["upstream break", "population shift", "concept shift", "unknown"]


class Happened(NamedTuple):
    """One thing that happened to the deployment, at a time in seconds since 1970: what (a step, a rollback), and to which version."""

    at: float
    what: str
    version: int | None = None


class Cause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why. `columns` the guilty ones, the worst first; `slice` the rows that it is about, in words; `first_bad` when the first bad minute began
    (None: before all that was looked at); `release` what happened to the deployment shortly before; `advice` what to do now; `at` when it was found.
    """

    kind: Kind
    evidence: str
    advice: str
    columns: tuple[str, ...] = ()
    slice: str = ""
    first_bad: float | None = None
    release: str = ""
    numbers: dict[str, float] = {}
    at: float = 0.0

    @property
    def said(self) -> str:
        """All of it but the advice, in a sentence."""
        when = "" if self.first_bad is None else f"; first seen {clock(self.first_bad)}"
        return f"{self.evidence}{f'; {self.slice}' if self.slice else ''}{when}{f', beside {self.release}' if self.release else ''}"


def explain(failing: Verdict, evidence: Evidence, *, happened: Sequence[Happened] = ()) -> Cause:
    """Why `failing` is so, of the same evidence that it was judged on. Never raises for what data may hold."""
    series = Series(evidence.reference, evidence.recent)
    found = _upstream(failing, evidence, series)
    if found is None:
        found = _shifted(failing, evidence, series)
    return _beside(found, happened)


# -- upstream ----------------------------------------------------------------------------------------------------------------------------------


def _upstream(failing: Verdict, evidence: Evidence, series: Series) -> Cause | None:
    broken = [each for each in breaks.examine(series, evidence.settings.quality) if _is_cause(each, failing, evidence)] if len(series) else []
    refused = breaks.refused([each for each in evidence.recent if each.digest == evidence.reference.digest])
    if broken:
        worst = broken[0]
        columns = tuple(each.feature for each in broken)
        said = "; ".join(f"{each.feature} {each.said}" for each in broken[:3])
        first = min(each.first for each in broken) if any(each.is_seen for each in broken) else None
        return Cause(
            kind="upstream break",
            evidence=f"{_BROKEN[worst.kind]}: {said}",
            advice=f"look at what feeds {_listed(columns)}; the model itself need not change",
            columns=columns,
            first_bad=first,
            numbers=worst.numbers,
        )
    apart = _misaligned(sampled(evidence.logged, evidence.reference.schema))
    if apart is not None:
        lost, first_bad = apart
        return Cause(
            kind="upstream break",
            evidence=f"a wrong join: {lost.column} looks as before, but no longer goes with {lost.partner} ({lost.before:.2f}, now {lost.after:.2f})",
            advice=f"look at how {lost.column} is joined to the other columns: its rows seem to belong to others",
            columns=(lost.column,),
            first_bad=first_bad,
            numbers={"before": lost.before, "after": lost.after},
        )
    if refused is not None and failing.rule.partition(":")[0] in ("quality", "operations", "slo"):
        return Cause(
            kind="upstream break",
            evidence=f"schema: {refused.said}",
            advice="compare what is sent with the schema (modelyard inspect): a column was renamed, dropped, or is of another type",
            first_bad=refused.first if refused.is_seen else None,
            numbers=refused.numbers,
        )
    return None


_BROKEN = {
    "schema": "schema",
    "gone": "schema",
    "unit": "unit",
    "constant": "staleness",
    "swapped": "schema",
    "default": "default",
    "missing": "schema",
    "unseen": "schema",
    "outside": "unit",
    "stale": "staleness",
}


def _is_cause(found: Break, failing: Verdict, evidence: Evidence) -> bool:
    """Whether a break explains the verdict: it is in its columns, or these are not inputs at all and the model uses the column. A few new categories
    or values beyond the range are how a population shifts; that nearly all are so is no population's doing.
    """
    inputs = {feature.name for feature in evidence.reference.profile.features if feature.role == "input"}
    if found.feature not in inputs:
        return False
    if found.kind in ("unseen", "outside") and found.numbers.get("share", 0.0) < _RENAMED:
        return False
    named = inputs.intersection(failing.columns)
    known = evidence.reference.importance
    return found.feature in named if named else not known or known.get(found.feature, 0.0) >= 0.01


def _misaligned(rows: Sampled | None) -> tuple[alignment.Lost, float] | None:
    """A column that lost its dependences, and since when: of several places to part the rows at, the one with the sharpest loss."""
    if rows is None or len(rows.times) < 2 * alignment.LEAST_ROWS:
        return None
    rows = rows.take(np.arange(max(0, len(rows.times) - ALIGNED_ROWS), len(rows.times)))
    count = len(rows.times)
    columns = slicing.coded(rows.inputs, rows=count)
    best: tuple[float, alignment.Lost, float] | None = None
    for eighth in range(1, 8):
        first = count * eighth // 8
        lost = alignment.lost(columns, first)
        if lost is not None and (best is None or lost.before - lost.after > best[0]):
            best = (lost.before - lost.after, lost, float(rows.times[first] // MINUTE_S * MINUTE_S))
    return None if best is None else (best[1], best[2])


# -- population or concept ---------------------------------------------------------------------------------------------------------------------


class _Parts(NamedTuple):
    """The change of the loss: what the rows account for, what is left, and the error of that; `first_bad` where the loss itself changed."""

    population: float
    concept: float
    error: float
    first_bad: float | None
    is_parted: bool


def _shifted(failing: Verdict, evidence: Evidence, series: Series) -> Cause:
    moved, begun = _moved(failing, evidence, series)
    parts = _parts(failing, evidence)
    is_concept = parts is not None and parts.concept > _CERTAIN * parts.error and (parts.concept >= parts.population or not moved)
    if parts is not None and is_concept and (parts.is_parted or not moved):
        return _concept(evidence, parts)
    if moved:
        return _population(failing, evidence, series, (moved, begun), parts)
    if not len(series):
        said = "no row of the window was counted in the bins of the reference"
    elif parts is None:
        said = "no input has moved, and there are too few labels to tell whether the answers mean something else"
    else:
        said = "no input has moved, nor has the error changed by more than chance would have it"
    return Cause(kind="unknown", evidence=said, advice="give labels for the predictions of this window (modelyard labels), and look again")


def _moved(failing: Verdict, evidence: Evidence, series: Series) -> tuple[list[Shift], Onset | None]:
    """The inputs that lie apart from the reference since the failing columns (or all of them) left it, the one with the most weight first."""
    if not len(series):
        return [], None
    features = series.reference.features
    places = [place for place, each in enumerate(features) if each.name in failing.columns] or [
        place for place, each in enumerate(features) if each.role == "input"
    ]
    onsets = [series.onset(place) for place in places]
    seen = [each for each in onsets if each.is_seen]
    begun = min(seen or onsets, key=lambda each: each.first)
    shifts = compare(series.reference, series.since(begun.first, begun.last))
    known = evidence.reference.importance
    moved = [each for each in shifts if each.role == "input" and each.q < _MOVED_Q and each.effect > _MOVED]
    return sorted(moved, key=lambda each: -each.effect * (known.get(each.feature, 0.0) if known else 1.0)), begun


def _parts(failing: Verdict, evidence: Evidence) -> _Parts | None:
    """The change of the loss in two; None without enough labels. Of what is not about the error, that of the window: an older one explains nothing
    new.
    """
    labelled = evidence.labelled
    if labelled is not None and failing.rule.partition(":")[0] not in _OF_ERRORS:
        known = labelled.times >= (evidence.recent[0].start if evidence.recent else evidence.now)
        times, truth, predicted, probability = labelled[:4]
        labelled = Labelled(times[known], truth[known], predicted[known], probability[known] if len(probability) == len(known) else probability)
    if labelled is None or len(labelled.times) < LEAST_ROWS:
        return None
    loss = _loss(labelled, evidence)
    begun = _loss_onset(labelled.times, loss)
    first_bad = None if begun is None else float(labelled.times[begun] // MINUTE_S * MINUTE_S)
    at = begun if begun is not None and begun >= LEAST_ROWS else 0
    after = loss[at:]
    expected = _expected(labelled, evidence)
    if at and expected is not None:
        left, left_before = loss[at:] - expected[at:], loss[:at] - expected[:at]
        population = float(expected[at:].mean() - expected[:at].mean())
        return _Parts(population, float(left.mean() - left_before.mean()), math.hypot(_error(left), _error(left_before)), first_bad, is_parted=True)
    if at:
        return _by_strata(_strata(labelled, evidence), loss, at, first_bad)
    usual = _usual(evidence)
    if usual is None:
        return None
    if expected is not None:
        left = loss - expected
        return _Parts(float(expected.mean()) - usual, float(left.mean()), _error(left), first_bad, is_parted=True)
    return _Parts(0.0, float(after.mean()) - usual, _error(after), first_bad, is_parted=False)


def _loss(labelled: Labelled, evidence: Evidence) -> Array:
    if evidence.reference.schema.task == "classification":
        return np.asarray(labelled.truth != labelled.predicted).astype(np.float64)
    return np.asarray(np.abs(labelled.truth - labelled.predicted), dtype=np.float64)


def _usual(evidence: Evidence) -> float | None:
    """The loss on the reference rows."""
    quality = evidence.reference.quality
    if evidence.reference.schema.task == "classification":
        return 1.0 - quality["accuracy"] if "accuracy" in quality else None
    return quality.get("mae")


def _expected(labelled: Labelled, evidence: Evidence) -> Array | None:
    """The loss that a classifier's own probabilities make one expect of each row."""
    if evidence.reference.schema.task != "classification" or len(labelled.probability) != len(labelled.times):
        return None
    rows = np.arange(len(labelled.times))
    places = np.clip(labelled.predicted.astype(np.int64), 0, labelled.probability.shape[1] - 1)
    return np.asarray(1.0 - labelled.probability[rows, places])


def _loss_onset(times: Array, loss: Array) -> int | None:
    """The row from which on the loss is another, by its counts minute by minute; None where it is one throughout."""
    if ((loss == 0) | (loss == 1)).all():
        codes, size = loss.astype(np.int64), 2
    else:
        edges = np.unique(np.quantile(loss, [0.25, 0.5, 0.75, 0.9]))
        codes, size = np.searchsorted(edges, loss, side="right"), len(edges) + 1
    minutes, places = np.unique(times // MINUTE_S, return_inverse=True)
    counts = np.bincount(places * size + codes, minlength=len(minutes) * size).reshape(-1, size).astype(np.float64)
    early = counts[: max(1, len(counts) // 4)].sum(axis=0)
    begun = onset(early, counts)
    return int(np.searchsorted(places, begun.first)) if begun.is_seen else None


def _strata(labelled: Labelled, evidence: Evidence) -> Array:
    """Which rows are alike for the model: by their answers' octiles, and by the most used input where it is logged beside them."""
    predicted = labelled.predicted.astype(np.float64)
    edges = np.unique(np.quantile(predicted, np.arange(1, _STRATA) / _STRATA))
    strata: Array = np.searchsorted(edges, predicted, side="left").astype(np.int64)
    logged = evidence.logged
    if logged is not None and np.array_equal(logged.times, labelled.times):
        known = evidence.reference.importance
        columns = sorted(slicing.coded(logged.inputs, rows=len(logged.times)), key=lambda each: -known.get(each.name, 0.0))
        for column in columns[:1]:
            strata = strata * len(column.names) + column.codes
    return np.asarray(np.unique(strata, return_inverse=True)[1])


def _by_strata(strata: Array, loss: Array, at: int, first_bad: float | None) -> _Parts:
    """Kitagawa's parts over strata that have rows on both sides; rows unlike any before are the population's."""
    size = int(strata.max()) + 1
    counts = [np.bincount(part, minlength=size).astype(np.float64) for part in (strata[:at], strata[at:])]
    sums = [np.bincount(part, values, minlength=size) for part, values in ((strata[:at], loss[:at]), (strata[at:], loss[at:]))]
    squares = [np.bincount(part, values**2, minlength=size) for part, values in ((strata[:at], loss[:at]), (strata[at:], loss[at:]))]
    both = (counts[0] >= 2) & (counts[1] >= 2)
    total = float(loss[at:].mean() - loss[:at].mean())
    if not both.any():
        return _Parts(total, 0.0, math.inf, first_bad, is_parted=True)
    means = [each[both] / count[both] for each, count in zip(sums, counts, strict=True)]
    variances = [(square[both] / count[both] - mean**2) / count[both] for square, count, mean in zip(squares, counts, means, strict=True)]
    weights = counts[1][both] / counts[1].sum()
    concept = float(weights @ (means[1] - means[0]))
    error = math.sqrt(float(weights**2 @ (variances[0] + variances[1])))
    return _Parts(total - concept, concept, error, first_bad, is_parted=True)


def _error(values: Array) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf


# -- saying it ---------------------------------------------------------------------------------------------------------------------------------


def _concept(evidence: Evidence, parts: _Parts) -> Cause:
    where, columns = _worse_rows(evidence, parts.first_bad)
    known = evidence.reference.importance
    used = tuple(sorted(known, key=lambda name: -known[name])[:SHOWN]) if known else ()
    rest = f", of which the rows that come now account for {_loss_said(max(0.0, parts.population), evidence)}" if parts.is_parted else ""
    whole = parts.concept + max(0.0, parts.population)
    return Cause(
        kind="concept shift",
        evidence=f"rows like those before now have other answers: the error is {_loss_said(whole, evidence)} higher{rest}",
        advice="retrain on labels since the change; an older version of the model knows no better, unless a release brought this",
        columns=columns or used,
        slice=where,
        first_bad=parts.first_bad,
        numbers={"concept": parts.concept, "population": parts.population, "standard_error": parts.error},
    )


def _population(failing: Verdict, evidence: Evidence, series: Series, shifts: tuple[Sequence[Shift], Onset | None], parts: _Parts | None) -> Cause:
    moved, begun = shifts
    columns = tuple(each.feature for each in moved[:SHOWN])
    said = "; ".join(_moved_said(each) for each in moved[:3])
    if parts is None:
        cost = "without labels nobody can tell whether the answers mean something else too"
    elif not parts.is_parted and parts.concept <= 0:
        cost = "the error is no larger than the reference's"
    elif not parts.is_parted:
        cost = f"the error is {_loss_said(parts.concept, evidence)} above the reference's, and how much of that they account for cannot be told"
    elif parts.population > 0:
        cost = f"they account for {_loss_said(parts.population, evidence)} more error"
    else:
        cost = "they do not make the error larger"
    first = float(series.starts[begun.first]) if begun is not None and begun.is_seen else None
    if failing.rule.startswith("drift:") and failing.window is not None and failing.window[0] >= series.window[0]:
        first = failing.window[0]  # what the verdict says of when it began, its cause says too
    numbers = {"effect": moved[0].effect, "moved": float(len(moved))}
    if parts is not None:
        numbers |= {"population": parts.population, "concept": parts.concept}
    return Cause(
        kind="population shift",
        evidence=f"the rows that come are others: {said}; {cost}",
        advice="see what the estimated performance says of these rows; where it has fallen, retrain with them",
        columns=columns,
        slice=_grown_rows(series, moved[0], begun),
        first_bad=first,
        numbers=numbers,
    )


def _moved_said(shift: Shift) -> str:
    is_of_mean = shift.mean_shift is not None and abs(shift.mean_shift) >= _MEAN_SD
    how = f"mean {shift.mean_shift:+.2f} sd" if is_of_mean else f"PSI {shift.effect:.2f}"
    return f"{shift.feature} ({how})"


def _loss_said(loss: float, evidence: Evidence) -> str:
    return f"{loss * 100:.1f} points" if evidence.reference.schema.task == "classification" else f"{loss:,.4g}"


def _grown_rows(series: Series, shift: Shift, begun: Onset | None) -> str:
    """The values of the column that moved most of which there are most more."""
    place = next(place for place, each in enumerate(series.reference.features) if each.name == shift.feature and each.role == "input")
    old = series.reference.features[place]
    new = series.since(begun.first if begun else 0, begun.last if begun else None).features[place]
    if not old.present or not new.present or old.kind == "missing":
        return ""
    p, q = (np.array(each.counts) / each.present for each in (old, new))
    cell = int(np.argmax(q - p))
    return f"{shift.feature} {breaks.value(old, cell)}: {q[cell]:.0%} of the rows, of the reference {p[cell]:.0%}"


def _worse_rows(evidence: Evidence, first_bad: float | None) -> tuple[str, tuple[str, ...]]:
    """The slice of the bad minutes' rows that does worst, if one stands out."""
    rows = sampled(evidence.logged, evidence.reference.schema)
    if rows is None:
        return "", ()
    part = rows.take(np.flatnonzero(rows.times >= (first_bad if first_bad is not None else -math.inf)))
    losses = losses_of(part, evidence.reference)
    if losses is None or losses.is_estimated:
        return "", ()
    columns = slicing.coded({name: values[losses.rows] for name, values in part.inputs.items()}, rows=len(losses.rows))
    found = slicing.find(columns, losses.loss, alpha=0.01)
    return (phrase(found[0], losses), found[0].columns) if found else ("", ())


_SAID = {"done": "the end of the rollout", "back": "the way back", "cool": "the unloading"}
"""Words of the history that say little away from it."""


def _beside(found: Cause, happened: Sequence[Happened]) -> Cause:
    """With the last thing that happened before the first bad minute, if it was not long before."""
    if found.first_bad is None:
        return found
    near = [each for each in happened if found.first_bad - NEARBY_S <= each.at <= found.first_bad + MINUTE_S + _SOON_S]
    if not near:
        return found
    last = max(near, key=lambda each: each.at)
    what = _SAID.get(last.what, last.what)
    of = f" of version {last.version}" if last.version is not None else ""
    return msgspec.structs.replace(
        found,
        release=f"{what}{of} at {clock(last.at)}",
        advice=f"{found.advice}; it began beside {what}{of}: if that brought it, modelyard rollback takes it back",
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
