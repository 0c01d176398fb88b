"""Both audit chains of a home: that of the control plane among the records, and that of this host's data plane in a file.

Hides that there are two, and that in a home of one machine the first goes on where 0.1.0 left the second. It must not change either.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from modelyard.errors import DigestMismatch
from modelyard.security.audit import FIRST, AuditLog, Entry
from modelyard.security.base import AuditStore

RECORDS, FILE = "records", "audit.jsonl"


class Chain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found of one chain: how many `entries` fit, and, where one does not, its place from 1 and why."""

    name: str
    entries: int
    first_bad: int | None = None
    why: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of all chains."""

    is_whole: bool
    chains: tuple[Chain, ...]


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An entry and the chain that it is in."""

    chain: str
    entry: Entry


def verify(records: AuditStore, file: AuditStore) -> Report:
    """Check every entry of both chains against the one before, and that the first of the records follows from one in the file, or from nothing."""
    first = AuditLog(records).first()
    follows = FIRST if first is None else first.previous
    is_known = [follows == FIRST]

    def seen(hash: str) -> None:
        is_known[0] |= hash == follows

    in_file = _check(FILE, file, follows=FIRST, seen=seen)
    in_records = _check(RECORDS, records, follows=follows if is_known[0] else FIRST)
    return Report(is_whole=not (in_file.first_bad or in_records.first_bad), chains=(in_records, in_file))


def entries(records: AuditStore, file: AuditStore, *, since: datetime | None = None) -> Iterator[Listed]:
    """The entries of both chains from `since` on, by time, unchecked. Raises DigestMismatch for one that cannot be read."""
    start = "" if since is None else since.astimezone(UTC).isoformat(timespec="milliseconds")
    chains = (_listed(RECORDS, records, start), _listed(FILE, file, start))
    return heapq.merge(*chains, key=lambda listed: listed.entry.at)


def require_whole(report: Report) -> None:
    """Return when nothing is wrong. Raises DigestMismatch naming the first entry that does not fit."""
    for chain in report.chains:
        if chain.first_bad is not None:
            raise DigestMismatch(f"the audit chain in {chain.name} is not whole: {chain.why}", field=f"{chain.name}:{chain.first_bad}", rule="chain")


def _check(name: str, store: AuditStore, *, follows: str, seen: Callable[[str], None] | None = None) -> Chain:
    try:
        return Chain(name=name, entries=AuditLog(store).verify(follows=follows, seen=seen))
    except DigestMismatch as error:
        place = int(error.field or 1)
        return Chain(name=name, entries=place - 1, first_bad=place, why=error.message)


def _listed(chain: str, store: AuditStore, start: str) -> Iterator[Listed]:
    try:
        for entry in AuditLog(store).entries():
            if entry.at >= start:
                yield Listed(chain=chain, entry=entry)
    except msgspec.MsgspecError as error:
        raise DigestMismatch(f"an entry of the audit chain in {chain} cannot be read; see: modelyard audit verify") from error
