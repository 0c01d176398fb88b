"""merge(profile(A), profile(B)) == profile(A + B), bit for bit, in any order; and a profile survives its file form."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelyard.monitor import profile
from modelyard.monitor.profile import Binner, Profile, filled, measure, merge
from modelyard.types import Schema, TensorSpec

SCHEMA = Schema(
    inputs=(
        TensorSpec(name="n", datatype="FP64", shape=(-1, 1), is_nullable=True),
        TensorSpec(name="k", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="t", datatype="BYTES", shape=(-1, 1), is_nullable=True),
    ),
    outputs=(),
    layout="frame",
    task="other",
)

numbers = st.floats(allow_infinity=False, allow_nan=True, width=64) | st.sampled_from([0.0, 1.0, -1e300, 1e-300, 3.3, 7.25])
row = st.tuples(numbers, st.integers(-(2**62), 2**62) | st.integers(0, 9), st.none() | st.sampled_from("abcdef") | st.text(max_size=3))
rows = st.lists(row, min_size=1, max_size=40)
Rows = list[tuple[float, int, str | None]]


def columns(data: Rows) -> dict[str, np.ndarray]:
    texts = np.empty((len(data), 1), dtype=object)
    texts[:, 0] = [text for _, _, text in data]
    return {"n": np.array([[n] for n, _, _ in data]), "k": np.array([[k] for _, k, _ in data], dtype=np.int64), "t": texts}


def count(reference: Profile, data: Rows) -> Profile:
    binner = Binner(reference)
    binner.add(columns(data), {})
    return filled(reference, binner.take())


@given(rows, rows, rows)
def test_merging_is_exact_and_knows_no_order(seen: Rows, left: Rows, right: Rows) -> None:
    reference = measure(columns(seen), SCHEMA)
    both = count(reference, left + right)
    assert merge(count(reference, left), count(reference, right)) == both
    assert merge(count(reference, right), count(reference, left)) == both
    assert count(reference, (left + right)[::-1]) == both
    assert count(reference, seen) == reference


@given(rows)
def test_a_profile_survives_its_file_form(seen: Rows) -> None:
    reference = measure(columns(seen), SCHEMA)
    data = profile.encode(reference)
    assert profile.decode(data) == reference
    assert profile.encode(profile.decode(data)) == data
    assert profile.encode(measure(columns(seen[::-1]), SCHEMA)) == data


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300), min_size=1, max_size=50))
def test_counts_survive_their_small_form_and_that_of_before(counts: list[int]) -> None:
    vector = np.array(counts, dtype=np.int64)
    assert profile.unpack(profile.pack(vector)).tolist() == counts
    assert profile.unpack(zlib.compress(vector.astype("<i8").tobytes(), 1)).tolist() == counts
