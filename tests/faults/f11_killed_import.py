"""Fault 11: kill -9 in the middle of an import, at 50 random bytes."""

from __future__ import annotations

import os
import random
import shutil
import time
from contextlib import closing
from pathlib import Path

from tests.faults import probes
from tests.faults.control import Bare, control, judged
from tests.faults.judge import Control as Taken
from tests.faults.judge import Fault
from tests.faults.scene import Scene
from tests.faults.shim import Shim

from modelyard import registry
from modelyard.bundle import archive
from modelyard.bundle.base import digest_of
from modelyard.errors import ModelyardError
from serving import Home

KILLS, SEED, ALL = 50, 11, 1 << 40


def run(scene_: Scene) -> None:
    shelf = Home(scene_.folder / "shelf")
    shelf.add("line")
    file = scene_.folder / "line.tar"
    archive.export(shelf.registry.blobs, shelf.registry.versions("line")[0].index, file)
    folder = scene_.folder / "home"
    shim = Shim(scene_.folder, folder)
    home = Bare(folder)
    folder.mkdir()
    count = 12 if scene_.is_control else KILLS
    killed = wrong = left = 0
    notes: list[str] = []
    with control(scene_, home, starts=None, **shim.environment) as running:

        def attempt(life: int) -> int:
            """Import into a fresh home, with so many bytes to live; how many are left."""
            shutil.rmtree(folder)
            folder.mkdir()
            shutil.copytree(shelf.folder / "keys", folder / "keys")
            shim.life(life)
            running.start(waits=False, FAULTS_IMPORT=str(file))
            assert probes.wait(lambda: not running.is_alive, 30, 0.002) is not None, running.log.read_text()
            return shim.left()

        size = ALL - attempt(ALL)
        assert _versions(folder) == 1, running.log.read_text()
        chance = random.Random(SEED)
        for _ in range(count):
            offset = chance.randrange(size)
            killed += attempt(offset) == 0
            shim.life(-1)
            try:
                _versions(folder)
            except (AssertionError, ModelyardError) as error:
                wrong += 1
                notes.append(f"at {offset:,}: {error}")
            left += _leftovers(folder)
        attempt(-1)
    scene_.item(
        "killed", killed, 12 if scene_.is_control else KILLS, better="higher", exact=True, note=f"imports, within their {size:,} bytes written"
    )
    scene_.item("listed_and_wrong", wrong, 0, exact=True, note="; ".join(notes[:3]))
    scene_.item("left_at_next_start", left, 0, exact=True, note="temporary files")


def _versions(folder: Path) -> int:
    """How many versions are listed, each with all its bytes. Raises when one is not."""
    with closing(registry.open(folder)) as opened:
        versions = [version for model in opened.models() for version in opened.versions(model.name)]
        for version in versions:
            record = opened.records.get("version", f"{version.name}:{version.version:09d}")
            assert record is not None
            for digest in record.body["blobs"]:
                data = opened.blobs.read(digest, limit_bytes=64 << 20)
                assert digest_of(data) == digest, "listed, and its bytes are not what they are called"
    return len(versions)


def _leftovers(folder: Path) -> int:
    """Temporary files that the next process to open the home leaves, a minute after the kill."""
    troubles = judged(folder)
    assert not troubles, troubles
    past = time.time() - 100
    for path in folder.rglob("*.tmp*"):
        os.utime(path, (past, past))
    registry.open(folder).close()
    return len(list(folder.rglob("*.tmp*")))


FAULT = Fault(
    number=11,
    name="killed-import",
    title="kill -9 in the middle of an import",
    method=(
        "A bundle is imported into a fresh home by a process that is killed in the middle of the write that crosses a byte chosen by chance, "
        "50 times; blobs, database and audit log are all counted. Then the home is opened."
    ),
    run=run,
    controls=(Taken(without="blobs first", misses="listed_and_wrong", text="a version is listed before its blobs are there."),),
    headline="listed_and_wrong",
    may_share=True,
)
