"""One change of the plan by request, step by step, with workers that a test plays."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from modelyard.bundle import archive
from modelyard.config import Settings
from modelyard.errors import Conflict, DeadlineExceeded, Forbidden, InvalidInput, NotFound, Rejected, StorageFull, Unavailable
from modelyard.serve.repository import Change, Repository, refuse_overrides
from modelyard.types import ModelState, Principal, ServeState, Verdict, WorkerState, read_plan, write_plan, write_serve_state, write_worker_state
from serving import Home

WHO = Principal("key:abc", ("operator",))


class World:
    """A home, a folder with the bundle `m`, and two workers that act by what `answer` says of each digest in the plan."""

    def __init__(self, tmp_path: Path, **settings: object) -> None:
        self.home = Home(tmp_path / "h")
        self.home.write()
        self.run = self.home.run
        self.run.mkdir(exist_ok=True)
        self.folder = tmp_path / "models"
        self.folder.mkdir()
        self.digest, _ = self.home.add("line")
        archive.export(self.home.registry.blobs, self.home.registry.versions("line")[-1].index, self.folder / "m.tar")
        write_serve_state(self.run, ServeState(pid=os.getpid(), host="h", port=1, slots=(0, 1), started_at=""))
        self.answer: Callable[[int], ModelState] = lambda slot: ModelState(state="ready")
        self.is_following = True
        made = msgspec.structs.replace(Settings(home=self.home.folder, load_timeout_s=5.0), **settings)
        self.repository = Repository(self.folder, made, plan=self.plan, run=self.run)

    @property
    def plan(self) -> Path:
        return self.home.folder / "plan.json"

    async def follow(self) -> None:
        while True:
            if self.is_following:
                plan = read_plan(self.plan)
                for slot in (0, 1):
                    models = {digest: self.answer(slot) for digest in plan.placements}
                    write_worker_state(self.run, WorkerState(slot=slot, pid=os.getpid(), sequence=plan.sequence, models=models))
            await asyncio.sleep(0.005)

    def do(self, *changes: Change) -> None:
        async def run() -> None:
            following = asyncio.ensure_future(self.follow())
            try:
                for change in changes:
                    await self.repository.change(change, WHO)
            finally:
                following.cancel()

        asyncio.run(run())


def test_a_load_is_one_plan_that_places_a_copy(tmp_path: Path) -> None:
    world = World(tmp_path)
    before = read_plan(world.plan).sequence
    world.do(Change("load", "m"))
    plan = read_plan(world.plan)
    (deployment,) = plan.plans
    assert plan.sequence == before + 1 and deployment.name == "m" and deployment.weights == {world.digest: 100}
    placed = Path(plan.placements[world.digest].blobs)
    assert placed.is_relative_to(world.run) and (placed / "sha256").is_dir()
    world.do(Change("load", "m"))
    assert read_plan(world.plan) == plan, "loading what serves changes nothing"
    world.do(Change("unload", "m"))
    assert read_plan(world.plan).plans == () and read_plan(world.plan).sequence == before + 2
    with pytest.raises(NotFound):
        world.do(Change("unload", "m"))


def test_another_bundle_under_the_name_is_its_next_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.do(Change("load", "m"))
    second, _ = world.home.add("line", offset=1.0)
    (world.folder / "m.tar").unlink()
    archive.export(world.home.registry.blobs, world.home.registry.versions("line")[-1].index, world.folder / "m.tar")
    world.do(Change("load", "m"))
    (deployment,) = read_plan(world.plan).plans
    assert deployment.weights == {second: 100} and deployment.versions == {second: 2} and deployment.generation == 2
    with pytest.raises(Conflict):
        world.do(Change("load", "m", place=str(world.folder / "m.tar"), is_new=True))


def test_an_unload_whose_model_is_loaded_again_meanwhile_is_done(tmp_path: Path) -> None:
    """Its digest is then held for ever, and rightly so."""
    world = World(tmp_path)
    world.do(Change("load", "m"))
    found = read_plan(world.plan)

    async def run() -> None:
        world.is_following = False
        following = asyncio.ensure_future(world.follow())
        unload = asyncio.ensure_future(world.repository.change(Change("unload", "m", timeout_s=3.0), WHO))
        while read_plan(world.plan).plans:
            await asyncio.sleep(0.005)
        write_plan(world.plan, msgspec.structs.replace(found, sequence=found.sequence + 2))
        await asyncio.sleep(0.1)
        assert not unload.done()
        world.is_following = True
        await unload
        following.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(("rule", "kind"), [("replay", Rejected), ("storage_full", StorageFull)])
def test_what_one_worker_cannot_serve_is_taken_back(tmp_path: Path, rule: str, kind: type[Exception]) -> None:
    world = World(tmp_path)
    failed = ModelState(state="failed", verdict=Verdict(outcome="fail", rule=rule, evidence="why"))
    world.answer = lambda slot: failed if slot else ModelState(state="ready")
    with pytest.raises(kind):
        world.do(Change("load", "m"))
    assert read_plan(world.plan).plans == ()


def test_workers_that_do_not_follow_in_time_go_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.is_following = False
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        world.do(Change("load", "m", timeout_s=0.2))
    assert time.monotonic() - started < 4
    assert [plan.name for plan in read_plan(world.plan).plans] == ["m"]


@pytest.mark.parametrize(
    "place",
    ["m.tar", "/m.tar", "{folder}/../m.tar", "{folder}", "{folder}/a//b", "{folder}/\0", pytest.param("{folder}%sm.tar" % ("/" * 4096), id="long")],
)
def test_a_place_outside_or_too_long_for_the_plan_is_refused(tmp_path: Path, place: str) -> None:
    world = World(tmp_path)
    with pytest.raises((InvalidInput, NotFound)):
        world.do(Change("load", "n", place=place.format(folder=world.folder)))
    assert read_plan(world.plan).plans == ()


def test_names_are_those_that_could_be_served(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.folder / "Bad Name").mkdir()
    (world.folder / "deep").mkdir()
    (world.folder / "link.tar").symlink_to(world.folder / "m.tar")
    assert asyncio.run(world.repository.names()) == ("deep", "m")


def test_a_load_that_memory_does_not_allow_is_refused_before_it_is_tried(tmp_path: Path) -> None:
    world = World(tmp_path, memory_limit_bytes=1)
    with pytest.raises(StorageFull):
        world.do(Change("load", "m"))
    assert not (world.run / "dynamic").exists() and read_plan(world.plan).plans == ()


def test_a_change_that_cannot_be_audited_is_not_made(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.home.folder / "audit.jsonl").mkdir()
    with pytest.raises(Unavailable, match="audit log") as refused:
        world.do(Change("load", "m"))
    assert str(tmp_path) not in refused.value.message
    assert read_plan(world.plan).plans == ()


def test_copies_that_nobody_needs_are_swept_when_they_are_old(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.do(Change("load", "m"))
    (kept,) = list((world.run / "dynamic").iterdir())
    world.do(Change("unload", "m"))
    assert kept.exists(), "it may be on its way into another plan"
    old = time.time() - 3600
    os.utime(kept, (old, old))
    world.repository._sweep()
    assert not kept.exists()


def test_overrides() -> None:
    refuse_overrides([])
    refuse_overrides(["unload_dependents"])
    for name in ("config", "file:1/model.onnx", "anything"):
        with pytest.raises(Forbidden):
            refuse_overrides([name])


def test_no_path_of_this_machine_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.folder / "odd").mkdir()
    (world.folder / "odd" / "oci-layout").mkdir()
    os.mkfifo(world.folder / "pipe.tar")
    for name in ("odd", "pipe"):
        with pytest.raises((Rejected, NotFound)) as refused:
            world.do(Change("load", name))
        assert str(tmp_path) not in refused.value.message
    (world.run / "dynamic").write_text("in the way")
    with pytest.raises(Unavailable, match="copied") as failed:
        world.do(Change("load", "m"))
    assert str(tmp_path) not in failed.value.message
