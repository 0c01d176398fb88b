"""Does this environment differ from the one that the model was made in?"""

from __future__ import annotations

from modelyard.bundle import lock
from modelyard.gates.base import Candidate
from modelyard.types import Verdict


class Lock:
    """Compares versions. A difference warns; whether it matters to the answers is what the golden replay finds."""

    def judge(self, candidate: Candidate) -> Verdict:
        """See `Gate.judge`."""
        locked = candidate.bundle.lock
        return lock.difference(locked, lock.here(locked))
