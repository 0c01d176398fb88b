"""Segments of one minute as one: what a replica sends on is a sum, not a diary.

Hides which parts are added and which rows are put end to end. Pure. What judges a rollout here (generations, outputs in a champion's bins, mirrored
requests) is left out: it is told by each host's own records, and would count twice.

Law, held by `tests/property/test_merging_laws.py`: windows that take `merge(segments)` say what windows say that take `segments`, and the log gets
the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from modelyard.errors import Conflict
from modelyard.events import Failures, Part, ProfileCounts, Rows, Segment, Use
from modelyard.monitor import profile
from modelyard.monitor.evidence import summed
from modelyard.types import Digest

if TYPE_CHECKING:
    from modelyard.types import Array

KINDS: tuple[Literal["inputs", "predictions"], ...] = ("inputs", "predictions")

_Key = tuple[str, int, Digest]
_Form = tuple[float, bool, tuple[tuple[str, str, tuple[int, ...]], ...]]


def merge(segments: Sequence[Segment]) -> Segment:
    """One segment that counts what all of them do. Raises Conflict for counts of one digest that have different bins.

    It has a part for each version, and further ones for logged rows of another share or other columns, since a part holds rows of one kind alone.
    """
    parts: dict[_Key, Part] = {}
    counts: dict[_Key, dict[float, Array]] = {}
    rows: dict[_Key, dict[str, dict[_Form, list[Rows]]]] = {}
    for segment in segments:
        for part in segment.parts:
            key = (part.name, part.version, part.digest)
            parts[key] = _plus(parts.get(key, Part(name=part.name, version=part.version, digest=part.digest)), part)
            shares = counts.setdefault(key, {})
            for item in part.profiles:
                vector, had = profile.unpack(item.counts), shares.get(item.share)
                if had is not None and had.shape != vector.shape:
                    raise Conflict("profile counts of one digest that have different bins")
                shares[item.share] = vector if had is None else had + vector
            for kind in KINDS:
                found: Rows | None = getattr(part, kind)
                if found is not None:
                    rows.setdefault(key, {}).setdefault(kind, {}).setdefault(_form(found), []).append(found)
    first = segments[0]
    return Segment(
        slot=first.slot,
        pid=first.pid,
        started_at=min(segment.started_at for segment in segments),
        ended_at=max(segment.ended_at for segment in segments),
        parts=tuple(made for key, part in parts.items() for made in _whole(part, counts[key], rows.get(key, {}))),
        lost=sum(segment.lost for segment in segments),
        labels=tuple(each for segment in segments for each in segment.labels),
    )


def _plus(total: Part, part: Part) -> Part:
    """Both parts' counters."""
    return msgspec.structs.replace(
        total,
        requests=total.requests + part.requests,
        rows=total.rows + part.rows,
        failures=_failures(total.failures, part.failures),
        latencies=summed(total.latencies, part.latencies),
        dropped=summed(total.dropped, part.dropped),
        use=part.use if total.use is None else total.use + (part.use or Use()),
    )


def unjudged(segment: Segment) -> Segment:
    """Without what judges a rollout here, which another machine has no say in."""
    if not any(part.generation or part.outputs or part.mirror is not None or part.callers is not None for part in segment.parts):
        return segment
    parts = tuple(msgspec.structs.replace(part, generation=0, outputs={}, mirror=None, callers=None) for part in segment.parts)
    return msgspec.structs.replace(segment, parts=parts)


def _failures(left: Mapping[str, Failures], right: Mapping[str, Failures]) -> dict[str, Failures]:
    total = dict(left)
    for code, more in right.items():
        had = total.get(code)
        total[code] = more if had is None else Failures(requests=had.requests + more.requests, seconds=had.seconds + more.seconds)
    return total


def _whole(part: Part, counts: Mapping[float, Array], rows: Mapping[str, Mapping[_Form, list[Rows]]]) -> list[Part]:
    """The counters with the profile and the first rows of each kind, then a part for each further group of rows; none where there is nothing."""
    profiles = tuple(ProfileCounts(share=share, counts=profile.pack(vector)) for share, vector in counts.items())
    whole = msgspec.structs.replace(part, profiles=profiles)
    bare = Part(name=part.name, version=part.version, digest=part.digest)
    made = [] if whole == bare else [whole]
    groups = {kind: [_joined(pieces) for pieces in rows.get(kind, {}).values()] for kind in KINDS}
    for place in range(max(map(len, groups.values()))):
        if place == len(made):
            made.append(bare)
        made[place] = msgspec.structs.replace(made[place], **{kind: found[place] for kind, found in groups.items() if place < len(found)})
    return made


def _form(rows: Rows) -> _Form:
    return rows.share, bool(rows.groups), tuple((item.name, item.datatype, item.shape) for item in rows.columns)


def _joined(pieces: Sequence[Rows]) -> Rows:
    """Rows of one form end to end."""
    if len(pieces) == 1:
        return pieces[0]
    columns = tuple(
        msgspec.structs.replace(item, values=_end_to_end([piece.columns[place].values for piece in pieces]))
        for place, item in enumerate(pieces[0].columns)
    )
    ids = tuple(name for piece in pieces for name in piece.ids)
    times, groups = (b"".join(getattr(piece, name) for piece in pieces) for name in ("times", "groups"))
    return Rows(share=pieces[0].share, ids=ids, times=times, columns=columns, groups=groups)


def _end_to_end(values: Sequence[bytes | tuple[str | None, ...]]) -> bytes | tuple[str | None, ...]:
    if isinstance(values[0], bytes):
        return b"".join(part for part in values if isinstance(part, bytes))
    return tuple(text for part in values if isinstance(part, tuple) for text in part)
