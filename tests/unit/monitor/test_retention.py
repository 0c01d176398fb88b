from __future__ import annotations

import pytest

from modelyard.monitor.retention import BACK_S, SLACK_S, believed, remembered

DAY_S, YEAR_S = 86_400.0, 365 * 86_400.0


@pytest.mark.parametrize(
    ("before", "now", "ran_s", "found"),
    [
        (None, 1e9, 0.0, 1e9),
        (1e9, 1e9 + 3600, 3600.0, 1e9 + 3600),
        (1e9, 1e9 + SLACK_S, 0.0, 1e9 + SLACK_S),
        (1e9, 1e9 - YEAR_S, 0.0, 1e9 - YEAR_S),
        (1e9, 1e9 + YEAR_S, 0.0, 1e9),
        (1e9, 1e9 + YEAR_S, 3600.0, 1e9 + DAY_S),
    ],
)
def test_time_is_the_clocks_unless_it_went_much_further_than_is_known(before: float | None, now: float, ran_s: float, found: float) -> None:
    assert believed(before, now, ran_s=ran_s) == found


def test_it_catches_up_with_the_clock_a_day_an_hour() -> None:
    at, now, hours = 1e9, 1e9 + 30 * DAY_S, 0
    while at < now:
        hours, now = hours + 1, now + 3600
        at = believed(at, now, ran_s=3600.0)
    assert at == now and 28 <= hours <= 32


def test_a_clock_that_goes_back_is_remembered_when_it_has_stood_there_for_a_while() -> None:
    assert remembered(None, 5.0, ran_s=0.0) == 5.0
    assert remembered(1e9, 1e9 + 60, ran_s=60.0) == 1e9 + 60
    assert remembered(1e9, 5.0, ran_s=60.0) == 1e9
    assert remembered(1e9, 5.0, ran_s=BACK_S) == 5.0
