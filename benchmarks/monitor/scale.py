"""A thousand replicas: what each minute's merge takes of one core, whether it takes more the longer a home has been at it, and whether judging a
deployment does.

Each replica sends one segment a minute, of a hundred features. A merge is everything from the files as they were received to the committed windows:
read, hash, decode, check, add, keep. It is measured through the intake that a control process runs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.items import Item, ratio, spread
from benchmarks.monitor import months

if TYPE_CHECKING:
    from modelyard.monitor.intake import Intake
    from modelyard.monitor.windows import Windows

REPLICAS, FEATURES, ROWS, ROUNDS = 1000, 100, 600, 5


def run(data: Path) -> list[Item]:
    """Seconds for a minute of all replicas, the same after a month of history beside without, and a turn of a long window beside one of a short."""
    with tempfile.TemporaryDirectory() as folder, months.one_core():
        return [merge(Path(folder) / "merge"), *history(Path(folder))]


def merge(home: Path) -> Item:
    """One minute after the other."""
    with closing(opened(home)) as intake:
        taken = [minute(intake, home, number) for number in range(ROUNDS)]
        if sum(window.requests for window in intake.windows.seen(months.NAME, since=0).values()) != ROUNDS * REPLICAS * ROWS:
            raise RuntimeError("the windows do not have what was sent")
    return Item(
        name="merge-1000-replicas",
        figure=statistics.median(core for core, _ in taken),
        unit="s",
        bar=2,
        better="lower",
        note=(
            f"{REPLICAS} replicas x {FEATURES} features, processor time of a minute's merge {spread([core for core, _ in taken], ' s')}; "
            f"by the clock, pinned to one core that others use too, {spread([wall for _, wall in taken], ' s')}"
        ),
    )


def history(folder: Path) -> list[Item]:
    """What a turn of the intake takes of a home with thirty days behind it ÷ of a new one; and what judging takes there."""
    with closing(opened(folder / "old")) as old, closing(opened(folder / "new")) as new:
        months.month(old.windows, features=FEATURES, rows=ROWS)
        count = [0]

        def turn(intake: Intake, home: Path) -> float:
            count[0] += 1
            return minute(intake, home, count[0], replicas=250)[0]

        figure, ours, others = ratio(lambda: turn(old, folder / "old"), lambda: turn(new, folder / "new"), rounds=9)
        taken = Item(
            name="turn-after-30-days",
            figure=figure,
            unit="x",
            bar=1.2,
            better="lower",
            note=f"processor time after thirty days {spread(ours, ' s')}; new {spread(others, ' s')}",
        )
        return [taken, judging(old.windows)]


def judging(windows: Windows) -> Item:
    """What judging a minute takes with a window of seven days ÷ with one of six hours, on the same thirty days: all detectors, no label."""
    week, hours = Turns(windows, window_s=7 * 86_400.0), Turns(windows, window_s=21_600.0)
    figure, ours, others = ratio(week.one, hours.one, rounds=9)
    return Item(
        name="judge-a-week",
        figure=figure,
        unit="x",
        bar=2,
        better="lower",
        note=f"{FEATURES} features, processor time with a window of seven days {spread(ours, ' s')}; of six hours {spread(others, ' s')}",
    )


class Turns:
    """The turns of a monitor that has watched the month, one for each of its last minutes."""

    def __init__(self, windows: Windows, *, window_s: float) -> None:
        from modelyard.monitor import watch
        from modelyard.monitor.recent import Recent
        from modelyard.monitor.settings import Monitored

        self._windows, self._settings = windows, Monitored(window_s=window_s)
        self._through = months.START + months.DAYS * 86400 - 20 * 60
        self._recent, self._detectors = Recent(months.NAME, months.DIGEST), watch.load()
        self._kept = watch.Kept(version=months.VERSION, digest=months.DIGEST, through=self._through, since=self._through)
        self.one()

    def one(self) -> float:
        """Judge the next minute; what it took of the processor, reading included."""
        from modelyard.monitor import watch
        from modelyard.monitor.base import Reference
        from modelyard.types import Schema, TensorSpec

        schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, FEATURES)),), outputs=(), layout="array", task="other")
        reference = Reference(months.DIGEST, schema, months.reference(FEATURES), {}, {})
        self._through += 60
        began = time.process_time()
        span = watch.span(self._kept, settings=self._settings, closed=self._through)
        minutes = self._recent.look(self._windows, since=span.since, until=span.until)
        seen = watch.Seen(months.NAME, reference, minutes, None, span, self._through + 25.0)
        self._kept = watch.turn(self._kept, seen, self._detectors, settings=self._settings, pages=1.0)
        taken = time.process_time() - began
        if self._kept.failed or self._kept.through != self._through:
            raise RuntimeError(f"the turn judged nothing: {self._kept.failed}")
        return taken


def opened(home: Path) -> Intake:
    """The intake of a home, past what it does once an hour."""
    from modelyard.config import Settings
    from modelyard.monitor.intake import Intake

    intake = Intake(Settings(home=home))
    intake.turn(now=now(0))
    return intake


def now(number: int) -> float:
    """When minute `number` after the month is taken in."""
    return months.START + months.DAYS * 86400 + 60.0 * number + 15


def minute(intake: Intake, home: Path, number: int, *, replicas: int = REPLICAS) -> tuple[float, float]:
    """What it takes to take in one minute of all replicas that lies in the spool already: seconds of the processor, and by the clock."""
    from modelyard import events

    spool = home / "spool"
    for replica in range(replicas):
        data = events.encode(months.segment(now(number) - 16, features=FEATURES, rows=ROWS, kind=replica + number))
        (spool / f"r.key_replica.pod{replica}.0123456789abcdef-{number}.segment").write_bytes(data)
    core, wall = time.process_time(), time.perf_counter()
    while intake.turn(now=now(number)).is_more:
        pass
    return time.process_time() - core, time.perf_counter() - wall
