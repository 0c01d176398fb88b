from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from modelyard.events import Failures, Latencies, Use
from modelyard.monitor.base import Evidence, Judged, Minute, Reference
from modelyard.monitor.growth import DAY, LASTING, Growth
from modelyard.monitor.operations import GROWTH, LEAST_REQUESTS, METRICS, SILENT_MINUTES, Operations, growing
from modelyard.monitor.profile import Profile
from modelyard.types import Digest, Schema, Verdict

DIGEST, OTHER = (Digest("sha256:" + letter * 64) for letter in "01")
SCHEMA = Schema(inputs=(), outputs=(), layout="tensors", task="other")
BEGIN = 1_700_000_000 // 60 * 60
PAGES = 0.2
DAYS = 2 * 1440


class World:
    """A deployment whose minutes the test makes up; everything is drawn around what is usual, and may be multiplied."""

    def __init__(self, *, seed: int = 0, digest: Digest = DIGEST) -> None:
        self.rng = np.random.default_rng(seed)
        self.digest = digest

    def minute(
        self, at: int, *, requests: float = 600, slow: float = 1, failed: float = 0, cpu: float = 1, memory: float = 1, queued: float = 0
    ) -> Minute:
        count = int(self.rng.poisson(requests))
        latencies = Latencies()
        latencies.add((slow * 0.004 * self.rng.lognormal(sigma=0.3, size=count)).tolist())
        bad = int(self.rng.binomial(count, failed))
        looks = 120
        use = Use(
            looks=looks,
            cpu_us=int(count * 800 * cpu * self.rng.lognormal(sigma=0.03)),
            resident_bytes=int(looks * 3e8 * memory),
            queued=int(self.rng.poisson(looks * queued)),
        )
        failures = {"model_failed": Failures(requests=bad, seconds=0.0)} if bad else {}
        return Minute(BEGIN + 60 * at, 1, self.digest, count - bad, count, latencies.buckets(), failures, {}, None, use)


def judge(minutes: list[Minute], state: bytes = b"", *, now: float | None = None, digest: Digest = DIGEST) -> Judged:
    reference = Reference(digest, SCHEMA, Profile(features=()), {}, {})
    later = minutes[-1].start + 90 if minutes else BEGIN
    return Operations().judge(Evidence("m", reference, minutes, minutes, None, PAGES, later if now is None else now), state)


def by_metric(judged: Judged) -> dict[str, Verdict]:
    return {verdict.rule.removeprefix("operations:"): verdict for verdict in judged.verdicts}


@pytest.fixture(scope="module")
def known() -> bytes:
    """Two quiet days."""
    world = World()
    return judge([world.minute(at) for at in range(DAYS)]).state


def after(known: bytes, **change: float) -> dict[str, Verdict]:
    world = World(seed=1)
    return by_metric(judge([world.minute(DAYS + at, **change) for at in range(5)], known))


def test_what_runs_as_ever_passes(known: bytes) -> None:
    found = after(known)
    assert set(found) == {*METRICS, GROWTH}
    assert {verdict.outcome for name, verdict in found.items() if name != GROWTH} == {"pass"}


@pytest.mark.parametrize(
    ("metric", "change"),
    [
        ("latency_p50", {"slow": 4.0}),
        ("latency_p99", {"slow": 8.0}),
        ("error_rate", {"failed": 0.3}),
        ("queue", {"queued": 40.0}),
        ("cpu", {"cpu": 3.0}),
        ("memory", {"memory": 2.0}),
    ],
)
def test_each_metric_pages_for_the_worse_with_its_figures(known: bytes, metric: str, change: dict[str, float]) -> None:
    verdict = after(known, **change)[metric]
    assert verdict.outcome == "fail", verdict
    assert verdict.numbers["value"] >= verdict.numbers["threshold"]
    assert verdict.numbers["figure"] > verdict.numbers["usual"]
    assert verdict.window == (BEGIN + 60 * (DAYS + 4), BEGIN + 60 * (DAYS + 5))
    assert "usual" in verdict.evidence


@pytest.mark.parametrize(("metric", "change"), [("latency_p50", {"slow": 0.2}), ("cpu", {"cpu": 0.3}), ("memory", {"memory": 0.5})])
def test_what_changes_for_the_better_is_reported_alone(known: bytes, metric: str, change: dict[str, float]) -> None:
    assert after(known, **change)[metric].outcome == "warn"


def test_what_is_rare_and_small_wakes_nobody(known: bytes) -> None:
    assert after(known, memory=1.1)["memory"].outcome == "warn"


def test_one_odd_minute_wakes_nobody(known: bytes) -> None:
    world = World(seed=1)
    minutes = [world.minute(DAYS + at, slow=50.0 if at == 2 else 1.0) for at in range(5)]
    assert by_metric(judge(minutes, known))["latency_p50"].outcome == "pass"


