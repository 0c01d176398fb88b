"""The control process's end of the spool: every segment is taken in once, then deleted.

Hides the order that makes it so: first the segment's name and data in one transaction, then the file goes, or, where other hosts are to have it
too, moves to the outbox that `monitor.export` empties; rows wait in that database until they are in the log's Parquet files. What is not a segment is
set aside and counted; it must never stop the loop, and a full disk only makes segments wait. No clock is believed but this machine's: what says that
it comes from the future counts now.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from modelyard import events
from modelyard.config import Settings
from modelyard.errors import Conflict, DigestMismatch, InvalidInput, MalformedPayload, Misconfigured, NotFound, Tampered
from modelyard.events import Segment
from modelyard.files import make_folder
from modelyard.monitor import profile, relay
from modelyard.monitor.compaction import ages, compact
from modelyard.monitor.labels import Ledger, labels_path
from modelyard.monitor.log import PredictionLog, day_of, oldest_kept
from modelyard.monitor.merging import unjudged
from modelyard.monitor.retention import SLACK_S, believed, remembered
from modelyard.monitor.windows import COUNT_LIMIT, Windows
from modelyard.types import parse_digest, parse_name

TURN_SEGMENTS = 256
TURN_OTHERS, TURN_TOLD = 48, 8
"""So many places are kept for what others have counted, and for what they were told to be true; this home's own workers come first."""
PORTION, PORTION_BYTES, OTHERS_S = 16, 4 << 20, 0.25
"""What others have counted is taken in by portions, each in a transaction of its own, for so long in a turn, or one portion: a minute of a thousand
others comes at once, and this home's own workers tell of themselves every second.
"""
TURN_BYTES = 64 << 20
TURN_LABELS = 10_000
"""Once so many labels have come in a turn the rest waits: a million take a while to keep, and what is counted here must not wait for it."""
LOG_EVERY_S = 30.0
LOG_AT_BYTES = 16 << 20
FILE_BYTES = 64 << 20
FORGET_EVERY_S = 3600.0
COMPACT_EVERY_S = 20.0
TIDY_EVERY_S, TIDIED_EVERY_S = 10.0, 600.0
"""Between looks for small files of the log, while there are some and when there were none."""
TIDY_AFTER_DAYS = 1
"""The log of a day is put together from small files once the day after it is over too."""
EARLY_S = 120.0
"""So far ahead may the clock of another machine be."""
SILENT_S = 86400.0
"""For so long after a worker's last segment it is remembered which of its segments were taken; of another machine's, `SILENT_ELSEWHERE_S`."""
SILENT_ELSEWHERE_S = 30 * 86400.0
UNPACKED_BYTES = 64 << 20
"""The most that the counts of one segment may unpack to."""
FETCHED = "s."
"""With this begin the names of segments that came from where hosts share them, and are not sent there again (`monitor.sharing`)."""
_STRAY_S = 600.0
_LAST_S = float(2**35)  # in the year 3058

