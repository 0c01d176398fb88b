"""A disk that is really full: said in one clear error, nothing half-written, and all is well when there is room again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
MOUNT = 'mount -t tmpfs -o size=8m none "$1" && shift && exec "$@"'
SCRIPT = """
import importlib.util, os, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent / "support"))
spec = importlib.util.spec_from_file_location("conftest", sys.argv[1])
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
from modelyard import registry
from modelyard.bundle import archive, build, open as open_bundle
from modelyard.errors import StorageFull
from modelyard.security.seal import Trust, local_signer

disk = Path(sys.argv[2])
home = registry.open(disk)
signer = local_signer(disk / "keys")

def files():
    return sorted(path for path in disk.rglob("*") if path.is_file() and "registry.sqlite-" not in path.name)

def refused(act):
    try:
        act()
    except StorageFull as error:
        return str(error)
    sys.exit("not refused")

small = build(conftest.sample_contents(), conftest.sample_attested(), signer=signer)
large = build(conftest.sample_contents(model=os.urandom(9 << 20)), conftest.sample_attested(), signer=signer)
first = home.add("churn", small)
before = files()
refused(lambda: home.add("churn", large))
kept = [path for path in files() if path not in before]
assert all(len(path.name) == 64 for path in kept), "no temporary file"
home.gc()
assert files() == before, "nothing of the refused one is left"
ballast = disk / "ballast"
with ballast.open("wb", buffering=0) as file:
    try:
        while file.write(b"x" * 4096):
            pass
    except OSError:
        pass
print(refused(lambda: home.add("fraud", small)))
print(refused(lambda: home.records.put("m", "a", {"text": "x" * 100_000}, expected=0)))
print(refused(lambda: archive.export(home.blobs, first.index, disk / "x.tar")))
print(refused(lambda: Trust(disk / "keys").add((Path(sys.argv[3]) / "signing.pub").read_bytes())))
print(refused(lambda: local_signer(disk / "others")))
assert [model.name for model in home.models()] == ["churn"]
open_bundle(home.blobs, first.index, trust=Trust(disk / "keys"))
ballast.unlink()
assert home.add("fraud", small).version == 1
home.close()
home = registry.open(disk)
assert [model.name for model in home.models()] == ["churn", "fraud"]
home.close()
print("WELL")
"""


def test_a_full_disk(tmp_path: Path, keys: Path, lacks: Callable[[str], NoReturn]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(disk)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        lacks("leave to mount a small disk")
    arguments = [*inside, sys.executable, "-c", SCRIPT, str(ROOT / "tests/conftest.py"), str(disk), str(keys)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("WELL\n"), done.stdout + done.stderr
    assert done.stdout.count("no space left") == 5


OBSERVED = """
import sys, time
from pathlib import Path
import numpy as np
from modelyard import events
from modelyard.config import Settings
from modelyard.errors import StorageFull
from modelyard.events import Part, Rows, Segment, Spool
from modelyard.monitor.intake import Intake, log_path
from modelyard.types import Digest

disk = Path(sys.argv[1])
settings = Settings(home=disk, spool_limit_bytes=1 << 30)
spool = Spool(settings.spool, slot=0, limit_bytes=settings.spool_limit_bytes)
intake = Intake(settings)
written = 0

def observe(rows=50):
    global written
    written += 1
    ids = tuple(f"{written:08}-{row:04}" for row in range(rows))
    kept = Rows(share=1.0, ids=ids, times=np.full(rows, time.time()).tobytes(), columns=(events.column("prediction", np.zeros(rows)),))
    part = Part(name="m", version=1, digest=Digest("sha256:" + "0" * 64), requests=rows, rows=rows, predictions=kept)
    spool.write(Segment(slot=0, pid=1, started_at=time.time() - 1, ended_at=time.time(), parts=(part,)))

def fill():
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass

observe()
intake.drain()
for _ in range(20):
    observe()
fill()
for _ in range(30):
    observe()  # the worker goes on, whatever becomes of what it has seen
waiting = len(events.pending(settings.spool))
assert 20 <= waiting < 50, waiting
try:
    while intake.turn(is_last=True).is_more:
        pass
    said = "nothing"
except StorageFull as error:
    said = error.message
print(said)
(disk / "ballast").unlink()
observe()
intake.drain()
assert not events.pending(settings.spool)
seen = sum(window.requests for window in intake.windows.seen("m", since=0).values())
lost = intake.windows.troubles().get("lost", 0)
import duckdb
with duckdb.connect() as connection:
    query = "select count(distinct prediction_id), count(*) from read_parquet(?)"
    logged = connection.execute(query, [f"{log_path(settings)}/**/*.parquet"]).fetchall()[0]
assert lost > 0 and seen == 50 * (written - lost) == logged[0] == logged[1], (lost, seen, logged, written)
print("WELL")
"""


def test_on_a_full_disk_what_is_observed_is_dropped_and_counted_or_waits(tmp_path: Path, lacks: Callable[[str], NoReturn]) -> None:
    """No write raises into the worker; what finds no room is counted by the next that does; what waits is taken in once there is space again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(disk)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        lacks("leave to mount a small disk")
    done = subprocess.run([*inside, sys.executable, "-c", OBSERVED, str(disk)], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("WELL\n") and "no space left" in done.stdout, done.stdout + done.stderr
