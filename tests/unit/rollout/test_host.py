"""A host brings its data plane to what the records say, from whatever it finds, and says no more than is so."""

from __future__ import annotations

from pathlib import Path

from rolling import World

from modelyard.errors import Unavailable
from modelyard.types import read_plan


def test_a_plan_that_was_lost_or_spoilt_is_written_again(world: World) -> None:
    world.begin(1)
    world.finish()
    before = read_plan(world.home / "plan.json")
    for spoil in (lambda path: path.unlink(), lambda path: path.write_text("{")):
        spoil(world.home / "plan.json")
        world.machine.tick()
        after = read_plan(world.home / "plan.json")
        assert after.plans == before.plans and after.sequence > before.sequence


def test_a_name_without_a_record_is_taken_out_of_the_plan(world: World) -> None:
    world.begin(1)
    world.finish()
    world.deployments.remove(world.deployments.get("churn"))
    world.turn()
    assert world.weights() == {}


def test_trouble_is_told_and_passes(world: World) -> None:
    world.begin(1)
    (world.home / "plan.json").mkdir()
    assert world.turn() and "churn" in world.machine.host.report.trouble and world.machine.host.report.lagging == ("churn",)
    (world.home / "plan.json").rmdir()
    assert world.finish().current == world.release(1) and not world.machine.host.report.trouble


def test_a_plan_is_applied_only_when_its_blobs_are_here(world: World) -> None:
    world.begin(1)
    world.finish()
    world.machine.shelf.missing = {2}
    world.begin(2)
    for _ in range(3):
        world.turn()
        world.work()
    report = world.machine.host.report
    assert set(read_plan(world.home / "plan.json").placements) == {world.release(1).digest}, "no worker sees it"
    assert report.applied == {} and report.lagging == ("churn",) and world.weights() == {1: 100}
    world.machine.shelf.missing = set()
    assert world.finish().current == world.release(2)


def test_blobs_that_cannot_be_brought_are_told_and_hold_up_no_other_deployment(world: World) -> None:
    world.machine.shelf.broken[2] = Unavailable("the store is away")
    world.begin(2)
    world.begin(1, name="other")
    for _ in range(4):
        world.turn()
        world.work()
    assert world.machine.host.report.trouble == {"churn": "the store is away"}
    assert world.weights() == {1: 100} and world.deployments.get("other").deployment.current == world.release(1)


def test_a_step_is_acknowledged_only_by_the_plan_of_its_own_record(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    world.machine.tick()
    before = world.machine.host.report
    assert before.applied == {} and before.readiness[world.release(2).digest].outcome == "unknown"
    world.work()
    world.machine.tick()
    revision = world.deployments.get("churn").revision
    assert world.machine.host.report.applied == {"churn": revision}
    assert world.machine.host.report.readiness[world.release(2).digest].outcome == "pass"


def test_another_deployments_change_takes_no_acknowledgement_back(world: World) -> None:
    world.begin(1)
    world.machine.tick()
    world.work()
    world.machine.tick()
    assert set(world.machine.host.report.applied) == {"churn"}
    world.begin(2, name="other")
    world.machine.tick()
    assert set(world.machine.host.report.applied) == {"churn"}, "its workers act by a newer sequence's older part"


def test_what_serves_and_keeps_failing_is_reported_without_a_rollout_until_it_no_longer_does(world: World) -> None:
    world.begin(1)
    world.finish()
    world.work(crashing=1)
    world.machine.tick()
    assert {digest: why.rule for digest, why in world.machine.host.report.readiness.items()} == {world.release(1).digest: "isolated-crashes"}
    world.work(failed=1)  # a worker that starts again and cannot load it is no reason to leave what serves elsewhere
    world.machine.tick()
    assert world.machine.host.report.readiness == {}


def test_a_host_at_rest_writes_nothing(world: World) -> None:
    world.begin(1)
    world.finish()
    world.machine.tick()
    revision = world.deployments.records.put("probe", "a", {}, expected=None).revision
    world.machine.tick()
    assert world.deployments.records.put("probe", "a", {}, expected=None).revision == revision + 1


def test_a_host_without_a_store_leaves_its_plan_as_it_is(world: World, tmp_path: Path) -> None:
    world.begin(1)
    world.finish()
    before = (tmp_path / "plan.json").read_bytes()
    world.registry.close()
    try:
        world.machine.tick()
    except Exception:  # noqa: BLE001 - whatever a store raises
        pass
    else:
        raise AssertionError("the store answered")
    assert (tmp_path / "plan.json").read_bytes() == before
