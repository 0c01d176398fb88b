"""The leader's monitor: each deployment judged once a minute by what was seen of it, and what follows written down.

Hides from where a turn's evidence comes (this home's windows, labels and log, the bundle's reference, the settings' record), and that all that a turn
found is written in one transaction under the leader's term: whoever leads next goes on from there, and nothing is told twice. It must not judge.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from modelyard import bundle
from modelyard.errors import ModelyardError
from modelyard.monitor import labels, profile, watch
from modelyard.monitor import overview as told
from modelyard.monitor import reference as references
from modelyard.monitor import settings as settings_of
from modelyard.monitor.alerts import Explained, Rules, book
from modelyard.monitor.base import MINUTE_S, Detector, Labelled, Logged, Minute, Reference
from modelyard.monitor.cause import Happened
from modelyard.monitor.evidence import summed
from modelyard.monitor.intake import log_path, windows_path
from modelyard.monitor.joined import Joined
from modelyard.monitor.labels import Ledger, labels_path
from modelyard.monitor.log import PredictionLog
from modelyard.monitor.logged import Follower
from modelyard.monitor.overview import Overview
from modelyard.monitor.recent import Recent
from modelyard.monitor.settings import Monitored
from modelyard.monitor.summary import unkept, unlogged
from modelyard.monitor.watch import Kept, Seen, Span
from modelyard.monitor.windows import Windows
from modelyard.rollout import history
from modelyard.types import Digest

if TYPE_CHECKING:
    from modelyard.control.plane import ControlPlane
    from modelyard.registry.base import Record, Records, RecordStore, Stamp, Transaction
    from modelyard.targets.base import Release

KIND = "monitor"
SETTINGS = "monitored"
REFERENCES = 256
"""How many bundles' references are kept at hand."""
RECENT_BYTES = 256 << 20
"""How much of all windows is kept at hand; a hundred columns over six hours take 9 MiB."""
LABELLED_S = 30 * 86_400.0
"""How long after its answer a truth may come, and still be judged."""
BEHIND_S = 5 * MINUTE_S
"""A watch that is so far behind says so: what it tells is old."""
TURN_S = 5.0
"""How long one turn judges before it writes down what it has; the rest of the deployments come at once in the next."""

log = logging.getLogger("modelyard.control")

