from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.config import Settings
from modelyard.errors import ModelFailed
from modelyard.events import Mirror, quantile_s
from modelyard.runtime.isolated.process import Ended
from modelyard.serve import mirrored, shadow
from modelyard.serve.admission import NORMAL
from modelyard.serve.batching import Ran
from modelyard.serve.dataplane import DataPlane, Deployment, Version
from modelyard.serve.loading import load
from modelyard.serve.metrics import MIRROR_SHED, MIRRORED, REQUESTS, Metrics
from modelyard.serve.observe import Observer
from modelyard.serve.shadow import HELD_ROWS, Shadow
from modelyard.serve.suspects import Suspects
from modelyard.types import InferenceRequest, InferenceResponse, TensorSpec, TrafficPlan
from serving import Home


class Asked:
    """A caller of `line`: a + 10 b + 100 c."""

    def __init__(self, *values: float) -> None:
        column = np.array([[float(value)] for value in values])
        inputs = {"a": column, "b": np.full((len(values), 1), 2), "c": np.full((len(values), 1), 3.0, np.float32)}
        self.request = InferenceRequest(inputs, len(values))
        self.received_s = self.prepared_s = time.monotonic()
        self.deadline_s = float("inf")
        self.priority = NORMAL
        self.is_open = True
        self.is_answered = False
        self.traceparent = b""
        self.said: list[Any] = []

    def answer(self, response: InferenceResponse) -> None:
        self.said.append((response.version, response.outputs["prediction"].tolist()))

    def fail(self, error: Exception) -> None:
        self.said.append(error)


class World:
    """A plane that serves version 1 of `line` and shadows it with version 2."""

    def __init__(self, folder: Path, offset: float, **settings: Any) -> None:
        self.settings = msgspec.structs.replace(Settings(inline_limit_s=10.0), **settings)
        home = Home(folder / "h")
        self.metrics = Metrics(folder, 0)
        self.observer = Observer(self.settings, slot=0, spool=folder / "spool")
        self.plane = DataPlane(self.settings, slot=0, meter=self.metrics.meter, attach=self._attach)
        added = [home.add("line", offset=each) for each in (0.0, offset)]
        self.loaded = [(load(digest, home.placements[digest], home.folder / "keys"), number) for digest, number in added]
        self.generation = self.seen = 0

    def _attach(self, version: Version) -> None:
        version.recorder = self.observer.attach(version.name, version.number, version.loaded.bundle)

    def switch(self, share: float, *, weight: int = 0) -> Deployment:
        versions = {model.bundle.digest: self.plane.version("line", number, model) for model, number in self.loaded}
        old, new = versions
        self.generation += 1
        plan = TrafficPlan(
            name="line",
            generation=self.generation,
            weights={old: 100 - weight, new: weight} if weight else {old: 100},
            hold=() if weight else (new,),
            versions={digest: version.number for digest, version in versions.items()},
            shadows={new: share} if share else {},
            champion=old,
        )
        made = Deployment(plan, versions)
        self.plane.switch({"line": made})
        return made

    @property
    def champion(self) -> Version:
        return self.plane.deployments["line"].champion

    @property
    def other(self) -> Version:
        return self.plane.deployments["line"].versions[2]

    async def ask(self, *calls: Asked) -> None:
        for call in calls:
            self.plane.infer(self.champion, call)
        await asyncio.sleep(0)

    async def mirrored(self, requests: int) -> Mirror:
        """What the shadow's recorder has once so many requests have their end."""
        until = time.monotonic() + 20
        while (numbers := self.metrics.sums([0])["line", 2])[MIRRORED] + numbers[MIRROR_SHED] < requests:
            assert time.monotonic() < until, numbers
            await asyncio.sleep(0.002)
        assert self.other.recorder is not None
        (part,) = self.other.recorder.take(1.0)
        self.seen = requests
        assert part.requests == 0, "never among the live ones"
        assert part.mirror is not None
        return part.mirror


async def true(said: Callable[[], object]) -> None:
    """Wait until it is."""
    until = time.monotonic() + 20
    while not said():
        assert time.monotonic() < until
        await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not shed what a test waits for."""
    monkeypatch.setattr(shadow, "GATHER_S", 0.005)
    monkeypatch.setattr(shadow, "HELD_S", 60.0)


def within(folder: Path, test: Callable[[World], Awaitable[None]], *, offset: float = 1000.0, **settings: Any) -> None:
    async def run() -> None:
        world = World(folder, offset, **settings)
        try:
            await test(world)
        finally:
            world.plane.close()

    asyncio.run(run())


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether the worker has time to spare, as the test says."""
    said = [True]
    monkeypatch.setattr("modelyard.serve.leisure.Leisure.has_time", property(lambda self: said[0]))
    yield said


