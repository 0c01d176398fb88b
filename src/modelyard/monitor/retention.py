"""By which time a home lets go of what is old: the clock's, unless that has gone much further than the home knows time to have gone.

A clock that is put years ahead would make all that was ever logged too old at once. So time is believed to go on from when it was last believed,
`FASTER` times as fast as this process lives, until it has caught up with the clock: a day an hour. A home that was away for a month keeps what has
become old meanwhile for a day and a half longer; where the clock is wrong there are days to put it right before much is gone. Pure. It must not
delete.
"""

from __future__ import annotations

SLACK_S = 2 * 86_400.0
"""A home that was away for no longer than this is believed at once, and so is a clock that is put forward by no more."""
FASTER = 24.0
BACK_S = 3600.0
"""A clock that goes back is remembered after so long: one that is not set yet when the machine starts would take years to be believed again."""


def believed(before: float | None, now: float, *, ran_s: float) -> float:
    """What time it is at most, when the clock says `now`, and `ran_s` seconds ago it was believed to be `before` (None: nobody knows). A clock that
    goes back is believed.
    """
    if before is None or now - before <= ran_s + SLACK_S:
        return now
    return min(now, before + FASTER * ran_s)


def remembered(before: float | None, found: float, *, ran_s: float) -> float:
    """What is remembered when it is `found` to be that time at most, `ran_s` seconds after it was last remembered to be `before`."""
    return found if before is None or found >= before or ran_s >= BACK_S else before
