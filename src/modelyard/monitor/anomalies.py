"""How unusual the newest point of one metric is, beside all that this metric has done before.

Hides what is usual: a level, with the cycle of the day or of the week where the series itself shows one (nobody says so), and how rarely departures
from it came in the past. Three are looked at, up and down apart: how far a point lies from its place, how far it has jumped from the points just
before, and how far the last few points lie from theirs together. Each size becomes the chance of one so large, by the tail of those seen before
(Siffer and others 2017, "Anomaly detection in streams with extreme value theory", with Hill's estimate of the tail), so that one threshold serves
every series. Online and pure: a state of a few kilobytes in, a score and a state out, nothing but the points decides. It must not know what the
metric means, nor whether more of it is good or bad.
"""

from __future__ import annotations

import math
from statistics import median
from struct import Struct
from typing import NamedTuple

import msgspec
import numpy as np

FORMAT = 1
DIGITS = 10.0
"""Chances down to 1e-10 are told apart: the score is the number of digits, of so many."""
THRESHOLD = 0.28
"""The score from which on a point is called an anomaly where nobody sets a budget."""
RARE = 1e-4
"""The chance from which on a departure is reported where nobody sets a budget."""
LEAST = 100
"""Points before the first score: of fewer nobody knows what is usual."""

LASTING = 5
"""So many points make a departure that lasts, by their median: an odd one or two of them do not."""

_HOUR_S = 3600.0
_LEVEL_HOURS = 24
_DAYS, _WEEKS = 10, 4
_GAIN = 0.8
"""A cycle is used while it errs at most so much of what the plain level does, in the mean of the last three days or so, and one at least."""
_ERRORS = 1 / 72
_TRIED = 24
_CLEARLY, _ANEW = 0.9, 0.25
"""A cycle takes the place of another that errs clearly more; what came before then counts so much."""
_CENTRED = 100
_BEFORE = 6
"""Points that a jump is held against, by their median."""
_TAIL, _TAILED = 0.02, 32
"""The tail are the rarest so many, and no more than such a share: the more is known, the further out it begins."""
_KEPT = 0.25
_PER_OCTAVE = 4
_GROWTH = 2.0 ** (1 / 8000)
"""A departure counts half after so many points."""
_SLOWLY = 0.1
"""What is rare is learnt so much more slowly: it may be an anomaly, which must not become usual while it lasts."""
_REFIT = 32
_SHAPE, _PRIOR = 0.25, 4.0
"""What the tail is taken to be before it is seen, and for how many points that counts."""
_MOST = 1e9
_FLOOR = 1e-3
"""Departures below this share of what is expected are all alike."""
_FADE = 0.5 ** (1 / 300)
"""How fast an anomaly stops making a smaller one no news: by half in so many points."""
_ONE = Struct("<f")
_FLOAT32 = 3e38
_MOST_SIZE = 1e300
_LEAST_CHANCE = 1e-300


class Point(NamedTuple):
    """What is said of one point. `score` in [0, 1]: how much news it is. `chance`: how often the last few (`LASTING`) lie so far away together.

    News is what is both away from its place and from the points just before, more than anything shortly before was: an anomaly that lasts goes on
    being rare, and is no news. `departure` is the value less what was `expected`, `lasting` the median of the last few departures, which `chance` is
    of. All three are NaN for a point that was not judged.
    """

    score: float
    chance: float
    departure: float
    expected: float
    lasting: float


