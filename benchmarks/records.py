"""What the control plane's store costs: the list of a thousand deployments as a caller gets it, and the audit chain.

The control process is a real one, with its loops on the same thousand deployments; who asks waits for a whole answer. An entry of the chain is
timed inside the transaction that it tells of, which is where a mutation pays for it; what a commit of its own costs on this disk stands in the note.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import msgspec

from benchmarks.items import Item, spread

DEPLOYMENTS = 1_000
ENTRIES = 4_000
ROUNDS = 9


def run() -> list[Item]:
    """`GET /api/v1/deployments` of a thousand, an audit entry, and the check of the whole chain."""
    with tempfile.TemporaryDirectory() as name:
        return [_listed(Path(name) / "home"), *_chain(Path(name))]


def _listed(home: Path) -> Item:
    from modelyard import registry
    from modelyard.registry import MODEL, VERSION
    from modelyard.rollout.deployments import Deployments
    from modelyard.targets.base import Deployment, Release
    from modelyard.types import Digest

    digest = Digest("sha256:" + "1" * 64)
    release = Release(model="m", version=1, digest=digest, index=digest)
    version = {"name": "m", "version": 1, "digest": digest, "index": digest, "blobs": [], "created_at": "", "summary": {}}
    made = registry.open(home)
    with made.records.transaction() as records:
        records.put(MODEL, "m", {"latest": 1, "aliases": {}}, expected=0)
        records.put(VERSION, "m:000000001", version, expected=0)
    deployments = Deployments(made)
    for number in range(DEPLOYMENTS):
        deployments.put(Deployment(name=f"d{number}", model="m", generation=6, current=release, previous=(release,) * 5), expected=0)
    made.close()
    with _control(home) as client:
        waits = []
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            answer = client.get("/api/v1/deployments")
            waits.append((time.perf_counter() - started) * 1000)
            assert answer.status_code == 200 and len(msgspec.json.decode(answer.content)) == DEPLOYMENTS
    waits = waits[1:]
    return Item(name="deployments-1000-listed", figure=statistics.median(waits), unit="ms", bar=100, better="lower", note=spread(waits, " ms"))


@contextmanager
def _control(home: Path) -> Iterator[httpx.Client]:
    """The control process of `home`, and a client with its admin key."""
    import os

    from modelyard import config
    from modelyard.control.access import admin_key
    from modelyard.errors import ModelyardError
    from modelyard.types import read_control_state

    settings = config.load({"home": home, "control_port": 0})
    key = admin_key(settings).key
    environment = {**os.environ, **config.child_environment(settings)}
    process = subprocess.Popen([sys.executable, "-P", "-m", "modelyard.console", str(home)], env=environment)
    try:
        for _ in range(600):
            try:
                state = read_control_state(settings.run)
                break
            except ModelyardError:
                time.sleep(0.1)
        else:
            raise AssertionError("the control process did not come up")
        time.sleep(2)  # its loops have read the deployments once
        with httpx.Client(base_url=state.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _chain(folder: Path) -> list[Item]:
    from modelyard.registry.records import SqliteRecords
    from modelyard.security.audit import AuditLog
    from modelyard.types import Principal

    who = Principal("key:ada", ("operator",))
    inside, alone = [], []
    with closing(SqliteRecords(folder / "chain")) as store:
        log = AuditLog(store)
        for number in range(ENTRIES):
            with store.transaction() as records:
                records.put("deployment", f"d{number % 100}", {"generation": number}, expected=None)
                started = time.perf_counter()
                log.within(records).record(who, "deploy", f"d{number % 100}", outcome="done", detail="churn:4 sha256:" + "1" * 64)
                inside.append((time.perf_counter() - started) * 1000)
        for number in range(ENTRIES // 10):
            started = time.perf_counter()
            log.record(who, "key-create", f"k{number}", outcome="begun")
            alone.append((time.perf_counter() - started) * 1000)
        rates = []
        for _ in range(3):
            started = time.perf_counter()
            count = log.verify()
            rates.append(count / (time.perf_counter() - started))
    p99 = statistics.quantiles(inside, n=100)[98]
    note = f"median {statistics.median(inside):.3f} ms; with a commit of its own on this disk, median {statistics.median(alone):.3f} ms"
    return [
        Item(name="audit-append-p99", figure=p99, unit="ms", bar=1, better="lower", note=note),
        Item(name="audit-verify", figure=statistics.median(rates), unit="/s", bar=50_000, better="higher", note=spread(rates, " entries/s")),
    ]
