"""Verdicts and alerts that say alike are told as one line, on a terminal as on a page: what is new in a watch must not drown among 300 columns.

Hides what counts as alike. Pure. It must not judge, nor change the order of what is told: the most important comes first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

from modelyard.client import answers
from modelyard.monitor import alerts as raised
from modelyard.types import Verdict

Alert = TypeVar("Alert", answers.Alert, raised.Alert)

ALIKE = 5
"""How many verdicts of one detector and outcome are told each by itself, the most important; beyond that they are counted."""
ALERTS = 3
"""The same of alerts that are alike."""


def folded(verdicts: Sequence[Verdict], pages: Collection[str] = ()) -> list[list[Verdict]]:
    """The verdicts in their order, those together that are told as one (`told`): of one detector what says the same of one column each, columns that
    pass, and figures that are not known for the same reason; and what lies beyond the first `ALIKE` of a detector and outcome. Of the first three,
    what fails, pages or has a price stands by itself; a detector's word on all its columns always does.
    """
    alike: dict[tuple[str, ...], list[Verdict]] = {}
    for place, verdict in enumerate(verdicts):
        is_alone = verdict.outcome == "fail" or verdict.rule in pages or verdict.harm is not None
        said = None if is_alone else _shared(verdict)
        alike.setdefault((str(place),) if said is None else (_detector(verdict), verdict.outcome, said), []).append(verdict)
    groups: dict[tuple[str, ...], list[Verdict]] = {}
    seen: dict[tuple[str, ...], int] = {}
    for place, group in enumerate(alike.values()):
        kind = (_detector(group[0]), group[0].outcome, str(group[0].rule in pages))
        is_one_of_many = len(group) == 1 and bool(_about(group[0]))
        seen[kind] = seen.get(kind, 0) + is_one_of_many
        groups.setdefault(kind if is_one_of_many and seen[kind] > ALIKE else (str(place),), []).extend(group)
    return list(groups.values())


def told(group: Sequence[Verdict]) -> Verdict:
    """What one of the groups says, as one verdict; of a single one itself."""
    first = group[0]
    if len(group) == 1:
        return first
    said = _shared(first)
    columns = tuple(dict.fromkeys(column for verdict in group for column in verdict.columns))
    if said is None or any(_shared(verdict) != said for verdict in group):
        evidence = f"{len(group):,} more, each less important than those above"
    elif not said:
        evidence = f"{first.evidence}; {len(group) - 1:,} more pass"
    elif first.columns:
        evidence = f"{len(group):,} columns{said}"
    else:
        evidence = f"{', '.join(_about(verdict) for verdict in group)}: {said}"
    return Verdict(outcome=first.outcome, rule=_detector(first), evidence=evidence, columns=columns)


def alarms(alerts: Iterable[Alert]) -> list[list[Alert]]:
    """The alerts in their order, those of one deployment, detector, severity and state together that are told, or that the same silences or inhibits;
    pages before reports, and what is kept back last. Of one group those that cost most and whose cause is known come first, for not all of many are
    shown.
    """
    groups: dict[tuple[str, ...], list[Alert]] = {}
    for alert in alerts:
        kind = (alert.deployment, alert.severity, alert.rule.partition(":")[0], alert.state, alert.silenced_by, alert.inhibited_by)
        groups.setdefault(kind, []).append(alert)
    found = sorted(groups.values(), key=lambda group: _rank(group[0]))
    return [sorted(group, key=lambda alert: (-(alert.verdict.harm or 0.0), not alert.cause)) for group in found]


def _rank(alert: Alert) -> tuple[bool, str, bool]:
    return alert.state != "firing", alert.severity, bool(alert.silenced_by or alert.inhibited_by)


def rest(group: Sequence[Alert], shown: int, most: int = 4) -> str:
    """What of a group is not shown, in words: how many, and the first of their rules."""
    left = group[shown:]
    return f"{len(left):,} more {left[0].severity}{'s' if len(left) > 1 else ''} like {'this' if shown == 1 else 'these'}: {names(left, most)}"


def names(group: Sequence[Alert], most: int = 4) -> str:
    """What a group of alerts is about: the first of their rules, and how many more."""
    more = f" and {len(group) - most:,} more" if len(group) > most else ""
    return ", ".join(alert.rule for alert in group[:most]) + more


def _detector(verdict: Verdict) -> str:
    return verdict.rule.partition(":")[0]


def _about(verdict: Verdict) -> str:
    return verdict.rule.partition(":")[2]


def _shared(verdict: Verdict) -> str | None:
    """What it says beside its own column or figure, which others may say as well (empty: that it passes); None where it speaks for itself alone."""
    if len(verdict.columns) == 1 and _about(verdict):
        if verdict.outcome == "pass":
            return ""
        said = verdict.evidence.removeprefix(verdict.columns[0])
        return said if said != verdict.evidence and _CLAUSES.match(said) else None
    if verdict.outcome == "unknown" and not verdict.columns and _about(verdict):
        return _CLAUSES.split(verdict.evidence, maxsplit=1)[-1]
    return None


_CLAUSES = re.compile("[:;] ")
