from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.bundle.artefact import Golden
from modelyard.config import Settings
from modelyard.errors import NotFound
from modelyard.events import Part, Segment, Use
from modelyard.monitor import profile
from modelyard.monitor.profile import reference
from modelyard.serve import observe
from modelyard.serve.observe import Observer, Recorder
from modelyard.serve.usage import Own, Spent
from modelyard.types import Digest, Schema, TensorSpec

if TYPE_CHECKING:
    from modelyard.bundle import Bundle

DIGEST = Digest("sha256:" + "0" * 64)
SCHEMA = Schema(
    inputs=(
        TensorSpec(name="n", datatype="FP64", shape=(-1, 1)),
        TensorSpec(name="k", datatype="INT64", shape=(-1, 1), tag="hash"),
        TensorSpec(name="secret", datatype="BYTES", shape=(-1, 1), is_nullable=True, tag="mask"),
        TensorSpec(name="gone", datatype="BYTES", shape=(-1, 1), tag="drop"),
    ),
    outputs=(TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),),
    layout="frame",
    task="regression",
)


def draw(rows: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    secret = np.array([["s3cret"], [None]] * rows, dtype=object)[:rows]
    return {"n": rng.normal(size=(rows, 1)), "k": np.full((rows, 1), 918273645), "secret": secret, "gone": secret.copy()}


def answers(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"prediction": inputs["n"][:, 0] * 2}


class Packed:
    """A bundle, as far as an Observer reads one."""

    def __init__(self, *, with_outputs: bool = True, schema: Schema = SCHEMA, data: dict[str, np.ndarray] | None = None) -> None:
        data = data or draw(2000)
        self.schema = schema
        self.digest = DIGEST
        self._members = {"profile": profile.encode(profile.measure(data, schema))}
        if with_outputs:
            self._members["output-profile"] = profile.encode(profile.measure_outputs(answers(draw(2000)), SCHEMA))

    def read(self, role: str) -> bytes:
        if role not in self._members:
            raise NotFound(role)
        return self._members[role]


def packed(**options: object) -> Bundle:
    return cast("Bundle", Packed(**options))  # type: ignore[arg-type]


class World:
    """One observer on a clock of the test's: each second is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: float) -> None:
        self.seconds = count(1000)
        self.now = float(next(self.seconds))
        monkeypatch.setattr(observe.time, "monotonic", lambda: self.now)
        self.folder = folder
        self.bundle = packed()
        self.observer = Observer(msgspec.structs.replace(Settings(), **settings), slot=3, spool=folder)
        self.recorder = self.attach()
        self._ids = count()

    def attach(self) -> Recorder:
        recorder = self.observer.attach("m", 7, self.bundle)
        assert recorder is not None
        return recorder

    def second(self) -> Segment | None:
        self.now = float(next(self.seconds))
        self.observer.flush()
        found = events.pending(self.folder)
        segments = [events.read(path) for path in found]
        for path in found:
            path.unlink()
        assert len(segments) <= 1
        return segments[0] if segments else None

    def ask(self, *rows: int, seed: int = 0) -> dict[str, np.ndarray]:
        inputs = draw(sum(rows), seed=seed)
        self.recorder.answered([f"w-{next(self._ids)}" for _ in rows], list(rows), inputs, answers(inputs), [0.001] * len(rows))
        return inputs


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(tmp_path, monkeypatch, input_sample_rate=1.0)


def only(segment: Segment | None) -> Part:
    assert segment is not None
    assert len(segment.parts) == 1
    return segment.parts[0]


def column(part: Part, name: str, *, of: str = "predictions") -> list[object]:
    rows = part.predictions if of == "predictions" else part.inputs
    assert rows is not None
    item = next(item for item in rows.columns if item.name == name)
    return cast("list[object]", events.column_array(item, len(rows.ids)).tolist())


def test_every_prediction_is_counted_profiled_and_logged(world: World) -> None:
    first = world.ask(1, 1, 3)
    second = world.ask(1, seed=1)
    world.recorder.failed("schema_mismatch", 0.5)
    segment = world.second()
    part = only(segment)
    assert (segment.slot if segment else None) == 3
    assert (part.name, part.version, part.digest, part.requests, part.rows) == ("m", 7, DIGEST, 4, 6)
    assert part.failures["schema_mismatch"] == events.Failures(requests=1, seconds=0.5)
    assert sum(part.latencies.values()) == 4
    assert part.predictions is not None
    assert part.predictions.ids == ("w-0", "w-1", "w-2/0", "w-2/1", "w-2/2", "w-3")
    expected = np.concatenate([answers(first)["prediction"], answers(second)["prediction"]])
    assert column(part, "prediction") == expected.tolist()
    assert column(part, "n", of="inputs") == [*first["n"][:, 0].tolist(), *second["n"][:, 0].tolist()]
    (counts,) = part.profiles
    live = profile.filled(reference(world.bundle), profile.unpack(counts.counts))
    assert (counts.share, live.rows) == (1.0, 6)
    assert [item.name for item in live.features] == ["n", "k", "secret", "prediction"]
    assert world.second() is None


def test_counts_are_those_of_the_rows_that_came(world: World) -> None:
    sent = [world.ask(*([1] * size), seed=size) for size in (1, 7, 64, 300, 2)]
    part = only(world.second())
    together = {name: np.concatenate([inputs[name] for inputs in sent]) for name in sent[0]}
    binner = profile.Binner(reference(world.bundle))
    binner.add(together, answers(together))
    assert np.array_equal(profile.unpack(part.profiles[0].counts), binner.take())


def test_what_a_version_took_leaves_with_its_part_and_one_that_only_waits_is_told_of(world: World) -> None:
    key = ("m", 7, DIGEST)
    world.ask(2)
    world.now = float(next(world.seconds))
    world.observer.flush(Spent(900, 50, {key: Own(400, 0)}))
    world.observer.flush(Spent(100, 50, {key: Own(0, 0)}))
    world.observer.flush(Spent(100, 50, {key: Own(0, 3), ("unknown", 1, DIGEST): Own(0, 1)}))
    first, waiting = [events.read(path).parts for path in events.pending(world.folder)]
    assert [(part.requests, part.use) for part in first] == [(1, Use(looks=1, cpu_us=900, ran_us=400, resident_bytes=50, most_resident_bytes=50))]
    assert [(part.requests, part.use.queued if part.use else None) for part in waiting] == [(0, 3)]


def test_no_tagged_value_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, input_sample_rate=1.0)
    world.ask(4)
    world.now = float(next(world.seconds))
    world.observer.flush()
    (path,) = events.pending(tmp_path)
    assert b"s3cret" not in path.read_bytes()
    assert np.int64(918273645).tobytes() not in path.read_bytes()
    part = events.read(path).parts[0]
    assert column(part, "secret", of="inputs") == ["***", None, "***", None]
    hashes = set(column(part, "k", of="inputs"))
    assert len(hashes) == 1
    assert len(str(hashes.pop())) == 64
    assert part.inputs is not None
    assert "gone" not in [item.name for item in part.inputs.columns]


def test_untagged_values_are_written(world: World) -> None:
    """The control of the test above: without tags the same values do reach the file."""
    schema = msgspec.structs.replace(SCHEMA, inputs=tuple(msgspec.structs.replace(spec, tag=None) for spec in SCHEMA.inputs))
    world.bundle = packed(schema=schema, with_outputs=False)
    world.bundle.digest = Digest("sha256:" + "1" * 64)
    world.recorder = world.attach()
    world.ask(4)
    part = only(world.second())
    assert column(part, "gone", of="inputs") == ["s3cret", None, "s3cret", None]


def test_above_the_rate_predictions_are_a_share_by_hash_of_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, log_predictions_s=200, input_sample_rate=0.05)
    parts = []
    for _ in range(3):
        for _ in range(100):
            world.ask(*([1] * 40))
        parts.append(only(world.second()))
    for part in parts:
        assert part.rows == 4000
        assert part.predictions is not None
        share = part.predictions.share
        assert share in (1 / 32, 1 / 64)
        assert 20 < len(part.predictions.ids) <= 200
        assert (events.positions(part.predictions.ids) < events.threshold(share)).all()
        if part.inputs is not None:
            assert set(part.inputs.ids) <= set(part.predictions.ids)
    ids = [f"w-{number}" for number in range(12_000)]
    logged = {name for part in parts if part.predictions for name in part.predictions.ids if part.predictions.share == 1 / 32}
    chosen = {name for name, position in zip(ids, events.positions(ids), strict=True) if position < events.threshold(1 / 32)}
    assert logged <= chosen
    world.ask(1)
    world.second()
    world.ask(1)
    assert only(world.second()).predictions is not None


def test_above_the_rate_profiles_are_a_share_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, profile_rows_s=1200)
    for _ in range(100):
        world.ask(*([1] * 40))
    part = only(world.second())
    shares = [counts.share for counts in part.profiles]
    assert shares[:2] == [1.0, 0.5]
    for _ in range(100):
        world.ask(*([1] * 40))
    (counts,) = only(world.second()).profiles
    assert counts.share == 0.25
    assert 800 < profile.unpack(counts.counts)[0] < 1200


def test_rows_of_a_large_request_are_sampled_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, log_predictions_s=200, input_sample_rate=0.0)
    world.ask(5000)
    part = only(world.second())
    assert part.predictions is not None
    assert 50 < len(part.predictions.ids) <= 200
    assert all(name.startswith("w-0/") for name in part.predictions.ids)
    assert part.inputs is None


def test_rows_that_the_log_will_not_keep_are_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[int] = []
    identify = observe._Block.identify
    monkeypatch.setattr(observe._Block, "identify", lambda block, chosen: named.append(len(chosen)) or identify(block, chosen))  # type: ignore[func-returns-value]
    world = World(tmp_path, monkeypatch, log_predictions_s=200, input_sample_rate=0.0)
    world.ask(5000)
    part = only(world.second())
    assert part.predictions is not None
    assert named == [len(part.predictions.ids)]


def test_nothing_is_kept_where_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, log_predictions_s=0, profile_rows_s=0)
    world.ask(3)
    part = only(world.second())
    assert (part.rows, part.predictions, part.inputs, part.profiles) == (3, None, None, ())


def test_without_a_spool_there_is_no_recorder() -> None:
    observer = Observer(Settings(), slot=0, spool=None)
    assert observer.attach("m", 1, packed()) is None
    observer.flush()


def test_a_version_is_recorded_once_and_forgotten_when_it_goes(world: World) -> None:
    assert world.attach() is world.recorder
    world.ask(2)
    del world.recorder
    gc.collect()
    assert only(world.second()).rows == 2
    gc.collect()
    assert len(world.observer._recorders) == 0


def test_wide_rows_do_not_pile_up() -> None:
    wide = Schema(inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 512, 512, 3)),), outputs=(), layout="tensors", task="other")
    assert observe._block_rows(wide) == (1, 1)
    assert observe._counted_rows(wide) == (8 << 20) // (8 * profile.PROFILED_ELEMENTS)
    together, most = observe._block_rows(SCHEMA)
    assert together == profile.BLOCK_ROWS < most


def test_chosen_rows_of_large_runs_are_those_of_all_runs_end_to_end() -> None:
    draw = np.random.default_rng(0)
    runs = [([str(size)], [size], {"a": draw.random((size, 2))}, {"y": draw.random(size)}, [0.1], 0.0) for size in (100, 300, 7, 200)]
    chosen = np.flatnonzero(draw.random(607) < 0.1)
    picked, whole = observe._Block(runs, 607, {}), observe._Block(runs, 607, {})
    for side in ("inputs", "outputs"):
        for name, values in getattr(whole, side)().items():
            assert (getattr(picked, side)(chosen)[name] == values[chosen]).all()
    assert not picked._joined


@pytest.mark.parametrize("sizes", [(100, 300, 7, 200), (1, 2, 3, 1)], ids=["large", "small"])
@pytest.mark.parametrize("share", [0.1, 1.0])
@pytest.mark.parametrize("is_asked_first", [False, True])
def test_the_log_keeps_outputs_of_a_plain_model_as_they_were_given(sizes: tuple[int, ...], share: float, is_asked_first: bool) -> None:
    draw, rows = np.random.default_rng(0), sum(sizes)
    runs = [([str(size)], [size], {"a": draw.random((size, 2))}, {"y": draw.integers(2**60, 2**62, size)}, [0.1], 0.0) for size in sizes]
    block = observe._Block(runs, rows, {(observe._OUTPUTS, "y"): observe._Loose((), is_text=False)})
    given = np.concatenate([run[observe._OUTPUTS]["y"] for run in runs])
    chosen = np.flatnonzero(draw.random(rows) < share)
    counted = block.outputs()["y"] if is_asked_first else None
    kept = block.logged(observe._OUTPUTS, chosen)["y"]
    assert kept.dtype == np.int64 and kept.tolist() == given[chosen].tolist()
    assert (block.outputs(chosen)["y"] == given[chosen].astype(np.float64)).all()
    assert counted is None or (counted.dtype == np.float64 and (counted == given.astype(np.float64)).all())


def test_the_log_keeps_numbers_where_runs_of_a_plain_model_differ_in_datatype() -> None:
    runs: list[observe._Run] = [([str(at)], [1], {}, {"y": np.array([at], dtype=kind)}, [0.1], 0.0) for at, kind in ((1, "int64"), (2, "float32"))]
    block = observe._Block(runs, 2, {(observe._OUTPUTS, "y"): observe._Loose((), is_text=False)})
    assert block.logged(observe._OUTPUTS, np.array([0, 1]))["y"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("width", "is_joined"), [(100, True), (20_000, False)])
def test_few_chosen_of_wide_rows_are_taken_without_putting_all_end_to_end(width: int, is_joined: bool) -> None:
    images = np.random.default_rng(0).random((5, 1, width), dtype=np.float32)
    runs: list[observe._Run] = [([f"id{at}"], [1], {"X": image}, {"y": np.array([at])}, [0.0], 0.0) for at, image in enumerate(images)]
    block = observe._Block(runs, 5, {})
    chosen = np.array([1, 4])
    assert (block.inputs(chosen)["X"] == images[chosen, 0]).all() and block.outputs(chosen)["y"].tolist() == [1, 4]
    assert (observe._INPUTS in block._joined) == is_joined


def test_large_requests_wait_for_their_like(world: World) -> None:
    rows = profile.BLOCK_ROWS
    for number in range(observe._LARGE_RUNS):
        assert world.recorder._held_rows == number * rows
        world.ask(rows)
    assert world.recorder._held_rows == 0
    assert only(world.second()).rows == observe._LARGE_RUNS * rows


def test_of_a_share_more_rows_are_looked_at_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, profile_rows_s=1200)
    looked = []
    look = observe.Recorder._look
    monkeypatch.setattr(observe.Recorder, "_look", lambda recorder: looked.append(recorder._held_rows) or look(recorder))  # type: ignore[func-returns-value]
    for _ in range(6 * profile.BLOCK_ROWS):
        world.ask(1)
    assert [rows for rows in looked if rows] == [512, 512, 512, 1024]  # whole until 1,200 are counted, then a half of them
    assert only(world.second()).rows == 6 * profile.BLOCK_ROWS
    looked.clear()
    for _ in range(5 * profile.BLOCK_ROWS):
        world.ask(1)
    assert looked == [2048]  # a quarter


def test_a_bundle_without_output_profile_is_watched_by_its_inputs(world: World) -> None:
    assert [item.role for item in reference(packed(with_outputs=False)).features] == ["input", "input", "input"]


WIDE = Schema(
    inputs=(TensorSpec(name="words", datatype="INT64", shape=(-1, -1)), TensorSpec(name="own", datatype="BYTES", shape=(-1, -1), tag="hash")),
    outputs=(TensorSpec(name="scores", datatype="FP32", shape=(-1, -1)), TensorSpec(name="best", datatype="INT64", shape=(-1,))),
    layout="tensors",
    task="other",
)


def wide_run(rows: int, width: int, *, best: tuple[int, ...] = ()) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    words = np.arange(rows * width).reshape(rows, width)
    own = np.full((rows, width), "s3cret", dtype=object)
    return {"words": words, "own": own}, {"scores": words.astype(np.float32) / 2, "best": np.full((rows, *best), 3)}


def test_runs_of_different_widths_share_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain ONNX models may answer another width from run to run; 2 and 4 wide were joined as bytes before, or lost with all that was beside them."""
    world = World(tmp_path, monkeypatch, input_sample_rate=1.0)
    inputs, outputs = wide_run(100, 3)
    bundle = Packed(schema=WIDE, with_outputs=False, data=inputs)
    bundle._members["output-profile"] = profile.encode(profile.measure_outputs(outputs, WIDE))
    bundle.golden = Golden(*wide_run(2, 3))  # type: ignore[attr-defined]
    bundle.digest = Digest("sha256:" + "2" * 64)
    world.bundle = cast("Bundle", bundle)
    world.recorder = world.attach()
    for number, (width, best) in enumerate([(2, ()), (4, ()), (3, ()), (1, ()), (3, (2,))]):
        run = wide_run(1, width, best=best)
        world.recorder.answered([f"w-{number}"], [1], *run, [0.001])
    part = only(world.second())
    assert (part.requests, part.rows) == (5, 5)
    assert column(part, "words", of="inputs") == ["[0,1]", "[0,1,2,3]", "[0,1,2]", "[0]", "[0,1,2]"]
    assert column(part, "scores")[:2] == ["[0.0,0.5]", "[0.0,0.5,1.0,1.5]"]
    best_logged = column(part, "best")
    assert best_logged[:4] == [3.0] * 4 and np.isnan(cast("float", best_logged[4]))
    hashes = column(part, "own", of="inputs")
    assert len(set(hashes)) == 4 and "s3cret" not in str(hashes)
    (counts,) = part.profiles
    live = {item.name: item for item in profile.filled(reference(world.bundle), profile.unpack(counts.counts)).features}
    assert [live[f"words[{at}]"].missing for at in range(3)] == [0, 1, 2]
    assert [live[f"scores[{at}]"].missing for at in range(3)] == [0, 1, 2]

    world.recorder.answered(["alone"], [1], *wide_run(1, 3), [0.001])
    assert column(only(world.second()), "best") == [3]


def test_wide_rows_are_profiled_run_by_run_as_they_are_end_to_end(tmp_path: Path) -> None:
    schema = Schema(
        inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 60, 60, 3)),), outputs=SCHEMA.outputs, layout="tensors", task="other"
    )
    rng = np.random.default_rng(0)
    data = {"image": rng.random((30, 60, 60, 3)).astype(np.float32)}
    bundle = packed(schema=schema, data=data, with_outputs=False)
    bundle.golden = SimpleNamespace(outputs={"prediction": np.zeros(1)}, inputs=data)  # type: ignore[misc]
    observer = Observer(Settings(), slot=0, spool=tmp_path)
    recorder = observer.attach("m", 1, bundle)
    assert recorder is not None
    assert recorder._is_wide
    for at in range(0, 30, 3):
        part = {"image": data["image"][at : at + 3]}
        recorder.answered([f"i-{at}"], [3], part, {"prediction": np.zeros(3)}, [0.1])
    (counts,) = recorder.take(1.0)[0].profiles
    live = profile.filled(reference(bundle), profile.unpack(counts.counts))
    assert live == profile.measure(data, schema)
    assert live.rows == 30


