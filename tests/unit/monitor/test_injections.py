from __future__ import annotations

import numpy as np
import pytest

from modelyard.monitor.injections import OF_LABELS, SIZES, UNSEEN, Drift, Rows, inject, kinds
from modelyard.types import Schema, TensorSpec

SCHEMA = Schema(
    inputs=(
        TensorSpec(name="x", datatype="FP64", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="n", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="t", datatype="BYTES", shape=(-1, 1), categories=("a", "b", "c")),
        TensorSpec(name="closed", datatype="BYTES", shape=(-1, 1), categories=("a", "b"), unknown_allowed=False),
        TensorSpec(name="X", datatype="FP32", shape=(-1, 3)),
    ),
    outputs=(),
    layout="frame",
    task="classification",
    classes=("no", "yes"),
)


def rows(count: int = 2000, seed: int = 1) -> Rows:
    rng = np.random.default_rng(seed)
    inputs = {
        "x": rng.normal(5, 2, (count, 1)),
        "n": rng.integers(0, 100, (count, 1)),
        "t": np.array(["a", "b", "c"], dtype=object)[rng.choice(3, (count, 1), p=(0.6, 0.3, 0.1))],
        "closed": np.full((count, 1), "a", dtype=object),
        "X": rng.normal(size=(count, 3)).astype(np.float32),
    }
    return Rows(inputs, np.where(rng.random(count) < 0.7, "no", "yes").astype(object))


def injected(drift: Drift) -> tuple[Rows, Rows]:
    given = rows()
    before = {name: values.copy() for name, values in given.inputs.items()}
    changed = inject(drift, given, given, np.random.default_rng(3), schema=SCHEMA)
    assert all((before[name] == values).all() for name, values in given.inputs.items()), "what was given is not changed"
    return given, changed


def test_numbers_move_by_their_own_deviation() -> None:
    given, changed = injected(Drift("mean", "x", 0.5))
    assert changed.inputs["x"].mean() - given.inputs["x"].mean() == pytest.approx(0.5 * given.inputs["x"].std())
    given, changed = injected(Drift("spread", "x", 1.0))
    assert changed.inputs["x"].std() == pytest.approx(2 * given.inputs["x"].std())
    given, changed = injected(Drift("unit", "n", 10.0))
    assert (changed.inputs["n"] == 10 * given.inputs["n"]).all() and changed.inputs["n"].dtype == np.int64


def test_one_element_of_an_array_moves_alone() -> None:
    given, changed = injected(Drift("mean", "X", 1.0, element=1))
    assert changed.inputs["X"].dtype == np.float32
    assert (changed.inputs["X"][:, [0, 2]] == given.inputs["X"][:, [0, 2]]).all() and (changed.inputs["X"][:, 1] != given.inputs["X"][:, 1]).all()


@pytest.mark.parametrize(
    ("drift", "is_hit"),
    [
        (Drift("missing", "x", 0.3), lambda before, after: np.isnan(after)),
        (Drift("unseen", "t", 0.3), lambda before, after: after == UNSEEN),
        (Drift("default", "t", 0.3), lambda before, after: (after == "a") & (before != "a") | (before == "a") & (after == "a") & False),
    ],
)
def test_shares_are_of_the_rows(drift: Drift, is_hit) -> None:
    given, changed = injected(drift)
    assert drift.column is not None
    share = is_hit(given.inputs[drift.column], changed.inputs[drift.column]).mean()
    assert share == pytest.approx(0.3 if drift.kind != "default" else 0.3 * 0.4, abs=0.04)


def test_swap_exchanges_the_two_commonest() -> None:
    given, changed = injected(Drift("swap", "t", 1.0))
    names = {"a": "b", "b": "a", "c": "c"}
    assert changed.inputs["t"].ravel().tolist() == [names[value] for value in given.inputs["t"].ravel()]


def test_shuffle_keeps_the_values() -> None:
    given, changed = injected(Drift("shuffle", "x", 1.0))
    assert sorted(changed.inputs["x"].ravel()) == sorted(given.inputs["x"].ravel()) and (changed.inputs["x"] != given.inputs["x"]).mean() > 0.9


def test_labels_and_priors_change() -> None:
    given, changed = injected(Drift("labels", None, 0.5))
    assert given.labels is not None and changed.labels is not None
    assert (changed.labels == "no").mean() == pytest.approx(0.35, abs=0.04) and changed.inputs is given.inputs
    given, changed = injected(Drift("prior", None, 0.75))
    assert changed.labels is not None and changed.size == given.size
    assert (changed.labels == "no").mean() == pytest.approx(0.7 * 0.25, abs=0.04)
    bare = Rows(rows().inputs, None)
    for kind in OF_LABELS:
        assert inject(Drift(kind, None, 0.5), bare, bare, np.random.default_rng(1), schema=SCHEMA) is bare


def test_numbers_as_labels_move() -> None:
    given = rows()
    numbers = Rows(given.inputs, np.random.default_rng(1).normal(size=2000))
    moved = inject(Drift("labels", None, 0.5), numbers, numbers, np.random.default_rng(1), schema=SCHEMA)
    assert moved.labels is not None and moved.labels.mean() == pytest.approx(1.0, abs=0.1)
    prior = inject(Drift("prior", None, 0.75), numbers, numbers, np.random.default_rng(1), schema=SCHEMA)
    assert prior.labels is not None and prior.labels.mean() < -0.3


def test_a_drift_may_grow() -> None:
    given, changed = injected(Drift("mean", "x", 1.0, ramp_rows=1000))
    moved = (changed.inputs["x"] - given.inputs["x"]).ravel() / given.inputs["x"].std()
    assert moved[0] < 0.01 and moved[499] == pytest.approx(0.5, abs=0.01) and moved[1500] == pytest.approx(1.0)


def test_only_what_a_request_could_bring_is_tried() -> None:
    specs = {spec.name: set(kinds(spec)) for spec in SCHEMA.inputs}
    assert specs["x"] == {"mean", "spread", "unit", "missing", "default", "shuffle"}
    assert "missing" not in specs["n"] and "unseen" in specs["t"] and "unseen" not in specs["closed"]
    assert set().union(*specs.values(), OF_LABELS) == set(SIZES)


def test_each_drift_has_words() -> None:
    assert [Drift(*each).said for each in (("mean", "x", 0.5), ("unit", "x", 10.0), ("missing", "x", 0.05))] == [
        "mean 0.5 sd",
        "unit x10",
        "missing 5%",
    ]
    assert Drift("mean", "x", 0.5, ramp_rows=10).said.endswith("growing")
