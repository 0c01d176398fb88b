"""What the detectors would have said of past rows, and what they would say of drifts put into them: on the user's own model and data.

Hides how rows become minutes, and what makes it affordable: detectors are pure, so the state after the quiet rows is had once and each drift goes on
from there; of each kind the largest size is tried first, and the smaller ones only while they are seen. Labels are taken to be there at once. It must
not open bundles or logs, nor keep anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from modelyard.errors import InvalidInput
from modelyard.monitor import budget
from modelyard.monitor.base import MINUTE_S, Detector, Evidence, Labelled, Logged, Minute, Reference
from modelyard.monitor.injections import OF_LABELS, SIZES, Drift, Kind, Rows, inject, kinds
from modelyard.monitor.profile import Binner
from modelyard.monitor.sampled import places, sampled
from modelyard.monitor.settings import Monitored

if TYPE_CHECKING:
    from modelyard.types import Array, Schema, Verdict

Predict = Callable[[Mapping[str, "Array"]], Mapping[str, "Array"]]
Progress = Callable[[str, float], None]

RECENT = 60
"""Minutes that reports look at."""
BEGINS = 1_700_000_040
"""When the replay begins: any minute will do."""
LEAST_ROWS = 200


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`minute_rows` come each minute; `quiet_rows` drawn from the data at random come before each drift, and up to `horizon_rows` with it. Each
    drift is put in `runs` times, into the `features` that the model uses most.
    """

    minute_rows: int = 200
    quiet_rows: int = 6_000
    horizon_rows: int = 5_000
    runs: int = 3
    features: int = 8
    ramp_rows: int = 2_000
    seed: int = 1


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that spoke up on the rows as they came: first after so many rows, with what it said. `is_page`: it would have woken somebody."""

    rule: str
    rows: int
    is_page: bool
    evidence: str


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one drift of one size: in how many of the `runs` it was `paged`, and `reported` at all; the rows until then (medians)."""

    kind: Kind
    size: float
    said: str
    runs: int
    paged: int
    reported: int
    feature: str | None = None
    page_rows: float | None = None
    report_rows: float | None = None
    rules: tuple[str, ...] = ()


class Smallest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The smallest size of a kind that most runs paged, and that most reported; None where not even the largest was."""

    kind: Kind
    feature: str | None = None
    paged: float | None = None
    reported: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Of `rows` as they came: what spoke up. Of `quiet_rows` drawn from them at random, where nothing can drift: what spoke up all the same, which
    is then left out of what is `seen` of each drift.
    """

    rows: int
    labels: int
    came: tuple[Firing, ...]
    quiet_rows: int
    quiet: tuple[Firing, ...]
    seen: tuple[Seen, ...]
    smallest: tuple[Smallest, ...]


class World(NamedTuple):
    """The model (asked by `predict`), its reference, the detectors that shall judge, and how they are set."""

    reference: Reference
    predict: Predict
    detectors: Sequence[Detector]
    monitored: Monitored = Monitored()


def backtest(world: World, rows: Rows, *, settings: Settings | None = None, progress: Progress | None = None) -> Report:
    """Replay `rows` in their order, then put each kind of drift into rows drawn from them. Raises InvalidInput for too few rows; ModelFailed."""
    chosen = settings or Settings()
    tell = progress or _silent
    world = world._replace(monitored=_tried_so(world.monitored))
    if rows.size < LEAST_ROWS:
        raise InvalidInput(f"a backtest needs {LEAST_ROWS} rows at least; these are {rows.size:,}", field="data", rule="rows")
    tell("replaying the rows as they came", 0.0)
    came = _Stream(world, chosen).run(rows)
    rng = np.random.default_rng(chosen.seed)
    quiet = _Stream(world, chosen)
    fired = quiet.run(rows.take(rng.integers(0, rows.size, size=chosen.quiet_rows)))
    plans = _plans(world.reference, rows, chosen)
    seen: list[Seen] = []
    for place, (kind, feature, source, element, ramp) in enumerate(plans):
        tell(f"{kind} in {feature or 'the labels'}", 0.1 + 0.9 * place / len(plans))
        for size in sorted(SIZES[kind], reverse=True):
            drift = Drift(kind, source, size, element, ramp)
            seen.append(_tried(world, quiet, drift, rows, settings=chosen, feature=feature))
            if not seen[-1].reported:
                break
    return Report(
        rows=rows.size,
        labels=0 if rows.labels is None else rows.size,
        came=came,
        quiet_rows=chosen.quiet_rows,
        quiet=fired,
        seen=tuple(seen),
        smallest=tuple(_smallest(seen)),
    )


