from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.config import Settings
from modelyard.errors import ModelFailed, NotFound, Overloaded, Unavailable
from modelyard.events import GROUPS
from modelyard.serve.admission import NORMAL
from modelyard.serve.batching import Ran
from modelyard.serve.dataplane import DataPlane, Deployment, _batch_rows
from modelyard.serve.loading import load
from modelyard.serve.metrics import Metrics
from modelyard.types import ALONE, Digest, InferenceRequest, InferenceResponse, Schema, TensorSpec, TrafficPlan
from serving import Home


class Asked:
    def __init__(self, value: float, **given: Any) -> None:
        one = {"a": np.array([[float(value)]]), "b": np.array([[2]]), "c": np.array([[3.0]], np.float32)}
        self.request = InferenceRequest(one, 1, **given)
        self.received_s = self.prepared_s = 0.0
        self.deadline_s = float("inf")
        self.priority = NORMAL
        self.is_open = True
        self.is_answered = False
        self.said: Any = None

    def answer(self, response: InferenceResponse) -> None:
        if response.outputs["prediction"][0] == 322:
            raise ValueError("an answer that no wire can carry")
        self.said = response

    def fail(self, error: Exception) -> None:
        self.said = error


def with_plane(tmp_path: Path, test: Callable[[DataPlane, list[Any]], Awaitable[None]]) -> None:
    home = Home(tmp_path / "h")
    digests = [home.add("line", offset=offset) for offset in (0.0, 1000.0)]
    loaded = [(load(digest, home.placements[digest], home.folder / "keys"), number) for digest, number in digests]

    async def run() -> None:
        plane = DataPlane(Settings(inline_limit_s=10.0), slot=0, meter=Metrics(tmp_path, 0).meter)
        try:
            await test(plane, loaded)
        finally:
            plane.close()

    asyncio.run(run())


def deployment(plane: DataPlane, loaded: list[Any], weights: list[int]) -> Deployment:
    versions = {model.bundle.digest: plane.version("line", number, model) for model, number in loaded}
    plan = TrafficPlan(
        name="line",
        generation=1,
        weights={digest: weight for digest, weight in zip(versions, weights, strict=True) if weight},
        hold=tuple(digest for digest, weight in zip(versions, weights, strict=True) if not weight),
        versions={digest: version.number for digest, version in versions.items()},
    )
    return Deployment(plan, versions)


