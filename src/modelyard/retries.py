"""Whether and when to try again: a budget, so that tries again never become the load, and the pause before one.

Hides nothing but the arithmetic. Pure: no clock and no sleep; the random draw is handed in. The Python client and the isolated runtime go by it.
"""

from __future__ import annotations

import threading
from typing import Final

SHARE: Final = 0.2
"""Of requests that may be tries again."""

RESERVE: Final = 3.0
"""Tries in hand at the start, for who asks seldom."""

MOST: Final = 10.0
"""Tries that quiet times save up, at most."""

TRIES: Final = 3
"""Of one request, the first included."""

BASE_S: Final = 0.05
LONGEST_S: Final = 2.0


class Budget:
    """Tokens: each request puts `SHARE` of one in, each try again takes one out (Finagle's RetryBudget). Any thread may use it.

    Law: tries again <= RESERVE + SHARE * requests; so a server that fails half of everything is asked at most 1.2 times as much.
    """

    def __init__(self, *, share: float = SHARE, reserve: float = RESERVE, most: float = MOST) -> None:
        self._share = share
        self._most = most
        self._tokens = min(reserve, most)
        self._lock = threading.Lock()

    def asked(self) -> None:
        """Take note of a request that is asked for the first time."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._share)

    def has(self, count: int) -> bool:
        """Whether `count` tries again could be paid for, or all that may be saved up is there."""
        return self._tokens >= min(count, self._most) - 1e-9

    def spend(self, count: int) -> None:
        """Pay for `count` tries that are made whatever there is; what is owed is worked off by requests."""
        with self._lock:
            self._tokens -= count

    def take(self) -> bool:
        """Whether one more try may be made; it is then paid for."""
        with self._lock:
            if self._tokens < 1.0 - 1e-9:  # five fifths are one
                return False
            self._tokens -= 1.0
            return True


def pause_s(tries: int, draw: float, *, retry_after_s: float = 0.0) -> float:
    """Seconds to wait after `tries` that failed: a random part (`draw`, 0 to 1) of a doubling bound, on top of what the server asked for.

    "Full jitter" (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015): callers refused together do not come back together.
    """
    return retry_after_s + draw * min(LONGEST_S, BASE_S * 2.0**tries)
