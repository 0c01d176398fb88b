"""The port of gates and what they are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from modelyard.bundle import Bundle
    from modelyard.types import Placement, Verdict


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a gate judges: the opened bundle, where its bytes lie, and the key folder whose trust holds."""

    bundle: Bundle
    placement: Placement
    keys: Path


class Gate(Protocol):
    """One check. It changes nothing, answers by itself within a bounded time, and raises for nothing that the candidate can cause."""

    def judge(self, candidate: Candidate) -> Verdict:
        """What the check found."""
        ...
