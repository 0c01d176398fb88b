"""What other hosts have seen, out of the store that all of one registry share: every control host has the minutes of all.

Hides which of the store's segments are new here. A host takes in what any other has sent, whoever leads, so that one that takes the lead over has
had everything all along, and one that is new takes in what is still kept. Its own are left out: it has them. They are deleted after `KEPT_DAYS`.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

from modelyard import events, files
from modelyard.events import SUFFIX
from modelyard.monitor import destinations, relay
from modelyard.monitor.destinations import minute_folder
from modelyard.monitor.intake import FETCHED
from modelyard.monitor.receive import NAME, NAME_LIMIT
from modelyard.monitor.windows import Windows
from modelyard.registry.stores import Store

EVERY_S = 5.0
NEW_MINUTES = (-1, 2)
RECENT_MINUTES = (-10, 3)
RECENT_EVERY_S = 60.0
"""Other hosts' clocks may be so far off that once a minute more of them are looked at than those in which something new should be."""
ALL_EVERY_S = 6 * 3600.0
KEPT_DAYS = 7
AT_ONCE, LABELS_AT_ONCE = 32, 16
"""So many segments are brought before it is looked again whether there is room: of counts each may have three MiB, of labels one."""
COUNTS_SHARE, LABELS_SHARE = 0.5, 0.25
"""So much of the spool may be taken when more is brought: a million labels leave room for what is counted meanwhile, here and elsewhere."""


class Inlet:
    """Lays into the spool what others have sent to the store. One thread owns it. `host` begins the names of what this host sends itself."""

    def __init__(self, store: Store, *, spool: Path, limit_bytes: int, host: str) -> None:
        self._store = store
        self._spool = files.make_folder(spool)
        self._limit_bytes = limit_bytes
        self._mine = f"{host}."
        self._looked_at = self._looked_back_at = -math.inf

    def turn(self, windows: Windows, *, now: float) -> int:
        """Bring what is new; how many segments that were. `windows` says what was taken in before.

        Looks at the minutes around `now`, once a minute at more of them; at the first turn, and every few hours, at every day that is kept, and
        deletes older ones. Raises what the store raises. What finds no room in the spool is brought by a later turn.
        """
        is_all = abs(now - self._looked_at) >= ALL_EVERY_S
        is_whole, brought = True, 0
        for folder in self._folders(now, is_all=is_all):
            found = {f"{FETCHED}{name}{SUFFIX}": path for name, path in destinations.listed(self._store, folder).items() if self._is_wanted(name)}
            here = {path.name for path in events.pending(self._spool)}
            names = [name for name in windows.untaken(found) if name not in here]
            for kind, share, at_once in ((False, COUNTS_SHARE, AT_ONCE), (True, LABELS_SHARE, LABELS_AT_ONCE)):
                of_kind = [name for name in names if relay.tells(name) is kind]
                for start in range(0, len(of_kind), at_once):
                    if events.size_bytes(self._spool) > self._limit_bytes * share:
                        is_whole = False
                        break
                    brought += self._bring({found[name]: name for name in of_kind[start : start + at_once]})
        if is_all and is_whole:
            self._looked_at = now
            known = windows.believed()  # a clock that is ahead must not take from the others what they are still to have
            destinations.prune(self._store, now=now if known is None else min(now, known), kept_days=KEPT_DAYS)
        return brought

    def _folders(self, now: float, *, is_all: bool) -> list[str]:
        if is_all:
            oldest = datetime.fromtimestamp(now, UTC).date() - timedelta(days=KEPT_DAYS)
            return [f"{destinations.ROOT}/{day.isoformat()}" for day in destinations.days(self._store) if day >= oldest]
        is_back = abs(now - self._looked_back_at) >= RECENT_EVERY_S
        if is_back:
            self._looked_back_at = now
        return [minute_folder(now + 60 * minutes) for minutes in range(*(RECENT_MINUTES if is_back else NEW_MINUTES))]

    def _is_wanted(self, name: str) -> bool:
        return len(name) <= NAME_LIMIT and NAME.fullmatch(name) is not None and not name.startswith(self._mine)

    def _bring(self, names: dict[str, str]) -> int:
        brought = 0
        for path, data in destinations.fetched(self._store, list(names)):
            name = names.get(path) or names.get(f"/{path}")  # as some stores write it
            if name is not None:
                files.write_atomically(self._spool / name, data, mode=0o600, durable=False)
                brought += 1
        return brought


def store_at(url: str) -> Store | None:
    """The store at the place where a home's observations also go; None where that is a control API, from which nothing comes back."""
    return Store(url, setting="export_url") if is_shared(url) else None


def is_shared(url: str) -> bool:
    """Whether what a home sends to `url` comes to other hosts of its records."""
    return bool(url) and not url.startswith(("http://", "https://"))
