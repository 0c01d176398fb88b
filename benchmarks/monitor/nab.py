"""Bar 5: anomalies in metric series, by the rules of the Numenta Anomaly Benchmark (NAB), beside its windowed Gaussian.

The scorer follows Lavin and Ahmad 2015 ("Evaluating real-time anomaly detection algorithms") and the benchmark's own sweep over thresholds, in its
standard profile: a labelled window earns 1 for the earliest alarm in it, less the later it comes, and costs 1 where none does; an alarm outside costs
up to .11, less the closer it follows a window. The first 15 % of a series, at most 750 rows, count nowhere. One threshold per detector, the best over
all series. 0 is what a detector that never alarms gets, 100 one that alarms at the first row of every window and nowhere else.
"""

from __future__ import annotations

import csv
import json
import math
import time
from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.items import Item
from modelyard.monitor import anomalies

FALSE_ALARM = 0.11
PROBATION, PROBATION_ROWS = 0.15, 5000
WINDOW, STEP = 6400, 100
EVERY = 100
ABOVE_ALL = 1.1


class Series(NamedTuple):
    """One metric: seconds since 1970 and values, and its labelled windows as first and last row."""

    name: str
    times: list[float]
    values: list[float]
    windows: list[tuple[int, int]]


class Judged(NamedTuple):
    """The rows of a series that count: a detector's scores, what an alarm at each row is worth, and its window (-1: none)."""

    scores: np.ndarray
    worth: np.ndarray
    windows: np.ndarray


def run(data: Path) -> list[Item]:
    """Both detectors over every series of `data`/nab that windows.json names."""
    series = read(data / "nab")
    windows = sum(len(each.windows) for each in series)
    rows = sum(len(each.values) for each in series)
    began_s = time.perf_counter()
    ours = [judge(each, watched(each)) for each in series]
    took_s = time.perf_counter() - began_s
    gaussian = [judge(each, windowed_gaussian(each.values)) for each in series]
    dummy = [judge(each, np.arange(len(each.values)) % EVERY == EVERY - 1) for each in series]
    (threshold, best), (_, theirs) = optimum(ours, windows), optimum(gaussian, windows)
    shipped = normal(raw(ours, anomalies.THRESHOLD), ours, windows)
    unseen = normal(left_out(ours, windows), ours, windows)
    their_unseen = normal(left_out(gaussian, windows), gaussian, windows)
    blind = normal(raw(dummy, 1.0), dummy, windows)
    found, false = alarms(ours, threshold)
    return [
        Item(
            name="nab",
            figure=best - theirs,
            unit=" points",
            bar=15,
            better="higher",
            note=f"ours {best:.1f} (threshold {threshold:.3g}; {found} of {windows} windows found, {false} rows alarmed outside), windowed Gaussian "
            f"{theirs:.1f}, an alarm every {EVERY} rows {blind:.1f}; {len(series)} series, {rows:,} rows at {took_s / rows * 1e6:.0f} µs",
        ),
        Item(
            name="nab_shipped",
            figure=shipped - theirs,
            unit=" points",
            bar=0,
            better="higher",
            note=f"ours {shipped:.1f} at the shipped threshold ({anomalies.THRESHOLD}), beside the Gaussian's at its best; each series at what "
            f"is best on all others: ours {unseen:.1f}, Gaussian {their_unseen:.1f}",
        ),
    ]


def read(folder: Path) -> list[Series]:
    """The series that windows.json names, in its order."""
    labelled: dict[str, list[list[str]]] = json.loads((folder / "windows.json").read_text())
    return [read_series(folder / name, limits) for name, limits in labelled.items()]


