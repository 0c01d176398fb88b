"""A deployment as a person writes it, in flags or in a `deployment.toml`: `10m`, `5%`, `steps = [1, 10, 50, 100]`.

Hides how times and shares are written, and that what a file says and this release does not know is refused by name. Pure; whether a strategy can be
honoured is `strategies`' to say.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from modelyard.errors import InvalidConfig
from modelyard.rollout import strategies
from modelyard.targets.base import MAX_TIME_S, Step, Strategy

Time = str | int | float
Share = str | int | float

KINDS = ("direct", "blue-green", "canary", "shadow", "ab")
LIMIT_BYTES = 64 << 10
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_WORDS = (
    ("Object contains unknown", "unknown"),
    ("Invalid enum value", "there is no"),
    ("Expected", "expected"),
    (" | null`", "`"),
    ("`int | float | str`", "a number or a text"),
    ("`array`", "a list"),
    ("`object`", "a table"),
    ("`str`", "a text"),
    ("`int`", "a whole number"),
    ("`float`", "a number"),
    ("`bool`", "true or false"),
)
_TIME = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class WrittenStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: the candidate's `weight`, or the `weights` of both, `champion` and `candidate`, which sum to 100."""

    weight: int | None = None
    weights: dict[Literal["champion", "candidate"], int] | None = None
    time: Time | None = None
    requests: int | None = None
    approval: bool = False


class Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall serve (`model`, a reference), under which `name`, and how it shall reach the traffic.

    Either `steps` with `step_time`, `step_requests` and `approve`, or one table `[[step]]` for each.
    """

    model: str | None = None
    name: str | None = None
    breaking: bool = False
    strategy: Literal["direct", "blue-green", "canary", "shadow", "ab"] = "direct"
    steps: tuple[int, ...] = ()
    step_time: Time | None = None
    step_requests: int | None = None
    approve: tuple[int, ...] = ()
    step: tuple[WrittenStep, ...] = ()
    guards: tuple[str, ...] = ()
    mirror: Share | None = None
    sticky: str | None = None
    metric: str | None = None
    strict: bool = False
    max_time: Time | None = None
    alpha: float = 0.05
    promote: bool = False
    keep_warm: Time | None = None
    prometheus: str | None = None


def read(text: str) -> Written:
    """What a `deployment.toml` says. Raises InvalidConfig naming what is unknown, of another type, or no TOML."""
    try:
        return msgspec.toml.decode(text, type=Written)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"deployment.toml: {_told(str(error))}", field="file", rule="known") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidConfig(f"deployment.toml cannot be read as TOML: {error}", field="file", rule="form") from error


def _told(found: str) -> str:
    """What the decoder found, in the words of TOML, and what might stand there instead."""
    what, _, place = found.partition(" - at `$.")
    place = place.rstrip("`")
    for ours, theirs in _WORDS:
        what = what.replace(ours, theirs)
    told = f"{place}: {what}" if place else what
    if "unknown field" in what:
        return f"{told}; it may say {', '.join((WrittenStep if place.startswith('step') else Written).__struct_fields__)}"
    return f"{told}; there are {', '.join(KINDS)}" if place == "strategy" else told


def strategy(written: Written) -> Strategy:
    """The strategy that is written, completed. Raises InvalidConfig for what cannot be read or honoured."""
    return strategies.complete(
        Strategy(
            kind=written.strategy,
            steps=_steps(written),
            guards=written.guards,
            mirror=None if written.mirror is None else share(written.mirror, "mirror"),
            sticky=written.sticky,
            metric=written.metric,
            strict=written.strict,
            max_time_s=MAX_TIME_S if written.max_time is None else seconds(written.max_time, "max_time"),
            alpha=written.alpha,
            promote=written.promote,
            keep_warm_s=None if written.keep_warm is None else seconds(written.keep_warm, "keep_warm"),
            prometheus=written.prometheus,
        )
    )


def seconds(text: Time, field: str) -> float:
    """A time such as `90s`, `10m`, `1h30m`, or a number of seconds. Raises InvalidConfig."""
    if isinstance(text, str):
        if _TIME.fullmatch(text.replace(" ", "")):
            return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text.replace(" ", "")))
        if not _is_number(text):
            raise InvalidConfig(f"{field} is a time such as 90s, 10m or 1h30m, not {text}", field=field, rule="time")
    return float(text)


def share(text: Share, field: str) -> float:
    """A share such as `5%`, or a number from 0 to 1. Raises InvalidConfig."""
    if isinstance(text, str):
        if text.strip().endswith("%") and _is_number(text.strip()[:-1]):
            return float(text.strip()[:-1]) / 100
        if not _is_number(text):
            raise InvalidConfig(f"{field} is a share such as 5%, not {text}", field=field, rule="share")
    if float(text) > 1:
        raise InvalidConfig(f"{field} is a share: write {text}% for percent, or a number from 0 to 1", field=field, rule="share")
    return float(text)


def weights(text: str, field: str = "steps") -> tuple[int, ...]:
    """Percents such as `1,10,50,100`. Raises InvalidConfig."""
    parts = [part.strip().removesuffix("%").strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        raise InvalidConfig(f"{field} are whole percents such as 1,10,50,100, not {text}", field=field, rule="form")
    return tuple(map(int, parts))


def _steps(written: Written) -> tuple[Step, ...]:
    if written.step:
        if written.steps or written.approve or written.step_time is not None or written.step_requests is not None:
            raise InvalidConfig("give either steps, step_time, step_requests and approve, or a table [[step]] for each", field="step", rule="twice")
        return tuple(map(_step, written.step))
    defaults = {
        "canary": strategies.WEIGHTS, "ab": (strategies.SPLIT,), "shadow": (0,), "blue-green": (100,), "direct": (100,),
    }  # fmt: skip
    wanted = written.steps or defaults[written.strategy]
    waits = written.strategy in ("canary", "ab", "shadow")
    time_s, requests = (strategies.STEP_S, strategies.STEP_REQUESTS) if waits else (0.0, 0)
    if written.step_time is not None:
        time_s = seconds(written.step_time, "step_time")
    if written.step_requests is not None:
        requests = written.step_requests
    # The end of a shadow or an experiment is a flip to 100 %, which may need an approval too.
    ends = (100,) if written.strategy in ("shadow", "ab") and 100 in written.approve and 100 not in wanted else ()
    steps = strategies.steps((*wanted, *ends), minimum_s=time_s, minimum_requests=requests, approvals=written.approve)
    return tuple(Step(weight=100, approval=True) if ends and step.weight == 100 else step for step in steps)


def _step(written: WrittenStep) -> Step:
    if (written.weight is None) == (written.weights is None):
        raise InvalidConfig("a step has a weight, the candidate's percent, or the weights of champion and candidate", field="step", rule="weight")
    if written.weights is not None and (sum(written.weights.values()) != 100 or "candidate" not in written.weights):
        total = sum(written.weights.values())
        raise InvalidConfig(f"the weights of a step, champion's and candidate's, sum to 100, not {total}", field="weights", rule="sum")
    weight = written.weight if written.weights is None else written.weights["candidate"]
    return Step(
        weight=weight or 0,
        minimum_s=strategies.STEP_S if written.time is None else seconds(written.time, "time"),
        minimum_requests=strategies.STEP_REQUESTS if written.requests is None else written.requests,
        approval=written.approval,
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*\d+(\.\d+)?\s*", text) is not None
