"""Does the memory of a model's processes only grow?

Hides the rule. It is asked once a second and sees nothing but sizes; it must say so only of growth that does not come back. The rule: after ten
looks that let the model warm up, the median of the last ten looks lies 64 MiB and a fifth above that of the first ten, and at least half of the
last thirty steps went up and none fell by a tenth of the growth.
"""

from __future__ import annotations

from collections import deque

from modelyard.types import Verdict

LOOKS = 10
GROWTH_BYTES = 64 << 20
GROWTH_SHARE = 0.2


class Watch:
    """The sizes seen of one set of processes; `forget` when one of them was replaced."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._last: deque[int] = deque(maxlen=3 * LOOKS)

    def forget(self) -> None:
        """Begin again."""
        self._first.clear()
        self._last.clear()

    def look(self, size_bytes: int) -> None:
        """One more size."""
        if size_bytes <= 0:
            return
        if len(self._first) < LOOKS:
            self._first.append(size_bytes)
        else:
            self._last.append(size_bytes)

    @property
    def verdict(self) -> Verdict | None:
        """A warning while the rule holds."""
        if len(self._last) < LOOKS:
            return None
        import statistics  # with fractions and random, for who gets so far

        base, now = statistics.median(self._first), statistics.median(list(self._last)[-LOOKS:])
        growth = now - base
        steps = [second - first for first, second in zip(self._last, list(self._last)[1:], strict=False)]
        is_rising = 2 * sum(step > 0 for step in steps) >= len(steps) and min(steps) > -growth / 10
        if growth < max(GROWTH_BYTES, GROWTH_SHARE * base) or not is_rising:
            return None
        evidence = f"the memory of the model's processes grew from {base / 1e6:,.0f} to {now / 1e6:,.0f} MB and does not come back"
        return Verdict(outcome="warn", rule="isolated-memory", evidence=evidence, numbers={"base_bytes": float(base), "bytes": float(now)})
