"""Which failures are explained in a turn, and which explanations still stand.

Hides that an explanation is a search through the window: only so many are made in one turn, the most important failures first, and each stands for a
while. Pure. A fault in an explanation must not end the watch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from modelyard.monitor.base import Evidence
from modelyard.monitor.cause import Cause, Happened, explain
from modelyard.types import Verdict

MOST = 4
"""How many failures are explained in one turn; the others in the next ones."""
STANDS_S = 900.0


def explained(before: Mapping[str, Cause], failing: Sequence[Verdict], evidence: Evidence, happened: Sequence[Happened] = ()) -> dict[str, Cause]:
    """By rule, why each of `failing` (the most important first) fails: as explained `before`, unless that is too old, else now.

    What cannot be explained is said to be so; never raises.
    """
    found: dict[str, Cause] = {}
    made = 0
    for verdict in failing:
        had = before.get(verdict.rule)
        if verdict.rule in found:
            continue
        if had is not None and 0 <= evidence.now - had.at < STANDS_S:
            found[verdict.rule] = had
        elif made < MOST:
            made += 1
            found[verdict.rule] = msgspec.structs.replace(_explain(verdict, evidence, happened), at=evidence.now)
        elif had is not None:
            found[verdict.rule] = had
    return found


def _explain(verdict: Verdict, evidence: Evidence, happened: Sequence[Happened]) -> Cause:
    try:
        return explain(verdict, evidence, happened=happened)
    except Exception as error:  # noqa: BLE001  # as of a detector: no explanation is worth the watch
        return Cause(kind="unknown", evidence=f"the explanation failed ({type(error).__name__})", advice="")