@pytest.mark.parametrize(("offset", "disagreed"), [(1000.0, 7), (0.01, 0)])
def test_answers_leave_first_and_are_then_compared(tmp_path: Path, free: list[bool], offset: float, disagreed: int) -> None:
    async def test(world: World) -> None:
        world.switch(1.0)
        calls = [Asked(1), Asked(2, 3), *(Asked(n) for n in range(4))]
        await world.ask(*calls)
        assert [each.said for each in calls[:2]] == [[(1, [321.0])], [(1, [322.0, 323.0])]]
        assert world.metrics.sums([0])["line", 2][MIRRORED] == 0, "not before the answers have left"
        found = await world.mirrored(6)
        assert (found.sent, found.shed, found.failed, found.rows, found.disagreed) == (6, 0, 0, 7, disagreed)
        assert sum(found.latencies.values()) == 6
        assert sum(found.outputs["prediction"]) == 7
        assert all(len(each.said) == 1 for each in calls), "nobody is answered twice"
        assert world.metrics.sums([0])["line", 2][REQUESTS] == 0

    within(tmp_path, test, offset=offset)


def test_a_share_is_mirrored_and_the_right_rows_are_compared(tmp_path: Path, free: list[bool]) -> None:
    async def test(world: World) -> None:
        made = world.switch(0.3)
        (before,) = world.champion.shadows
        seen: list[Mapping[str, np.ndarray]] = []
        draws = cycle([0.0, 0.45, 0.8])  # pass over 0, 1, 4
        chosen = Shadow(
            world.champion, world.other, 0.3, leisure=world.plane.leisure, fit=lambda inputs: seen.append(inputs) or inputs, draw=lambda: next(draws)
        )
        world.champion.shadows = (chosen,)
        await world.ask(*(Asked(*[n] * (1 + n % 2)) for n in range(10)))
        found = await world.mirrored(4)
        assert [row for inputs in seen for row in inputs["a"][:, 0].tolist()] == [0.0, 2.0, 7.0, 7.0, 8.0]
        assert (found.sent, found.rows, found.disagreed) == (4, 5, 0), "the champion's answers to the same rows"
        assert before is not chosen
        assert made.champion is world.champion

    within(tmp_path, test, offset=0.0001)


