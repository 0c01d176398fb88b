"""The data plane beside the ruler (`reference_servers.py bare`), with everything on: schema check, metrics, profile, log, sampling and a key.

The same ONNX session answers on both sides: a 100-tree forest over 30 floats. One row a request as JSON V2, and 1,000 rows as binary tensors beside
the session alone. Servers are pinned to one core, wrk to another; rounds alternate and the median of their ratios counts, so that what
else the machine does meets both sides alike.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.items import Item, ratio, spread
from benchmarks.servers import Home, Question, Running, Wrk, alone, processor_us, resident_mb, started, v2

REFERENCE = Path(__file__).with_name("reference_servers.py")
ROUNDS = 5
MONITORING_ROUNDS = 15
STARTS = 5
BULK_ROWS = 1000
BULK_CONNECTIONS = 4


def forest(folder: Path, *, challengers: int = 0) -> tuple[Path, Home]:
    """The forest as a file, and a home that serves it as `forest`; `challengers` further versions of it differ in their seed."""
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    import modelyard

    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(np.float32)
    trained = RandomForestClassifier(100, random_state=0).fit(X, y)
    path = folder / "forest.onnx"
    path.write_bytes(to_onnx(trained, X[:1], options={id(trained): {"zipmap": False}}).SerializeToString())
    home = Home(folder / "home")
    modelyard.package(path, name="forest", data=X, home=home.folder)
    home.serve("forest")
    for seed in range(1, challengers + 1):
        other = RandomForestClassifier(100, random_state=seed).fit(X, y)
        changed = folder / f"forest-{seed}.onnx"
        changed.write_bytes(to_onnx(other, X[:1], options={id(other): {"zipmap": False}}).SerializeToString())
        modelyard.package(changed, name="forest", data=X, home=home.folder)
    return path, home


def bare_command(model: Path) -> list[str]:
    """The command line of the ruler over `model`."""
    return [sys.executable, str(REFERENCE), "bare", str(model), "{port}"]


ARROW = {"Content-Type": "application/vnd.apache.arrow.stream", "Accept": "application/vnd.apache.arrow.stream"}


def arrow_stream(rows: Any) -> bytes:
    """`rows` as an Arrow IPC stream of one column `X` of lists."""
    import pyarrow as pa

    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    batch = pa.record_batch([values], names=["X"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


class Sides:
    """The forest on both sides, and the questions that they are asked."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        from sklearn.datasets import load_breast_cancer

        self.model, self.home = forest(folder)
        X = load_breast_cancer().data.astype(np.float32)
        many = np.resize(X, (BULK_ROWS, X.shape[1]))
        self.row = v2("forest", X[:1], self.home.authorization)
        self.bulk = v2("forest", many, self.home.authorization, binary=True)
        self.arrow = Question(self.bulk.paths, arrow_stream(many), {**ARROW, **self.home.authorization})
        self.rows_file = folder / "rows.npz"
        np.savez(self.rows_file, X=many)
        self.of_bare = Question(["/"], self.row.body, self.row.headers)
        self.wrk = Wrk(folder)

    def start(self, *, is_ours: bool) -> float:
        """Seconds from a start to the first answer."""
        with self.home.started(self.row) if is_ours else started(bare_command(self.model), self.of_bare) as running:
            return running.seconds


def run() -> list[Item]:
    """Throughput at 32 connections, the median wait at one, the start, the memory of a worker; bulk; and what monitoring costs."""
    with tempfile.TemporaryDirectory() as name:
        sides = Sides(Path(name))
        return [*_starts(sides), *_beside_bare(sides), *_monitoring(sides)]


def _starts(sides: Sides) -> list[Item]:
    sides.start(is_ours=True), sides.start(is_ours=False)  # compiled files and page cache, as for any second start
    figure, ours_s, bare_s = ratio(lambda: sides.start(is_ours=True), lambda: sides.start(is_ours=False), rounds=STARTS)
    note = f"to the first answer: ours {statistics.median(ours_s):.2f} s, bare ASGI {statistics.median(bare_s):.2f} s"
    return [Item(name="serve-start", figure=figure, unit="x", bar=1.5, better="lower", note=note)]


