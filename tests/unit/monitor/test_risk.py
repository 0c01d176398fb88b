"""The monitor of a risk: when it speaks, when it keeps silent, and that it does not matter how rows are handed over."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from modelyard.monitor.base import Labelled
from modelyard.monitor.risk import ROWS_BETWEEN, Alarm, Cursor, Risk, Terms, feed, gained, rows_between, with_whole


def flips(rng: np.random.Generator, *parts: tuple[int, float]) -> np.ndarray:
    return np.concatenate([(rng.random(rows) < share).astype(float) for rows, share in parts])


def fed(scores: np.ndarray, terms: Terms | None = None) -> tuple[Risk, list[Alarm]]:
    return feed(Risk(), scores, np.arange(len(scores), dtype=float), terms=terms or Terms())


@pytest.mark.parametrize(("before", "after", "kind", "most"), [(0.2, 0.4, "rose", 400), (0.02, 0.1, "rose", 400), (0.3, 0.15, "fell", 600)])
def test_a_mean_that_moves_is_seen_and_when_it_began(before: float, after: float, kind: str, most: int) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        risk, alarms = fed(flips(rng, (5_000, before), (2_000, after)))
        assert [alarm.kind for alarm in alarms][:1] == [kind]
        first = alarms[0]
        assert 5_000 <= first.place < 5_000 + most and abs(first.since - 5_000) < most / 2
        assert abs(first.before - before) < 0.03 and abs(first.after - after) < 0.1
        assert risk.is_raised is (kind == "rose")


def test_while_nothing_changes_alarms_are_as_rare_as_was_asked() -> None:
    """20 000 rows at 2 000 rows between false alarms bring one on each side per 2 000 at most; at 10⁸ none."""
    often, never = 0, 0
    for seed in range(20):
        scores = flips(np.random.default_rng(seed), (10_000, 0.2))
        for rows, sides in ((2_000.0, 2), (1e8, 0)):
            _, alarms = fed(scores, Terms(rows_between=rows))
            raised = sum(alarm.kind != "returned" for alarm in alarms)
            often, never = often + raised * bool(sides), never + raised * (not sides)
    assert never == 0
    assert 20 <= often <= 20 * 2 * 10_000 / 2_000


def test_after_a_rise_the_baseline_stands_still_until_the_mean_returns() -> None:
    rng = np.random.default_rng(1)
    risk, alarms = fed(flips(rng, (4_000, 0.1), (3_000, 0.4), (3_000, 0.1)))
    assert [alarm.kind for alarm in alarms] == ["rose", "returned"]
    assert 7_000 < alarms[1].place < 7_600 and not risk.is_raised
    assert 0.08 < risk.baseline < 0.12


def test_the_most_evidence_since_an_alarm_is_kept_while_it_stands() -> None:
    rng = np.random.default_rng(1)
    risk, _ = fed(flips(rng, (4_000, 0.1), (40, 0.5), (30, 0.1)))
    assert risk.is_raised and risk.rise < math.log(ROWS_BETWEEN) <= risk.peak
    risk, alarms = fed(flips(rng, (4_000, 0.1), (60, 0.5), (3_000, 0.1)))
    assert alarms[-1].kind == "returned" and risk.peak == 0.0


def test_after_a_fall_the_new_level_is_learnt_and_a_rise_from_it_is_seen() -> None:
    rng = np.random.default_rng(2)
    _, alarms = fed(flips(rng, (4_000, 0.4), (3_000, 0.1), (2_000, 0.25)))
    assert [alarm.kind for alarm in alarms] == ["fell", "rose"]
    assert abs(alarms[1].before - 0.1) < 0.03


@pytest.mark.parametrize("bound", [None, 0.25])
def test_it_does_not_matter_in_which_portions_rows_come_nor_that_state_was_written_down(bound: float | None) -> None:
    rng = np.random.default_rng(3)
    scores = flips(rng, (2_000, 0.2), (1_500, 0.5), (1_500, 0.2))
    terms = Terms(bound=bound, memory_rows=1_000)
    whole, alarms = fed(scores, terms)
    risk, found, place = Risk(), [], 0
    for rows in np.random.default_rng(4).integers(1, 700, 200):
        part = scores[place : place + rows]
        risk, new = feed(risk, part, np.arange(place, place + len(part), dtype=float), terms=terms)
        risk = msgspec.msgpack.decode(msgspec.msgpack.encode(risk), type=Risk)
        found += [alarm._replace(place=alarm.place + place) for alarm in new]
        place += len(part)
    assert [alarm[:2] for alarm in found] == [alarm[:2] for alarm in alarms] and len(alarms) >= 2
    assert risk.rows == whole.rows and risk.baseline == pytest.approx(whole.baseline, rel=1e-6)
    assert risk.rise == pytest.approx(whole.rise, rel=1e-6, abs=1e-6)


def test_a_bound_is_held_against_from_the_first_row_and_below_it_is_no_alarm() -> None:
    rng = np.random.default_rng(5)
    assert fed(flips(rng, (20_000, 0.1)), Terms(bound=0.15))[1] == []
    _, alarms = fed(flips(rng, (3_000, 0.3)), Terms(bound=0.15))
    assert alarms[0].kind == "rose" and alarms[0].place < 400 and alarms[0].before == 0.15


def test_rows_that_are_taken_as_one_count_in_any_order_and_beyond_the_bound_alone() -> None:
    rng = np.random.default_rng(3)
    terms = Terms(bound=0.2, rows_between=10_000.0)
    for share, is_raised in ((0.35, True), (0.15, False)):
        scores = flips(rng, (1_000, share))
        whole = gained(scores, terms=terms)
        assert whole == pytest.approx(gained(np.sort(scores), terms=terms))
        risk = with_whole(Risk(), whole, since=5.0, rows=len(scores), total=float(scores.sum()))
        after, alarms = feed(risk, flips(rng, (5, share)), np.arange(5.0), terms=terms)
        assert (after.is_raised, len(alarms)) == (is_raised, int(is_raised))
        assert not is_raised or (after.since == 5.0 and abs(after.level - share) < 0.05)
    more = with_whole(after, tuple(-1.0 for _ in whole), since=9.0, rows=1, total=0.0)
    assert [bet.sum for bet in more.bets] == [max(bet.sum, -1.0) if place < 4 else bet.sum for place, bet in enumerate(after.bets)]


def test_scores_need_not_be_zeros_and_ones() -> None:
    rng = np.random.default_rng(6)
    scores = np.concatenate([rng.beta(2, 6, 3_000), rng.beta(2.5, 5, 3_000)])
    _, alarms = fed(scores)
    assert alarms[0].kind == "rose" and 3_000 <= alarms[0].place < 4_500


def test_a_young_baseline_raises_no_alarm_by_being_wrong() -> None:
    raised = 0
    for seed in range(200):
        _, alarms = fed(flips(np.random.default_rng(seed), (1_500, 0.2)), Terms(rows_between=30_000.0, learn_rows=30))
        raised += any(alarm.kind == "rose" for alarm in alarms)
    assert raised <= 200 * 1_500 / 30_000 + 8


def labelled(times: list[float], numbers: list[int] | None = None) -> Labelled:
    rows = np.array(times)
    zeros = np.zeros(len(rows), dtype=np.int64)
    return Labelled(rows, zeros, zeros, np.zeros((0, 0)), None if numbers is None else np.array(numbers))


def test_each_labelled_prediction_is_taken_once_whenever_its_label_comes() -> None:
    mask, cursor = Cursor().fresh(labelled([1, 3], [1, 2]), now=10)
    assert mask.tolist() == [True, True]
    mask, cursor = cursor.fresh(labelled([1, 2, 3, 9], [1, 4, 2, 3]), now=20)
    assert mask.tolist() == [False, True, False, True]
    mask, cursor = cursor.fresh(labelled([1, 2, 3, 9], [1, 4, 2, 3]), now=30)
    assert not mask.any()
    # A clock that goes back, and a prediction of the future.
    mask, cursor = cursor.fresh(labelled([1, 9, 50], [1, 3, 5]), now=5)
    assert not mask.any()
    mask, _ = cursor.fresh(labelled([1, 3, 9, 50], [1, 2, 3, 5]), now=60)
    assert mask.tolist()[3]


def test_predictions_settle_before_they_are_taken() -> None:
    mask, cursor = Cursor().fresh(labelled([1, 8], [1, 2]), now=10, settle_s=5)
    assert mask.tolist() == [True, False]
    mask, cursor = cursor.fresh(labelled([1, 8], [1, 2]), now=14, settle_s=5)
    assert mask.tolist() == [False, True]
    assert not cursor.fresh(labelled([1, 8], [1, 2]), now=99, settle_s=5)[0].any()


@pytest.mark.parametrize(("now", "settle_s"), [(50.0, 0.0), (101.0, 60.0)])
def test_no_label_is_lost_where_the_clock_goes_back_or_predictions_are_to_settle_for_longer(now: float, settle_s: float) -> None:
    _, cursor = Cursor().fresh(labelled([10, 90], [1, 2]), now=100)
    rows = labelled([10, 30, 70, 90], [1, 3, 4, 2])
    first, cursor = cursor.fresh(rows, now=now, settle_s=settle_s)
    second, _ = cursor.fresh(rows, now=500, settle_s=settle_s)
    assert (first.astype(int) + second).tolist() == [0, 1, 1, 0], "each new one once"


def test_without_numbers_rows_are_known_by_their_times() -> None:
    mask, cursor = Cursor().fresh(labelled([1, 2]), now=2)
    assert mask.all()
    assert cursor.fresh(labelled([1, 2, 3]), now=3)[0].tolist() == [False, False, True]


def test_the_budget_is_of_months_and_the_threshold_of_rows() -> None:
    day = labelled(np.linspace(0, 86_400, 1_001).tolist())
    assert rows_between(day, 0.5) == pytest.approx(1_001 * 30 / 0.5)
    assert rows_between(labelled([]), 1.0) == 1_000.0 and rows_between(day, 0.0) == ROWS_BETWEEN
    assert math.isfinite(rows_between(labelled([5.0]), 1e-9))


def test_rows_that_go_together_say_as_much_as_one() -> None:
    """Each row ten times: taken for what it is, it alarms as seldom as its tenth, and sees a rise as soon."""
    for seed in range(5):
        once = flips(np.random.default_rng(seed), (3_000, 0.2), (600, 0.5))
        (alarm, *_) = fed(once, Terms(rows_between=1e5))[1]
        (tenfold, *_) = fed(np.repeat(once, 10), Terms(rows_between=1e6, together=10.0))[1]
        assert (tenfold.kind, tenfold.place // 10) == ("rose", pytest.approx(alarm.place, abs=12))
        assert fed(np.repeat(once[:3_000], 10), Terms(rows_between=1e6))[1], "were they taken one by one"
    assert fed(np.zeros(299), Terms(together=2.0))[0].bets == fed(np.zeros(599), Terms(together=2.0))[0].bets == ()


def test_a_raised_baseline_stands_still_also_where_more_rows_turn_out_to_go_together() -> None:
    rng = np.random.default_rng(1)
    risk, (alarm,) = fed(flips(rng, (400, 0.1), (300, 0.5)), Terms(rows_between=1e4))
    assert alarm.kind == "rose" and risk.weight < 4 * Terms().learn_rows
    later, alarms = feed(risk, flips(rng, (3_000, 0.5)), np.arange(3_000.0), terms=Terms(rows_between=1e4, together=4.0))
    assert later.is_raised and not alarms and later.baseline == risk.baseline
    back, (alarm, *more) = feed(later, flips(rng, (4_000, 0.1)), np.arange(4_000.0), terms=Terms(rows_between=1e4, together=4.0))
    assert alarm.kind == "returned" and not more and back.bets, "and it goes on: with nothing to bet on, nobody would be told that it is over"


def test_what_is_judged_is_not_learnt_again_where_more_rows_turn_out_to_go_together() -> None:
    """A change itself makes days differ, and so more rows go together: it must not be learnt for that."""
    rng = np.random.default_rng(1)
    risk, alarms = fed(flips(rng, (400, 0.1)), Terms(rows_between=1e4))
    assert risk.bets and not alarms
    _, (alarm, *_) = feed(risk, flips(rng, (800, 0.5)), np.arange(800.0), terms=Terms(rows_between=1e4, together=4.0))
    assert alarm.kind == "rose" and alarm.before < 0.2


def test_within_a_margin_nothing_happens_and_beyond_it_something_does() -> None:
    rng = np.random.default_rng(5)
    for after, kinds in ((0.4, []), (0.9, ["rose"]), (0.1, []), (0.01, ["fell"])):
        scores = flips(rng, (4_000, 0.2), (400, after))
        assert [each.kind for each in fed(scores, Terms(margin=4.0))[1]] == kinds
    assert [each.kind for each in fed(flips(rng, (4_000, 0.2), (400, 0.4)))[1]] == ["rose"]


def test_a_small_rise_that_is_over_ends_though_a_small_bet_is_never_without_evidence() -> None:
    """Scores that vary little: the bet's own sum over all beginnings stays high, and by it the rise would go on for long."""
    level = np.repeat([0.4, 0.46, 0.4], [2_000, 1_500, 6_000])
    scores = np.clip(level + np.random.default_rng(6).normal(0.0, 0.1, len(level)), 0.0, 1.0)
    terms = Terms(rows_between=2_000.0)
    _, alarms = fed(scores, terms)
    (end, *_) = (each.place for each in alarms if each.kind == "returned" and each.place > 3_500)
    assert end < 4_500
    state, _ = fed(scores[:end], terms)
    assert state.is_raised and state.bets[state.bet].sum > math.log(terms.rows_between) / 2
