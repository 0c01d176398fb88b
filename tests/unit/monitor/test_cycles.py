"""What an ordinary week teaches: how far hours stray from its mean, not where the mean lies, and nothing of noise or of what is suspected."""

from __future__ import annotations

import numpy as np
import pytest
from drifting import cell_shares, normal_reference

from modelyard.monitor import cycles, directions
from modelyard.monitor.cycles import DAY_S, WEEK_S, Cycles
from modelyard.monitor.directions import DOWN, UP

REFERENCE = normal_reference(("a", "b")).profile
KNOWN = directions.directions(REFERENCE)
TEN_MINUTES = 600.0


def lived(
    days: float, *, rows: int = 1400, amplitude: float = 0.0, offset: float = 0.0, suspected: bool = False, begun: Cycles | None = None
) -> Cycles:
    """After so many days in steps of ten minutes: the first feature goes up and down daily, the second only lies elsewhere by `offset`."""
    rng = np.random.default_rng(0)
    found = cycles.begin(KNOWN) if begun is None else begun
    first = 0.0 if begun is None else begun.at + TEN_MINUTES
    for step in range(int(days * 144) + 1):
        at = first + step * TEN_MINUTES
        mean = np.array([amplitude * np.sin(2 * np.pi * at / DAY_S), offset])
        shares = np.append(cell_shares(REFERENCE, mean=mean), np.zeros((2, 1)), axis=1)
        counts = rng.multinomial(rows, shares).astype(float)
        found = cycles.grown(found, KNOWN, counts, at, first_s=WEEK_S, suspected=np.array([suspected, suspected]))
    return found


def test_a_week_teaches_how_far_its_hours_stray_from_its_mean() -> None:
    found = lived(7.1, amplitude=0.5, offset=0.4)
    assert found.weeks == 1
    assert found.widths[0, UP] == pytest.approx(0.5, abs=0.06)
    assert found.widths[0, DOWN] == pytest.approx(0.5, abs=0.06)
    assert 0.3 < found.widths[0, -1] < 0.6
    assert found.widths[1].max() < 0.06


@pytest.mark.parametrize("rows", [1, 20, 1400])
def test_noise_is_no_cycle(rows: int) -> None:
    found = lived(7.5, rows=rows)
    assert found.weeks == 1
    assert found.widths[:, :4].max() < 0.1


def test_nothing_is_learnt_before_the_week_is_over_nor_from_what_is_suspected() -> None:
    assert lived(6.5, amplitude=0.5).weeks == 0
    assert not lived(6.5, amplitude=0.5).widths.any()
    assert not lived(7.1, amplitude=0.5, suspected=True).widths.any()


def test_later_weeks_add_to_what_is_known_and_take_nothing_away() -> None:
    first = lived(7.1, amplitude=0.5)
    again = lived(7.1, amplitude=0.1, begun=first)
    assert again.weeks == 2
    assert again.widths[0, UP] == first.widths[0, UP]
    assert lived(7.1, amplitude=0.9, begun=first).widths[0, UP] == pytest.approx(0.85, abs=0.1)


def test_a_clock_that_jumps_shortens_a_week_by_a_day() -> None:
    found = cycles.begin(KNOWN)
    counts = np.zeros(KNOWN.shares.shape)
    counts[:, 3] = 10
    for at in (0.0, 60.0, 1e9, 1e9 + 60, 5.0, 10.0):
        found = cycles.grown(found, KNOWN, counts, at, first_s=WEEK_S, suspected=np.zeros(2, dtype=bool))
    assert found.weeks == 0
    assert found.seen_s == pytest.approx(DAY_S + 120)
    assert found.at == 1e9 + 60
