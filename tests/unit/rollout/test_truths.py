"""Labels are looked for beside the driver, and belong to the step in which their prediction was answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from modelyard.errors import Unavailable
from modelyard.monitor.labels import Answers
from modelyard.rollout.history import Event
from modelyard.rollout.truths import EVERY_S, Truth, Truths, steps
from modelyard.targets.base import Deployment, Release, Rollout, Strategy
from modelyard.types import Digest

OLD, NEW = (
    Release(model="m", version=version, digest=Digest(f"sha256:{version:064x}"), index=Digest(f"sha256:{version:064x}")) for version in (1, 2)
)


def at(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="milliseconds")


def event(generation: int, second: float, what: str = "step") -> Event:
    return Event(deployment="m", sequence=1, at=at(second), by="modelyard", what=what, generation=generation)  # type: ignore[arg-type]


def rolling(*guards: str, started: float = 90.0, metric: str | None = None) -> Deployment:
    strategy = Strategy(kind="canary" if metric is None else "ab", guards=guards, metric=metric)
    rollout = Rollout(
        kind="deploy", strategy=strategy, goal=NEW, generation=6, phase="watching", started_at=at(started)[:19] + "+00:00", generations=(5, 6)
    )
    return Deployment(name="m", model="m", generation=4, current=OLD, rollout=rollout)


HISTORY = (event(5, 10.0), event(9, 95.0), event(5, 100.0), event(5, 150.0, "pause"), event(6, 200.0))


def answered(*times: float) -> Answers:
    right = np.array(["yes"] * len(times), dtype=object)
    return Answers(times=np.array(times), truth=right, predicted=right, probability=np.tile([0.2, 0.8], (len(times), 1)))


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[tuple[str, float]] = []
        self.found: dict[Digest, Answers] | Exception = {OLD.digest: answered(110, 120, 210), NEW.digest: answered(130, 220, 230)}
        self.truths = Truths(self.find, lambda release: ("no", "yes"), clock=lambda: self.now)

    def find(self, name: str, since: float) -> Mapping[Digest, Answers]:
        self.asked.append((name, since))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def look(self, deployment: Deployment, until: Callable[[Truth], bool]) -> Truth:
        for _ in range(2000):
            found = self.truths.look(deployment, lambda: HISTORY)
            if until(found):
                return found
            threading.Event().wait(0.005)
        raise AssertionError("it never came to be")


@pytest.fixture
def world() -> World:
    return World()


GUARD = "accuracy>=champion-1%"


def test_labels_belong_to_the_step_of_their_prediction(world: World) -> None:
    found = world.look(rolling(GUARD), lambda truth: truth.turn > 0)
    assert world.asked == [("m", 100.0)]  # nothing from before the first step of this rollout
    sizes = {generation: [len(each.truth) for each in pair if each] for generation, pair in found.by_generation.items()}
    assert sizes == {5: [2, 1], 6: [1, 2]}
    assert found.by_generation[6][1].score.tolist() == [0.8, 0.8]  # type: ignore[union-attr]


def test_they_are_looked_for_now_and_then(world: World) -> None:
    first = world.look(rolling(GUARD), lambda truth: truth.turn == 1)
    assert world.truths.look(rolling(GUARD), lambda: HISTORY) == first and len(world.asked) == 1
    world.found = {NEW.digest: answered(130)}
    world.now += EVERY_S
    again = world.look(rolling(GUARD), lambda truth: truth.turn == 2)
    assert again.by_generation[5][0] is None and again.by_generation[5][1] is not None


def test_another_rollout_of_the_name_sees_nothing_of_the_one_before(world: World) -> None:
    world.look(rolling(GUARD), lambda truth: truth.turn == 1)
    assert world.truths.look(rolling(GUARD, started=95.5), lambda: HISTORY) == Truth()


def test_what_cannot_be_read_is_told(world: World) -> None:
    world.found = Unavailable("the prediction log cannot be read now")
    world.look(rolling(GUARD), lambda _: bool(world.truths.trouble))
    assert world.truths.trouble == {"m": "the prediction log cannot be read now"}
    world.truths.forget(())
    assert world.truths.trouble == {} and world.truths.look(rolling(GUARD), lambda: ()) == Truth()


def test_nothing_is_looked_for_where_no_guard_needs_it(world: World) -> None:
    for deployment in (rolling("error_rate<1%"), rolling(metric="error_rate"), msgspec.structs.replace(rolling(GUARD), rollout=None)):
        assert world.truths.look(deployment, lambda: HISTORY) == Truth()
    assert world.asked == []
    world.look(rolling(metric="accuracy"), lambda truth: truth.turn == 1)


def test_steps_are_those_of_this_rollout() -> None:
    assert steps(HISTORY, started_at=at(90.0), generations=(5, 6, 7)) == [(5, 100.0), (6, 200.0)]
    assert steps((), started_at=at(90.0), generations=(5,)) == []
