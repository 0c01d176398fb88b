"""A home whose database is damaged serves on by its last plan, says how to go back, and goes back as the reference says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from world import World, wait_until

from modelyard.client import Client

ROW = {"a": np.array([[1.0]]), "b": np.array([[2]]), "c": np.array([[0.5]], np.float32)}

pytestmark = pytest.mark.system


def header(path: Path) -> None:
    path.write_bytes(b"\xff" * 100 + path.read_bytes()[100:])


def page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-4096:] = b"\xff" * 4096
    path.write_bytes(data)


def end_of_the_log(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    log.write_bytes(log.read_bytes()[:-5000])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    yield made
    made.end()


@pytest.mark.parametrize("damage", [header, page, end_of_the_log])
def test_a_damaged_home_serves_on_and_goes_back(world: World, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    world.home.add("line", offset=1.0)
    world.up()
    assert world.verb("deploy", "line:1", "--json").code == 0
    assert world.verb("backup", str(tmp_path / "copy")).code == 0
    assert world.verb("alias", "line", "champion", "1").code == 0
    world.home.registry.close()
    database = world.folder / "registry.sqlite"
    if damage is end_of_the_log:  # which a process that ends tidies away
        world.kill("parent", "control", "serve", *(name for name in world.pids() if name.startswith("worker")))
    else:
        assert world.verb("down").code == 0
    damage(database)
    broken = database.read_bytes()
    assert world.ask_up().code == 0, "the data plane comes up on its last plan"

    def answers() -> bool:
        with Client(world.url) as client:
            return bool(client.predict("line", ROW)["prediction"].size)

    assert answers()
    for verb in (("status",), ("deploy", "line:1"), ("undeploy", "line")):
        said = world.verb(*verb)
        assert said.code == 6 and "modelyard restore FILE" in said.line, said
    assert database.read_bytes() == broken, "nothing was changed or made anew"
    assert world.verb("restore", str(tmp_path / "copy")).code == 4, "not while the home is up"
    assert answers()
    assert world.verb("down").code == 0
    assert world.verb("restore", str(tmp_path / "copy")).code == 0
    world.up()
    wait_until(answers)
    assert world.deployment("line")["deployment"]["current"]["version"] == 1
    assert world.verb("audit", "verify").code == 0
