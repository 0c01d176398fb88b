"""Which features lie elsewhere in the latest window than in the reference: tests at the actual number of rows, for reports; they page nobody.

Hides that many features are tested at once: p-values are adjusted so that of all features named one in a hundred at most is named by chance
(Benjamini and Hochberg 1995), with the more leave the more a feature counts for the model (Genovese, Roeder and Wasserman, "False discovery control
with p-value weighting", Biometrika 2006). Pure. A window is a test of its own: asked every minute for a month it will
be wrong, which is why this never pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelyard.errors import MalformedPayload
from modelyard.monitor import budget, profile, weight
from modelyard.monitor.base import MINUTE_S, Judged
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.monitor.base import Evidence
    from modelyard.monitor.profile import Shift
    from modelyard.types import Array

LEVEL = 0.01
LEAST_ROWS = 30
_LEAST_WEIGHT = 0.1
"""A feature that the model hardly uses still takes part, at this weight beside the mean."""


class WindowShift:
    """Stateless."""

    rule = "shift"
    pages = False

    def judge(self, evidence: Evidence, state: bytes) -> Judged:  # noqa: ARG002  it keeps none
        """A Verdict `shift:<feature>` (warn) for each feature that lies elsewhere by more than `drift.smallest_shift`; else one on all."""
        reference = evidence.reference
        ours = [(each, each.counts) for each in evidence.recent if each.digest == reference.digest and each.counts is not None]
        size = profile.size(reference.profile)
        fitting = [(minute, counts) for minute, counts in ours if len(counts) == size]
        foreign = len(ours) - len(fitting)
        if not reference.profile.rows:
            return Judged((_unknown("the bundle carries no profile of its reference"),), b"")
        if foreign and not fitting:
            return Judged((_unknown("rows were counted in the bins of another profile and cannot be compared"),), b"")
        if not fitting:
            return Judged((_unknown("no row was profiled in this window"),), b"")
        window = (float(fitting[0][0].start), float(fitting[-1][0].start + MINUTE_S))
        try:
            live = profile.filled(reference.profile, np.sum([counts for _, counts in fitting], axis=0))
        except MalformedPayload as error:
            return Judged((_unknown(error.message),), b"")
        if live.rows < LEAST_ROWS:
            return Judged((_unknown(f"{live.rows:,} rows in this window: it takes {LEAST_ROWS}", window),), b"")
        found = profile.compare(reference.profile, live)
        weights = _weights(found, evidence)
        adjusted = weighted_q([each.p for each in found], weights)
        least = evidence.settings.drift.smallest_shift**2  # the effect is of the order of the squared shift in deviations
        moved = [_named(each, q, window) for each, q in zip(found, adjusted, strict=True) if q <= LEVEL and each.effect >= least]
        told = tuple(moved) or (_summary(tested=len(found), rows=live.rows, window=window),)
        if foreign:
            left = f"{foreign:,} minutes were counted in the bins of another profile and are left out"
            told = (msgspec.structs.replace(told[0], evidence=f"{told[0].evidence}; {left}"), *told[1:])
        return Judged(told, b"")


def weighted_q(values: Sequence[float], weights: Array) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values where each may take the share of false discoveries that its weight (1 on average) gives it."""
    p = np.minimum(np.asarray(values, dtype=np.float64) / weights, 1.0)
    order = np.argsort(p)
    ranked = p[order] * len(p) / np.arange(1, len(p) + 1)
    found = np.empty(len(p))
    found[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    adjusted: list[float] = found.tolist()
    return adjusted


def _weights(found: Sequence[Shift], evidence: Evidence) -> Array:
    features = evidence.reference.profile.features
    by_name: dict[tuple[str, str], float] = dict(
        zip(((each.role, each.name) for each in features), budget.stream_weights(features, evidence.reference.importance), strict=True)
    )
    weights = np.maximum([by_name[each.role, each.feature] for each in found], _LEAST_WEIGHT)
    scaled: Array = weights / weights.mean() if len(weights) else weights
    return scaled


def _named(shift: Shift, q: float, window: tuple[float, float]) -> Verdict:
    said = f"{shift.feature} lies elsewhere than in the reference"
    if shift.mean_shift is not None:
        said += f", its mean by {shift.mean_shift:+.2f} deviations"
    if abs(shift.missing - shift.missing_reference) >= 0.01:
        said += f", missing in {shift.missing:.1%} of rows after {shift.missing_reference:.1%}"
    if shift.outside >= 0.01:
        said += f", {shift.outside:.1%} of rows beyond what the reference knew"
    numbers = {"value": shift.effect, "effect": shift.effect, "p": shift.p, "q": q, "rows": float(shift.rows)}
    numbers |= {"missing": shift.missing, "missing_reference": shift.missing_reference, "outside": shift.outside}
    if shift.mean_shift is not None:
        numbers["shift"] = shift.mean_shift
    evidence = f"{said} (population stability index {shift.effect:.3f}, {weight.chance('q', q)})"
    return Verdict(
        outcome="warn", rule=f"{WindowShift.rule}:{shift.feature}", evidence=evidence, numbers=numbers, window=window, columns=(shift.feature,)
    )


def _summary(*, tested: int, rows: int, window: tuple[float, float]) -> Verdict:
    said = f"none of {tested:,} inputs and outputs lies elsewhere than in the reference, over {rows:,} rows"
    return Verdict(outcome="pass", rule=WindowShift.rule, evidence=said, numbers={"tested": float(tested), "rows": float(rows)}, window=window)


def _unknown(said: str, window: tuple[float, float] | None = None) -> Verdict:
    return Verdict(outcome="unknown", rule=WindowShift.rule, evidence=said, window=window)
