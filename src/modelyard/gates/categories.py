"""Does the bundle list all that its model takes?"""

from __future__ import annotations

from modelyard.gates.base import Candidate
from modelyard.types import Verdict


class Categories:
    """Warns of a bundle made before the values of tagged columns were kept: its model takes only known ones, and nothing here can tell which."""

    def judge(self, candidate: Candidate) -> Verdict:
        """See `Gate.judge`."""
        inputs = candidate.bundle.strict_schema.inputs
        unlisted = [spec.name for spec in inputs if not spec.unknown_allowed and spec.categories is None]
        if unlisted:
            evidence = f"unknown values of {', '.join(unlisted)} are answered, although the model refuses them: package it again"
            return Verdict(outcome="warn", rule="categories", evidence=evidence, numbers={"inputs": float(len(unlisted))})
        return Verdict(outcome="pass", rule="categories", evidence="what the model refuses is refused at the door")
