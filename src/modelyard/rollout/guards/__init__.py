"""Guards: what a candidate must keep to, compared with the champion, to go on; judged after every batch for as long as it takes.

Hides the statistics. Pure: cumulative counts per step in, Verdicts out, so that a restart finds the same. It must not fetch evidence or move traffic.

Law, held by simulation (`tests/property/test_guard_laws.py`, `python -m benchmarks guards`): where a candidate keeps to its bounds, the chance
that any guard ever fails is `alpha` at most, over all guards and steps and however often it is asked; and so it is that any passes that the
candidate breaks throughout. Each guard has an equal part of `alpha`. Assumed is that within a step requests fail or are slow independently of one
another (for absolute bounds on latencies: those of one second of those of another; where callers keep to a version: those of one group of callers of
those of another), and that what changes in a step changes for both alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from modelyard.rollout.guards import labelled, quantiles, shares, shift
from modelyard.rollout.guards.base import Finding as Finding
from modelyard.rollout.guards.base import Samples as Samples
from modelyard.rollout.guards.base import Stratum as Stratum
from modelyard.rollout.guards.grammar import GOLDEN, METRICS
from modelyard.rollout.guards.grammar import Guard as Guard
from modelyard.rollout.guards.grammar import parse as parse
from modelyard.rollout.guards.missing import UNASKED as UNASKED
from modelyard.rollout.guards.missing import missing
from modelyard.types import Outcome, Verdict

_FAR = 2.0**24
_MOST = 700.0
ALIKE = 0.5
"""Where requests of callers who keep to a version count as fewer of different callers than this share of them, it is callers that are wanting."""
_FINDERS: dict[str, Callable[[Guard, Sequence[Stratum], float], Finding]] = {
    "error_rate": shares.error_rate,
    "disagreement": shares.disagreement,
    "accuracy": shares.accuracy,
    "prometheus": shares.gauge,
    "prediction_shift": shift.prediction_shift,
    "missing": missing,
    "auc": labelled.auc,
    "mae": labelled.mae,
    "rmse": labelled.rmse,
    **dict.fromkeys(("p50", "p90", "p95", "p99"), quantiles.quantile),
}


def judge_all(guards: Sequence[Guard], strata: Sequence[Stratum], *, alpha: float = 0.05) -> tuple[Verdict, ...]:
    """Each guard's Verdict, at an equal part of `alpha` each. Golden has no chance in it and takes no part."""
    tested = sum(guard.metric != GOLDEN for guard in guards)
    return tuple(judge(guard, strata, alpha=alpha / max(1, tested)) for guard in guards)


def judge(guard: Guard, strata: Sequence[Stratum], *, alpha: float) -> Verdict:
    """`fail`: evidence against the bound at level `alpha` over all `strata`, the steps so far in their order; `pass`: evidence for it at that level.

    Else `unknown`, or `warn` where the champion breaks an absolute bound too and the candidate is not shown to be worse. `numbers`, each where it is
    known: `estimate` and `champion` (in the last step that has them), `bound`, `holds` (1: the estimate keeps to the bound, 0: it does not), `low`
    and `high` (the estimate's limits, always valid at `alpha`), `e_fail` and `e_pass` (to be held against 1 / `alpha`), `requests` and
    `champion_requests` (over all steps), `missing` (how many more of the candidate's it would take at these rates), `alpha`, and where callers keep
    to a version `worth` and `champion_worth` (as how many of different callers theirs count). Seconds, and shares of one.
    """
    if guard.metric == GOLDEN:
        return _golden(guard, strata)
    if not strata:
        return Verdict(outcome="unknown", rule=str(guard), evidence="nothing was seen yet", numbers={"alpha": alpha})
    finding = _FINDERS[guard.metric](guard, strata, alpha)
    needed = math.log(1 / alpha)
    failing, passing = finding.failing(1.0), finding.passing(1.0)
    bound = guard.bound(finding.champion)
    is_known = not (math.isnan(finding.estimate) or math.isnan(bound))
    holds = float(guard.keeps(finding.estimate, finding.champion)) if is_known else math.nan
    outcome: Outcome = "fail" if failing >= needed else "pass" if passing >= needed else "unknown"
    if outcome == "fail" and finding.broken_before and finding.worse is not None and finding.worse() < needed:
        outcome = "warn"
    missing = _missing(finding, needed, holds) if outcome == "unknown" else math.nan
    low, high = finding.limits
    numbers = {
        "estimate": finding.estimate,
        "champion": finding.champion,
        "bound": bound,
        "holds": holds,
        "low": low,
        "high": high,
        "e_fail": math.exp(min(failing, _MOST)),
        "e_pass": math.exp(min(passing, _MOST)),
        "requests": finding.requests,
        "champion_requests": finding.champion_requests,
        "missing": missing,
        "alpha": alpha,
    }
    if finding.worth is not None:
        numbers |= {"worth": finding.worth[0], "champion_worth": finding.worth[1]}
    known = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    return Verdict(outcome=outcome, rule=str(guard), evidence=_sentence(guard, finding, known, outcome), numbers=known)


