"""What an ordinary week teaches: how far hours stray from its mean, not where the mean lies, and nothing of noise or of what is suspected."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drifting import cell_shares, normal_reference

from modelyard.monitor import cycles, directions
from modelyard.monitor.cycles import DAY_S, WEEK_S, Cycles
from modelyard.monitor.directions import DOWN, UP
from modelyard.monitor.profile import Binner

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


@pytest.mark.parametrize(("rows", "most"), [(1, 0.4), (20, 0.1), (1400, 0.05)])
def test_noise_is_no_cycle(rows: int, most: float) -> None:
    found = lived(7.5, rows=rows)
    assert found.weeks == 1
    assert found.widths[:, :4].max() < most


def test_at_a_row_an_hour_days_that_differ_are_a_cycle() -> None:
    """Weekends beside weekdays: what lies the same all day proves itself with few rows."""
    found = cycles.begin(KNOWN)
    for hour in range(24 * 7 + 2):
        counts = np.zeros(KNOWN.shares.shape)
        counts[0, 2 if hour // 24 % 7 >= 5 else 9] = 1
        counts[1, 1 + hour % 10] = 1
        found = cycles.grown(found, KNOWN, counts, hour * 3600.0, first_s=WEEK_S, suspected=np.zeros(2, dtype=bool))
    assert found.weeks == 1
    assert found.widths[0, DOWN] > 1.0
    assert found.widths[1, DOWN] < 0.5


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


def drawn_at(times: np.ndarray, *, amplitude: float, seasonal: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    """The rows of the first feature go up and down by hour and season, those of the second do not; how to count some of them."""
    rng = np.random.default_rng(0)
    mean = amplitude * np.sin(2 * np.pi * times / DAY_S) + seasonal * np.sin(2 * np.pi * times / (365.25 * DAY_S))
    rows = {"a": rng.normal(size=(len(times), 1)) + np.nan_to_num(mean)[:, None], "b": rng.normal(size=(len(times), 1))}

    def count(places: np.ndarray) -> np.ndarray:
        binner = Binner(REFERENCE)
        binner.add({name: column[places] for name, column in rows.items()}, {})
        return KNOWN.gather(binner.take()).astype(float)

    return count


def test_rows_with_times_teach_a_week_and_a_year_at_once() -> None:
    times = np.sort(np.random.default_rng(1).uniform(0, 365 * DAY_S, size=20_000))
    times[:100] = np.nan
    found = cycles.learn(KNOWN, drawn_at(times, amplitude=0.5, seasonal=0.6), times)
    assert found is not None
    assert 0.5 < found[0, UP] < 1.1  # hour and season together
    assert 0.5 < found[0, DOWN] < 1.1
    assert found[1].max() < 0.2
    daily = cycles.learn(KNOWN, drawn_at(times, amplitude=0.5), times)
    assert daily is not None
    assert 0.3 < daily[0, UP] < 0.75
    assert cycles.begin(KNOWN, found).weeks == 1


def test_rows_of_less_than_a_week_or_without_times_teach_none() -> None:
    times = np.linspace(0, 3 * DAY_S, 1000)
    assert cycles.learn(KNOWN, drawn_at(times, amplitude=0.5), times) is None
    assert cycles.learn(KNOWN, drawn_at(times, amplitude=0.5), np.full(1000, np.nan)) is None


def test_a_clock_that_jumps_shortens_a_week_by_a_day() -> None:
    found = cycles.begin(KNOWN)
    counts = np.zeros(KNOWN.shares.shape)
    counts[:, 3] = 10
    for at in (0.0, 60.0, 1e9, 1e9 + 60, 5.0, 10.0):
        found = cycles.grown(found, KNOWN, counts, at, first_s=WEEK_S, suspected=np.zeros(2, dtype=bool))
    assert found.weeks == 0
    assert found.seen_s == pytest.approx(DAY_S + 120)
    assert found.at == 1e9 + 60
