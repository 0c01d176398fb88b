from __future__ import annotations

import numpy as np
import pytest

from modelyard.monitor.alignment import dependence, lost
from modelyard.monitor.slicing import Column, coded


def columns(shuffled: str | None, *, rows: int = 2000, seed: int = 1) -> tuple[Column, ...]:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=rows)
    made = {
        "a": base + rng.normal(size=rows) * 0.4,
        "b": base + rng.normal(size=rows) * 0.4,
        "c": base * 2 + rng.normal(size=rows),
        "idle": rng.normal(size=rows),
    }
    if shuffled:
        made[shuffled][rows // 2 :] = rng.permutation(made[shuffled][rows // 2 :])
    return coded({name: values.reshape(-1, 1) for name, values in made.items()}, rows=rows)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_the_shuffled_column_is_named(name: str) -> None:
    found = lost(columns(name), 1000)
    assert found is not None and found.column == name and found.before > 0.2 > found.after


def test_half_of_the_rows_shuffled_is_seen_too() -> None:
    rng = np.random.default_rng(3)
    rows = 4000
    base = rng.normal(size=rows)
    made = {name: base + rng.normal(size=rows) * 0.4 for name in "abc"}
    hit = np.flatnonzero((rng.random(rows) < 0.5) & (np.arange(rows) >= rows // 2))
    made["b"][hit] = rng.permutation(made["b"][hit])
    found = lost(coded({name: values.reshape(-1, 1) for name, values in made.items()}, rows=rows), rows // 2)
    assert found is not None and found.column == "b"


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_where_nothing_was_shuffled(seed: int) -> None:
    assert lost(columns(None, seed=seed), 1000) is None
    assert lost(columns("idle", seed=seed), 1000) is None, "it went with nothing"


def test_few_rows_say_nothing() -> None:
    assert lost(columns("a"), 100) is None
    assert lost((), 1000) is None


def test_dependence_is_none_and_whole() -> None:
    rng = np.random.default_rng(2)
    one, other = coded({"x": rng.normal(size=(3000, 1)), "y": rng.normal(size=(3000, 1))}, rows=3000)
    assert dependence(one, other, slice(None)) < 0.05
    assert dependence(one, one, slice(None)) == pytest.approx(1.0, abs=0.01)