def read_series(path: Path, limits: Sequence[Sequence[str]]) -> Series:
    """One series of columns `timestamp` and `value`, with windows from when to when, both included."""
    with path.open(newline="") as file:
        rows = [(_seconds(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)]
    times = [at for at, _ in rows]
    windows = [(bisect_left(times, _seconds(first)), bisect_left(times, _seconds(last))) for first, last in limits]
    return Series(path.name, times, [value for _, value in rows], [(first, min(last, len(times) - 1)) for first, last in sorted(windows)])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


# -- the detectors ---------------------------------------------------------------------------------------------------------------------------


def watched(series: Series) -> np.ndarray:
    """The product's scores."""
    course = anomalies.Course()
    return np.array([course.see(at, value).score for at, value in zip(series.times, series.values, strict=True)])


def windowed_gaussian(values: Sequence[float]) -> np.ndarray:
    """One minus the tail probability of each value under a Gaussian of the last `WINDOW` ones, moved on every `STEP`."""
    scores = np.zeros(len(values))
    held: list[float] = []
    total = squares = 0.0
    mean, deviation = 0.0, 1.0
    waiting: list[float] = []
    for at, value in enumerate(values):
        if held:
            scores[at] = 1 - 0.5 * math.erfc(abs(value - mean) / deviation / math.sqrt(2))
        if len(held) < WINDOW:
            held.append(value)
            total += value
            squares += value * value
        else:
            waiting.append(value)
            if len(waiting) < STEP:
                continue
            held, waiting = held[STEP:] + waiting, []
            total, squares = math.fsum(held), math.fsum(each * each for each in held)
        mean = total / len(held)
        deviation = math.sqrt(max(0.0, squares / len(held) - mean * mean)) or 1e-6
    return scores


# -- the benchmark's scorer ------------------------------------------------------------------------------------------------------------------


def worth_at(position: float) -> float:
    """What an alarm is worth by its place: -1 at the left edge of a window, 0 behind its right edge, 1 one width further."""
    return -1.0 if position >= 3 else 2 / (1 + math.exp(5 * position)) - 1


def judge(series: Series, scores: np.ndarray) -> Judged:
    """What each row is worth, without those of the probation."""
    count = len(scores)
    worth = np.full(count, -FALSE_ALARM)
    which = np.full(count, -1)
    for number, (first, last) in enumerate(series.windows):
        width = last - first + 1
        for at in range(first, last + 1):
            worth[at] = worth_at(-(last - at + 1) / width) / worth_at(-1.0)
        which[first : last + 1] = number
        until = series.windows[number + 1][0] if number + 1 < len(series.windows) else count
        for at in range(last + 1, until):
            worth[at] = FALSE_ALARM * worth_at((at - last) / max(width - 1, 1))
    begin = int(min(math.floor(PROBATION * count), PROBATION * PROBATION_ROWS))
    return Judged(np.asarray(scores, dtype=float)[begin:], worth[begin:], which[begin:])


def courses(judged: Sequence[Judged]) -> tuple[np.ndarray, np.ndarray]:
    """Every threshold that makes a difference, the highest first, and the total of all series at each."""
    scores = np.concatenate([each.scores for each in judged])
    order = np.argsort(-scores, kind="stable")
    change = np.zeros(len(scores))
    before = {(at, number): -1.0 for at, each in enumerate(judged) for number in set(each.windows.tolist()) - {-1}}
    total = float(sum(before.values()))
    of = np.concatenate([np.full(len(each.scores), at) for at, each in enumerate(judged)])[order].tolist()
    windows = np.concatenate([each.windows for each in judged])[order].tolist()
    worth = np.concatenate([each.worth for each in judged])[order].tolist()
    for at, (series, window, value) in enumerate(zip(of, windows, worth, strict=True)):
        if window < 0:
            change[at] = value
        elif value > before[series, window]:
            change[at] = value - before[series, window]
            before[series, window] = value
    sums = total + np.cumsum(change)
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return np.concatenate([[ABOVE_ALL], ordered[ends]]), np.concatenate([[total], sums[ends]])


def raw(judged: Sequence[Judged], threshold: float) -> float:
    """The total of all series where rows with at least `threshold` alarm."""
    thresholds, totals = courses(judged)
    return float(totals[np.flatnonzero(thresholds >= threshold)[-1]])


def normal(total: float, judged: Sequence[Judged], windows: int) -> float:
    """A total on the scale where silence is 0 and perfection 100."""
    silence = -float(sum(len(set(each.windows.tolist()) - {-1}) for each in judged))
    return 100 * (total - silence) / (windows - silence)


def optimum(judged: Sequence[Judged], windows: int) -> tuple[float, float]:
    """The best threshold over all series, and what it gets."""
    thresholds, totals = courses(judged)
    best = int(np.argmax(totals))
    return float(thresholds[best]), normal(float(totals[best]), judged, windows)


def left_out(judged: Sequence[Judged], windows: int) -> float:
    """The total where each series is given the threshold that is best on all others."""
    return sum(raw([each], optimum([*judged[:at], *judged[at + 1 :]], windows)[0]) for at, each in enumerate(judged))


def alarms(judged: Sequence[Judged], threshold: float) -> tuple[int, int]:
    """How many windows have an alarm, and how many rows outside have one."""
    found = sum(len(set(each.windows[each.scores >= threshold].tolist()) - {-1}) for each in judged)
    return found, sum(int(((each.scores >= threshold) & (each.windows < 0)).sum()) for each in judged)
