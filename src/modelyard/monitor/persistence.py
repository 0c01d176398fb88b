"""How much of what rows say other rows have said: a day's rows of `holiday` are one draw, not as many as the day has rows.

Hides how that is measured, in two ways. Of rows that are drawn alike and independently, one lies in another cell than the one before with a chance
that the shares of the cells give; where rows come in runs (an hour's weather, a holiday) that happens more seldom, and by how much more seldom is
about the share of the rows that are new draws. Rows of one minute have no order that is known: they count as in any order. And two rows of a minute
lie in the same cell no more often than one of it and one of the next; where they do, they came in batches of callers, and count as many times less as
the variance of a minute's shares is larger by it (the design effect of Kish, "Survey Sampling", 1965). Pure. It must not judge: a bet that counts
rows less is a bet all the same (`monitor.edetector`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from modelyard.types import Array

MEMORY_S = 14 * 86_400.0
"""After how long what was seen is forgotten (by 1/e)."""
_ERRORS = 2.0
"""By how many standard errors, about, rows that come one by one may seem to lie together."""


class Persistence(NamedTuple):
    """By stream: how often a row lay in another cell than the one before (`changes`), how often it would have by chance (`expected`), and where the
    rows of the latest minute lay, as shares [stream, cell]. `together` is how much more often two rows of a minute lay in one cell than rows of two
    minutes, times the other rows of each, `apart` how often the latter did not; summed over minutes. `at` is the latest.
    """

    changes: Array
    expected: Array
    together: Array
    apart: Array
    latest: Array
    at: float


def begin(streams: int, cells: int) -> Persistence:
    """Before the first minute."""
    none = np.zeros(streams)
    return Persistence(none, none, none, none, np.zeros((streams, cells)), -math.inf)


def grown(persistence: Persistence, counts: Array, start: float, usual: Array) -> Persistence:
    """After a minute of `counts` [stream, cell] that begins at `start`; by chance rows lie as in `usual` [way, stream, cell], the way of these by
    which they would change most.
    """
    rows = counts.sum(axis=1)
    others = np.maximum(rows - 1.0, 0.0)
    shares = counts / np.maximum(rows, 1.0)[:, None]
    squares = np.einsum("sc,sc->s", shares, shares)
    has_latest = (rows > 0) & (persistence.latest.sum(axis=1) > 0)
    between = np.where(has_latest, 1.0 - np.einsum("sc,sc->s", persistence.latest, shares), 0.0)
    by_chance = (1.0 - np.einsum("wsc,wsc->ws", usual, usual)).max(axis=0)
    within = rows * (1.0 - squares)  # of `others` pairs of neighbours, in any order
    passed = max(0.0, start - persistence.at) if math.isfinite(persistence.at) else 0.0
    kept = math.exp(-passed / MEMORY_S)
    return Persistence(
        changes=kept * persistence.changes + within + between,
        expected=kept * persistence.expected + (others + has_latest) * by_chance,
        together=kept * persistence.together + has_latest * (others * between - within),
        apart=kept * persistence.apart + has_latest * (others > 0) * between,
        latest=np.where(rows[:, None] > 0, shares, persistence.latest),
        at=max(start, persistence.at),
    )


def fresh(persistence: Persistence) -> Array:
    """The share of rows that are new draws [stream], at most 1. Of what was never seen to change it falls as it goes on."""
    by_runs = (persistence.changes + 1.0) / (persistence.expected + 1.0)
    beyond_chance = np.maximum(persistence.together - _ERRORS * np.sqrt(persistence.apart), 0.0)
    by_batches = 1.0 / (1.0 + beyond_chance / (persistence.apart + 1.0))
    found: Array = np.minimum(1.0, np.minimum(by_runs, by_batches))
    return found
