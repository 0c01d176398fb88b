"""Whether failures are explained right: an hour of a simulated deployment in which one known thing goes wrong, many times over.

The model is a logistic one that knows its own chances; truths are drawn from the rows as they were before anything upstream broke them. It holds no
data of ours: every case is drawn from its seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.items import Item
from modelyard.monitor import slicing
from modelyard.monitor.base import MINUTE_S, Evidence, Labelled, Logged, Minute, Reference
from modelyard.monitor.breaks import examine
from modelyard.monitor.cause import Happened, explain
from modelyard.monitor.injections import Drift, Kind, Rows, inject, kinds
from modelyard.monitor.profile import Binner, measure, measure_outputs
from modelyard.monitor.quality import Quality
from modelyard.monitor.sampled import sampled
from modelyard.monitor.series import Series
from modelyard.monitor.settings import Monitored
from modelyard.runtime.data import read
from modelyard.runtime.schema import conform, infer
from modelyard.types import Digest, Schema, TensorSpec, Verdict

Columns = dict[str, Any]

DIGEST = Digest("sha256:" + "c" * 64)
REGIONS, SHARES = ("east", "north", "south", "west"), (0.4, 0.25, 0.2, 0.15)
PLANS = ("basic", "plus", "pro")
SCHEMA = Schema(
    inputs=(
        *(TensorSpec(name=name, datatype="FP64", shape=(-1, 1), is_nullable=True) for name in ("age", "income", "temperature", "noise")),
        TensorSpec(name="region", datatype="BYTES", shape=(-1, 1), categories=REGIONS),
        TensorSpec(name="plan", datatype="BYTES", shape=(-1, 1), categories=PLANS),
    ),
    outputs=(TensorSpec(name="label", datatype="INT64", shape=(-1,)), TensorSpec(name="probability", datatype="FP64", shape=(-1, 2))),
    layout="frame",
    task="classification",
    classes=(0, 1),
)
IMPORTANCE = {"age": 0.3, "income": 0.35, "temperature": 0.1, "region": 0.15, "plan": 0.1, "noise": 0.0}
MINUTES, ROWS, BAD = 60, 100, 37
BEGINS = 1_700_000_040
SEEDS = 20


def draw(count: int, rng: np.random.Generator) -> Columns:
    """Rows as they ordinarily come."""
    age = np.clip(rng.normal(45, 14, count), 18, 95)
    income = np.exp(rng.normal(3.2 + 0.03 * (age - 45), 0.45))
    region = np.array(REGIONS, dtype=object)[rng.choice(4, size=count, p=SHARES)]
    plan = np.array(PLANS, dtype=object)[np.clip(np.digitize(income + rng.normal(0, 6, count), (20, 35)), 0, 2)]
    columns = {
        "age": age,
        "income": income,
        "temperature": rng.normal(12, 7, count),
        "noise": rng.normal(0, 1, count),
        "region": region,
        "plan": plan,
    }
    return {name: values.reshape(-1, 1) for name, values in columns.items()}


def chance(rows: Mapping[str, Any]) -> np.ndarray:
    """The model: the chance of class 1. What is missing or unknown counts as ordinary."""
    age, income, temperature = (
        np.nan_to_num(rows[name].ravel().astype(float), nan=usual) for name, usual in (("age", 45), ("income", 25), ("temperature", 12))
    )
    effect = {"east": 0.0, "north": 0.9, "south": -0.9, "west": 0.3}
    region = np.array([effect.get(value, 0.0) for value in rows["region"].ravel().tolist()])
    plan = np.array([{"basic": -0.4, "plus": 0.0, "pro": 0.5}.get(value, 0.0) for value in rows["plan"].ravel().tolist()])
    return 1 / (1 + np.exp(-(0.07 * (age - 45) + 1.4 * (np.log(np.maximum(income, 1e-3)) - 3.2) + 0.06 * (temperature - 12) + region + plan)))


def predict(rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The model as a runtime answers."""
    yes = chance(rows)
    return {"label": (yes > 0.5).astype(np.int64), "probability": np.stack([1 - yes, yes], axis=1)}