Found = TypeVar("Found")


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment is watched, who said so and when (UTC); `revision` 0 means that nobody has, and these are the defaults."""

    settings: Monitored
    revision: int = 0
    by: str = ""
    at: str = ""


class Turned(NamedTuple):
    """What one turn found of one deployment, and whether minutes that have closed wait for the next."""

    kept: Kept
    settings: Monitored
    is_more: bool = False


class Monitoring:
    """Judges the deployments of one store, for one term of its leader, under which `records` are written. One thread owns it."""

    def __init__(
        self,
        plane: ControlPlane,
        records: RecordStore,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        grace_s: float = watch.GRACE_S,
        detectors: Mapping[str, Detector] | None = None,
    ) -> None:
        self._plane = plane
        self._records = records
        self._clock = clock
        self._monotonic = monotonic
        self._grace_s = grace_s
        self._detectors = detectors
        self._references: OrderedDict[Digest, Reference] = OrderedDict()
        self._kept: dict[str, Kept] | None = None
        self._written: dict[str, Kept] = {}
        self._looked: tuple[float, float] | None = None
        self._chosen: tuple[Stamp, dict[str, Monitored]] | None = None
        self._tried: dict[str, int] = {}
        self._failed: dict[tuple[str, str], list[tuple[str, Exception | str]]] = {}
        self._alarmed = 0
        self._log = PredictionLog(log_path(plane.settings))
        self._ledger: Ledger | ModelyardError | None = None
        self._followers: dict[str, tuple[Digest, Follower]] = {}
        self._joined: dict[str, tuple[Digest, Joined]] = {}
        self._recent: dict[str, tuple[Digest, Recent]] = {}
        self._events: tuple[Stamp | None, dict[str, list[Happened]]] = (None, {})

    def turn(self) -> bool:
        """Judge what has closed since the last turn and write it down; whether more waits. Raises what the stores raise, and then nothing was."""
        now = self._clock()
        closed = watch.closed(now, grace_s=self._grace_s)
        if self._kept is None:
            self._kept = self._written = {record.key: read(record) for record in self._records.list(KIND)}
        self._mind_the_clock(self._kept, now)
        found = (each.deployment for each in self._plane.deployments.all())
        deployed = {each.name: each.current for each in found if each.current is not None}
        gone = self._kept.keys() - deployed.keys()
        due = sorted((name for name in deployed if self._is_due(name, deployed[name], closed)), key=self._through)
        if not due and not gone and self._kept is self._written and not self._owes(closed):
            return False
        if self._detectors is None:
            self._detectors = watch.load()
        turned: dict[str, Turned] = {}
        began_s = time.monotonic()
        with contextlib.ExitStack() as opened:
            windows = opened.enter_context(contextlib.closing(Windows(windows_path(self._plane.settings))))
            self._ledger = self._opened(opened)
            for name in due:
                turned[name] = self._judge(name, deployed[name], windows, closed=closed, now=now)
                if time.monotonic() - began_s > TURN_S:
                    break
        self._log_failures()
        kept = {name: each for name, each in self._kept.items() if name not in gone} | {name: each.kept for name, each in turned.items()}
        with self._records.transaction() as records:
            for name in self._alarm(records, kept, now=now):
                kept[name] = kept[name].with_page(now)
            for name, each in kept.items():
                if each is not self._written.get(name):
                    records.put(KIND, name, body(each), expected=None)
            for name in gone:
                records.delete(KIND, name, expected=None)
        for name in gone:
            self._followers.pop(name, None)
            self._joined.pop(name, None)
            self._recent.pop(name, None)
        self._kept, self._written, self._alarmed = kept, kept, closed
        return len(turned) < len(due) or any(each.is_more for each in turned.values())

    def _opened(self, opened: contextlib.ExitStack) -> Ledger | ModelyardError | None:
        """The labels; why not, where they cannot be opened; None where there are none. What was counted is judged all the same."""
        path = labels_path(self._plane.settings)
        try:
            return opened.enter_context(contextlib.closing(Ledger(path))) if path.exists() else None
        except ModelyardError as error:
            return error

    def _mind_the_clock(self, kept: dict[str, Kept], now: float) -> None:
        """Note with every deployment that the clock went otherwise than time did since it was last looked at; the next transaction writes it."""
        before, self._looked = self._looked, (now, self._monotonic())
        if before is None:
            return
        passed_s = self._looked[1] - before[1]
        seconds = now - before[0] - passed_s
        if abs(seconds) >= watch.STRAYED_S:
            log.warning("the clock went %.0f s further than time did", seconds)
            self._kept = {name: watch.strayed(each, at=now, seconds=seconds, since=now - passed_s) for name, each in kept.items()}

    def _owes(self, closed: int) -> bool:
        """Whether people may be owed something in a minute in which nothing is judged: the end of an alert whose deployment is gone, say."""
        return self._alarmed != closed and self._records.stamp(book.BOOK).records > 0

    def _alarm(self, records: Transaction, kept: Mapping[str, Kept], *, now: float) -> list[str]:
        """Let alerts follow from the latest verdicts of all; the deployments of which somebody is woken anew."""
        detectors = self._detectors or {}
        said = self._said()  # one question for all of them: whoever else writes waits
        settings = {name: said.get(name, Monitored()) for name in kept}
        rules = Rules(
            pages=frozenset(rule for rule, detector in detectors.items() if detector.pages),
            policies={name: each.alerts for name, each in settings.items()},
            begun={name: each.begun for name, each in kept.items()},
        )
        verdicts = {name: watch.alarming(each.verdicts, detectors, settings[name]) for name, each in kept.items()}
        causes = {(name, rule): Explained(each.kind, each.said, each.advice) for name, found in kept.items() for rule, each in found.causes.items()}
        told = book.turn(records, verdicts, rules=rules, routes=tuple(self._plane.alert_routes().values()), now=now, causes=causes)
        return [each.deployment for each in told if each.severity == "page" and each.news]

    def _is_due(self, name: str, release: Release, closed: int) -> bool:
        if self._tried.get(name) == closed:
            return False
        kept = (self._kept or {}).get(name)
        if kept is None or kept.digest != release.digest:
            return True
        return not closed <= kept.through <= closed + MINUTE_S

    def _through(self, name: str) -> int:
        kept = (self._kept or {}).get(name)
        return 0 if kept is None else kept.through

    def _judge(self, name: str, release: Release, windows: Windows, *, closed: int, now: float) -> Turned:
        settings, detectors = self._settings(name), self._detectors or {}
        kept = (self._kept or {}).get(name)
        if kept is None or kept.digest != release.digest:
            kept = watch.begin(release.digest, release.version, settings=settings, now=now, before=kept)
        try:
            seen = self._see(name, release, windows, watch.span(kept, settings=settings, closed=closed), now=now)
            after = watch.turn(kept, seen, detectors, settings=settings, pages=settings.false_pages_a_month)
        except Exception as error:  # noqa: BLE001  # the others are judged all the same, and this one as soon as it can be
            self._tried[name] = closed
            why = error.message if isinstance(error, ModelyardError) else f"{type(error).__name__}; the log of the control process tells more"
            self._failed.setdefault(("", error.code if isinstance(error, ModelyardError) else type(error).__name__), []).append((name, error))
            why = f"what was seen cannot be gathered now, and is judged when it can be: {why}"
            return Turned(watch.unjudged(kept, why, detectors, settings=settings, now=now), settings)
        self._tried.pop(name, None)
        for rule, why in after.failed.items():
            self._failed.setdefault((rule, ""), []).append((name, why))
        return Turned(after, settings, is_more=after.through < closed)

    def _log_failures(self) -> None:
        """A line for each sort of failure, with the first of those that it met and how many others: a store that is away meets all."""
        for (rule, _), met in self._failed.items():
            (name, error), others = met[0], len(met) - 1
            named = f"{name} and {others:,} other{'s' if others > 1 else ''}" if others else name
            if isinstance(error, str):
                log.error("the detector %s failed on %s: %s", rule, named, error)
            elif isinstance(error, ModelyardError):
                log.error("what was seen of %s cannot be gathered or judged: %s", named, error.message)
            else:
                log.error("what was seen of %s cannot be gathered or judged", named, exc_info=error)
        self._failed.clear()

    def _see(self, name: str, release: Release, windows: Windows, span: Span, *, now: float) -> Seen:
        """The evidence of a turn. Raises what home and bundle raise."""
        reference = self._reference(release)
        since, until = float(span.since), float(span.until)
        missing: list[str] = []
        labelled = self._readable(missing, "labels", lambda: self._labelled(name, reference, windows, until=until))
        logged = self._readable(missing, "logged rows", lambda: self._logged(name, reference, since=since, until=until))
        return Seen(
            name=name,
            reference=reference,
            minutes=self._minutes(name, release.digest, windows, span),
            labelled=labelled,
            span=span,
            now=now,
            logged=logged,
            happened=self._happened(name, since=since),
            missing=missing,
        )

    @staticmethod
    def _readable(missing: list[str], what: str, read: Callable[[], Found | None]) -> Found | None:
        """What `read` gives; where it cannot be read, that is noted: one damaged file must not end the watch of what was counted."""
        try:
            return read()
        except ModelyardError as error:
            missing.append(f"{what}: {error.message}")
            return None

    def _minutes(self, name: str, digest: Digest, windows: Windows, span: Span) -> list[Minute]:
        known = self._recent.get(name)
        if known is None or known[0] != digest:
            known = self._recent[name] = digest, Recent(name, digest)
        found = known[1].look(windows, since=span.since, until=span.until)
        self._keep_small()
        return found

    def _keep_small(self) -> None:
        """Let go of the largest windows that are kept at hand (of equal ones the last, so that the others stay), until all together are small enough:
        these are read anew each turn.
        """
        sizes = {name: each.size_bytes for name, (_, each) in reversed(self._recent.items())}
        while sum(sizes.values()) > RECENT_BYTES:
            largest = max(sizes, key=sizes.__getitem__)
            del self._recent[largest], sizes[largest]

    def _happened(self, name: str, *, since: float) -> list[Happened]:
        """What was done to the deployment in the window."""
        stamp = self._records.stamp(history.KIND)
        if self._events[0] != stamp:
            self._events = stamp, {}
        if name not in self._events[1]:
            events = history.read(self._records, name)
            self._events[1][name] = [Happened(datetime.fromisoformat(each.at).timestamp(), each.what, each.version) for each in events]
        return [each for each in self._events[1][name] if each.at >= since]

    def _labelled(self, name: str, reference: Reference, windows: Windows, *, until: float) -> Labelled | None:
        """The predictions whose truth has come, also those of long before: labels are late."""
        if self._ledger is None:
            return None
        if isinstance(self._ledger, ModelyardError):
            raise self._ledger
        labels.join(self._ledger, self._log, windows, name, now=self._clock())
        known = self._joined.get(name)
        if known is None or known[0] != reference.digest:
            known = self._joined[name] = reference.digest, Joined(name, reference.digest, reference.schema.classes)
        return known[1].look(self._ledger, windows, since=until - LABELLED_S)

    def _logged(self, name: str, reference: Reference, *, since: float, until: float) -> Logged | None:
        known = self._followers.get(name)
        if known is None or known[0] != reference.digest:
            known = self._followers[name] = reference.digest, Follower(self._log, name, reference.digest, reference.schema)
        found = known[1].look(since=since, until=until)
        if found is None or not isinstance(self._ledger, Ledger):
            return None if found is None else found[1]
        ids, rows = found
        return rows._replace(truth=labels.truths(self._ledger, name, ids, reference.schema.classes))

    def _settings(self, name: str) -> Monitored:
        return self._said().get(name, Monitored())

    def _said(self) -> Mapping[str, Monitored]:
        """How the deployments are watched of which somebody has said so."""
        stamp = self._records.stamp(SETTINGS)
        if self._chosen is None or self._chosen[0] != stamp:
            self._chosen = stamp, {record.key: _chosen(record).settings for record in self._records.list(SETTINGS)}
        return self._chosen[1]

    def _reference(self, release: Release) -> Reference:
        found = self._references.get(release.digest)
        if found is None:
            found = self._references[release.digest] = reference(self._plane.opened(release))
            while len(self._references) > REFERENCES:
                self._references.popitem(last=False)
        return found


def reference(opened: bundle.Bundle) -> Reference:
    """What live data of a bundle is held against. Raises MalformedPayload."""
    return references.read(opened)


def require_fit(opened: bundle.Bundle, settings: Monitored, *, routes: Collection[str]) -> None:
    """Raises InvalidConfig for what this model, or a home with these routes, cannot honour."""
    features = (feature.name for feature in profile.reference(opened).features)
    settings_of.require_fit(settings, opened.schema, features=features, routes=routes)


def brief(settings: Monitored) -> str:
    """What differs from the defaults, for the audit log."""
    return ", ".join(sorted(settings_of.plain(settings))) or "defaults"


def chosen(records: Records, name: str) -> Chosen:
    """How the deployment `name` is watched."""
    record = records.get(SETTINGS, name)
    return Chosen(settings=Monitored()) if record is None else _chosen(record)


def choose(records: Records, name: str, settings: Monitored, *, by: str, at: str, expected: int | None) -> Chosen:
    """Let it be watched so. Raises Conflict when the revision is not the expected one (None: any, 0: nobody has said anything)."""
    said = Chosen(settings=settings, by=by, at=at)
    return _chosen(records.put(SETTINGS, name, msgspec.to_builtins(said), expected=expected))


def last(records: Records, name: str) -> Kept | None:
    """What the last turn found of the deployment `name`; None where there was none yet."""
    record = records.get(KIND, name)
    return None if record is None else read(record)


def overview(plane: ControlPlane, name: str, *, since: float | None = None, now: float | None = None) -> Overview:
    """What there is to tell of the deployment `name` from `since` on (None: the window of its settings). Raises NotFound, or as the stores do."""
    deployment = plane.deployments.get(name).deployment
    records = plane.registry.records
    settings, kept = chosen(records, name).settings, last(records, name)
    until = time.time() if now is None else now
    begin = until - settings.window_s if since is None else min(since, until - MINUTE_S)
    begin = float(int(begin // MINUTE_S) * MINUTE_S)
    release = deployment.current
    found: list[Minute] = []
    with contextlib.closing(Windows(windows_path(plane.settings))) as windows:
        if release is not None:
            found = windows.minutes(name, release.digest, since=begin, until=until)
        trouble = list(unkept(windows, since=begin))
    if said := unlogged(_dropped(found)):
        trouble.append(said)
    is_of_now = kept is not None and release is not None and kept.digest == release.digest
    detectors = watch.load() if is_of_now else {}
    if kept is not None and is_of_now and (behind := watch.closed(until) - kept.through) >= BEHIND_S:
        trouble.append(f"{behind // MINUTE_S:,} minutes that are over were not judged yet; the log of the control process says why")
    counted = None
    if labels_path(plane.settings).exists():
        try:
            counted = plane.labelled(name)
        except ModelyardError as error:
            trouble.append(f"labels cannot be read: {error.message}")
    return told.overview(
        name,
        kept if is_of_now else None,
        found,
        settings=settings,
        span=(begin, until),
        alerts=[each for each in book.alerts(records) if each.deployment == name and each.state != "resolved"],
        labels=counted,
        may_page=lambda verdict: watch.is_page(verdict, detectors, settings),
        trouble=trouble,
    )


def _dropped(minutes: Iterable[Minute]) -> Mapping[str, int]:
    total: dict[str, int] = {}
    for minute in minutes:
        total = summed(total, minute.dropped)
    return total


def latest(records: Records) -> dict[str, tuple[Kept, Chosen]]:
    """What the last turns found of every deployment, and how each is watched."""
    said = {record.key: _chosen(record) for record in records.list(SETTINGS)}
    return {record.key: (read(record), said.get(record.key, Chosen(settings=Monitored()))) for record in records.list(KIND)}


def body(kept: Kept) -> dict[str, Any]:
    """What is kept, as a record's body."""
    told: dict[str, Any] = msgspec.to_builtins(kept, str_keys=True)
    return told


def read(record: Record) -> Kept:
    """`read` of a record with the body `body(kept)` is `kept`. What another release wrote and this one cannot read is begun anew."""
    try:
        return msgspec.convert(record.body, Kept, str_keys=True)
    except msgspec.ValidationError:
        log.warning("what was kept of %s is of another release: its watch begins anew", record.key)
        return Kept(version=0, digest=Digest(""))


def _chosen(record: Record) -> Chosen:
    return msgspec.structs.replace(msgspec.convert(record.body, Chosen), revision=record.revision)
