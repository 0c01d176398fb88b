"""monitor.estimate.detector: windows that fill, verdicts that say what they rest on, and pages that are rare and right."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from estimating import TWO, Rows, bins, counts, learnt, rows

from modelyard.monitor.base import Evidence, Judged, Labelled, Logged, Minute, Reference
from modelyard.monitor.estimate import Learnt, detector
from modelyard.monitor.estimate import hours as hourly
from modelyard.monitor.estimate.detector import EstimatedPerformance
from modelyard.monitor.estimate.hours import Hour
from modelyard.monitor.settings import Bound, Estimated, Monitored
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)
START = 1_700_000_040 // 60 * 60


@pytest.fixture(scope="module")
def reference() -> Reference:
    given = rows(TWO, 10_000)
    taught = learnt(TWO, given)
    return Reference(DIGEST, TWO, bins(TWO, given), taught.importance, taught.quality, taught)


def evidence(reference: Reference, at: int, given: list[Rows], *, is_logged: bool = True, labelled: Labelled | None = None) -> Evidence:
    """A minute for each of `given`, from minute `at` on."""
    minutes = []
    for place, each in enumerate(given):
        vector = counts(reference.profile, each)
        minutes.append(
            Minute(START + 60 * (at + place), 1, DIGEST, len(each.truth), len(each.truth), latencies={}, failures={}, dropped={}, counts=vector)
        )
    logged = None
    if is_logged:
        times = np.concatenate([np.full(len(each.truth), START + 60.0 * (at + place) + 1) for place, each in enumerate(given)])
        logged = Logged(
            times,
            {name: np.concatenate([each.inputs[name] for each in given]) for name in given[0].inputs},
            {name: np.concatenate([each.outputs[name] for each in given]) for name in given[0].outputs},
        )
    return Evidence("churn", reference, minutes, minutes, labelled, 1.0, START + 60.0 * (at + len(given)), logged=logged)


def stretch(at: int, *, minutes: int = 15, per_minute: int = 60, **where: Any) -> list[Rows]:
    return [rows(TWO, per_minute, seed=1_000 + at + place, **where) for place in range(minutes)]


def known(reference: Reference, losses: dict[str, float] | None = None) -> bytes:
    """State of a detector that has seen two days before, of which all hours were as the reference; or of those `losses`."""
    hours: dict[str, tuple[Hour, ...]] = {}
    for name, value in reference.quality.items():
        lost = (losses or {}).get(name, hourly.loss(name, value))
        hours[name] = tuple(Hour(int(START // 3600) - each, 3600.0, 3600.0 * lost) for each in range(48, 0, -1))
    return msgspec.msgpack.encode(detector.State(format=1, digest=reference.digest, hours=hours))


def judged(reference: Reference, stretches: list[list[Rows]], *, state: bytes = b"", **how: Any) -> tuple[Judged, list[Judged]]:
    all_: list[Judged] = []
    at = 0
    for given in stretches:
        all_.append(EstimatedPerformance().judge(evidence(reference, at, given, **how), state))
        state = all_[-1].state
        at += len(given)
    return all_[-1], all_


def outcomes(found: Judged) -> dict[str, str]:
    return {each.rule: each.outcome for each in found.verdicts}


@pytest.mark.parametrize("is_logged", [True, False])
def test_a_healthy_model_passes(reference: Reference, is_logged: bool) -> None:
    found, _ = judged(reference, [stretch(0), stretch(15)], is_logged=is_logged)
    assert set(outcomes(found).values()) == {"pass"}
    assert set(outcomes(found)) == {f"estimated_performance:{name}" for name in (("accuracy", "auc") if is_logged else ("accuracy",))}
    verdict = found.verdicts[0]
    assert verdict.window == (START + 900, START + 1800)
    assert verdict.numbers["low"] < verdict.numbers["reference"] < verdict.numbers["high"]


def test_a_model_that_surely_does_worse_warns_and_then_fails_and_names_the_column(reference: Reference) -> None:
    old = {"ages": (65, 85)}
    found, all_ = judged(reference, [stretch(0), stretch(15, **old), stretch(30, **old)], state=known(reference))
    rule = "estimated_performance:accuracy"
    assert [outcomes(each)[rule] for each in all_] == ["pass", "warn", "fail"]
    verdict = next(each for each in found.verdicts if each.rule == rule)
    assert verdict.columns == ("age",) and verdict.harm is not None and verdict.harm > 0.05
    assert "on the reference" in verdict.evidence


def test_it_recovers(reference: Reference) -> None:
    old = {"ages": (65, 85)}
    found, _ = judged(reference, [stretch(0, **old), stretch(15, **old), stretch(30)])
    assert outcomes(found)["estimated_performance:accuracy"] == "pass"


def test_a_window_is_not_closed_before_it_is_full(reference: Reference) -> None:
    found, _ = judged(reference, [stretch(0, minutes=14)])
    assert (
        outcomes(found) == {"estimated_performance": "unknown"} and "takes 500 rows and 15 minutes: 840 rows have come" in found.verdicts[0].evidence
    )
    found, _ = judged(reference, [stretch(0, minutes=20, per_minute=20)])
    assert outcomes(found) == {"estimated_performance": "unknown"}
    found, _ = judged(reference, [stretch(0, minutes=20, per_minute=20), stretch(20, minutes=5, per_minute=20)])
    assert set(outcomes(found).values()) == {"pass"}


def test_long_downtime_is_caught_up_window_by_window(reference: Reference) -> None:
    found, _ = judged(reference, [stretch(0, minutes=60)])
    state = msgspec.msgpack.decode(found.state, type=detector.State)
    assert [window.start for window in state.windows] == [START, START + 900, START + 1800, START + 2700]


def test_rows_beyond_the_reference_are_unknown_and_say_so(reference: Reference) -> None:
    found, _ = judged(reference, [stretch(0, ages=(200, 300))])
    assert outcomes(found) == {"estimated_performance": "unknown"} and "where the reference has none" in found.verdicts[0].evidence


def labels(given: list[Rows], at: int, *, wrong: float = 0.0) -> Labelled:
    """All truths of a stretch; a share of them made wrong for the model."""
    draw = np.random.default_rng(0)
    place = {"no": 0, "yes": 1}
    predicted = np.array([place[each] for row in given for each in row.outputs["label"]])
    truth = np.array([place[each] for row in given for each in row.truth])
    truth = np.where(draw.random(len(truth)) < wrong, 1 - predicted, truth)
    times = np.concatenate([np.full(len(row.truth), START + 60.0 * (at + minute) + 1) for minute, row in enumerate(given)])
    return Labelled(times, truth, predicted, np.concatenate([row.outputs["probability"] for row in given]))


def test_the_truth_is_set_beside_the_estimate_when_it_comes(reference: Reference) -> None:
    state = b""
    bias = []
    for at in (0, 15, 30, 45):
        given = stretch(at)
        truth = labels(given, at, wrong=0.3)
        found = EstimatedPerformance().judge(evidence(reference, at, given, labelled=truth), state)
        state = found.state
        bias.append(next(each for each in found.verdicts if each.rule.endswith("accuracy")).numbers.get("bias", 0.0))
    numbers = found.verdicts[0].numbers
    assert numbers["labelled_windows"] == 4 and bias[-1] < -0.1 and numbers["bias_error"] < 0.03
    assert "too high" in found.verdicts[0].evidence


def test_hours_that_are_not_known_yet_or_are_wont_to_be_as_bad_break_no_bound(reference: Reference) -> None:
    old = [stretch(0, ages=(65, 85)), stretch(15, ages=(65, 85))]
    rule = "estimated_performance:accuracy"
    bad = {"accuracy": 0.4, "auc": 0.4}
    for state in (b"", known(reference, bad)):
        found, _ = judged(reference, old, state=state)
        verdict = next(each for each in found.verdicts if each.rule == rule)
        assert verdict.outcome == ("pass" if not state else "fail"), "a day that is as bad throughout breaks it"
        assert state or "of days as a whole" in verdict.evidence
    hours = msgspec.msgpack.decode(known(reference), type=detector.State)
    seen = {
        name: tuple(Hour(each.hour, 3600.0, 1440.0) if (START // 3600 - each.hour) % 24 < 2 else each for each in row)
        for name, row in hours.hours.items()
    }
    found, _ = judged(reference, old, state=msgspec.msgpack.encode(msgspec.structs.replace(hours, hours=seen)))
    assert outcomes(found)[rule] == "pass", "so it was at these hours on both days before"


def test_labels_correct_the_next_estimates(reference: Reference) -> None:
    state = known(reference)
    for at in (0, 15, 30, 45, 60):
        given = stretch(at)
        truth = labels(given, at, wrong=0.3)
        found = EstimatedPerformance().judge(evidence(reference, at, given, labelled=truth), state)
        state = found.state
    assert outcomes(found)["estimated_performance:accuracy"] == "fail"
    without, _ = judged(reference, [stretch(at) for at in (0, 15, 30, 45, 60)])
    assert outcomes(without)["estimated_performance:accuracy"] == "pass", "negative control"


def test_labels_correct_no_estimate_that_was_learnt_from_the_training(reference: Reference) -> None:
    """It is held against a figure that flatters as much; with a bound that somebody has stated the truth counts."""
    trained = reference._replace(learnt=msgspec.structs.replace(reference.learnt, is_held_out=False))
    assert trained.promised == {} and reference.promised == reference.quality
    for settings, expected in ((Monitored(), "pass"), (Monitored(bounds={"accuracy": Bound(least=0.7)}), "fail")):
        state = known(trained)
        for at in (0, 15, 30, 45, 60):
            given = stretch(at)
            told = evidence(trained, at, given, labelled=labels(given, at, wrong=0.3))._replace(settings=settings)
            found = EstimatedPerformance().judge(told, state)
            state = found.state
        assert outcomes(found)["estimated_performance:accuracy"] == expected


def test_minutes_of_other_bins_are_named(reference: Reference) -> None:
    given = evidence(reference, 0, stretch(0, minutes=2))
    foreign = [minute._replace(counts=np.array([5, 1, 1])) for minute in given.fresh]
    found = EstimatedPerformance().judge(given._replace(fresh=foreign), b"")
    assert "2 minutes were counted in other bins" in found.verdicts[0].evidence


@pytest.mark.parametrize("taught", [None, Learnt(importance={"age": 1.0})])
def test_a_bundle_without_labels_is_unknown_and_says_what_to_do(reference: Reference, taught: Learnt | None) -> None:
    found, _ = judged(reference._replace(learnt=taught), [stretch(0)])
    assert outcomes(found) == {"estimated_performance": "unknown"} and "evaluation data" in found.verdicts[0].evidence


def test_state_of_another_release_or_of_nobody_begins_anew(reference: Reference) -> None:
    given = evidence(reference, 0, stretch(0, minutes=3))
    for state in (b"\x00nonsense", msgspec.msgpack.encode({"format": 99, "digest": DIGEST})):
        found = EstimatedPerformance().judge(given, state)
        assert "begins anew" in found.verdicts[0].evidence
    _, (closed, *_) = judged(reference, [stretch(0)])
    other = reference._replace(digest=Digest("sha256:" + "1" * 64))
    assert outcomes(EstimatedPerformance().judge(evidence(other, 15, stretch(15, minutes=3)), closed.state)) == {"estimated_performance": "unknown"}


def test_in_sample_labels_are_said_to_be_so(reference: Reference) -> None:
    taught = msgspec.structs.replace(reference.learnt, is_held_out=False)
    found, _ = judged(reference._replace(learnt=taught), [stretch(0)])
    assert "may have been trained" in found.verdicts[0].evidence


def test_nothing_fresh_repeats_the_last_verdict(reference: Reference) -> None:
    found, _ = judged(reference, [stretch(0)])
    again = EstimatedPerformance().judge(evidence(reference, 15, stretch(15, minutes=1))._replace(fresh=[]), found.state)
    assert again == found
    silent = evidence(reference, 15, stretch(15, minutes=1))._replace(fresh=[], recent=[], now=START + 16 * 60.0 + Monitored().window_s)
    later = EstimatedPerformance().judge(silent, found.state)
    assert set(outcomes(later).values()) == {"unknown"} and "no row has come of late" in later.verdicts[0].evidence
    assert EstimatedPerformance().judge(silent._replace(now=START + 16 * 60.0), found.state) == found


def test_state_is_small(reference: Reference) -> None:
    found, _ = judged(reference, [stretch(at, minutes=15, per_minute=40) for at in range(0, 150, 15)])
    assert len(found.state) < 10_000


@pytest.mark.parametrize(("least", "expected"), [(0.05, set()), (0.0, {"warn"})])
def test_with_nothing_wrong_nobody_is_warned(reference: Reference, least: float, expected: set[str]) -> None:
    """The negative control: with no loss tolerated, what the reference's own draw leaves uncertain is taken for harm now and then."""
    settings = Monitored(estimated_performance=Estimated(smallest_loss=least, smallest_rise=least))
    lucky = {name: value + 0.02 for name, value in reference.quality.items()} if not least else reference.quality
    state, found = known(reference._replace(quality=lucky)), set()
    for window in range(120):
        given = evidence(reference._replace(quality=lucky), 15 * window, [rows(TWO, 600, seed=5_000 + window)])
        fresh = [minute._replace(span_s=900) for minute in given.fresh]
        verdicts, state = EstimatedPerformance().judge(given._replace(fresh=fresh, settings=settings), state)
        found |= {each.outcome for each in verdicts} - {"pass", "fail"}
    assert found == expected