def _golden(guard: Guard, strata: Sequence[Stratum]) -> Verdict:
    told = next((each.golden for each in reversed(strata) if each.golden is not None), None)
    if told is None:
        return Verdict(outcome="unknown", rule=str(guard), evidence="no worker of the candidate has replayed its golden records yet")
    numbers = {"holds": 1.0} if told.outcome == "pass" else {"holds": 0.0} if told.outcome == "fail" else {}
    return Verdict(outcome=told.outcome, rule=str(guard), evidence=told.evidence, numbers=told.numbers | numbers)


def _missing(finding: Finding, needed: float, holds: float) -> float:
    """How many more of the candidate's units it takes until the guard passes (its estimate holds) or fails, if all goes on as in the last step."""
    if not finding.requests or math.isnan(holds):
        return max(0.0, finding.least - finding.requests) or math.nan
    evidence = finding.passing if holds else finding.failing
    times = 2.0
    while evidence(times) < needed:
        times *= 4
        if times > _FAR:
            return math.nan
    low, high = max(1.0, times / 4), times
    for _ in range(5):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if evidence(middle) >= needed else (middle, high)
    return math.ceil((high - 1) * finding.requests)


def _sentence(guard: Guard, finding: Finding, numbers: dict[str, float], outcome: Outcome) -> str:
    units = finding.units
    if "estimate" not in numbers:
        least = f"; at least {numbers['missing']:,.0f} more {units} are needed" if "missing" in numbers else ""
        return f"{guard.metric} is not known yet, of {finding.requests:,.0f} {units}{least}"
    told = f"{guard.metric} {_shown(guard, numbers['estimate'])}"
    if "low" in numbers and "high" in numbers:
        told += f" ({_shown(guard, numbers['low'])} to {_shown(guard, numbers['high'])})"
    told += f" of {finding.requests:,.0f} {units}"
    if "champion" in numbers:
        told += f", the champion {_shown(guard, numbers['champion'])}"
        told += f" of {finding.champion_requests:,.0f}" if finding.champion_requests else ""
    if "bound" in numbers:
        told += f"; the bound is {_shown(guard, numbers['bound'])}"
    if outcome == "warn":
        return f"{told}, which the champion breaks too, and the candidate is not shown to be worse"
    if outcome == "unknown":
        missing = f": about {_about(numbers['missing']):,.0f} more would do" if "missing" in numbers else ""
        return f"{told}, not told apart yet{_callers(guard, finding) or missing}"
    if outcome == "pass" and guard.metric == "error_rate" and guard.form == "ratio" and not numbers.get("holds"):
        return f"{told}, and rarer than {_shown(guard, shares.NEGLIGIBLE)}, where a ratio does not count, at level {numbers['alpha']:.3g}"
    return f"{told}, {'broken' if outcome == 'fail' else 'kept'} at level {numbers['alpha']:.3g}"


def _callers(guard: Guard, finding: Finding) -> str:
    """Why so many do not tell, where it is for want of callers: more requests of the same ones would not either."""
    if finding.worth is None:
        return ""
    (mine, other), compares = finding.worth, guard.compares and finding.champion_requests > 0
    if mine >= ALIKE * finding.requests and not (compares and other < ALIKE * finding.champion_requests):
        return ""
    champion = f", the champion's no more than {_about(other):,.0f}" if compares else ""
    worth = f"{_about(mine):,.0f}"
    said = f"callers keep to a version, so these say no more than {worth} request{'' if worth == '1' else 's'} of different callers would"
    return f": {said}{champion}; it takes more callers"


def _about(number: float) -> float:
    """To two digits."""
    return float(f"{number:.2g}") if number >= 100 else number


def _shown(guard: Guard, value: float) -> str:
    units = METRICS[guard.metric].units
    if units == "latency":
        return f"{value * 1e3:.3g} ms"
    return f"{value * 100:.3g} %" if units == "share" and guard.metric != "auc" else f"{value:.4g}"
