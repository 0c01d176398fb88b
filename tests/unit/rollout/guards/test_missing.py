"""Answers without a value are told from those that have one, output by output."""

from __future__ import annotations

import pytest
from judging import Counted, Mirrored, sticky, stratum

from modelyard.events import Callers
from modelyard.rollout.guards import UNASKED, judge, parse

ALPHA = 0.001


def seen(answered: int, lacking: int, *, rows_of_each: int = 1, **more: tuple[int, ...]) -> Counted:
    """The last count of an output is of rows without it."""
    score = ((answered - lacking) * rows_of_each, 0, lacking * rows_of_each)
    return Counted(requests=answered, outputs={"score": score, **more})


def told(text: str, *strata) -> str:
    return judge(parse(text), strata, alpha=ALPHA).outcome


CHAMPION = seen(1000, 0)


def test_a_candidate_that_answers_nothing_is_found_within_a_few_requests() -> None:
    verdict = judge(parse(UNASKED), [stratum(seen(5, 5), CHAMPION)], alpha=ALPHA)
    assert (verdict.outcome, verdict.numbers["estimate"], verdict.numbers["champion"]) == ("fail", 1.0, 0.0)
    assert "missing 100 % of 5 requests, the champion 0 % of 1,000" in verdict.evidence
    assert told(UNASKED, stratum(seen(5, 0), CHAMPION)) == "unknown"
    assert told(UNASKED, stratum(seen(2000, 0), CHAMPION)) == "pass"
    assert told(UNASKED, stratum(seen(2000, 100), CHAMPION)) == "fail", "nor one in twenty"
    assert told(UNASKED, stratum(seen(2000, 4), CHAMPION)) != "fail", "of a few that may be right nothing is said"


def test_what_the_champion_lacks_too_is_no_fault() -> None:
    assert told(UNASKED, stratum(seen(1000, 300), seen(20_000, 6000))) != "fail"
    assert told("missing<5%", stratum(seen(1000, 300), seen(20_000, 6000))) == "warn"
    assert told("missing<5%", stratum(seen(1000, 600), seen(20_000, 6000))) == "fail"
    assert told("missing<5%", stratum(seen(1000, 2), CHAMPION)) == "pass"
    assert told("missing<1.5x", stratum(seen(1000, 900), seen(20_000, 6000))) == "fail"


def test_one_output_of_many_is_enough() -> None:
    others = {f"other{number}": (100, 0, 0) for number in range(50)}
    champion = CHAMPION._replace(outputs=dict.fromkeys(("score", *others), (1000, 0, 0)))
    verdict = judge(parse(UNASKED), [stratum(seen(100, 100, **others), champion)], alpha=ALPHA)
    assert verdict.outcome == "fail"
    assert verdict.numbers["estimate"] == 1.0
    assert told(UNASKED, stratum(seen(100, 0, **others), champion)) != "fail"


@pytest.mark.parametrize("text", [UNASKED, "missing<1.5x"])
def test_the_output_that_breaks_the_bound_is_told_though_both_lack_another_more_often(text: str) -> None:
    champion = CHAMPION._replace(outputs={"score": (1000, 0, 0), "other": (500, 0, 500)})
    verdict = judge(parse(text), [stratum(seen(100, 40, other=(50, 0, 50)), champion)], alpha=ALPHA)
    assert [verdict.outcome, *(verdict.numbers[name] for name in ("estimate", "champion", "holds"))] == ["fail", 0.4, 0.0, 0.0]


@pytest.mark.parametrize(("requests", "found"), [(1, "unknown"), (6, "fail")])
def test_rows_of_one_request_count_once(requests: int, found: str) -> None:
    assert told(UNASKED, stratum(seen(requests, requests, rows_of_each=1000), CHAMPION)) == found


