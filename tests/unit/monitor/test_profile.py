from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from modelyard.errors import Conflict, MalformedPayload
from modelyard.monitor import profile
from modelyard.monitor.profile import Binner, FeatureProfile, Profile, compare, filled, measure, measure_outputs, merge
from modelyard.types import Schema, TensorSpec

FRAME = Schema(
    inputs=(
        TensorSpec(name="n", datatype="FP64", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="few", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="t", datatype="BYTES", shape=(-1, 1), categories=("a", "b", "c"), is_nullable=True),
        TensorSpec(name="gone", datatype="BYTES", shape=(-1, 1), tag="drop"),
        TensorSpec(name="hidden", datatype="BYTES", shape=(-1, 1), is_nullable=True, tag="mask"),
    ),
    outputs=(TensorSpec(name="label", datatype="BYTES", shape=(-1,)), TensorSpec(name="probability", datatype="FP32", shape=(-1, 2))),
    layout="frame",
    task="classification",
    classes=("no", "yes"),
)


def draw(rows: int, *, seed: int = 0, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = rng.normal(shift, 1, size=(rows, 1))
    n[rng.random(size=n.shape) < 0.1] = np.nan
    texts = rng.choice(np.array(["a", "b", None], dtype=object), size=(rows, 1))
    hidden = rng.choice(np.array(["secret", None], dtype=object), size=(rows, 1), p=[0.75, 0.25])
    return {"n": n, "few": rng.integers(1, 5, size=(rows, 1)), "t": texts, "gone": texts, "hidden": hidden}


def outputs(rows: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    yes = np.random.default_rng(seed).random(size=rows).astype(np.float32)
    return {"label": np.where(yes > 0.5, "yes", "no").astype(object), "probability": np.stack([1 - yes, yes], axis=1)}


def count(reference: Profile, inputs: dict[str, np.ndarray], answers: dict[str, np.ndarray] | None = None) -> Profile:
    binner = Binner(reference)
    binner.add(inputs, answers or {})
    return filled(reference, binner.take())


def feature(found: Profile, name: str) -> FeatureProfile:
    return next(item for item in found.features if item.name == name)


def test_counts_are_those_of_numpy() -> None:
    data = draw(5000)
    found = measure(data, FRAME)
    n = feature(found, "n")
    present = data["n"][~np.isnan(data["n"])]
    assert n.counts[1:-1] == tuple(np.histogram(present, bins=n.edges)[0].tolist())
    assert (n.counts[0], n.counts[-1], n.missing, n.rows) == (0, 0, 5000 - len(present), 5000)
    assert max(n.counts[1:-1]) - min(n.counts[1:-1]) <= 2
    assert n.mean == pytest.approx(present.mean(), abs=1e-4)
    assert n.deviation == pytest.approx(present.std(), abs=1e-4)
    few = feature(found, "few")
    assert few.counts[1:-1] == tuple(np.unique(data["few"], return_counts=True)[1].tolist())
    t = feature(found, "t")
    assert t.categories == ("a", "b", "c")
    assert t.counts == tuple(int((data["t"] == text).sum()) for text in ("a", "b", "c", "other"))
    assert t.missing == sum(value is None for value in data["t"].ravel())


def test_tagged_columns_leave_no_value() -> None:
    data = draw(500)
    found = measure(data, FRAME)
    assert [item.name for item in found.features] == ["n", "few", "t", "hidden"]
    assert feature(found, "hidden").missing == sum(value is None for value in data["hidden"].ravel())
    assert b"secret" not in profile.encode(found)


def test_outputs_are_profiled_by_class() -> None:
    found = measure_outputs(outputs(300), FRAME)
    assert [item.name for item in found.features] == ["label", "probability[no]", "probability[yes]"]
    assert feature(found, "label").categories == ("no", "yes")
    assert all(item.role == "output" for item in found.features)


def test_inputs_and_outputs_are_counted_together_in_any_pieces() -> None:
    reference = measure(draw(1000), FRAME) + measure_outputs(outputs(1000), FRAME)
    whole = count(reference, draw(999, seed=1), outputs(999, seed=1))
    binner = Binner(reference)
    data, answers = draw(999, seed=1), outputs(999, seed=1)
    cuts = [0, 1, 2, 3, 200, 201, 700, 999]
    for start, stop in pairwise(cuts):
        binner.add({name: values[start:stop] for name, values in data.items()}, {name: values[start:stop] for name, values in answers.items()})
    assert filled(reference, binner.take()) == whole
    assert filled(reference, binner.take()).rows == 0


def test_views_with_gaps_are_counted_too() -> None:
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 2)),), outputs=(), layout="array", task="other")
    data = np.random.default_rng(0).normal(size=(40, 4))
    reference = measure({"X": data[:, ::2]}, schema)
    binner = Binner(reference)
    for row in range(40):
        binner.add({"X": data[row : row + 1, ::2]}, {})
    assert filled(reference, binner.take()) == reference


