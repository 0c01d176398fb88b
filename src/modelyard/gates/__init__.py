"""Checks before a version may take traffic: an opened bundle in, a report of Verdicts out.

Hides which checks there are and in what order they run. A gate only judges; what follows from its verdict is the caller's decision, except that
`require` turns a fail into Rejected. Built-ins stand in the literal table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from modelyard.errors import Rejected

if TYPE_CHECKING:
    from modelyard.gates.base import Candidate, Gate
    from modelyard.types import Verdict

GATES: dict[str, str] = {
    "seal": "modelyard.gates.seal:Seal",
    "golden-replay": "modelyard.gates.replay:Replay",
    "lock": "modelyard.gates.lock:Lock",
    "categories": "modelyard.gates.categories:Categories",
}
"""Gate name -> "module:Class", in the order in which they run."""


def run(candidate: Candidate, *, names: Iterable[str] = tuple(GATES)) -> tuple[Verdict, ...]:
    """What each gate finds of `candidate`, in order. A failed gate does not keep the others from being asked."""
    return tuple(load(name).judge(candidate) for name in names)


def load(name: str) -> Gate:
    """A fresh gate by its name in the table."""
    module, _, kind = GATES[name].partition(":")
    gate: Gate = getattr(import_module(module), kind)()
    return gate


def require(verdicts: Sequence[Verdict], *, what: str) -> None:
    """Return when no verdict is a fail. Raises Rejected, carrying all of them."""
    failed = [verdict.rule for verdict in verdicts if verdict.outcome == "fail"]
    if failed:
        raise Rejected(f"{what} was refused by {', '.join(failed)}", verdicts=verdicts)