def test_a_part_belongs_to_one_generation(world: World) -> None:
    world.recorder.enter(3)
    world.ask(1, 2)
    world.recorder.enter(4)
    world.ask(1)
    world.recorder.failed("model_failed", 0.1)
    world.recorder.enter(4)
    world.recorder.enter(5)
    segment = world.second()
    assert segment is not None
    assert [(part.generation, part.requests, part.rows, len(part.failures)) for part in segment.parts] == [(3, 2, 3, 0), (4, 1, 1, 1)]
    world.ask(1)
    assert only(world.second()).generation == 5


def test_where_callers_stay_with_a_version_their_groups_are_counted_and_logged(world: World) -> None:
    world.recorder.enter(3)
    world.ask(1)
    world.recorder.failed("model_failed", 0.1, 9)
    assert only(world.second()).callers is None
    world.recorder.enter(4, has_groups=True)
    inputs = draw(6)
    world.recorder.answered(["x", "y", "z"], [1, 3, 2], inputs, answers(inputs), [0.001] * 3, groups=[7, 200, 7])
    for code, group in (("model_failed", 200), ("model_failed", 9), ("schema_mismatch", 7)):
        world.recorder.failed(code, 0.1, group)
    part = only(world.second())
    half = int(events.half_octaves([0.001])[0]) * events.GROUPS
    took = {half + 7: 2, half + 200: 1}
    assert part.callers == events.Callers(asked={7: 2, 200: 2, 9: 1}, failed={200: 1, 9: 1}, took=took), "what a caller sent wrong counts nowhere"
    assert part.predictions is not None
    assert list(part.predictions.groups) == [7, 200, 200, 200, 7, 7]
    world.recorder.enter(5)
    world.ask(1)
    last = only(world.second())
    assert (last.callers, last.predictions and last.predictions.groups) == (None, b"")