class Tail(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How often departures of one kind and sign came, by size: counts in buckets of a quarter of an octave, older ones less, and their tail."""

    counts: dict[int, float] = {}
    total: float = 0.0
    weight: float = 1.0
    seen: int = 0
    edge: float = math.inf
    share: float = 1.0
    shape: float = _SHAPE

    def chance(self, size: float) -> float:
        """How often one at least so large comes; 1 where that is not rare."""
        return max(_LEAST_CHANCE, self.share * (size / self.edge) ** (-1 / self.shape)) if size > self.edge else 1.0

    def add(self, size: float, *, share: float = 1.0) -> None:
        """Take one more in, with a share of its weight; what is not above 0 is of the other sign."""
        self.seen += 1
        self.total += self.weight
        if size > 0:
            bucket = math.floor(math.log2(size) * _PER_OCTAVE)
            self.counts[bucket] = self.counts.get(bucket, 0.0) + self.weight * share
        self.weight *= _GROWTH
        if self.seen % _REFIT == 0:
            self._fit()

    def fade(self, share: float) -> None:
        """Let all that was taken in count so much less."""
        self.counts = {bucket: count * share for bucket, count in self.counts.items()}
        self.total *= share
        self._fit()

    def _fit(self) -> None:
        """The tail of what is seen now: the edge that few lie beyond, and how fast those get fewer."""
        if self.weight > _MOST:
            self.counts = {bucket: count / self.weight for bucket, count in self.counts.items() if count > self.weight * 1e-6}
            self.total, self.weight = self.total / self.weight, 1.0
        beyond, sizes, above = 0.0, 0.0, 0.0
        buckets = sorted(self.counts, reverse=True)
        for bucket in buckets:
            if above > _KEPT * self.total:
                del self.counts[bucket]  # so small that only their number matters, which is in the total
            else:
                above += self.counts[bucket]
        most = min(_TAIL * self.total, _TAILED * self.weight)
        taken: list[int] = []
        for bucket in buckets:
            if beyond + self.counts[bucket] > most:
                break
            beyond += self.counts[bucket]
            taken.append(bucket)
        if not buckets:
            return
        edge = taken[-1] if taken else buckets[0] + 1
        for bucket in taken:
            sizes += self.counts[bucket] * (bucket + 0.5 - edge) / _PER_OCTAVE * math.log(2)
        prior = _PRIOR * self.weight
        self.edge = 2.0 ** (edge / _PER_OCTAVE)
        self.share = max(beyond, self.weight) / self.total
        self.shape = (sizes + prior * _SHAPE) / (beyond + prior)


class Season(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A cycle of `hours`: the last `kept` medians of each and their median (float32, NaN where there is none), and how far it erred of late.

    `erred` is its mean error, `plain` that of the plain level at the same hours.
    """

    hours: int
    kept: int
    past: bytes = b""
    middle: bytes = b""
    erred: float = 0.0
    plain: float = 0.0
    tried: int = 0

    def at(self, place: float) -> float:
        """What the cycle has between the middles of two hours, at `place`: hours since 1970, less where in their hour the points lie.

        NaN before it has come round.
        """
        first = math.floor(place)
        before, after = self._middle(first), self._middle(first + 1)
        if math.isnan(before) or math.isnan(after):
            return before if math.isnan(after) else after
        return before + (after - before) * (place - first)

    def _middle(self, hour: int) -> float:
        return float(_ONE.unpack_from(self.middle, 4 * (hour % self.hours))[0]) if self.middle else math.nan

    def close(self, hour: int, value: float, plain: float) -> None:
        """The median of hour `hour` (since 1970) was `value`; the plain level said `plain`, NaN if nothing."""
        said = self._middle(hour)
        if not (math.isnan(said) or math.isnan(plain)):
            self.erred += (abs(value - said) - self.erred) * _ERRORS
            self.plain += (abs(value - plain) - self.plain) * _ERRORS
            self.tried += 1
        shape = (self.hours, self.kept)
        past = np.frombuffer(self.past, "<f4").reshape(shape).copy() if self.past else np.full(shape, np.nan, "<f4")
        middle = np.frombuffer(self.middle, "<f4").copy() if self.middle else np.full(self.hours, np.nan, "<f4")
        row = past[hour % self.hours]
        row[:-1], row[-1] = row[1:].copy(), np.clip(value, -_FLOAT32, _FLOAT32)
        middle[hour % self.hours] = np.median(row[~np.isnan(row)])
        self.past, self.middle = past.tobytes(), middle.tobytes()

    @property
    def gain(self) -> float:
        """Its errors beside those of the plain level; infinite before that can be told."""
        return self.erred / self.plain if self.tried >= _TRIED and self.plain > 0 else math.inf


class Course(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One metric's course so far. Whoever judges owns it, from `unpack` to `pack`; `unpack(pack(c))` scores on as `c` does.

    `cycle` is the one that is used (`day`, `week` or none), `centre` where in an hour its points lie on average, `held` the values of the hour that
    is not over, `levels` the medians of the last hours, `recent` the last departures, `tails` those of places, of jumps and of what lasts, up and
    down. `echo` is the largest news of late, fading.
    """

    form: int = FORMAT
    seen: int = 0
    last_s: float = -math.inf
    hour: int = 0
    centre: float = 0.5
    cycle: str = ""
    held: list[float] = []
    levels: list[float] = []
    day: Season = msgspec.field(default_factory=lambda: Season(hours=24, kept=_DAYS))
    week: Season = msgspec.field(default_factory=lambda: Season(hours=168, kept=_WEEKS))
    recent: list[float] = []
    tails: dict[str, Tail] = msgspec.field(
        default_factory=lambda: {key: Tail() for kind in ("place", "jump", "lasting") for key in (f"{kind}+", f"{kind}-")}
    )
    echo: float = 0.0

    def see(self, time_s: float, value: float, *, noise: float = 0.0) -> Point:
        """Judge one point, and learn it. `noise` is the least departure that means anything, such as the error of a figure of few requests.

        A point that is no number, or not later than the last one, is neither judged nor learnt: its score is 0, its chance 1.
        """
        if not (math.isfinite(value) and time_s > self.last_s):
            return Point(0.0, 1.0, math.nan, math.nan, math.nan)
        self.last_s = time_s
        hours = time_s / _HOUR_S
        self._turn(math.floor(hours))
        self.centre += (hours - self.hour - self.centre) / min(self.seen + 2, _CENTRED)
        expected = self._expected(hours - self.centre, value)
        self.held.append(value)
        departure = max(-_MOST_SIZE, min(value - expected, _MOST_SIZE))
        jump = departure - median(self.recent) if len(self.recent) == _BEFORE else 0.0
        self.recent.append(departure)
        del self.recent[:-_BEFORE]
        lasting = median(self.recent[-LASTING:])
        floor = max(noise, _FLOOR * abs(expected))
        chance, digits = 1.0, 0.0
        for sign, factor in (("+", 1.0), ("-", -1.0)):
            chance = min(chance, self._chance(f"lasting{sign}", factor * lasting, floor))
            of_place, of_jump = self._chance(f"place{sign}", factor * departure, floor), self._chance(f"jump{sign}", factor * jump, floor)
            digits = max(digits, -(math.log10(of_place) + math.log10(of_jump)) / 2)
        self.seen += 1
        self.echo *= _FADE
        score = min(1.0, digits / DIGITS) if digits > self.echo else 0.0
        self.echo = max(self.echo, digits)
        return Point(score, chance, departure, expected, lasting)

    def _chance(self, key: str, size: float, floor: float) -> float:
        """How often one so large comes, of those with a sign; learns it."""
        tail = self.tails[key]
        if 0 <= size < floor:
            size = floor
        chance = tail.chance(size) if tail.seen >= LEAST else 1.0
        tail.add(size, share=_SLOWLY if chance <= RARE else 1.0)
        return chance

    def _turn(self, hour: int) -> None:
        """Close the hour before, where a new one begins."""
        if hour != self.hour and self.held:
            value = median(self.held)
            plain = median(self.levels) if self.levels else math.nan
            self.day.close(self.hour, value, plain)
            self.week.close(self.hour, value, plain)
            self.levels.append(value)
            del self.levels[:-_LEVEL_HOURS]
            self.held = []
            self._choose()
        self.hour = hour

    def _choose(self) -> None:
        """Take the better cycle, or none; what was learnt of departures from another counts little from then on."""
        gains = {"": _GAIN, "day": self.day.gain, "week": self.week.gain}
        best = min(gains, key=lambda each: gains[each])
        if gains[best] < _CLEARLY * gains[self.cycle]:
            self.cycle = best
            for tail in self.tails.values():
                tail.fade(_ANEW)

    def _expected(self, place: float, value: float) -> float:
        """What the better cycle says, or else the level: the median of a day's hours; in the first hour, of what was seen of it."""
        season = {"day": self.day, "week": self.week}.get(self.cycle)
        said = math.nan if season is None else season.at(place)
        return median(self.levels or self.held or [value]) if math.isnan(said) else said

    def pack(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode(self)


def unpack(data: bytes) -> Course | None:
    """A course from its bytes; None where they are none of this format."""
    try:
        found = msgspec.msgpack.decode(data, type=Course)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return found if found.form == FORMAT else None
