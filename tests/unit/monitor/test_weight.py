import math

import pytest

from modelyard.monitor import weight


def test_evidence_is_told_in_powers_of_ten() -> None:
    told = weight.numbers(math.log(1e4), math.log(1e6))
    assert told == {"value": pytest.approx(4.0), "threshold": pytest.approx(6.0)}
    assert weight.said(told) == "evidence 10^4.0 of the 10^6.0 that an alarm takes"
    assert weight.said_of_held(told) == "the alarm holds while evidence is left: 10^4.0 of the 10^6.0 that a new one takes"


def test_of_an_alarm_that_is_held_it_is_told_what_raised_it() -> None:
    told = weight.numbers(math.log(1e4), math.log(1e6), peak=math.log(1e7))
    assert told["peak"] == pytest.approx(7.0)
    said = "evidence reached 10^7.0 of the 10^6.0 that an alarm takes, and is 10^4.0 now: the alarm holds while some is left"
    assert weight.said_of_held(told) == said
    assert "peak" not in weight.numbers(math.log(1e4), math.log(1e6), peak=0.0), "a release before this wrote none"
    assert weight.numbers(math.log(1e8), math.log(1e6), peak=math.log(1e7))["peak"] == pytest.approx(8.0)


def test_a_chance_too_small_for_a_number_is_not_zero() -> None:
    assert [weight.chance("q", p) for p in (0.023, 1e-300, 1e-310, 0.0)] == ["q 0.02", "q 1e-300", "q < 1e-300", "q < 1e-300"]


@pytest.mark.parametrize("found", [-3.0, -math.inf, 0.0])
def test_evidence_for_nothing_is_none(found: float) -> None:
    assert weight.numbers(found, 1.0)["value"] == 0.0
