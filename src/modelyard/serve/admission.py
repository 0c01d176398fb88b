"""How many requests one version may hold at once, found from what its answers take; and the classes in which they wait.

Hides the control law. Pure: the clock is handed in, and a clock that jumps costs one window at most. It must not know queues, wires or models.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Final

HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2
PRIORITIES: Final = {"high": HIGH, "normal": NORMAL, "low": LOW}
"""Classes by the name that callers give; a smaller number goes first, and is shed last."""

FLOOR = 3
"""Held at least: one batch that runs, one that gathers, and who takes the place of either."""

TOLERANCE = 2.0
"""While one batch runs the next one gathers, so an answer takes up to two runs without any queue to speak of."""

WINDOW_S = 5.0
"""Half of the time over which the shortest run is remembered."""

RELAX_S = 0.1
"""How often the limit rises while nobody is refused."""


class Limit:
    """The limit on concurrency of one version; moves only while it binds, so that a steady crowd within the ceiling is never turned away.

    The gradient form: the shortest run of late, times a tolerance, over what the slowest answer of a run took (queue and run), plus a queue of
    half the limit's square root (Netflix, "Performance Under Load", 2018; `GradientLimit` of concurrency-limits). The reference is the run alone,
    without the queue, so a queue that stands for hours does not become what is normal. Law: FLOOR <= value <= ceiling.
    """

    __slots__ = ("_ceiling", "_estimate", "_is_pressed", "_relaxed_s", "_shortest_before_s", "_shortest_s", "_window_s", "value")

    def __init__(self, ceiling: int, now: float) -> None:
        self._ceiling = max(FLOOR, ceiling)
        self._estimate = float(self._ceiling)
        self._is_pressed = False
        self._shortest_s = self._shortest_before_s = inf
        self._window_s = self._relaxed_s = now
        self.value = self._ceiling

    def press(self) -> None:
        """Say that a request met the limit since the last run."""
        self._is_pressed = True

    def ran(self, latency_s: float, run_s: float, now: float) -> bool:
        """Take in one run: how long its slowest answer waited and ran, and the run alone. Gives whether the limit is in force (was met)."""
        if run_s > 0:  # else nothing ran to its end
            self._remember(run_s, now)
        pressed, self._is_pressed = self._is_pressed, False
        estimate = self._estimate
        if pressed:
            shortest_s = min(self._shortest_s, self._shortest_before_s)
            gradient = max(0.5, min(1.0, TOLERANCE * shortest_s / latency_s)) if latency_s > 0 else 1.0
            estimate = estimate * gradient + sqrt(estimate) / 2
            self._relaxed_s = now
        elif not 0 <= now - self._relaxed_s < RELAX_S:
            estimate += sqrt(estimate)
            self._relaxed_s = now
        self._estimate = min(max(estimate, FLOOR), self._ceiling)
        self.value = int(self._estimate)
        return pressed

    def _remember(self, run_s: float, now: float) -> None:
        if not 0 <= now - self._window_s < WINDOW_S:
            self._shortest_before_s, self._shortest_s = self._shortest_s, inf
            self._window_s = now
        self._shortest_s = min(self._shortest_s, run_s)


class Pace:
    """What runs of a version cost, as a price per run and one per row, each a running average.

    A run that takes far longer than expected says more of the machine (another process had the core) than of the model, unless another did so
    among the last few: the first one is passed over, so that a quick model is not sent to a thread for it.
    """

    __slots__ = ("_strange", "per_row_s", "per_run_s")

    MEMORY: Final = 0.1
    """Weight of the newest run."""

    STRANGE: Final = 4.0
    """As many times what was expected make a run strange."""

    FORGOTTEN: Final = 1 / 16
    """How much of a strange run each one that is not takes back."""

    def __init__(self) -> None:
        self.per_run_s = 0.0
        self.per_row_s = 0.0
        self._strange = 0.0

    def expect(self, per_run_s: float, per_row_s: float | None = None) -> None:
        """Take the cost of a run of one row, and of each row in a larger one, as the golden replay measured them, for the first estimate."""
        self.per_run_s = per_run_s
        self.per_row_s = per_run_s if per_row_s is None else per_row_s

    def learn(self, rows: int, seconds: float) -> None:
        """Take in one run."""
        expected_s = self.per_run_s + rows * self.per_row_s if rows > 1 else self.per_run_s
        if seconds > self.STRANGE * expected_s > 0:
            self._strange += 1
            if self._strange <= 1:
                return
        elif self._strange:
            self._strange = min(1.0, max(0.0, self._strange - self.FORGOTTEN))
        if rows == 1:
            self.per_run_s += self.MEMORY * (seconds - self.per_run_s)
        else:
            self.per_row_s += self.MEMORY * (max(0.0, seconds - self.per_run_s) / rows - self.per_row_s)

    def of_run(self, rows: int) -> float:
        """Seconds that one run of `rows` is expected to take."""
        return self.per_run_s + rows * self.per_row_s if rows > 1 else self.per_run_s

    def of_queue(self, rows: int, batch_rows: int) -> float:
        """Seconds until `rows` that wait will have run, `batch_rows` at a time."""
        whole, rest = divmod(rows, batch_rows)
        return whole * self.of_run(batch_rows) + (self.of_run(rest) if rest else 0.0)


def remaining_s(until_s: float, started_s: float, now: float) -> float:
    """Seconds that a run expected to end at `until_s` still takes; one that is overdue is taken to last as long again as it has lasted."""
    return until_s - now if now <= until_s else now - started_s
