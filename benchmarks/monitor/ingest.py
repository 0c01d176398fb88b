"""Bar 7: how fast observations reach the prediction log on one core, and how fast a month of them is asked about.

From the spool to Parquet: a worker's segments, a second each, are read, checked, counted in windows, kept, and written to the log. The month is made
of minutes whose rows sum to a hundred million; the questions are those that reports ask.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.items import Item, spread
from benchmarks.monitor import months

if TYPE_CHECKING:
    from modelyard.events import Rows

FEATURES, ROUNDS = 20, 3
MONTH_FEATURES, MONTH_ROWS = 100, 2315  # a minute; 100,008,000 in a month
SEGMENTS = 500


def run(data: Path) -> list[Item]:
    """Thousands of observations a second, and seconds for a question about a month."""
    with tempfile.TemporaryDirectory() as folder, months.one_core():
        usual = [ingest(Path(folder) / f"usual-{number}", rows=200) for number in range(ROUNDS)]
        large = ingest(Path(folder) / "large", rows=2000, segments=SEGMENTS // 5)
        asked = month(Path(folder) / "monitor.sqlite")
    return [
        Item(
            name="ingest-observations",
            figure=statistics.median(usual) / 1000,
            unit="k/s",
            bar=50,
            better="higher",
            note=f"segments of 200 rows and {FEATURES} features {spread([each / 1000 for each in usual], ' k/s')}; of 2,000 {large / 1000:.4g} k/s",
        ),
        *asked,
    ]


def predictions(rows: int, number: int, at: float) -> Rows:
    """Answers of a classifier of two classes."""
    from modelyard.events import Rows, column

    draw = np.random.default_rng(number)
    probability = draw.random((rows, 2))
    labels = np.array(["no", "yes"], dtype=object)[(probability[:, 0] > probability[:, 1]).astype(int)]
    ids = tuple(f"{number:012x}-{row:04x}-4{row % 4096:03x}-9e0d-53f1a2b3c4d5" for row in range(rows))
    times = np.full(rows, at).astype("<f8").tobytes()
    return Rows(share=1.0, ids=ids, times=times, columns=(column("label", labels), column("probability", probability)))


def ingest(home: Path, *, rows: int, segments: int = SEGMENTS) -> float:
    """Observations a second from the spool into Parquet."""
    from modelyard.config import Settings
    from modelyard.events import Spool
    from modelyard.monitor.intake import Intake, log_path

    settings = Settings(home=home)
    spool = Spool(settings.spool, slot=0, limit_bytes=1 << 40)
    now = time.time()
    for number in range(segments):
        at = now - segments + number
        spool.write(months.segment(at, features=FEATURES, rows=rows, kind=number, predictions=predictions(rows, number, at)))
    import duckdb  # noqa: F401  # a control process has loaded it

    intake = Intake(settings)
    started = time.perf_counter()
    intake.drain()
    seconds = time.perf_counter() - started
    intake.close()
    import duckdb as reading

    with reading.connect() as connection:
        kept = connection.execute("select count(distinct prediction_id) from read_parquet(?)", [f"{log_path(settings)}/**/*.parquet"]).fetchall()[0][
            0
        ]
    if kept != rows * segments:
        raise RuntimeError(f"{kept} of {rows * segments} predictions are in the log")
    return rows * segments / seconds


def month(path: Path) -> list[Item]:
    """What questions about a month of a hundred million rows take, and how many bytes it does."""
    from modelyard.monitor.profile import compare, filled
    from modelyard.monitor.windows import Windows

    with closing(Windows(path)) as windows:
        total = months.month(windows, features=MONTH_FEATURES, rows=MONTH_ROWS)
        known = months.reference(MONTH_FEATURES)
        end = months.START + months.DAYS * 86400
        found: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for called, days in (("hour", 1 / 24), ("day", 1), ("week", 7), ("month", months.DAYS)):
                started = time.perf_counter()
                counts = windows.counts(months.NAME, months.DIGEST, since=end - days * 86400)
                if counts is None or counts[0] != round(days * 1440) * MONTH_ROWS:
                    raise RuntimeError(f"the last {called} does not have the rows that it was made of")
                compare(known, filled(known, counts))
                windows.seen(months.NAME, since=end - days * 86400)
                found.setdefault(called, []).append(time.perf_counter() - started)
    slowest = {called: statistics.median(seconds) for called, seconds in found.items()}
    told = ", ".join(f"{called} {seconds * 1000:.0f} ms" for called, seconds in slowest.items())
    return [
        Item(
            name="month-query",
            figure=max(slowest.values()),
            unit="s",
            bar=1,
            better="lower",
            note=f"{total:,} rows of {MONTH_FEATURES} features, compared with the reference, by window: {told}",
        ),
        Item(
            name="month-size",
            figure=months.size_bytes(path) / 1e6,
            unit="MB",
            bar=16,
            better="lower",
            note="profiles by the minute for 26 hours and counters for four days, hours before; the SQLite file as it lies on the disk",
        ),
    ]
