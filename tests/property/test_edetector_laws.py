"""The law of e-detectors: under the null at most t / A alarms in t blocks on average, which fails without the margins; and each bet is fair.

Rates are of simulations with fixed seeds, each over hundreds of streams, so that three standard errors are a small part of the bound.
"""

from __future__ import annotations

import numpy as np
import pytest
from drifting import cell_shares, normal_reference
from hypothesis import given
from hypothesis import strategies as st

from modelyard.monitor import directions, edetector
from modelyard.monitor.directions import UP, Directions
from modelyard.monitor.edetector import Bets

NAMES = tuple(f"x{place}" for place in range(200))
KNOWN = directions.directions(normal_reference(NAMES).profile)
STREAMS = len(NAMES)
NO_CYCLES = np.zeros((STREAMS, len(directions.NAMES) + 1))


def all_bets(known: Directions, *, smallest: float = 0.1) -> Bets:
    return edetector.bets(known, smallest=smallest, cycles=NO_CYCLES, active=np.ones(NO_CYCLES.shape, dtype=bool))


def alarms(known: Directions, made: Bets, shares: np.ndarray, *, threshold: float, blocks: int, rows: int, seed: int = 0) -> np.ndarray:
    """How often each stream reaches the threshold, beginning anew each time. `shares` [stream, cell] of live rows, missing last."""
    rng = np.random.default_rng(seed)
    state = edetector.begin(known)
    found = np.zeros(len(known.features))
    for _ in range(blocks):
        counts = rng.multinomial(rows, shares).astype(float)
        state = edetector.advance(state, known, made, counts, np.full(len(counts), np.log(threshold) + 1))
        is_over = edetector.evidence(state, made) >= np.log(threshold)
        found += is_over
        state.sums[is_over] = -60.0
    return found


def at_the_edge(known: Directions, *, times: float = 1.0) -> np.ndarray:
    """What lies higher than the reference by exactly the margin, or so many times it."""
    margin = times * (0.1 + edetector.sampling_error(known)[:, UP])
    shares: np.ndarray = known.shares * (1 + margin[:, None] * known.scores[:, UP])
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rows", [3, 60])
def test_alarms_at_the_edge_of_the_null_keep_to_their_price_and_beyond_it_do_not(rows: int) -> None:
    threshold, blocks = 200.0, 400
    made = all_bets(KNOWN)
    found = alarms(KNOWN, made, at_the_edge(KNOWN), threshold=threshold, blocks=blocks, rows=rows)
    assert 0 < found.mean() <= blocks / threshold + 3 * found.std() / np.sqrt(STREAMS)
    beyond = alarms(KNOWN, made, at_the_edge(KNOWN, times=3.0), threshold=threshold, blocks=blocks, rows=rows)
    assert beyond.mean() > blocks / threshold + 3 * beyond.std() / np.sqrt(STREAMS)


def test_who_takes_a_reference_for_the_truth_is_wrong_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million rows of what the reference rows were drawn from. Against the reference itself most streams fire; with its error, none."""
    live = np.concatenate((cell_shares(normal_reference(NAMES).profile), np.zeros((STREAMS, 1))), axis=1)
    kept = alarms(KNOWN, all_bets(KNOWN), live, threshold=1e4, blocks=250, rows=4000)
    alone = alarms(KNOWN, all_bets(KNOWN, smallest=0.0), live, threshold=1e4, blocks=250, rows=4000)
    monkeypatch.setattr(edetector, "_ERRORS", 0.0)
    monkeypatch.setattr(edetector, "_EXCESSES", np.array([0.005, 0.01, 0.02, 0.04]))  # as small as such a test would have to bet
    naive = alarms(KNOWN, all_bets(KNOWN, smallest=0.0), live, threshold=1e4, blocks=250, rows=4000)
    assert kept.sum() == 0
    assert alone.sum() <= 2  # the reference's error alone, three times its deviation, is enough
    assert (naive > 0).mean() > 0.7


@given(st.lists(st.floats(0.01, 1), min_size=13, max_size=13), st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_no_bet_gains_on_average_while_scores_keep_to_their_margins(weights: list[float], mixed: float, seed: int) -> None:
    """Exactly, whatever the distribution; and so the bet that is learnt, from whatever memory, within its radius."""
    drawn = np.array(weights) / sum(weights)
    q = (1 - mixed) * KNOWN.shares[0] + mixed * drawn
    made = all_bets(KNOWN)
    margins = (0.1 + edetector.sampling_error(KNOWN))[0]
    gains = (np.exp(made.factors[0]) @ q).reshape(len(directions.NAMES), edetector.BETS)
    kept = KNOWN.scores[0] @ q <= margins
    assert (gains[kept] <= 1 + 1e-9).all()
    memory = np.random.default_rng(seed).multinomial(500, drawn)[None, :] * np.ones((STREAMS, 1))
    factors, is_bet = edetector._lately(memory, KNOWN, made.radius)
    distance = np.sqrt(((q - KNOWN.shares[0]) ** 2 / KNOWN.shares[0]).sum())
    if distance <= made.radius[0]:
        assert np.exp(factors[0]) @ q <= 1 + 1e-9
    if is_bet[0] and mixed == 1.0 and distance > 2 * made.radius[0]:
        assert np.isfinite(factors[0]).all()


def test_a_bet_gains_beyond_its_margin() -> None:
    made = all_bets(KNOWN)
    gains = np.einsum("sbc,sc->sb", np.exp(made.factors), at_the_edge(KNOWN, times=2.0))
    assert (gains[:, UP * edetector.BETS : (UP + 1) * edetector.BETS] > 1).all()


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_stakes_are_a_whole_and_streams_do_not_see_each_other(seed: int, blocks: int) -> None:
    assert np.exp(edetector.stake(KNOWN)).sum(axis=1) == pytest.approx(1.0)
    rng = np.random.default_rng(seed)
    made, ceiling = all_bets(KNOWN), np.full(STREAMS, 20.0)
    together, apart = edetector.begin(KNOWN), edetector.begin(KNOWN)
    for _ in range(blocks):
        counts = rng.multinomial(30, KNOWN.shares).astype(float)
        together = edetector.advance(together, KNOWN, made, counts, ceiling)
        alone = np.zeros_like(counts)
        alone[7] = counts[7]
        apart = edetector.advance(apart, KNOWN, made, alone, ceiling)
    assert apart.sums[7] == pytest.approx(together.sums[7])
    assert (apart.sums[8] == -60.0).all()
