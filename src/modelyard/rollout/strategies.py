"""What a strategy may say: filled in where it says nothing, refused by name where it cannot be honoured.

Hides the defaults and which evidence each strategy can gather. Pure. Law: `complete(complete(s)) == complete(s)` (`tests/property/test_rollouts.py`).
It must not know a deployment: what depends on one is `require_fit`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import InvalidConfig, InvalidInput
from modelyard.rollout.guards.grammar import GOLDEN, METRICS, Guard, parse
from modelyard.rollout.guards.missing import UNASKED
from modelyard.targets.base import Step, Strategy
from modelyard.types import parse_sticky

if TYPE_CHECKING:
    from modelyard.types import Schema

WEIGHTS = (1, 10, 50, 100)
STEP_S = 300.0
STEP_REQUESTS = 100
SPLIT = 50
MIRROR = 0.05
GUARDS = 20
UNASKED_SHARE = 0.02
"""Of alpha, what the guard takes that nobody asked for: what it is there to find is certain after a few answers, at any level."""
_PROMETHEUS = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?(/[A-Za-z0-9._~%/-]*)?")
MAX_S = 365 * 86_400.0
GATHERS: dict[str, frozenset[str]] = {
    "direct": frozenset(),
    "blue-green": frozenset({"live", "labels", "prometheus", "golden"}),
    "canary": frozenset({"live", "mirror", "labels", "prometheus", "golden"}),
    "shadow": frozenset({"mirror", "prometheus", "golden"}),
    "ab": frozenset({"live", "mirror", "labels", "prometheus", "golden"}),
}
"""Strategy -> the evidence that it gathers about the candidate."""
MIRRORED = frozenset({"error_rate", "missing", "prediction_shift"})
"""What mirrored requests show as live ones do. Not latency: they wait behind every live request. Not what needs labels: they are no predictions."""


def steps(
    weights: Sequence[int], *, minimum_s: float = STEP_S, minimum_requests: int = STEP_REQUESTS, approvals: Sequence[int] = ()
) -> tuple[Step, ...]:
    """A step for each weight, all with the same minimums, those in `approvals` only with an approval. Raises InvalidConfig for one without a step."""
    unknown = [weight for weight in approvals if weight not in weights]
    if unknown:
        raise _refused(f"there is no step of {unknown[0]} % that could be approved; the steps are {_listed(weights)}", "approve", "known")
    return tuple(Step(weight=weight, minimum_s=minimum_s, minimum_requests=minimum_requests, approval=weight in approvals) for weight in weights)


def complete(strategy: Strategy) -> Strategy:
    """`strategy` with all that it leaves open filled in. Raises InvalidConfig for what is unknown, contradicts itself, or could not be honoured."""
    _require_options(strategy)
    guards = tuple(map(parse, strategy.guards))
    _require_guards(strategy, guards)
    filled = msgspec.structs.replace(strategy, guards=tuple(map(str, guards)), steps=_steps(strategy), mirror=_mirror(strategy, guards))
    _require_steps(filled)
    _require_beside(filled, guards)
    return filled


def deciding(strategy: Strategy) -> Guard | None:
    """What an A/B test decides by: passed when the candidate is the better by the metric, failed when the champion is. None for other strategies.

    Raises InvalidConfig for a metric that there is not, or that only one of the versions has.
    """
    if strategy.metric is None:
        return None
    metric = METRICS.get(strategy.metric)
    if metric is not None and metric.better is not None and metric.compares:
        return parse(f"{strategy.metric}{'<' if metric.better == 'lower' else '>'}champion")
    guard = parse(strategy.metric) if "<" in strategy.metric or ">" in strategy.metric else None
    if guard is None or not (guard.form == "difference" and guard.number == 0):
        names = [name for name, each in METRICS.items() if each.better is not None and each.compares]
        raise _refused(f"an A/B test decides by {', '.join(names)}, or by prometheus(QUERY)>champion", "metric", "known")
    return guard


def is_shown(guard: Guard, weight: int) -> bool:
    """Whether a step of this weight has anything to show to `guard`: at 100 % nothing of the champion is seen any more, so what holds the candidate
    against it has been earned in the step before.
    """
    return weight < 100 or not (guard.compares or guard.metric == "prediction_shift" or "mirror" in guard.needs)


def unasked(strategy: Strategy) -> Guard | None:
    """The guard that judges a version beside a champion though nobody asked for it; None where no champion is beside it, or one was asked for."""
    if strategy.kind not in ("canary", "shadow", "ab") or any(parse(text).metric == "missing" for text in strategy.guards):
        return None
    return parse(UNASKED)


def share_of_alpha(strategy: Strategy) -> float:
    """The probability of a false alarm that each guard may spend, over all steps: together, with an A/B test's metric and what nobody
    asked for, `alpha`.

    Golden records are replayed: there is no chance in that, and it takes no part.
    """
    rest = strategy.alpha * (1.0 if unasked(strategy) is None else 1 - UNASKED_SHARE)
    return rest / max(1, sum(guard != GOLDEN for guard in strategy.guards) + (strategy.metric is not None))


def written_time(seconds: float) -> str:
    """As it is written for a rollout, in the largest unit that gives a whole number: `10m`, `6h`, `1d`."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g}{name}"
    return f"{seconds:g}s"


