"""Fault 12: no space is left on the disk of the home."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.faults import probes, scene
from tests.faults.control import Control, control
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene
from tests.faults.shim import Shim

from modelyard import config
from modelyard.bundle import archive
from modelyard.monitor.intake import windows_path
from modelyard.monitor.windows import Windows
from serving import Home

OFFSETS = (0.0, 1000.0)
FULL_S, RATE = 3.0, 200.0


def run(scene_: Scene) -> None:
    shelf = Home(scene_.folder / "shelf")
    shelf.add("line", offset=7.0)
    archive.export(shelf.registry.blobs, shelf.registry.versions("line")[0].index, scene_.folder / "third.tar")
    home = Home(scene_.folder / "home")
    (home.folder / "keys").mkdir(exist_ok=True)
    for offset in OFFSETS:
        home.add("line", offset=offset)
    shim = Shim(scene_.folder, home.folder)
    with (
        scene_.server(home, shim=shim.environment) as server,
        control(scene_, home, starts=("quick gates",), **shim.environment) as running,
    ):
        assert running.deploy("line", "line:1").status == 202 and running.settled("line") is not None
        assert running.deploy("line", "line:2").status == 202 and running.settled("line") is not None
        server.mark()
        loading = server.load(scene.line(offsets=OFFSETS), connections=8, seconds=600, rate=RATE)
        time.sleep(1.0)
        before = _files(home), running.ask("GET", "/deployments/line").body
        shim.full()
        began = time.monotonic()
        replies = [
            running.deploy("line", "line:1"),
            running.ask("POST", "/deployments/line/rollback"),
            running.deploy("other", "line:1"),
            running.ask("DELETE", "/deployments/line"),
        ]
        imported = _import(home, scene_.folder / "third.tar", shim)
        time.sleep(max(0.0, began + FULL_S - time.monotonic()))
        after = _files(home), running.ask("GET", "/deployments/line").body
        shim.well()
        recovered = probes.wait(lambda: _recovers(running), 10.0, 0.05)
        settled = running.settled("line")
        counted = probes.wait(lambda: _lost(home) > 0, 10.0, 0.1)
        tally = loading.end(now=True)
    scene_.item("predicted", tally.success, 100, "%", better="higher", exact=True, note=f"of {tally.sent:,}, the disk full for {FULL_S:g} s")
    not_507 = [reply.status for reply in replies if reply.status != 507]
    scene_.item("not_507", len(not_507), 0, exact=True, note=f"{not_507} of {len(replies)} changes" if not_507 else f"of {len(replies)} changes")
    scene_.item("imported", imported, 0, exact=True, note="of one bundle, by the command line")
    partial = len(before[0] ^ after[0]) + (before[1] != after[1])
    scene_.item("partial", partial, 0, exact=True, note=", ".join(sorted(before[0] ^ after[0])[:4]))
    scene_.item(
        "recovered", None if recovered is None or settled is None else recovered + settled, 10, "s", note="a deploy in force, nothing restarted"
    )
    scene_.item("drops_counted", counted, 10, "s", note=f"the monitor knows of {_lost(home)} seconds of observations that were lost")


def _files(home: Home) -> frozenset[str]:
    """What stands in the home for good: neither states, nor what is on its way to the log, nor SQLite's own."""
    kept = (path.relative_to(home.folder) for path in home.folder.rglob("*") if path.is_file())
    passing = {"run", "spool", "log", "held"}
    return frozenset(str(path) for path in kept if path.parts[0] not in passing and not path.name.endswith(("-wal", "-shm", ".log")))


def _import(home: Home, file: Path, shim: Shim) -> int:
    """Whether `modelyard import` says that it has."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")} | shim.environment
    line = [sys.executable, "-m", "modelyard.cli", "import", str(file), "--home", str(home.folder)]
    return int(subprocess.run(line, env=environment, capture_output=True, check=False).returncode == 0)


def _lost(home: Home) -> int:
    """Segments of observations that the monitor knows to be lost."""
    with closing(Windows(windows_path(config.load({"home": home.folder})))) as windows:
        return windows.troubles().get("lost", 0)


def _recovers(running: Control) -> bool:
    return running.deploy("line", "line:1").status in {200, 202}


FAULT = Fault(
    number=12,
    name="full-disk",
    title="No space left on the disk",
    method=(
        f"Every write below the home that needs space fails with ENOSPC for {FULL_S:g} s, under {RATE:g} requests a second. Four changes and "
        "an import are asked for meanwhile. Then there is space again, and nothing is restarted."
    ),
    run=run,
    controls=(Taken(without="trying again", misses="recovered", text="an audit log that stays closed after a full disk."),),
    headline="recovered",
    may_share=True,
)
