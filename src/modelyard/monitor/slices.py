"""Slices as a Detector: the groups of rows on which the model does worse than on the others, and whether named groups are treated alike.

Hides how a row's loss is had: from its label, or, of a classifier without labels, as the chance that it gives against its own answer (estimated
harm). Reports only. The search costs a tenth of a second or more, so it is made once in a while and its verdicts are remembered until the next. It
must not know how slices are found; `monitor.slicing` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from modelyard.monitor import remembered, slicing
from modelyard.monitor.base import Evidence, Judged, Reference
from modelyard.monitor.sampled import Sampled, sampled
from modelyard.monitor.slicing import Column, Slice
from modelyard.types import Digest, Verdict

if TYPE_CHECKING:
    from modelyard.types import Array

FORMAT = 1
EVERY_S = 3600.0
ALPHA = 0.001
"""The level of one search: with one each hour a false slice in six weeks."""
LEAST_LABELLED = 200
SHOWN = 5


class Losses(NamedTuple):
    """The loss of each of `rows` of a sample: of a classifier 1 for a wrong answer (`is_share`), estimated without labels; of a number how far it is
    off. `unit` is the loss that harm is told in.
    """

    rows: Array
    loss: Array
    unit: float
    is_share: bool
    is_estimated: bool


class Slices:
    """The detector. One instance serves any number of deployments."""

    rule = "slices"
    pages = False

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """See `Detector.judge`."""
        had = remembered.read(state, _State, form=FORMAT, digest=evidence.reference.digest)
        if had is not None and 0 <= evidence.now - had.at < EVERY_S and had.verdicts[0].outcome != "unknown":  # else nothing was searched
            return Judged(had.verdicts, state)
        verdicts = tuple(self._verdicts(evidence))
        return Judged(verdicts, remembered.written(_State(FORMAT, evidence.reference.digest, evidence.now, verdicts)))

    def _verdicts(self, evidence: Evidence) -> Iterator[Verdict]:
        rows = sampled(evidence.logged, evidence.reference.schema)
        if rows is None:
            yield Verdict(outcome="unknown", rule=self.rule, evidence="no logged prediction of the window has its inputs beside it")
            return
        losses = losses_of(rows, evidence.reference)
        if losses is None:
            yield Verdict(
                outcome="unknown", rule=self.rule, evidence=f"slices need {LEAST_LABELLED} labelled predictions, or a classifier's probabilities"
            )
            return
        settings = evidence.settings.slices
        columns = slicing.coded({name: values[losses.rows] for name, values in rows.inputs.items()}, rows=len(losses.rows))
        searched = [column for column in columns if not settings.columns or column.name in settings.columns]
        window = (float(rows.times[0]), float(rows.times[-1]))
        found = slicing.find(searched, losses.loss, alpha=ALPHA, least=settings.least * losses.unit)
        yield _summary(found, losses, window)
        for column in settings.fairness:
            yield _fairness(column, columns, rows, losses, margin=settings.fairness_margin)


def losses_of(given: Sampled, reference: Reference) -> Losses | None:
    """The loss of the rows that have a label, where there are enough; else what a classifier's own probabilities say of all rows; else None."""
    is_class = reference.schema.task == "classification"
    known = (given.truth >= 0) if is_class else np.isfinite(given.truth) & np.isfinite(given.predicted)
    if int(known.sum()) >= LEAST_LABELLED:
        rows = np.flatnonzero(known)
        truth, predicted = given.truth[rows], given.predicted[rows]
        if is_class:
            return Losses(rows, (truth != predicted).astype(np.float64), 1.0, is_share=True, is_estimated=False)
        loss = np.abs(truth - predicted)
        unit = reference.quality.get("mae", 0.0) or float(loss.mean()) or 1.0
        return Losses(rows, loss, unit, is_share=False, is_estimated=False)
    if is_class and len(given.probability) == len(given.times):
        loss = 1.0 - given.probability.max(axis=1)
        rows = np.flatnonzero(np.isfinite(loss))
        if len(rows) >= LEAST_LABELLED:
            return Losses(rows, loss[rows], 1.0, is_share=True, is_estimated=True)
    return None


class _State(msgspec.Struct, array_like=True, frozen=True):
    format: int
    digest: Digest
    at: float
    verdicts: tuple[Verdict, ...]