def _beside_bare(sides: Sides) -> list[Item]:
    wrk, row = sides.wrk, sides.row
    with started(bare_command(sides.model), sides.of_bare) as bare, sides.home.started(row) as ours:
        wrk.load(ours.port, row, 32), wrk.load(bare.port, sides.of_bare, 32)
        speed, ours_rate, bare_rate = ratio(
            lambda: wrk.load(ours.port, row, 32).requests_s, lambda: wrk.load(bare.port, sides.of_bare, 32).requests_s, rounds=ROUNDS
        )
        wait, ours_us, bare_us = ratio(
            lambda: wrk.load(ours.port, row, 1, 3).p50_us, lambda: wrk.load(bare.port, sides.of_bare, 1, 3).p50_us, rounds=ROUNDS
        )
        memory = resident_mb(ours.pid)
        wrk.load(ours.port, sides.bulk, BULK_CONNECTIONS, 2)
        bulk, bulk_rate, alone_rate = ratio(
            lambda: wrk.load(ours.port, sides.bulk, BULK_CONNECTIONS).requests_s, lambda: alone(sides.model, sides.rows_file), rounds=ROUNDS
        )
        arrow_rate = [wrk.load(ours.port, sides.arrow, BULK_CONNECTIONS).requests_s for _ in range(2)]
    rows, of_session, of_arrow = ([BULK_ROWS * rate for rate in rates] for rates in (bulk_rate, alone_rate, arrow_rate))
    return [
        Item(
            name="serve-32-connections",
            figure=speed,
            unit="x",
            bar=2.0,
            better="higher",
            note=f"requests/s: ours {spread(ours_rate, '')}, bare ASGI {spread(bare_rate, '')}",
        ),
        Item(
            name="serve-p50-1-connection",
            figure=wait,
            unit="x",
            bar=1.3,
            better="lower",
            note=f"ours {statistics.median(ours_us):.0f} µs, bare ASGI {statistics.median(bare_us):.0f} µs",
        ),
        Item(name="serve-memory", figure=memory, unit="MB", bar=150, better="lower", note="one worker after the load, forest of 100 trees"),
        Item(
            name="serve-bulk-binary",
            figure=bulk,
            unit="x",
            bar=0.8,
            better="higher",
            note=f"{BULK_ROWS:,} x 30 rows a request; rows/s: ours {spread(rows, '')} (as Arrow {spread(of_arrow, '')}), "
            f"session alone {spread(of_session, '')}",
        ),
    ]


def _monitoring(sides: Sides) -> list[Item]:
    """With profile, log and sampling, beside the same server that keeps no observations at all.

    Many short rounds, since what else the machine does meets neighbouring ones alike; each holds one flush. The bar is for the rates;
    the processor time of a request, which the rest of the machine changes least, stands in the note.
    """
    wrk = sides.wrk
    with sides.home.started(sides.row) as on, sides.home.started(sides.row, has_spool=False) as off:

        def rate(side: Running, question: Question, connections: int, spent_us: list[float]) -> Callable[[], float]:
            def measure() -> float:
                before = sum(processor_us(side.pid))
                requests_s = wrk.load(side.port, question, connections, 1).requests_s
                spent_us.append((sum(processor_us(side.pid)) - before) / requests_s)
                return requests_s

            return measure

        def item(name: str, question: Question, connections: int) -> Item:
            on_us: list[float] = []
            off_us: list[float] = []
            with_it, without = rate(on, question, connections, on_us), rate(off, question, connections, off_us)
            for _ in range(3):
                with_it(), without()
            on_us.clear(), off_us.clear()
            figure, rates_on, rates_off = ratio(with_it, without, rounds=MONITORING_ROUNDS)
            processor = statistics.median(b / a for a, b in zip(on_us, off_us, strict=True))
            note = (
                f"requests/s, medians of {MONITORING_ROUNDS} rounds: on {statistics.median(rates_on):,.4g}, off {statistics.median(rates_off):,.4g}; "
                f"processor time a request: on {statistics.median(on_us):,.4g} µs, off {statistics.median(off_us):,.4g} µs, {processor:.3f} x"
            )
            return Item(name=name, figure=figure, unit="x", bar=0.95, better="higher", note=note)

        return [item("monitoring-32-connections", sides.row, 32), item("monitoring-bulk", sides.bulk, BULK_CONNECTIONS)]
