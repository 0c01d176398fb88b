"""What is plainly broken upstream, feature by feature: missing, constant, in another unit, two values swapped, a default in place of values, values
that were never seen, requests that the schema refuses.

Hides the tests and how many of them are made. Pure: a series of minutes in, Breaks out. Each count is held against the reference's at the actual
number of rows by an exact test, over every feature and over the last 1, 2, 4, … minutes, corrected for all of them; how large a change is worth
telling is a setting of its own. It must not say what a break costs, nor wake anybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from modelyard.monitor.base import Minute
from modelyard.monitor.profile import FeatureProfile
from modelyard.monitor.series import Series
from modelyard.monitor.settings import Quality
from modelyard.monitor.units import unit_of

Kind = Literal["schema", "gone", "unit", "constant", "swapped", "default", "missing", "unseen", "outside", "stale"]
KINDS: tuple[Kind, ...] = ("schema", "gone", "unit", "constant", "swapped", "default", "missing", "unseen", "outside", "stale")
"""The worst first: of one feature one break is told."""

ALPHA = 1e-6
"""The chance of any break in one turn where rows are drawn as the reference's were: a false report in two years of turns a minute."""
LEAST_ROWS = 20
LEAST_REQUESTS = 8
VARIED_MINUTES = 15
CONSTANT_MINUTES = 3
_LEAST_OTHERS = 100
_OF_CALLERS = ("schema_mismatch", "malformed_payload")
_LIKENESSES = ("unit", "swapped", "default")
_SHARE_REFUSED = 0.05
_TIMES_AS_OFTEN = 1.5


class Break(NamedTuple):
    """One feature's break. `place` is its place in the profile (-1: of whole requests); `first` and `last` are the times of the bad minutes' start
    and end, `is_seen` whether it began within the window. `said` goes on from the feature's name.
    """

    kind: Kind
    feature: str
    place: int
    first: float
    last: float
    is_seen: bool
    rows: int
    said: str
    numbers: dict[str, float]


def examine(series: Series, worth: Quality) -> tuple[Break, ...]:
    """Each broken feature's worst break, the worst first."""
    scales = list(_scales(len(series)))
    features = series.reference.features
    alpha = ALPHA / max(1, len(features) * len(scales) * len(_CHECKS))
    found: dict[int, Break] = {}
    for first in scales:
        live = series.since(first)
        if live.rows < LEAST_ROWS:
            continue
        for place, (old, new) in enumerate(zip(features, live.features, strict=True)):
            if place in found or not old.rows:
                continue
            told = _constant(series, place, first, new) or _worst(old, new, worth, alpha)
            placed = None if told is None else _placed(series, place, told, worth, alpha)
            if placed is not None:
                found[place] = placed
    return tuple(sorted(found.values(), key=lambda each: (KINDS.index(each.kind), each.place)))


def refused(minutes: Sequence[Minute]) -> Break | None:
    """Requests that the schema refuses more often than before in the window (or, where there is no before, mostly): an upstream change of names or
    types, or one careless caller.
    """
    counts = np.array([(sum(each.failures[code].requests for code in _OF_CALLERS if code in each.failures), each.requests) for each in minutes])
    for first in _scales(len(minutes)):
        (bad, good), (bad_before, good_before) = counts[first:].sum(axis=0).tolist(), counts[:first].sum(axis=0).tolist()
        asked, before = bad + good, bad_before + good_before
        if asked < LEAST_ROWS or bad < max(LEAST_REQUESTS, _SHARE_REFUSED * asked):
            continue
        is_more = chance_of_more(bad_before, before, bad, asked) <= ALPHA / len(minutes) if before >= LEAST_ROWS else bad * 2 >= asked
        if is_more:
            is_bad = [row[0] * asked * 2 >= bad * row.sum() and row[0] > 0 for row in counts]
            start = next(place for place in range(first, len(counts)) if is_bad[place])
            while start and is_bad[start - 1]:
                start -= 1
            said = f"{bad / asked:.1%} of {asked:,} requests do not fit the schema"
            numbers = {"share": bad / asked, "requests": float(asked)}
            return Break("schema", "", -1, float(minutes[start].start), float(minutes[-1].start + minutes[-1].span_s), start > 0, 0, said, numbers)
    return None


def chance_of_more(a: int, n: int, b: int, m: int) -> float:
    """The chance that of `m` rows `b` or more are hits, given `a` hits of `n` others and that all are alike: Fisher's exact test, one-sided."""
    hits = a + b
    if not b or b * (n + m) <= hits * m:
        return 1.0
    log = _choose(m, b) + _choose(n, hits - b) - _choose(n + m, hits)
    term = total = 1.0
    for k in range(b, min(hits, m)):
        term *= (m - k) * (hits - k) / ((k + 1) * (n - hits + k + 1))
        total += term
        if term < 1e-12 * total:
            break
    return min(1.0, math.exp(min(0.0, log)) * total)