@pytest.mark.parametrize("profiled", [1e6, 700.0])
def test_outputs_are_counted_by_groups_too_while_versions_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, profiled: float) -> None:
    """Summed over groups they are what is counted without, also where some rows are left out and where the bins are another version's."""
    world = World(tmp_path, monkeypatch, profile_rows_s=profiled)
    for generation, compared in enumerate((world.recorder.answers, msgspec.structs.replace(world.recorder.answers)), 1):
        world.recorder.enter(generation, compared, has_groups=True)
        inputs = draw(3000)
        inputs["n"][:600] = np.nan
        world.recorder.answered(
            [f"a-{at}" for at in range(1000)], [3] * 1000, inputs, answers(inputs), [0.001] * 1000, groups=[1, 65, 2, -1, 255] * 200
        )
        part = only(world.second())
        assert part.callers is not None
        counts = np.array(part.callers.outputs["prediction"]).reshape(events.OUTPUT_GROUPS, -1)
        assert tuple(counts.sum(axis=0)) == part.outputs["prediction"]
        assert counts[:, -1].sum() > 0
        assert counts[1].sum() > counts[2].sum() > 0 < counts[63].sum(), "groups 1 and 65 are one here"
    world.recorder.enter(9, world.recorder.answers)
    world.ask(1)
    assert only(world.second()).callers is None