def require_fit(strategy: Strategy, *, has_champion: bool, schema: Schema, breaking: bool) -> None:
    """Return when a completed `strategy` can bring a version with this schema out here. Raises InvalidConfig, saying what else can."""
    if not has_champion and strategy.kind != "direct":
        raise _refused(
            "nothing serves under this name yet, so there is nothing to go beside: deploy the first version directly", "strategy", "champion"
        )
    if breaking and strategy.kind not in ("direct", "blue-green"):
        raise _refused(
            f"a {strategy.kind} answers by both versions at one time, so their schemas must agree: --breaking goes with direct or blue-green",
            "breaking",
            "strategy",
        )
    decider = deciding(strategy)
    for guard in (*map(parse, strategy.guards), *(() if decider is None else (decider,))):
        _require_task(guard, schema)
    if strategy.sticky is not None:
        where, name = parse_sticky(strategy.sticky)
        if where == "field" and name not in [spec.name for spec in schema.inputs]:
            raise _refused(
                f"the model has no input {name} to be sticky by; it has {_listed([spec.name for spec in schema.inputs])}", "sticky", "known"
            )


def require_reach(strategy: Strategy, allowed: str) -> None:
    """Return when what the guards ask is among `allowed`, URLs separated by commas. Raises InvalidConfig.

    Whoever may deploy would else have the control process ask any address of its network.
    """
    urls = [url.strip().rstrip("/") for url in allowed.split(",")]
    if strategy.prometheus is not None and strategy.prometheus.rstrip("/") not in urls:
        raise _refused("guards may ask a Prometheus that the setting prometheus_urls of the control process names", "prometheus", "allowed")


def _require_options(strategy: Strategy) -> None:
    kind = strategy.kind
    for name, is_given, kinds in (
        ("metric", strategy.metric is not None, ("ab",)),
        ("sticky", strategy.sticky is not None, ("canary", "ab")),
        ("mirror", bool(strategy.mirror), ("canary", "ab", "shadow")),
        ("promote", strategy.promote, ("shadow",)),
        ("strict", strategy.strict, ("blue-green", "canary", "shadow", "ab")),
        ("keep_warm_s", strategy.keep_warm_s is not None, ("direct", "blue-green", "canary", "shadow", "ab")),
    ):
        if is_given and kind not in kinds:
            raise _refused(f"{name} is nothing that {kind} can honour; it goes with {_either(kinds)}", name, "strategy")
    if strategy.mirror is not None and not 0 <= strategy.mirror <= 1:
        raise _refused("mirror is a share from 0 to 100 %", "mirror", "range")
    if not 0 < strategy.max_time_s <= MAX_S:
        raise _refused("max_time is above 0 and at most a year", "max_time_s", "range")
    if not 0 < strategy.alpha <= 0.5:
        raise _refused("alpha is above 0 and at most 0.5", "alpha", "range")
    if strategy.keep_warm_s is not None and not 0 <= strategy.keep_warm_s <= MAX_S:
        raise _refused("keep_warm is from 0 to a year", "keep_warm_s", "range")
    if strategy.strict and not strategy.guards:
        raise _refused("strict waits for guards, and there is none: give --guard", "strict", "guards")
    if strategy.sticky is not None:
        try:
            parse_sticky(strategy.sticky)
        except InvalidInput as error:
            raise _refused(error.message, "sticky", "form") from error
    if kind == "ab" and (strategy.metric is None or strategy.sticky is None):
        lacks = (
            "metric NAME, by which it is decided" if strategy.metric is None else "sticky header:NAME or field:NAME, so that a caller keeps a version"
        )
        raise _refused(f"an A/B test needs --{lacks}", "metric" if strategy.metric is None else "sticky", "required")
    _require_prometheus_url(strategy.prometheus)


def _require_guards(strategy: Strategy, guards: tuple[Guard, ...]) -> None:
    kind = strategy.kind
    if len(guards) > GUARDS:
        raise _refused(f"a rollout has at most {GUARDS} guards", "guard", "count")
    if len(set(guards)) != len(guards):
        raise _refused("a guard is given once", "guard", "unique")
    if guards and kind == "direct":
        raise _refused(
            "direct moves all traffic in one flip and judges nothing: guards go with canary, blue-green, shadow or ab", "guard", "strategy"
        )
    decider = deciding(strategy)
    judged = guards if decider is None else (*guards, decider)
    for guard in judged:
        lacks = sorted(guard.needs - GATHERS[kind])
        if kind == "shadow" and guard.metric in MIRRORED:
            continue
        if lacks:
            raise _refused(f"the guard {guard} needs {_EVIDENCE[lacks[0]]}, which {kind} does not gather; {_instead(lacks[0])}", "guard", "evidence")
    if any("mirror" in guard.needs for guard in guards) and strategy.mirror == 0:
        raise _refused("a guard on disagreement needs a share of the requests to be mirrored: mirror above 0", "mirror", "evidence")
    asks = any("prometheus" in guard.needs for guard in judged)
    if asks != (strategy.prometheus is not None):
        said = "a guard asks Prometheus: give its URL (--prometheus)" if asks else "no guard asks Prometheus: leave its URL out"
        raise _refused(said, "prometheus", "guard")