def test_it_is_over_when_it_is_over(known: bytes) -> None:
    world = World(seed=1)
    slow = judge([world.minute(DAYS + at, slow=5.0) for at in range(10)], known)
    assert by_metric(slow)["latency_p50"].outcome == "fail"
    well = judge([world.minute(DAYS + 10 + at) for at in range(10)], slow.state)
    assert by_metric(well)["latency_p50"].outcome != "fail"


def test_few_requests_are_put_together_before_they_are_judged() -> None:
    world = World()
    judged = judge([world.minute(at, requests=12) for at in range(60)])
    points = by_metric(judged)["latency_p99"].numbers["points"]
    assert 5 <= points <= 60 * 12 / LEAST_REQUESTS


def test_at_first_nothing_is_known() -> None:
    found = by_metric(judge([World().minute(0)]))
    assert {verdict.outcome for verdict in found.values()} == {"unknown"}
    assert "more minutes" in found["latency_p50"].evidence
    assert {verdict.outcome for verdict in by_metric(judge([])).values()} == {"unknown"}


def test_within_the_first_day_nobody_is_woken() -> None:
    world = World()
    state = judge([world.minute(at) for at in range(600)]).state
    assert by_metric(judge([world.minute(600 + at, slow=8.0) for at in range(5)], state))["latency_p50"].outcome == "warn"


def test_silence_is_said_so_and_is_no_gap(known: bytes) -> None:
    idle = by_metric(judge([], known, now=BEGIN + 60 * (DAYS + 120)))
    assert idle["latency_p50"].outcome == "unknown"
    assert "too few requests for" in idle["latency_p50"].evidence
    assert idle["throughput"].numbers["figure"] == 0
    soon = by_metric(judge([], known, now=BEGIN + 60 * (DAYS + 8)))
    assert soon["throughput"].outcome == "warn", "of one that is known for two days"


def test_traffic_that_stops_pages_once_a_week_is_known() -> None:
    world = World()
    minutes = [world.minute(at)._replace(latencies={320: 600}) for at in range(9 * 1440)]
    found = by_metric(judge([], judge(minutes).state, now=BEGIN + 60.0 * (9 * 1440 + 8)))
    assert found["throughput"].outcome == "fail"
    assert "0 requests a minute" in found["throughput"].evidence


def test_silence_that_lasts_is_a_figure_an_hour_in_one_turn_or_in_many(known: bytes) -> None:
    points = by_metric(judge([], known, now=BEGIN + 60 * (DAYS + 2)))["throughput"].numbers["points"]
    whole = judge([], known, now=BEGIN + 60 * (DAYS + 302))
    assert by_metric(whole)["throughput"].numbers["points"] == points + SILENT_MINUTES + 5
    assert by_metric(whole)["throughput"].outcome != "unknown", "that nobody asks is known"
    state = known
    for minute in range(3, 303):
        state = judge([], state, now=BEGIN + 60 * (DAYS + minute)).state
    assert by_metric(judge([], state, now=BEGIN + 60 * (DAYS + 302)))["throughput"].numbers["points"] == points + SILENT_MINUTES + 5


def test_a_long_gap_is_named_and_not_taken_for_silence(known: bytes) -> None:
    found = by_metric(judge([World().minute(DAYS + 3 * 1440)], known))
    assert "nothing is known of 4,320 minutes" in found["latency_p50"].evidence
    assert found["throughput"].outcome == "pass"


def test_a_clock_that_goes_back_is_named(known: bytes) -> None:
    found = by_metric(judge([World().minute(DAYS - 100 + at) for at in range(3)], known))
    assert "the clock went back by 100 minutes" in found["latency_p50"].evidence
    assert found["latency_p50"].outcome == "pass"


def test_a_new_release_is_held_against_the_one_before_and_that_is_said(known: bytes) -> None:
    world = World(digest=OTHER)
    found = by_metric(judge([World().minute(DAYS), *(world.minute(DAYS + at, slow=4.0) for at in range(5))], known, digest=OTHER))
    assert found["latency_p50"].outcome == "fail"
    assert "a new release serves" in found["latency_p50"].evidence
    assert found["latency_p50"].numbers["points"] == DAYS + 5, "minutes of other digests are left out"
    beside = by_metric(judge([world.minute(DAYS + at) for at in range(-120, 3)], known, digest=OTHER))
    assert "clock" not in beside["latency_p50"].evidence
    assert beside["latency_p50"].numbers["points"] == DAYS + 3, "what it served beside the one before is past"


@pytest.mark.parametrize("state", [b"no", msgspec.msgpack.encode({"form": 99, "digest": DIGEST}), msgspec.msgpack.encode([])])
def test_state_of_another_form_begins_anew(state: bytes) -> None:
    assert by_metric(judge([World().minute(0)], state))["queue"].outcome == "unknown"