def test_requests_that_stay_with_no_version_are_spread_over_all_groups(world: World) -> None:
    world.recorder.enter(4, has_groups=True)
    inputs = draw(2000)
    world.recorder.answered([f"a-{at}" for at in range(2000)], [1] * 2000, inputs, answers(inputs), [0.001] * 2000, groups=[-1] * 2000)
    for _ in range(20):
        world.recorder.failed("model_failed", 0.1)
    callers = only(world.second()).callers
    assert callers is not None
    assert (sum(callers.asked.values()), sum(callers.failed.values())) == (2020, 20)
    assert len(callers.asked) > 200 and max(callers.asked.values()) < 40 and len(callers.failed) > 5


def test_thinned_rows_keep_their_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, log_predictions_s=40.0)
    world.recorder.enter(4, has_groups=True)
    for at in range(4):
        inputs = draw(64, seed=at)
        ids = [f"{at}-{row}" for row in range(64)]
        groups = [len(name) * 7 + at * 64 + int(name[2:]) & 255 for name in ids]
        world.recorder.answered(ids, [1] * 64, inputs, answers(inputs), [0.001] * 64, groups=groups)
        world.recorder._look()
    rows = only(world.second()).predictions
    assert rows is not None and rows.share < 1
    assert list(rows.groups) == [len(name) * 7 + int(name[0]) * 64 + int(name[2:]) & 255 for name in rows.ids]


