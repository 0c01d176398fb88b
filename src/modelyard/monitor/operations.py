"""Whether a deployment runs as it has run: latency, errors, traffic, queue, processor and memory of its release, minute by minute.

Hides how each becomes a figure in which equal steps mean equal things, of how many requests at least, and how large a departure must be, and for
how long, to matter. What is unusual is `monitor.anomalies`' to say; a page needs that it is rare beyond the alarm budget, for the worse, large enough
to be felt, in the median of five figures. Whether memory keeps growing, hour by hour,
is `monitor.growth`'s. It must not know a promise (`monitor.slo`) nor a feature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from modelyard.events import Use, quantile_s
from modelyard.monitor import anomalies
from modelyard.monitor.anomalies import Course, Point
from modelyard.monitor.base import MINUTE_S, Judged
from modelyard.monitor.evidence import summed
from modelyard.monitor.growth import GAP, LASTING, Growth
from modelyard.monitor.slo import HOUR_S, failed, past
from modelyard.types import Digest, Outcome, Verdict

if TYPE_CHECKING:
    from modelyard.monitor.base import Evidence, Minute

FORMAT = 1
LEAST_REQUESTS = 100
"""A figure of requests is made of so many at least; where they come slowly, of more than one minute."""
FEW_REQUESTS, POOLED_S = 20, 1800
"""After so long of fewer, if there are not very few."""
LEARNT_S = 86_400.0
WEEK_LEARNT_S = 8 * 86_400.0
MONTH_POINTS = 30 * 1440
SILENT_MINUTES = 10
"""So many minutes without a request are figures each, then one of every hour: it says no more, and one request an hour should not cost sixty."""
IDLE_MINUTES = 1440
"""A longer gap was no silence of callers: the machine was off, or the clock was set."""


class Pool(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Minutes put together until there are enough requests for a figure."""

    start: int = 0
    end: int = 0
    requests: int = 0
    failed: int = 0
    latencies: dict[int, int] = {}
    use: Use = Use()

    @property
    def asked(self) -> int:
        """Answered, or failed by our fault."""
        return self.requests + self.failed


class Figure(NamedTuple):
    """A value on the scale that is judged, and the least departure that means anything beside the chance in so few requests."""

    value: float
    noise: float


class Metric(NamedTuple):
    """How one metric is judged. `worse` is the sign that is for the worse; `least` the departure that is felt, on its scale.

    `figure` makes it from a pool (None: not known there), `plain` leads back from the scale (to seconds, a share, a count, bytes), `tell` writes that
    for people; `learnt_s` is how much of its past must be known before it may wake anybody.
    """

    what: str
    worse: int
    least: float
    figure: Callable[[Pool], Figure | None]
    plain: Callable[[float], float]
    tell: Callable[[float], str]
    learnt_s: float = LEARNT_S


def _latency(share: float) -> Callable[[Pool], Figure | None]:
    def figure(pool: Pool) -> Figure | None:
        found = quantile_s(pool.latencies, share)
        beyond = max(1.0, (1 - share) * pool.requests)
        return None if math.isnan(found) else Figure(math.log2(found), 0.03 + 0.5 / math.sqrt(beyond))

    return figure


def _errors(pool: Pool) -> Figure | None:
    """On the scale of the square root, where chance is alike at every rate."""
    return Figure(math.sqrt(pool.failed / pool.asked), 0.5 / math.sqrt(pool.asked)) if pool.asked else None


def _queue(pool: Pool) -> Figure | None:
    return Figure(math.log2(1 + pool.use.queued / pool.use.looks), 0.1) if pool.use.looks else None


def _processor(pool: Pool) -> Figure | None:
    return Figure(math.log2(pool.use.cpu_us / pool.asked), 0.05) if pool.use.cpu_us and pool.asked else None


def _memory(pool: Pool) -> Figure | None:
    return Figure(math.log2(pool.use.resident_bytes / pool.use.looks), 0.02) if pool.use.resident_bytes else None