log = logging.getLogger("modelyard.control")


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One turn: segments taken in, set aside, files written to the log, and whether more wait."""

    segments: int
    set_aside: int
    files: int
    is_more: bool


def windows_path(settings: Settings) -> Path:
    """Where a home keeps its windows."""
    return settings.home / "monitor.sqlite"


def outbox_path(settings: Settings) -> Path:
    """Where a home that shares what it sees keeps the segments that are still to be sent."""
    return settings.spool / "outbox"


def labels_outbox(settings: Settings) -> Path:
    """Where labels wait that the other hosts are still to have."""
    return outbox_path(settings) / "labels"


def log_path(settings: Settings) -> Path:
    """Where a home keeps its prediction log."""
    return settings.home / "log"


class _Done(NamedTuple):
    """One portion: how many segments were looked at, taken in, and set aside."""

    looked: int
    taken: int
    aside: int


class Intake:
    """The loop's body. One thread owns it, and its `windows`; a second intake on the same home does no harm, since a segment's name is kept once."""

    def __init__(self, settings: Settings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._spool = make_folder(settings.spool)
        self.windows = Windows(windows_path(settings))
        self._log = PredictionLog(make_folder(log_path(settings)))
        self._outbox = make_folder(outbox_path(settings)) if settings.shared_url else None
        self._forgot_s = self._compacted_s = self._tidy_s = -math.inf
        self._is_compacting = False
        self._believed, self._believed_s = self.windows.believed(), monotonic()

    def turn(self, *, now: float | None = None, is_last: bool = False) -> Taken:
        """Take in what waits (bounded; see `is_more`), and write the log when that is due or this is the last turn. `now` is in seconds since 1970.

        Raises StorageFull, InvalidConfig, Unavailable or Tampered about the home's own files; segments then wait in the spool.
        """
        now = time.time() if now is None else now
        waiting = events.pending(self._spool)
        own, others, told = _in_turn(waiting)
        done = [self._portion(own, now)] if own else []
        began_s, place = self._monotonic(), 0
        while place < len(others) and (place == 0 or self._monotonic() - began_s < OTHERS_S):
            done.append(self._portion(others[place : place + PORTION], now, limit_bytes=PORTION_BYTES))
            place += done[-1].looked
        if told:
            done.append(self._portion(told, now))
        files = self._write_log() if is_last or self._is_log_due(now) else 0
        if self._monotonic() - self._forgot_s > FORGET_EVERY_S:
            self._forget(now, waiting)
        if self._is_compacting or self._monotonic() - self._compacted_s > COMPACT_EVERY_S:
            self._compacted_s = self._monotonic()
            self._is_compacting = compact(self.windows, now=self._time(now), kept=ages(self._settings))
        is_more = len(waiting) > sum(each.looked for each in done)
        if not is_more and self._monotonic() >= self._tidy_s:
            found = self._log.tidy(before=oldest_kept(now, TIDY_AFTER_DAYS))
            self._tidy_s = self._monotonic() + (TIDY_EVERY_S if found else TIDIED_EVERY_S)
        return Taken(segments=sum(each.taken for each in done), set_aside=sum(each.aside for each in done), files=files, is_more=is_more)

    def drain(self) -> None:
        """Take in all that waits, and write the log."""
        while self.turn(is_last=True).is_more:
            pass

    def close(self) -> None:
        """Let go of the files. Nothing is lost by not coming here."""
        self.windows.close()

    def _portion(self, paths: list[Path], now: float, *, limit_bytes: int = TURN_BYTES) -> _Done:
        """Take in the first of these, in one transaction."""
        segments, bad, looked = self._read(paths, limit_bytes)
        aside = [path for path in bad if self._set_aside(path)]
        return _Done(looked=looked, taken=self._take(segments, now), aside=len(aside))

    def _read(self, in_turn: list[Path], limit_bytes: int) -> tuple[dict[Path, Segment], list[Path], int]:
        """The first segments, those that are none, and how many were looked at."""
        found: dict[Path, Segment] = {}
        bad: list[Path] = []
        size = labels = looked = 0
        for path in in_turn:
            if found and (size >= limit_bytes or labels >= TURN_LABELS):
                break
            looked += 1
            try:
                size += path.lstat().st_size
                segment = events.read(path)
                check(segment)
                labels += sum(len(each.ids) for each in segment.labels)
                found[path] = segment if path.name[:1].isdigit() else unjudged(segment)
            except (NotFound, FileNotFoundError):  # another control process was faster
                continue
            except (MalformedPayload, OSError):
                bad.append(path)
        return found, bad, looked

    def _take(self, segments: dict[Path, Segment], now: float) -> int:
        if not segments:
            return 0
        self._relay([segment for path, segment in segments.items() if segment.labels and path.name.startswith(FETCHED)], now)
        timed = {path.name: _timed(segment, now) for path, segment in segments.items()}
        oddities = {path.name: what for path, segment in segments.items() if (what := self._oddity(segment, now)) is not None}
        try:
            taken = self.windows.take(timed, day_of=day_of, oddities=oddities)
        except Conflict:  # counts that contradict what is kept: one by one, so that only the guilty is set aside
            taken = 0
            for path in segments:
                try:
                    taken += self.windows.take({path.name: timed[path.name]}, day_of=day_of, oddities=oddities)
                except Conflict:
                    self._set_aside(path)
        for path in segments:
            self._let_go(path)
        return taken

    def _relay(self, segments: list[Segment], now: float) -> None:
        """Keep the labels that other hosts were given, before their segments are noted as taken in: twice does no harm.

        A ledger that cannot be read stops nothing else; a disk that is full stops all.
        """
        if not segments:
            return
        try:
            with closing(Ledger(labels_path(self._settings))) as ledger:
                relay.take(ledger, segments, now=now)
        except (Misconfigured, Tampered):
            self.windows.trouble("unrelayed", sum(len(each.ids) for segment in segments for each in segment.labels))

    def _oddity(self, segment: Segment, now: float) -> str | None:
        """What the time of a segment is counted as, if it is strange: `early`, or `late`, which is older than anything that is kept."""
        if segment.ended_at > now + EARLY_S:
            return "early"
        return "late" if segment.ended_at < now - self._settings.retention_days * 86400 else None

    def _let_go(self, path: Path) -> None:
        """Delete what was taken in, or hand it to who sends it on. A name that is left is not taken twice."""
        with suppress(FileNotFoundError):
            if self._outbox is not None and not path.name.startswith(FETCHED):
                path.rename(self._outbox / path.name)
            else:
                path.unlink()

    def _set_aside(self, path: Path) -> bool:
        """Move what is not a segment out of the way, and count it."""
        if not events.set_aside(path):
            return False
        self.windows.trouble("corrupt")
        self.windows.pass_over([path.name])
        return True

    def _is_log_due(self, now: float) -> bool:
        size, oldest = self.windows.staged_bytes()
        return size > LOG_AT_BYTES or (oldest is not None and now - oldest > LOG_EVERY_S)

    def _write_log(self) -> int:
        files = 0
        for group in self.windows.staged(limit_bytes=FILE_BYTES):
            try:
                self._log.write(group)
                files += 1
            except Misconfigured:  # the folder is at fault and not the rows, which wait
                raise
            except InvalidInput:  # must not stand in the way of all others for ever
                self.windows.trouble("unwritable", sum(len(rows.ids) for rows in group.pieces))
            self.windows.written(group)
        return files

    def _time(self, now: float) -> float:
        """By which time things are old, where the clock says `now`."""
        return believed(self._believed, now, ran_s=self._monotonic() - self._believed_s)

    def _forget(self, now: float, waiting: list[Path]) -> None:
        """Delete what is older than the home keeps, and what killed workers left half-written."""
        self._forgot_s = self._monotonic()
        believed_now = self._time(now)
        kept = remembered(self._believed, believed_now, ran_s=self._forgot_s - self._believed_s)
        if kept != self._believed:
            self._believed, self._believed_s = kept, self._forgot_s
        if now - believed_now > SLACK_S:
            told = "the clock stands %.0f days after what this home knows of time: until it is put back, what is old goes by and by, a day an hour"
            log.warning(told, (now - believed_now) / 86400)
        before = believed_now - self._settings.retention_days * 86400
        self._log.forget(before=oldest_kept(believed_now, self._settings.retention_days))
        self.windows.believe(kept)  # after the log: a full disk has room again
        self.windows.forget(
            before=before,
            waiting=[path.name for path in waiting],
            silent_s=lambda source: SILENT_S if source[:1].isdigit() else SILENT_ELSEWHERE_S,
        )
        if labels_path(self._settings).exists():
            with suppress(Misconfigured, Tampered), closing(Ledger(labels_path(self._settings))) as ledger:  # told to whoever asks for labels
                ledger.forget(before=before)
        for stray in self._spool.glob(".*"):
            with suppress(OSError):
                if now - stray.lstat().st_mtime > _STRAY_S:
                    stray.unlink()


def _in_turn(waiting: list[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """Of what waits what this turn takes in, in this order: of this home's own workers, of others' counts, of labels; each the oldest first."""
    own, others, told = (list[Path]() for _ in range(3))
    for path in waiting:
        (own if path.name[:1].isdigit() else told if relay.tells(path.name) else others).append(path)
    room = TURN_SEGMENTS - min(len(told), TURN_TOLD)
    own = own[: room - min(len(others), TURN_OTHERS)]
    others = others[: room - len(own)]
    return own, others, told[: TURN_SEGMENTS - len(own) - len(others)]


def _timed(segment: Segment, now: float) -> Segment:
    """The segment, at a time that can be: what says that it ends in the future ends now."""
    if segment.ended_at <= now + EARLY_S:
        return segment
    return msgspec.structs.replace(segment, started_at=min(segment.started_at, now), ended_at=now)


def check(segment: Segment) -> None:
    """A segment's names, numbers and counts are such as a worker writes: names become folders, so nothing else may pass. Raises MalformedPayload."""
    left = UNPACKED_BYTES
    try:
        if not (0 <= segment.started_at < _LAST_S and 0 <= segment.ended_at < _LAST_S):
            raise MalformedPayload("a segment of no time")
        if not 0 <= segment.lost < COUNT_LIMIT:
            raise MalformedPayload("counts are not negative, and have 52 bits")
        for labels in segment.labels:
            relay.check(labels)
        for part in segment.parts:
            parse_name(part.name)
            parse_digest(part.digest)
            for item in part.profiles:
                if not 0 < item.share <= 1:
                    raise MalformedPayload("a share is above 0 and at most 1")
                counts = profile.unpack(item.counts, limit_bytes=left)
                left -= counts.nbytes
                if (counts[:1] < 0).any():
                    raise MalformedPayload("counts are not negative")
            numbers = [part.requests, part.rows, part.version, part.generation, *part.latencies, *part.latencies.values(), *part.dropped.values()]
            numbers += [each.requests for each in part.failures.values()]
            if not all(0 <= each.seconds < _LAST_S for each in part.failures.values()):
                raise MalformedPayload("failures took no time that can be")
            if max((*part.latencies, *(() if part.mirror is None else part.mirror.latencies)), default=0) > events.LAST_BUCKET:
                raise MalformedPayload("latencies in a bucket that there is not")
            numbers += [count for counts in part.outputs.values() for count in counts]
            if part.mirror is not None:
                mirror = part.mirror
                numbers += [mirror.sent, mirror.shed, mirror.failed, mirror.rows, mirror.disagreed, *mirror.latencies, *mirror.latencies.values()]
                numbers += [count for counts in mirror.outputs.values() for count in counts]
            if part.callers is not None:
                asked, failed, took = part.callers.asked, part.callers.failed, part.callers.took
                halves = [cell // events.GROUPS for cell in took]
                if max((*asked, *failed), default=0) >= events.GROUPS or max(halves, default=0) > events.LAST_BUCKET // events.HALF:
                    raise MalformedPayload("a group of callers that there is not")
                numbers += [*asked, *asked.values(), *failed, *failed.values(), *took, *took.values()]
                numbers += [count for counts in part.callers.outputs.values() for count in counts]
                if any(len(counts) % events.OUTPUT_GROUPS for counts in part.callers.outputs.values()):
                    raise MalformedPayload("outputs by more or fewer groups of callers than there are")
            if part.use is not None:
                numbers += msgspec.structs.astuple(part.use)
            if min(numbers) < 0 or max(numbers) >= COUNT_LIMIT:
                raise MalformedPayload("counts are not negative, and have 52 bits")
            for rows in (part.predictions, part.inputs):
                if rows is None:
                    continue
                times = events.times_array(rows)
                if not ((times >= 0) & (times < _LAST_S)).all() or not 0 < rows.share <= 1:
                    raise MalformedPayload("a time or share that cannot be")
                if not rows.ids or any(width < 0 for item in rows.columns for width in item.shape):
                    raise MalformedPayload("rows that are none, or have no one shape")
                if len({item.name for item in rows.columns}) != len(rows.columns):
                    raise MalformedPayload("a column stands once in a segment")
    except (InvalidInput, DigestMismatch) as error:
        raise MalformedPayload("not a segment that a worker of ours writes") from error
