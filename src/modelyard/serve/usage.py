"""What serving takes: a worker's processor time, memory and queues, looked at once a second and shared among its versions.

Hides where the system says so, and how one process's time is laid at the door of several versions: what a model ran in this process is its own, the
rest (sockets, codecs, observations) goes by requests. It must cost a request nothing, and must not judge.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from modelyard.events import Use
from modelyard.runtime.isolated import Isolated
from modelyard.serve.loading import resident_bytes

if TYPE_CHECKING:
    from modelyard.events import Part
    from modelyard.serve.dataplane import Version
    from modelyard.types import Digest

Key = tuple[str, int, "Digest"]
"""Of a version: its deployment, its number, its digest."""


class Own(NamedTuple):
    """What one version took since the last look: its model's time, who waits now, and its own processes' time and memory (0: it has none)."""

    ran_us: int
    queued: int
    cpu_us: int = 0
    resident_bytes: int = 0
    is_elsewhere: bool = False


class Spent(NamedTuple):
    """What a worker took since the last look, and of that its versions."""

    cpu_us: int
    resident_bytes: int
    versions: Mapping[Key, Own]


class Usage:
    """Looks at one worker. Lives on its event loop's thread; a look is one system call and a small file of `/proc`, two more per isolated process."""

    def __init__(self, *, cpu_us: Callable[[], int] | None = None, memory: Callable[[], int] = resident_bytes) -> None:
        self._clock = _cpu_us if cpu_us is None else cpu_us
        self._memory = memory
        self._cpu_us = self._clock()
        self._ran_s: dict[Version, float] = {}
        self._processes: dict[int, int] = {}

    def look(self, versions: Iterable[Version]) -> Spent:
        """What was taken since the last look; a version that was not there then begins with nothing."""
        before_us, self._cpu_us = self._cpu_us, self._clock()
        ran_s: dict[Version, float] = {}
        processes: dict[int, int] = {}
        found: dict[Key, Own] = {}
        for version in versions:
            batcher, runtime = version.batcher, version.loaded.runtime
            ran_s[version] = batcher.ran_s
            ran_us = round((batcher.ran_s - self._ran_s.get(version, 0.0)) * 1e6)
            own = Own(ran_us, batcher.queued_requests)
            if isinstance(runtime, Isolated):
                taken = runtime.cpu_us()
                processes.update(taken)
                cpu_us = sum(max(0, now - self._processes.get(pid, 0)) for pid, now in taken.items())
                own = Own(ran_us, batcher.queued_requests, cpu_us, runtime.resident_bytes(), is_elsewhere=True)
            found[version.name, version.number, version.digest] = own
        self._ran_s, self._processes = ran_s, processes
        return Spent(max(0, self._cpu_us - before_us), self._memory(), found)


def shared(spent: Spent, parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts of one segment, the last one of each version with what that version took. Those that nobody looked at stay as they are.

    All of the worker's processor time goes to the versions that were asked: what their models ran here first, the rest by requests, failed ones too.
    """
    last = {(part.name, part.version, part.digest): index for index, part in enumerate(parts)}
    known = {key: spent.versions[key] for key in last if key in spent.versions}
    if not known:
        return tuple(parts)
    here = {key: 0 if own.is_elsewhere else own.ran_us for key, own in known.items()}
    models_us = min(sum(here.values()), spent.cpu_us)
    asked = dict.fromkeys(known, 0)
    for part in parts:
        key = (part.name, part.version, part.digest)
        if key in asked:
            asked[key] += part.requests + sum(each.requests for each in part.failures.values())
    of_models = _split(models_us, list(here.values()))
    of_rest = _split(spent.cpu_us - models_us, list(asked.values()))
    done = list(parts)
    for (key, own), model_us, rest_us in zip(known.items(), of_models, of_rest, strict=True):
        held = spent.resident_bytes + own.resident_bytes
        use = Use(
            looks=1,
            cpu_us=own.cpu_us + model_us + rest_us,
            ran_us=own.ran_us,
            resident_bytes=held,
            most_resident_bytes=held,
            queued=own.queued,
            most_queued=own.queued,
        )
        done[last[key]] = msgspec.structs.replace(done[last[key]], use=use)
    return tuple(done)


def _split(whole: int, weights: Sequence[int]) -> list[int]:
    """`whole` by `weights`, evenly where all are 0; the parts sum to it."""
    weights = weights if any(weights) else [1] * len(weights)
    total = sum(weights)
    ends = [0]
    for weight in weights:
        ends.append(ends[-1] + weight)
    return [whole * end // total - whole * start // total for start, end in pairwise(ends)]


def _cpu_us() -> int:
    """Processor time of this process so far, all threads."""
    taken = resource.getrusage(resource.RUSAGE_SELF)
    return round((taken.ru_utime + taken.ru_stime) * 1e6)
