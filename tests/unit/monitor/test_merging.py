from __future__ import annotations

import msgspec
import numpy as np
import pytest

from modelyard import events
from modelyard.errors import Conflict
from modelyard.events import Mirror, Part, ProfileCounts, Rows, Segment, Use
from modelyard.monitor import profile
from modelyard.monitor.merging import merge, unjudged
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "0" * 64)


def rows(*ids: str, share: float = 1.0, column: str = "prediction") -> Rows:
    times = np.zeros(len(ids)).astype("<f8").tobytes()
    return Rows(share=share, ids=ids, times=times, columns=(events.column(column, np.arange(len(ids), dtype=float)),))


def segment(at: float, **part: object) -> Segment:
    made = Part(name="m", version=1, digest=DIGEST, requests=1, rows=1, **part)  # type: ignore[arg-type]
    return Segment(slot=3, pid=4, started_at=at - 1, ended_at=at, parts=(made,), lost=1)


def counts(*values: int) -> tuple[ProfileCounts, ...]:
    return (ProfileCounts(share=1.0, counts=profile.pack(np.array(values))),)


def test_counters_and_counts_are_added() -> None:
    made = merge([segment(61.0, profiles=counts(1, 1, 0)), segment(119.0, profiles=counts(2, 0, 2))])
    assert (made.started_at, made.ended_at, made.lost) == (60.0, 119.0, 2)
    (part,) = made.parts
    assert (part.requests, part.rows) == (2, 2)
    assert profile.unpack(part.profiles[0].counts).tolist() == [3, 1, 2]


def test_rows_of_one_form_are_put_end_to_end_and_others_stand_in_parts_of_their_own() -> None:
    made = merge(
        [
            segment(1.0, predictions=rows("a"), inputs=rows("a", column="x")),
            segment(2.0, predictions=rows("b", "c")),
            segment(3.0, predictions=rows("d", share=0.5)),
        ]
    )
    assert [(part.requests, part.predictions and part.predictions.ids, part.inputs and part.inputs.ids) for part in made.parts] == [
        (3, ("a", "b", "c"), ("a",)),
        (0, ("d",), None),
    ]
    whole = made.parts[0].predictions
    assert whole is not None
    assert events.column_array(whole.columns[0], 3).tolist() == [0.0, 0.0, 1.0]


def test_every_field_of_a_part_is_added_up_or_left_out_on_purpose() -> None:
    """Whoever adds a field to what is observed says here what becomes of it on the way to another machine."""
    names = {"name", "version", "digest"}
    added = {"requests", "rows", "failures", "latencies", "profiles", "predictions", "inputs", "dropped", "use"}
    told_by_records = {"generation", "outputs", "mirror", "callers"}
    assert set(Part.__struct_fields__) == names | added | told_by_records
    assert set(Segment.__struct_fields__) == {"slot", "pid", "started_at", "ended_at", "parts", "lost", "labels"}


def test_labels_travel_as_they_are_in_the_order_of_their_segments() -> None:
    given = [events.Labels(name="bikes", at=at, ids=(f"p{at:.0f}",), truths=("1",), known=(at,)) for at in (1.0, 2.0)]
    made = merge([msgspec.structs.replace(segment(each.at), labels=(each,)) for each in given])
    assert made.labels == tuple(given)


def test_what_judges_a_rollout_is_left_out_and_the_rest_stays_as_it_is() -> None:
    plain = segment(60.0, profiles=counts(1, 2), predictions=rows("a"))
    assert unjudged(plain) is plain
    assert unjudged(segment(60.0, profiles=counts(1, 2), predictions=rows("a"), generation=4, outputs={"y": (1,)}, mirror=Mirror(sent=1))) == plain


def test_what_serving_took_is_added_up() -> None:
    made = merge([segment(1.0, use=Use(looks=1, cpu_us=5, most_queued=3)), segment(2.0), segment(3.0, use=Use(looks=1, cpu_us=6, most_queued=2))])
    assert made.parts[0].use == Use(looks=2, cpu_us=11, most_queued=3)
    assert merge([segment(1.0)]).parts[0].use is None


def test_counts_in_different_bins_are_not_one() -> None:
    with pytest.raises(Conflict):
        merge([segment(1.0, profiles=counts(1, 1)), segment(2.0, profiles=counts(1, 1, 1))])
