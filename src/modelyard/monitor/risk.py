"""Whether the mean of a stream of scores between 0 and 1 has risen or fallen: asked after every row, for ever, with a bound on how often in vain.

An e-detector of Shiryaev and Roberts. For each odds ratio that is bet on, the likelihood ratios since every row at which a change may have begun are
added up; their mean over all bets crosses `rows_between` no sooner than after that many rows, on average, while nothing has changed. The null is a
bound that is given, or else what all rows so far predict of the next: the Bayesian predictive, which carries the error of the baseline with it, so
that a young baseline raises no alarm by being wrong. Hides the bets and the sums. Pure: state in, state out. It must not know what a score means.

Sources: Pollak, "Optimal detection of a change in distribution" (Annals of Statistics 1985); Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric
framework for sequential change detection" (NEJSDS 2024); Podkopaev and Ramdas, "Tracking the risk of a deployed model and detecting harmful
distribution shifts" (ICLR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np

if TYPE_CHECKING:
    from modelyard.monitor.base import Labelled
    from modelyard.types import Array

RISES = (math.sqrt(2), 2.0, 4.0, 16.0)
STAKES = (0.2, 0.5, 0.2, 0.1)
"""The odds ratios of a rise that are bet on, each the square of the one before, and how much on each: half on errors that nearly double, which are
worth waking somebody for. Halfway to the first lies what is too small to be looked for; the last is for what hardly ever happens."""
FALLS = tuple(1 / odds for odds in RISES)
"""A fall is bet on as a rise is."""
FALL_ROWS = 4.0
"""A fall only reports, and may take longer to be sure of: so many times the rows lie between two in vain."""
END_ROWS = 0.1
"""A rise that lasts is taken to be over in vain no sooner than after this share of the rows between two that are none."""
CHUNK = 256
"""Rows that are taken together; which they are depends on how many came before, not on how they were handed over."""
ROWS_BETWEEN = 1_000_000.0
LEARN_ROWS = 300
MEMORY_ROWS = 20_000
_BEYOND = 2.0
"""How far above its threshold evidence may pile up, in natural logarithms: a mean that returns is seen to within reasonable time."""
_MONTH_S = 30 * 86_400.0
_SPAN_S = 3_600.0
_LEAST_ROWS_BETWEEN = 1_000.0

_ODDS = np.array(RISES + FALLS)
_GAINS = _ODDS - 1.0
_STEADY = 1
"""The largest bet by which a rise is told to go on: larger ones are lost by a few good rows."""
_UP, _DOWN = slice(0, len(RISES)), slice(len(RISES), len(_ODDS))
_WEIGHTS = np.log([*STAKES, *STAKES])
_NONE = -math.inf


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: on average `rows_between` rows lie between two false alarms of a rise.

    With a `bound` only a mean above it is an alarm. Without one the baseline is learnt from the first `learn_rows` rows and followed for as long as
    nothing is wrong, over about the last `memory_rows`. Of rows that go `together`, as those of one day do, so many say as much as one: likelihood
    ratios are tempered by it, and a baseline needs as many times the rows before the first bet. Within a `margin` of its odds the mean may move
    without being an alarm.
    """

    rows_between: float = ROWS_BETWEEN
    bound: float | None = None
    learn_rows: int = LEARN_ROWS
    memory_rows: int = MEMORY_ROWS
    together: float = 1.0
    margin: float = 1.0


class Bet(msgspec.Struct, frozen=True, array_like=True):
    """What has become of one bet, in natural logarithms: the sum over all beginnings, and the best single beginning.

    `since` is the time of that beginning's first row, `rows` and `total` what came from there on.
    """

    sum: float = _NONE
    best: float = _NONE
    since: float = 0.0
    rows: int = 0
    total: float = 0.0


