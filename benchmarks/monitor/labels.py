"""A million labels of which none has a prediction: from the ids in memory to the account of what became of them.

What `modelyard labels` does is done here without its socket: labels go in the client's parts, each is written as JSON and read as the route reads it,
kept by the ledger, and looked for. Processor time counts: the disk is the machine's.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.items import Item
from benchmarks.monitor import months

LABELS = 1_000_000


def run(data: Path) -> list[Item]:
    """Seconds of one core."""
    del data
    with tempfile.TemporaryDirectory() as folder, months.one_core():
        return [unmatched(Path(folder))]


def unmatched(folder: Path) -> Item:
    """Given, and accounted for."""
    import msgspec

    from modelyard.client.verbs import parts
    from modelyard.console.routes.deployments import LabelsRequest
    from modelyard.console.routes.deployments import given as read
    from modelyard.monitor.labels import Ledger, account
    from modelyard.monitor.log import PredictionLog
    from modelyard.monitor.windows import Windows

    given: dict[str, str | float | bool] = {secrets.token_hex(16): 1.0 for _ in range(LABELS)}
    began, clock = time.process_time(), time.perf_counter()
    with closing(Ledger(folder / "labels.sqlite")) as ledger, closing(Windows(folder / "monitor.sqlite")) as windows:
        for part in parts((key, truth, None) for key, truth in given.items()):
            asked = msgspec.json.decode(msgspec.json.encode({"labels": part}), type=LabelsRequest)
            ledger.give(months.NAME, read(asked), at=time.time())
        gave = time.process_time() - began
        found = account(ledger, PredictionLog(folder / "log"), windows, months.NAME, now=time.time())
    if (found.labels, found.unknown, found.received.new) != (LABELS, LABELS, LABELS):
        raise RuntimeError("the ledger does not have what was given")
    took, by_clock = time.process_time() - began, time.perf_counter() - clock
    return Item(
        name="labels-million-unmatched",
        figure=took,
        unit="s",
        bar=20,
        better="lower",
        note=f"processor time, {gave:.3g} s of it to keep them, the rest to look for them and to account; {by_clock:.3g} s by the clock",
    )
