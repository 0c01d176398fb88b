"""Scores of bins: standard in the reference, moved by a shift as much as it is large, and none where a feature has no such direction."""

from __future__ import annotations

import numpy as np
import pytest
from drifting import cell_shares, normal_reference

from modelyard.monitor import profile
from modelyard.monitor.directions import DOWN, MISSING, NARROWER, OUTSIDE, UP, WIDER, directions
from modelyard.monitor.profile import Binner
from modelyard.types import Schema, TensorSpec

FRAME = Schema(
    inputs=(
        TensorSpec(name="n", datatype="FP64", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="t", datatype="BYTES", shape=(-1, 1), categories=("a", "b", "c"), is_nullable=True),
        TensorSpec(name="hidden", datatype="BYTES", shape=(-1, 1), is_nullable=True, tag="mask"),
        TensorSpec(name="still", datatype="FP64", shape=(-1, 1)),
    ),
    outputs=(),
    layout="frame",
    task="other",
)


def draw(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    n = rng.normal(size=(rows, 1))
    n[: rows // 10] = np.nan
    texts = rng.choice(np.array(["a", "b", None], dtype=object), size=(rows, 1))
    hidden = rng.choice(np.array(["x", None], dtype=object), size=(rows, 1), p=[0.75, 0.25])
    return {"n": n, "t": texts, "hidden": hidden, "still": np.full((rows, 1), 4.0)}


def test_scores_have_mean_0_and_deviation_1_in_the_reference() -> None:
    known = directions(profile.measure(draw(2000), FRAME))
    means = np.einsum("sdc,sc->sd", known.scores, known.shares)
    squares = np.einsum("sdc,sc->sd", known.scores**2, known.shares)
    assert means == pytest.approx(0.0, abs=1e-9)
    assert squares[known.has] == pytest.approx(1.0)
    assert known.shares.sum(axis=1) == pytest.approx(1.0)
    names = [feature.name for feature in known.features]
    assert known.has[names.index("n")].all()
    assert known.has[names.index("t")].tolist() == [place in (MISSING, OUTSIDE) for place in range(6)]
    assert known.has[names.index("hidden")].tolist() == [place == MISSING for place in range(6)]


def test_a_shift_of_a_normal_moves_its_place_by_as_much_and_a_wider_one_its_spread() -> None:
    reference = normal_reference(("a",), rows=100_000).profile
    known = directions(reference)
    for mean in (0.1, 0.25, -0.5):
        live = np.append(cell_shares(reference, mean=mean)[0], 0.0)
        assert known.scores[0, UP] @ live == pytest.approx(mean, rel=0.08)
        assert known.scores[0, DOWN] @ live == pytest.approx(-mean, rel=0.08)
    wide = np.append(cell_shares(reference, deviation=1.5)[0], 0.0)
    assert known.scores[0, WIDER] @ wide > 0.3
    assert known.scores[0, NARROWER] @ wide < -0.3


def test_no_distribution_moves_a_score_by_more_than_its_distance() -> None:
    known = directions(normal_reference(("a",)).profile)
    rng = np.random.default_rng(0)
    for live in rng.dirichlet(np.ones(known.shares.shape[1]), size=200):
        distance = np.sqrt(((live - known.shares[0]) ** 2 / known.shares[0]).sum())
        assert (np.abs(known.scores[0] @ live) <= distance + 1e-9).all()


def test_cells_are_gathered_from_the_vector_of_a_profile() -> None:
    data = draw(2000)
    reference = profile.measure(data, FRAME)
    known = directions(reference)
    binner = Binner(reference)
    binner.add({name: values[:500] for name, values in data.items()}, {})
    vector = binner.take()
    counts = known.gather(vector)
    for at, feature in enumerate(profile.filled(reference, vector).features):
        cells = (feature.present, feature.missing) if feature.kind == "missing" else (*feature.counts, feature.missing)
        assert tuple(counts[at, : known.cells[at]].tolist()) == cells
        assert not counts[at, known.cells[at] :].any()
    assert (counts.sum(axis=1) == 500).all()
    assert known.size == len(vector)


def test_a_profile_of_nothing_has_no_directions() -> None:
    empty = directions(profile.Profile(features=()))
    assert empty.features == ()
    assert empty.scores.shape[0] == 0