def test_minutes_in_any_number_of_turns_are_judged_alike() -> None:
    world = World()
    minutes = [world.minute(at) for at in range(300)]
    whole = judge(minutes)
    state = b""
    for minute in minutes:
        state = judge([minute], state).state
    assert state == whole.state


def test_minutes_without_a_request_or_a_look_are_borne() -> None:
    empty = Minute(BEGIN, 1, DIGEST, 0, 0, {}, {}, {}, None)
    found = by_metric(judge([empty]))
    assert {verdict.outcome for verdict in found.values()} == {"unknown"}


def test_all_numbers_can_be_told(known: bytes) -> None:
    for verdict in [*after(known).values(), *by_metric(judge([World().minute(0)])).values()]:
        assert all(math.isfinite(value) for value in verdict.numbers.values())


def test_memory_that_keeps_growing_pages_once_that_is_rare_and_felt() -> None:
    growth, rng, outcomes = Growth(), np.random.default_rng(0), []
    for hour in range(12 * DAY):
        leaked = math.log2(1.01) * max(0, hour - 8 * DAY)
        growth.see(3600.0 * hour, 28 + 0.2 * math.sin(2 * math.pi * hour / DAY) + leaked + rng.normal(scale=0.01))
        verdict = growing(growth, 1e-5)
        outcomes.append(verdict.outcome)
    began = outcomes.index("fail")
    assert 8 * DAY + LASTING - 12 < began < 8 * DAY + LASTING + 12 and set(outcomes[began:]) == {"fail"}
    assert set(outcomes[:began]) == {"unknown", "pass", "warn"} and outcomes.index("pass") == outcomes.count("unknown")
    assert verdict.numbers["value"] > verdict.numbers["threshold"] and verdict.numbers["grown"] > 0.25
    assert growing(growth, 0.0).outcome == "warn", "without a share in the budget nobody is woken"


def leaking(active: Callable[[int], bool], hours: int) -> Growth:
    """A leak of 1 % an hour after eight quiet days, seen in the hours in which there are requests."""
    growth, rng = Growth(), np.random.default_rng(0)
    for hour in range(1000, 1000 + hours):
        if active(hour):
            growth.see(3600.0 * hour, 28 + math.log2(1.01) * max(0, hour - 1000 - 8 * DAY) + rng.normal(scale=0.01))
    return growth


def test_of_a_service_that_is_asked_nothing_any_more_nobody_says_that_its_memory_does_not_grow() -> None:
    growth = leaking(lambda hour: hour < 1000 + 9 * DAY, 12 * DAY)
    busy = growing(growth, 1e-5, until=3600.0 * (1000 + 9 * DAY))
    assert busy.outcome == "pass"
    idle = growing(growth, 1e-5, until=3600.0 * (1000 + 12 * DAY))
    assert idle.outcome == "unknown" and "none has come for 72 hours; it was" in idle.evidence


def test_what_memory_was_is_told_of_a_service_that_was_asked_in_one_hour_alone() -> None:
    growth = Growth()
    for minute in range(5):
        growth.see(3_600_000.0 + 60 * minute, math.log2(500 * 2**20))
    idle = growing(growth, 1e-5, until=3_600_000.0 + 3600 * 10)
    assert "none has come for 9 hours; it was 500 MiB a worker before" in idle.evidence


def test_a_service_with_a_gap_each_night_is_told_why_it_is_not_judged() -> None:
    growth = leaking(lambda hour: 8 <= hour % DAY < 20, 14 * DAY)
    told = growing(growth, 1e-5, until=3600.0 * (growth.hour + 1))
    assert told.outcome == "unknown" and "gaps came" in told.evidence
    always = growing(leaking(lambda hour: True, 14 * DAY), 1e-5)
    assert always.outcome == "fail"
    at_first = growing(leaking(lambda hour: True, 2 * DAY), 1e-5)
    assert at_first.outcome == "unknown" and "gap" not in at_first.evidence


def test_an_idle_deployment_says_so_in_its_turn() -> None:
    world = World()
    first = judge([world.minute(at) for at in range(0, 130, 10)])
    idle = by_metric(judge([], first.state, now=BEGIN + 60 * 130 + 3600 * 10))[GROWTH]
    assert idle.outcome == "unknown" and "none has come for" in idle.evidence


def test_growth_is_of_one_release_and_judged_by_the_minute_that_brings_it() -> None:
    world = World()
    first = judge([world.minute(at) for at in range(0, 130, 10)])
    assert by_metric(first)[GROWTH].outcome == "unknown"
    state = msgspec.msgpack.decode(first.state)
    assert len(state["growth"]["hours"]) == 2
    other = World(digest=OTHER)
    after = judge([other.minute(140)], first.state, digest=OTHER)
    assert "hours" not in msgspec.msgpack.decode(after.state)["growth"]
