"""How steps of outputs are put together."""

from __future__ import annotations

import numpy as np
import pytest
from judging import Counted, Mirrored, sticky, stratum

from modelyard.rollout.guards import binned, callers, evalues
from modelyard.rollout.guards.binned import Hits, Step, answers, together
from modelyard.rollout.guards.callers import OnSets

ONE = np.ones(2)
COUNTS = evalues.Two(np.array([30.0, 5.0]), 100.0, np.array([10.0, 5.0]), 100.0)
TEST = evalues.exceeds


def evidence(two: evalues.Two):
    return TEST(two, (1.0, 0.0))


def test_counts_are_divided_by_their_effects() -> None:
    said = Step(COUNTS, np.array([2.0, 1.0]), np.array([1.0, 5.0]), is_shared=True).said(3.0)
    assert said.hits.tolist() == [45, 15] and said.trials.tolist() == [150, 300]
    assert said.other_hits.tolist() == [30, 3] and said.other_trials.tolist() == [300, 60]


def test_evidence_of_steps_is_multiplied_added_up_or_the_best_counts() -> None:
    alone, shared = (Step(COUNTS, ONE, ONE, is_shared=is_shared) for is_shared in (False, True))
    once = evidence(COUNTS)
    assert together([alone] * 2, 1.0, evidence) == pytest.approx(evalues.from_any_step([once] * 2, 2))
    added = together([alone] * 2, 1.0, evidence, adds_up=True)
    twice = evidence(evalues.Two(*(2 * np.asarray(each) for each in COUNTS)))
    assert added == pytest.approx(evalues.from_any_step(lambda first: (twice, once)[first], 2))
    for adds_up in (False, True):
        assert together([alone, shared], 1.0, evidence, adds_up=adds_up) == pytest.approx(callers.best_step([once] * 2))


def test_only_the_last_step_is_taken_several_times() -> None:
    step = Step(COUNTS, ONE, ONE, is_shared=True)
    assert together([step, step], 4.0, evidence) == pytest.approx(callers.best_step([evidence(step.said()), evidence(step.said(4.0))]))


def test_without_steps_or_of_steps_with_other_sets_nothing_is_said() -> None:
    other = Step(evalues.Two(np.ones(3), 9.0, np.ones(3), 9.0), np.ones(3), np.ones(3), is_shared=False)
    for steps in ([], [Step(COUNTS, ONE, ONE, is_shared=False), other]):
        assert together(steps, 1.0, evidence).tolist() == [0.0]


def test_of_a_version_where_nothing_varies_the_others_effects_hold() -> None:
    given = stratum(sticky([(1, 1)]), Counted())
    mine, other = (Hits(ONE, 9.0, OnSets(np.array(effects), np.full(2, 4.0))) for effects in ((np.nan, 0.2), (3.0, np.nan)))
    found = binned.step(given, mine, other)
    assert (found.mine.tolist(), found.other.tolist(), found.is_shared) == ([3.0, 1.0], [3.0, 1.0], True)
    less = binned.step(given, mine._replace(by=mine.by._replace(most=np.full(2, 2.0))), other)
    assert less.mine.tolist() == [2.0, 1.0], "as far as its own groups reach"
    nothing = Hits(ONE, 9.0, OnSets(np.full(2, np.nan), np.full(2, 4.0)))
    assert binned.step(given, nothing, nothing).mine.tolist() == [1.0, 1.0]
    assert not binned.step(stratum(Counted(), Counted()), mine, other).is_shared


def test_a_shadow_has_its_mirrored_answers_and_no_effects() -> None:
    given = stratum(Counted(5, 1, outputs={"a": (4,)}, mirror=Mirrored(sent=9, failed=2, outputs={"a": (7,)})), sticky([(1, 1)]))
    assert answers(given) == ({"a": (4,)}, 4)
    assert answers(given._replace(is_shadow=True)) == ({"a": (7,)}, 7)
    mine = Hits(ONE, 9.0, OnSets(np.array([5.0, 5.0]), np.array([5.0, 5.0])))
    found = binned.step(given._replace(is_shadow=True), mine, mine)
    assert (found.mine.tolist(), found.other.tolist(), found.is_shared) == ([1.0, 1.0], [1.0, 1.0], False)
