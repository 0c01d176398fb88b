"""The driver brings a target to what the records say, from whatever it finds, however often it is killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard import registry
from modelyard.bundle import Attested, Contents, build
from modelyard.errors import Conflict, NotFound
from modelyard.registry import Registry, Version
from modelyard.rollout import machine
from modelyard.rollout.deployments import Deployments
from modelyard.rollout.driver import Driver
from modelyard.security.seal import LocalSigner
from modelyard.targets.base import Deployment, Release
from modelyard.targets.local import Local
from modelyard.types import ModelState, ServeState, Verdict, WorkerState, read_plan, write_serve_state, write_worker_state


class World:
    """A home with three registered versions, and two workers that do as they are told when asked to."""

    def __init__(self, home: Path, versions: list[Version], records: Registry) -> None:
        self.home = home
        self.versions = versions
        self.registry = records
        self.deployments = Deployments(records)
        self.local = Local(plan=home / "plan.json", run=home / "run")
        self.now = 0.0
        self.driver = self.new_driver()

    def new_driver(self) -> Driver:
        return Driver(self.deployments, {"local": self.local}, blobs=self.home / "blobs", allowed_s=10.0, clock=lambda: self.now)

    def release(self, number: int) -> Release:
        version = self.versions[number - 1]
        return Release(model=version.name, version=version.version, digest=version.digest, index=version.index)

    def begin(self, number: int) -> None:
        found = self.deployments.find("churn")
        before = found.deployment if found else Deployment(name="churn", model="churn", generation=0)
        after = machine.begin(before, self.release(number), kind="deploy", gates=(), at="")
        self.deployments.put(after, expected=found.revision if found else 0)

    def workers(self, *, failed: int | None = None) -> None:
        """Both workers take the plan in: every digest ready, but the version `failed`."""
        plan = read_plan(self.home / "plan.json")
        models = {digest: ModelState(state="ready") for each in plan.plans for digest in each.digests}
        if failed is not None:
            models[self.release(failed).digest] = ModelState(state="failed", verdict=Verdict(outcome="fail", rule="load", evidence="broken"))
        write_serve_state(self.home / "run", ServeState(pid=os.getpid(), host="h", port=1, slots=(0, 1), started_at=""))
        for slot in (0, 1):
            write_worker_state(self.home / "run", WorkerState(slot=slot, pid=os.getpid(), sequence=plan.sequence, models=models))

    def finish(self) -> Deployment:
        for _ in range(10):
            is_moving = self.driver.tick()
            self.workers()
            if not is_moving:
                break
        return self.deployments.get("churn").deployment

    def weights(self) -> dict[int, int]:
        plans = read_plan(self.home / "plan.json").plans
        return {plan.versions[digest]: weight for plan in plans for digest, weight in plan.weights.items()}


@pytest.fixture
def world(tmp_path: Path, contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner) -> World:
    (tmp_path / "run").mkdir()
    records = registry.open(tmp_path)
    versions = [records.add("churn", build(contents(model=b"model %d" % number), attested(), signer=signer)) for number in range(3)]
    return World(tmp_path, versions, records)


def test_a_first_deployment_converges(world: World) -> None:
    world.begin(1)
    deployment = world.finish()
    assert deployment.current == world.release(1) and deployment.generation == 1 and world.weights() == {1: 100}


def test_a_second_goes_by_two_plans(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    assert world.driver.tick() and world.weights() == {1: 100}
    assert world.driver.tick() and world.weights() == {1: 100}  # nobody has said ready yet
    world.workers()
    assert world.driver.tick() and world.weights() == {2: 100}
    assert world.finish().current == world.release(2)


def test_a_worker_that_cannot_load_it_sends_it_back(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    world.driver.tick()
    world.workers(failed=2)
    assert not world.driver.tick()
    deployment = world.deployments.get("churn").deployment
    assert world.weights() == {1: 100} and deployment.last is not None and deployment.last.verdict.evidence == "broken"
    assert set(read_plan(world.home / "plan.json").placements) == {world.release(1).digest}


def test_what_takes_too_long_goes_back(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    world.driver.tick()
    world.now = 9.0
    assert world.driver.tick()
    world.now = 11.0
    assert not world.driver.tick()
    last = world.deployments.get("churn").deployment.last
    assert world.weights() == {1: 100} and last is not None and last.verdict.rule == "deadline"


def test_a_second_try_after_too_long_a_first_has_the_whole_time(world: World) -> None:
    world.begin(1)
    world.finish()
    for _ in range(2):  # what went back gives its generation to the next try, which begins before any other tick
        world.begin(2)
        assert world.driver.tick()
        world.now += 11.0
        assert not world.driver.tick()


def test_two_deployments_of_one_digest_share_a_place(
    world: World, contents: Callable[..., Contents], attested: Callable[..., Attested], signer: LocalSigner
) -> None:
    world.begin(1)
    world.finish()
    twin = world.registry.add("twin", build(contents(model=b"model 0"), attested(name="twin"), signer=signer))
    assert twin.digest == world.release(1).digest and twin.index != world.release(1).index
    release = Release(model="twin", version=1, digest=twin.digest, index=twin.index)
    begun = machine.begin(Deployment(name="twin", model="twin", generation=0), release, kind="deploy", gates=(), at="")
    world.deployments.put(begun, expected=0)
    world.finish()
    before = read_plan(world.home / "plan.json")
    assert {plan.name for plan in before.plans} == {"churn", "twin"} and set(before.placements) == {twin.digest}
    world.driver.tick()
    assert read_plan(world.home / "plan.json") == before, "a world at rest writes nothing"


def test_a_driver_that_is_killed_after_any_step_is_continued_by_the_next(world: World) -> None:
    world.begin(1)
    world.finish()
    for kill_after in range(5):
        world.begin(2 if kill_after % 2 == 0 else 3)
        for _ in range(kill_after):
            world.driver.tick()
            world.workers()
        world.driver = world.new_driver()
        deployment = world.finish()
        assert deployment.rollout is None and deployment.last is not None and deployment.last.verdict.outcome == "pass"
        assert deployment.current is not None and world.weights() == {deployment.current.version: 100}


def test_a_plan_that_was_lost_or_spoilt_is_written_again(world: World) -> None:
    world.begin(1)
    world.finish()
    before = read_plan(world.home / "plan.json")
    for spoil in (lambda path: path.unlink(), lambda path: path.write_text("{")):
        spoil(world.home / "plan.json")
        world.driver.tick()
        after = read_plan(world.home / "plan.json")
        assert after.plans == before.plans and after.sequence > before.sequence


def test_a_name_without_a_record_is_taken_out_of_the_plan(world: World) -> None:
    world.begin(1)
    world.finish()
    world.deployments.remove(world.deployments.get("churn"))
    world.driver.tick()
    assert world.weights() == {}


def test_trouble_is_told_and_passes(world: World) -> None:
    world.begin(1)
    (world.home / "plan.json").mkdir()
    assert world.driver.tick() and "churn" in world.driver.trouble
    (world.home / "plan.json").rmdir()
    assert world.finish().current == world.release(1) and not world.driver.trouble


def test_what_is_deployed_or_a_way_back_cannot_be_deleted(world: World) -> None:
    for number in (1, 2):
        world.begin(number)
        world.finish()
    world.begin(3)
    for number in (1, 2, 3):
        with pytest.raises(Conflict):
            world.registry.delete("churn", number)
    world.deployments.remove(world.deployments.get("churn"))
    world.registry.delete("churn", 1)


def test_what_was_deleted_meanwhile_is_not_deployed(world: World) -> None:
    world.registry.delete("churn", 2)
    with pytest.raises(NotFound, match="deleted meanwhile"):
        world.begin(2)
    assert world.deployments.find("churn") is None


def test_of_two_changes_to_one_revision_one_is_refused(world: World) -> None:
    world.begin(1)
    stale = world.deployments.get("churn")
    world.finish()
    with pytest.raises(Conflict):
        world.deployments.put(stale.deployment, expected=stale.revision)
    with pytest.raises(Conflict):
        world.deployments.remove(stale)