def test_outputs_are_counted_in_the_bins_of_the_champion(world: World) -> None:
    champion = world.recorder.answers
    (bins,) = champion.bins.features
    world.recorder.enter(1)
    world.ask(5)
    assert only(world.second()).outputs == {}, "one version alone"
    world.recorder.enter(2, champion)
    inputs = world.ask(40, 1, seed=5)
    (counts,) = only(world.second()).outputs.values()
    found, _ = np.histogram(answers(inputs)["prediction"], [-np.inf, *bins.edges, np.inf])
    assert counts == (*found.tolist(), 0)
    world.ask(2)
    (counts,) = only(world.second()).outputs.values()
    assert sum(counts) == 2


@pytest.mark.parametrize("spec", [{"name": "other"}, {"datatype": "BYTES"}, {"shape": (-1, 3)}])
def test_outputs_of_another_form_are_not_counted_in_the_champions_bins(world: World, spec: dict[str, object]) -> None:
    changed = msgspec.structs.replace(SCHEMA, outputs=(msgspec.structs.replace(SCHEMA.outputs[0], **spec),))
    recorder = Recorder(("m", 8, DIGEST), packed(with_outputs=False, schema=changed), Settings())
    assert not world.recorder.answers.fit(recorder.answers)
    assert world.recorder.answers.fit(world.recorder.answers)
    recorder.enter(2, world.recorder.answers)
    recorder.answered(["a"], [1], draw(1), {"other": np.array(["x"], dtype=object)}, [0.1])
    assert recorder.take(1.0)[0].outputs == {}


