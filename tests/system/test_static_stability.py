"""With control and store away the data plane serves its last plan, also after a start of everything; once they are back, so are changes."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from postgres import Postgres
from world import World, acknowledged, wait_until

from modelyard.client import Client
from modelyard.errors import ModelyardError

pytestmark = pytest.mark.system

ROW = {"a": np.array([[1.0]]), "b": np.array([[2]]), "c": np.array([[0.5]], np.float32)}
FIRST, SECOND = 71.0, 72.0


def ask(world: World) -> float | None:
    try:
        with Client(world.url) as client:
            return float(client.predict("line", ROW)["prediction"][0])
    except ModelyardError:
        return None


def begin(world: World) -> None:
    """Two versions of `line`, the first deployed."""
    for offset in (0.0, 1.0):
        world.home.add("line", offset=offset)
    world.up()
    assert world.verb("deploy", "line:1").code == 0 and ask(world) == FIRST


def reconverge(world: World) -> None:
    wait_until(lambda: world.verb("status").code == 0 and acknowledged(world))
    assert world.verb("deploy", "line:2").code == 0 and ask(world) == SECOND


@pytest.fixture
def shared(tmp_path: Path, postgres: Postgres) -> Iterator[World]:
    """A home on a PostgreSQL and a blob store elsewhere."""
    (tmp_path / "blobs").mkdir()
    world = World(tmp_path / "home", records_url=postgres.url(), blobs_url=(tmp_path / "blobs").as_uri())
    yield world
    postgres.resume()
    world.end()
    world.home.registry.close()


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_everything_is_started_again_while_postgresql_and_blob_store_are_away(shared: World, postgres: Postgres, tmp_path: Path, how: str) -> None:
    begin(shared)
    away, back = (postgres.stop, postgres.start) if how == "stopped" else (postgres.pause, postgres.resume)
    with shared.asked("line", ROW) as asking:
        asking.more()
        (tmp_path / "blobs").rename(tmp_path / "blobs.away")
        (tmp_path / "blobs").touch()  # or who sends observations there would make the folder anew
        away()
        try:
            asking.more()
            shared.kill("control")
            asking.more()
            assert asking.failures == []
        finally:
            if how == "stopped":
                asking.stop()
    try:
        before = shared.pids()
        shared.kill("serve", "worker-0")
        wait_until(lambda: ask(shared) == FIRST)
        assert shared.pids()["serve"] != before["serve"]
        shared.kill(*shared.pids())
        shared.up()
        wait_until(lambda: ask(shared) == FIRST)
        refused = shared.verb("status")
        assert refused.code == 8 and "Traceback" not in refused.err
    finally:
        back()
        (tmp_path / "blobs").unlink()
        (tmp_path / "blobs.away").rename(tmp_path / "blobs")
    reconverge(shared)


def locked(database: Path) -> Callable[[], None]:
    """Another process's lock on the whole file, until the function that is returned is called."""
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    return holder.close


def moved(database: Path) -> Callable[[], None]:
    aside = database.with_name("aside.sqlite")
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.rename(aside)
    return lambda: aside.rename(database) and None


def spoilt(database: Path) -> Callable[[], None]:
    whole = database.read_bytes()
    database.write_bytes(b"\0" * 100 + whole[100:])

    def heal() -> None:
        database.write_bytes(whole)

    return heal


@pytest.mark.parametrize("take_away", [locked, moved, spoilt])
def test_a_home_whose_database_cannot_be_opened_comes_up_and_waits_for_it(tmp_path: Path, take_away: Callable[[Path], Callable[[], None]]) -> None:
    world = World(tmp_path / "home")
    begin(world)
    assert world.verb("down").code == 0
    world.home.registry.close()
    give_back = take_away(world.folder / "registry.sqlite")
    try:
        told = world.up()
        assert "registry.sqlite" in told["waits"]
        wait_until(lambda: ask(world) == FIRST)
        refused = world.verb("status")
        assert refused.code in (6, 8) and told["waits"][:20] in refused.line
        give_back()
        reconverge(world)
    finally:
        world.end()


def test_the_first_control_process_of_a_home_waits_no_longer_than_its_end(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    begin(world)
    world.verb("down")
    world.home.registry.close()
    give_back = moved(world.folder / "registry.sqlite")
    try:
        world.up()
        control = world.pids()["control"]
        os.kill(control, signal.SIGTERM)
        wait_until(lambda: world.pids().get("control", control) != control)
        assert world.verb("down").code == 0 and not world.pids()
    finally:
        give_back()
        world.end()