class Risk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state. `weight` and `total` are the baseline's rows and what they sum to; `rows` have been taken in all.

    While `is_raised` the baseline stands still; `since` is when the rise began, `level` the mean from there to the alarm, and `bet` the one by which
    the rise goes on; `over` is the evidence, in natural logarithms, that it no longer does. `peak` is the most evidence of it since the
    alarm.
    """

    rows: int = 0
    weight: float = 0.0
    total: float = 0.0
    bets: tuple[Bet, ...] = ()
    is_raised: bool = False
    since: float = 0.0
    level: float = 0.0
    bet: int = 0
    peak: float = 0.0
    over: float = _NONE

    @property
    def baseline(self) -> float:
        """What the next row is expected to be."""
        return (self.total + 0.5) / (self.weight + 1.0)

    @property
    def rise(self) -> float:
        """Evidence of a rise, in natural logarithms; an alarm at the logarithm of `rows_between`."""
        return float(np.logaddexp.reduce([bet.sum for bet in self.bets[_UP]] + _WEIGHTS[_UP])) if self.bets else _NONE


class Alarm(NamedTuple):
    """What happened at row `place` of those that were handed over: the mean rose, fell, or came back from a rise. Since when, from what to what."""

    kind: Literal["rose", "fell", "returned"]
    place: int
    since: float
    before: float
    after: float


def feed(risk: Risk, scores: Array, times: Array, *, terms: Terms) -> tuple[Risk, list[Alarm]]:
    """The state after these rows, and what happened at which of them. Scores that are no number between 0 and 1 are not for here.

    `feed(a + b)` is `feed(a)`, then `feed(b)`.
    """
    alarms: list[Alarm] = []
    place = 0
    while place < len(scores):
        last = place + min(CHUNK - risk.rows % CHUNK, len(scores) - place)
        if terms.bound is None and not risk.bets and risk.weight < terms.learn_rows * terms.together:
            last = min(last, place + math.ceil(terms.learn_rows * terms.together - risk.weight))
            risk = _learnt(risk, scores[place:last], terms)
        else:
            risk, taken, alarm = _bet(risk, scores[place:last], times[place:last], terms)
            last = place + taken
            if alarm is not None:
                alarms.append(alarm._replace(place=last - 1))
        place = last
    return risk, alarms


def gained(scores: Array, *, terms: Terms) -> tuple[float, ...]:
    """By what these rows, in whatever order, multiply each bet on a rise beyond the bound; natural logarithms."""
    base = 0.0 if terms.bound is None else terms.bound
    steps = np.log1p(scores[:, None] * _GAINS[_UP]) - np.log1p(base * _GAINS[_UP])
    found: tuple[float, ...] = tuple((steps.sum(axis=0) / terms.together).tolist())
    return found


def with_whole(risk: Risk, whole: Sequence[float], *, since: float, rows: int, total: float) -> Risk:
    """With rows that were taken as one, by what they `gained`: each bet is what it was, or what it is by these rows alone where that is more.

    For rows of which the mean, and not that of each, is at most the bound: by concavity a bet gains nothing by these either, on average.
    """
    bets = list(risk.bets or (Bet(),) * len(_ODDS))
    for place, each in enumerate(whole):
        if each > bets[place].sum:
            bets[place] = Bet(sum=each, best=each, since=since, rows=rows, total=total)
    return msgspec.structs.replace(risk, bets=tuple(bets))


def rows_between(labelled: Labelled, false_alarms: float) -> float:
    """How many labelled rows a month of them has for each of the `false_alarms` that it may bring; by default where nobody may be woken at all."""
    if false_alarms <= 0:
        return ROWS_BETWEEN
    span_s = max(_SPAN_S, float(labelled.times[-1] - labelled.times[0])) if len(labelled.times) else _SPAN_S
    return max(_LEAST_ROWS_BETWEEN, len(labelled.times) * _MONTH_S / span_s / false_alarms)


class Cursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which labelled predictions have been taken already: those numbered up to `number` and answered up to `until`."""

    number: int = 0
    until: float = _NONE

    def fresh(self, labelled: Labelled, *, now: float, settle_s: float = 0.0) -> tuple[Array, Cursor]:
        """Which rows are to be taken now (a mask), in the order of their predictions, and the cursor after that.

        Each once, whenever its label comes; none that was answered within the last `settle_s`.
        """
        until = max(self.until, now - settle_s)  # a clock that goes back, or longer settling, makes nothing unripe that was ripe
        ripe: Array = labelled.times <= until
        if labelled.numbers is None:
            return ripe & (labelled.times > self.until), Cursor(until=until)
        taken = (labelled.numbers <= self.number) & (labelled.times <= self.until)
        return ripe & ~taken, Cursor(number=max(self.number, int(labelled.numbers.max(initial=0))), until=until)