def crowd(world: World, size: int) -> list[Recorder]:
    """So many versions beside each other."""
    found = [world.observer.attach(f"m{number}", 1, world.bundle) for number in range(size)]
    return [recorder for recorder in found if recorder is not None]


def ask_each(recorders: list[Recorder], *, second: int) -> None:
    for number, recorder in enumerate(recorders):
        inputs = draw(1, seed=number + 1000 * second)
        recorder.answered([f"w-{number}-{second}"], [1], inputs, answers(inputs), [0.001])


def profiled(segments: list[Segment | None]) -> list[int]:
    """How many rows each segment's profiles counted."""
    return [
        sum(int(profile.unpack(counts.counts)[0]) for part in segment.parts for counts in part.profiles) if segment else 0 for segment in segments
    ]


@pytest.mark.parametrize(("size", "kept"), [(observe._FEW_RECORDERS, False), (observe._FEW_RECORDERS + 1, True)])
def test_of_many_versions_the_profiles_of_few_rows_wait_and_nothing_else(world: World, size: int, kept: bool) -> None:
    recorders = crowd(world, size)
    segments = []
    for second in range(3):
        ask_each(recorders, second=second)
        segments.append(world.second())
    for segment in segments:
        assert segment is not None
        assert [(part.requests, part.rows, len(part.predictions.ids) if part.predictions else 0) for part in segment.parts] == [(1, 1, 1)] * size
    # Each leaves every ten seconds, one or two of these in each, with what was seen until then.
    assert profiled(segments) == ([0, 2 * 2, 2 * 3] if kept else [size] * 3)
    world.now = float(next(world.seconds))
    world.observer.flush(is_last=True)
    (left,) = events.pending(world.folder) if kept else (None,)
    assert profiled([events.read(left)] if left else []) == ([3 * size - 10] if kept else [])
    assert not world.observer._holding


