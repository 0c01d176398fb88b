"""Performance by labels: figures with intervals by the predictions' own time, completeness, and a page when a promise is broken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from labelling import CLASSIFIER, DIGEST, REGRESSOR, START, classified, evidence, first, measured

from modelyard.monitor import risk
from modelyard.monitor.base import Labelled
from modelyard.monitor.performance import Performance, auc, demanded, figure_names, figures, windows
from modelyard.monitor.risk import Risk, Terms
from modelyard.monitor.settings import Bound, Monitored
from modelyard.monitor.settings import Performance as Section
from modelyard.types import Schema

GOOD = {"accuracy": 0.9, "auc": 0.95}


def judge(labelled, state: bytes = b"", **more):
    judged = Performance().judge(evidence(labelled, **more), state)
    return {verdict.rule.partition(":")[2]: verdict for verdict in judged.verdicts}, judged.state


def test_a_promise_that_is_kept_passes_and_one_that_is_broken_pages() -> None:
    rng = np.random.default_rng(1)
    labels = classified(rng, [0.1] * 3_000 + [0.35] * 1_500)
    told, state = judge(first(labels, 3_000), quality=GOOD)
    assert told["accuracy"].outcome == "pass"
    told, _ = judge(labels, state, quality=GOOD)
    assert told["accuracy"].outcome == "fail"
    assert told["accuracy"].harm == pytest.approx(0.25, abs=0.06)
    assert abs(told["accuracy"].window[0] - labels.times[3_000]) < 3 * 3600
    assert told["accuracy"].numbers["reference"] == 0.9 and told["accuracy"].numbers["limit"] == pytest.approx(0.85)


def test_a_ranking_that_becomes_chance_pages_though_accuracy_has_no_promise() -> None:
    rng = np.random.default_rng(2)
    labels = classified(rng, [0.1] * 2_000)
    noise = rng.permutation(labels.probability)
    told, _ = judge(labels, quality={"auc": 0.9})
    assert told["auc"].outcome == "pass" and told["accuracy"].outcome == "unknown"
    told, _ = judge(labels._replace(probability=noise), quality={"auc": 0.9})
    assert told["auc"].outcome == "fail" and told["auc"].numbers["auc"] == pytest.approx(0.5, abs=0.06)


def test_errors_of_a_regressor_are_held_against_the_references_and_one_mad_label_is_no_page() -> None:
    rng = np.random.default_rng(3)
    labels = measured(rng, [1.0] * 3_000)
    told, state = judge(labels, schema=REGRESSOR, quality={"mae": 0.8})
    assert told["mae"].outcome == "pass" and told["rmse"].outcome == "unknown" and "bounds.rmse" in told["rmse"].evidence
    labels.truth[-1] = 1e12
    assert judge(labels, schema=REGRESSOR, quality={"mae": 0.8})[0]["mae"].outcome == "pass"
    worse = measured(rng, [1.6] * 1_500, start=float(labels.times[-1]) + 60)
    told, _ = judge(worse._replace(numbers=worse.numbers + 3_000), state, schema=REGRESSOR, quality={"mae": 0.8})
    assert told["mae"].outcome == "fail" and told["mae"].harm == pytest.approx(0.6, abs=0.15)


def rushed(rng: np.random.Generator, days: int, share: float, rush: float, *, first_hour: int = 0) -> Labelled:
    """Sixty predictions an hour, wrong with the chance `share`, and from seven to ten with the chance `rush`."""
    hours = np.arange(first_hour, 24 * days)
    return classified(rng, np.repeat(np.where((hours % 24 >= 7) & (hours % 24 < 10), rush, share), 60), start=START + 3_600 * first_hour)


def by_the_hour(labels: Labelled, **more) -> list[str]:
    """The outcomes of turns, one each hour."""
    outcomes, state = [], b""
    for row in range(60, len(labels.times) + 1, 60):
        part = Labelled(*(each[max(0, row - 1_440) : row] for each in labels[:5] if each is not None))
        told, state = judge(part, state, **more)
        outcomes.append(told["accuracy"].outcome)
    return outcomes


@pytest.mark.parametrize("first_hour", [0, 7])
def test_a_rush_hour_that_is_beyond_the_bound_every_day_breaks_none_while_the_days_keep_it(first_hour: int) -> None:
    quality = {"accuracy": 0.9}
    labels = rushed(np.random.default_rng(1), 9, 0.05, 0.35, first_hour=first_hour)
    assert "fail" not in by_the_hour(labels, quality=quality)
    _, alarms = risk.feed(Risk(), (labels.truth != labels.predicted).astype(float), labels.times, terms=Terms(rows_between=216_000.0, bound=0.15))
    assert sum(alarm.kind == "rose" for alarm in alarms) >= 9, "judged with its rhythm it is broken every day"
    worse = rushed(np.random.default_rng(2), 2, 0.25, 0.55, first_hour=first_hour)
    assert "fail" in by_the_hour(worse, quality=quality)[:25], "a day that breaks it as a whole pages when it is over"


def test_of_the_first_day_what_is_much_worse_pages_at_once() -> None:
    labels = classified(np.random.default_rng(3), [0.6] * 120)
    assert judge(labels, quality={"accuracy": 0.9})[0]["accuracy"].outcome == "fail"
    labels = classified(np.random.default_rng(3), [0.3] * 1_430)
    assert judge(labels, quality={"accuracy": 0.9})[0]["accuracy"].outcome == "pass", "it may be the hour"
    labels = classified(np.random.default_rng(3), [0.3] * 1_450)
    assert judge(labels, quality={"accuracy": 0.9})[0]["accuracy"].outcome == "fail", "it was the day"


def test_harm_is_of_the_last_day_and_not_of_the_latest_window() -> None:
    labels = classified(np.random.default_rng(4), [0.4] * 1_400 + [0.0] * 100)
    verdict = judge(labels, quality={"accuracy": 0.9})[0]["accuracy"]
    assert verdict.numbers["accuracy"] == 1.0 and verdict.harm == pytest.approx(0.27, abs=0.05)


def test_a_bound_of_the_settings_goes_before_the_references() -> None:
    rng = np.random.default_rng(4)
    labels = classified(rng, [0.3] * 2_000)
    assert judge(labels, quality=GOOD)[0]["accuracy"].outcome == "fail"
    settings = Monitored(bounds={"accuracy": Bound(least=0.6)})
    assert judge(labels, quality=GOOD, settings=settings)[0]["accuracy"].outcome == "pass"
    assert judge(labels, settings=Monitored(bounds={"accuracy": Bound(least=0.9)}))[0]["accuracy"].outcome == "fail"
    given = demanded(Monitored(performance=Section(smallest_loss=0.2, smallest_rise=1.0)), {"accuracy": 0.9, "mae": 2.0}, ("accuracy", "mae", "rmse"))
    assert {name: each.limit for name, each in given.items()} == {"accuracy": pytest.approx(0.7), "mae": 4.0}
    assert demanded(Monitored(), {"accuracy": math.nan, "auc": 0.01}, ("accuracy", "auc")) == {}


def test_a_bound_that_is_moved_is_tested_anew() -> None:
    labels = classified(np.random.default_rng(4), [0.3] * 2_000)
    told, state = judge(labels, quality=GOOD)
    assert told["accuracy"].outcome == "fail"
    moved, after = judge(labels, state, quality=GOOD, settings=Monitored(bounds={"accuracy": Bound(least=0.6)}))
    assert moved["accuracy"].outcome == "pass" and moved["auc"].outcome == told["auc"].outcome
    more = classified(np.random.default_rng(5), [0.6] * 2_000, start=float(labels.times[-1]) + 60)
    worse = more._replace(numbers=more.numbers + 2_000)
    assert judge(worse, after, quality=GOOD, settings=Monitored(bounds={"accuracy": Bound(least=0.6)}))[0]["accuracy"].outcome == "fail"
    assert judge(labels, state, quality=GOOD)[0]["accuracy"].outcome == "fail", "as long as it stands, so does what was found"


def test_a_clock_that_is_put_back_before_all_labels_ends_no_page() -> None:
    labels = classified(np.random.default_rng(4), [0.3] * 2_000)
    told, state = judge(labels, quality=GOOD)
    back, _ = judge(labels, state, quality=GOOD, now=float(labels.times[0]) - 3 * 86_400)
    assert (told["accuracy"].outcome, back["accuracy"].outcome) == ("fail", "fail")
    assert back["accuracy"].window[0] <= back["accuracy"].window[1]


def test_with_a_promise_kept_false_pages_stay_in_the_budget() -> None:
    paged = 0
    for seed in range(40):
        labels = classified(np.random.default_rng(seed), [0.15] * 2_000)
        paged += judge(labels, quality={"accuracy": 0.9}, false_pages=1.0)[0]["accuracy"].outcome == "fail"
    assert paged <= 3


def test_windows_go_by_the_predictions_own_time_and_say_how_complete_they_are() -> None:
    rng = np.random.default_rng(5)
    labels = classified(rng, [0.1] * 1_440 * 2 + [0.3] * 40, answered={int(START) + 3_600 * hour: 120 for hour in range(72)})
    told = windows(labels, window_s=86_400.0, now=float(labels.times[-1]) + 86_400)
    assert [(each.start - START, each.labelled, each.answered) for each in told] == [
        (0, 1_440, 2_880), (86_400, 1_440, 2_880), (172_800, 40, 2_880)]  # fmt: skip
    assert told[0].completeness == 0.5 and told[2].figures["accuracy"].value < 0.9
    assert windows(labels, window_s=86_400.0, now=START + 100_000)[-1].start == START + 86_400  # what lies ahead is no window
    late = windows(first(labels, 10), window_s=86_400.0, now=START + 600)
    assert [(each.labelled, each.figures) for each in late] == [(10, {})]
    assert [each.labelled for each in windows(labels, window_s=86_400.0, now=float(labels.times[-1]), most=1)] == [40]
    assert windows(labels, window_s=100.0, now=float(labels.times[-1]))[-1].answered is None


def test_a_corrected_label_changes_its_windows_figure() -> None:
    labels = classified(np.random.default_rng(6), [0.0] * 100)
    before = figures(labels)["accuracy"].value
    labels.truth[:50] = 1 - labels.truth[:50]
    assert (before, figures(labels)["accuracy"].value) == (1.0, 0.5)


def test_intervals_cover_what_they_should() -> None:
    inside = {"accuracy": 0, "auc": 0, "mae": 0, "rmse": 0}
    big = np.random.default_rng(99)
    truth = {"accuracy": 0.8, "auc": figures(classified(big, [0.2] * 60_000))["auc"].value, "mae": math.sqrt(2 / math.pi), "rmse": 1.0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = figures(classified(rng, [0.2] * 300)) | figures(measured(rng, [1.0] * 300))
        for name, figure in found.items():
            inside[name] += figure.low <= truth[name] <= figure.high
    assert all(180 <= hits <= 200 for hits in inside.values()), inside


def test_an_auc_is_that_of_all_pairs_and_needs_both_classes() -> None:
    rng = np.random.default_rng(7)
    positive = rng.random(80) < 0.4
    scores = np.round(rng.random(80) + positive * 0.3, 1)
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    found = auc(positive, scores)
    assert found is not None and found.value == pytest.approx(np.mean(pairs)) and found.low < found.value < found.high
    assert auc(np.ones(5, dtype=bool), np.zeros(5)) is None
    assert auc(positive, np.where(scores > 1, np.nan, scores)) is None


def test_nothing_to_judge_is_said() -> None:
    told, state = judge(None)
    assert {name: each.outcome for name, each in told.items()} == {"accuracy": "unknown", "auc": "unknown"}
    told, _ = judge(classified(np.random.default_rng(8), [0.1] * 5), state, quality=GOOD)
    assert told["accuracy"].outcome == "unknown" and "too few" in told["accuracy"].evidence
    other = Schema(inputs=CLASSIFIER.inputs, outputs=(), layout="tensors", task="other")
    assert judge(None, schema=other)[0][""].outcome == "unknown" and figure_names(other) == ()
    empty = Labelled(np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros((0, 0)))
    assert judge(empty)[0]["accuracy"].outcome == "unknown"


def test_state_that_is_not_ours_begins_anew() -> None:
    rng = np.random.default_rng(9)
    labels = classified(rng, [0.5] * 1_000)
    _, state = judge(labels, quality=GOOD)
    good = classified(rng, [0.05] * 40)
    assert judge(good, state, quality=GOOD)[0]["accuracy"].outcome == "fail"
    assert judge(good, state[: len(state) // 2], quality=GOOD)[0]["accuracy"].outcome == "pass"
    assert DIGEST.encode() in state