def _learnt(risk: Risk, scores: Array, terms: Terms) -> Risk:
    weight, total = risk.weight + len(scores), risk.total + float(scores.sum())
    most = terms.memory_rows * terms.together
    if weight > most and (risk.rows + len(scores)) % CHUNK == 0:
        weight, total = most, total * most / weight
    return msgspec.structs.replace(risk, rows=risk.rows + len(scores), weight=weight, total=total)


def _bet(risk: Risk, scores: Array, times: Array, terms: Terms) -> tuple[Risk, int, Alarm | None]:
    """The state after these rows, or after the first of them at which something happens; how many were taken."""
    bets = risk.bets or (Bet(),) * len(_ODDS)
    if terms.bound is not None:
        base = np.full(len(scores), terms.bound)
    elif risk.is_raised:
        base = np.full(len(scores), risk.baseline)
    else:
        before = np.cumsum(scores) - scores
        base = (risk.total + before + 0.5) / (risk.weight + np.arange(len(scores)) + 1.0)
    margin = 1.0 if risk.is_raised and terms.bound is not None else terms.margin  # what was found to lie beyond a bound is held against it
    steps = np.log1p(scores[:, None] * _GAINS) - np.log1p(_beyond(base, margin) * _GAINS)
    if terms.together != 1:
        steps /= terms.together
    paths = np.cumsum(steps, axis=0)
    begins = steps - paths  # minus each bet's path up to before the row
    sums = paths + np.logaddexp(np.logaddexp.accumulate(begins, axis=0), np.array([bet.sum for bet in bets]))
    overs = _over(risk, steps)
    place, kind = _first(sums, overs, risk, terms)
    taken = place + 1
    after = _carried(bets, (sums[place], paths[place]), begins[:taken], scores[:taken], times[:taken])
    if not risk.is_raised and terms.bound is None:
        risk = _learnt(risk, scores[:taken], terms)
    else:
        risk = msgspec.structs.replace(risk, rows=risk.rows + taken)
    if risk.rows % CHUNK == 0:
        most = math.log(terms.rows_between) + _BEYOND
        caps = [most] * len(RISES) + [most + math.log(FALL_ROWS)] * len(FALLS)
        after = [msgspec.structs.replace(bet, sum=min(bet.sum, cap)) for bet, cap in zip(after, caps, strict=True)]
    risk = msgspec.structs.replace(risk, bets=tuple(after), over=float(overs[place]))
    if risk.is_raised or kind == "rose":
        risk = msgspec.structs.replace(risk, peak=max(risk.peak, float(_rise(sums[:taken]).max())))
    if risk.is_raised:  # the more has come, the better is known when it began
        likeliest = max(risk.bets[_UP], key=lambda bet: bet.best)
        risk = msgspec.structs.replace(risk, since=likeliest.since, level=likeliest.total / likeliest.rows)
    return (risk, taken, None) if kind is None else _happened(risk, kind, taken, terms)


def _rise(sums: Array) -> Array:
    """The evidence of a rise at each row."""
    found: Array = np.logaddexp.reduce(sums[:, _UP] + _WEIGHTS[_UP], axis=1)
    return found


