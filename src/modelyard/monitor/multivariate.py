"""Do the inputs still go together as they did? A report on what no feature shows alone: how badly rows are rebuilt from a few directions.

Hides the directions (principal components of the reference's rows, coded by the profile's bins), the form in which a bundle carries them, and the
test. Pure. It pages nobody, and keeps no row.

The components are found in one half of the reference rows; errors of the other half are held against those of live rows by ranks (Mann and Whitney
1947), so the level holds at the actual sizes: with nothing changed both are draws from the same. What breaks a correlation raises the error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from modelyard.monitor import directions, weight
from modelyard.monitor.base import Judged
from modelyard.monitor.directions import UP
from modelyard.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelyard.monitor.base import Evidence
    from modelyard.monitor.profile import FeatureProfile, Profile
    from modelyard.types import Array, Outcome

LEVEL = 0.001
LEAST_EFFECT = 0.05
"""How much likelier than not a live row's error must be the larger, beyond one half, to be told."""
LEAST_ROWS = 100
_MOST_ROWS = 20_000
_MOST_CODES = 200
_KEPT_ERRORS = 1000
_CATEGORIES = 12
_KEPT_VARIANCE = 0.65


class Together(msgspec.Struct, frozen=True):
    """How rows of the reference are rebuilt: `basis` [code][component], and the `errors`, in order, of rows that took no part in finding it."""

    basis: tuple[tuple[float, ...], ...]
    errors: tuple[float, ...]


class Multivariate:
    """Stateless."""

    rule = "multivariate"
    pages = False

    def judge(self, evidence: Evidence, state: bytes) -> Judged:  # noqa: ARG002  it keeps none
        """One Verdict, `multivariate`: `warn` where live rows are rebuilt worse, or better, than the reference's."""
        learnt = evidence.reference.learnt
        return Judged((self._verdict(evidence, learnt.together if learnt is not None else None),), b"")

    def _verdict(self, evidence: Evidence, together: Together | None) -> Verdict:
        if together is None:
            return _unknown(
                f"the bundle does not tell how its inputs go together: it has fewer than two, fewer than {2 * LEAST_ROWS} rows, or is older"
            )
        if evidence.logged is None or _rows(evidence.logged.inputs) < LEAST_ROWS:
            return _unknown(f"fewer than {LEAST_ROWS} rows of this window have their inputs in the log")
        coded = codes(evidence.logged.inputs, evidence.reference.profile)
        basis = np.array(together.basis)
        if coded.shape[1] != len(basis):
            return _unknown("the bundle's components are of another profile")
        live = errors(coded, basis)
        effect, p = larger(live, np.array(together.errors))
        is_told = p <= LEVEL and abs(effect) >= LEAST_EFFECT
        outcome: Outcome = "warn" if is_told else "pass"
        way = "worse" if effect > 0 else "better"
        said = f"inputs fit together {way} than in the reference" if is_told else "inputs go together as they do in the reference"
        rare, times = weight.chance("p", p), evidence.logged.times
        return Verdict(
            outcome=outcome,
            rule=self.rule,
            evidence=f"{said}: a row is rebuilt worse than one of the reference with chance {0.5 + effect:.2f} ({rare}, {len(live):,} rows)",
            numbers={"value": 0.5 + effect, "effect": effect, "p": p, "rows": float(len(live)), "components": float(basis.shape[1])},
            window=(float(times.min()), float(times.max())),
        )