def _tried_so(monitored: Monitored) -> Monitored:
    """The settings with no week to be learnt, which rows in any order do not have, and without the reports of others' detectors on the error, which
    look through all labels in each turn.
    """
    return msgspec.structs.replace(
        monitored,
        drift=msgspec.structs.replace(monitored.drift, learn_days=0.0),
        concept=msgspec.structs.replace(monitored.concept, reports=False),
    )


def _plans(reference: Reference, rows: Rows, settings: Settings) -> list[tuple[Kind, str | None, str | None, int, int]]:
    """What is tried: kind, feature, where it stands, and over how many rows it grows."""
    specs = {spec.name: spec for spec in reference.schema.inputs}
    known = reference.importance
    inputs = [each for each in reference.profile.features if each.role == "input" and each.kind != "missing" and each.source in rows.inputs]
    most_used = sorted(inputs, key=lambda each: -known.get(each.name, 0.0))[: settings.features]
    found: list[tuple[Kind, str | None, str | None, int, int]] = []
    for each in most_used:
        found += [(kind, each.name, each.source, each.element, 0) for kind in kinds(specs[each.source])]
        if each is most_used[0] and "mean" in kinds(specs[each.source]):
            found.append(("mean", each.name, each.source, each.element, settings.ramp_rows))
    if rows.labels is not None:
        found += [(kind, None, None, 0, 0) for kind in OF_LABELS]
    return found


def _tried(world: World, quiet: _Stream, drift: Drift, rows: Rows, *, settings: Settings, feature: str | None) -> Seen:
    pages: list[int] = []
    reports: list[int] = []
    rules: dict[str, None] = {}
    for run in range(settings.runs):
        rng = np.random.default_rng((settings.seed, run))
        drawn = rows.take(rng.integers(0, rows.size, size=settings.horizon_rows))
        changed = inject(drift, drawn, rows, rng, schema=world.reference.schema)
        page, report, by = quiet.branch().until_seen(changed)
        pages += [] if page is None else [page]
        reports += [] if report is None else [report]
        rules.update(dict.fromkeys(by))
    return Seen(
        kind=drift.kind,
        size=drift.size,
        said=drift.said,
        runs=settings.runs,
        paged=len(pages),
        reported=len(reports),
        feature=feature,
        page_rows=statistics.median(pages) if pages else None,
        report_rows=statistics.median(reports) if reports else None,
        rules=tuple(rules),
    )


def _smallest(seen: Sequence[Seen]) -> list[Smallest]:
    found: dict[tuple[str | None, Kind], Smallest] = {}
    for each in seen:
        if each.said.endswith("growing"):
            continue
        had = found.get((each.feature, each.kind), Smallest(kind=each.kind, feature=each.feature))
        paged = _least(had.paged, each.size) if each.paged * 2 > each.runs else had.paged
        reported = _least(had.reported, each.size) if each.reported * 2 > each.runs else had.reported
        found[(each.feature, each.kind)] = Smallest(kind=each.kind, feature=each.feature, paged=paged, reported=reported)
    return list(found.values())


def _least(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)


def _silent(_stage: str, _fraction: float) -> None:
    """For whoever did not ask to be told."""


class _Past(NamedTuple):
    """What the recent window is made of, minute by minute: rows asked, answers, labels."""

    minute: Minute
    rows: Rows
    outputs: Mapping[str, Array]
    times: Array