@cache
def reference() -> Reference:
    """What the bundle would say, of 10,000 rows."""
    rng = np.random.default_rng(0)
    rows = draw(10_000, rng)
    outputs = predict(rows)
    truth = rng.random(10_000) < chance(rows)
    accuracy = float((outputs["label"] == truth).mean())
    profile = measure(rows, SCHEMA) + measure_outputs(outputs, SCHEMA)
    return Reference(digest=DIGEST, schema=SCHEMA, profile=profile, importance=IMPORTANCE, quality={"accuracy": accuracy})


class Case(NamedTuple):
    """One thing that goes wrong: what it is, the columns of which one must be named (empty: any), the failing rule, and how rows, and the chances
    behind their truths, change. `upstream`: truths are those of the rows before the change.
    """

    kind: str
    columns: tuple[str, ...]
    rule: str
    rows: Callable[[Columns, np.random.Generator], Columns] | None = None
    truth: Callable[[Columns, np.ndarray], np.ndarray] | None = None
    upstream: bool = True


def _column(name: str, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Callable[[Columns, np.random.Generator], Columns]:
    return lambda rows, rng: {**rows, name: change(rows[name].copy(), rng)}


def _hit(values: np.ndarray, rng: np.random.Generator, share: float, value: object) -> np.ndarray:
    values[rng.random(values.shape) < share] = value
    return values


def _swap(values: np.ndarray, _: np.random.Generator) -> np.ndarray:
    swapped = {"east": "west", "west": "east"}
    return np.array([swapped.get(value, value) for value in values.ravel()], dtype=object).reshape(-1, 1)


def _upper(values: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.array([value.upper() for value in values.ravel()], dtype=object).reshape(-1, 1)


def _west(rows: Columns, rng: np.random.Generator) -> Columns:
    """Half of the people of the east stay away; those of the west come instead."""
    more = draw(4 * len(rows["age"]), rng)
    west = np.flatnonzero(more["region"].ravel() == "west")[: int((rows["region"] == "east").sum() // 2)]
    gone = np.flatnonzero(rows["region"].ravel() == "east")[: len(west)]
    changed = {name: values.copy() for name, values in rows.items()}
    for name, values in changed.items():
        values[gone] = more[name][west]
    return changed


UP, POPULATION, CONCEPT = "upstream break", "population shift", "concept shift"
CASES: dict[str, Case] = {
    "unit x1000": Case(UP, ("income",), "drift:income", _column("income", lambda v, _: v * 1000)),
    "unit /10": Case(UP, ("age",), "drift:age", _column("age", lambda v, _: v / 10)),
    "unit °F": Case(UP, ("temperature",), "drift:temperature", _column("temperature", lambda v, _: v * 1.8 + 32)),
    "gone": Case(UP, ("age",), "drift:age", _column("age", lambda v, _: np.full_like(v, np.nan))),
    "missing 30 %": Case(UP, ("age",), "drift:age", _column("age", lambda v, rng: _hit(v, rng, 0.3, np.nan))),
    "stuck": Case(UP, ("temperature",), "drift:temperature", _column("temperature", lambda v, _: np.full_like(v, 14.2))),
    "default 40 %": Case(UP, ("region",), "drift:region", _column("region", lambda v, rng: _hit(v, rng, 0.4, "north"))),
    "default -999": Case(UP, ("income",), "drift:income", _column("income", lambda v, rng: _hit(v, rng, 0.4, -999.0))),
    "values swapped": Case(UP, ("region",), "drift:region", _column("region", _swap)),
    "categories renamed": Case(UP, ("region",), "drift:region", _column("region", _upper)),
    "wrong join": Case(UP, ("income",), "concept", _column("income", lambda v, rng: rng.permutation(v))),
    "older people": Case(POPULATION, ("age",), "drift:age", _column("age", lambda v, _: v + 8), upstream=False),
    "richer people": Case(POPULATION, ("income",), "drift:income", _column("income", lambda v, _: v * 1.4), upstream=False),
    "other region": Case(POPULATION, ("region",), "drift:region", _west, upstream=False),
    "seen in the answers": Case(POPULATION, ("age",), "drift:probability[1]", _column("age", lambda v, _: v + 8), upstream=False),
    "labels swapped": Case(CONCEPT, (), "concept", truth=lambda rows, p: np.where(p > 0.5, p * 0.6, p)),
    "income means the opposite": Case(CONCEPT, (), "performance", truth=lambda rows, p: np.where(rows["income"].ravel() > 30, 1 - p, p)),
    "one region": Case(CONCEPT, ("region",), "concept", truth=lambda rows, p: np.where(rows["region"].ravel() == "north", 1 - p, p)),
    "beside an idle column": Case(CONCEPT, (), "concept", _column("noise", lambda v, _: v + 1), lambda rows, p: np.where(p > 0.5, p * 0.6, p), False),
    "nothing": Case("unknown", (), "concept"),
}


SMALL: dict[str, Case] = {
    "missing 10 %": Case(UP, ("age",), "drift:age", _column("age", lambda v, rng: _hit(v, rng, 0.1, np.nan))),
    "default 30 %": Case(UP, ("region",), "drift:region", _column("region", lambda v, rng: _hit(v, rng, 0.3, "north"))),
    "unit x10 in half of the rows": Case(
        UP, ("income",), "drift:income", _column("income", lambda v, rng: v * np.where(rng.random(v.shape) < 0.5, 10, 1))
    ),
    "half wrong join": Case(UP, ("income",), "concept", _column("income", lambda v, rng: np.where(rng.random(v.shape) < 0.5, rng.permutation(v), v))),
    "people 4 years older": Case(POPULATION, ("age",), "drift:age", _column("age", lambda v, _: v + 4), upstream=False),
    "a little richer": Case(POPULATION, ("income",), "drift:income", _column("income", lambda v, _: v * 1.2), upstream=False),
    "some labels swapped": Case(CONCEPT, (), "concept", truth=lambda rows, p: np.where(p > 0.5, p * 0.8, p)),
    "one small region": Case(CONCEPT, ("region",), "concept", truth=lambda rows, p: np.where(rows["region"].ravel() == "west", 1 - p, p)),
}
"""Half as much of it, or less."""


class Hour(NamedTuple):
    """An hour's evidence."""

    evidence: Evidence
    failing: Verdict
    first_bad: float


def hour(case: Case, seed: int, *, labels: bool = True) -> Hour:
    """An hour that goes wrong from minute BAD on."""
    rng = np.random.default_rng((seed, 7))
    known = reference()
    minutes: list[Minute] = []
    seen: list[tuple[np.ndarray, Columns, dict[str, np.ndarray], np.ndarray]] = []
    for place in range(MINUTES):
        rows = draw(ROWS, rng)
        came = case.rows(rows, rng) if case.rows is not None and place >= BAD else rows
        behind = rows if case.upstream else came
        chances = chance(behind)
        if case.truth is not None and place >= BAD:
            chances = case.truth(behind, chances)
        outputs = predict(came)
        start = BEGINS + place * MINUTE_S
        binner = Binner(known.profile)
        binner.add(came, outputs)
        minutes.append(Minute(start, 1, DIGEST, ROWS, ROWS, {}, {}, {}, binner.take()))
        seen.append((start + MINUTE_S * np.arange(ROWS) / ROWS, came, outputs, (rng.random(ROWS) < chances).astype(np.int64)))
    logged = Logged(
        times=np.concatenate([times for times, _, _, _ in seen]),
        inputs={name: np.concatenate([came[name] for _, came, _, _ in seen]) for name in IMPORTANCE},
        outputs={name: np.concatenate([outputs[name] for _, _, outputs, _ in seen]) for name in ("label", "probability")},
        truth=np.concatenate([truth for _, _, _, truth in seen]) if labels else None,
    )
    rows_ = sampled(logged, SCHEMA)
    assert rows_ is not None
    evidence = Evidence(
        name="shop",
        reference=known,
        fresh=tuple(minutes[-1:]),
        recent=tuple(minutes),
        labelled=Labelled(rows_.times, rows_.truth, rows_.predicted, rows_.probability) if labels else None,
        false_pages=0.1,
        now=float(BEGINS + MINUTES * MINUTE_S),
        logged=logged,
    )
    column = case.rule.partition(":")[2]
    failing = Verdict(outcome="fail", rule=case.rule, evidence="", columns=(column,) if column else ())
    return Hour(evidence, failing, float(BEGINS + BAD * MINUTE_S))


class Explained(NamedTuple):
    """How one case was explained: the right kind, a right column named, the right release, and how many minutes the first bad one is off (None: not
    told).
    """

    kind: str
    is_kind: bool
    is_column: bool
    is_release: bool
    minutes: float | None


def explained(name: str, seed: int) -> Explained:
    """One case, beside a release that came with it and one long before."""
    case = (CASES | SMALL)[name]
    made = hour(case, seed)
    happened = (Happened(made.first_bad - 2 * NEAR_S, "step to 100 %", 1), Happened(made.first_bad - 90, "step to 100 %", 2))
    found = explain(made.failing, made.evidence, happened=happened)
    is_column = not case.columns or bool(set(case.columns) & set(found.columns[:2]))
    off = None if found.first_bad is None else abs(found.first_bad - made.first_bad) / MINUTE_S
    return Explained(found.kind, found.kind == case.kind, is_column, "version 2" in found.release, off)


NEAR_S = 3600.0


def run(data: Path) -> list[Item]:
    """Every case with SEEDS seeds."""
    every = {name: [explained(name, seed) for seed in range(SEEDS)] for name in CASES}
    found = [each for each_case in every.values() for each in each_case]
    wrong = {name: sum(not each.is_kind for each in told) for name, told in every.items()}
    known = [each for name, told in every.items() if CASES[name].kind != "unknown" for each in told]
    commonest = max(sum(case.kind == kind for case in CASES.values()) for kind in (UP, POPULATION, CONCEPT)) / len(CASES)
    told = [each.minutes for each in known if each.minutes is not None]
    worst = ", ".join(f"{name} {count}" for name, count in wrong.items() if count) or "none"
    return [
        Item(
            name="cause_kind",
            figure=statistics.fmean(each.is_kind for each in found),
            unit="",
            bar=0.95,
            better="higher",
            note=f"{len(found)} hours, {len(CASES)} cases; always saying `{UP}` would be right in {commonest:.2f}; wrong: {worst}",
        ),
        Item(name="cause_column", figure=statistics.fmean(each.is_column for each in known), unit="", bar=0.95, better="higher"),
        Item(
            name="cause_minutes_off",
            figure=statistics.fmean(min(each.minutes, 60.0) if each.minutes is not None else 60.0 for each in known),
            unit="min",
            bar=3.0,
            better="lower",
            note=f"mean over all hours, an untold first minute counted as 60; told {len(told)} times of {len(known)}",
        ),
        Item(name="cause_release", figure=statistics.fmean(each.is_release for each in known), unit="", bar=0.95, better="higher"),
        *_small(),
        *_quiet(),
        *_real(data),
        *_slices(),
    ]


def _small() -> list[Item]:
    """The small cases."""
    every = {name: [explained(name, seed) for seed in range(SEEDS)] for name in SMALL}
    right = statistics.fmean(each.is_kind for told in every.values() for each in told)
    shares = ", ".join(f"{name} {sum(each.is_kind for each in told)}" for name, told in every.items())
    return [Item(name="cause_kind_small", figure=right, unit="", bar=0.8, better="higher", note=f"of {SEEDS} each: {shares}")]


def _quiet() -> list[Item]:
    """How often something is reported where nothing is wrong."""
    turns = 200
    detector = Quality()
    warned = 0
    for seed in range(turns):
        judged = detector.judge(hour(CASES["nothing"], 1000 + seed, labels=False).evidence, b"")
        warned += any(verdict.outcome != "pass" for verdict in judged.verdicts)
    return [
        Item(
            name="quality_false",
            figure=warned / turns,
            unit="",
            bar=0.0,
            better="lower",
            note=f"of {turns} hours with nothing wrong; an alarm every 100 rows would speak up in all of them",
        )
    ]


def _real(data: Path) -> list[Item]:
    """Breaks put into each column of real rows in random order: whether it is named within the quarter of an hour, and what else is."""
    found: dict[str, list[bool]] = {}
    others = columns = 0
    for path in (data / "electricity.csv", data / "adult.parquet"):
        table, _ = read(path)
        schema = infer(table, outputs=(), task="other", classes=None, tags={}, accepts=lambda _: True)
        schema = msgspec.structs.replace(schema, inputs=tuple(msgspec.structs.replace(each, is_nullable=True) for each in schema.inputs))
        rng = np.random.default_rng(0)
        rows = Rows(conform(schema, table.columns), None).take(rng.permutation(table.rows))
        known = Reference(digest=DIGEST, schema=schema, profile=measure(rows.take(np.arange(10_000)).inputs, schema), importance={}, quality={})
        rest = rows.take(np.arange(10_000, rows.size))
        for spec in schema.inputs:
            columns += 1
            for kind in kinds(spec):
                if kind in BROKEN and _can_be_told(Drift(kind, spec.name, BROKEN[kind]), rest, schema):
                    told = _broken(known, rest, Drift(kind, spec.name, BROKEN[kind]), rng)
                    found.setdefault(kind, []).append(spec.name in told)
                    others += bool(told - {spec.name})
    tried = [each for told in found.values() for each in told]
    shares = ", ".join(f"{kind} {sum(told)} of {len(told)}" for kind, told in found.items())
    return [
        Item(
            name="quality_found",
            figure=statistics.fmean(tried),
            unit="",
            bar=0.9,
            better="higher",
            note=f"{columns} columns of two tables, breaks that change a tenth of the values: {shares}",
        ),
        Item(name="quality_others", figure=others / len(tried), unit="", bar=0.0, better="lower", note="another column was called broken"),
    ]


BROKEN: dict[Kind, float] = {"unit": 10.0, "missing": 0.05, "default": 0.4, "unseen": 0.05, "swap": 1.0}
"""Of how much of each kind it must be told."""


def _can_be_told(drift: Drift, rest: Rows, schema: Schema) -> bool:
    """Whether a break changes a tenth of the values (of those that are missing or unseen, as many as there are), and what it leaves is not just
    another share of two values, which no count can tell from other people.
    """
    assert drift.column is not None
    changed = inject(drift, rest, rest, np.random.default_rng(0), schema=schema).inputs[drift.column].ravel()
    values = rest.inputs[drift.column].ravel()
    is_all = drift.kind in ("missing", "unseen", "unit")
    return is_all or (len(set(values.tolist())) > 2 and bool(np.mean(values != changed) >= 0.1))


def _broken(known: Reference, rest: Rows, drift: Drift, rng: np.random.Generator) -> set[str]:
    """The columns that are called broken after 45 minutes of which the last 15 are."""
    minutes = []
    for place in range(45):
        rows = rest.take(rng.integers(0, rest.size, ROWS))
        if place >= 30:
            rows = inject(drift, rows, rest, rng, schema=known.schema)
        binner = Binner(known.profile)
        binner.add(rows.inputs, {})
        minutes.append(Minute(BEGINS + place * MINUTE_S, 1, DIGEST, ROWS, ROWS, {}, {}, {}, binner.take()))
    return {each.feature for each in examine(Series(known, minutes), Monitored().quality)}


def _slices() -> list[Item]:
    """Slices where there is one, and where there is none."""
    planted = CASES["one region"]
    hits = false = 0
    for seed in range(SEEDS):
        for case, is_planted in ((planted, True), (CASES["nothing"], False)):
            made = hour(case, 2000 + seed)
            rows = sampled(made.evidence.logged, SCHEMA)
            assert rows is not None
            part = rows.take(np.flatnonzero(rows.times >= made.first_bad))
            # With nothing wrong the loss is beside what the model expects of the row, so that no slice is worse than it should be.
            loss = (part.truth != part.predicted).astype(float) if is_planted else (part.truth != part.predicted) - (1 - part.probability.max(axis=1))
            found = slicing.find(slicing.coded(part.inputs, rows=len(loss)), loss, alpha=0.05)
            hits += is_planted and bool(found) and "region = 'north'" in found[0].said
            false += not is_planted and bool(found)
    return [
        Item(
            name="slice_found",
            figure=hits / SEEDS,
            unit="",
            bar=0.9,
            better="higher",
            note="the planted slice is the first that is told, of 2,300 rows",
        ),
        Item(name="slice_false", figure=false / SEEDS, unit="", bar=0.15, better="lower", note="any slice told where there is none, at level .05"),
    ]
