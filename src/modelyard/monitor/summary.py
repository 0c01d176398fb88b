"""What `status` tells of a deployment's traffic: how much, how fast, what failed, and how far each feature has moved.

Pure over the windows; it must not judge. Nothing here pages: with nothing changed one feature in twenty has p below .05.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import msgspec

from modelyard.errors import Conflict, MalformedPayload
from modelyard.events import quantile_s
from modelyard.monitor.profile import Profile, Shift, compare, filled
from modelyard.monitor.windows import TROUBLES, Window, Windows
from modelyard.types import Digest

RECENT_S = 3600.0


class VersionTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """One version's part of the traffic."""

    version: int
    digest: Digest
    requests: int
    rows: int


class Traffic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deployment's recent traffic; `active_s` is how long it had any. Latencies are of answered requests, in seconds (None without).

    `shifts` are of the digest that was asked for, the largest first, over `profiled_rows` rows; empty where it has seen none.
    """

    name: str
    active_s: float
    requests: int
    rows: int
    requests_s: float
    p50_s: float | None = None
    p99_s: float | None = None
    failures: dict[str, int] = {}
    versions: tuple[VersionTraffic, ...] = ()
    shifts: tuple[Shift, ...] = ()
    profiled_rows: int = 0
    dropped: dict[str, int] = {}


def summary(
    windows: Windows, name: str, *, now: float, digest: Digest | None = None, reference: Profile | None = None, recent_s: float = RECENT_S
) -> Traffic:
    """The traffic of deployment `name` in the `recent_s` seconds before `now`, and the shifts of `digest` against `reference`, its bundle's profile.

    Raises what the windows raise.
    """
    since = now - recent_s
    seen = windows.seen(name, since=since)
    total = Window(started_at=now, ended_at=since)
    for window in seen.values():
        total.add(window)
    active_s = windows.active_s(name, since=since)
    p50_s, p99_s = (quantile_s(total.latencies, share) for share in (0.5, 0.99))
    profiled_rows, shifts = _shifts(windows, name, digest, reference, since) if digest is not None and reference is not None else (0, ())
    return Traffic(
        name=name,
        active_s=active_s,
        requests=total.requests,
        rows=total.rows,
        requests_s=total.requests / max(active_s, 1.0),
        p50_s=None if math.isnan(p50_s) else p50_s,
        p99_s=None if math.isnan(p99_s) else p99_s,
        failures={code: failures.requests for code, failures in sorted(total.failures.items())},
        versions=tuple(
            VersionTraffic(version=version, digest=of, requests=window.requests, rows=window.rows) for (version, of), window in sorted(seen.items())
        ),
        shifts=shifts,
        profiled_rows=profiled_rows,
        dropped=total.dropped,
    )


def unkept(windows: Windows, *, since: float) -> tuple[str, ...]:
    """What was observed and could not be kept, in words, of each kind of which there was some since then; with how much there was in all, and when
    last. Raises what the windows raise.
    """
    last = windows.troubled_at()
    told = []
    for kind, count in windows.troubles().items():
        at = last.get(kind)
        if at is None or at >= since:  # a file of an earlier release does not know when
            when = "" if at is None else f"; the last at {time.strftime('%Y-%m-%d %H:%M', time.gmtime(at))} UTC"
            told.append(f"{count:,} {TROUBLES.get(kind, kind)}{when}")
    return tuple(told)


def unlogged(dropped: Mapping[str, int]) -> str:
    """What found no room in the prediction log though its share should have, in words; empty where all did."""
    found = " and ".join(f"{_LOGGED.get(what, what)} of {count:,} rows" for what, count in sorted(dropped.items(), reverse=True) if count)
    return f"{found} found no room and are missing from the log; the rows are counted and profiled all the same" if found else ""


_LOGGED = {"predictions": "the answers", "inputs": "the inputs"}


def _shifts(windows: Windows, name: str, digest: Digest, reference: Profile, since: float) -> tuple[int, tuple[Shift, ...]]:
    try:
        counts = windows.counts(name, digest, since=since)
        if counts is None:
            return 0, ()
        live = filled(reference, counts)
    except (Conflict, MalformedPayload):  # counts of other bins: an attestation made anew with other outputs; traffic is still told
        return 0, ()
    return live.rows, compare(reference, live)
