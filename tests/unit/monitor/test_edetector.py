"""What e-detectors find, how soon, and that they let go of it; their price in false alarms stands in tests/property/test_edetector_laws.py."""

from __future__ import annotations

import numpy as np
import pytest
from drifting import cell_shares, normal_reference

from modelyard.monitor import directions, edetector, profile
from modelyard.monitor.directions import Directions
from modelyard.monitor.edetector import Bets, Detected
from modelyard.types import Schema, TensorSpec

MILLION = np.log(1e6)


def bets(known: Directions) -> Bets:
    shape = (len(known.features), len(directions.NAMES) + 1)
    return edetector.bets(known, smallest=0.1, cycles=np.zeros(shape), active=np.ones(shape, dtype=bool))


def fed(known: Directions, shares: np.ndarray, *, rows: int, blocks: int, state: Detected | None = None) -> tuple[Detected, int]:
    """The state after so many blocks, and after how many the first stream had an alarm (0: never)."""
    rng, made, first = np.random.default_rng(1), bets(known), 0
    state = edetector.begin(known) if state is None else state
    for number in range(1, blocks + 1):
        counts = np.zeros((len(known.features), known.shares.shape[1]))
        counts[:, : shares.shape[1]] = rng.multinomial(rows, shares)
        state = edetector.advance(state, known, made, counts, np.full(len(counts), MILLION + 3))
        if not first and edetector.evidence(state, made)[0] >= MILLION:
            first = number
    return state, first


@pytest.mark.parametrize(
    ("mean", "deviation", "most"), [(0.25, 1.0, 45), (-0.25, 1.0, 45), (1.0, 1.0, 3), (0.0, 1.4, 20), (0.0, 0.6, 20), (8.0, 1.0, 1)]
)
def test_a_shift_is_found_after_as_many_blocks_as_it_is_small(mean: float, deviation: float, most: int) -> None:
    known = directions.directions(normal_reference(("a",)).profile)
    shares = cell_shares(normal_reference(("a",)).profile, mean=mean, deviation=deviation)
    before, first = fed(known, cell_shares(normal_reference(("a",)).profile), rows=139, blocks=300)
    assert not first
    after, first = fed(known, shares, rows=139, blocks=most, state=before)
    assert 1 <= first <= most
    over, _ = fed(known, cell_shares(normal_reference(("a",)).profile), rows=139, blocks=60, state=after)
    assert edetector.evidence(over, bets(known))[0] < MILLION / 2


def test_a_change_that_no_score_names_is_found() -> None:
    """Neighbouring bins trade rows: neither place nor spread moves."""
    reference = normal_reference(("a",)).profile
    known = directions.directions(reference)
    shares = cell_shares(reference)
    shares[:, 2:10:2] *= 1.4
    shares[:, 3:11:2] *= 0.6
    shares /= shares.sum()
    assert np.abs(known.scores[0, :4, :-1] @ shares[0]).max() < 0.1
    assert 1 <= fed(known, shares, rows=139, blocks=40)[1] <= 40


@pytest.mark.parametrize(
    ("live", "most"),
    [([0.3, 0.5, 0.2], 12), ([0.5, 0.5, 0.0], 4), ([0.5, 0.3, 0.2], 0)],
)
def test_categories_that_change_are_found(live: list[float], most: int) -> None:
    schema = Schema(inputs=(TensorSpec(name="t", datatype="BYTES", shape=(-1, 1)),), outputs=(), layout="frame", task="other")
    texts = np.array([["a"]] * 5000 + [["b"]] * 3000 + [["c"]] * 2000, dtype=object)
    known = directions.directions(profile.measure({"t": texts}, schema))
    _, first = fed(known, np.array([live]), rows=139, blocks=most or 300)
    assert bool(first) == bool(most)


@pytest.mark.parametrize(("place", "share"), [(-1, 0.05), (0, 0.05), (-2, 0.05)])
def test_missing_values_and_values_outside_are_found(place: int, share: float) -> None:
    reference = normal_reference(("a",)).profile
    known = directions.directions(reference)
    shares = np.append(cell_shares(reference), [[0.0]], axis=1) * (1 - share)
    shares[0, place] += share
    assert 1 <= fed(known, shares, rows=139, blocks=5)[1] <= 5


def test_one_deployment_at_a_thousand_rows_a_second_is_judged_like_one_at_a_row_a_minute() -> None:
    reference = normal_reference(("a",)).profile
    known = directions.directions(reference)
    quiet, shifted = cell_shares(reference), cell_shares(reference, mean=0.5)
    for rows, blocks in ((1, 2000), (60_000, 60)):
        state, first = fed(known, quiet, rows=rows, blocks=blocks)
        assert not first
        assert fed(known, shifted, rows=rows, blocks=800 if rows == 1 else 1, state=state)[1] >= 1


def test_a_block_without_rows_changes_nothing() -> None:
    known = directions.directions(normal_reference().profile)
    state, _ = fed(known, cell_shares(normal_reference().profile), rows=50, blocks=5)
    same = edetector.advance(state, known, bets(known), np.zeros(known.shares.shape), np.full(2, 20.0))
    assert (same.sums == state.sums).all()
    assert (same.memory == state.memory).all()


def test_bets_that_are_not_made_yet_bring_nothing() -> None:
    known = directions.directions(normal_reference(("a",)).profile)
    shape = (1, len(directions.NAMES) + 1)
    made = edetector.bets(known, smallest=0.1, cycles=np.zeros(shape), active=np.zeros(shape, dtype=bool))
    counts = np.zeros(known.shares.shape)
    counts[0, 10] = 1000
    state = edetector.advance(edetector.begin(known), known, made, counts, np.array([20.0]))
    assert edetector.evidence(state, made)[0] < -50


def test_what_cycles_account_for_is_no_shift() -> None:
    known = directions.directions(normal_reference(("a",)).profile)
    shape = (1, len(directions.NAMES) + 1)
    cycles, active = np.full(shape, 0.5), np.ones(shape, dtype=bool)
    made = edetector.bets(known, smallest=0.1, cycles=cycles, active=active)
    shares = np.append(cell_shares(normal_reference(("a",)).profile, mean=0.5), [[0.0]], axis=1)
    state, rng = edetector.begin(known), np.random.default_rng(0)
    for _ in range(100):
        state = edetector.advance(state, known, made, rng.multinomial(139, shares).astype(float), np.array([20.0]))
    assert edetector.evidence(state, made)[0] < MILLION / 2


def test_a_reference_of_few_rows_asks_for_more() -> None:
    few, many = (directions.directions(normal_reference(("a",), rows=rows).profile) for rows in (100, 10_000))
    assert edetector.sampling_error(few).min() > 0.3
    assert edetector.sampling_error(many)[:, :4].max() < 0.04
