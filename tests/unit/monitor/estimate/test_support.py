"""monitor.estimate.support: what live rows rest on."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from modelyard.errors import MalformedPayload
from modelyard.monitor.estimate import support

SIZES = [21, 21, 21]


def drawn(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 21, size=(3, rows))


def test_rows_like_the_reference_rest_on_all_of_it() -> None:
    found = support.count(drawn(20_000), SIZES)
    rests = support.rests(found, drawn(2_000, seed=1))
    assert rests.effective > 0.8 * 20_000 and rests.unknown < 0.01


def test_rows_of_one_corner_rest_on_what_the_reference_has_there() -> None:
    codes = drawn(20_000)
    found = support.count(codes, SIZES)
    live = drawn(4_000, seed=1)
    corner = live[:, live[0] == 7]
    rests = support.rests(found, corner)
    assert 0.5 * (codes[0] == 7).sum() < rests.effective < 8 * (codes[0] == 7).sum()


def test_rows_where_the_reference_has_none_are_unknown() -> None:
    codes = drawn(20_000)
    codes[1] = codes[0]  # in the reference the two are one
    found = support.count(codes, SIZES)
    live = drawn(2_000, seed=1)
    live[1] = 21 - live[0]
    assert support.rests(found, live).unknown > 0.3
    live[1] = live[0]
    assert support.rests(found, live).unknown < 0.01


@pytest.mark.parametrize(("reference", "live", "expected"), [([50, 50], [50, 50], 100.0), ([10, 90], [1000, 0], 10.0), ([100, 0], [0, 0], 100.0)])
def test_the_effective_size(reference: list[int], live: list[int], expected: float) -> None:
    assert support.effective_rows(np.array(reference, float), np.array(live, float)) == pytest.approx(expected, rel=0.02)


def test_what_is_wrong_for_a_cell_adds_up_in_it_and_cancels_between_signs() -> None:
    found = support.count(drawn(20_000), SIZES)
    live = drawn(2_000, seed=1)
    even = np.full(2_000, 1 / 2_000)
    spread = support.together(found, live, even)
    assert 1 / 256 < spread < 0.2, "many cells share the rows"
    one = np.repeat(live[:, :1], 2_000, axis=1)
    assert support.together(found, one, even) == pytest.approx(1.0), "all rows in one cell"
    signs = np.where(np.arange(2_000) % 2, even, -even)
    assert support.together(found, one, signs) == pytest.approx(0.0, abs=1e-9)
    assert support.together(support.count(drawn(20), SIZES), live, even) == pytest.approx(1.0), "nothing is known of cells"


def test_few_rows_and_constant_columns_have_no_cells() -> None:
    for codes in (drawn(20), np.ones((3, 5_000), dtype=np.int64)):
        found = support.count(codes, SIZES)
        assert found.depth == 0 and support.rests(found, drawn(100)).effective == codes.shape[1]


def test_cells_survive_json_and_others_are_refused() -> None:
    found = support.count(drawn(1_000), SIZES)
    assert msgspec.json.decode(msgspec.json.encode(found), type=support.Support) == found
    found.check(3)
    for changed in ({"depth": 0}, {"counts": found.counts[1:]}, {"columns": (7, *found.columns[1:])}, {"counts": (-1, *found.counts[1:])}):
        with pytest.raises(MalformedPayload):
            msgspec.structs.replace(found, **changed).check(3)