def only_value(feature: FeatureProfile) -> int | None:
    """Which value all rows that have one have: a number in quanta from the centre, or a category's place; None where they differ or none has."""
    if not feature.present or feature.kind == "missing":
        return None
    if feature.kind == "number":
        return feature.total // feature.present if feature.squares * feature.present == feature.total**2 else None
    hit = [place for place, count in enumerate(feature.counts) if count]
    return hit[0] if len(hit) == 1 and hit[0] < len(feature.categories) else None  # what is not known may be many values


def value(feature: FeatureProfile, place: int) -> str:
    """What stands in one of a feature's cells, in words."""
    if feature.kind == "category":
        return repr(feature.categories[place]) if place < len(feature.categories) else "unseen categories"
    edges = feature.edges
    if place == 0:
        return f"less than {edges[0]:,.4g}"
    if place > len(edges) - 1:
        return f"more than {edges[-1]:,.4g}"
    return f"{edges[place - 1]:,.4g}" if _is_separate(feature) else f"{edges[place - 1]:,.4g} to {edges[place]:,.4g}"


# -- one feature in one span of time -----------------------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    kind: Kind
    said: str
    numbers: dict[str, float]


_Check = Callable[[FeatureProfile, FeatureProfile, Quality, float], _Told | None]


def _scales(count: int) -> Iterator[int]:
    """Where spans of the last 1, 2, 4, … and of all minutes begin."""
    length = 1
    while length < count:
        yield count - length
        length *= 2
    if count:
        yield 0


def _worst(old: FeatureProfile, new: FeatureProfile, worth: Quality, alpha: float) -> _Told | None:
    checks = _CHECKS if old.role == "input" else _CHECKS_OF_OUTPUTS
    return next((told for check in checks if (told := check(old, new, worth, alpha)) is not None), None)


def _placed(series: Series, place: int, told: _Told, worth: Quality, alpha: float) -> Break | None:
    """The break with its minutes, and its figures over these. What goes by a likeness must be alike over all of them too."""
    onset = series.onset(place)
    old, span = series.reference.features[place], series.since(onset.first, onset.last)
    again = None if told.kind == "constant" else _worst(old, span.features[place], worth, alpha)
    if again is None and told.kind in _LIKENESSES:
        return None
    told = again or told
    first, last = float(series.starts[onset.first]), float(series.ends[onset.last - 1])
    return Break(told.kind, old.name, place, first, last, onset.is_seen, span.rows, told.said, told.numbers)


def _gone(old: FeatureProfile, new: FeatureProfile, _: Quality, alpha: float) -> _Told | None:
    if new.present or chance_of_more(old.missing, old.rows, new.missing, new.rows) > alpha:
        return None
    return _Told("gone", f"is missing in all of {new.rows:,} rows, of the reference in {old.missing / old.rows:.1%}", _shares(old, new))


def _missing(old: FeatureProfile, new: FeatureProfile, worth: Quality, alpha: float) -> _Told | None:
    was, share = old.missing / old.rows, new.missing / new.rows
    if share - was < worth.missing or share < _TIMES_AS_OFTEN * was or chance_of_more(old.missing, old.rows, new.missing, new.rows) > alpha:
        return None
    return _Told("missing", f"is missing in {share:.1%} of {new.rows:,} rows, of the reference in {was:.1%}", _shares(old, new))


def _shares(old: FeatureProfile, new: FeatureProfile) -> dict[str, float]:
    return {"share": new.missing / new.rows, "was": old.missing / old.rows, "rows": float(new.rows)}


def _unit(old: FeatureProfile, new: FeatureProfile, *_: object) -> _Told | None:
    found = unit_of(old, new)
    if found is None:
        return None
    unit, share = found
    part = "" if share == 1.0 else f" in about {share:.0%} of the rows"
    numbers = {"factor": unit.factor, "offset": unit.offset, "share": share, "mean": new.mean, "was": old.mean, "rows": float(new.rows)}
    return _Told("unit", f"comes in another unit{part}: {unit.said} (mean {new.mean:,.4g}, of the reference {old.mean:,.4g})", numbers)


def _swapped(old: FeatureProfile, new: FeatureProfile, *_: object) -> _Told | None:
    """Two values stand in each other's place: their shares are exchanged, all others are as they were."""
    if not old.present or new.present < LEAST_ROWS or old.kind == "missing":
        return None
    p, q = (np.array(each.counts) / each.present for each in (old, new))
    used = int((p > 0).sum())
    if used < 3 or (old.kind == "number" and not _is_separate(old)):  # of two values, one's share may well become the other's
        return None
    up, down = int(np.argmax(q - p)), int(np.argmin(q - p))
    noise = 3 * math.sqrt(float((p * (1 - p)).max()) * (1 / new.present + 1 / old.present))
    exchanged = p.copy()
    exchanged[[up, down]] = p[[down, up]]
    least = max(0.08, 2 * noise + 0.02)
    if p[down] - p[up] < least or np.abs(q - exchanged).max() > 0.01 + noise:
        return None
    names = [value(old, place) for place in (up, down)]
    now, then = (f"{shares[up]:.0%} and {shares[down]:.0%}" for shares in (q, p))
    said = f"has {names[0]} and {names[1]} swapped: {now} of {new.present:,} rows, of the reference {then}"
    return _Told("swapped", said, {"share": float(q[up]), "was": float(p[up]), "rows": float(new.rows)})


