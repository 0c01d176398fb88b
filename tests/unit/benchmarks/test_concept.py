"""Bar 2's own rules: what a hit is, what a drift does to rows, and that a test done once is the test done each time."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.monitor import concept
from benchmarks.monitor.concept import Outcome, Stream, delay, drifted, episode, false, items, outcome, recall

ROWS = [{"a": float(number), "b": -float(number), "c": 0.5} for number in range(400)]
CLASSES = np.array([0, 1] * 200)


@pytest.mark.parametrize(
    ("alarms", "expected"), [([], None), ([5], 5 - 100), ([5, 101], 5 - 100), ([100], 0), ([2_600], 2_500), ([2_601], None), ([2_601, 9_999], None)]
)
def test_the_first_alarm_decides(alarms: list[int], expected: int | None) -> None:
    assert outcome(Stream("swap", np.zeros(3_000), 100), alarms) == Outcome("swap", expected)


def test_misses_and_false_alarms_have_no_delay() -> None:
    found = [Outcome("swap", -1), Outcome("swap", None), Outcome("swap", 10), Outcome("swap", 30)]
    assert (false(found), recall(found), delay(found)) == (1, 0.5, 20)
    alike = dict.fromkeys((concept.OURS, concept.DUMMY, concept.BAR), found)
    assert [(item.figure, item.bar) for item in items(alike)] == [(1, 1), (0.5, 0.5), (1.0, 0.7), (1.0, 0.7)]
    sooner = {**alike, concept.OURS: [Outcome("swap", 5), Outcome("swap", 5), Outcome("swap", 2_000), Outcome("swap", 2_000)]}
    _, _, whole, hits = items(sooner)
    assert whole.figure == pytest.approx(1_002.5 / 1_265) and hits.figure == pytest.approx(1_002.5 / 20), "to find more is no slower"


def test_a_test_that_is_told_both_rates_is_sooner_than_ours_and_silent_where_nothing_changes() -> None:
    rng = np.random.default_rng(4)
    streams = [Stream("swap", (rng.random(7_000) < np.repeat([0.25, after], [4_500, 2_500])).astype(float), 4_500) for after in [0.4] * 20]
    told, ours = ([outcome(stream, find(stream)) for stream in streams] for find in (concept.informed, lambda stream: concept.ours(stream.errors)))
    assert recall(told) == 1 and false(told) == 0 and delay(told) < delay(ours)
    assert concept.informed(Stream("swap", (rng.random(7_000) < 0.25).astype(float), 4_500)) == []
    shown = items({concept.OURS: ours, concept.BAR: ours, concept.INFORMED: told})
    assert all("told both rates" in item.note for item in shown[2:]) and "the best of river's is ADWIN" in shown[1].note


def test_each_kind_of_drift_changes_what_it_says_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    swapped = list(drifted(ROWS, CLASSES, "swap", rng))
    assert [row for row, _ in swapped] == ROWS and len({truth for _, truth in swapped}) == 1
    moved = list(drifted(ROWS, CLASSES, "permutation", rng))
    assert [truth for _, truth in moved] == CLASSES.tolist()
    assert moved[3][0] != ROWS[3] and sorted(moved[3][0].values()) == sorted(ROWS[3].values()) and list(moved[3][0]) == ["a", "b", "c"]
    fewer = [truth for _, truth in drifted(ROWS, CLASSES, "prior", rng)]
    assert sorted([fewer.count(0), fewer.count(1)])[1] == 200 and 25 < min(fewer.count(0), fewer.count(1)) < 80


def test_an_episode_is_fed_from_a_quarter_on_and_ends_in_time() -> None:
    found = episode(ROWS, CLASSES, "swap", seed=3)
    assert 100 <= found.drift <= 220 and len(found.errors) == 300
    again = episode(ROWS, CLASSES, "swap", seed=3)
    assert (found.errors == again.errors).all() and found.drift == again.drift


def test_tests_of_zeros_and_ones_may_be_done_once_each() -> None:
    from river import drift

    rng = np.random.default_rng(2)
    errors = (rng.random(400) < np.repeat([0.1, 0.8], 200)).astype(int).tolist()
    plain, found = drift.KSWIN(seed=1), []
    for place, error in enumerate(errors):
        plain.update(error)
        if plain.drift_detected:
            found.append((place, plain.p_value))
    cached, again = concept._kswin(seed=1), []
    for place, error in enumerate(errors):
        cached.update(error)
        if cached.drift_detected:
            again.append((place, cached.p_value))
    assert found == again and found
