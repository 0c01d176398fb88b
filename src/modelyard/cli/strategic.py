"""The flags by which `deploy` and `plan` are told how a version shall reach the traffic, or the `deployment.toml` that says it.

Hides that two verbs share them. What a flag means, and what may be combined, is `rollout.written`'s and `rollout.strategies`' to say.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from modelyard import files
from modelyard.errors import InvalidConfig
from modelyard.rollout import written
from modelyard.rollout.written import Written

Kind = Literal["direct", "blue-green", "canary", "shadow", "ab"]


def _flags(
    *,
    file: Annotated[Path | None, typer.Option("--file", help="A deployment.toml that says all of this.")] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help=f"{', '.join(written.KINDS)} (default: direct).")] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="The candidate's percent, step by step: 1,10,50,100.")] = None,
    step_time: Annotated[str | None, typer.Option("--step-time", help="How long each step takes at least: 10m.")] = None,
    step_requests: Annotated[
        int | None, typer.Option("--step-requests", help="How many requests the candidate answers in each step at least.")
    ] = None,
    approve: Annotated[
        list[int] | None, typer.Option("--approve", help="A step (its percent) that somebody else must approve; may be repeated.")
    ] = None,
    guard: Annotated[list[str] | None, typer.Option("--guard", help="What it must keep to, such as 'p99<1.2x'; may be repeated.")] = None,
    mirror: Annotated[str | None, typer.Option("--mirror", help="The share of requests that the candidate is asked beside the champion: 5%.")] = None,
    sticky: Annotated[str | None, typer.Option("--sticky", help="What keeps a caller with one version: header:NAME or field:NAME.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="What an A/B test decides by, such as accuracy.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Go on only when every guard has passed, not while none has failed.")] = False,
    max_time: Annotated[str | None, typer.Option("--max-time", help="After how long in one step to pause: 6h (default: 1d).")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Let a shadow that has earned it go live by itself.")] = False,
    keep_warm: Annotated[str | None, typer.Option("--keep-warm", help="How long the old version stays ready after the end: 1h.")] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="The chance of a false alarm over the whole rollout (default: 0.05).")] = None,
    prometheus: Annotated[str | None, typer.Option("--prometheus", help="The URL that guards with a query ask.")] = None,
) -> Written:
    """What is written in the file, or in the flags. Raises InvalidConfig for both at once."""
    said = {
        "strategy": strategy,
        "steps": None if steps is None else written.weights(steps),
        "step_time": step_time,
        "step_requests": step_requests,
        "approve": tuple(approve) if approve else None,
        "guards": tuple(guard) if guard else None,
        "mirror": mirror,
        "sticky": sticky,
        "metric": metric,
        "strict": strict or None,
        "max_time": max_time,
        "promote": promote or None,
        "keep_warm": keep_warm,
        "alpha": alpha,
        "prometheus": prometheus,
    }
    given = {name: value for name, value in said.items() if value is not None}
    if file is not None:
        if given:
            flag = next(iter(given)).replace("_", "-").replace("guards", "guard")
            raise InvalidConfig(f"{file.name} says how to deploy: write {flag} there, or leave --file out", field=flag, rule="twice")
        return written.read(files.read_limited(file, written.LIMIT_BYTES).decode("utf-8", "replace"))
    if strategy is not None and strategy not in written.KINDS:
        raise InvalidConfig(f"no strategy is called {strategy}; there are {', '.join(written.KINDS)}", field="strategy", rule="known")
    return msgspec.convert(given, Written)


def strategic(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with the flags of a strategy among its own, told as the argument `written`."""
    flags = inspect.signature(_flags, eval_str=True).parameters
    own = [each for each in inspect.signature(function, eval_str=True).parameters.values() if each.name != "written"]

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> None:
        said = {name: options.pop(name) for name in flags if name in options}
        function(*arguments, written=_flags(**said), **options)

    positional = [each for each in own if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    named = [each for each in own if each.kind is inspect.Parameter.KEYWORD_ONLY]
    every = [*positional, *flags.values(), *named]
    call.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]  # typer reads parameters from here
    call.__annotations__ = {each.name: each.annotation for each in every}
    return call