def test_held_profiles_leave_after_some_flushes_whether_or_not_more_came(world: World) -> None:
    recorders = crowd(world, 40)
    ask_each(recorders, second=0)
    seconds = [world.second()]
    for second in range(1, 2 * observe._HELD_FLUSHES):
        ask_each(recorders[: observe._FEW_RECORDERS + 1], second=second)  # so many that it still holds; the others are silent
        seconds.append(world.second())
    left: dict[str, list[tuple[int, int]]] = {}
    for second, segment in enumerate(seconds):
        together = [part for part in segment.parts if part.profiles] if segment else []
        assert len(together) <= 40 / observe._HELD_FLUSHES  # no second packs what ten have gathered
        for part in together:
            left.setdefault(part.name, []).append((second, profiled([Segment(slot=0, pid=0, started_at=0.0, ended_at=0.0, parts=(part,))])[0]))
    assert len(left) == 40
    for number in range(observe._FEW_RECORDERS + 1, 40):
        ((second, rows),) = left[f"m{number}"]
        assert second <= observe._HELD_FLUSHES and rows == 1
    for number in range(observe._FEW_RECORDERS + 1):
        (first, before), *later = left[f"m{number}"]
        assert first <= observe._HELD_FLUSHES and before == first + 1
        assert later == [(first + observe._HELD_FLUSHES, observe._HELD_FLUSHES)] * (first + observe._HELD_FLUSHES < 2 * observe._HELD_FLUSHES)
    assert not any(recorder.is_holding for recorder in recorders[observe._FEW_RECORDERS + 1 :])


