"""Bars 1, 4 and the first half of 6: false pages of a month, the delay of a shift, and what an unused column does.

100 features of 10,000 reference rows, 200,000 rows a day for 30 days, a third of the features with daily and weekly cycles; what is run is the very
detector of the product, a minute at a time. Counts are drawn by minute from the exact chances of each bin, which is what rows would give; a short
stretch of real rows through the Binner shows that the two agree. `data` is not used: all of it is drawn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.items import Item, spread

if TYPE_CHECKING:
    from modelyard.monitor.base import Evidence, Minute, Reference
    from modelyard.monitor.profile import Profile

FEATURES, CYCLIC, DAYS, ROWS_A_DAY, REFERENCE_ROWS, SEEDS = 100, 33, 30, 200_000, 10_000, 20
SHIFT, SHIFT_DAY = 0.25, 20
MINUTES_A_DAY = 1440
MONDAY = 1_767_571_200
DAILY, WEEKLY = 0.5, 0.3
"""Amplitudes of the cycles, in deviations of what they move; each cyclic feature has its own phases."""
DUMMY_ROWS = 100


def quiet(data: Path) -> list[Item]:
    """Bar 1, and beside it what an alarm every 100 rows would do."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(month, range(SEEDS)))
    pages = [float(each["pages"]) for each in found]
    delays = [each["delay"] for each in found]
    turns_ms = turns()
    dummy = DAYS * ROWS_A_DAY / DUMMY_ROWS
    held = [delay for delay in delays if np.isfinite(delay)]
    return [
        Item(
            name="drift-false-pages-a-month",
            figure=statistics.fmean(pages),
            unit="",
            bar=1,
            better="lower",
            note=f"of {SEEDS} months: {spread(pages, '')}; an alarm every {DUMMY_ROWS} rows: {dummy:,.0f}",
        ),
        Item(
            name="drift-delay-rows",
            figure=statistics.median(delays),
            unit="",
            bar=5000,
            better="lower",
            note=f"{len(held)} of {SEEDS} found, {min(delays):,.0f} to {max(delays):,.0f} rows; an alarm every {DUMMY_ROWS} rows: {DUMMY_ROWS // 2}",
        ),
        Item(
            name="drift-turn-ms",
            figure=statistics.median(turns_ms),
            unit="ms",
            bar=10,
            better="lower",
            note=f"{FEATURES} features, one minute, state read and written: {spread([min(turns_ms), max(turns_ms)], ' ms')}",
        ),
        Item(
            name="drift-rows-through-the-binner",
            figure=agreement(),
            unit="",
            bar=4.0,
            better="lower",
            note="largest deviation of a bin's count from its chance, in standard errors, over a day of real rows of ten features",
        ),
    ]


def profiles(data: Path) -> list[Item]:
    """Bar 4: the speeds of the Binner, and that merging is exact."""
    from benchmarks import profiles as speeds

    return [*speeds.run(), merging()]


def unused(data: Path) -> list[Item]:
    """The first half of bar 6: a shift of a whole deviation in a column that the model does not use, beside the same in one that it uses."""
    woken = {importance: sum(_woken(seed, importance) for seed in range(SEEDS)) for importance in (0.0, 0.2)}
    note = f"in a column of importance 0; of importance 0.2: {woken[0.2]} of {SEEDS}; an alarm every {DUMMY_ROWS} rows: {SEEDS} of {SEEDS}"
    return [
        Item(name="unused-column-pages", figure=woken[0.0], unit="", bar=0, better="lower", note=note),
        Item(name="used-column-pages", figure=woken[0.2], unit="", bar=SEEDS, better="higher", note="the control of the item above"),
    ]


# -- a month ---------------------------------------------------------------------------------------------------------------------------------


def month(seed: int) -> dict[str, float]:
    """One month without drift, and from its day 20 another with the shift: how often somebody was woken, and after how many rows."""
    rng = np.random.default_rng([seed, 1])
    cycles = _Cycles(rng)
    reference = reference_of(cycles, rng)
    watched = Watched(reference)
    fork = b""
    for day in range(DAYS):
        if day == SHIFT_DAY:
            fork = watched.state
        watched.see(minutes(reference, cycles, rng, range(day * MINUTES_A_DAY, (day + 1) * MINUTES_A_DAY)))
    pages = watched.pages
    shifted = Watched(reference, fork)
    first = SHIFT_DAY * MINUTES_A_DAY
    name = reference.profile.features[CYCLIC + seed % (FEATURES - CYCLIC)].name
    rows, delay = 0, float("inf")
    for at in range(first, first + MINUTES_A_DAY):
        seen = minutes(reference, cycles, rng, [at], shifted=name, by=SHIFT)
        shifted.see(seen)
        rows += seen[0].rows
        if name in shifted.woken:
            delay = float(rows)
            break
    return {"pages": float(pages), "delay": delay}


