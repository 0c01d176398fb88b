"""What a shadow is asked, and what came of it: rows taken out of the champion's runs, and answers held against the champion's.

Hides how that stays cheap: runs are held as they were, and their arrays are put end to end, chosen from and compared for hundreds of rows together,
since numpy's calls take as long for one row. Pure; any thread may ask. It must not know when a shadow is asked, nor of which runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelyard.monitor.profile import joined

if TYPE_CHECKING:
    from modelyard.monitor.agreement import Agreement
    from modelyard.types import Array


class Asked(NamedTuple):
    """Requests that the champion answered in one run: which of them a shadow is asked (None: all) and how many rows those have; the rows of each,
    what went in and came out of all, how long each took; how long the run took, and since when this waits.
    """

    chosen: Sequence[int] | None
    rows: int
    counts: list[int]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    latencies_s: list[float]
    run_s: float
    run_rows: int
    at_s: float

    @property
    def requests(self) -> int:
        """How many a shadow is asked."""
        return len(self.counts if self.chosen is None else self.chosen)


class Found(NamedTuple):
    """What a shadow answered to some in one run, which took so long; None: nothing, to a single request."""

    piece: list[Asked]
    outputs: Mapping[str, Array] | None
    seconds: float


class Mirrored(NamedTuple):
    """What came of requests: how many have no answer, rows compared, rows that differ, what each answered request would have taken, and the answers
    themselves.
    """

    failed: int
    rows: int
    disagreed: int
    latencies_s: list[float]
    outputs: list[Mapping[str, Array]]


def requests(piece: Sequence[Asked]) -> int:
    """How many requests a piece has."""
    return sum(each.requests for each in piece)


def rows(piece: Sequence[Asked]) -> int:
    """How many rows a piece has."""
    return sum(each.rows for each in piece)


def apart(asked: Asked) -> Asked:
    """The chosen requests alone, their rows copied: the run need not be held for them."""
    if asked.chosen is None:
        return asked
    places = np.array(_places([asked]))
    inputs, outputs = ({name: values.take(places, axis=0) for name, values in arrays.items()} for arrays in (asked.inputs, asked.outputs))
    counts, latencies_s = ([of[at] for at in asked.chosen] for of in (asked.counts, asked.latencies_s))
    return Asked(None, asked.rows, counts, inputs, outputs, latencies_s, asked.run_s, asked.run_rows, asked.at_s)  # type: ignore[arg-type]


def one_by_one(piece: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Each request of a piece by itself."""
    for each in map(apart, piece):
        at = 0
        for count, latency_s in zip(each.counts, each.latencies_s, strict=True):
            part = slice(at, at + count)
            at += count
            inputs, outputs = ({name: values[part] for name, values in arrays.items()} for arrays in (each.inputs, each.outputs))
            yield [Asked(None, count, [count], inputs, outputs, [latency_s], each.run_s, each.run_rows, each.at_s)]


def inputs_of(piece: Sequence[Asked]) -> dict[str, Array]:
    """What went in, end to end. Raises ValueError where rows are not of one shape."""
    return _chosen(piece, [each.inputs for each in piece])


def compared(agreement: Agreement, found: Sequence[Found]) -> Mirrored:
    """What came of runs, together where rows are of one shape, else as far apart as they must be: what cannot be compared is no answer.

    Each request is taken to last what it took beside the champion's run, and the shadow's time for as many rows as ran together then.
    """
    answered = [each for each in found if each.outputs is not None]
    failed = len(found) - len(answered)
    if not answered:
        return Mirrored(failed, 0, 0, [], [])
    try:
        return _together(agreement, answered)._replace(failed=failed)
    except Exception:  # noqa: BLE001 - answers of a version under trial may be anything
        parts = [[each] for each in answered] if len(answered) > 1 else [[each] for each in _asked_apart(answered[0])]
        if len(parts) == 1:
            return Mirrored(failed + requests(answered[0].piece), 0, 0, [], [])
    return _summed(failed, [compared(agreement, part) for part in parts])


def _places(piece: Sequence[Asked]) -> list[int]:
    """Where the rows of the chosen requests lie, the runs being end to end."""
    places: list[int] = []
    start = 0
    for each in piece:
        counts, chosen = each.counts, each.chosen
        count = len(counts)
        total = each.rows if chosen is None else sum(counts)
        if chosen is None:
            places.extend(range(start, start + total))
        elif total == count:
            places.extend([start + at for at in chosen])
        else:
            ends = list(accumulate(counts, initial=start))
            for at in chosen:
                places.extend(range(ends[at], ends[at + 1]))
        start += total
    return places


def _chosen(piece: Sequence[Asked], arrays: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Of the arrays of each run the rows of its chosen requests, end to end."""
    ends = {name: _end_to_end([each[name] for each in arrays]) for name in arrays[0]}
    if all(each.chosen is None for each in piece):
        return ends
    places = np.array(_places(piece))
    return {name: values.take(places, axis=0) for name, values in ends.items()}


def _together(agreement: Agreement, found: Sequence[Found]) -> Mirrored:
    pieces = [each for run in found for each in run.piece]
    answers = [run.outputs for run in found if run.outputs is not None]
    theirs = {name: _end_to_end([each[name] for each in answers]) for name in answers[0]}
    total = disagreed = 0
    if agreement.is_known:
        total = rows(pieces)
        ours = _chosen(pieces, [each.outputs for each in pieces])
        disagreed = int(agreement.differ(ours, theirs, total).sum())
    latencies_s: list[float] = []
    for run in found:
        per_row_s = run.seconds / rows(run.piece)
        for each in run.piece:
            beside_s = per_row_s * each.run_rows
            taken = each.latencies_s if each.chosen is None else [each.latencies_s[at] for at in each.chosen]
            latencies_s.extend([max(0.0, latency_s - each.run_s) + beside_s for latency_s in taken])
    return Mirrored(0, total, disagreed, latencies_s, [theirs])


def _end_to_end(parts: list[Array]) -> Array:
    shape = parts[0].shape[1:]
    if any(part.shape[1:] != shape for part in parts):
        raise ValueError("rows of different shapes are not put end to end")
    return joined(parts)


def _asked_apart(found: Found) -> list[Found]:
    """The answers to each of the champion's runs by themselves, none where there is one."""
    apart_, at = [], 0
    per_row_s = found.seconds / rows(found.piece)
    for each in found.piece:
        part = slice(at, at + each.rows)
        at += each.rows
        outputs = {name: values[part] for name, values in (found.outputs or {}).items()}
        apart_.append(Found([each], outputs, per_row_s * each.rows))
    return apart_


def _summed(failed: int, parts: Sequence[Mirrored]) -> Mirrored:
    return Mirrored(
        failed + sum(each.failed for each in parts),
        sum(each.rows for each in parts),
        sum(each.disagreed for each in parts),
        [latency_s for each in parts for latency_s in each.latencies_s],
        [outputs for each in parts for outputs in each.outputs],
    )
