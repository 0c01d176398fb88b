"""What the month of bar 1 is drawn from: whole chances, as many rows as are said, a shift where it is asked for; and items that can fail."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.monitor import drift

from modelyard.monitor import directions, profile
from modelyard.monitor.directions import UP


@pytest.fixture(scope="module")
def world() -> tuple[drift._Cycles, object]:
    rng = np.random.default_rng(0)
    cycles = drift._Cycles(rng)
    return cycles, drift.reference_of(cycles, rng)


def test_a_day_has_its_rows_and_every_chance_is_a_share(world: tuple[drift._Cycles, object]) -> None:
    cycles, reference = world
    means = cycles.means(np.arange(1440))
    assert np.abs(means[drift.CYCLIC :]).max() == 0
    assert np.abs(means[: drift.CYCLIC]).max() > drift.DAILY
    chances = drift.chances_of(reference, means[:, :5])  # type: ignore[arg-type]
    assert chances.shape[:2] == (5, drift.FEATURES)
    assert chances.sum(axis=2) == pytest.approx(1.0)
    day = drift.minutes(reference, cycles, np.random.default_rng(1), range(1440))  # type: ignore[arg-type]
    assert sum(minute.rows for minute in day) == drift.ROWS_A_DAY


def test_the_shift_is_put_in_one_feature(world: tuple[drift._Cycles, object]) -> None:
    cycles, reference = world
    name = f"x{drift.CYCLIC}"
    seen = drift.minutes(reference, cycles, np.random.default_rng(1), range(200), shifted=name, by=0.25)  # type: ignore[arg-type]
    known = directions.directions(reference.profile)  # type: ignore[attr-defined]
    counts = known.gather(np.sum([minute.counts for minute in seen], axis=0))
    places = np.einsum("sc,sc->s", known.scores[:, UP], counts / counts.sum(axis=1, keepdims=True))
    assert places[drift.CYCLIC] == pytest.approx(0.25, abs=0.03)
    assert np.abs(places[drift.CYCLIC + 1 :]).max() < 0.04


def test_merging_is_shown_by_profiles_that_would_differ() -> None:
    assert drift.merging().passed
    rows = np.random.default_rng(0).normal(size=(drift.FEATURES, 100))
    reference = drift.reference_of(drift._Cycles(np.random.default_rng(0)), np.random.default_rng(0))
    one, other = drift._counted(reference, rows), drift._counted(reference, rows + 1e-3)
    assert profile.encode(one) != profile.encode(other)


def test_an_alarm_is_counted_once_while_it_lasts(world: tuple[drift._Cycles, object]) -> None:
    cycles, reference = world
    watched = drift.Watched(reference)  # type: ignore[arg-type]
    rng = np.random.default_rng(2)
    for at in (range(60), range(60, 120)):
        seen = drift.minutes(reference, cycles, rng, at)  # type: ignore[arg-type]
        gone = [minute._replace(counts=_missing(reference, minute)) for minute in seen]
        watched.see(gone)
    assert watched.pages == drift.FEATURES


def _missing(reference: object, minute: object) -> np.ndarray:
    """All rows of all features missing."""
    known: profile.Profile = reference.profile  # type: ignore[attr-defined]
    counts = np.zeros(profile.size(known), dtype=np.int64)
    counts[0] = minute.rows  # type: ignore[attr-defined]
    for span in profile.spans(known):
        counts[span.stop - 1] = counts[0]
    return counts
