"""Fault 10: loss of power at 200 random moments of imports, deploys and rollbacks."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.faults.control import Bare, control, judged
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene
from tests.faults.shim import Disk, Shim

from modelyard import registry
from modelyard.bundle import archive
from modelyard.bundle.base import digest_of
from modelyard.control.audit import verify
from modelyard.registry.records import SqliteRecords
from modelyard.rollout.deployments import Deployments
from modelyard.security.audit import FileLines
from modelyard.types import read_plan
from serving import Home

LOSSES, SEED = 200, 20240610


def run(scene_: Scene) -> None:
    shelf = Home(scene_.folder / "shelf")
    files = []
    for offset in (0.0, 1000.0):
        shelf.add("line", offset=offset)
        files.append(scene_.folder / f"line{offset:g}.tar")
        version = shelf.registry.versions("line")[-1]
        archive.export(shelf.registry.blobs, version.index, files[-1])
    folder = scene_.folder / "home"
    folder.mkdir()
    shutil.copytree(shelf.folder / "keys", folder / "keys")
    shim = Shim(scene_.folder, folder, records=True)
    for file in files:
        _import(shim, folder, file)
    home = Bare(folder)
    with scene_.server(home, mark=False) as server, control(scene_, home, **shim.environment) as running:
        for version in (1, 2, 0, 2):
            reply = running.deploy("line", f"line:{version}") if version else running.ask("POST", "/deployments/line/rollback")
            assert reply.status == 202, reply
            shim.note({"generation": reply.json()["rollout"]["generation"], "audit": _entries(folder)})
            assert running.settled("line") is not None
            shim.note({"plan": read_plan(folder / "plan.json").sequence})
            if version == 1:
                server.mark()
    found = Losses(scene_, folder, shim)
    found.play(random.Random(SEED))
    scene_.item("losses", found.count, LOSSES, better="higher", exact=True, note=f"among {found.changes:,} changes of the disk")
    scene_.item("corrupt", found.corrupt, 0, exact=True, note="; ".join(found.notes[:3]))
    scene_.item("acknowledged_lost", found.lost, 0, exact=True, note="; ".join(found.missing[:3]))


def _import(shim: Shim, folder: Path, file: Path) -> None:
    """`modelyard import` on the disk that is written down."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")} | shim.environment
    subprocess.run(
        [sys.executable, "-m", "modelyard.cli", "import", str(file), "--home", str(folder)], check=True, env=environment, capture_output=True
    )
    shim.note({"versions": 1, "audit": _entries(folder)})


def _entries(folder: Path) -> int:
    with closing(SqliteRecords(folder / "registry.sqlite")) as records:
        return sum(chain.entries for chain in verify(records, FileLines(folder / "audit.jsonl")).chains)


class Losses:
    """The same recording cut off at many moments, and what the home is then."""

    def __init__(self, scene_: Scene, folder: Path, shim: Shim) -> None:
        self.count = self.corrupt = self.lost = 0
        self.notes: list[str] = []
        self.missing: list[str] = []
        self._scene, self._folder, self._log = scene_, folder, shim.changes()
        self.changes = len(self._log)

    def play(self, chance: random.Random) -> None:
        """Lose power at LOSSES moments."""
        disk = Disk(lies=self._scene.without == "syncing")
        moments = sorted(chance.randrange(self.changes) for _ in range(LOSSES))
        told = {"versions": 0, "generation": 0, "audit": 0, "plan": 0}
        for at, change in enumerate(self._log):
            if change.kind == "!":
                note: dict[str, Any] = json.loads(change.data)
                told = {key: told[key] + 1 if key == "versions" and key in note else max(told[key], note.get(key, 0)) for key in told}
            else:
                disk.apply(change)
            while moments and moments[0] == at:
                moments.pop(0)
                target = self._scene.folder / f"loss{self.count}"
                target.mkdir()
                disk.lose_power(chance, self._folder, target)
                self.count += 1
                self._look(target, told, at)
                shutil.rmtree(target)

    def _look(self, home: Path, told: dict[str, int], at: int) -> None:
        shutil.copytree(self._folder / "keys", home / "keys", dirs_exist_ok=True)
        try:
            found = _state(home)
        except Exception as error:  # noqa: BLE001 - whatever a damaged home raises is what is looked for
            self.corrupt += 1
            self.notes.append(f"at {at}: {type(error).__name__}: {error}")
            return
        lost = [f"{name} {found[name]} of {count}" for name, count in told.items() if found[name] < count]
        self.lost += bool(lost)
        self.missing += [f"at {at}: {each}" for each in lost]


def _state(home: Path) -> dict[str, int]:
    """What a home holds, as its next process finds it. Raises when it is not whole."""
    opened = registry.open(home)
    try:
        versions = opened.versions("line") if opened.models() else ()
        for version in versions:
            record = opened.records.get("version", f"line:{version.version:09d}")
            assert record is not None
            for digest in record.body["blobs"]:
                assert digest_of(opened.blobs.read(digest, limit_bytes=64 << 20)) == digest, "a blob is not what it is called"
        stored = Deployments(opened).find("line")
        deployment = None if stored is None else stored.deployment
    finally:
        opened.close()
    troubles = judged(home)
    assert not troubles, troubles
    plan = read_plan(home / "plan.json").sequence if (home / "plan.json").exists() else 0
    generation = 0 if deployment is None else deployment.rollout.generation if deployment.rollout else deployment.generation
    return {"versions": len(versions), "generation": generation, "audit": _entries(home), "plan": plan}


FAULT = Fault(
    number=10,
    name="power",
    title="Loss of power at 200 random moments",
    method=(
        "Every change that two imports, three deploys and a rollback make to the files of a home is written down in order, with the moments at "
        "which somebody was told of success. Then the disk is played back to 200 random moments: what was synced is there, of what was not "
        "anything may be (all, none, a first part, any of it, the last write torn), and a name is kept only by a sync of its folder. A home is "
        "opened from each."
    ),
    run=run,
    controls=(Taken(without="syncing", misses="acknowledged_lost", text="a disk that says that it has synced, and has not."),),
    headline="acknowledged_lost",
    may_share=True,
)
