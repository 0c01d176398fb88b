"""What each host says of itself, as records that all control processes of one store can read, and which of them live.

Hides the records' form, and that a lease is judged without trust in any other machine's clock: a host lives as long as its record goes on changing
while this process watches. It must not act on a target.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from modelyard.errors import Conflict
from modelyard.types import Digest, Verdict

if TYPE_CHECKING:
    from modelyard.registry.base import Records, RecordStore

KIND = "host"
LEASE_S = 6.0
"""A record that does not change for so long, of the time in which it was watched, has lost its lease."""
RENEW_S = 2.0
"""How often a record is written again when there is nothing new to say."""
WATCHED_S = 1.5
"""The longest pause between two looks that counts as watching in full; of a longer one (a stopped process, a store that was away) so much counts."""


class HostReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one host says of itself.

    `instance` is its control process, of which there is one at a time. It `counts` for steps once its workers have acted by every record that this
    host can carry out. `applied` gives, for each deployment under rollout, the revision of the record whose plan all its workers act by; `readiness`
    judges each digest that the plans of `judged` name, which gives the revisions of their records, and says of what serves without a rollout where it
    keeps failing; `lagging` are the deployments whose
    newest plan is not in force here, and `trouble` says why.
    """

    id: str
    instance: str
    started_at: str
    data: str | None = None
    control: str | None = None
    workers: int = 0
    counts: bool = False
    applied: dict[str, int] = {}
    judged: dict[str, int] = {}
    readiness: dict[Digest, Verdict] = {}
    lagging: tuple[str, ...] = ()
    trouble: dict[str, str] = {}


class Seen(NamedTuple):
    """A host's report, the revision of its record, and for how long it has been silent while it was watched."""

    report: HostReport
    revision: int
    silent_s: float

    @property
    def is_live(self) -> bool:
        """Whether it holds a live lease."""
        return self.silent_s <= LEASE_S


class Watched:
    """For how long each of several records has stayed as it was, of the time in which this process watched. Used by one thread at a time.

    Law: whatever happens to any clock or to this process, nothing is found still for longer than it was watched
    (`tests/unit/rollout/test_hosts.py`).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s: float | None = None
        self._still: dict[str, tuple[int, float]] = {}

    def look(self, revisions: dict[str, int]) -> dict[str, float]:
        """Seconds of watching since each record changed; `revisions` are all that there are now."""
        now = self._clock()
        passed = 0.0 if self._last_s is None else min(now - self._last_s, WATCHED_S)
        self._last_s = now
        still = {}
        for key, revision in revisions.items():
            known, age = self._still.get(key, (None, 0.0))
            still[key] = (revision, age + passed if known == revision else 0.0)
        self._still = still
        return {key: age for key, (_, age) in still.items()}


class Hosts:
    """The reports of all hosts of one store. Used by one thread at a time: what lives is judged from look to look."""

    def __init__(self, records: RecordStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._watched = Watched(clock)

    def look(self) -> tuple[Seen, ...]:
        """Every host, by id. At the first look all live: who has died meanwhile is told by the next ones."""
        records = self._records.list(KIND)
        still = self._watched.look({record.key: record.revision for record in records})
        return tuple(Seen(_report(record.body), record.revision, still[record.key]) for record in records)

    def forget(self, seen: Seen) -> None:
        """Remove the record of a host that is gone, unless it has come back since. Raises Conflict."""
        self._records.delete(KIND, seen.report.id, expected=seen.revision)


class Membership:
    """This host's own record. Safe from several threads. It belongs to one control process: another that writes it is found out by its revision."""

    def __init__(self, records: RecordStore, *, id: str, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = id
        self.instance = instance
        self._records = records
        self._clock = clock
        self._lock = threading.Lock()
        self._written_s = 0.0
        self._revision: int | None = None
        self._report: HostReport | None = None

    # A store may let one thread in at a time, so its transaction is always begun before the lock is taken.

    def publish(self, report: HostReport) -> bool:
        """Write `report` unless the record says it already; whether it was written. Raises Conflict when another process reports as this host."""
        if report == self._report:
            return False
        with self._records.transaction() as records, self._lock:
            self._write(report, records)
        return True

    @property
    def is_due(self) -> bool:
        """Whether the record should be written again, so that the lease goes on."""
        return self._report is not None and self._clock() - self._written_s >= RENEW_S

    def renew(self, within: Records) -> None:
        """Write the record again as it is, as part of a transaction; nothing when none was written yet. Raises Conflict as `publish` does."""
        with self._lock:
            if self._report is not None:
                self._write(self._report, within)

    def leave(self) -> None:
        """Take the record back: this host serves on, but no step waits for it. Raises Conflict when it is another process's by now."""
        with self._records.transaction() as records, self._lock:
            if self._revision is not None:
                records.delete(KIND, self.id, expected=self._revision)
            self._revision = self._report = None

    def _write(self, report: HostReport, within: Records) -> None:
        found = within.get(KIND, self.id)
        # At the first write whatever stands there is of a process that has ended: this one holds the home's control lock.
        if found is not None and self._revision not in (None, found.revision) and _report(found.body).instance != self.instance:
            raise Conflict(
                f"another control process reports as the host {self.id}, whose home was copied: stop one and remove its file host.id", rule="host"
            )
        self._report = None  # not known to be written, should the store not say
        self._revision = within.put(KIND, self.id, msgspec.to_builtins(report), expected=0 if found is None else found.revision).revision
        self._report, self._written_s = report, self._clock()


def acknowledged(hosts: Iterable[Seen], name: str, revision: int) -> bool:
    """Whether all hosts that count have the plan of deployment `name` in force as its record was at `revision`; False when none counts."""
    counting = [seen.report for seen in hosts if seen.is_live and seen.report.counts]
    return bool(counting) and all(report.applied.get(name, 0) >= revision for report in counting)


def readiness(hosts: Iterable[Seen], digest: Digest, *, name: str = "", since: int = 0) -> Verdict:
    """`pass` when all hosts that count have `digest` ready, `fail` when one cannot (its own verdict), else `unknown`.

    What a host said before it saw the record of the deployment `name` at the revision `since` says nothing.
    """
    counting = [seen.report for seen in hosts if seen.is_live and seen.report.counts]
    verdicts = [
        report.readiness.get(digest) if max(report.judged.get(name, 0), report.applied.get(name, 0)) >= since else None for report in counting
    ]
    for report, verdict in zip(counting, verdicts, strict=True):
        if verdict is not None and verdict.outcome == "fail":
            return verdict if len(counting) == 1 else msgspec.structs.replace(verdict, evidence=f"on {report.id}: {verdict.evidence}")
    if len(verdicts) == 1 and verdicts[0] is not None:
        return verdicts[0]
    if not counting:
        return Verdict(outcome="unknown", rule="ready", evidence="no host is in line yet")
    ready = sum(verdict is not None and verdict.outcome == "pass" for verdict in verdicts)
    return Verdict(outcome="pass" if ready == len(verdicts) else "unknown", rule="ready", evidence=f"{ready} of {len(verdicts)} hosts have it ready")


def _report(body: dict[str, object]) -> HostReport:
    return msgspec.convert(body, HostReport)
