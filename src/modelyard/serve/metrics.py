"""Counters that are right with many workers: one mapped file per slot, which a slot's next worker continues and any worker can sum.

Hides the file's layout; `exposition` says its numbers in Prometheus' text form. It must not know HTTP, and its hot calls touch a few numbers each.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from modelyard.files import translate

LATENCIES_S = (0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CANCELLED = "cancelled"
"""What a request whose caller went away before its answer counts as."""

CODES = (
    "internal", "invalid_input", "schema_mismatch", "malformed_payload", "payload_too_large", "unsupported_media", "not_found", "conflict", "denied",
    "unauthenticated", "forbidden", "rejected", "overloaded", "unavailable", "deadline_exceeded", "model_failed", "malformed_message", CANCELLED,
    "other",
)  # fmt: skip
"""The error codes that can reach a client, and the one that cannot; what is none of them counts as `other`."""

ENDS = ("crash", "exit", "garbled", "hang", "killed", "oom")
"""How a process of a model that is code may end (`runtime.isolated`)."""

_LABEL_BYTES = 128
REQUESTS, ROWS, BATCHES, SHED, QUEUE_ROWS, QUEUE_REQUESTS, IN_PROGRESS, RESIDENT, LIMIT, TRACED, UNTRACED = range(11)
HTTP_OPEN, HTTP_ACCEPTED, GRPC_OPEN, GRPC_ACCEPTED = range(11, 15)
ENDED = {reason: 15 + index for index, reason in enumerate(ENDS)}
MIRRORED, MIRROR_SHED, MIRROR_FAILED, COMPARED, DISAGREED = range(15 + len(ENDS), 20 + len(ENDS))
_ERRORS = 20 + len(ENDS)
_TIMES = len(LATENCIES_S) + 2
LATENCY, PREPARE, QUEUE, PREDICT, ENCODE, EXPLAIN = range(_ERRORS + len(CODES), _ERRORS + len(CODES) + 6 * _TIMES, _TIMES)
BATCH = EXPLAIN + _TIMES
NUMBERS = BATCH + len(BATCH_ROWS) + 2
"""Places in a block: plain numbers; a count per error code (ERROR); histograms, each its buckets, one for what is above them, and the sum.

