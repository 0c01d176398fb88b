"""How evidence is told: as a power of ten, beside the power that an alarm takes; the same of every detector that adds up evidence.

Hides that it is summed as natural logarithms, and that a chance may be too small for a number. Pure. It must not judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_TENFOLD = math.log(10)
_LEAST_CHANCE = 1e-300


def numbers(found: float, needed: float, *, peak: float | None = None) -> dict[str, float]:
    """The `value` and the `threshold` of a verdict, by the natural logarithms of the evidence that was `found` and that is `needed`; of an alarm the
    `peak` too, the most that there has been since it was raised.

    Evidence of less than 1 speaks for nothing, and is told as 1. A peak that raises no alarm was not written down, by a release before this.
    """
    told = {"value": max(0.0, found) / _TENFOLD, "threshold": needed / _TENFOLD}
    return told if peak is None or max(peak, found) < needed else told | {"peak": max(peak, found) / _TENFOLD}


def said(told: Mapping[str, float]) -> str:
    """The same in words, of a verdict's numbers."""
    return f"evidence {_power(told['value'])} of the {_power(told['threshold'])} that an alarm takes"


def said_of_held(told: Mapping[str, float]) -> str:
    """The same of an alarm that goes on with less evidence than a new one takes, and what raised it."""
    now, needed = _power(told["value"]), _power(told["threshold"])
    if "peak" not in told:
        return f"the alarm holds while evidence is left: {now} of the {needed} that a new one takes"
    return f"evidence reached {_power(told['peak'])} of the {needed} that an alarm takes, and is {now} now: the alarm holds while some is left"


def chance(name: str, p: float) -> str:
    """A chance that is called `name`, in words: one that is too small for a number is not 0."""
    return f"{name} {p:.1g}" if p >= _LEAST_CHANCE else f"{name} < {_LEAST_CHANCE:g}"


def _power(value: float) -> str:
    return f"10^{value:.1f}"
