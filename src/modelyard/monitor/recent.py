"""The minutes of one version that a turn looks at, kept at hand from turn to turn.

Hides that a turn reads only what has come or changed since the last one: new minutes, minutes to which something came late, and what became hours.
What a turn reads does not depend on how long its window is. It must not judge, nor sum: a restart reads all anew and finds the same.

Law: `look` is what `Windows.minutes` gives. Held by `tests/property/test_recent_laws.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.monitor.base import Minute
    from modelyard.monitor.changes import Stretch
    from modelyard.monitor.windows import Windows
    from modelyard.types import Digest


MINUTE_BYTES, BUCKET_BYTES = 700, 100
"""About what a minute takes without its counts, and what each of its buckets of latencies takes."""


class Recent:
    """Of one version of one deployment. One thread owns it; the file may be opened anew each time. Nobody may change what it gives out."""

    def __init__(self, name: str, digest: Digest) -> None:
        self._name, self._digest = name, digest
        self._kept: list[Minute] = []
        self._span: Stretch = (0, 0)
        self._number = -1
        self.size_bytes = 0
        """About how much memory what is kept takes."""

    def look(self, windows: Windows, *, since: int, until: int) -> list[Minute]:
        """What was seen in each minute that begins from `since` to before `until`; the oldest first. Raises what the file raises."""
        number, changed = windows.changed(self._name, after=self._number)
        first, last = self._span
        if self._number < 0 or since > last or until < first:  # nothing of it is at hand
            self._kept, self.size_bytes, first, last = [], 0, since, since
        missing = [(since, first), (last, until), *((max(start, since, first), min(end, last)) for start, end in changed)]
        self._number = -1  # where reading fails, all is read the next time
        for start, end in _joined(missing):
            found = windows.minutes(self._name, self._digest, since=start, until=end)
            for each in found:
                if each.counts is not None:
                    each.counts.setflags(write=False)
            self._put(found, self._place(start), self._place(end))
        self._put([], 0, self._place(since))
        self._number, self._span = number, (since, max(last, until))
        return self._kept[: self._place(until)]

    def _put(self, found: list[Minute], first: int, last: int) -> None:
        """In place of the minutes from the place `first` to before `last`."""
        self.size_bytes += _size_bytes(found) - _size_bytes(self._kept[first:last])
        self._kept[first:last] = found

    def _place(self, start: int) -> int:
        return bisect_left(self._kept, start, key=lambda each: each.start)


def _size_bytes(minutes: list[Minute]) -> int:
    counted = sum(each.counts.nbytes for each in minutes if each.counts is not None)
    return counted + sum(MINUTE_BYTES + BUCKET_BYTES * len(each.latencies) for each in minutes)


def _joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same as few stretches that do not touch."""
    found: list[Stretch] = []
    for start, end in sorted(each for each in stretches if each[0] < each[1]):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