_EVIDENCE = {
    "live": "answers to live requests",
    "mirror": "mirrored requests",
    "labels": "labelled answers",
    "prometheus": "Prometheus",
    "golden": "golden records",
}


def _instead(need: str) -> str:
    return f"it goes with {_either([kind for kind, gathers in GATHERS.items() if need in gathers])}"


def _steps(strategy: Strategy) -> tuple[Step, ...]:
    given, kind = strategy.steps, strategy.kind
    if kind == "direct":
        return given or (Step(weight=100),)
    if kind == "blue-green":
        return given or (Step(weight=100, minimum_s=0.0),)
    if kind == "canary":
        return given or steps(WEIGHTS)
    first = given or steps((0 if kind == "shadow" else SPLIT,))
    # What comes after the end of a shadow or an experiment is the flip.
    return first if len(first) > 1 else (*first, Step(weight=100))


def _mirror(strategy: Strategy, guards: tuple[Guard, ...]) -> float:
    if strategy.mirror is not None:
        return strategy.mirror
    if strategy.kind == "shadow":
        return 1.0
    return MIRROR if any("mirror" in guard.needs for guard in guards) else 0.0


def _require_steps(strategy: Strategy) -> None:
    kind, weights = strategy.kind, [step.weight for step in strategy.steps]
    if any(not 0 <= weight <= 100 for weight in weights):
        raise _refused("the weights of a step, champion's and candidate's, are from 0 to 100 % and sum to 100", "steps", "sum")
    if kind in ("direct", "blue-green") and weights != [100]:
        raise _refused(f"{kind} has one step, of 100 %; several go with canary", "steps", "strategy")
    if kind == "direct" and (strategy.steps[0].minimum_s or strategy.steps[0].minimum_requests):
        raise _refused("direct settles as soon as it is in force: a step's minimums go with canary, blue-green, shadow or ab", "steps", "strategy")
    if kind == "shadow" and weights != [0, 100]:
        raise _refused("a shadow answers nobody: its one step has 0 %; what it is asked is said by --mirror", "steps", "strategy")
    if kind == "ab" and not (len(weights) == 2 and 0 < weights[0] < 100 == weights[1]):
        raise _refused("an A/B test has one step, the candidate's share from 1 to 99 %", "steps", "strategy")
    if kind == "canary" and not (weights[0] > 0 and weights[-1] == 100 and all(a < b for a, b in pairwise(weights))):
        raise _refused(
            f"the steps of a canary rise from above 0 and end with 100, such as {_listed(WEIGHTS)}; not {_listed(weights)}", "steps", "rise"
        )
    if strategy.kind == "shadow" and strategy.mirror == 0:
        raise _refused("a shadow is asked a share above 0 of the requests", "mirror", "range")
    for step in strategy.steps:
        if not 0 <= step.minimum_s < math.inf or step.minimum_requests < 0:
            raise _refused("the minimums of a step are 0 or more", "steps", "range")
        if step.minimum_s > strategy.max_time_s:
            least, most = written_time(step.minimum_s), written_time(strategy.max_time_s)
            raise _refused(f"a step that takes at least {least} would be paused after {most}: raise --max-time", "max_time_s", "range")


def _require_beside(strategy: Strategy, guards: tuple[Guard, ...]) -> None:
    first = strategy.steps[0].weight
    for guard in guards:
        if not is_shown(guard, first):
            raise _refused(
                f"the guard {guard} compares both versions at one time, and here one answers after the other: bound it alone,"
                " or use a canary with a step below 100 %",
                "guard",
                "evidence",
            )


def _require_task(guard: Guard, schema: Schema) -> None:
    metric = guard.metric
    if metric in ("accuracy", "auc") and schema.task != "classification":
        raise _refused(f"{metric} is of classifiers, and this model's task is {schema.task}; mae and rmse are of regressors", "guard", "task")
    if metric in ("mae", "rmse") and schema.task != "regression":
        raise _refused(f"{metric} is of regressors, and this model's task is {schema.task}; accuracy and auc are of classifiers", "guard", "task")
    if metric == "auc" and (schema.classes is None or len(schema.classes) != 2 or len(schema.outputs) < 2):
        raise _refused("auc needs a classifier of two classes that answers with probabilities; accuracy goes with any", "guard", "task")


def _require_prometheus_url(url: str | None) -> None:
    # It is kept in the deployment, which many may read, and what is asked is one path below it: so no password, and nothing that would end the path.
    if url is not None and not (_PROMETHEUS.fullmatch(url) and len(url) <= 2000):
        raise _refused("prometheus is the http or https URL of a Prometheus server, without a password, a query or a fragment", "prometheus", "url")


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _either(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _refused(message: str, field: str, rule: str) -> InvalidConfig:
    return InvalidConfig(message, field=field, rule=rule)
