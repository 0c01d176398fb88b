"""Gauges are asked beside the driver, and their samples kept by generation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from modelyard.errors import Unavailable
from modelyard.registry.records import SqliteRecords
from modelyard.rollout import gauges
from modelyard.rollout.gauges import EVERY_S, Gauges, sampled, sweep, taken
from modelyard.rollout.guards import Samples, parse
from modelyard.targets.base import Deployment, Release, Rollout, Step, Strategy
from modelyard.types import Digest

OLD, NEW = (
    Release(model="m", version=version, digest=Digest(f"sha256:{version:064x}"), index=Digest(f"sha256:{version:064x}")) for version in (1, 2)
)
BELOW = "prometheus(up)<5"
RATIO = 'prometheus(x{v="{version}"})<1.5x'


def rolling(*guards: str, phase: str = "watching", generation: int = 5, weight: int = 10) -> Deployment:
    strategy = Strategy(kind="canary", steps=(Step(weight=weight),), guards=guards, prometheus="http://metrics.example")
    rollout = Rollout(
        kind="deploy", strategy=strategy, goal=NEW, generation=generation, phase=phase, started_at="t", generations=tuple(range(5, generation + 1))
    )  # type: ignore[call-arg]
    return Deployment(name="m", model="m", generation=4, current=OLD, rollout=rollout)


class World:
    """A store, a clock and a server with one number per version."""

    def __init__(self, folder: Path) -> None:
        self.records = SqliteRecords(folder / "records")
        self.now = 0.0
        self.numbers: dict[int, float | Exception] = {1: 3.0, 2: 4.0}
        self.asked: list[tuple[str, str, int]] = []
        self.answered = threading.Semaphore(0)
        self.gauges = self.fresh()

    def fresh(self) -> Gauges:
        return Gauges(self.records, ask=self.ask, clock=lambda: self.now)

    def ask(self, url: str, query: str, version: int) -> float:
        self.asked.append((url, query, version))
        number = self.numbers[version]
        if isinstance(number, Exception):
            raise number
        return number

    def look(self, deployment: Deployment, until: Callable[[gauges.Taken], bool]) -> gauges.Taken:
        """What there is once `until` is true of it."""
        for _ in range(2000):
            found = self.gauges.look(deployment).get(deployment.rollout.generation, {})  # type: ignore[union-attr]
            if until(found):
                return found
            threading.Event().wait(0.005)
        raise AssertionError("no such samples")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def count(number: int, text: str = BELOW) -> Callable[[gauges.Taken], bool]:
    return lambda found: text in found and found[text].taken + found[text].failed == number


def test_a_gauge_is_asked_now_and_then_and_counted_beyond_its_restarts(world: World) -> None:
    deployment = rolling(BELOW)
    assert world.look(deployment, count(1))[BELOW] == Samples(taken=1, broken=0, value=4.0)
    world.gauges.look(deployment)
    assert len(world.asked) == 1  # not due yet
    world.numbers[2] = 9.0
    world.now += EVERY_S
    assert world.look(deployment, count(2))[BELOW] == Samples(taken=2, broken=1, value=9.0)
    world.gauges = world.fresh()
    assert world.look(deployment, count(3))[BELOW] == Samples(taken=3, broken=2, value=9.0)


def test_a_ratio_asks_for_both_versions(world: World) -> None:
    found = world.look(rolling(RATIO), count(1, RATIO))[RATIO]
    assert found == Samples(taken=1, broken=0, value=4.0, champion=3.0)
    assert world.asked == [("http://metrics.example", 'x{v="{version}"}', version) for version in (2, 1)]


def test_what_cannot_be_asked_is_counted_and_told_and_no_evidence(world: World) -> None:
    world.numbers[2] = Unavailable("Prometheus cannot be reached")
    assert world.look(rolling(BELOW), count(1))[BELOW] == Samples(failed=1)
    assert world.gauges.trouble == {"m": "Prometheus cannot be reached"}
    world.gauges.forget(())
    assert world.gauges.trouble == {}


def test_nothing_is_asked_without_a_step_in_force_or_without_such_a_guard(world: World) -> None:
    for deployment in (
        rolling(BELOW, phase="switching"),
        rolling("error_rate<1%"),
        rolling(RATIO, weight=100),
        msgspec.structs.replace(rolling(BELOW), rollout=None),
        msgspec.structs.replace(rolling(BELOW), current=None),
    ):
        world.gauges.look(deployment)
    assert world.asked == []


def test_each_generation_has_its_own_samples_until_no_rollout_needs_them(world: World) -> None:
    world.look(rolling(BELOW), count(1))
    world.look(rolling(BELOW, generation=6), count(1))
    assert taken(world.records, "m", (5, 6)).keys() == {5, 6}
    assert sweep(world.records, [("m", 6)]) == 1
    assert taken(world.records, "m", (5, 6)).keys() == {6}


@pytest.mark.parametrize(
    ("text", "value", "champion", "broken"),
    [
        (BELOW, 5.0, None, 1),
        ("prometheus(up)<=5", 5.0, None, 0),
        (RATIO, 4.4, 3.0, 0),
        (RATIO, 4.6, 3.0, 1),
        (RATIO, 0.0, 0.0, 0),
        (RATIO, 0.1, 0.0, 1),
        ("prometheus(up)>=1", 0.0, None, 1),
    ],
)
def test_a_sample_lies_within_or_beyond(text: str, value: float, champion: float | None, broken: int) -> None:
    assert sampled(Samples(), parse(text), value, champion) == Samples(taken=1, broken=broken, value=value, champion=champion)
