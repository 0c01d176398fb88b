"""Has something moved, and when? Evidence that may be looked at for ever, at a known price in false alarms: e-detectors on binned counts.

Hides the bets. Pure; numpy only; all streams (features, outputs) of a deployment at once, a block (a minute) at a time. It must not know what a
stream means, what it costs to be wrong, or what a cycle is: margins are handed to it.

**Null hypothesis.** Of a row of a block, given all that came before the block, the mean of each score (`monitor.directions`) is at most its margin.
The margin of a score is the smallest shift worth a page, the reference's own sampling error (it is a sample too: tests that take it for the truth
all fire in the end), and what cycles account for. Rows need not be alike, nor independent of earlier blocks.

**E-process.** Against a score g with margin m a bet λ >= 0 with 1 + λ (g - m) > 0 in every cell multiplies, row by row, to a process that falls on
average under the null (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024). Counts suffice for it.

**E-detector.** One such process begins with every block, and they are summed: R = (R + 1) · e (Shiryaev 1963; Roberts 1966; for composite nulls
Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", New England Journal of Statistics in Data
Science 2024). Several bets are mixed with fixed stakes, the average again one. One more bet is on whatever lately differs most, learnt from blocks
before (predictable, so allowed): it finds changes of shape and among categories that no fixed score names.

**Law.** R after t blocks, less t, falls on average under the null, also where R is lowered at will. So if R is set to nothing at each alarm, when it
reaches A, then R + A · (alarms) - t falls too, and the expected number of alarms in t blocks is t / A at most, for every t: A is at most the mean
number of blocks between alarms. Held by `tests/property/test_edetector_laws.py` beside two controls that break it: no margin
for the reference's error, and a null that is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor.directions import DOWN, MISSING, NAMES, NARROWER, OUTSIDE, UP, WIDER

if TYPE_CHECKING:
    from modelyard.monitor.directions import Directions
    from modelyard.types import Array

BETS = 4
PROCESSES = len(NAMES) * BETS + 1
"""Of each stream: the bets on each direction, in their order, and the bet on what lately differs."""
_ERRORS = 3.0
"""How many standard errors of the reference a margin allows for: one reference in 740 misleads by more, in a given direction."""
_EXCESSES = np.array([0.05, 0.11, 0.25, 0.6])
"""Shifts beyond the margin that are bet on, in deviations."""
_EXPONENTS = np.array([0.1, 0.25, 0.5, 0.85])
"""Shares that are bet on where a rare thing becomes frequent: this far from the share that the margin allows to one, by the logarithm."""
_STAKES = np.array([0.3, 0.4, 0.2, 0.1])
_BY_DIRECTION = {UP: 0.22, DOWN: 0.22, WIDER: 0.08, NARROWER: 0.08, MISSING: 0.1, OUTSIDE: 0.1}
_LATELY = 0.2
_BY_ROWS = np.isin(np.arange(PROCESSES) // BETS, (MISSING, OUTSIDE))
_CLOSEST = 0.95
"""No bet risks more than this share of what is at stake."""
MEMORY_ROWS = 2000.0
"""Rows after which the latest are forgotten (by 1/e) where the bet on what lately differs is learnt."""
_PRIOR_ROWS = 50.0
_LOWEST = -60.0


class Bets(NamedTuple):
    """What each cell of each stream multiplies each fixed bet by: `factors` [stream, bet, cell], as logarithms. `stakes` [stream, process] too;
    `active` says which bets count at all yet. `radius` is the margin, as a distance, of the bet on what lately differs."""

    factors: Array
    active: Array
    stakes: Array
    radius: Array


class Detected(NamedTuple):
    """What is carried from block to block: `sums` [stream, process], the logarithms of R, and `memory` [stream, cell], the latest rows,
    older ones fading."""

    sums: Array
    memory: Array


def begin(known: Directions) -> Detected:
    """Before the first block."""
    streams, cells = known.shares.shape
    return Detected(np.full((streams, PROCESSES), _LOWEST), np.zeros((streams, cells)))


def sampling_error(known: Directions) -> Array:
    """By how much the reference itself may be off [stream, direction], in its deviations (Bernstein's bound, which also holds for rare things)."""
    rows = np.maximum(known.rows, 1)[:, None]
    found: Array = _ERRORS / np.sqrt(rows) + _ERRORS**2 * known.scores.max(axis=2) / (3 * rows)
    return found


def stake(known: Directions) -> Array:
    """The logarithms of each process's share of a stream [stream, process]: alike in all features of one kind, 1 in sum."""
    whole = np.zeros((len(known.features), PROCESSES))
    for direction, share in _BY_DIRECTION.items():
        whole[:, direction * BETS : (direction + 1) * BETS] = known.has[:, direction, None] * share * _STAKES
    whole[:, -1] = _LATELY
    with np.errstate(divide="ignore"):
        found: Array = np.log(whole / whole.sum(axis=1, keepdims=True))
    return found


def bets(known: Directions, *, smallest: float, cycles: Array, active: Array) -> Bets:
    """The bets against: each score's mean is at most `smallest`, the reference's error and `cycles` [stream, direction and lately] together.

    `active` [stream, direction and lately] says which are made.
    """
    margins = smallest + sampling_error(known) + cycles[:, :-1]
    lowest = known.scores.min(axis=2)
    room = _CLOSEST / (margins - lowest)
    sizes = np.minimum(_EXCESSES, room[:, :, None])
    for direction in (MISSING, OUTSIDE):
        sizes[:, direction] = _shares_bet_on(known, direction, margins[:, direction], room[:, direction])
    sizes *= known.has[:, :, None]
    gains = sizes[:, :, :, None] * (known.scores - margins[:, :, None])[:, :, None, :]
    factors = np.log1p(gains).reshape(len(known.features), len(NAMES) * BETS, -1)
    is_on = np.repeat((active[:, :-1] & known.has), BETS, axis=1)
    count = np.maximum(known.cells - 1, 1)
    radius = smallest + (np.sqrt(count) + _ERRORS) / np.sqrt(np.maximum(known.rows, 1)) + cycles[:, -1]
    return Bets(factors, np.concatenate((is_on, active[:, -1:]), axis=1), stake(known), radius)


def _shares_bet_on(known: Directions, direction: int, margin: Array, room: Array) -> Array:
    """Bets [stream, bet] on one thing's share s: the likelihood ratio of s against the share that the margin allows is a bet of the same form."""
    hit = known.scores[:, direction].max(axis=1)  # (1 - p) / deviation; a miss is -p / deviation, so that their distance is 1 / deviation
    deviation = 1 / np.maximum(hit - known.scores[:, direction].min(axis=1), 1e-12)
    allowed = np.clip((margin - known.scores[:, direction].min(axis=1)) * deviation, 1e-12, 1.0)
    shares = allowed[:, None] ** (1 - _EXPONENTS)
    sizes = deviation[:, None] * (shares - allowed[:, None]) / np.maximum(allowed * (1 - allowed), 1e-12)[:, None]
    found: Array = np.where(allowed[:, None] < _CLOSEST, np.minimum(sizes, room[:, None]), 0.0)
    return found


def advance(state: Detected, known: Directions, made: Bets, counts: Array, ceiling: Array, *, fresh: Array | float = 1.0) -> Detected:
    """After one block of `counts` [stream, cell]. `ceiling` [stream] is the most that R may be, as a logarithm: what lies above is let go, so that an
    alarm ends soon after its cause. A stream without rows stays as it is.

    Bets are taken to the power of `fresh` [stream], at most 1 and known before the block, but those on what is missing or was never known: a bet that
    falls on average does so to any such power too (Jensen), so that the law holds whatever it is.
    """
    rows = counts.sum(axis=1)
    gained = np.matmul(made.factors, counts[:, :, None])[:, :, 0]
    lately, is_bet = _lately(state.memory, known, made.radius)
    begun = np.zeros_like(state.sums)  # the logarithm of the 1 that begins; a bet that is not made begins nothing, and what it had fades
    begun[:, -1] = np.where(is_bet, 0.0, _LOWEST)
    gained = np.concatenate((gained, np.where(is_bet, (lately * counts).sum(axis=1), -np.log(2.0))[:, None]), axis=1)
    gained = np.where(_BY_ROWS, gained, np.reshape(fresh, (-1, 1)) * gained)
    sums = np.where(made.active, np.logaddexp(state.sums, begun) + gained, _LOWEST)
    sums = np.clip(sums, _LOWEST, ceiling[:, None] - made.stakes)
    had_rows = rows > 0
    memory = state.memory * np.exp(-rows / MEMORY_ROWS)[:, None] + counts
    return Detected(np.where(had_rows[:, None], sums, state.sums), np.where(had_rows[:, None], memory, state.memory))


def _lately(memory: Array, known: Directions, radius: Array) -> tuple[Array, Array]:
    """The logarithms of what each cell multiplies the bet on what lately differs by [stream, cell], and whether there is anything to bet on."""
    rows = memory.sum(axis=1)
    shares = np.where(known.shares > 0, known.shares, 1.0)
    learnt = (memory + _PRIOR_ROWS * known.shares) / (rows + _PRIOR_ROWS)[:, None]
    scores = np.where(known.shares > 0, learnt / shares - 1, 0.0)
    squares = (known.shares * scores**2).sum(axis=1)
    beyond = np.sqrt(np.maximum(squares - (known.cells - 1) / (rows + _PRIOR_ROWS), 0.0))  # less what chance alone makes of so few rows
    margin = radius * np.sqrt(squares)
    is_bet = beyond > radius
    size = np.where(is_bet, np.minimum(1 - radius / np.maximum(beyond, 1e-12), _CLOSEST / (1 + margin)), 0.0)
    found: Array = np.log1p(size[:, None] * (scores - margin[:, None]))
    return found, is_bet


def evidence(state: Detected, made: Bets) -> Array:
    """The logarithm of each stream's R, all bets together."""
    terms = state.sums + made.stakes
    most = terms.max(axis=1)
    found: Array = most + np.log(np.exp(terms - most[:, None]).sum(axis=1))
    return found
