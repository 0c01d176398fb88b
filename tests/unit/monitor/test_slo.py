from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from modelyard.events import Failures, bucket_place
from modelyard.monitor.base import Evidence, Judged, Minute, Reference
from modelyard.monitor.profile import Profile
from modelyard.monitor.settings import Monitored
from modelyard.monitor.settings import Slo as Wanted
from modelyard.monitor.slo import BURNS, FALSE_PAGES, HOUR_S, LEAST_BAD, Burn, Slo, slower
from modelyard.types import Digest, Schema

DIGEST, OTHER = Digest("sha256:" + "0" * 64), Digest("sha256:" + "1" * 64)
REFERENCE = Reference(DIGEST, Schema(inputs=(), outputs=(), layout="tensors", task="other"), Profile(features=()), {}, {})
BEGIN = 1_700_000_040 // 60 * 60


def minute(at: int, *, requests: int = 100, latencies: dict[int, int] | None = None, **failures: int) -> Minute:
    failed = {code: Failures(requests=count, seconds=0.0) for code, count in failures.items()}
    return Minute(BEGIN + 60 * at, 1, DIGEST, requests, requests, latencies or {320: requests}, failed, {}, None)


def evidence(minutes: list[Minute], *, now: float | None = None, slo: Wanted | None = None) -> Evidence:
    later = minutes[-1].start + 90 if minutes else BEGIN
    settings = Monitored(slo=slo or Wanted())
    return Evidence("m", REFERENCE, minutes, minutes, None, 1.0, later if now is None else now, settings=settings)


def judged(*minutes: Minute, state: bytes = b"", **options: object) -> Judged:
    return Slo().judge(evidence(list(minutes), **options), state)  # type: ignore[arg-type]


def test_what_is_promised_passes_and_says_how_much_is_spent() -> None:
    found = judged(*(minute(at, requests=9_995, model_failed=5) for at in range(60)))
    (verdict,) = found.verdicts
    assert (verdict.outcome, verdict.rule) == ("pass", "slo:answered")
    assert verdict.numbers["spent"] == pytest.approx(0.5)
    assert verdict.numbers["burn_rate"] == pytest.approx(0.5)


def test_a_fast_burn_pages_and_names_its_windows() -> None:
    (verdict,) = judged(*(minute(at, requests=98, model_failed=2) for at in range(60))).verdicts
    assert verdict.outcome == "fail"
    assert verdict.numbers["burn_rate"] == pytest.approx(20)
    assert verdict.numbers["threshold"] == 14.4
    assert verdict.window == (BEGIN, BEGIN + 3600)
    assert "120 of 6,000 requests got no answer in the last hour: 20 times" in verdict.evidence


def test_what_is_over_pages_no_more() -> None:
    burning = [minute(at, requests=90, model_failed=10) for at in range(50)]
    found = judged(*burning)
    assert found.verdicts[0].outcome == "fail"
    later = judged(*(minute(at) for at in range(50, 90)), state=found.state)
    assert later.verdicts[0].outcome != "fail"


def test_a_slow_burn_is_found_by_the_longer_windows_and_the_slowest_only_reports() -> None:
    (verdict,) = judged(*(minute(at, requests=992, model_failed=8) for at in range(360))).verdicts
    assert (verdict.outcome, verdict.numbers["threshold"]) == ("fail", 6.0)
    (verdict,) = judged(*(minute(at, requests=998, model_failed=2) for at in range(4320))).verdicts
    assert (verdict.outcome, verdict.numbers["threshold"]) == ("warn", 1.0)
    assert "3 days" in verdict.evidence


@pytest.mark.parametrize(("bad", "outcome"), [(LEAST_BAD - 1, "pass"), (LEAST_BAD, "fail")])
def test_few_bad_events_wake_nobody(bad: int, outcome: str) -> None:
    found = judged(*(minute(at, requests=1) for at in range(50)), *(minute(50 + at, requests=1, model_failed=1) for at in range(bad)))
    assert found.verdicts[0].outcome == outcome
    assert ("wake nobody" in found.verdicts[0].evidence) == (outcome == "pass")


def test_what_callers_bring_about_is_nobodys_failure() -> None:
    (verdict,) = judged(*(minute(at, requests=10, schema_mismatch=500, cancelled=500) for at in range(60))).verdicts
    assert verdict.outcome == "pass"
    assert verdict.numbers["requests"] == 600