def turns(count: int = 200) -> list[float]:
    """How long the product's turns take, of one minute each, in milliseconds of one core."""
    rng = np.random.default_rng(0)
    cycles = _Cycles(rng)
    reference = reference_of(cycles, rng)
    watched = Watched(reference)
    watched.see(minutes(reference, cycles, rng, range(0, 8 * MINUTES_A_DAY, 30)))
    found = []
    for at in range(8 * MINUTES_A_DAY, 8 * MINUTES_A_DAY + count):
        seen = minutes(reference, cycles, rng, [at])
        started = time.process_time()
        watched.see(seen)
        found.append((time.process_time() - started) * 1e3)
    return found


class Watched:
    """A deployment as the product watches it, with a month's budget of which drift has half. Counts each time that somebody is woken."""

    def __init__(self, reference: Reference, state: bytes = b"") -> None:
        from modelyard.monitor.drift import Drift

        self._reference, self._detector = reference, Drift()
        self.state, self.pages = state, 0
        self.woken: set[str] = set()

    def see(self, fresh: Sequence[Minute]) -> None:
        """Judge these minutes, an hour a turn: an alarm is told for an hour at least, so none is missed."""
        for start in range(0, len(fresh), 60):
            part = fresh[start : start + 60]
            judged = self._detector.judge(_evidence(self._reference, part), self.state)
            self.state = judged.state
            failing = {verdict.columns[0] for verdict in judged.verdicts if verdict.outcome == "fail"}
            self.pages += len(failing - self.woken)
            self.woken = failing