def test_held_profiles_are_those_of_the_rows_that_came(world: World) -> None:
    recorders = crowd(world, 20)
    binner = profile.Binner(reference(world.bundle))
    for second in range(3):
        ask_each(recorders, second=second)
        inputs = draw(1, seed=1000 * second)
        binner.add(inputs, answers(inputs))
        world.second()
    assert recorders[0].is_holding
    quiet = world.second()  # few are asked any more: all that is held leaves, besides the two whose second was the last
    assert quiet is not None and len(quiet.parts) == 18
    assert {(part.requests, part.rows) for part in quiet.parts} == {(0, 0)}
    first = next(part for part in quiet.parts if part.name == "m0")
    assert np.array_equal(profile.unpack(first.profiles[0].counts), binner.take())


def test_a_profile_of_many_rows_is_not_held(world: World) -> None:
    recorders = crowd(world, 20)
    ask_each(recorders, second=0)
    inputs = draw(observe._HELD_ROWS)
    recorders[3].answered(["large"], [observe._HELD_ROWS], inputs, answers(inputs), [0.001])
    assert profiled([world.second()]) == [observe._HELD_ROWS + 1]


def test_mirrored_requests_are_counted_apart_from_live_ones(world: World) -> None:
    world.recorder.enter(2, world.recorder.answers)
    outputs = answers(draw(40, seed=3))
    world.recorder.mirrored(sent=41, failed=1, rows=40, disagreed=3, latencies_s=[0.001] * 40, outputs=[outputs])
    world.recorder.mirrored(shed=5)
    part = only(world.second())
    assert (part.generation, part.requests, part.rows, part.outputs, part.profiles) == (2, 0, 0, {}, ())
    mirror = part.mirror
    assert mirror is not None
    assert (mirror.sent, mirror.shed, mirror.failed, mirror.rows, mirror.disagreed) == (41, 5, 1, 40, 3)
    assert sum(mirror.latencies.values()) == 40
    (bins,) = world.recorder.answers.bins.features
    counts, _ = np.histogram(outputs["prediction"], [-np.inf, *bins.edges, np.inf])
    assert mirror.outputs == {"prediction": (*counts.tolist(), 0)}
    world.ask(1)
    assert only(world.second()).mirror is None


def test_a_second_of_many_versions_is_the_same_whether_their_rows_are_placed_together_or_each_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of any length, requests of several rows, one version with more than is placed together: the same parts to the byte."""
    monkeypatch.setattr(observe.time, "time", lambda: 1_800_000_000.0)
    asked = [
        [(["a-1"], [1])],
        [(["b-1", "b-22"], [1, 1]), (["b-333"], [1])],
        [(["c-1"], [3])],
        [(["ä-1", "x" * 50], [1, 1])],
        [([f"d-{number}" for number in range(100)], [1] * 100)],
        [([f"e-{number}"], [1]) for number in range(9)],
    ]
    told: list[bytes] = []
    calls: list[int] = []
    real = events.positions
    monkeypatch.setattr(observe.events, "positions", lambda ids, counts=None: calls.append(len(ids)) or real(ids, counts))
    for together in (2, 10**6):
        monkeypatch.setattr(observe, "_PLACED_RECORDERS", together)
        observer = Observer(msgspec.structs.replace(Settings(), input_sample_rate=0.5), slot=3, spool=tmp_path / str(together))
        observer._salt = b"0" * 32
        for number, runs in enumerate(asked):
            recorder = observer.attach(f"m{number}", 1, packed())
            assert recorder is not None
            for ids, rows in runs:
                inputs = draw(sum(rows), seed=number)
                recorder.answered(ids, rows, inputs, answers(inputs), [0.001] * len(rows))
        observer.flush()
        (path,) = events.pending(tmp_path / str(together))
        told.append(msgspec.msgpack.encode(events.read(path).parts))
        calls.append(0)
    assert told[0] == told[1] and len(told[0]) > 1000
    first, second = calls[: calls.index(0)], calls[calls.index(0) + 1 : -1]
    assert len(first) == 3 and max(first) == 100 and len(second) == len(asked), "those of few rows in one call"
