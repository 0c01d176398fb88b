"""What grows and does not come down again is told from what warms up, steps, or follows the day."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from modelyard.monitor.anomalies import LEAST, RARE
from modelyard.monitor.growth import DAY, GAP, LASTING, Growth

QUIET = LEAST + DAY + LASTING


def fed(figure: Callable[[int], float], hours: int, *, growth: Growth | None = None, first: int = 1000, seed: int = 0) -> Growth:
    """After so many hours of a figure, by the hour since the first, with noise."""
    rng = np.random.default_rng(seed)
    found = Growth() if growth is None else growth
    for hour in range(hours + 1):  # one more closes the last
        for minute in range(0, 60, 10):
            found.see(3600.0 * (first + hour) + 60 * minute, figure(hour) + rng.normal(scale=0.01))
    return found


def day(hour: int) -> float:
    return 0.3 * math.sin(2 * math.pi * hour / DAY)


def test_a_leak_is_found_through_the_cycle_of_the_day() -> None:
    growth = fed(lambda hour: day(hour) + math.log2(1.01) * max(0, hour - QUIET), QUIET + LASTING + 12)
    assert growth.chance < RARE / 10 and growth.total > math.log2(1.25) and growth.is_known
    assert abs(growth.began - (1000 + QUIET)) < 12
    assert growth.a_day == pytest.approx(24 * math.log2(1.01), rel=0.1)


@pytest.mark.parametrize(
    "figure",
    [
        day,
        lambda hour: day(hour) - 2.0 * math.exp(-hour / 20),
        lambda hour: day(hour) + (0.5 if hour >= QUIET else 0.0),
        lambda hour: day(hour) + 0.5 * min(1.0, max(0.0, (hour - QUIET) / 12)),
        lambda hour: -math.log2(1.01) * hour,
    ],
    ids=["a cycle", "warming up", "a step", "a cache that fills", "going down"],
)
def test_what_is_no_leak_never_looks_like_one(figure: Callable[[int], float]) -> None:
    growth = Growth()
    for hours in range(QUIET + 4 * DAY):
        fed(lambda _, at=hours: figure(at), 1, growth=growth, first=1000 + hours, seed=hours)
        assert growth.chance > RARE


def test_two_odd_hours_do_not_end_it_and_a_gap_does() -> None:
    def leak(hour: int) -> float:
        return math.log2(1.01) * hour - (3.0 if hour in (LASTING + QUIET, LASTING + QUIET + 9) else 0.0)

    growth = fed(leak, QUIET + LASTING + 20)
    assert growth.lasting > 0.1
    fed(leak, 1, growth=growth, first=1000 + QUIET + LASTING + 20 + GAP + 3)
    assert growth.lasting == 0.0 and growth.run == 0


def test_a_new_release_begins_anew_and_what_is_usual_stays_known() -> None:
    growth = fed(lambda hour: math.log2(1.01) * hour, QUIET)
    seen = growth.tail.seen
    growth.begin()
    assert (growth.lasting, growth.total, growth.grown, growth.tail.seen) == (0.0, 0.0, [], seen)


def test_what_is_no_number_or_lies_before_is_passed_over() -> None:
    growth = fed(day, 3)
    before = growth.hour, list(growth.held)
    growth.see(3600.0 * 1001, 5.0)
    growth.see(3600.0 * 1003 + 1, math.nan)
    assert (growth.hour, growth.held) == before
