"""What a shift costs, by profiles alone: live rows by cell, each at the loss that the reference's rows in that cell had.

Hides the reckoning. It sees one feature at a time: it is what the shift of that feature alone would cost, were the model as right in each cell as it
was. Where live rows lie in cells that the reference hardly has, nobody can tell. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelyard.monitor.estimate.estimator import EFFECTIVE_ROWS, KNOWN_ROWS, REACH, UNKNOWN_SHARE, Estimated, Figure
from modelyard.monitor.estimate.learnt import Cells, Learnt
from modelyard.monitor.estimate.support import effective_rows

if TYPE_CHECKING:
    from modelyard.monitor.profile import FeatureProfile, Profile
    from modelyard.types import Array, Verdict

PRIOR_ROWS = 20.0
"""A cell's loss counts beside so many rows of the mean loss."""


def price(learnt: Learnt, live: FeatureProfile) -> float | None:
    """The loss of the model's figure (accuracy, or the MAE's rise as a share of the reference's) that the shift of one feature explains.

    Below 0 where the model does better there. 0 for an input that the model does not look at; None where nobody can tell.
    """
    if live.role == "input" and learnt.importance.get(live.name) == 0:
        return 0.0
    cells = (learnt.inputs if live.role == "input" else learnt.outputs).get(live.name)
    found = None if cells is None else _by_cell(learnt, cells, live)
    if cells is None or found is None or not learnt.loss >= 0:
        return None
    value, _, unknown = found
    if unknown > UNKNOWN_SHARE:
        return None
    rows = np.asarray(cells.rows, np.float64)
    before = float(rows @ _smoothed(learnt, cells) / rows.sum())
    if "accuracy" in learnt.quality:
        return value - before
    return value / before - 1.0 if before > 0 else None


def priced(verdict: Verdict, learnt: Learnt | None, live: Profile) -> Verdict:
    """`verdict` with the harm of the costliest of its columns, where it has none yet and somebody can tell; `live` counts the rows of its window."""
    if learnt is None or verdict.harm is not None or not verdict.columns:
        return verdict
    known = [cost for each in live.features if each.name in verdict.columns and each.rows and (cost := price(learnt, each)) is not None]
    return msgspec.structs.replace(verdict, harm=max(0.0, *known)) if known else verdict


def guilty(learnt: Learnt, live: Profile, *, least: float, at_most: int = 3) -> tuple[str, ...]:
    """The inputs whose shift costs at least `least`, the costliest first."""
    costs = {each.name: cost for each in live.features if each.role == "input" and each.rows and (cost := price(learnt, each)) is not None}
    return tuple(sorted((name for name in costs if costs[name] >= least), key=lambda name: -costs[name])[:at_most])


def binned(learnt: Learnt, live: Profile) -> Estimated:
    """Accuracy or MAE of live rows of which only a profile is left: by the output whose cells tell the reference's losses apart best."""
    best, chosen = -1.0, None
    for each in live.features:
        cells = learnt.outputs.get(each.name) if each.role == "output" else None
        if cells is not None and each.rows and (told := _told_apart(cells)) > best:
            best, chosen = told, (each, cells)
    if chosen is None or not learnt.loss >= 0:
        return Estimated(live.rows, {}, 0.0, 1.0, "the bundle carries no labels by which outputs could be judged")
    feature, cells = chosen
    found = _by_cell(learnt, cells, feature)
    if found is None:
        return Estimated(feature.rows, {}, 0.0, 1.0, f"the profile of {feature.name} is not that of the reference")
    value, effective, unknown = found
    if unknown > UNKNOWN_SHARE or effective < EFFECTIVE_ROWS:
        return Estimated(feature.rows, {}, effective, unknown, f"{unknown:.0%} of the outputs lie where the reference has none")
    is_share = "accuracy" in learnt.quality
    shares = _counts(feature) / feature.rows
    losses = _smoothed(learnt, cells)
    between = float(shares @ (losses - shares @ losses) ** 2)
    within = value * (1 - value) - between if is_share else value**2  # an absolute error spreads about as far as it is large
    labels = max(within, 0.0) / feature.rows
    learnt_variance = labels * feature.rows / effective + max(within, 0.0) * float(shares @ shares) / KNOWN_ROWS
    reach = REACH * math.sqrt(labels + learnt_variance) + unknown * (1.0 if is_share else value)
    deviation = math.sqrt(between / feature.rows + learnt_variance)
    if is_share:
        right = 1.0 - value
        return Estimated(feature.rows, {"accuracy": Figure(right, max(0.0, right - reach), min(1.0, right + reach), deviation)}, effective, unknown)
    return Estimated(feature.rows, {"mae": Figure(value, max(0.0, value - reach), value + reach, deviation)}, effective, unknown)


def _by_cell(learnt: Learnt, cells: Cells, live: FeatureProfile) -> tuple[float, float, float] | None:
    """The live rows' loss by cell, the rows of the reference that it rests on, and the share of live rows in cells where it has none."""
    counts = _counts(live)
    if len(counts) != len(cells.rows) or not counts.sum() or not any(cells.rows):
        return None
    shares = counts / counts.sum()
    known = np.asarray(cells.rows, np.float64)
    return float(shares @ _smoothed(learnt, cells)), effective_rows(known, counts), float(shares[known == 0].sum())


def _smoothed(learnt: Learnt, cells: Cells) -> Array:
    found: Array = (np.asarray(cells.losses) + PRIOR_ROWS * learnt.loss) / (np.asarray(cells.rows) + PRIOR_ROWS)
    return found


def _counts(live: FeatureProfile) -> Array:
    counts: Sequence[int] = (live.present, live.missing) if live.kind == "missing" else (*live.counts, live.missing)
    return np.asarray(counts, np.float64)


def _told_apart(cells: Cells) -> float:
    """The variance of the mean loss between cells."""
    rows = np.asarray(cells.rows, np.float64)
    if not rows.sum():
        return 0.0
    means = np.asarray(cells.losses) / np.maximum(rows, 1.0)
    shares = rows / rows.sum()
    return float(shares @ (means - shares @ means) ** 2)
