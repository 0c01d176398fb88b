"""The second half of bar 6: a pure concept drift with labels always pages, and nothing that looks at inputs and outputs does.

Rows keep their distribution and the model keeps its answers; what is true of a row changes, by a turn of the plane that parts the classes. Labels
come 20 minutes late on average, in any order. What is run are the product's detectors, minute by minute, each with half of one false page a month.
How often such weeks page in vain is counted over many more of them, by the monitor of the risk alone. `data` is not used: all of it is drawn.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.items import Item
from modelyard.monitor import profile
from modelyard.monitor.base import Evidence, Labelled, Minute, Reference
from modelyard.monitor.concept import ConceptDrift
from modelyard.monitor.drift import Drift
from modelyard.monitor.risk import Risk, Terms, feed
from modelyard.monitor.settings import Concept, Monitored
from modelyard.types import Digest, Schema, TensorSpec

SEEDS = 24
QUIET = 480
"""Weeks without a drift over which false pages are counted: in those before the drifts three or four are due, which says nothing."""
FEATURES, ROWS, REFERENCE_ROWS = 8, 100, 10_000
WEEK_MINUTES = range(0, 8 * 1440, 30)
"""Before the drift one minute in thirty is drawn: the days in which drift learns its cycles."""
AFTER_MINUTES = 240
LATE_S, NOISE = 1200.0, 0.1
BUDGET = 0.5
"""False pages a month that each detector may bring."""
MONDAY = 1_767_571_200
DIGEST = Digest("sha256:" + "0" * 64)
SETTINGS = Monitored(concept=Concept(reports=False))


class Seen(NamedTuple):
    """Rows after the drift until concept drift paged (infinite: never), how often it did before, for nothing, and the names of what else did."""

    delay: float
    early: int
    others: tuple[str, ...]


def run(data: Path) -> list[Item]:
    """How many of the drawn drifts paged, and what paged beside."""
    found = [watched(seed) for seed in range(SEEDS)]
    delays = [each.delay for each in found]
    others = sorted({name for each in found for name in each.others})
    paged = sum(map(np.isfinite, delays))
    months = SEEDS * len(WEEK_MINUTES) * 30 / 43_830
    early = sum(each.early for each in found)
    note = f"median {statistics.median(delays):,.0f} rows, {min(delays):,.0f} to {max(delays):,.0f}; an alarm every 100 rows: {SEEDS} of {SEEDS}"
    note += f"; false pages before: {early}, where the budget allows {months * BUDGET:.1f}"
    return [
        Item(name="concept-drift-pages", figure=paged, unit="", bar=SEEDS, better="higher", note=f"of {SEEDS}; {note}"),
        Item(
            name="concept-drift-pages-as-drift",
            figure=sum(bool(each.others) for each in found),
            unit="",
            bar=0,
            better="lower",
            note=", ".join(others) or "neither inputs nor outputs moved",
        ),
        _quiet(),
    ]


def _quiet() -> Item:
    rows = ROWS * len(WEEK_MINUTES)
    months = len(WEEK_MINUTES) * 30 / 43_830
    terms = Terms(rows_between=rows / months / BUDGET)
    found = [false_pages(seed, rows, terms) for seed in range(QUIET)]
    note = f"of {QUIET} weeks of {rows:,} labels in which nothing changes; an alarm every 100 rows: {QUIET * rows // 100:,}"
    return Item(name="concept-false-pages", figure=sum(found), unit="", bar=round(QUIET * months * BUDGET, 1), better="lower", note=note)


def false_pages(seed: int, rows: int, terms: Terms) -> int:
    """How often a week without a drift pages: wrong is what the noise makes so."""
    errors = (np.random.default_rng([seed, 67]).random(rows) < NOISE).astype(np.float64)
    _, alarms = feed(Risk(), errors, np.arange(rows, dtype=np.float64), terms=terms)
    return sum(alarm.kind == "rose" for alarm in alarms)


class World:
    """A model that does not change, and a truth that does."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 66])
        plane = self.rng.normal(size=(FEATURES, 2))
        plane, _ = np.linalg.qr(plane)
        self.known = plane[:, 0]
        angle = self.rng.uniform(np.pi / 6, np.pi / 2)
        self.turned = np.cos(angle) * plane[:, 0] + np.sin(angle) * plane[:, 1]
        inputs = tuple(TensorSpec(name=f"x{place}", datatype="FP64", shape=(-1, 1)) for place in range(FEATURES))
        outputs = (TensorSpec(name="label", datatype="INT64", shape=(-1,)), TensorSpec(name="probability", datatype="FP64", shape=(-1, 2)))
        schema = Schema(inputs=inputs, outputs=outputs, layout="frame", task="classification", classes=(0, 1))
        rows = self.rows(REFERENCE_ROWS)
        known = profile.measure(columns(rows), schema) + profile.measure_outputs(self.answers(rows), schema)
        self.reference = Reference(digest=DIGEST, schema=schema, profile=known, importance={}, quality={})

    def rows(self, count: int) -> np.ndarray:
        """Inputs, whose distribution never changes."""
        found: np.ndarray = self.rng.normal(size=(count, FEATURES))
        return found

    def answers(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the model says."""
        one = 1 / (1 + np.exp(-3 * rows @ self.known))
        return {"label": (one >= 0.5).astype(np.int64), "probability": np.stack([1 - one, one], axis=1)}

    def truth(self, rows: np.ndarray, is_turned: bool) -> np.ndarray:
        """What is true, but for some noise."""
        true = (rows @ (self.turned if is_turned else self.known) >= 0).astype(np.int64)
        return np.where(self.rng.random(len(rows)) < NOISE, 1 - true, true)


def columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Rows as the profile reads them."""
    return {f"x{place}": rows[:, place : place + 1] for place in range(FEATURES)}


def watched(seed: int) -> Seen:
    """One deployment from its first week to the end of the drift."""
    world = World(seed)
    concept, drift = ConceptDrift(), Drift()
    states = {"concept": b"", "drift": b""}
    binner = profile.Binner(world.reference.profile)
    log: list[tuple[np.ndarray, ...]] = []
    came = np.zeros(0)
    others: set[str] = set()
    early = 0
    was_raised = False
    first = WEEK_MINUTES[-1] + 1
    for at in [*WEEK_MINUTES, *range(first, first + AFTER_MINUTES)]:
        start = MONDAY + 60 * at
        rows = world.rows(ROWS)
        answers = world.answers(rows)
        binner.add(columns(rows), answers)
        times = start + np.sort(world.rng.uniform(0, 60, ROWS))
        log.append((times, world.truth(rows, at >= first), answers["label"], answers["probability"]))
        came = np.concatenate([came, times + world.rng.exponential(LATE_S, ROWS)])
        now = start + 80.0
        minute = Minute(start, 1, DIGEST, ROWS, ROWS, {}, {}, {}, binner.take())
        evidence = Evidence(
            name="m",
            reference=world.reference,
            fresh=(minute,),
            recent=(minute,),
            labelled=labelled(log, came, now),
            false_pages=BUDGET,
            now=now,
            settings=SETTINGS,
        )
        told = {}
        for name, detector in (("concept", concept), ("drift", drift)):
            judged = detector.judge(evidence, states[name])
            states[name] = judged.state
            told[name] = {verdict.rule for verdict in judged.verdicts if verdict.outcome == "fail"}
        others |= told["drift"]
        is_new, was_raised = bool(told["concept"]) and not was_raised, bool(told["concept"])
        if is_new and at >= first:
            return Seen((at - first + 1) * ROWS, early, tuple(others))
        early += is_new
    return Seen(float("inf"), early, tuple(others))


def labelled(log: list[tuple[np.ndarray, ...]], came: np.ndarray, now: float) -> Labelled:
    """What has a label by now, numbered by when it came."""
    times, truth, predicted, probability = (np.concatenate(parts) for parts in zip(*log, strict=True))
    has = came <= now
    numbers = np.empty(len(came), dtype=np.int64)
    numbers[np.argsort(came, kind="stable")] = np.arange(1, len(came) + 1)
    return Labelled(times[has], truth[has], predicted[has], probability[has], numbers[has])
