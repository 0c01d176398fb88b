from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.monitor.agreement import Agreement
from modelyard.monitor.profile import Profile
from modelyard.serve.mirrored import Asked, Found, apart, compared, inputs_of, one_by_one, requests, rows
from modelyard.types import Schema, TensorSpec


def asked(
    counts: list[int], chosen: list[int] | None = None, *, start: float = 0.0, inputs: Any = None, outputs: Any = None, run_s: float = 0.1
) -> Asked:
    """A run whose rows are numbered from `start` on, answered by the same numbers as labels; request i took 1 + i seconds."""
    total = sum(counts)
    values = np.arange(start, start + total)
    taken = total if chosen is None else sum(counts[at] for at in chosen)
    return Asked(
        chosen,
        taken,
        counts,
        {"x": values[:, None] if inputs is None else inputs},
        {"label": values.astype(np.int64) if outputs is None else outputs},
        [1.0 + at for at in range(len(counts))],
        run_s,
        total,
        0.0,
    )


SCHEMA = Schema(
    layout="array",
    task="classification",
    inputs=(TensorSpec(name="x", datatype="FP64", shape=(-1, 1)),),
    outputs=(TensorSpec(name="label", datatype="INT64", shape=(-1,)),),
)
LABELS = Agreement(SCHEMA, Profile(features=()))

CASES = [
    ([1, 1, 1], None, [0, 1, 2]),
    ([1, 1, 1], [1], [1]),
    ([1, 1, 1], [0, 2], [0, 2]),
    ([2, 1, 3], [2], [3, 4, 5]),
    ([2, 1, 3], [0, 2], [0, 1, 3, 4, 5]),
]


@pytest.mark.parametrize(("counts", "chosen", "wanted"), CASES)
def test_the_rows_of_the_chosen_requests_are_taken(counts: list[int], chosen: list[int] | None, wanted: list[int]) -> None:
    one = asked(counts, chosen)
    assert inputs_of([one])["x"][:, 0].tolist() == wanted
    alone = apart(one)
    assert (alone.chosen, alone.rows, requests([alone])) == (None, len(wanted), requests([one]))
    assert alone.inputs["x"][:, 0].tolist() == alone.outputs["label"].tolist() == wanted
    assert alone.latencies_s == [1.0 + at for at in (chosen or range(len(counts)))]
    assert np.shares_memory(alone.inputs["x"], one.inputs["x"]) == (chosen is None), "the run is let go of"


def test_runs_lie_end_to_end_whatever_was_chosen_of_each() -> None:
    piece = [asked(counts, chosen, start=10.0 * at) for at, (counts, chosen, _) in enumerate(CASES)]
    wanted = [10 * at + row for at, (_, _, some) in enumerate(CASES) for row in some]
    assert inputs_of(piece)["x"][:, 0].tolist() == wanted
    assert (requests(piece), rows(piece)) == (9, len(wanted))
    alone = list(one_by_one(piece))
    assert [row for each in alone for row in inputs_of(each)["x"][:, 0].tolist()] == wanted
    assert [requests(each) for each in alone] == [1] * 9
    assert [each.latencies_s for (each,) in alone] == [[1.0 + at] for _, chosen, _ in CASES for at in (chosen or range(3))]


def test_answers_are_held_against_those_to_the_same_rows() -> None:
    piece, other = [asked([1, 2, 1], [1, 2]), asked([3], start=5.0)], [asked([1, 1], [1], start=8.0, run_s=5.0)]
    theirs = [Found(piece, {"label": np.array([1, 2, 3, 5, 0, 7])}, 0.6), Found(other, {"label": np.array([9])}, 0.2)]
    found = compared(LABELS, theirs)
    assert (found.failed, found.rows, found.disagreed) == (0, 7, 1)
    assert found.latencies_s == pytest.approx([2 - 0.1 + 0.4, 3 - 0.1 + 0.4, 1 - 0.1 + 0.3, 0.0 + 0.4])
    assert [outputs["label"].tolist() for outputs in found.outputs] == [[1, 2, 3, 5, 0, 7, 9]]
    shifted = compared(LABELS, [Found(piece, {"label": np.array([0, 1, 2, 5, 6, 7])}, 0.6)])
    assert shifted.disagreed == 3, "a row's answer beside another row's is found"


def test_a_request_without_an_answer_is_counted_with_the_others() -> None:
    none = Found([asked([2])], None, 0.0)
    found = compared(LABELS, [none, Found([asked([1, 1])], {"label": np.array([0, 1])}, 0.1), none])
    assert (found.failed, found.rows, found.disagreed, len(found.latencies_s)) == (2, 2, 0, 2)
    assert compared(LABELS, [none]) == (1, 0, 0, [], [])


def test_runs_of_different_shapes_are_compared_apart() -> None:
    """End to end as bytes, rows of 3, 2 and 4 values would be three rows of 3."""
    shapes = [np.array([[0, 1, 2]]), np.array([[3, 4]]), np.array([[5, 6, 7, 8]])]
    runs = [asked([1], inputs=values, outputs=values) for values in shapes]
    with pytest.raises(ValueError, match="different shapes"):
        inputs_of(runs)
    same = compared(LABELS, [Found([run], {"label": values}, 0.1) for run, values in zip(runs, shapes, strict=True)])
    assert (same.failed, same.rows, same.disagreed, len(same.outputs)) == (0, 3, 0, 3)
    turned = compared(LABELS, [Found([run], {"label": values[:, ::-1]}, 0.1) for run, values in zip(runs, shapes, strict=True)])
    assert turned.disagreed == 3
    padded = compared(LABELS, [Found(runs[:2], {"label": np.zeros((2, 3), np.int64)}, 0.1)])
    assert (padded.failed, padded.rows, padded.disagreed) == (0, 2, 2), "of one run too"
    assert padded.latencies_s == pytest.approx([1 - 0.1 + 0.05] * 2)


def test_what_cannot_be_compared_is_no_answer() -> None:
    one, two = asked([1, 1]), asked([1])
    found = compared(LABELS, [Found([one], {"label": np.array([0, 1])}, 0.1), Found([two], {"other": np.array([0])}, 0.1)])
    assert (found.failed, found.rows, found.disagreed) == (1, 2, 0)
    lost = compared(LABELS, [Found([one, two], {}, 0.1)])
    assert (lost.failed, lost.rows, lost.latencies_s, lost.outputs) == (3, 0, [], [])


def test_without_anything_to_compare_by_the_answers_and_their_latencies_count() -> None:
    numbers = Agreement(msgspec.structs.replace(SCHEMA, task="regression"), Profile(features=()))
    found = compared(numbers, [Found([asked([1, 1])], {"label": np.array([0, 9])}, 0.1)])
    assert (found.failed, found.rows, found.disagreed, len(found.latencies_s), len(found.outputs)) == (0, 0, 0, 2, 1)