def _beyond(base: Array, margin: float) -> Array:
    """What each bet is against [row, bet]: the base, or by the margin above it (of a rise) or below it (of a fall)."""
    if margin == 1:
        return base[:, None]
    odds = np.where(_GAINS > 0, margin, 1 / margin)
    found: Array = base[:, None] * odds / (1 + base[:, None] * (odds - 1))
    return found


def _over(risk: Risk, steps: Array) -> Array:
    """Evidence after each row that the rise is over, summed over every row since which it may be; none where there is no rise."""
    if not risk.is_raised:
        return np.full(len(steps), _NONE)
    back = np.cumsum(-steps[:, risk.bet])
    found: Array = back + np.logaddexp(np.logaddexp.accumulate(-steps[:, risk.bet] - back), risk.over)
    return found


def _first(sums: Array, overs: Array, risk: Risk, terms: Terms) -> tuple[int, Literal["rose", "fell", "returned"] | None]:
    """At which row something happens, and what; the last row, where nothing does."""
    threshold = math.log(terms.rows_between)
    if risk.is_raised:
        found = np.flatnonzero(overs >= threshold + math.log(END_ROWS))
        return (int(found[0]), "returned") if len(found) else (len(sums) - 1, None)
    rise = _rise(sums)
    rose = np.flatnonzero(rise >= threshold)
    first, kind = (int(rose[0]), "rose") if len(rose) else (len(sums), None)
    if terms.bound is None:
        fall = np.logaddexp.reduce(sums[:, _DOWN] + _WEIGHTS[_DOWN], axis=1)
        fell = np.flatnonzero(fall >= threshold + math.log(FALL_ROWS))
        if len(fell) and fell[0] < first:
            return int(fell[0]), "fell"
    return (first, "rose") if kind else (len(sums) - 1, None)


def _carried(bets: tuple[Bet, ...], last: tuple[Array, Array], begins: Array, scores: Array, times: Array) -> list[Bet]:
    """The bets after these rows, by where sums and paths are at the `last`. The best beginning of each is that before which its path was lowest."""
    sums, ends = last
    best = begins.argmax(axis=0)
    found = []
    for number, bet in enumerate(bets):
        place = int(best[number])
        new, end = float(begins[place, number]), float(ends[number])
        if bet.best >= new:
            rows, total, since = bet.rows + len(scores), bet.total + float(scores.sum()), bet.since
        else:
            rows, total, since = len(scores) - place, float(scores[place:].sum()), float(times[place])
        found.append(Bet(sum=float(sums[number]), best=end + max(bet.best, new), since=since, rows=rows, total=total))
    return found


def _happened(risk: Risk, kind: Literal["rose", "fell", "returned"], taken: int, terms: Terms) -> tuple[Risk, int, Alarm]:
    if kind == "returned":
        alarm = Alarm(kind, 0, risk.since, risk.level, risk.baseline if terms.bound is None else terms.bound)
        bets = (Bet(),) * len(_ODDS)  # all from the start; what was learnt holds
        return msgspec.structs.replace(risk, is_raised=False, bets=bets, peak=0.0, over=_NONE), taken, alarm
    side = range(len(_ODDS))[_DOWN if kind == "fell" else _UP]
    best = max(side, key=lambda number: risk.bets[number].best)  # the likeliest beginning and size together
    bet = risk.bets[best]
    level = bet.total / max(1, bet.rows)
    if terms.bound is None and bet.rows < risk.weight:  # the rows since the change are no part of what was before it
        risk = msgspec.structs.replace(risk, weight=risk.weight - bet.rows, total=max(0.0, risk.total - bet.total))
    alarm = Alarm(kind, 0, bet.since, risk.baseline if terms.bound is None else terms.bound, level)
    if kind == "fell":  # a new level, which is learnt from rows that had no part in its being found
        return Risk(rows=risk.rows), taken, alarm
    return msgspec.structs.replace(risk, is_raised=True, since=bet.since, level=level, bet=min(best, _STEADY)), taken, alarm