def test_a_shadow_is_judged_by_its_mirrored_answers_and_without_a_champion_nothing_is_said() -> None:
    mirrored = Counted(mirror=Mirrored(sent=10, failed=2, rows=8, outputs={"score": (0, 0, 8)}))
    assert told(UNASKED, stratum(mirrored, CHAMPION, is_shadow=True)) == "fail"
    assert told(UNASKED, stratum(mirrored, CHAMPION)) == "unknown"
    assert told(UNASKED, stratum(seen(500, 500))) == "unknown"
    assert told(UNASKED, stratum(seen(50, 0), CHAMPION), stratum(seen(50, 50), CHAMPION), stratum(seen(500, 500))) == "fail"


def test_where_callers_keep_to_a_version_one_who_asks_much_is_one() -> None:
    """The control: of the same counts, taken for independent requests, it is a failure."""
    one = sticky([(0, 0, 400), *[(100, 0, 0)] * 40])
    champion = sticky([(100, 0, 0)] * 64)
    assert told(UNASKED, stratum(one, champion)) == "unknown"
    assert told("missing<1%", stratum(one, champion)) == "unknown"
    independent = [each._replace(callers=Callers()) for each in (one, champion)]
    assert told(UNASKED, stratum(*independent)) == told("missing<1%", stratum(*independent)) == "fail"


def test_what_all_callers_miss_is_found_of_many_and_of_few() -> None:
    champion = sticky([(100, 0, 0)] * 64)
    assert told(UNASKED, stratum(sticky([(0, 0, 1)] * 20), champion)) == "fail"
    assert told(UNASKED, stratum(sticky([(0, 0, 500)] * 8), champion)) == "fail", "of fewer than ten each counts once"
    assert told(UNASKED, stratum(sticky([(0, 0, 500)]), champion)) == "unknown"
    assert told(UNASKED, stratum(sticky([(80, 0, 20)] * 40), champion)) == "fail", "callers are alike"
    assert told(UNASKED, stratum(sticky([(100, 0, 0)] * 64), champion)) == "pass"


def test_a_total_failure_is_found_beside_a_champion_of_one_large_caller() -> None:
    """The control: what the champion's one caller says of it is not to be said of the candidate's many."""
    dominated = sticky([(40_000, 0, 0), *[(1, 0, 0)] * 30])
    assert told(UNASKED, stratum(sticky([(0, 0, 60)] * 64), dominated)) == "unknown", "one caller says nothing of what was"
    assert told("missing<1%", stratum(sticky([(0, 0, 60)] * 64), dominated)) == "fail"


def test_steps_that_share_callers_are_not_added_up() -> None:
    half, champion = sticky([(0, 0, 1)] * 2 + [(1, 0, 0)] * 12), sticky([(100, 0, 0)] * 64)
    once = judge(parse(UNASKED), [stratum(half, champion)], alpha=ALPHA).numbers["e_fail"]
    twice = judge(parse(UNASKED), [stratum(half, champion)] * 2, alpha=ALPHA).numbers["e_fail"]
    assert twice == pytest.approx(once)


def test_outputs_that_were_not_counted_by_groups_count_each_group_once() -> None:
    """Of too many bins."""
    champion = sticky([(100, 0, 0)] * 64)
    some, all_of_them = (
        Counted(4000, outputs={"score": score}, callers=Callers(asked=dict.fromkeys(range(40), 100))) for score in ((3600, 0, 400), (0, 0, 4000))
    )
    assert told(UNASKED, stratum(some, champion)) == "unknown"
    assert told(UNASKED, stratum(all_of_them, champion)) == "fail"
    assert told(UNASKED, stratum(some._replace(callers=Callers()), champion)) == "fail", "the control"


def test_a_shadow_counts_requests_whoever_asks() -> None:
    mirrored = Counted(mirror=Mirrored(sent=400, rows=400, outputs={"score": (360, 0, 40)}))
    assert told(UNASKED, stratum(mirrored, sticky([(100, 0, 0)] * 64), is_shadow=True)) == "fail"