def _summary(found: Sequence[Slice], losses: Losses, window: tuple[float, float]) -> Verdict:
    how = "by the model's own probabilities" if losses.is_estimated else "by their labels"
    looked = f"{len(losses.rows):,} rows {how}"
    if not found:
        return Verdict(outcome="pass", rule="slices", evidence=f"no slice of {looked} does worse than the rest", window=window, harm=0.0)
    told = "; ".join(phrase(each, losses) for each in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    worst = found[0]
    numbers = {
        "slices": float(len(found)),
        "rows": float(worst.rows),
        "share": worst.share,
        "loss": worst.loss,
        "rest": worst.rest,
        "low": worst.low,
        "high": worst.high,
        "p": worst.p,
    }
    return Verdict(
        outcome="warn",
        rule="slices",
        evidence=f"{told}{more}; of {looked}",
        numbers=numbers,
        window=window,
        columns=worst.columns,
        harm=max(0.0, (worst.loss - worst.rest) / losses.unit),
    )


def phrase(found: Slice, losses: Losses) -> str:
    """One slice in words."""
    loss, rest = (f"{value:.1%} wrong" if losses.is_share else f"error {value:,.4g}" for value in (found.loss, found.rest))
    return f"where {found.said} ({found.share:.0%} of the rows): {loss}, elsewhere {rest}"


def _fairness(name: str, columns: Sequence[Column], given: Sampled, losses: Losses, *, margin: float) -> Verdict:
    """Every group of one column against all others, in each figure, with limits that hold for all of them together."""
    rule = f"slices:{name}"
    column = next((each for each in columns if each.name == name), None)
    if column is None:
        return Verdict(outcome="unknown", rule=rule, evidence=f"{name} is not logged with one value for each row, or has but one", columns=(name,))
    numbers: dict[str, float] = {}
    compared: list[tuple[float, float, float, str, str]] = []
    figures = list(_figures(given, losses))
    groups = [(code, _group(column, code)) for code in range(len(column.names))]
    level = 0.05 / max(1, len(groups) * len(figures))
    for figure, values, is_known in figures:
        for code, group in groups:
            inside, outside = values[is_known & (column.codes == code)], values[is_known & (column.codes != code)]
            if min(len(inside), len(outside)) >= slicing.LEAST_ROWS:
                higher, low, high = slicing.difference(inside, outside, alpha=level)
                numbers[f"{figure}, {group}"] = float(inside.mean())
                compared.append((higher, low, high, figure, group))
    if not compared:
        return Verdict(outcome="unknown", rule=rule, evidence=f"no group of {name} has {slicing.LEAST_ROWS} rows", columns=(name,))
    units = {figure: losses.unit if figure == "error" else 1.0 for figure, _, _ in figures}
    apart = [each for each in compared if (each[1] > 0 or each[2] < 0) and abs(each[0]) > margin * units[each[3]]]
    worst = max(apart or compared, key=lambda each: abs(each[0]) / units[each[3]])
    how = "higher" if worst[0] > 0 else "lower"
    said = f"{worst[3]} where {worst[4]} is {abs(worst[0]):.3g} {how} than elsewhere ({worst[1]:.3g} to {worst[2]:.3g})"
    numbers |= {"difference": worst[0], "low": worst[1], "high": worst[2]}
    window = (float(given.times[0]), float(given.times[-1]))
    return Verdict(outcome="warn" if apart else "pass", rule=rule, evidence=said, numbers=numbers, window=window, columns=(name,))


def _group(column: Column, code: int) -> str:
    return slicing.said([column], [slicing.Condition(0, code, code)])


def _figures(given: Sampled, losses: Losses) -> Iterator[tuple[str, Array, Array]]:
    """The figures by which groups are compared: their names, each row's value, and the rows that count."""
    everyone = np.ones(len(losses.rows), dtype=bool)
    yield ("share of wrong answers" if losses.is_share else "error"), losses.loss, everyone
    if given.probability.shape[1:] != (2,):
        return
    truth, predicted = given.truth[losses.rows], given.predicted[losses.rows]
    yield "share of positive answers", (predicted == 1).astype(np.float64), everyone
    if not losses.is_estimated:
        yield "share of positives found", (predicted == 1).astype(np.float64), truth == 1