class _Cycles:
    """Where each feature's mean lies at a minute; features before `CYCLIC` go up and down."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.phases = rng.uniform(0, 2 * np.pi, size=(2, FEATURES, 1))
        is_cyclic = (np.arange(FEATURES) < CYCLIC)[:, None]
        self.daily, self.weekly = DAILY * is_cyclic, WEEKLY * is_cyclic

    def means(self, at: np.ndarray) -> np.ndarray:
        """[feature, minute]."""
        turns = 2 * np.pi * at / MINUTES_A_DAY
        found: np.ndarray = self.daily * np.sin(turns + self.phases[0]) + self.weekly * np.sin(turns / 7 + self.phases[1])
        return found


def reference_of(cycles: _Cycles, rng: np.random.Generator, *, importance: dict[str, float] | None = None) -> Reference:
    """10,000 rows from all over four weeks."""
    from modelyard.monitor import profile
    from modelyard.monitor.base import Reference
    from modelyard.types import Digest, Schema, TensorSpec

    at = rng.uniform(0, 28 * MINUTES_A_DAY, size=REFERENCE_ROWS)
    rows = rng.normal(size=(FEATURES, REFERENCE_ROWS)) + cycles.means(at)
    inputs = tuple(TensorSpec(name=f"x{place}", datatype="FP64", shape=(-1, 1)) for place in range(FEATURES))
    schema = Schema(inputs=inputs, outputs=(), layout="frame", task="other")
    known = profile.measure({spec.name: column[:, None] for spec, column in zip(inputs, rows, strict=True)}, schema)
    return Reference(digest=Digest("sha256:" + "0" * 64), schema=schema, profile=known, importance=importance or {}, quality={})


def minutes(
    reference: Reference, cycles: _Cycles, rng: np.random.Generator, places: Sequence[int], *, shifted: str = "", by: float = 0.0
) -> list[Minute]:
    """Counts of each minute, drawn from the chances of its bins; the mean of one feature `shifted` `by` so much."""
    from modelyard.monitor import profile
    from modelyard.monitor.base import Minute

    means = cycles.means(np.array(places))
    for row, feature in enumerate(reference.profile.features):
        if feature.name == shifted:
            means[row] += by
    chances = chances_of(reference, means)
    spans, size = profile.spans(reference.profile), profile.size(reference.profile)
    where = np.array([np.arange(span.start, span.stop - 1) for span in spans])
    found = []
    for place, shares in zip(places, chances, strict=True):
        rows = ROWS_A_DAY // MINUTES_A_DAY + (place % MINUTES_A_DAY < ROWS_A_DAY % MINUTES_A_DAY)
        counts = np.zeros(size, dtype=np.int64)
        counts[0] = rows
        counts[where] = rng.multinomial(rows, shares)
        found.append(Minute(MONDAY + 60 * place, 1, reference.digest, rows, rows, {}, {}, {}, counts))
    return found


def chances_of(reference: Reference, means: np.ndarray) -> np.ndarray:
    """[minute, feature, cell] of normals with these means [feature, minute]."""
    from scipy.special import ndtr

    edges = np.array([feature.edges for feature in reference.profile.features])
    below = ndtr(edges[:, None, :] - means[:, :, None])
    ends = np.zeros((*below.shape[:2], 1))
    found: np.ndarray = np.diff(np.concatenate((ends, below, ends + 1), axis=2), axis=2).transpose(1, 0, 2)
    return found


def agreement() -> float:
    """How far counts of real rows through the Binner lie from the chances that counts are drawn from, at most, in standard errors."""
    from modelyard.monitor import profile

    rng = np.random.default_rng(0)
    cycles = _Cycles(rng)
    reference = reference_of(cycles, rng)
    at = np.repeat(np.arange(MINUTES_A_DAY), 20)
    rows = rng.normal(size=(FEATURES, len(at))) + cycles.means(at)
    binner = profile.Binner(reference.profile)
    binner.add({feature.name: column[:, None] for feature, column in zip(reference.profile.features, rows, strict=True)}, {})
    counted = profile.filled(reference.profile, binner.take())
    chances = chances_of(reference, cycles.means(np.arange(MINUTES_A_DAY))).mean(axis=0)
    counts = np.array([feature.counts for feature in counted.features])
    errors = (counts - len(at) * chances) / np.sqrt(np.maximum(len(at) * chances * (1 - chances), 1.0))
    tenth = errors[:: FEATURES // 10]
    return float(np.abs(tenth).max())


def merging() -> Item:
    """Profiles of 1,000 rows cut anywhere, merged in any order, beside the profile of them all: how many differ in any bit."""
    from modelyard.monitor import profile

    rng = np.random.default_rng(0)
    cycles = _Cycles(rng)
    reference = reference_of(cycles, rng)
    differ = 0
    for _ in range(20):
        rows = rng.normal(size=(FEATURES, 1000)) * 10 ** rng.uniform(-2, 2, size=(FEATURES, 1))
        rows[rng.random(rows.shape) < 0.05] = np.nan
        cuts = [0, *sorted(rng.integers(0, 1000, size=9).tolist()), 1000]
        parts = [_counted(reference, rows[:, low:high]) for low, high in pairwise(cuts) if high > low]
        whole = _counted(reference, rows)
        merged = profile.filled(reference.profile, np.zeros(profile.size(reference.profile), dtype=np.int64))
        for place in rng.permutation(len(parts)):
            merged = profile.merge(merged, parts[place])
        differ += profile.encode(merged) != profile.encode(whole)
    return Item(
        name="profile-merge-differs", figure=differ, unit="", bar=0, better="lower", note="of 20 cut into ten parts and merged in another order"
    )


def _counted(reference: Reference, rows: np.ndarray) -> Profile:
    from modelyard.monitor import profile

    binner = profile.Binner(reference.profile)
    binner.add({feature.name: column[:, None] for feature, column in zip(reference.profile.features, rows, strict=True)}, {})
    return profile.filled(reference.profile, binner.take())


def _woken(seed: int, importance: float) -> bool:
    """Whether a shift by one deviation in a column of this importance wakes somebody within two hours."""
    rng = np.random.default_rng([seed, 6])
    cycles = _Cycles(rng)
    cycles.daily, cycles.weekly = cycles.daily * 0, cycles.weekly * 0
    rest = (1 - importance) / (FEATURES - 1)
    shares = {f"x{place}": rest for place in range(FEATURES)} | {"x50": importance}
    reference = reference_of(cycles, rng, importance=shares)
    watched = Watched(reference)
    watched.see(minutes(reference, cycles, rng, range(0, 8 * MINUTES_A_DAY, 30)))
    for at in range(8 * MINUTES_A_DAY, 8 * MINUTES_A_DAY + 120):
        watched.see(minutes(reference, cycles, rng, [at], shifted="x50", by=1.0))
        if watched.woken:
            return True
    return False


def _evidence(reference: Reference, fresh: Sequence[Minute]) -> Evidence:
    from modelyard.monitor.base import Evidence

    now = float(fresh[-1].start + 60) if fresh else float(MONDAY)
    return Evidence(name="m", reference=reference, fresh=fresh, recent=fresh, labelled=None, false_pages=0.5, now=now)
