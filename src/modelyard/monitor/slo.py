"""Whether a deployment spends what its service level lets it fail faster than it may: burn rates over a long and a short window at once.

Hides how three days of counts are kept in a few kilobytes. The windows and factors are those of Beyer and others 2018, "The Site Reliability
Workbook", chapter 5: a long window says that it matters, the short one that it still goes on. What a caller brought about is nobody's failure. It
must not learn what is usual: a service level is promised, not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from modelyard.events import bucket_place
from modelyard.monitor.base import MINUTE_S, Judged
from modelyard.monitor.evidence import CALLERS
from modelyard.types import Digest, Outcome, Verdict

if TYPE_CHECKING:
    from modelyard.events import Failures
    from modelyard.monitor.base import Evidence, Minute

HOUR_S = 3600
LEAST_BAD = 10
"""Fewer bad events wake nobody: of few requests one failure burns fast."""
FALSE_PAGES = 0.022
"""A month, at most, of both promises, where exactly as much fails as either allows: by the chance of `LEAST_BAD` at six times that rate in six hours,
each time that one fails (`tests/unit/monitor/test_slo.py`). No budget makes it more or less."""
FORMAT = 1
_FINE_S = 6 * HOUR_S
_COARSE_S = 600
_ALL_S = 72 * HOUR_S


class Burn(NamedTuple):
    """A speed at which the allowance may not be spent, over `long_s` and `short_s`; one that `pages` is worth waking somebody."""

    factor: float
    long_s: int
    short_s: int
    pages: bool


BURNS: Final = (
    Burn(14.4, HOUR_S, 300, pages=True),
    Burn(6.0, 6 * HOUR_S, 1800, pages=True),
    Burn(1.0, _ALL_S, 6 * HOUR_S, pages=False),
)
"""The fastest first."""


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """Requests of a span of time: all that count, those that failed; of the answered ones, all and those too slow."""

    asked: int = 0
    failed: int = 0
    answered: int = 0
    slow: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Both."""
        return Tally(self.asked + other.asked, self.failed + other.failed, self.answered + other.answered, self.slow + other.slow)


class _State(msgspec.Struct, kw_only=True):
    """What is kept: tallies by minute of the last six hours, by ten minutes of the last three days. `slow` was counted by the bound `within_s`;
    `digest` is the release that is judged, and what it served before `past` has no part in it."""

    form: int = FORMAT
    digest: Digest = Digest("")
    past: int = 0
    until: int = 0
    within_s: float | None = None
    fine: dict[int, Tally] = {}
    coarse: dict[int, Tally] = {}