REQUESTS, ROWS and BATCHES are what the histograms already say: `read` fills them in, so that no answer has to.
"""

_LATENCY_SUM, _PREPARE_SUM, _QUEUE_SUM, _PREDICT_SUM, _ENCODE_SUM = (at + _TIMES - 1 for at in (LATENCY, PREPARE, QUEUE, PREDICT, ENCODE))
_BATCH_SUM = NUMBERS - 1
ERROR = {code: _ERRORS + index for index, code in enumerate(CODES)}
BLOCK_BYTES = _LABEL_BYTES + 8 * NUMBERS
GROWTH = 64


class Meter:
    """The numbers of one model version (or of the server itself) in one slot; written by one thread only."""

    __slots__ = ("_accepted", "_numbers", "_traced")

    def __init__(self, numbers: Any) -> None:  # a memoryview of doubles
        self._numbers = numbers
        self._traced = (0, 0)
        self._accepted = (0, 0)
        numbers[HTTP_OPEN] = numbers[GRPC_OPEN] = 0.0
        numbers[QUEUE_ROWS] = numbers[QUEUE_REQUESTS] = numbers[LIMIT] = numbers[IN_PROGRESS] = numbers[RESIDENT] = (
            0.0  # of a predecessor that is gone
        )

    def answered(self, latencies_s: list[float], rows: int, *, predict_s: float, prepare_s: float, encode_s: float) -> None:
        """Count one batch: a latency per request, its rows, the model's seconds, and the mean seconds of decoding and encoding one.

        What is left of the latencies is time in the queue.
        """
        numbers, count = self._numbers, len(latencies_s)
        total_s = sum(latencies_s)
        numbers[BATCH + bisect_left(BATCH_ROWS, rows)] += 1
        numbers[_BATCH_SUM] += rows
        queue_s = max(0.0, total_s / count - prepare_s - predict_s - encode_s * count)
        numbers[PREDICT + bisect_left(LATENCIES_S, predict_s)] += count
        numbers[_PREDICT_SUM] += predict_s * count
        numbers[PREPARE + bisect_left(LATENCIES_S, prepare_s)] += count
        numbers[_PREPARE_SUM] += prepare_s * count
        numbers[QUEUE + bisect_left(LATENCIES_S, queue_s)] += count
        numbers[_QUEUE_SUM] += queue_s * count
        numbers[ENCODE + bisect_left(LATENCIES_S, encode_s)] += count
        numbers[_ENCODE_SUM] += encode_s * count
        longest = shortest = bisect_left(LATENCIES_S, latencies_s[0])
        if count > 1:
            longest, shortest = bisect_left(LATENCIES_S, max(latencies_s)), bisect_left(LATENCIES_S, min(latencies_s))
        if longest == shortest:
            numbers[LATENCY + longest] += count
        else:
            for latency_s in latencies_s:
                numbers[LATENCY + bisect_left(LATENCIES_S, latency_s)] += 1
        numbers[_LATENCY_SUM] += total_s

    def failed(self, code: str) -> None:
        """Count one request that was refused or failed."""
        self._numbers[ERROR.get(code, ERROR["other"])] += 1
        if code == "overloaded":
            self._numbers[SHED] += 1

    def mirrored(self, *, sent: int = 0, shed: int = 0, failed: int = 0, rows: int = 0, disagreed: int = 0) -> None:
        """Count requests that were asked beside the champion (see `events.Mirror`)."""
        numbers = self._numbers
        numbers[MIRRORED] += sent
        numbers[MIRROR_SHED] += shed
        numbers[MIRROR_FAILED] += failed
        numbers[COMPARED] += rows
        numbers[DISAGREED] += disagreed

    def explained(self, seconds: float) -> None:
        """Count one explanation."""
        self._numbers[EXPLAIN + bisect_left(LATENCIES_S, seconds)] += 1
        self._numbers[EXPLAIN + len(LATENCIES_S) + 1] += seconds

    def ended(self, reason: str) -> None:
        """Count one process of the model that ended."""
        self._numbers[ENDED[reason]] += 1

    def connected(self, *, http: tuple[int, int], grpc: tuple[int, int]) -> None:
        """Say how many connections of each protocol are open, and how many this process has accepted so far."""
        numbers = self._numbers
        numbers[HTTP_OPEN], numbers[GRPC_OPEN] = http[0], grpc[0]
        was_http, was_grpc = self._accepted
        self._accepted = (http[1], grpc[1])
        numbers[HTTP_ACCEPTED] += http[1] - was_http
        numbers[GRPC_ACCEPTED] += grpc[1] - was_grpc

    def traced(self, *, sent: int, dropped: int) -> None:
        """Say how many requests of this process were traced so far, and how many traces were lost."""
        numbers, (was_sent, was_dropped) = self._numbers, self._traced
        self._traced = (sent, dropped)
        numbers[TRACED] += sent - was_sent
        numbers[UNTRACED] += dropped - was_dropped

    def gauge(
        self, *, queue_rows: int = 0, queue_requests: int = 0, concurrency_limit: int = 0, in_progress: int = 0, resident_bytes: int = 0
    ) -> None:
        """Say how things stand now."""
        numbers = self._numbers
        numbers[QUEUE_ROWS], numbers[QUEUE_REQUESTS], numbers[LIMIT] = queue_rows, queue_requests, concurrency_limit
        numbers[IN_PROGRESS], numbers[RESIDENT] = in_progress, resident_bytes


class Metrics:
    """The counters of one slot. Owned by its worker; `close` gives the file back, which stays for the successor."""

    def __init__(self, run: Path, slot: int) -> None:
        self._run = run
        self._path = _path(run, slot)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise translate(error, self._path) from error
        self._blocks = max(GROWTH, os.fstat(self._descriptor).st_size // BLOCK_BYTES)
        self._maps: list[mmap.mmap] = []
        self._map()
        self._meters: dict[bytes, Meter] = {}
        self.server = self.meter("", 0)

    def _map(self) -> None:
        try:
            held = os.fstat(self._descriptor).st_size
            # Written, not only lengthened: a full disk is an error here, and not a fault at some later count.
            os.pwrite(self._descriptor, bytes(max(0, self._blocks * BLOCK_BYTES - held)), held)
        except OSError as error:
            raise translate(error, self._path) from error
        self._maps.append(mmap.mmap(self._descriptor, self._blocks * BLOCK_BYTES))

    def meter(self, name: str, version: int) -> Meter:
        """The meter of version `version` of `name`; ("", 0) is the server's own. It counts on from where the slot's last worker stopped."""
        label = msgspec.json.encode([name, version]).ljust(_LABEL_BYTES, b" ")[:_LABEL_BYTES]
        if label in self._meters:
            return self._meters[label]
        for index in range(self._blocks + 1):
            if index == self._blocks:
                self._blocks += GROWTH
                self._map()
            at = index * BLOCK_BYTES
            found = self._maps[-1][at : at + _LABEL_BYTES]
            if found == label or not found.strip(b"\0"):
                self._maps[-1][at : at + _LABEL_BYTES] = label
                numbers = memoryview(self._maps[-1])[at + _LABEL_BYTES : at + BLOCK_BYTES].cast("d")
                self._meters[label] = Meter(numbers)
                break
        return self._meters[label]

    def sums(self, slots: Iterable[int]) -> dict[tuple[str, int], list[float]]:
        """The numbers of each model version (of the server itself under ("", 0)), summed over `slots`."""
        sums: dict[tuple[str, int], list[float]] = {}
        for slot in slots:
            for label, numbers in read(self._run, slot):
                old = sums.get(label)
                sums[label] = numbers if old is None else [first + second for first, second in zip(old, numbers, strict=True)]
        return sums

    def close(self) -> None:
        """Forget the maps; what was counted lies in the file."""
        self._meters.clear()
        os.close(self._descriptor)


def _path(run: Path, slot: int) -> Path:
    return run / f"metrics-{slot}.bin"


def read(run: Path, slot: int) -> Iterator[tuple[tuple[str, int], list[float]]]:
    """Each block of a slot: its label and its numbers. A slot that never counted has none."""
    try:
        data = _path(run, slot).read_bytes()
    except FileNotFoundError:
        return
    for at in range(0, len(data) - BLOCK_BYTES + 1, BLOCK_BYTES):
        label = data[at : at + _LABEL_BYTES].strip(b"\0 ")
        if not label:
            return
        name, version = msgspec.json.decode(label, type=tuple[str, int])
        numbers = list(memoryview(data)[at + _LABEL_BYTES : at + BLOCK_BYTES].cast("d"))
        numbers[REQUESTS], numbers[BATCHES], numbers[ROWS] = sum(numbers[LATENCY:_LATENCY_SUM]), sum(numbers[BATCH:_BATCH_SUM]), numbers[_BATCH_SUM]
        yield (name, version), numbers
