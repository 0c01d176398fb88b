"""Outputs are counted by groups of callers as they are counted without."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.events import GROUPS, OUTPUT_GROUPS
from modelyard.monitor import grouped, profile
from modelyard.monitor.grouped import Grouped
from modelyard.monitor.profile import Binner, FeatureProfile, Profile, filled

NUMBER = FeatureProfile(name="score", role="output", kind="number", source="score", edges=(-1.0, 0.0, 1.0, 2.0), counts=(0,) * 5)
SECOND = FeatureProfile(name="wide[1]", role="output", kind="number", source="wide", element=1, edges=(0.5,), counts=(0,) * 2)
LABEL = FeatureProfile(name="label", role="output", kind="category", source="label", categories=("a", "b"), counts=(0,) * 3)
BINS = Profile(features=(NUMBER, SECOND, LABEL))


def drawn(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    score = rng.choice([-np.inf, -1.0, -0.0, 0.3, 1.0, 2.0, 7.0, np.inf, np.nan], rows)
    return {"score": score, "wide": rng.normal(size=(rows, 2)).astype(np.float32), "label": rng.choice(np.array(["a", "b", "c", None]), rows)}


def test_summed_over_groups_the_counts_are_a_binners() -> None:
    outputs, groups = drawn(4000), np.random.default_rng(2).integers(0, GROUPS, 4000)
    counting, binner = Grouped(BINS), Binner(BINS)
    for rows in (slice(0, 1), slice(1, 900), slice(900, 4000)):
        block = {name: values[rows] for name, values in outputs.items()}
        counting.add(block, groups[rows])
        binner.add({}, block)
    found = counting.take()
    for feature in filled(BINS, binner.take()).features:
        counts = np.array(found[feature.name]).reshape(OUTPUT_GROUPS, -1)
        assert tuple(counts.sum(axis=0)) == (*feature.counts, feature.missing), feature.name
        assert counts.sum(axis=1).tolist() == np.bincount(groups % OUTPUT_GROUPS, minlength=OUTPUT_GROUPS).tolist()
    assert counting.take() == {}, "it begins anew"


def test_a_row_counts_in_its_callers_group() -> None:
    counting = Grouped(Profile(features=(NUMBER,)))
    counting.add({"score": np.array([0.0, np.nan])}, np.array([OUTPUT_GROUPS + 3, 3]))
    found = np.array(counting.take()["score"]).reshape(OUTPUT_GROUPS, -1)
    assert found[3].tolist() == [0, 0, 1, 0, 0, 1] and found.sum() == 2


def test_of_too_many_bins_groups_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    bins = sum(each.stop - each.start for each in profile.spans(BINS))
    monkeypatch.setattr(grouped, "MOST_CELLS", bins)
    assert Grouped(BINS).is_counting
    monkeypatch.setattr(grouped, "MOST_CELLS", bins - 1)
    assert not Grouped(BINS).is_counting
    assert not Grouped(Profile(features=())).is_counting
