"""A course as a line of text."""

from __future__ import annotations

import math

from modelyard.cli.sparklines import BARS, NOTHING, line


def test_the_largest_is_the_highest_and_nothing_is_no_bar() -> None:
    assert line([0, 1, 2, 7, None, math.nan]) == f"{BARS[0]}{BARS[1]}{BARS[2]}{BARS[7]}{NOTHING}{NOTHING}"
    assert line([0.0, 0.0]) == BARS[0] * 2 and line([]) == "" and line([None]) == NOTHING


def test_a_given_height_is_kept_to_and_what_lies_below_zero_is_drawn_from_there() -> None:
    assert line([1.0], most=7.0) == BARS[1] and line([9.0], most=7.0) == BARS[7]
    assert line([-7.0, 0.0]) == f"{BARS[0]}{BARS[7]}"