def test_before_the_first_plan_nothing_is_known_and_after_it_only_what_it_names(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        with pytest.raises(Unavailable):
            plane.find("line")
        plane.switch({"line": deployment(plane, loaded, [100, 0])})
        assert plane.find("line", 2).digest == loaded[1][0].bundle.digest  # type: ignore[union-attr]
        for name, number in (("other", None), ("line", 3)):
            with pytest.raises(NotFound):
                plane.find(name, number)

    with_plane(tmp_path, test)


def test_an_answer_names_who_gave_it_and_ids_are_of_ones_own(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        made = deployment(plane, loaded, [0, 100])
        plane.switch({"line": made})
        calls = [Asked(1), Asked(1), Asked(1, id="mine"), Asked(2)]
        for call in calls:
            plane.infer(made.pick(), call)
        await asyncio.sleep(0)
        assert [(call.said.version, call.said.outputs["prediction"].tolist()) for call in calls[:2]] == [(2, [1321.0])] * 2
        assert calls[0].said.id != calls[1].said.id
        assert calls[2].said.id == "mine"
        assert calls[0].said.digest == Digest(loaded[1][0].bundle.digest)

    with_plane(tmp_path, test)


def test_an_answer_that_cannot_be_sent_keeps_no_other_back(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        made = deployment(plane, loaded, [100, 0])
        calls = [Asked(1), Asked(2), Asked(3)]
        for call in calls:
            plane.infer(made.pick(), call)
        await asyncio.sleep(0)
        assert isinstance(calls[1].said, ModelFailed)
        assert [calls[0].said.outputs["prediction"][0], calls[2].said.outputs["prediction"][0]] == [321.0, 323.0]

    with_plane(tmp_path, test)


def test_the_versions_of_a_turn_all_run_before_one_answers_and_none_is_told_of_the_time_of_another(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        plane.switch({"line": deployment(plane, loaded, [50, 50])})
        first, second = (plane.find("line", number) for number in (1, 2))
        steps: list[str] = []
        seen: list[float] = []

        def watched(version: Any, seconds: float) -> None:
            predict, answered = version.batcher._runtime.predict, version.meter.answered

            def run(inputs: Any) -> Any:
                steps.append(f"run {version.number}")
                time.sleep(seconds)
                return predict(inputs)

            def count(latencies_s: list[float], rows: int, **given: float) -> None:
                steps.append(f"count {version.number}")
                seen.extend(latencies_s)
                answered(latencies_s, rows, **given)

            version.batcher._runtime = SimpleNamespace(predict=run)
            version.meter = SimpleNamespace(answered=count)

        class Telling(Asked):
            def answer(self, response: InferenceResponse) -> None:
                steps.append(f"answer {response.version}")
                super().answer(response)

        for version, seconds in ((first, 0.0), (second, 0.1)):
            watched(version, seconds)
            call = Telling(1)
            call.received_s = call.prepared_s = time.monotonic()
            plane.infer(version, call)  # type: ignore[arg-type]
        for _ in range(2):
            await asyncio.sleep(0)
        assert steps == ["run 1", "run 2", "answer 1", "answer 2", "count 1", "count 2"]
        assert seen[0] < 0.1 <= seen[1]  # the first one's answer waited for the second's run, which is told of the second alone

    with_plane(tmp_path, test)


def test_a_version_that_serves_is_not_made_twice(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        plane.switch({"line": deployment(plane, loaded, [100, 0])})
        before = plane.find("line", 1)
        plane.switch({"line": deployment(plane, loaded, [50, 50])})
        assert plane.find("line", 1) is before

    with_plane(tmp_path, test)


class Carrying:
    def __init__(self, user: bytes) -> None:
        self.user = user
        self.placed: Any = None

    def value(self, name: bytes) -> bytes:
        assert name == b"x-user"
        return self.user


def test_requests_stay_with_a_version_by_header_or_field_and_the_champion_stays_champion(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        made = deployment(plane, loaded, [10, 90])
        old, new = made.by_digest.values()
        first = {"champion": old.digest}
        by_header = Deployment(msgspec.structs.replace(made.plan, sticky="header:X-User", **first), made.by_digest)
        assert by_header.champion is old, "however small its share"
        assert made.champion is new
        for user in (b"ada", b"bob", b"eve"):
            assert len({by_header.pick(Carrying(user)) for _ in range(30)}) == 1
        head = Carrying(b"ada")
        found = {by_header.pick(head) for _ in range(30)}
        turned = {old.digest: 90, new.digest: 10}
        both = {Deployment(msgspec.structs.replace(by_header.plan, weights=turned, generation=n), made.by_digest).pick(head) for n in range(2, 4)}
        assert len(found) == len(both) == 1
        assert head.placed[0] is not by_header.router, "what a head meant under another plan is forgotten"
        assert {by_header.pick(Carrying(b"")) for _ in range(300)} == {by_header.pick() for _ in range(300)} == {old, new}
        by_field = Deployment(msgspec.structs.replace(made.plan, sticky="field:a", **first), made.by_digest)
        for value in (1.0, 2.0, 3.0):
            assert len({by_field.pick_by_field(InferenceRequest({"a": np.array([[value], [7.0]])}, 2)) for _ in range(30)}) == 1
        assert {by_field.pick_by_field(InferenceRequest({"a": np.array([[np.nan]])}, 1)) for _ in range(300)} == {old, new}
        request = InferenceRequest({"a": np.array([[1.0]])}, 1)
        by_field.pick_by_field(request)
        for plan, call in ((by_header, SimpleNamespace(head=head)), (by_field, SimpleNamespace(request=request))):
            plan.enter(plane.leisure)
            assert old.group is not None and old.group(call) in range(GROUPS)
        by_header.enter(plane.leisure)
        other = Deployment(msgspec.structs.replace(by_header.plan, name="other"), made.by_digest)
        other.pick(head)
        group = by_header.router.place(b"ada")[1]
        assert head.placed[2] != group and old.group is not None
        assert old.group(SimpleNamespace(head=head)) == group, "whatever else was asked with the same head meanwhile"
        by_field.enter(plane.leisure)
        assert old.group(SimpleNamespace()) == old.group(SimpleNamespace(request=InferenceRequest({}, 1))) == ALONE, "never read, or never placed"
        made.enter(plane.leisure)
        assert old.group is None, "where nobody stays with a version there are no groups"
        alone = Deployment(msgspec.structs.replace(by_field.plan, weights={old.digest: 100}, hold=(new.digest,)), made.by_digest)
        assert alone.only is alone.pick() is old
        assert alone.field == "", "nobody need look"

    with_plane(tmp_path, test)


def test_a_full_queue_is_said_at_once(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        made = deployment(plane, loaded, [100, 0])
        for _ in range(plane.settings.max_queue_rows):
            plane.infer(made.champion, Asked(1))
        with pytest.raises(Overloaded):
            plane.infer(made.champion, Asked(1))

    with_plane(tmp_path, test)


def test_who_was_refused_while_the_model_ran_is_not_counted_as_answered_too(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        version = deployment(plane, loaded, [100, 0]).champion
        seen: list[Any] = []
        version.recorder = SimpleNamespace(answered=lambda *given, **_: seen.append(given))  # type: ignore[assignment]
        counted: list[int] = []
        version.meter = SimpleNamespace(answered=lambda latencies, rows, **_: counted.append((len(latencies), rows)))  # type: ignore[assignment]
        calls = [Asked(1, id="first"), Asked(2, id="late"), Asked(3, id="last")]
        calls[1].is_open, calls[1].is_answered = False, True
        inputs = {name: np.concatenate([call.request.inputs[name] for call in calls]) for name in "abc"}
        version._answer(Ran(calls, 3, inputs, {"prediction": np.array([321.0, 0.0, 323.0])}, 0.1))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert [call.said and call.said.outputs["prediction"][0] for call in calls] == [321.0, None, 323.0]
        assert counted == [(2, 2)]
        assert seen[0][:2] == (["first", "last"], [1, 1])
        assert seen[0][2]["a"].tolist() == [[1.0], [3.0]]
        for call in calls:
            call.is_open, call.is_answered = False, True
        version._answer(Ran(calls, 3, inputs, {"prediction": np.zeros(3)}, 0.1))  # type: ignore[arg-type]
        assert counted == [(2, 2)]

    with_plane(tmp_path, test)


def test_who_went_away_counts_as_cancelled_once_and_never_as_answered(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        version = deployment(plane, loaded, [100, 0]).champion
        counted: list[Any] = []
        version.meter = SimpleNamespace(answered=lambda latencies, rows, **_: counted.append(rows), failed=counted.append)  # type: ignore[assignment]
        version.recorder = SimpleNamespace(answered=lambda *given, **_: counted.append(given[1]), failed=lambda *given: counted.append(given))  # type: ignore[assignment]
        while_waiting, while_running, there = Asked(1), Asked(1), Asked(1)
        for call in (while_waiting, there):
            plane.infer(version, call)
        while_waiting.is_open = False
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [each if isinstance(each, int | str | list) else each[0] for each in counted] == ["cancelled", "cancelled", 1, [1]]
        counted.clear()
        while_running.is_open = False
        inputs = while_running.request.inputs
        version._answer(Ran([while_running], 1, inputs, {"prediction": np.zeros(1)}, 0.1))
        assert counted[0] == "cancelled"
        version._fail(while_running, ModelFailed("no"))
        assert [each for each in counted if isinstance(each, str)] == ["cancelled"] * 2
        assert while_running.said is None

    with_plane(tmp_path, test)


@pytest.mark.parametrize(("shape", "rows"), [((-1, 30), 100), ((-1, 64, 64, 3), 21), ((-1, 224, 224, 3), 1), ((-1, 512, 512, 3), 1), ((1, 30), 1)])
def test_rows_so_wide_that_they_leave_the_caches_do_not_run_together(shape: tuple[int, ...], rows: int) -> None:
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP32", shape=shape),), outputs=(), layout="tensor", task="other")
    loaded: Any = SimpleNamespace(can_batch=shape[0] == -1, runtime=object(), bundle=SimpleNamespace(schema=schema))
    assert _batch_rows(loaded, Settings(max_batch_rows=100)) == rows
    loaded.runtime = SimpleNamespace(submit=None)
    assert _batch_rows(loaded, Settings(max_batch_rows=100)) == (100 if loaded.can_batch else 1)


def test_a_version_that_takes_wider_types_is_given_them(tmp_path: Path) -> None:
    async def test(plane: DataPlane, loaded: list[Any]) -> None:
        made = deployment(plane, loaded, [50, 50])
        old, new = made.by_digest.values()
        wider = {"b": "FP64", "c": "FP64"}
        inputs = tuple(msgspec.structs.replace(spec, datatype=wider.get(spec.name, spec.datatype)) for spec in new.schema.inputs)
        new.schema = msgspec.structs.replace(new.schema, inputs=inputs)
        made = Deployment(msgspec.structs.replace(made.plan, champion=old.digest), made.by_digest)
        asked = Asked(1).request.inputs
        assert made.fit(old, asked) is asked
        fitted = made.fit(new, asked)
        assert {name: values.dtype.name for name, values in fitted.items()} == {"a": "float64", "b": "float64", "c": "float64"}
        assert [values.tolist() for values in fitted.values()] == [values.tolist() for values in asked.values()]

    with_plane(tmp_path, test)