def test_what_lies_outside_is_counted() -> None:
    reference = measure(draw(1000), FRAME)
    data = draw(4)
    data["n"] = np.array([[-99.0], [99.0], [0.0], [np.nan]])
    data["t"] = np.array([["new"], ["newer"], ["a"], [None]], dtype=object)
    data["few"] = np.array([[0], [9], [1], [2]])
    live = count(reference, data)
    assert [feature(live, name).outside for name in ("n", "few", "t")] == [2, 2, 2]


def test_texts_that_never_repeat_do_not_pile_up() -> None:
    reference = measure(draw(100), FRAME)
    binner = Binner(reference)
    for start in range(0, 20_000, 1000):
        data = draw(1000)
        data["t"] = np.array([[f"text {start + i}"] for i in range(998)] + [["a"], [None]], dtype=object)
        binner.add(data, {})
        assert len(binner._categories[0][2]) < 6000
    found = feature(filled(reference, binner.take()), "t")
    assert (found.counts, found.missing) == ((20, 0, 0, 20 * 998), 20)


def test_more_categories_than_are_kept() -> None:
    schema = Schema(inputs=(TensorSpec(name="t", datatype="BYTES", shape=(-1, 1)),), outputs=(), layout="frame", task="other")
    texts = np.array([[f"c{i % (1 + i // 100)}"] for i in range(20_000)], dtype=object)
    found = measure({"t": texts}, schema).features[0]
    assert len(found.categories) == profile.TOP_CATEGORIES
    assert not found.is_complete
    assert found.outside == 0
    assert sum(found.counts) == 20_000


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(10),
        np.full(10, np.nan),
        np.array([1e308, -1e308] * 5),
        np.array([5e-324, 0.0] * 5),
        np.array([np.inf, -np.inf, 1.0, 2.0]),
        np.array([2**63, 2**64 - 1] * 2, dtype=np.uint64),
        np.array([True, False]),
        np.arange(100, dtype=np.float16),
    ],
)
def test_hard_numbers(values: np.ndarray) -> None:
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1,)),), outputs=(), layout="array", task="other")
    found = measure({"X": values}, schema)
    item = found.features[0]
    assert sum(item.counts) + item.missing == len(values)
    assert profile.decode(profile.encode(found)) == found
    assert len(compare(found, found)) == 1


def test_wide_and_deep_arrays_are_profiled_by_some_elements() -> None:
    schema = Schema(inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 40, 40, 3)),), outputs=(), layout="tensors", task="other")
    data = np.random.default_rng(0).normal(size=(20, 40, 40, 3)).astype(np.float32)
    found = measure({"image": data}, schema)
    assert len(found.features) == profile.PROFILED_ELEMENTS
    assert found.features[-1].name == "image[39,39,2]"
    assert found.features[-1].centre in data[:, 39, 39, 2]


def test_counts_travel_as_small_blobs() -> None:
    reference = measure(draw(1000), FRAME)
    binner = Binner(reference)
    binner.add(draw(100), {})
    counts = binner.take()
    assert np.array_equal(profile.unpack(profile.pack(counts)), counts)
    for blob in (b"", b"no", profile.pack(counts)[:-3]):
        with pytest.raises(MalformedPayload):
            profile.unpack(blob)
    with pytest.raises(MalformedPayload):
        filled(reference, counts[:-1])


