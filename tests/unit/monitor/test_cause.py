from __future__ import annotations

import numpy as np
import pytest
from benchmarks.monitor import causes
from minutes import evidence, minutes, reference

from modelyard.monitor.base import Labelled
from modelyard.monitor.cause import Happened, explain
from modelyard.monitor.quality import clock
from modelyard.types import Verdict

FAILING = Verdict(outcome="fail", rule="drift:age", evidence="", columns=("age",))


@pytest.mark.parametrize("name", causes.CASES)
def test_simulated_failures_are_explained(name: str) -> None:
    """Of five seeds one may go wrong; the benchmark tells the rates."""
    told = [causes.explained(name, seed) for seed in range(5)]
    assert sum(each.is_kind for each in told) >= 4, [each.kind for each in told]
    assert sum(each.is_column for each in told) >= 4
    if causes.CASES[name].kind != "unknown":
        assert sum(each.minutes is not None and each.minutes <= 3 for each in told) >= 4, [each.minutes for each in told]
        assert sum(each.is_release for each in told) >= 4


def test_without_the_change_no_cause_is_made_up() -> None:
    """The control of all cases above: the same failing verdicts on hours in which nothing is wrong."""
    for name, case in causes.CASES.items():
        quiet = causes.hour(case._replace(rows=None, truth=None), 3)
        assert explain(quiet.failing, quiet.evidence).kind == "unknown", name


def test_a_population_shift_without_labels_says_what_it_cannot_tell() -> None:
    made = causes.hour(causes.CASES["older people"], 1, labels=False)
    found = explain(made.failing, made.evidence)
    assert found.kind == "population shift" and "nobody can tell" in found.evidence
    assert found.columns[0] == "age" and found.slice.startswith("age ")


def test_a_drift_and_its_cause_say_one_minute() -> None:
    made = causes.hour(causes.CASES["older people"], 1, labels=False)
    begin = made.first_bad + 120.0
    failing = Verdict(outcome="fail", rule="drift:age", evidence="", columns=("age",), window=(begin, made.evidence.now))
    found = explain(failing, made.evidence)
    assert found.first_bad == begin and f"first seen {clock(begin)}" in found.said
    older = Verdict(outcome="fail", rule="drift:age", evidence="", columns=("age",), window=(begin - 86_400, made.evidence.now))
    assert explain(older, made.evidence).first_bad != begin - 86_400, "what lies before the window is not said of it"


def test_where_the_error_cannot_be_parted_no_share_of_it_is_claimed() -> None:
    """Of a regression whose error was never seen to be small, nobody can tell what part the rows that moved have in it."""
    known = reference()._replace(quality={"mae": 1.0})
    made = evidence(known, minutes(known, 60, lambda place, rows: {**rows, "age": rows["age"] + (8.0 if place >= 30 else 0.0)}))
    times = np.linspace(made.recent[0].start, made.now, 500)
    answers = Labelled(times, np.full(500, 3.0), np.zeros(500), np.zeros((0, 0)))
    found = explain(FAILING, made._replace(labelled=answers))
    assert found.kind == "population shift" and "cannot be told" in found.evidence and "do not make" not in found.evidence
    better = explain(FAILING, made._replace(labelled=answers._replace(predicted=answers.truth - 0.5)))
    assert "the error is no larger than the reference's" in better.evidence and "-0.5" not in better.evidence


def test_the_slice_of_a_concept_shift_is_told() -> None:
    made = causes.hour(causes.CASES["one region"], 1)
    found = explain(made.failing, made.evidence)
    assert "region = 'north'" in found.slice and found.numbers["concept"] > 0.05


def test_advice_names_the_release_that_came_with_it_and_no_other() -> None:
    made = causes.hour(causes.CASES["unit x1000"], 1)
    near, far = Happened(made.first_bad - 60, "step to 100 %", 4), Happened(made.first_bad - 7200, "step to 50 %", 3)
    found = explain(made.failing, made.evidence, happened=(far, near))
    assert "version 4" in found.release and "rollback" in found.advice
    ended = explain(made.failing, made.evidence, happened=(Happened(made.first_bad - 60, "done", 4),))
    assert ended.release.startswith("the end of the rollout of version 4 at")
    assert explain(made.failing, made.evidence, happened=(far,)).release == ""
    assert explain(made.failing, made.evidence, happened=(Happened(made.first_bad + 600, "step", 5),)).release == ""


def test_an_unused_broken_column_is_not_blamed_for_a_loss() -> None:
    broken = causes._column("noise", lambda values, _: values * 1000)
    made = causes.hour(causes.CASES["labels swapped"]._replace(rows=broken, upstream=False), 1)
    assert explain(made.failing, made.evidence).kind == "concept shift"


def test_a_regression_is_parted_by_strata_of_its_answers() -> None:
    known = reference()
    rng = np.random.default_rng(1)
    count = 3000
    times = np.sort(rng.uniform(0, 3600, count)) + 1_700_000_040
    predicted = rng.normal(0, 1, count)
    is_bad = times > 1_700_002_000
    concept = predicted + rng.normal(0, 1, count) + 3 * is_bad
    found = explain(Verdict(outcome="fail", rule="performance", evidence=""), _turn(known, times, predicted, concept))
    assert found.kind == "concept shift" and found.first_bad == pytest.approx(1_700_002_000, abs=180)
    harder = predicted + rng.normal(0, 1, count)
    quiet = explain(Verdict(outcome="fail", rule="performance", evidence=""), _turn(known, times, predicted, harder))
    assert quiet.kind == "unknown"


def _turn(known, times, predicted, truth):
    made = evidence(known, minutes(known, 60))
    return made._replace(labelled=Labelled(times, truth, predicted, np.zeros((0, 0))))


def test_an_old_change_of_the_error_does_not_explain_a_drift_of_today() -> None:
    made = causes.hour(causes.CASES["older people"], 2)
    labelled = made.evidence.labelled
    assert labelled is not None
    rng = np.random.default_rng(1)
    count = 4000
    wrong = rng.random(count) < np.where(np.arange(count) < count // 2, 0.02, 0.6)
    old = labelled._replace(times=labelled.times[0] - 86_400.0 + np.arange(count), truth=wrong.astype(int), predicted=np.zeros(count, int))
    older = [np.concatenate([a, b]) for a, b in zip(old[:3], labelled[:3], strict=True)]
    doubt = np.tile([0.9, 0.1], (count, 1))
    both = labelled._replace(times=older[0], truth=older[1], predicted=older[2], probability=np.concatenate([doubt, labelled.probability]))
    evidence = made.evidence._replace(labelled=both)
    assert explain(made.failing, evidence).kind == "population shift"
    assert explain(Verdict(outcome="fail", rule="concept:error", evidence=""), evidence).kind == "concept shift"


def test_a_window_without_rows_is_unknown() -> None:
    found = explain(FAILING, evidence(reference(), []))
    assert found.kind == "unknown" and "no row" in found.evidence


def test_counts_of_other_bins_are_unknown() -> None:
    known = reference()
    foreign = [each._replace(counts=np.ones(4, dtype=np.int64)) for each in minutes(known, 3)]
    assert explain(FAILING, evidence(known, foreign)).kind == "unknown"
