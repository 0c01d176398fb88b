"""How one deployment is watched: what a `monitor.toml` may say, with defaults that need no tuning.

Hides how it is written, and that what this release does not know, or the model does not have, is refused by name. Pure. Where it is kept, and who may
set it, is the control plane's.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from modelyard.errors import InvalidConfig
from modelyard.monitor.alerts.base import Policy

if TYPE_CHECKING:
    from modelyard.types import Schema

LIMIT_BYTES = 32 << 10
NAMES = 1024
"""The most columns that one list names."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=NAMES)]


class Section(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What every detector can be told: to be silent, or to report where it would page."""

    enabled: bool = True
    pages: bool = True


class Drift(Section, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`smallest_shift`: the least that is worth a page, in standard deviations of the reference. `learn_days`: how long a first release is watched to
    learn what an ordinary week accounts for; until then only missing and unknown values page (0: all does at once)."""

    smallest_shift: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.1
    learn_days: Annotated[float, msgspec.Meta(ge=0, le=90)] = 7.0


class Concept(Section, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`settle_s`: how long after their answer predictions wait for their labels. The baseline is learnt from `learn_rows` labels, and followed over
    about `memory_rows`. `rows_between_false_pages`: instead of what the alarm budget gives; `reports`: whether ADWIN and HDDM are run beside."""

    settle_s: Amount = 0.0
    learn_rows: Annotated[int, msgspec.Meta(ge=10, le=1_000_000)] = 300
    memory_rows: Annotated[int, msgspec.Meta(ge=1_000, le=100_000_000)] = 20_000
    rows_between_false_pages: Annotated[float, msgspec.Meta(ge=100, le=1e15)] | None = None
    reports: bool = True


class Performance(Section, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`smallest_loss` of accuracy or AUC, and `smallest_rise` of errors beside the reference's, that are worth a page. Figures are told by windows of
    `window_s`; `settle_s` as of concept drift."""

    smallest_loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    smallest_rise: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.25
    window_s: Annotated[float, msgspec.Meta(ge=300, le=366 * 86_400)] = 86_400.0
    settle_s: Amount = 0.0


class Estimated(Section, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`smallest_loss` and `smallest_rise` as of performance, of what is estimated while labels are still to come."""

    smallest_loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    smallest_rise: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.25


class Slo(Section, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`answered`: the share of requests to be answered; with `latency_s`, `latency_share` of them within it."""

    answered: Share = 0.999
    latency_s: Positive | None = None
    latency_share: Share = 0.99


class Quality(Section, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How much of a break is worth telling, in shares of the rows: `missing` more than in the reference, `unseen` categories, numbers `outside` its
    range, rows that hold one `default`.
    """

    missing: Share = 0.02
    unseen: Share = 0.005
    outside: Share = 0.01
    default: Share = 0.25


class Slices(Section, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`columns` to search for parts that fare worse (none: all) by more than `least` (in accuracy; of a regression in parts of its own error), and
    the groups of `fairness` columns to be held beside each other, with the difference that is told.
    """

    columns: Names = ()
    least: Amount = 0.02
    fairness: Names = ()
    fairness_margin: Amount = 0.05


class Bound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where a figure of the model must lie, whatever it was on the reference."""

    least: float | None = None
    most: float | None = None


class Monitored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that can be said of how a deployment is watched.

    `false_pages_a_month` is the alarm budget: how often somebody is woken for nothing, at most, on average. Reports look at the last `window_s`.
    Columns to `ignore` are not judged at all. `alerts` says how long what fails must hold before it is an alert, and who is told; `bounds` are by
    figure: accuracy, auc, mae, rmse. Then a table for each detector, by its rule.
    """

    false_pages_a_month: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 1.0
    window_s: Annotated[float, msgspec.Meta(ge=300, le=7 * 86_400)] = 21_600.0
    ignore: Names = ()
    alerts: Policy = Policy()
    bounds: dict[str, Bound] = {}
    drift: Drift = Drift()
    shift: Section = Section(pages=False)
    multivariate: Section = Section(pages=False)
    concept: Concept = Concept()
    performance: Performance = Performance()
    estimated_performance: Estimated = Estimated()
    operations: Section = Section()
    slo: Slo = Slo()
    quality: Quality = Quality()
    slices: Slices = Slices(pages=False)

    def section(self, rule: str) -> Section:
        """What is said of the detector with this rule; of one without a table, what is said of all by default."""
        found = getattr(self, rule, None)
        return found if isinstance(found, Section) else Section()


FIGURES = ("accuracy", "auc", "mae", "rmse")


def parse(text: str) -> Monitored:
    """What a `monitor.toml` says. Raises InvalidConfig naming what is unknown, of another type or range, or no TOML."""
    if len(text) > LIMIT_BYTES:
        raise InvalidConfig(f"monitor.toml has at most {LIMIT_BYTES >> 10} KiB", field="settings", rule="size")
    try:
        given = msgspec.toml.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidConfig(f"monitor.toml cannot be read as TOML: {error}", field="settings", rule="form") from error
    return read(given)


def read(given: Any) -> Monitored:
    """Settings from plain values, as a TOML or JSON document has them. Raises InvalidConfig."""
    try:
        settings = msgspec.convert(given, Monitored)
    except msgspec.ValidationError as error:
        allowed = f"; it may say {_allowed(str(error))}" if "unknown field" in str(error) else ""
        raise InvalidConfig(f"monitor.toml: {_plainly(str(error))}{allowed}", field="settings", rule="known" if allowed else "form") from error
    check(settings)
    return settings


def plain(settings: Monitored) -> dict[str, Any]:
    """What differs from the defaults, as plain values: `read(plain(s)) == s`."""
    told: dict[str, Any] = msgspec.to_builtins(settings)
    return told


def check(settings: Monitored) -> None:
    """Raises InvalidConfig for what no model could honour."""
    if not all(map(math.isfinite, _numbers(msgspec.to_builtins(settings)))):
        raise InvalidConfig("monitor.toml: a number is finite", field="settings", rule="range")
    for rule in settings.alerts.hold:
        require_rule(rule, field="alerts.hold")
    for figure, bound in settings.bounds.items():
        if figure not in FIGURES:
            raise InvalidConfig(f"bounds are of {', '.join(FIGURES)}, not of {figure}", field="bounds", rule="known")
        if bound.least is None and bound.most is None:
            raise InvalidConfig(f"the bound of {figure} says least, most or both", field="bounds", rule="required")
        if bound.least is not None and bound.most is not None and bound.least > bound.most:
            raise InvalidConfig(f"the bound of {figure} has a least above its most", field="bounds", rule="range")


def require_rule(rule: str, *, field: str) -> None:
    """Raises InvalidConfig for what is neither a detector nor a rule of one, such as `drift:age`: it would mean nothing, and nobody would know."""
    known = (*(name for name in Monitored.__struct_fields__ if isinstance(getattr(Monitored(), name), Section)), "watch")
    if rule.partition(":")[0] not in known:
        raise InvalidConfig(
            f"{field}: no detector is called {rule}; there are {', '.join(known)}, and their rules such as drift:COLUMN", field=field, rule="known"
        )


def require_fit(settings: Monitored, schema: Schema, *, features: Iterable[str], routes: Collection[str]) -> None:
    """Raises InvalidConfig for what the model with this `schema`, and a home with these `routes`, cannot honour. `features` are of its profile."""
    inputs = {spec.name for spec in schema.inputs}
    named = {"ignore": settings.ignore, "slices.columns": settings.slices.columns, "slices.fairness": settings.slices.fairness}
    known = {"ignore": {*inputs, *(spec.name for spec in schema.outputs), *features}}
    for field, columns in named.items():
        allowed = known.get(field, inputs)
        for column in columns:
            if column not in allowed:
                raise InvalidConfig(f"{field}: the model has no column {column}; it has {_list(sorted(allowed))}", field=field, rule="column")
    wanted = {"classification": ("accuracy", "auc"), "regression": ("mae", "rmse")}.get(schema.task, ())
    for figure in settings.bounds:
        if figure not in wanted:
            raise InvalidConfig(f"bounds: {figure} is no figure of this model; it has {_list(wanted)}", field="bounds", rule="task")
    for route in settings.alerts.routes or ():
        if route not in routes:
            raise InvalidConfig(f"alerts.routes: there is no route {route}; alerts.toml has {_list(sorted(routes))}", field="routes", rule="known")


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, float):
        yield value


def _plainly(said: str) -> str:
    """What msgspec says, the setting first: `drift.learn_days: expected a number >= 0.0`."""
    said, _, where = said.partition(" - at `$")
    for form, words in (("`float`", "a number"), ("`int`", "a whole number"), ("`str`", "a text"), ("`object`", "a table"), ("`array`", "a list")):
        said = said.replace(form, words)
    said = said.replace("Object contains unknown field", "there is no setting")
    place = where.rstrip("`").removeprefix(".")
    return f"{place}: {said[0].lower()}{said[1:]}" if place else said


def _allowed(said: str) -> str:
    """The fields of that part of the settings which an error of msgspec speaks of."""
    part = said.rpartition("$.")[2].partition("`")[0] if "$." in said else ""
    found = Bound() if part.startswith("bounds[") else getattr(Monitored(), part.split(".")[0], None) if part else None
    fields = found.__struct_fields__ if isinstance(found, msgspec.Struct) else Monitored.__struct_fields__
    return ", ".join(fields)


def _list(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return (", ".join(shown[:12]) + more) or "none"