def learn(inputs: Mapping[str, Array], reference: Profile) -> Together | None:
    """From the rows that `reference` profiles: the components of every other row that carry most of the variance, fewer than there are codes.

    None where there are too few rows, or fewer than two inputs.
    """
    coded = codes(inputs, reference)
    half = coded[::2]
    if len(coded) < 2 * LEAST_ROWS or int((half.std(axis=0) > 1e-9).sum()) < 2:
        return None
    values, vectors = np.linalg.eigh(half.T @ half / len(half))
    used = int((values > values[-1] * 1e-9).sum())
    if used < 2:
        return None
    shares = np.cumsum(values[::-1]) / values.sum()
    kept = min(int(np.searchsorted(shares, _KEPT_VARIANCE)) + 1, used - 1)
    basis = np.round(vectors[:, ::-1][:, :kept], 6)
    found = errors(coded[1::2], basis)
    picked = found[np.linspace(0, len(found) - 1, num=min(len(found), _KEPT_ERRORS)).astype(int)]
    return Together(tuple(map(tuple, basis.tolist())), tuple(float(f"{each:.6g}") for each in np.sort(picked)))


def codes(columns: Mapping[str, Array], reference: Profile) -> Array:
    """Rows as numbers [row, code]: each number by the score of its bin, each common category as a mark of its own; missing is 0, the mean.

    Columns that are absent, or not of the reference's width, count as missing; of many rows the latest are coded.
    """
    known = directions.directions(reference)
    rows = min(_rows(columns), _MOST_ROWS)
    found: list[Array] = []
    for at, feature in enumerate(known.features):
        if feature.role != "input" or feature.kind == "missing" or len(found) >= _MOST_CODES:
            continue
        values = columns.get(feature.source)
        flat = None if values is None else values[len(values) - rows :].reshape(rows, -1)
        column = None if flat is None or feature.element >= flat.shape[1] else flat[:, feature.element]
        if feature.kind == "number":
            found.append(_number(column, feature, known.scores[at, UP], rows))
        else:
            found.extend(_categories(column, feature, known.shares[at], rows))
    return np.array(found, dtype=np.float64).reshape(len(found), rows).T


def errors(coded: Array, basis: Array) -> Array:
    """Of each row the squared distance from its projection."""
    found: Array = ((coded - coded @ basis @ basis.T) ** 2).sum(axis=1)
    return found


def larger(live: Array, reference: Array) -> tuple[float, float]:
    """By how much more than half the chance is that one of `live` is larger than one of `reference`, and the p-value of so much, either way.

    The normal limit of Mann and Whitney's test, with its correction for ties.
    """
    n, m = len(live), len(reference)
    values, places, ties = np.unique(np.concatenate((live, reference)), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[places.reshape(-1)]
    effect = (float(ranks[:n].sum()) - n * (n + 1) / 2) / (n * m) - 0.5
    tied = float((ties.astype(np.float64) ** 3 - ties).sum()) / ((n + m) * (n + m - 1))
    variance = (n + m + 1 - tied) / (12 * n * m)
    return (effect, math.erfc(abs(effect) / math.sqrt(2 * variance))) if len(values) > 1 and variance > 0 else (0.0, 1.0)


def _number(column: Array | None, feature: FeatureProfile, scores: Array, rows: int) -> Array:
    if column is None or column.dtype == object:
        return np.zeros(rows)
    values = column.astype(np.float64)
    places = np.minimum(np.searchsorted(np.array(feature.edges), values, side="right"), len(feature.edges))
    found: Array = np.where(np.isnan(values), 0.0, scores[places])
    return found


def _categories(column: Array | None, feature: FeatureProfile, shares: Array, rows: int) -> list[Array]:
    common = sorted(range(len(feature.categories)), key=lambda place: (-shares[place], place))[:_CATEGORIES]
    values = [] if column is None else column.tolist()
    found = []
    for place in common:
        share = float(shares[place])
        mark = np.array([value == feature.categories[place] for value in values], dtype=np.float64) if column is not None else np.full(rows, share)
        found.append((mark - share) / math.sqrt(share * (1 - share)))
    return found


def _rows(columns: Mapping[str, Array]) -> int:
    return min((len(values) for values in columns.values()), default=0)


def _unknown(said: str) -> Verdict:
    return Verdict(outcome="unknown", rule=Multivariate.rule, evidence=said)
