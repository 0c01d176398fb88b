"""Driver and host bring a target to what the records say, from whatever they find, however often they are killed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from rolling import World

from modelyard.bundle import Attested, Contents, build
from modelyard.errors import Conflict, NotFound, Unavailable
from modelyard.monitor.evidence import Seen
from modelyard.registry import Registry
from modelyard.rollout import driver, machine
from modelyard.rollout.deployments import Deployments
from modelyard.rollout.driver import Driver
from modelyard.rollout.election import Election
from modelyard.rollout.gauges import EVERY_S, Gauges
from modelyard.rollout.strategies import complete
from modelyard.security.seal import LocalSigner
from modelyard.targets.base import Deployment, Release, Rollout, Step, Strategy
from modelyard.types import read_plan


def test_a_first_deployment_converges(world: World) -> None:
    world.begin(1)
    deployment = world.finish()
    assert deployment.current == world.release(1) and deployment.generation == 1 and world.weights() == {1: 100}


def test_a_second_goes_by_two_plans(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    assert world.turn() and world.weights() == {1: 100}
    assert world.turn() and world.weights() == {1: 100}  # nobody has said ready yet
    world.work()
    assert world.turn() and world.weights() == {2: 100}
    assert world.finish().current == world.release(2)


def test_a_worker_that_cannot_load_it_sends_it_back(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    world.turn()
    world.work(failed=2)
    assert not world.turn()
    deployment = world.deployments.get("churn").deployment
    assert world.weights() == {1: 100} and deployment.last is not None and deployment.last.verdict.evidence == "broken"
    assert set(read_plan(world.home / "plan.json").placements) == {world.release(1).digest}


def test_a_version_that_failed_a_moment_ago_is_judged_anew_when_it_is_deployed_again(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    world.turn()
    world.work(failed=2)
    world.machine.tick()
    world.driver.tick()
    assert world.deployments.get("churn").deployment.rollout is None
    world.machine.host.tick()  # the plan to go back is there, which no worker has read, and the host's report is still to be written
    world.begin(2)
    world.driver.tick()
    assert world.deployments.get("churn").deployment.rollout is not None, "the host has not seen that it is asked for anew"
    world.machine.tick()
    world.driver.tick()
    assert world.deployments.get("churn").deployment.rollout is not None, "nor have its workers"
    assert world.finish().current == world.release(2)
    world.begin(3)
    world.turn()
    world.work(failed=3)
    assert not world.turn(), "what fails now goes back"


def test_what_keeps_failing_after_its_deploy_is_left_once_told_and_audited(world: World) -> None:
    for number in (1, 2):
        world.begin(number)
        world.finish()
    world.work(crashing=2)
    assert world.turn() and world.weights() == {2: 100}
    deployment = world.finish()
    assert deployment.current == world.release(1) and world.weights() == {1: 100}
    assert world.told == [("rollback", "churn", "version 2 keeps failing: 5 ended")]
    (told,) = [event for event in world.deployments.history("churn") if event.what == "rollback"]
    assert (told.by, told.version, told.why) == ("modelyard", 1, "version 2 keeps failing: 5 ended: direct")
    world.work(crashing=1)
    assert not world.turn() and not world.turn() and world.weights() == {1: 100} and len(world.told) == 1
    assert "version 1 keeps failing: 5 ended; there is nothing" in world.driver.trouble["churn"]
    world.work()
    assert not world.turn() and not world.driver.trouble


def test_one_host_on_which_it_keeps_failing_is_enough_and_a_step_of_a_canary_goes_back_as_well(world: World) -> None:
    other = world.join("two")
    world.begin(1)
    world.finish()
    world.begin(2)
    world.turn()
    world.work()
    world.turn()
    world.machine.work()
    other.work(crashing=world.release(2).digest)
    assert not world.turn() and world.weights() == {1: 100}
    last = world.deployments.get("churn").deployment.last
    assert last is not None and last.verdict.rule == "isolated-crashes" and not world.told
    world.begin(3)
    world.finish()
    other.work(crashing=world.release(3).digest)
    assert world.turn() and world.finish().current == world.release(1)


def test_what_takes_too_long_goes_back(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    world.turn()
    world.now = 9.0
    assert world.turn()
    world.now = 11.0
    assert not world.turn()
    last = world.deployments.get("churn").deployment.last
    assert world.weights() == {1: 100} and last is not None and last.verdict.rule == "deadline"


def test_a_second_try_after_too_long_a_first_has_the_whole_time(world: World) -> None:
    world.begin(1)
    world.finish()
    for _ in range(2):  # what went back gives its generation to the next try, which begins before any other tick
        world.begin(2)
        assert world.turn()
        world.now += 11.0
        assert not world.turn()


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
    world.turn()
    assert read_plan(world.home / "plan.json") == before, "a world at rest writes nothing"


def test_a_driver_that_is_killed_after_any_step_is_continued_by_the_next(world: World) -> None:
    world.begin(1)
    world.finish()
    for kill_after in range(5):
        world.begin(2 if kill_after % 2 == 0 else 3)
        for _ in range(kill_after):
            world.turn()
            world.work()
        world.driver = world.new_driver()
        deployment = world.finish()
        assert deployment.rollout is None and deployment.last is not None and deployment.last.verdict.outcome == "pass"
        assert deployment.current is not None and world.weights() == {deployment.current.version: 100}


def test_a_step_waits_for_every_host(world: World) -> None:
    other = world.join("two")
    world.begin(1)
    world.finish()
    world.begin(2)
    world.turn()
    world.machine.work()
    assert world.turn() and world.turn() and (world.weights(), other.weights()) == ({1: 100}, {1: 100})
    other.work()
    assert world.turn() and (world.weights(), other.weights()) == ({2: 100}, {2: 100})
    other.work()
    assert world.turn() and world.deployments.get("churn").deployment.rollout is not None, "the first host's workers have not flipped"
    world.machine.work()
    assert not world.turn() and world.deployments.get("churn").deployment.current == world.release(2)


def test_one_host_that_cannot_load_it_sends_it_back_everywhere(world: World) -> None:
    other = world.join("two")
    world.begin(1)
    world.finish()
    world.begin(2)
    world.turn()
    world.machine.work()
    other.work(failed=world.release(2).digest)
    assert not world.turn()
    last = world.deployments.get("churn").deployment.last
    assert last is not None and last.verdict.evidence == "on two: broken" and (world.weights(), other.weights()) == ({1: 100}, {1: 100})


def test_steps_go_on_without_a_host_whose_lease_has_ended_and_wait_for_it_again_when_it_is_back(world: World) -> None:
    other = world.join("two")
    world.begin(1)
    world.finish()
    world.begin(2)
    world.turn()
    world.machine.work()
    world.machines.remove(other)
    world.wait(5.0)
    assert world.turn() and world.weights() == {1: 100}, "its lease still runs"
    world.wait(2.0)
    world.turn()
    assert world.weights() == {2: 100} and world.finish().current == world.release(2)
    # It serves its last plan meanwhile; another control process there counts once its workers act by the newest.
    assert other.weights() == {1: 100}
    world.machines.append(other)
    other.restart()
    world.begin(3)
    world.turn()
    world.machine.work()
    assert other.weights() == {2: 100} and not other.host.report.counts
    other.work()
    world.turn()
    assert other.host.report.counts and other.weights() == {3: 100}


def test_a_host_that_does_not_count_yet_holds_up_nothing(world: World) -> None:
    world.begin(1)
    world.finish()
    other = world.join("two")
    other.tick()
    world.begin(2)
    for _ in range(4):
        world.turn()
        world.machine.work()
    assert world.deployments.get("churn").deployment.current == world.release(2) and not other.host.report.counts


def test_no_step_is_acknowledged_where_no_host_counts(world: World) -> None:
    world.begin(1)
    for _ in range(3):
        assert world.turn()
    assert world.deployments.get("churn").deployment.rollout is not None


def test_an_acknowledgement_of_an_older_record_does_not_count_after_someone_elses_change(world: World) -> None:
    world.begin(1)
    world.finish()
    world.begin(2)
    world.turn()
    world.work()
    world.machine.tick()  # ready, and acknowledged
    stored = world.deployments.get("churn")
    world.deployments.put(stored.deployment, expected=stored.revision)  # between two changes of others, another plan may have stood
    world.driver.tick()
    after = world.deployments.get("churn").deployment
    assert after.rollout is not None and after.rollout.phase == "holding"
    world.turn()
    assert world.weights() == {2: 100}


def test_a_driver_whose_term_is_over_takes_no_step(world: World) -> None:
    world.begin(1)
    world.finish()
    records = world.registry.records
    elections = [Election(records, host=host, instance=host) for host in ("one", "two")]
    for election in elections:  # the second takes over, as when the first is stopped for a while
        election.look()
        with records.transaction() as transaction:
            election.move("take", within=transaction)
        election.moved(time.monotonic())
    stale, leading = (Driver(Deployments(Registry(world.registry.blobs, each.fenced(term)))) for term, each in enumerate(elections, 1))
    world.begin(2)
    world.machine.tick()
    world.work()
    world.machine.tick()
    before = world.deployments.get("churn")
    assert stale.tick() and world.deployments.get("churn") == before, "everything is ready, but it may not say so"
    assert leading.tick() and world.deployments.get("churn").revision > before.revision
    assert world.driver.tick(), "without the fence any driver goes on"


def test_a_host_that_is_gone_for_long_is_forgotten(world: World) -> None:
    other = world.join("two")
    world.begin(1)
    world.finish()
    world.machines.remove(other)
    world.wait(3700.0)
    assert [seen.report.id for seen in world.driver.hosts.look()] == ["one"]


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


CANARY = Strategy(kind="canary", steps=(Step(weight=10, minimum_s=60.0, minimum_requests=50), Step(weight=100)), guards=("error_rate<1%",))


def canary(world: World, strategy: Strategy = CANARY) -> None:
    """Version 1 serves, and a rollout of version 2 has its first step in force."""
    world.begin(1)
    world.finish()
    found = world.deployments.get("churn")
    begun = machine.begin(found.deployment, world.release(2), kind="deploy", gates=(), at="then", by="ann", strategy=complete(strategy))
    world.deployments.put(begun, expected=found.revision)
    for _ in range(4):
        world.turn()
        world.work()
    world.turn()


def rollout(world: World) -> Rollout:
    found = world.deployments.get("churn").deployment.rollout
    assert found is not None
    return found


def test_a_canary_advances_by_time_requests_and_guards(world: World) -> None:
    canary(world)
    assert rollout(world).phase == "watching" and world.weights() == {1: 90, 2: 10}
    world.counts["churn"] = {2: {world.release(2).digest: Seen(requests=60)}}
    world.wait(59.0)
    assert world.weights() == {1: 90, 2: 10}
    world.wait(3.0)
    assert world.finish().current == world.release(2) and world.weights() == {2: 100}
    assert [event.what for event in world.deployments.history("churn")] == ["deploy", "step", "done", "deploy", "step", "step", "done"]


def test_a_guard_that_fails_sends_it_back_in_the_same_turn(world: World) -> None:
    canary(world)
    world.counts["churn"] = {2: {world.release(2).digest: Seen(requests=60, errors=40)}}
    world.turn()
    assert world.weights() == {1: 100}
    event = world.deployments.history("churn")[-1]
    assert (event.what, event.by, event.verdicts[0].outcome, event.verdicts[0].rule) == ("back", "modelyard", "fail", "error_rate<1%")


def test_progress_is_written_now_and_then_and_a_new_driver_goes_on_from_it(world: World) -> None:
    canary(world)
    world.counts["churn"] = {2: {world.release(2).digest: Seen(requests=60)}}
    revisions = set()
    for _ in range(40):
        world.wait(0.5)
        revisions.add(world.deployments.get("churn").revision)
    assert 8 <= len(revisions) <= 12 and 18.0 <= rollout(world).elapsed_s <= 20.0
    before = rollout(world).elapsed_s
    world.now += 1e6  # another machine, whose clock says something else
    world.driver = world.new_driver()
    world.driver.tick()
    assert rollout(world).elapsed_s == before
    world.wait(30.0)
    assert rollout(world).elapsed_s == pytest.approx(before + 30.0, abs=2.0)


def test_the_time_of_day_may_jump(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    canary(world)
    world.counts["churn"] = {2: {world.release(2).digest: Seen(requests=60)}}

    class Tomorrow(driver.datetime):  # type: ignore[misc,name-defined]
        @classmethod
        def now(cls, tz: object = None) -> Tomorrow:
            return cls(2099, 1, 1)

    monkeypatch.setattr(driver, "datetime", Tomorrow)
    world.wait(30.0)
    assert world.weights() == {1: 90, 2: 10} and rollout(world).elapsed_s == pytest.approx(30.0, abs=3.0) and rollout(world).pause is None


def test_a_rollout_that_waits_for_an_approval_outlives_a_worker_that_starts_again(world: World) -> None:
    canary(world, Strategy(kind="canary", steps=(Step(weight=10, approval=True), Step(weight=100))))
    assert rollout(world).phase == "holding" and "approval" in rollout(world).waits
    world.wait(30.0)
    (world.home / "run" / "worker-1.json").unlink()
    world.turn()
    assert rollout(world).phase == "holding", "it has been ready for longer than loading may take"
    world.wait(11.0)
    world.turn()
    last = world.deployments.get("churn").deployment.last
    assert last is not None and last.verdict.rule == "deadline", "but it does not wait for ever"


def test_a_warm_release_is_let_go_when_its_time_has_passed(world: World) -> None:
    canary(world, Strategy(kind="blue-green", keep_warm_s=100.0))
    deployment = world.finish()
    assert deployment.warm is not None and world.machine.ready() == {1, 2}
    world.wait(90.0)
    world.driver = world.new_driver()  # a minute of them was written down
    world.wait(30.0)
    assert world.deployments.get("churn").deployment.warm is not None
    world.wait(20.0)
    world.turn()
    assert world.deployments.get("churn").deployment.warm is None and world.machine.ready() == {2}
    assert world.deployments.history("churn")[-1].what == "cool"


def test_a_gauge_beyond_its_bound_sends_it_back_and_one_that_cannot_be_asked_is_told(world: World) -> None:
    numbers: list[float] = []

    def ask(url: str, query: str, version: int) -> float:
        if not numbers:
            raise Unavailable("Prometheus cannot be reached")
        return numbers[0]

    def until(is_so: Callable[[], bool]) -> None:
        for _ in range(500):
            world.wait(EVERY_S)
            if is_so():
                return
            time.sleep(0.005)  # the answer comes on another thread
        raise AssertionError("it never came to be")

    asks = Gauges(world.deployments.records, ask=ask, clock=lambda: world.now)
    world.driver = driver.Driver(world.deployments, gather=lambda _: {}, asks=asks, clock=lambda: world.now)
    canary(world, Strategy(kind="canary", steps=(Step(weight=10), Step(weight=100)), guards=("prometheus(up)<5",), prometheus="http://p.example"))
    until(lambda: world.driver.trouble == {"churn": "Prometheus cannot be reached"})
    assert world.weights() == {1: 90, 2: 10}
    numbers.append(7.0)
    until(lambda: world.deployments.get("churn").deployment.rollout is None)
    world.turn()
    assert world.weights() == {1: 100} and world.driver.trouble == {}
    assert world.deployments.history("churn")[-1].verdicts[0].rule == "prometheus(up)<5"