def test_every_request_has_the_same_chance(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        made = world.switch(0.05)
        (one,) = made.champion.shadows
        counts = np.zeros(8)
        for _ in range(20_000):
            counts[list(one.choose(8))] += 1
        assert abs(counts - 1000).max() < 5 * 1000**0.5

    within(tmp_path, test)


def test_one_request_that_fails_is_told_from_the_others(tmp_path: Path, free: list[bool]) -> None:
    async def test(world: World) -> None:
        world.switch(1.0)
        runtime = world.other.loaded.runtime
        predict = runtime.predict

        def bad(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            if 7.0 in inputs["a"]:
                raise ModelFailed("not 7")
            return predict(inputs)

        runtime.predict = bad  # type: ignore[method-assign]
        calls = [Asked(n) for n in range(9)]
        await world.ask(*calls)
        found = await world.mirrored(9)
        assert (found.sent, found.failed, found.rows, found.disagreed) == (9, 1, 8, 8)
        assert sum(found.latencies.values()) == 8
        assert [each.said for each in calls] == [[(1, [320.0 + n])] for n in range(9)], "no caller noticed"

    within(tmp_path, test)


def test_without_time_to_spare_it_is_shed_and_counted(tmp_path: Path, free: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        free[0] = False
        world.switch(1.0)
        calls = [Asked(n) for n in range(HELD_ROWS + 40)]
        for call in calls:
            await world.ask(call)
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert world.metrics.sums([0])["line", 2][MIRROR_SHED] == 40, "what finds no room"
        monkeypatch.setattr(shadow, "HELD_S", 0.0)
        found = await world.mirrored(HELD_ROWS + 40)
        assert (found.sent, found.shed) == (0, HELD_ROWS + 40), "and what waited too long"
        assert all(len(each.said) == 1 for each in calls)

    within(tmp_path, test)


def test_what_finds_no_room_is_counted_and_not_offered(tmp_path: Path, free: list[bool]) -> None:
    async def test(world: World) -> None:
        free[0] = False
        world.switch(1.0)
        (one,) = world.champion.shadows
        assert list(one.choose(3)) == [0, 1, 2]
        for _ in range(HELD_ROWS + 1):
            await world.ask(Asked(1))
        await asyncio.sleep(0)
        assert not one.choose(3), "nothing is kept of a run that would be shed"
        free[0] = True
        found = await world.mirrored(HELD_ROWS + 4)
        assert (found.sent, found.shed) == (HELD_ROWS, 4)
        assert one.choose(3), "there is room again"

    within(tmp_path, test)


@pytest.mark.parametrize("is_open", [True, False])
def test_rows_that_may_have_any_size_are_held_by_their_bytes(tmp_path: Path, free: list[bool], is_open: bool) -> None:
    async def test(world: World) -> None:
        free[0] = False
        world.switch(1.0)
        champion = world.champion
        if is_open:
            champion.schema = msgspec.structs.replace(champion.schema, outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1, -1)),))
        one = Shadow(champion, world.other, 1.0, leisure=world.plane.leisure, fit=lambda inputs: inputs)
        wide = {"prediction": np.zeros((1, shadow.HELD_BYTES // 16))}
        for _ in range(8):
            one.offer([0], [1], Ran([], 1, {"a": np.zeros((1, 1))}, {}, 0.0), wide, [0.1])
        assert (len(one._held), one._lost) == ((2, 6) if is_open else (8, 0)), "of another schema no row is so large"
        while one._held:
            one._drop()
        assert one._held_bytes == 0
        one.close()

    within(tmp_path, test)


def test_a_block_is_as_large_as_may_run_on_the_loop(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        made = world.switch(1.0)
        world.other.batcher.pace.expect(0.0002, 0.00001)
        one = Shadow(world.champion, world.other, 1.0, leisure=world.plane.leisure, fit=lambda inputs: inputs)
        assert (one._block_rows, one._burst_rows) == (9, 36)
        assert world.other.batcher.pace.of_run(9) <= world.other.inline_s < world.other.batcher.pace.of_run(11)
        world.other.batcher.pace.expect(0.004, 0.00001)
        one._keep_pace()
        assert one._block_rows == shadow.BLOCK_ROWS, "what leaves the loop for one row leaves it for as many as take as long"
        assert one._burst_rows == shadow.BLOCK_ROWS, "and is not waited for"
        assert made.champion is world.champion

    within(tmp_path, test, inline_limit_s=0.0003)


@pytest.mark.parametrize("width", [1, 1 << 12])
def test_a_large_run_is_not_held_for_some_requests_of_it(tmp_path: Path, width: int) -> None:
    async def test(world: World) -> None:
        made = world.switch(0.5)
        (one,) = made.champion.shadows
        arrays = {"x": np.repeat(np.arange(6.0)[:, None], width, axis=1)}
        one.offer([0, 2], [2, 1, 3], Ran([], 6, arrays, {}, 0.0), {"y": np.arange(6)}, [0.1, 0.2, 0.3])
        (held,) = one._held
        assert (held.requests, held.rows, one._held_rows) == (2, 5, 5)
        assert np.shares_memory(held.inputs["x"], arrays["x"]) == (width == 1)
        assert mirrored.inputs_of([held])["x"][:, 0].tolist() == [0, 1, 3, 4, 5], "the same rows either way"

    within(tmp_path, test)


def test_a_burst_is_run_block_by_block_and_compared_once(tmp_path: Path, free: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        monkeypatch.setattr(shadow, "GATHER_S", 60.0)
        made = world.switch(1.0)
        (one,) = made.champion.shadows
        ran: list[int] = []
        told: list[int] = []
        run, count = world.other.run, one._count
        monkeypatch.setattr(world.other, "run", lambda inputs, rows: ran.append(rows) or run(inputs, rows))
        monkeypatch.setattr(one, "_count", lambda found, came: told.append(came.rows) or count(found, came))
        for number in range(shadow.BURST_BLOCKS * shadow.BLOCK_ROWS):
            assert not ran, "it waits for as many as make a burst"
            await world.ask(Asked(number))
            await asyncio.sleep(0)
        found = await world.mirrored(256)
        assert (ran, told) == ([64] * 4, [256])
        assert (found.sent, found.rows, found.disagreed, sum(found.latencies.values())) == (256, 256, 256, 256)
        assert sum(found.outputs["prediction"]) == 256

    within(tmp_path, test)


def test_what_callers_ask_meanwhile_stands_between_two_blocks(tmp_path: Path, free: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        made = world.switch(1.0)
        (one,) = made.champion.shadows
        free[0] = False
        for number in range(shadow.HELD_ROWS):
            await world.ask(Asked(number))
        run, ran = world.other.run, []

        def busy(inputs: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
            ran.append(rows)
            free[0] = False  # somebody asks
            return run(inputs, rows)

        monkeypatch.setattr(world.other, "run", busy)
        for blocks in (1, 2):
            free[0] = True
            await true(lambda wanted=blocks: len(ran) >= wanted)
            await asyncio.sleep(0.02)
            assert ran == [64] * blocks
        assert world.metrics.sums([0])["line", 2][MIRRORED] == 0
        monkeypatch.setattr(shadow, "HELD_S", 0.0)
        await true(lambda: world.metrics.sums([0])["line", 2][MIRRORED])
        assert world.metrics.sums([0])["line", 2][MIRRORED] == 128, "what has run is told at last, though there is never time"
        assert not one._found
        assert one._found_rows == 0

    within(tmp_path, test)


def test_where_callers_crowd_it_takes_a_step_now_and_then(tmp_path: Path, free: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        monkeypatch.setattr(shadow, "CROWDED_PAUSE_S", 60.0)
        monkeypatch.setattr(shadow, "GATHER_S", 60.0)
        made = world.switch(1.0)
        (one,) = made.champion.shadows
        run, ran = world.other.run, []
        monkeypatch.setattr(world.other, "run", lambda inputs, rows: ran.append(rows) or run(inputs, rows))
        for _ in range(16):
            await world.ask(*(Asked(number) for number in range(shadow.CROWD)))
        await true(lambda: one._held_rows == 128)
        one._stepped_s = time.monotonic() - 61
        one._soon()
        await true(lambda: ran)
        await asyncio.sleep(0.02)
        assert ran == [64], "though there seems to be time"
        for number in range(shadow.CROWD):
            await world.ask(Asked(number))
        await true(lambda: one._held_rows == 72)
        one._stepped_s -= 61
        one._soon()
        found = await world.mirrored(136)
        assert (found.sent, found.shed, ran) == (136, 0, [64, 64, 8]), "they come one by one again"

    within(tmp_path, test)


def test_what_has_run_when_a_plan_ends_counts(tmp_path: Path, free: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        monkeypatch.setattr(shadow, "BLOCK_ROWS", 1)
        world.switch(1.0)
        run = world.other.run

        def busy(inputs: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
            free[0] = False
            return run(inputs, rows)

        monkeypatch.setattr(world.other, "run", busy)
        (one,) = world.champion.shadows
        await world.ask(Asked(1), Asked(2))
        await world.ask(Asked(3))
        await true(lambda: one._found)
        world.switch(0.0)
        assert world.other.recorder is not None
        (part,) = world.other.recorder.take(1.0)
        assert part.mirror is not None
        assert (part.generation, part.mirror.sent, part.mirror.shed, part.mirror.disagreed) == (1, 2, 1, 2)

    within(tmp_path, test)


def test_a_plan_that_ends_sheds_what_waits_and_counts_it_under_its_own_generation(tmp_path: Path, free: list[bool]) -> None:
    async def test(world: World) -> None:
        free[0] = False
        world.switch(1.0)
        await world.ask(Asked(1), Asked(2))
        await asyncio.sleep(0.01)
        world.switch(0.0)
        assert world.champion.shadows == ()
        assert world.other.recorder is not None
        (part,) = world.other.recorder.take(1.0)
        assert part.generation == 1
        assert part.mirror == Mirror(shed=2)
        free[0] = True
        await world.ask(Asked(3))
        await asyncio.sleep(0.03)
        assert world.metrics.sums([0])["line", 2][MIRRORED] == 0
        assert world.other.is_idle

    within(tmp_path, test)


def test_long_runs_leave_the_loop_and_hold_their_model(tmp_path: Path, free: list[bool]) -> None:
    async def test(world: World) -> None:
        world.switch(1.0)
        runtime = world.other.loaded.runtime
        predict, threads = runtime.predict, []

        def slow(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            import threading

            threads.append(threading.current_thread().name)
            time.sleep(0.05)
            return predict(inputs)

        runtime.predict = slow  # type: ignore[method-assign]
        await world.ask(Asked(1))
        while not threads:
            await asyncio.sleep(0.001)
        assert not world.other.is_idle, "its model is not let go of"
        assert threads[0].startswith("leisure")
        found = await world.mirrored(1)
        assert (found.sent, found.disagreed) == (1, 1)
        assert world.other.is_idle
        world.switch(1.0)
        await world.ask(Asked(1))
        while len(threads) < 2:
            await asyncio.sleep(0.001)
        world.switch(0.0)
        assert not world.other.is_idle
        while not world.other.is_idle:
            await asyncio.sleep(0.001)
        (part,) = world.other.recorder.take(1.0)  # type: ignore[union-attr]
        assert (part.generation, part.mirror) == (2, Mirror(shed=1)), "an answer that came too late is none"

    within(tmp_path, test, inline_limit_s=1e-9)


class Elsewhere:
    """A model in another process."""

    processes = 1

    def __init__(self, predict: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
        self.predict = predict
        self.cause: Exception | None = None
        self.asked: list[int] = []

    def attach(self) -> None:
        return

    def close(self) -> None:
        return

    def submit(self, inputs: Mapping[str, np.ndarray], done: Any, *, deadline_s: float, rows_at_once: int | None = None) -> None:
        self.asked.append(len(inputs["a"]))
        assert deadline_s > time.monotonic()
        if 7.0 in inputs["a"]:
            failure = ModelFailed("not 7")
            failure.__cause__ = self.cause
            asyncio.get_running_loop().call_later(0.001, done, None, failure, 0.001)
        else:
            asyncio.get_running_loop().call_later(0.001, done, self.predict(inputs), None, 0.001)


def test_a_model_elsewhere_is_asked_without_a_thread(tmp_path: Path, free: list[bool]) -> None:
    async def test(world: World) -> None:
        model, number = world.loaded[1]
        elsewhere = Elsewhere(model.runtime.predict)
        model.runtime = elsewhere  # type: ignore[assignment]
        world.switch(1.0)
        await world.ask(*(Asked(n) for n in (1, 7, 8)))
        found = await world.mirrored(3)
        assert (found.sent, found.failed, found.rows, found.disagreed) == (3, 1, 2, 2)
        assert elsewhere.asked == [3, 1, 1, 1]
        assert number == 2
        elsewhere.cause = Ended("killed", "by the system")
        world.other.suspects = Suspects()
        for asked in ([3, 1, 1, 1], [1, 1], [1, 1]):
            elsewhere.asked.clear()
            await world.ask(*(Asked(n) for n in (1, 7, 8)))
            assert (await world.mirrored(3 + world.seen)).failed == 1
            assert elsewhere.asked == asked, "who ended a process twice is asked no more, and does not keep the others back"

    within(tmp_path, test)


def test_a_latency_is_what_the_caller_would_have_waited(tmp_path: Path, free: list[bool]) -> None:
    async def test(world: World) -> None:
        world.switch(1.0)
        (one,) = world.champion.shadows
        ran = Ran([], 2, {key: np.concatenate([value] * 2) for key, value in Asked(1).request.inputs.items()}, {}, 0.25)
        one.offer([0, 1], [1, 1], ran, {"prediction": np.array([321.0, 321.0])}, [0.75, 0.1])
        (held,) = one._held
        found = mirrored.compared(one._agreement, [mirrored.Found([held], {"prediction": np.array([1321.0, 321.0])}, 0.2)])
        assert found.latencies_s == pytest.approx([0.5 + 2 * 0.1, 0.0 + 2 * 0.1]), "beside the champion's run, and a run of as many rows"
        assert found.disagreed == 1
        assert quantile_s((await world.mirrored(2)).latencies, 1.0) == pytest.approx(0.5, rel=0.2)

    within(tmp_path, test)


def test_a_canary_is_mirrored_too_and_keeps_its_live_counts_apart(tmp_path: Path, free: list[bool]) -> None:
    async def test(world: World) -> None:
        made = world.switch(1.0, weight=10)
        await world.ask(Asked(1))
        world.plane.infer(made.versions[2], Asked(5))
        await asyncio.sleep(0)
        until = time.monotonic() + 20
        while world.metrics.sums([0])["line", 2][MIRRORED] < 1:
            assert time.monotonic() < until
            await asyncio.sleep(0.002)
        (part,) = world.other.recorder.take(1.0)  # type: ignore[union-attr]
        assert part.mirror is not None
        assert (part.requests, part.mirror.sent) == (1, 1), "what it answers itself is not mirrored"
        assert sum(part.outputs["prediction"]) == sum(part.mirror.outputs["prediction"]) == 1

    within(tmp_path, test)