class _Stream:
    """Rows as minutes through the detectors, with what these remember. A branch goes on alone."""

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings
        self._states: list[bytes] = [b""] * len(world.detectors)
        self._past: list[_Past] = []
        self._spoken: set[str] = set()
        self._at = BEGINS
        paging = {each.rule: getattr(each, "needs", None) for each in world.detectors if each.pages and world.monitored.section(each.rule).pages}
        self._shares = budget.shares(world.monitored.false_pages_a_month, paging)

    def branch(self) -> _Stream:
        """A stream that goes on from here."""
        other = _Stream(self._world, self._settings)
        other._states, other._past, other._at = list(self._states), list(self._past), self._at
        other._spoken = set(self._spoken)
        return other

    def run(self, rows: Rows) -> tuple[Firing, ...]:
        """Every rule that spoke up, once each."""
        fired: list[Firing] = []
        done = 0
        for part in self._parts(rows):
            done += part.size
            for verdict, is_page in self._new(part):
                fired.append(Firing(rule=verdict.rule, rows=done, is_page=is_page, evidence=verdict.evidence))
        return tuple(fired)

    def until_seen(self, rows: Rows) -> tuple[int | None, int | None, tuple[str, ...]]:
        """After how many rows a rule that was silent paged, and after how many one spoke up at all (None: not within these); which did first."""
        done, page, report = 0, None, None
        rules: tuple[str, ...] = ()
        for part in self._parts(rows):
            done += part.size
            new = self._new(part)
            if new and report is None:
                report, rules = done, tuple(verdict.rule for verdict, _ in new)
            if any(is_page for _, is_page in new):
                page = done
                break
        return page, report, rules

    def _parts(self, rows: Rows) -> list[Rows]:
        size = self._settings.minute_rows
        return [rows.take(np.arange(first, min(first + size, rows.size))) for first in range(0, rows.size, size)]

    def _new(self, part: Rows) -> list[tuple[Verdict, bool]]:
        """One minute: the verdicts that warn or fail of rules that had not yet (a rule that pages after it warned is new once more)."""
        evidence = self._evidence(part)
        told: list[tuple[Verdict, bool]] = []
        for place, detector in enumerate(self._world.detectors):
            pages = detector.rule in self._shares
            judged = detector.judge(evidence._replace(false_pages=self._shares.get(detector.rule, 0.0)), self._states[place])
            self._states[place] = judged.state
            for verdict in judged.verdicts:
                if verdict.outcome in ("warn", "fail"):
                    is_page = pages and verdict.outcome == "fail"
                    key = f"{verdict.rule} {'page' if is_page else 'report'}"
                    if key not in self._spoken:
                        self._spoken.add(key)
                        told.append((verdict, is_page))
        return told

    def _evidence(self, part: Rows) -> Evidence:
        reference = self._world.reference
        outputs = self._world.predict(part.inputs)
        binner = Binner(reference.profile)
        binner.add(part.inputs, outputs)
        minute = Minute(
            start=self._at,
            version=1,
            digest=reference.digest,
            requests=part.size,
            rows=part.size,
            latencies={},
            failures={},
            dropped={},
            counts=binner.take(),
        )
        times = self._at + MINUTE_S * np.arange(part.size) / part.size
        self._past = [*self._past[-RECENT + 1 :], _Past(minute, part, outputs, times)]
        self._at += MINUTE_S
        logged = _logged(self._past, reference.schema)
        return Evidence(
            name="backtest",
            reference=reference,
            fresh=(minute,),
            recent=tuple(each.minute for each in self._past),
            labelled=_labelled(logged, reference.schema),
            false_pages=0.0,
            now=float(self._at),
            logged=logged,
            settings=self._world.monitored,
        )


def _logged(past: Sequence[_Past], schema: Schema) -> Logged:
    """The recent rows as the prediction log would give them."""
    labels = [each.rows.labels for each in past if each.rows.labels is not None]
    truth = np.concatenate(labels) if labels else None
    if truth is not None:
        truth = places(truth, schema.classes) if schema.classes is not None else truth.astype(np.float64)
    return Logged(
        times=np.concatenate([each.times for each in past]),
        inputs={name: np.concatenate([each.rows.inputs[name] for each in past]) for name in past[0].rows.inputs},
        outputs={name: np.concatenate([each.outputs[name] for each in past]) for name in past[0].outputs},
        truth=truth,
    )


def _labelled(logged: Logged, schema: Schema) -> Labelled | None:
    rows = None if logged.truth is None else sampled(logged, schema)
    if rows is None:
        return None
    known = np.flatnonzero(rows.truth >= 0 if schema.classes is not None else np.isfinite(rows.truth))
    kept = rows.take(known)
    return Labelled(kept.times, kept.truth, kept.predicted, kept.probability)