def test_profiles_of_other_bins_are_refused() -> None:
    one, other = measure(draw(100), FRAME), measure(draw(100, seed=9), FRAME)
    for judge in (merge, compare):
        with pytest.raises(Conflict):
            judge(one, other)
    with pytest.raises(MalformedPayload):
        profile.decode(b"{}")
    broken = msgspec.structs.replace(one, features=(msgspec.structs.replace(one.features[0], edges=(2.0, 1.0)),))
    with pytest.raises(MalformedPayload):
        profile.decode(profile.encode(broken))


def test_a_shift_is_found_and_named_first() -> None:
    reference = measure(draw(5000), FRAME)
    shifts = compare(reference, count(reference, draw(1000, seed=5, shift=0.5)))
    assert shifts[0].feature == "n"
    assert shifts[0].mean_shift == pytest.approx(0.5, abs=0.1)
    assert shifts[0].q < 1e-6
    assert all(shift.q > 0.01 and shift.effect < 0.02 for shift in shifts[1:])


def test_an_unseen_category_and_missing_values_are_shifts() -> None:
    reference = measure(draw(5000), FRAME)
    data = draw(300, seed=2)
    data["t"][:60] = "new"
    data["few"] = data["few"] + 1
    data["hidden"][:] = None
    shifts = {shift.feature: shift for shift in compare(reference, count(reference, data))}
    assert shifts["t"].outside == 0.2
    assert shifts["hidden"].missing == 1.0
    assert shifts["hidden"].missing_reference == pytest.approx(0.25, abs=0.03)
    assert max(shifts[name].q for name in ("t", "few", "hidden")) < 1e-4


@pytest.mark.parametrize("rows", [40, 150, 1000])
def test_p_holds_at_the_actual_size(rows: int) -> None:
    """With nothing changed, p <= .05 comes in about one of twenty windows, whatever their size (the usual rules: in up to all of them)."""
    rng = np.random.default_rng(rows)
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 40)),), outputs=(), layout="array", task="other")
    found = []
    for _ in range(5):
        reference = measure({"X": rng.normal(size=(3000, 40))}, schema)
        for _ in range(5):
            found.extend(shift.p for shift in compare(reference, count(reference, {"X": rng.normal(size=(rows, 40))})))
    assert 0.02 < np.mean(np.array(found) <= 0.05) < 0.08


@pytest.mark.parametrize("rows", [64, 500])
def test_what_lies_in_one_place_alone_is_a_shift_from_few_rows_however_much_comes(rows: int) -> None:
    """The more came, the fewer of the reference's rows were expected anywhere else, until all cells were one and nothing had changed."""
    rng = np.random.default_rng(rows)
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 1)),), outputs=(), layout="array", task="other")
    reference = measure({"X": rng.normal(size=(rows, 1))}, schema)
    for came in (300, 5000, 100_000):
        (shift,) = compare(reference, count(reference, {"X": np.full((came, 1), 9.0)}))
        assert shift.effect > 5 and shift.p < 1e-20, came
    still = measure({"X": np.ones((rows, 1))}, schema)
    assert compare(still, count(still, {"X": np.ones((100_000, 1))}))[0].p == 1.0


@pytest.mark.parametrize("hits", range(11))
def test_the_exact_test_is_fishers(hits: int) -> None:
    n, m, r = 64, 1500, 10
    ways = [math.comb(n, k) * math.comb(m, r - k) / math.comb(n + m, r) for k in range(r + 1)]
    exact = min(1.0, 2 * min(sum(ways[hits:]), sum(ways[: hits + 1])))
    assert exact - 1e-9 <= profile._exact_test((hits, r - hits), n, m) <= 1.05 * exact + 1e-12


def test_the_test_finds_a_small_shift() -> None:
    rng = np.random.default_rng(0)
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 40)),), outputs=(), layout="array", task="other")
    reference = measure({"X": rng.normal(size=(10_000, 40))}, schema)
    found = [shift.p for _ in range(5) for shift in compare(reference, count(reference, {"X": rng.normal(0.1, 1, size=(1000, 40))}))]
    assert np.mean(np.array(found) <= 0.05) > 0.6


