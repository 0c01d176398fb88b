"""From a Placement to a model that may serve: verify, open, replay the golden records.

Hides that three rooms are asked in order (bundle, runtime, replay) and that one digest is loaded once however many deployments name
it. Everything here blocks; a worker calls it on its loading thread. Nothing is served that failed a step.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

from modelyard import bundle, config, runtime
from modelyard.bundle.base import FolderReader
from modelyard.errors import ModelyardError, Rejected
from modelyard.runtime.base import Runtime
from modelyard.runtime.isolated import Isolation
from modelyard.runtime.replay import replay
from modelyard.security.seal import Trust
from modelyard.types import Digest, Placement, Verdict

FREED: Final = {"MALLOC_MMAP_THRESHOLD_": (-3, 8 << 20), "MALLOC_TRIM_THRESHOLD_": (-1, 16 << 20)}
"""mallopt's options of glibc, and the names by which its environment sets them: up to 16 MiB an arena are kept, no block of 8 MiB or more."""

HEAP_BYTES: Final = 64 << 20
"""What glibc reserves for a thread's heap; each begins at a multiple of it."""
_MADV_COLLAPSE: Final = 25


class Loaded:
    """One digest, opened and proved on this machine. Whoever loaded it closes it, once no version uses it."""

    __slots__ = ("bundle", "can_batch", "runtime", "seconds_per_more", "seconds_per_row", "verdict")

    def __init__(
        self, bundle: bundle.Bundle, runtime: Runtime, *, seconds_per_row: float, verdict: Verdict, seconds_per_more: float | None = None
    ) -> None:
        self.bundle = bundle
        self.runtime = runtime
        self.seconds_per_row = seconds_per_row
        self.seconds_per_more = seconds_per_row if seconds_per_more is None else seconds_per_more
        """What each row of a batch takes beyond the first."""
        self.verdict = verdict
        self.can_batch = all(spec.shape[:1] == (-1,) for spec in bundle.schema.inputs)


def load(digest: Digest, placement: Placement, keys: Path, *, isolation: Isolation | None = None) -> Loaded:
    """Open `digest` and replay its golden records. Raises Tampered kinds, UnsupportedFormat, or Rejected with the replay's Verdict."""
    opened = bundle.open(FolderReader(Path(placement.blobs)), placement.index, trust=Trust(keys))
    if opened.digest != digest:
        raise Rejected("the bundle placed there is another one", verdicts=[_fail("digest", "the index leads to another digest than the plan names")])
    model = runtime.open(opened, isolation=isolation)
    replayed = replay(model, opened.golden, opened.schema, opened.tolerance)
    if replayed.verdict.outcome == "fail":
        model.close()
        raise Rejected("golden replay failed", verdicts=[replayed.verdict])
    return Loaded(opened, model, seconds_per_row=replayed.seconds_per_row, seconds_per_more=replayed.seconds_per_more, verdict=replayed.verdict)


def verdict_of(error: ModelyardError) -> Verdict:
    """Why a digest is not served, for the worker's state."""
    if isinstance(error, Rejected) and error.verdicts:
        return error.verdicts[0]
    return _fail(error.code, error.message)


def _fail(rule: str, evidence: str) -> Verdict:
    return Verdict(outcome="fail", rule=rule, evidence=evidence)


class Tide:
    """Says when freed memory should go back to the system: after a growth, until it has, or until many tries have shown that it is in use."""

    GROWTH_BYTES: Final = 16 << 20
    TRIES: Final = 24

    def __init__(self) -> None:
        self._low = 0
        self._tries = self.TRIES

    def is_due(self, held_bytes: int) -> bool:
        """Take in what is held now."""
        if held_bytes <= self._low + self.GROWTH_BYTES:
            self._low, self._tries = min(self._low, held_bytes), 0
            return False
        if self._tries == self.TRIES:
            self._low, self._tries = held_bytes, 0
            return False
        self._tries += 1
        return True


def keep_freed_memory() -> None:
    """Let the C library keep what is freed within FREED, so that a run does not fetch its pages anew; what the environment says counts first."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None and sys.platform == "linux":
        for name, (option, size) in FREED.items():
            if not config.is_said(name):
                set_option(option, size)


def gather_in_large_pages(maps: Path = Path("/proc/self/maps"), allowed: Path = Path("/sys/kernel/mm/transparent_hugepage/enabled")) -> None:
    """Put what threads have loaded into pages of 2 MiB, where the system lets who asks have them (Linux 6.1 and later).

    Of many models in small pages each run finds the processor's table of pages cold: traffic that goes round 200 of them takes a third longer then.
    What the event loop holds, where memory comes and goes with requests, stays as it is. It is done once: memory that is marked for such pages
    (MADV_HUGEPAGE) the system would fill again after it was given back.
    """
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    try:
        if advise is None or sys.platform != "linux" or "[never]" in allowed.read_text():
            return
        lines = maps.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        place, rights, _, _, inode, *name = line.split(maxsplit=5)
        start, end = (int(each, 16) for each in place.split("-"))
        if rights == "rw-p" and inode == "0" and not name and start % HEAP_BYTES == 0:
            advise(ctypes.c_void_p(start), ctypes.c_size_t(min(end - start, HEAP_BYTES)), _MADV_COLLAPSE)


def give_back_memory() -> None:
    """Return freed pages to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