class Slo:
    """The detector. `answered` of all requests must be answered; with `latency_s`, `latency_share` of the answered within that time."""

    rule = "slo"
    pages = True
    needs = FALSE_PAGES

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """See `monitor.base.Detector`. Its chance of a page with nothing wrong is small beside any budget: ten failures at many times the rate."""
        wanted = evidence.settings.slo
        kept, notes = _open(state), []
        if wanted.latency_s != kept.within_s:
            kept.within_s = wanted.latency_s
            kept.fine, kept.coarse = ({at: Tally(each.asked, each.failed) for at, each in all_.items()} for all_ in (kept.fine, kept.coarse))
        if kept.digest != evidence.reference.digest:
            kept.digest, kept.past = evidence.reference.digest, past(kept.until, evidence)
        fresh = [minute for minute in evidence.fresh if minute.start >= kept.past]
        if fresh:
            kept.past = 0
            if fresh[0].start < kept.until:
                notes.append(_turn_back(kept, fresh[0].start))
        for minute in fresh:
            _take(kept, minute)
        if not evidence.fresh:  # while minutes still come, they say what time it is: a turn may have more to catch up with
            kept.until = max(kept.until, int(evidence.now // MINUTE_S - 2) * MINUTE_S)
        _forget(kept)
        asked = {each: _answered(kept, each) for each in BURNS}
        verdicts = [_verdict("slo:answered", "got no answer", wanted.answered, asked, until=kept.until, notes=notes)]
        if wanted.latency_s is not None:
            what = f"took longer than {wanted.latency_s * 1e3:,.4g} ms"
            answered = {each: _in_time(kept, each) for each in BURNS}
            verdicts.append(_verdict("slo:latency", what, wanted.latency_share, answered, until=kept.until, notes=notes))
        return Judged(tuple(verdicts), msgspec.msgpack.encode(kept))


def failed(failures: Mapping[str, Failures]) -> int:
    """How many of these are laid at the door of the server or its model."""
    return sum(each.requests for code, each in failures.items() if code not in CALLERS)


def past(until: int, evidence: Evidence) -> int:
    """Before when nothing of a new release counts: until then the one before it was judged, and what the new one served beside it is no part of that.

    Nothing is past where it is the clock that stands elsewhere.
    """
    return until if until <= evidence.now + evidence.settings.window_s + HOUR_S else 0


def slower(latencies: Mapping[int, int], bound_s: float) -> int:
    """How many of these latencies lie beyond a bound, to the width of a bucket (2.2 %)."""
    place = bucket_place(bound_s)
    return sum(count for bucket, count in latencies.items() if bucket >= place)


def _open(state: bytes) -> _State:
    try:
        found = msgspec.msgpack.decode(state, type=_State)
    except (msgspec.MsgspecError, RecursionError):
        return _State()
    return found if found.form == FORMAT else _State()


def _turn_back(kept: _State, start: int) -> str:
    """The clock was put back: what was counted of times that are to come is dropped."""
    minutes = (kept.until - start) // MINUTE_S
    kept.fine = {at: tally for at, tally in kept.fine.items() if at < start}
    kept.coarse = {at: tally for at, tally in kept.coarse.items() if at + _COARSE_S <= start}
    kept.until = start
    return f"; the clock went back by {minutes:,} minutes"


def _take(kept: _State, minute: Minute) -> None:
    bad = failed(minute.failures)
    slow = 0 if kept.within_s is None else slower(minute.latencies, kept.within_s)
    tally = Tally(minute.requests + bad, bad, 0 if kept.within_s is None else sum(minute.latencies.values()), slow)
    coarse = minute.start // _COARSE_S * _COARSE_S
    kept.fine[minute.start] = kept.fine.get(minute.start, Tally()) + tally
    kept.coarse[coarse] = kept.coarse.get(coarse, Tally()) + tally
    kept.until = max(kept.until, minute.start + MINUTE_S)


def _forget(kept: _State) -> None:
    kept.fine = {at: tally for at, tally in kept.fine.items() if at >= kept.until - _FINE_S}
    kept.coarse = {at: tally for at, tally in kept.coarse.items() if at >= kept.until - _ALL_S}


def _within(kept: _State, span_s: int) -> Tally:
    held, since = (kept.fine, kept.until - span_s) if span_s <= _FINE_S else (kept.coarse, kept.until - span_s)
    within = [tally for at, tally in held.items() if at >= since]
    return Tally(
        sum([each.asked for each in within]),
        sum([each.failed for each in within]),
        sum([each.answered for each in within]),
        sum([each.slow for each in within]),
    )


Counts = tuple[tuple[int, int], tuple[int, int]]
"""All and bad ones of the long window, and of the short one."""


def _answered(kept: _State, burn: Burn) -> Counts:
    long, short = _within(kept, burn.long_s), _within(kept, burn.short_s)
    return (long.asked, long.failed), (short.asked, short.failed)


def _in_time(kept: _State, burn: Burn) -> Counts:
    long, short = _within(kept, burn.long_s), _within(kept, burn.short_s)
    return (long.answered, long.slow), (short.answered, short.slow)


def _verdict(rule: str, what: str, share: float, counts: Mapping[Burn, Counts], *, until: int, notes: list[str]) -> Verdict:
    """The fastest burn rate that is broken, one that pages before one that reports; where none is, the one that is nearest to it."""
    allowed = 1 - share
    rates = {each: tuple(bad / asked / allowed if asked else 0.0 for asked, bad in both) for each, both in counts.items()}
    broken = [each for each in BURNS if min(rates[each]) >= each.factor and counts[each][0][1] >= LEAST_BAD]
    worst = broken[0] if broken else max(BURNS, key=lambda each: min(rates[each]) / each.factor)
    (asked, bad), _ = counts[worst]
    long, short = rates[worst]
    (spent_of, spent), _ = counts[BURNS[-1]]
    numbers = {
        "value": min(long, short),
        "threshold": worst.factor,
        "burn_rate": long,
        "burn_rate_now": short,
        "objective": share,
        "bad": float(bad),
        "requests": float(asked),
        "spent": spent / spent_of / allowed if spent_of else 0.0,
    }
    window = (float(until - worst.long_s), float(until))
    if not counts[BURNS[0]][0][0] and not broken:
        told = f"there were no requests in the last hour{''.join(notes)}"
        return Verdict(outcome="unknown", rule=rule, evidence=told, numbers=numbers | {"value": 0.0}, window=window)
    outcome: Outcome = "pass" if not broken else "fail" if worst.pages else "warn"
    few = "" if broken or min(rates[worst]) < worst.factor else f"; fewer than {LEAST_BAD} wake nobody"
    told = (
        f"{bad:,} of {asked:,} requests {what} in the last {_duration(worst.long_s)}: {long:.3g} times what {share * 100:g} % allows, "
        f"{short:.3g} times in the last {_duration(worst.short_s)} (allowed {worst.factor:g}){few}{''.join(notes)}"
    )
    return Verdict(outcome=outcome, rule=rule, evidence=told, numbers=numbers, window=window)


def _duration(seconds: int) -> str:
    unit, size = next(each for each in (("days", 86_400), ("hours", HOUR_S), ("minutes", 60)) if seconds >= each[1])
    return unit[:-1] if seconds == size else f"{seconds / size:g} {unit}"