@pytest.mark.parametrize(("value", "freedom", "tail"), [(3.841459, 1, 0.05), (16.918978, 9, 0.05), (23.209251, 10, 0.01), (0.0, 3, 1.0)])
def test_the_tail_of_chi_square(value: float, freedom: int, tail: float) -> None:
    assert profile.chi_square_tail(value, freedom) == pytest.approx(tail, rel=1e-5)
    assert profile.chi_square_tail(1e6, freedom) == 0.0
    assert not math.isnan(profile.chi_square_tail(1e-300, freedom))


@pytest.mark.parametrize("rows", [1, 16, 17, 64, 1500])
def test_a_bin_counts_the_values_from_its_edge_to_the_next(rows: int) -> None:
    """Blocks of few rows and of many are counted in different ways; both as one counts by hand, missing and infinite values too."""
    rng = np.random.default_rng(rows)
    schema = Schema(inputs=(TensorSpec(name="X", datatype="FP64", shape=(-1, 3), is_nullable=True),), outputs=(), layout="array", task="other")
    reference = measure({"X": rng.normal(size=(500, 3))}, schema)
    values = rng.choice([np.nan, np.inf, -np.inf, *reference.features[0].edges, *rng.normal(0, 2, 20)], size=(rows, 3))
    for feature, column in zip(count(reference, {"X": values}).features, values.T, strict=True):
        edges = [-np.inf, *feature.edges, np.inf]
        within = [int(((column >= low) & (column < high)).sum()) for low, high in pairwise(edges)]
        within[-1] += int(np.isposinf(column).sum())
        assert list(feature.counts) == within
        assert feature.missing == int(np.isnan(column).sum())


def test_of_wide_rows_only_the_counted_elements_are_held_and_counted_alike() -> None:
    schema = Schema(
        inputs=(TensorSpec(name="picture", datatype="FP32", shape=(-1, 40, 40, 3)), TensorSpec(name="n", datatype="FP32", shape=(-1, 2))),
        outputs=(),
        layout="tensors",
        task="other",
    )
    draw = np.random.default_rng(0)
    rows = {"picture": draw.random((30, 40, 40, 3)).astype(np.float32), "n": draw.random((30, 2)).astype(np.float32)}
    known = profile.measure(rows, schema)
    together, apart = Binner(known), Binner(known)
    together.add(rows, {})
    for at in range(0, 30, 3):
        apart.add({name: values[at : at + 3] for name, values in rows.items()}, {})
    assert {inputs["picture"].shape for inputs, _, _ in apart._held} == {(3, profile.PROFILED_ELEMENTS)}
    assert np.array_equal(together.take(), apart.take())
    assert known.features == profile.filled(known, _taken(known, rows)).features


def _taken(known: Profile, rows: dict[str, np.ndarray]) -> np.ndarray:
    binner = Binner(known, block_rows=1)
    for at in range(30):
        binner.add({name: values[at : at + 1] for name, values in rows.items()}, {})
    return binner.take()


def test_the_sign_of_zero_leaves_no_trace() -> None:
    schema = Schema(inputs=(TensorSpec(name="n", datatype="FP64", shape=(-1, 1)),), outputs=(), layout="frame", task="other")
    one, other = ({"n": np.array([[first], [second]])} for first, second in ((0.0, -0.0), (-0.0, 0.0)))
    assert profile.encode(measure(one, schema)) == profile.encode(measure(other, schema))


def test_a_blob_that_unpacks_to_more_than_may_be_is_refused() -> None:
    blob = profile.pack(np.zeros(1000, dtype=np.int64))
    assert len(profile.unpack(blob, limit_bytes=8000)) == 1000 and len(blob) < 100
    for limit in (7999, 8, 0, -1):
        with pytest.raises(MalformedPayload):
            profile.unpack(blob, limit_bytes=limit)
    for wrong in (b"", b"\x01", blob[:-1], blob[1:] + b"x", b"\x01\x01" + blob[1:]):
        with pytest.raises(MalformedPayload):
            profile.unpack(wrong)


def test_small_counts_of_many_features_take_little_more_than_a_byte_each() -> None:
    counts = np.random.default_rng(0).poisson(40, size=1600)
    counts[::16] = -counts[::16]
    assert len(profile.pack(counts)) < 1600 * 1.2
