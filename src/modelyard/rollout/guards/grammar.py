"""How a guard is written: a metric, a direction and a bound, in one short text.

Hides the grammar and which bounds a metric can have at all. Pure; it must not judge. `parse(str(parse(text))) == parse(text)` for every guard
(`tests/property/test_guard_laws.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from modelyard.errors import InvalidConfig

Need = Literal["live", "mirror", "labels", "prometheus", "golden"]
Form = Literal["absolute", "ratio", "difference", "stands"]

QUERY_LIMIT = 2000
VERSION = "{version}"
_TEXT_LIMIT = 4000
_PROMETHEUS = re.compile(r"prometheus\s*\((?P<query>.*)\)\s*(?P<sign><=|>=|<|>)\s*(?P<bound>[^<>()]*)", re.DOTALL)
_PLAIN = re.compile(r"(?P<metric>[a-z][a-z0-9_]*)\s*(?P<sign><=|>=|<|>)\s*(?P<bound>[^<>=]+)")
_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d{1,2})?|\.\d+(?:e[+-]?\d{1,2})?"
_BOUND = re.compile(rf"(?:(?P<champion>champion)\s*(?:(?P<plus>[+-])\s*)?)?(?P<number>-?(?:{_NUMBER}))?\s*(?P<unit>%|[a-zµ]+)?")
_UNITS: dict[str, dict[str, float]] = {
    "share": {"%": 0.01, "": 1.0},
    "latency": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
    "plain": {"": 1.0},
}


class Metric(NamedTuple):
    """What can be guarded: in which units, which way is better (None: either), what evidence it takes, and whether the champion has one too."""

    units: str
    better: Literal["lower", "higher"] | None
    need: Need
    compares: bool = True


METRICS: dict[str, Metric] = {
    "error_rate": Metric("share", "lower", "live"),
    "p50": Metric("latency", "lower", "live"),
    "p90": Metric("latency", "lower", "live"),
    "p95": Metric("latency", "lower", "live"),
    "p99": Metric("latency", "lower", "live"),
    "prediction_shift": Metric("share", "lower", "live", compares=False),
    "missing": Metric("share", "lower", "live"),
    "disagreement": Metric("share", "lower", "mirror", compares=False),
    "accuracy": Metric("share", "higher", "labels"),
    "auc": Metric("share", "higher", "labels"),
    "mae": Metric("plain", "lower", "labels"),
    "rmse": Metric("plain", "lower", "labels"),
    "prometheus": Metric("plain", None, "prometheus"),
}
GOLDEN = "golden"


class Guard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One bound on one metric, as it was written.

    `form`: `absolute` m<5, `ratio` m<1.2x (of the champion's), `difference` m<champion+5; `stands` is golden, which has no bound. `number` and
    `unit` are as written (a difference's number has its sign), `limit` is the number in seconds, shares of one, or the metric's own unit.
    """

    metric: str
    form: Form
    sign: Literal["<", "<=", ">", ">="] = "<"
    number: float = 0.0
    unit: str = ""
    query: str = ""

    @property
    def needs(self) -> frozenset[Need]:
        """The evidence without which it can say nothing."""
        return frozenset({"golden" if self.metric == GOLDEN else METRICS[self.metric].need})

    @property
    def limit(self) -> float:
        """The bound: itself, a factor, or what is added to the champion's."""
        return self.number if self.form in ("ratio", "stands") else self.number * _UNITS[METRICS[self.metric].units][self.unit]

    @property
    def wants_lower(self) -> bool:
        """Whether the metric must stay below its bound."""
        return self.sign in ("<", "<=")

    @property
    def compares(self) -> bool:
        """Whether the bound is one relative to the champion."""
        return self.form in ("ratio", "difference")

    def bound(self, champion: float) -> float:
        """The bound on the metric where the champion's is `champion`."""
        if self.form == "ratio":
            return self.limit * champion
        return self.limit + champion if self.form == "difference" else self.limit

    def same(self) -> Guard:
        """The guard by which the candidate is to be as good as the champion."""
        return Guard(metric=self.metric, form="difference", sign=self.sign, unit=self.unit if self.form != "ratio" else "", query=self.query)

    def keeps(self, value: float, champion: float) -> bool:
        """Whether `value` keeps to the bound where the champion's is `champion`. Two zeros keep to any ratio: there is nothing to tell them by."""
        if self.form == "ratio" and value == champion == 0:
            return True
        bound = self.bound(champion)
        return {"<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound}[self.sign]

    def __str__(self) -> str:
        if self.form == "stands":
            return self.metric
        name = f"prometheus({self.query})" if self.metric == "prometheus" else self.metric
        number = f"{abs(self.number):.17g}" if float(f"{self.number:.15g}") != self.number else f"{abs(self.number):.15g}"
        if self.form == "difference":
            if self.number == 0 and self.unit == next(iter(_UNITS[METRICS[self.metric].units])):
                return f"{name}{self.sign}champion"
            return f"{name}{self.sign}champion{'-' if self.number < 0 else '+'}{number}{self.unit}"
        return f"{name}{self.sign}{'-' if self.number < 0 else ''}{number}{self.unit}"


def parse(text: str) -> Guard:
    """The guard that `text` writes. Raises InvalidConfig, naming what there is, for any other text and for a bound that cannot be met or broken."""
    written = text.strip()
    if written == GOLDEN:
        return Guard(metric=GOLDEN, form="stands")
    if len(written) > _TEXT_LIMIT:
        raise _refused(written[:60] + "…", f"is longer than {_TEXT_LIMIT} characters", "length")
    found = _PROMETHEUS.fullmatch(written) or _PLAIN.fullmatch(written)
    if found is None:
        raise _refused(written, "is not of the form metric<bound, such as error_rate<0.5%, p99<1.2x or auc>=champion-0.01", "form")
    groups = found.groupdict()
    name = groups.get("metric") or "prometheus"
    query = (groups.get("query") or "").strip()
    metric = METRICS.get(name)
    if metric is None:
        raise _refused(written, f"names no metric that there is: {', '.join([*METRICS, GOLDEN])}", "metric")
    if name == "prometheus" and not 0 < len(query) <= QUERY_LIMIT:
        raise _refused(written, f"needs a query of 1 to {QUERY_LIMIT} characters, as in prometheus(QUERY)<5", "query")
    guard = _bounded(written, name, groups, query)
    _require_possible(written, guard, metric)
    return guard


def _bounded(written: str, name: str, groups: Mapping[str, str], query: str) -> Guard:
    metric, sign, text = METRICS[name], groups["sign"], groups["bound"].strip()
    found = _BOUND.fullmatch(text)
    if found is None or (found["number"] is None and (not found["champion"] or found["plus"] or found["unit"])):
        raise _refused(written, f"has no bound: write a number{_listed(metric)}, a ratio (1.2x) or champion±number", "bound")
    if metric.better is not None and (metric.better == "lower") != (sign in ("<", "<=")):
        raise _refused(written, f"points the wrong way: {name} is better when {metric.better}", "direction")
    champion, unit = found["champion"], found["unit"] or ""
    number = float(found["number"] or 0)
    if (champion and number and not found["plus"]) or (found["plus"] and found["number"].startswith("-")):
        raise _refused(written, "has no bound: write champion+number or champion-number", "bound")
    if not champion and unit == "x":
        form: Form = "ratio"
    else:
        form = "difference" if champion else "absolute"
        if found["number"] is None:
            unit = next(iter(_UNITS[metric.units]))
        if unit not in _UNITS[metric.units]:
            problem = f"has the unit {unit}" if unit else "lacks a unit"
            raise _refused(
                written, f"{problem}: {name} is bounded by a number{_listed(metric)}{' or a ratio (1.2x)' if metric.compares else ''}", "unit"
            )
    if found["plus"] == "-":
        number = -number if number else 0.0
    return Guard(metric=name, form=form, sign=sign, number=number, unit=unit, query=query)  # type: ignore[arg-type]  # the pattern's signs


def _require_possible(written: str, guard: Guard, metric: Metric) -> None:
    name, limit = guard.metric, guard.limit
    if guard.compares and not metric.compares:
        raise _refused(written, f"compares with the champion, which has no {name} of its own; write {name}<3%", "form")
    if guard.compares and name == "prometheus" and VERSION not in guard.query:
        raise _refused(written, f"compares with the champion, so its query must name {VERSION}", "query")
    if guard.form == "ratio" and not 0 < limit <= 1e6:
        raise _refused(written, "has a ratio that is not above 0", "bound")
    if name == "prometheus":
        return
    if guard.form == "absolute" and not (0 < limit < 1 if metric.units == "share" else limit > 0):
        between = "between 0 % and 100 %" if metric.units == "share" else "above 0"
        raise _refused(written, f"can never be {'met' if limit <= 0 else 'both met and broken'}: {name} needs a bound {between}", "bound")
    if guard.form == "difference" and metric.units == "share" and abs(limit) >= 1:
        raise _refused(written, f"adds {limit:.0%} to the champion's {name}, and no two can differ by that much", "bound")


def _listed(metric: Metric) -> str:
    named = [unit for unit in _UNITS[metric.units] if unit]
    if not named:
        return ""
    return f" in {', '.join(named)}" if metric.units == "latency" else " with or without %"


def _refused(written: str, problem: str, rule: str) -> InvalidConfig:
    return InvalidConfig(f"the guard {written} {problem}", field="guard", rule=rule)
