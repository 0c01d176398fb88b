"""A course of values as one line of text, for a terminal.

Hides how heights are chosen: from nothing (or the least, where that is below) to the largest. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
NOTHING = "·"
"""Where nothing was measured."""


def line(values: Sequence[float | None], *, most: float | None = None) -> str:
    """One character a value; `most` is the height of the largest bar (None: of the largest value)."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    low = min([0.0, *known])
    high = max(known, default=0.0) if most is None else most
    return "".join(NOTHING if value is None or not math.isfinite(value) else _bar(value - low, high - low) for value in values)


def _bar(value: float, most: float) -> str:
    if most <= 0 or value <= 0:
        return BARS[0]
    return BARS[min(len(BARS) - 1, math.ceil(value / most * (len(BARS) - 1)))]
