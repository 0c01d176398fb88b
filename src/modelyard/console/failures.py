"""What the loops of the control process say when their turns fail: in the log, and to whoever asks how the home does.

Hides that a failure which goes on is logged once in a while only: a store that is away for a night must not fill the disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from modelyard.errors import ModelyardError

AGAIN_S = 60.0  # between two log lines of one failure

log = logging.getLogger("modelyard.control")


class Failures:
    """The log lines of loops whose turns fail: one when a failure is new, one a minute while it goes on. Safe from several threads."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, float]] = {}
        self._now: dict[str, str] = {}

    def tell(self, what: str, error: Exception) -> None:
        """A turn of the loop `what` ended in `error`."""
        said, now = (error.message if isinstance(error, ModelyardError) else repr(error)), time.monotonic()
        self._now[what] = said if isinstance(error, ModelyardError) else f"{type(error).__name__}; the log of the control process tells more"
        before, at_s = self._told.get(what, ("", 0.0))
        if said == before and now - at_s < AGAIN_S:
            return
        self._told[what] = (said, now)
        if isinstance(error, ModelyardError):
            log.warning("%s: %s", what, error.message)
        else:
            log.error("%s failed", what, exc_info=error)

    def forget(self, what: str) -> None:
        """A turn of the loop `what` went well."""
        self._told.pop(what, None)
        self._now.pop(what, None)

    def now(self) -> dict[str, str]:
        """The loops whose latest turn failed, and why."""
        return dict(sorted(self._now.copy().items()))


def seen(failing: Mapping[str, str], sees: Callable[[str], bool]) -> dict[str, str]:
    """What fails, as who `sees` some models may know it: why may be about others', and whoever is held to some sees no name that is none."""
    return dict(failing) if sees("") else dict.fromkeys(failing, "the log of the control process says why")
