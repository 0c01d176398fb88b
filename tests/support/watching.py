"""What a deployment was seen to do, without anybody serving it: segments of any time, and a detector that says what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard import bundle, events
from modelyard.control.plane import ControlPlane
from modelyard.events import Part, ProfileCounts, Rows, Segment, Spool
from modelyard.monitor import profile
from modelyard.monitor.base import Evidence, Judged
from modelyard.targets.base import Deployment, Release
from modelyard.types import Verdict

START = 1_700_000_040.0  # the start of a minute


class Told:
    """A detector that says what it is told to, and remembers how many minutes it was handed."""

    def __init__(self, rule: str = "told", *, pages: bool = True) -> None:
        self._rule = rule
        self._pages = pages
        self.say: tuple[Verdict, ...] = ()
        self.handed: list[Evidence] = []
        self.raising: Exception | None = None

    @property
    def rule(self) -> str:
        return self._rule

    @property
    def pages(self) -> bool:
        return self._pages

    def judge(self, evidence: Evidence, state: bytes) -> Judged:
        self.handed.append(evidence)
        if self.raising is not None:
            raise self.raising
        count = (msgspec.msgpack.decode(state) if state else 0) + len(evidence.fresh)
        said = self.say or (Verdict(outcome="pass", rule=self._rule, evidence="nothing", numbers={"minutes": float(count)}),)
        return Judged(said, msgspec.msgpack.encode(count))

    @property
    def starts(self) -> list[int]:
        """The minutes that it was handed as fresh, in order."""
        return [minute.start for evidence in self.handed for minute in evidence.fresh]


def deployed(plane: ControlPlane, reference: str, *, name: str | None = None) -> Release:
    """A deployment that has settled on a version, as the driver would have written it."""
    version = plane.registry.resolve(reference)
    release = Release(model=version.name, version=version.version, digest=version.digest, index=version.index)
    called = name or version.name
    found = plane.deployments.find(called)
    before = Deployment(name=called, model=version.name, generation=0) if found is None else found.deployment
    after = msgspec.structs.replace(before, generation=before.generation + 1, current=release)
    plane.deployments.put(after, expected=0 if found is None else found.revision)
    return release


def segment(
    plane: ControlPlane,
    release: Release,
    at: float,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    name: str | None = None,
    ids: tuple[str, ...] = (),
) -> Segment:
    """What a worker that answered these rows would have written at a time; those with `ids` are in the prediction log."""
    opened = bundle.open(plane.registry.blobs, release.index, trust=plane.trust)
    binner = profile.Binner(profile.reference(opened))
    binner.add(inputs, outputs)
    rows = len(next(iter(outputs.values())))
    times = np.full(rows, at).astype("<f8").tobytes()

    def logged(arrays: Mapping[str, Any]) -> Rows | None:
        columns = tuple(events.column(each, np.asarray(values)) for each, values in arrays.items())
        return Rows(share=1.0, ids=ids, times=times, columns=columns) if ids else None

    part = Part(
        name=name or release.model,
        version=release.version,
        digest=release.digest,
        requests=rows,
        rows=rows,
        latencies={320: rows},
        profiles=(ProfileCounts(share=1.0, counts=profile.pack(binner.take())),),
        predictions=logged(outputs),
        inputs=logged(inputs),
    )
    return Segment(slot=0, pid=1, started_at=at - 1, ended_at=at, parts=(part,))


def spooled(plane: ControlPlane, *segments: Segment) -> None:
    """Leave segments in the home's spool, as a worker does."""
    spool = Spool(plane.settings.spool, slot=7, limit_bytes=1 << 30)
    for each in segments:
        spool.write(each)