def _traffic(pool: Pool) -> Figure | None:
    return Figure(math.log2(1 + pool.asked), 0.05 + 1 / math.sqrt(1 + pool.asked))


def _power(value: float) -> float:
    return float(2.0**value)


def _less_one(value: float) -> float:
    return max(0.0, float(2.0**value) - 1)


def _seconds_of_us(value: float) -> float:
    return float(2.0**value) * 1e-6


def _squared(value: float) -> float:
    return value * value


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.3g} ms"


METRICS: Mapping[str, Metric] = {
    "latency_p50": Metric("the median latency", 1, math.log2(1.5), _latency(0.5), _power, _ms),
    "latency_p99": Metric("the 99th percentile of latency", 1, 1.0, _latency(0.99), _power, _ms),
    "error_rate": Metric("the share of failed requests", 1, 0.1, _errors, _squared, lambda share: f"{100 * share:.3g} %"),
    "throughput": Metric("traffic", -1, 2.0, _traffic, _less_one, lambda count: f"{count:,.0f} requests a minute", WEEK_LEARNT_S),
    "queue": Metric("the queue", 1, 2.0, _queue, _less_one, lambda count: f"{count:,.3g} requests waiting"),
    "cpu": Metric("processor time", 1, math.log2(1.5), _processor, _seconds_of_us, lambda seconds: f"{_ms(seconds)} a request"),
    "memory": Metric("memory", 1, math.log2(1.25), _memory, _power, lambda size: f"{size / 2**20:,.0f} MiB a worker"),
}
POOLED = ("latency_p50", "latency_p99", "error_rate", "cpu")
"""Those that are made of a pool of requests; the others are of each minute."""


GROWTH = "memory_growth"
GROWN_LEAST = math.log2(1.25)
"""So much more memory than before it began to grow is felt."""
MONTH_HOURS = 30 * 24


class Last(msgspec.Struct, frozen=True, kw_only=True):
    """The newest figure of a metric, and what was said of it. `is_worse`: the last few are so for the worse, far enough, and enough is known."""

    start: int
    end: int
    value: float
    point: Point
    is_worse: bool


