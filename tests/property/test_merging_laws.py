"""The law of `monitor.merging`: what a replica sends is worth what it counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard import events
from modelyard.events import Failures, Mirror, Part, ProfileCounts, Rows, Segment
from modelyard.monitor import profile
from modelyard.monitor.merging import merge
from modelyard.monitor.windows import Windows
from modelyard.types import Digest

DIGESTS = [Digest("sha256:" + letter * 64) for letter in "ab"]
COUNTS = st.dictionaries(st.integers(0, 5), st.integers(1, 9), max_size=3)


@st.composite
def logged(draw: st.DrawFn) -> Rows | None:
    ids = draw(st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
    if not ids:
        return None
    values = np.array(draw(st.lists(st.sampled_from(["x", None, "y"]), min_size=len(ids), max_size=len(ids))), dtype=object)
    numbers = np.arange(len(ids), dtype=draw(st.sampled_from([np.float32, np.float64])))
    columns = draw(st.permutations([events.column("label", values), events.column("score", numbers)]))
    times = np.full(len(ids), 1000.5).astype("<f8").tobytes()
    return Rows(share=draw(st.sampled_from([1.0, 0.5])), ids=tuple(ids), times=times, columns=tuple(columns))


@st.composite
def parts(draw: st.DrawFn) -> Part:
    shares = draw(st.lists(st.sampled_from([1.0, 0.5, 0.25]), max_size=2))
    return Part(
        name=draw(st.sampled_from(["m", "n"])),
        version=draw(st.integers(1, 2)),
        digest=draw(st.sampled_from(DIGESTS)),
        requests=draw(st.integers(0, 9)),
        rows=draw(st.integers(0, 9)),
        failures={
            code: Failures(requests=count, seconds=count / 4)
            for code, count in draw(st.dictionaries(st.sampled_from("xy"), st.integers(1, 5))).items()
        },
        latencies=draw(COUNTS),
        profiles=tuple(
            ProfileCounts(share=share, counts=profile.pack(np.array(draw(st.lists(st.integers(0, 99), min_size=3, max_size=3))))) for share in shares
        ),
        predictions=draw(logged()),
        inputs=draw(logged()),
        dropped=draw(st.dictionaries(st.sampled_from(["inputs", "predictions"]), st.integers(1, 5))),
    )


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    at = draw(st.integers(960, 1019))
    return Segment(
        slot=0, pid=1, started_at=at - 1.0, ended_at=float(at), parts=tuple(draw(st.lists(parts(), max_size=3))), lost=draw(st.integers(0, 2))
    )


def told(found: list[Segment]) -> object:
    """Everything that windows say which have taken these."""
    with TemporaryDirectory() as folder:
        windows = Windows(Path(folder) / "w.sqlite")
        windows.take({f"0-1-{place}": segment for place, segment in enumerate(found)}, day_of=lambda at: "1970-01-01")
        spans = {
            (name, *key): (window.requests, window.rows, window.latencies, window.failures, window.dropped)
            for name in windows.names()
            for key, window in windows.seen(name, since=0).items()
        }
        counts = {(name, digest): windows.counts(name, digest, since=0) for name in windows.names() for digest in DIGESTS}
        rows: Counter[object] = Counter()
        for group in windows.staged(limit_bytes=1 << 30):
            for piece in group.pieces:
                columns = [(item.name, item.datatype, events.column_array(item, len(piece.ids)).tolist()) for item in piece.columns]
                for place, (name, at) in enumerate(zip(piece.ids, events.times_array(piece).tolist(), strict=True)):
                    values = tuple((column, datatype, values[place]) for column, datatype, values in columns)
                    rows[group.kind, group.name, group.version, group.digest, piece.share, name, at, values] += 1
            windows.written(group)
        lost = windows.troubles()
        windows.close()
    # A version of which nothing was seen but its name leaves a window of zeros, which says no more than none.
    said = {key: told for key, told in spans.items() if any(told)}
    return said, {key: vector.tolist() for key, vector in counts.items() if vector is not None}, rows, lost


@settings(max_examples=60)
@given(st.lists(segments(), min_size=1, max_size=6))
def test_windows_say_the_same_of_one_segment_and_of_all_that_it_is_made_of(found: list[Segment]) -> None:
    as_sent = events.decode(events.encode(merge(found)))
    assert told([as_sent]) == told(found)


@given(st.lists(segments(), min_size=2, max_size=5))
def test_what_is_merged_in_two_steps_counts_the_same(found: list[Segment]) -> None:
    assert told([merge([merge(found[:1]), merge(found[1:])])]) == told([merge(found)])


def test_what_judges_a_rollout_stays_where_it_was_counted() -> None:
    part = Part(name="m", version=1, digest=DIGESTS[0], requests=1, generation=4, outputs={"label": (1, 2)}, mirror=Mirror(sent=3))
    shadow = Part(name="m", version=2, digest=DIGESTS[1], generation=4, mirror=Mirror(sent=3))
    made = merge([Segment(slot=0, pid=1, started_at=1.0, ended_at=2.0, parts=(part, shadow))])
    assert [(each.version, each.generation, each.outputs, each.mirror) for each in made.parts] == [(1, 0, {}, None)]
