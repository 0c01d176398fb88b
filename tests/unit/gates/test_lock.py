"""The lock gate: another environment warns, and says in what."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from modelyard.bundle import lock
from modelyard.gates.base import Candidate
from modelyard.gates.lock import Lock
from modelyard.types import Digest, Placement


def candidate(locked: lock.Lock) -> Candidate:
    bundle: Any = SimpleNamespace(lock=locked)
    return Candidate(bundle=bundle, placement=Placement(blobs="", index=Digest("")), keys=Path())


def test_the_same_environment_passes() -> None:
    assert Lock().judge(candidate(lock.take(["numpy"]))).outcome == "pass"


def test_another_version_or_an_absent_distribution_warns_by_name() -> None:
    locked = lock.Lock(python=platform.python_version(), packages={"numpy": "1.0", "never-heard-of": "2.0"})
    verdict = Lock().judge(candidate(locked))
    assert verdict.outcome == "warn" and "numpy 1.0 is" in verdict.evidence and "never-heard-of 2.0 is absent here" in verdict.evidence