class Track(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One metric's past, which began at `began`."""

    course: Course = msgspec.field(default_factory=Course)
    began: int = 0
    last: Last | None = None


class _State(msgspec.Struct, kw_only=True):
    form: int
    digest: Digest
    until: int = 0
    past: int = 0
    silent: int = 0
    pool: Pool = msgspec.field(default_factory=Pool)
    tracks: dict[str, Track] = {}
    growth: Growth = msgspec.field(default_factory=Growth)


class Operations:
    """The detector."""

    rule = "operations"
    pages = True

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        """See `monitor.base.Detector`. Minutes of other digests than the release's are left out.

        A new release is held against what the one before has taught: one that is slower is told of, and becomes usual within a day.
        """
        digest = evidence.reference.digest
        kept, notes = _open(state), []
        if kept is None:
            if state:
                notes.append("what was known is in another form: it is learnt anew")
            kept = _State(form=FORMAT, digest=digest)
        if kept.digest != digest:
            notes.append("a new release serves; what is usual was learnt of the one before")
            kept.digest, kept.pool, kept.past = digest, Pool(), past(kept.until, evidence)
            kept.growth.begin()
        share = evidence.false_pages / (len(METRICS) + 1)
        rarest = share / MONTH_POINTS
        fresh = [minute for minute in evidence.fresh if minute.start >= kept.past]
        kept.past = 0 if fresh else kept.past
        for minute in fresh:
            if minute.digest != digest or minute.span_s != MINUTE_S:  # what is long past is known by the hour alone
                continue
            if minute.start < kept.until:
                notes.append(f"the clock went back by {(kept.until - minute.start) // MINUTE_S:,} minutes")
                kept.until, kept.pool = minute.start, Pool()
                for track in kept.tracks.values():
                    track.course.last_s = min(track.course.last_s, float(minute.start - 1))
                kept.growth.begin()
            notes += _fill(kept, minute.start)
            _take(kept, minute)
        if not evidence.fresh and kept.until:  # nothing waits to be handed over, so what lies between was silence
            notes += _fill(kept, int(evidence.now // MINUTE_S - 2) * MINUTE_S)
        verdicts = [_verdict(name, metric, kept, rarest, notes) for name, metric in METRICS.items()]
        verdicts.append(growing(kept.growth, share / MONTH_HOURS, notes, until=kept.until))
        return Judged(tuple(verdicts), msgspec.msgpack.encode(kept))


def _open(state: bytes) -> _State | None:
    try:
        found = msgspec.msgpack.decode(state, type=_State)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return found if found.form == FORMAT else None


def _fill(kept: _State, until: int) -> list[str]:
    """Minutes without a request are figures of the traffic too. What is said of a gap that is too long for one."""
    if not kept.until or until <= kept.until:
        return []
    missing = (until - kept.until) // MINUTE_S
    if missing > IDLE_MINUTES:
        kept.until = until
        return [f"nothing is known of {missing:,} minutes: this machine was off, or its clock was set"]
    for start in range(kept.until, until, MINUTE_S):
        kept.silent += 1
        if kept.silent <= SILENT_MINUTES or start % HOUR_S == 0:
            _see(kept, "throughput", Pool(start=start, end=start + MINUTE_S))
    kept.until = until
    return []


def _take(kept: _State, minute: Minute) -> None:
    end = minute.start + MINUTE_S
    kept.silent = 0
    own = Pool(
        start=minute.start,
        end=end,
        requests=minute.requests,
        failed=failed(minute.failures),
        latencies=dict(minute.latencies),
        use=minute.use,
    )
    for name in METRICS:
        if name not in POOLED:
            _see(kept, name, own)
    if (memory := _memory(own)) is not None:
        kept.growth.see(float(minute.start), memory.value)
    pool = kept.pool
    if pool.asked and end - pool.start > 2 * POOLED_S:  # there was a gap: what lies before it is no part of now
        pool = Pool()
    pool = Pool(
        start=pool.start if pool.asked else minute.start,
        end=end,
        requests=pool.requests + own.requests,
        failed=pool.failed + own.failed,
        latencies=summed(pool.latencies, own.latencies),
        use=pool.use + own.use,
    )
    is_old = pool.end - pool.start >= POOLED_S
    if pool.asked >= LEAST_REQUESTS or (is_old and pool.asked >= FEW_REQUESTS):
        for name in POOLED:
            _see(kept, name, pool)
        pool = Pool()
    kept.pool = Pool() if is_old else pool
    kept.until = end


def _see(kept: _State, name: str, pool: Pool) -> None:
    metric = METRICS[name]
    found = metric.figure(pool)
    if found is None:
        return
    track = kept.tracks.get(name)
    if track is None:
        track = kept.tracks[name] = Track(began=pool.start)
    point = track.course.see(float(pool.start), found.value, noise=found.noise)
    if math.isnan(point.expected):
        return
    is_felt = point.lasting * metric.worse >= metric.least
    is_known = pool.end - track.began >= metric.learnt_s
    track.last = Last(start=pool.start, end=pool.end, value=found.value, point=point, is_worse=is_felt and is_known)


def _verdict(name: str, metric: Metric, kept: _State, rarest: float, notes: Sequence[str]) -> Verdict:
    rule = f"operations:{name}"
    told = "".join(f"; {note}" for note in notes)
    track = kept.tracks.get(name)
    if track is None or track.last is None:
        return Verdict(outcome="unknown", rule=rule, evidence=f"{metric.what} is not known yet: too few requests{told}")
    last, point = track.last, track.last.point
    window = (float(last.start), float(last.end))
    numbers = {
        "value": _digits(point.chance),
        "threshold": _digits(rarest),
        "score": point.score,
        "figure": metric.plain(last.value),
        "usual": metric.plain(point.expected),
        "effect": point.lasting * metric.worse,
        "least_effect": metric.least,
        "points": float(track.course.seen),
    }
    if kept.until - last.end > (2 * HOUR_S if name == "throughput" else POOLED_S):
        idle = (kept.until - last.end) // MINUTE_S
        evidence = f"too few requests for {idle:,} minutes; {metric.what} was {metric.tell(metric.plain(last.value))} before{told}"
        return Verdict(outcome="unknown", rule=rule, evidence=evidence, numbers=numbers, window=window)
    if track.course.seen < anomalies.LEAST:
        missing = anomalies.LEAST - track.course.seen
        said = f"{metric.what} is {metric.tell(metric.plain(last.value))}; what is usual is known after {missing} more minutes with enough requests"
        return Verdict(outcome="unknown", rule=rule, evidence=said + told, numbers=numbers, window=window)
    outcome: Outcome = "pass" if point.chance > anomalies.RARE else "fail" if last.is_worse and point.chance <= rarest else "warn"
    said = f"{metric.what} is {metric.tell(metric.plain(last.value))}, where {metric.tell(metric.plain(point.expected))} is usual"
    if outcome != "pass":
        said += f"; the last {anomalies.LASTING} figures lie together where one in {1 / max(point.chance, 1e-12):,.0f} does"
    return Verdict(outcome=outcome, rule=rule, evidence=said + told, numbers=numbers, window=window)


def growing(growth: Growth, rarest: float, notes: Sequence[str] = (), *, until: float = 0.0) -> Verdict:
    """Whether memory grows and does not come down again; a page is rarer than `rarest` an hour. `until` is when what was seen ends: a service that is
    asked nothing says nothing of its memory.
    """
    rule = f"operations:{GROWTH}"
    told = "".join(f"; {note}" for note in notes)
    if silent := growth.silent(until):
        told = f"; it was {METRICS['memory'].tell(_power(growth.latest))} before{told}"
        said = f"whether memory keeps growing cannot be told: it is known where requests come, and none has come for {silent:,} hours"
        return Verdict(outcome="unknown", rule=rule, evidence=said + told)
    if not growth.is_known or len(growth.grown) < LASTING:
        said = "whether memory keeps growing can be told once a release has served for three days, and what is usual after four more"
        if growth.gaps:
            gaps = "a gap came" if growth.gaps == 1 else f"{growth.gaps:,} gaps came"
            said = f"whether memory keeps growing cannot be told: for three days no more than {GAP - 1} hours in a row may be silent, and {gaps}"
        return Verdict(outcome="unknown", rule=rule, evidence=said + told)
    size, hours = _power(growth.level), growth.last + 1 - growth.began
    numbers = {
        "value": _digits(growth.chance),
        "threshold": _digits(rarest),
        "figure": size,
        "a_day": _power(growth.a_day) - 1,
        "grown": _power(growth.total) - 1,
        "hours": float(hours),
        "effect": growth.total,
        "least_effect": GROWN_LEAST,
    }
    window = (float(growth.began * HOUR_S), float((growth.last + 1) * HOUR_S))
    memory = METRICS["memory"].tell(size)
    if growth.chance > anomalies.RARE:
        return Verdict(outcome="pass", rule=rule, evidence=f"memory is {memory}, and does not keep growing{told}", numbers=numbers, window=window)
    outcome: Outcome = "fail" if growth.total >= GROWN_LEAST and growth.chance <= rarest else "warn"
    said = f"memory is {memory}, and has grown for {hours} hours, by {100 * numbers['a_day']:.0f} % a day: something leaks"
    return Verdict(outcome=outcome, rule=rule, evidence=said + told, numbers=numbers, window=window)


def _digits(chance: float) -> float:
    """The rarer, the larger: a chance of 1e-6 has six."""
    return max(0.0, -math.log10(max(chance, 1e-300)))