def test_without_requests_nothing_is_known() -> None:
    found = judged(*(minute(at) for at in range(10)))
    idle = judged(state=found.state, now=BEGIN + 3 * 3600)
    assert idle.verdicts[0].outcome == "unknown"
    assert "no requests" in idle.verdicts[0].evidence
    assert judged().verdicts[0].outcome == "unknown"


def test_latency_is_judged_where_it_is_promised() -> None:
    wanted = Wanted(latency_s=0.1, latency_share=0.99)
    slow = int(bucket_place(0.2))
    found = judged(*(minute(at, latencies={320: 70, slow: 30}) for at in range(60)), slo=wanted)
    answered, latency = found.verdicts
    assert (answered.outcome, latency.outcome, latency.rule) == ("pass", "fail", "slo:latency")
    assert "took longer than 100 ms" in latency.evidence
    (only,) = judged(minute(60), state=found.state).verdicts
    assert only.rule == "slo:answered"
    again = judged(minute(61), state=judged(minute(60), state=found.state).state, slo=wanted).verdicts[1]
    assert again.numbers["requests"] == 100, "what was counted by another bound is not held against this one"


def test_latencies_beyond_a_bound_are_told_to_the_width_of_a_bucket() -> None:
    place = int(bucket_place(0.05))
    assert slower({place - 1: 5, place + 1: 7}, 0.05) == 7


@pytest.mark.parametrize("state", [b"", b"no", msgspec.msgpack.encode({"form": 99}), msgspec.msgpack.encode([1])])
def test_state_that_is_none_of_ours_begins_anew(state: bytes) -> None:
    assert judged(minute(0), state=state).verdicts[0].outcome == "pass"


def test_a_clock_that_goes_back_is_said_and_counts_nothing_twice() -> None:
    found = judged(*(minute(at, requests=90, model_failed=10) for at in range(60)))
    again = judged(*(minute(at, requests=100) for at in range(30, 60)), state=found.state)
    (verdict,) = again.verdicts
    assert "the clock went back by 30 minutes" in verdict.evidence
    assert 5_000 <= verdict.numbers["requests"] <= 6_000


def test_a_release_that_served_before_it_was_current_neither_turns_the_clock_back_nor_ends_a_page() -> None:
    failing = judged(*(minute(at, internal=30 if at >= 120 else 0) for at in range(180)))
    assert failing.verdicts[0].outcome == "fail"
    beside = [minute(at, requests=10)._replace(digest=OTHER) for at in range(60, 181)]
    seen = evidence(beside)
    seen = seen._replace(reference=seen.reference._replace(digest=OTHER))
    caught_up = Slo().judge(seen._replace(fresh=beside[:50]), failing.state)  # in more than one turn
    promoted = Slo().judge(seen._replace(fresh=beside[50:]), caught_up.state)
    assert "clock" not in promoted.verdicts[0].evidence
    assert promoted.verdicts[0].numbers["bad"] == failing.verdicts[0].numbers["bad"] - 30, "only the minute that left the hour"
    assert judged(*(minute(at) for at in range(100, 103)), state=failing.state).verdicts[0].evidence.count("clock went back") == 1


def test_the_state_stays_small() -> None:
    found = judged(*(minute(at, requests=100_000, model_failed=3) for at in range(6 * 1440)))
    assert len(found.state) < 16_384


def test_each_hour_may_page_once_in_centuries_where_the_promise_is_just_kept() -> None:
    """Ten events at 14.4 times the rate: the chance in the worst case, failures that come singly."""
    rng = np.random.default_rng(5)
    burn = BURNS[0]
    most_likely = LEAST_BAD / burn.factor  # expected bad events an hour at which ten are just 14.4 times as many
    drawn = rng.poisson(most_likely, size=2_000_000)
    assert (drawn >= LEAST_BAD).mean() < 1e-5


def test_what_it_needs_of_the_budget_is_what_chance_brings_to_a_service_that_just_keeps_its_promises() -> None:
    """A window begins to page when one more fails where one fewer than it takes has failed: at the rate allowed, so often a month."""

    def pages(burn: Burn, mean: float) -> float:
        before = max(LEAST_BAD, math.ceil(burn.factor * mean)) - 1
        return mean * 30.5 * 24 * HOUR_S / burn.long_s * math.exp(before * math.log(mean) - mean - math.lgamma(before + 1))

    worst = [max(pages(burn, step / 100) for step in range(1, 5_000)) for burn in BURNS if burn.pages]
    assert FALSE_PAGES / 1.1 < 2 * sum(worst) < FALSE_PAGES
    assert Slo.needs == FALSE_PAGES