def _default(old: FeatureProfile, new: FeatureProfile, worth: Quality, alpha: float) -> _Told | None:
    """One value (or narrow bin) has gained a share of the rows, and all others have lost in proportion, as when a default takes their place."""
    if not old.present or new.present < 2 * LEAST_ROWS or old.kind == "missing":
        return None
    p, q = (np.array(each.counts) / each.present for each in (old, new))
    place = int(np.argmax(q - p))
    gained = float((q[place] - p[place]) / (1 - p[place])) if p[place] < 1 else 0.0
    others = np.delete(p, place)
    rest = new.present - new.counts[place]
    if gained < worth.default or int((others > 0.01).sum()) < 3 or rest < _LEAST_OTHERS:
        return None
    kept = np.delete(q, place)
    apart = float(np.abs(kept / kept.sum() - others / others.sum()).sum()) / 2
    noise = math.sqrt(len(others) / rest) + math.sqrt(len(others) / old.present)  # about twice what chance alone gives
    if apart > 0.02 + noise / 2 or chance_of_more(old.counts[place], old.present, new.counts[place], new.present) > alpha:
        return None
    said = f"holds {value(old, place)} in {q[place]:.0%} of {new.present:,} rows, of the reference in {p[place]:.0%}; all others are in proportion"
    said += ", as if a default took their place"
    return _Told("default", said, {"share": float(q[place]), "was": float(p[place]), "gained": gained, "rows": float(new.rows)})


def _unseen(old: FeatureProfile, new: FeatureProfile, worth: Quality, alpha: float) -> _Told | None:
    if old.kind != "category" or not old.is_complete or not new.present:
        return None
    share = new.outside / new.present
    if share < worth.unseen or chance_of_more(old.outside, old.present, new.outside, new.present) > alpha:
        return None
    said = f"has categories that the reference does not know in {share:.1%} of {new.present:,} rows"
    return _Told("unseen", said, {"share": share, "rows": float(new.rows)})


def _outside(old: FeatureProfile, new: FeatureProfile, worth: Quality, alpha: float) -> _Told | None:
    if old.kind != "number" or not new.present or not old.present:
        return None
    share = new.outside / new.present
    if share < worth.outside:
        return None
    # The range is that of the reference's own extremes, on two sides: as many ways as there are splits.
    if chance_of_more(old.outside, old.present, new.outside, new.present) * (new.outside + 1) > alpha:
        return None
    said = f"lies outside {old.edges[0]:,.4g} to {old.edges[-1]:,.4g} in {share:.1%} of {new.present:,} rows"
    return _Told(
        "outside", said, {"share": share, "below": new.counts[0] / new.present, "above": new.counts[-1] / new.present, "rows": float(new.rows)}
    )


_CHECKS: tuple[_Check, ...] = (_gone, _unit, _swapped, _default, _missing, _unseen, _outside)
_CHECKS_OF_OUTPUTS: tuple[_Check, ...] = (_gone, _missing)


def _constant(series: Series, place: int, first: int, new: FeatureProfile) -> _Told | None:
    """Every row from minute `first` on has one value, of a feature that differed within each of the minutes before: a column that goes by the
    calendar does not.
    """
    if new.role == "output" or new.present < LEAST_ROWS or only_value(new) is None or int(series.requests[first:].sum()) < LEAST_REQUESTS:
        return None
    if len(series) - first < CONSTANT_MINUTES:
        return None
    before = [at for at in range(first) if series.requests[at] >= LEAST_REQUESTS]
    looks = [only_value(series.since(at, at + 1).features[place]) for at in before[-4 * VARIED_MINUTES :]]
    looks = looks[: len(looks) - next((count for count, look in enumerate(reversed(looks)) if look is None), len(looks))]
    if len(looks) < VARIED_MINUTES or any(look is not None for look in looks):
        return None
    return _Told("constant", f"has one value in all of {new.present:,} rows", {"rows": float(new.rows)})


def _is_separate(feature: FeatureProfile) -> bool:
    """Whether each bin of a number is one value."""
    edges = feature.edges
    return len(edges) < 2 or (edges[-1] <= math.nextafter(edges[-2], math.inf) and all(float(edge).is_integer() for edge in edges[:-1]))


def _choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
