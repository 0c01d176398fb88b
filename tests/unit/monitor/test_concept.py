"""Concept drift: an error that rises pages, one that falls is reported, and what cannot be judged is said."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from labelling import DIGEST, REGRESSOR, START, classified, evidence, first, measured

from modelyard.monitor import concept, risk
from modelyard.monitor.concept import FORMAT, ConceptDrift, State
from modelyard.monitor.risk import Risk, Terms
from modelyard.monitor.settings import Concept, Monitored

QUIET = Monitored(concept=Concept(reports=False))


def judge(labelled, state: bytes = b"", **more):
    return ConceptDrift().judge(evidence(labelled, **{"settings": QUIET, **more}), state)


def test_an_error_that_rises_pages_with_when_it_began_and_what_it_costs() -> None:
    rng = np.random.default_rng(1)
    labels = classified(rng, [0.1] * 4_000 + [0.3] * 800)
    judged = judge(first(labels, 4_000))
    assert [verdict.outcome for verdict in judged.verdicts] == ["pass"]
    (verdict,) = judge(labels, judged.state).verdicts
    assert (verdict.outcome, verdict.rule) == ("fail", "concept:error")
    assert verdict.window is not None and abs(verdict.window[0] - labels.times[4_000]) < 4 * 3600
    assert verdict.harm == pytest.approx(0.2, abs=0.05)
    assert verdict.numbers["value"] >= verdict.numbers["threshold"] > 0
    assert verdict.numbers["threshold"] == pytest.approx(math.log10(verdict.numbers["rows_between_false_pages"])), "as drift tells it"
    assert f"of the 10^{verdict.numbers['threshold']:.1f} that an alarm takes" in judged.verdicts[0].evidence
    assert "of the answers are wrong" in verdict.evidence and verdict.numbers["level"] == pytest.approx(0.3, abs=0.05)


def test_it_stays_a_page_until_the_error_returns_even_when_no_label_comes() -> None:
    rng = np.random.default_rng(2)
    labels = classified(rng, [0.1] * 3_000 + [0.4] * 600 + [0.1] * 2_000)
    judged = judge(first(labels, 3_600))
    again = judge(first(labels, 3_600), judged.state)
    assert judged.verdicts[0].outcome == again.verdicts[0].outcome == "fail"
    assert judge(labels, again.state).verdicts[0].outcome == "pass"


def test_an_error_that_falls_is_reported_and_wakes_nobody() -> None:
    rng = np.random.default_rng(3)
    labels = classified(rng, [0.4] * 3_000 + [0.1] * 300)
    judged = judge(labels)
    (verdict,) = judged.verdicts
    assert verdict.outcome == "warn" and "fell from 0.4" in verdict.evidence.replace("0.39", "0.4").replace("0.41", "0.4")
    more = classified(rng, [0.1] * 1_000, start=float(labels.times[-1]) + 60)
    later = more._replace(numbers=more.numbers + 3_300)
    assert judge(later, judged.state, now=float(later.times[-1]) + 86_400).verdicts[0].outcome == "pass"


def test_it_does_not_matter_over_how_many_turns_the_labels_come() -> None:
    rng = np.random.default_rng(4)
    labels = classified(rng, [0.2] * 2_000 + [0.5] * 500, every_s=600.0)
    settings = Monitored(concept=Concept(reports=False, rows_between_false_pages=100_000))
    once = judge(labels, settings=settings)
    state = b""
    for rows in range(50, 2_501, 50):
        judged = judge(first(labels, rows), state, settings=settings)
        state = judged.state
    assert judged.verdicts[0].outcome == once.verdicts[0].outcome == "fail"
    assert judged.verdicts[0].window == once.verdicts[0].window


def test_a_regressor_is_judged_by_its_absolute_error_beside_the_references() -> None:
    rng = np.random.default_rng(5)
    labels = measured(rng, [1.0] * 3_000 + [2.0] * 600)
    judged = judge(labels, schema=REGRESSOR, quality={"mae": 0.8})
    (verdict,) = judged.verdicts
    assert verdict.outcome == "fail" and verdict.harm == pytest.approx(1.0, abs=0.3)
    assert judge(measured(rng, [1.0] * 3_000), schema=REGRESSOR).verdicts[0].outcome == "pass"


def test_nothing_is_unknown_and_so_is_too_little() -> None:
    assert judge(None).verdicts[0].outcome == "unknown"
    judged = judge(classified(np.random.default_rng(6), [0.1] * 20))
    assert judged.verdicts[0].outcome == "unknown" and "20 labels" in judged.verdicts[0].evidence


def test_state_of_another_release_or_of_nobody_begins_anew() -> None:
    rng = np.random.default_rng(7)
    labels = classified(rng, [0.1] * 3_000 + [0.5] * 500)
    state = judge(labels).state
    other = msgspec.msgpack.encode({**msgspec.msgpack.decode(state), "digest": DIGEST[:-1] + "b"})
    for odd in (b"", b"\x00nonsense", other, msgspec.msgpack.encode({"format": 99, "digest": DIGEST})):
        again = judge(first(labels, 20), odd)
        assert again.verdicts[0].outcome == "unknown"


def test_what_goes_up_and_down_by_the_hour_leaves_no_alarm_that_never_ends_and_a_later_rise_is_found() -> None:
    """A baseline of the first day is of some of its hours; by it, all days that are levelled later would be too high."""
    an_hour, days, begun = 60, 14, 20_458 * 86_400.0 + 6 * 3600
    at = begun + np.arange(days * 24 * an_hour) * (3600.0 / an_hour)
    terms = Terms(rows_between=50_000.0)
    for seed in range(3):
        chance = 0.2 + 0.15 * np.sin(at / 86_400 * 2 * np.pi)
        late = at >= begun + 10 * 86_400
        wrong = (np.random.default_rng(seed).random(len(at)) < np.where(late, 1.8 * chance, chance)).astype(np.float64)
        before, _ = concept.fed(State(format=FORMAT, digest=DIGEST), wrong[~late], at[~late], terms)
        assert not before.risk.is_raised
        after, alarms = concept.fed(before, wrong[late], at[late], terms)
        assert after.risk.is_raised and [each.kind for each in alarms] == ["rose"]
        plain = risk.feed(Risk(), wrong[~late], at[~late], terms=terms)[1]
        assert any(each.kind == "rose" for each in plain), "as the rows come"


def test_errors_that_share_a_days_weather_wake_seldom_and_a_rise_beyond_it_does() -> None:
    """No hour differs; days do. The budget allows an alarm in vain every 20,000 rows; a day has 240."""
    terms, days, pages, plain = Terms(rows_between=20_000.0), 120, 0, 0
    at = 20_458 * 86_400.0 + np.arange(days * 240) * 360.0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        day = np.repeat(rng.normal(0.0, 0.4, days), 240)
        wrong = (rng.random(len(at)) < 1 / (1 + np.exp(1.5 - day))).astype(np.float64)
        kept, alarms = concept.fed(State(format=FORMAT, digest=DIGEST), wrong, at, terms)
        pages += sum(each.kind == "rose" for each in alarms)
        plain += sum(each.kind == "rose" for each in risk.feed(Risk(), wrong, at, terms=terms)[1])
        assert 3 < kept.rhythm.together < 15
        worse = (rng.random(240 * 20) < 0.45).astype(np.float64)
        after, _ = concept.fed(kept, worse, at[-1] + 360.0 * np.arange(1, 240 * 20 + 1), terms)
        assert after.risk.is_raised
    assert pages <= 4 * len(at) / 20_000
    assert plain > 5 * pages and plain > 20, "were rows taken one by one"


def test_the_budget_moves_the_threshold() -> None:
    labels = classified(np.random.default_rng(8), [0.1] * 2_000)
    strict, loose = (judge(labels, false_pages=share).verdicts[0].numbers["threshold"] for share in (0.01, 1.0))
    assert strict > loose


def test_the_fields_own_detectors_report_and_fail_nothing() -> None:
    rng = np.random.default_rng(9)
    labels = classified(rng, [0.1] * 3_000 + [0.5] * 300)
    judged = judge(labels, settings=Monitored())
    told = {verdict.rule: verdict for verdict in judged.verdicts}
    assert set(told) == {"concept:error", "concept:adwin", "concept:hddm_a", "concept:hddm_w"}
    assert told["concept:adwin"].outcome == told["concept:hddm_a"].outcome == "warn"
    assert told["concept:adwin"].window is not None and told["concept:adwin"].window[0] >= labels.times[3_000]
    calm = {verdict.rule: verdict.outcome for verdict in judge(classified(rng, [0.1] * 3_000), settings=Monitored()).verdicts}
    assert calm["concept:adwin"] == "pass"
    numbers = {verdict.rule for verdict in judge(measured(rng, [1.0] * 1_000), schema=REGRESSOR, settings=Monitored()).verdicts}
    assert numbers == {"concept:error", "concept:adwin"}


def test_the_fields_own_detectors_run_again_when_a_tenth_of_the_labels_is_new() -> None:
    labels = classified(np.random.default_rng(11), [0.1] * 4_000 + [0.9] * 500)
    begun = judge(first(labels, 4_000), settings=Monitored())
    more = judge(first(labels, 4_300), begun.state, settings=Monitored())
    told = [{each.rule: each.numbers.get("changes") for each in judged.verdicts}["concept:adwin"] for judged in (begun, more)]
    again = judge(labels, more.state, settings=Monitored())
    assert told == [0, 0] and {each.rule: each.numbers.get("changes") for each in again.verdicts}["concept:adwin"] > 0


def test_a_prediction_of_the_future_waits_for_its_time() -> None:
    rng = np.random.default_rng(10)
    labels = classified(rng, [0.1] * 1_000)
    judged = judge(labels, now=START - 5)
    assert judged.verdicts[0].outcome == "unknown"
    assert judge(labels, judged.state).verdicts[0].numbers["labels"] == 1_000
