"""What a window reports: shifts at the actual number of rows, with false discoveries held down over all features, and never a page."""

from __future__ import annotations

import numpy as np
import pytest
from drifting import OTHER, drawn, evidence, minute, normal_reference

from modelyard.monitor import profile
from modelyard.monitor.shift import WindowShift, weighted_q
from modelyard.types import Verdict

NAMES = tuple(f"x{place}" for place in range(40))


def judge(mean: float | np.ndarray = 0.0, *, rows: int = 100, minutes: int = 20, seed: int = 0, **more: object) -> tuple[Verdict, ...]:
    reference = normal_reference(NAMES, **more)  # type: ignore[arg-type]
    seen = drawn(np.random.default_rng(seed), reference.profile, range(minutes), rows=rows, mean=mean)
    return WindowShift().judge(evidence(reference, seen[-1:], recent=seen), b"").verdicts


def test_a_shifted_feature_is_named_with_its_figures() -> None:
    mean = np.zeros(40)
    mean[3] = 0.5
    (told,) = judge(mean)
    assert (told.rule, told.outcome, told.columns) == ("shift:x3", "warn", ("x3",))
    assert told.numbers["q"] < 1e-6
    assert told.numbers["effect"] > 0.05
    assert told.window is not None
    assert told.window[1] - told.window[0] == 20 * 60


def test_a_q_too_small_for_a_number_is_not_told_as_zero() -> None:
    mean = np.zeros(40)
    mean[3] = 5.0
    (told,) = judge(mean, rows=1000)
    assert told.numbers["q"] < 1e-300 and "q < 1e-300" in told.evidence


def test_nothing_is_named_where_nothing_moved_nor_what_is_too_small_to_matter() -> None:
    for seed in range(5):
        assert [verdict.outcome for verdict in judge(seed=seed)] == ["pass"]
    slight = np.zeros(40)
    slight[3] = 0.05
    assert [verdict.outcome for verdict in judge(slight, rows=5000)] == ["pass"]


def test_what_counts_for_the_model_has_more_leave() -> None:
    values = [0.004, 0.004, 0.5, 0.9]
    assert weighted_q(values, np.ones(4)) == pytest.approx([0.008, 0.008, 0.5 * 4 / 3, 0.9])
    weighted = weighted_q(values, np.array([2.8, 0.4, 0.4, 0.4]))
    assert weighted[0] == pytest.approx(0.004 / 2.8 * 4)
    assert weighted[1] == pytest.approx(0.02)
    assert weighted_q([], np.ones(0)) == []


def test_false_discoveries_are_as_rare_as_is_said() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(40)) * 40
    named = [min(weighted_q(rng.random(40).tolist(), weights)) <= 0.05 for _ in range(2000)]
    assert np.mean(named) < 0.05 + 3 * 0.005
    assert np.mean([rng.random(40).min() <= 0.05 for _ in range(200)]) > 0.5  # what comes of not correcting


def test_nothing_to_compare_is_unknown_and_says_why() -> None:
    reference = normal_reference(("a", "b"))
    few = drawn(np.random.default_rng(0), reference.profile, [0], rows=5)
    strangers = drawn(np.random.default_rng(0), normal_reference(("a",)).profile, [0], rows=50)
    for known, seen, said in (
        (reference, [], "no row"),
        (reference, [minute(0, None)], "no row"),
        (reference, [each._replace(digest=OTHER) for each in strangers], "no row"),
        (reference, strangers, "another profile"),
        (reference, few, "it takes 30"),
        (reference._replace(profile=profile.Profile(features=())), few, "no profile"),
    ):
        (told,) = WindowShift().judge(evidence(known, seen), b"").verdicts
        assert told.outcome == "unknown"
        assert said in told.evidence


@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_a_minute_of_other_bins_is_left_out_and_counted(mean: float) -> None:
    """One stranger in a window of hours must not silence it."""
    reference = normal_reference(("a", "b"))
    seen = drawn(np.random.default_rng(0), reference.profile, range(20), rows=100, mean=np.array([mean, 0.0]))
    strangers = drawn(np.random.default_rng(0), normal_reference(("a",)).profile, [20], rows=50)
    (told,) = WindowShift().judge(evidence(reference, seen, recent=[*seen, *strangers]), b"").verdicts
    (alone,) = WindowShift().judge(evidence(reference, seen), b"").verdicts
    assert (told.outcome, told.rule, told.numbers) == (alone.outcome, alone.rule, alone.numbers)
    assert told.outcome == ("warn" if mean else "pass") and "1 minutes were counted in the bins of another profile" in told.evidence


def test_missing_and_unknown_values_are_told() -> None:
    reference = normal_reference(("a",))
    counts = np.zeros(profile.size(reference.profile), dtype=np.int64)
    span = profile.spans(reference.profile)[0]
    counts[0], counts[span.stop - 2], counts[span.stop - 1] = 100, 50, 50
    (told,) = WindowShift().judge(evidence(reference, [minute(0, counts)]), b"").verdicts
    assert "missing in 50.0% of rows after 0.0%" in told.evidence
    assert "50.0% of rows beyond" in told.evidence
