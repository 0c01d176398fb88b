"""Counters that are right with many workers: one mapped file per slot, which a slot's next worker continues and any worker can sum.

Hides the file's layout and Prometheus' text form. Names follow what dashboards for MLServer and KServe already read, beside ours. It must not
know HTTP, and its hot calls touch a few numbers each.
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

LATENCIES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CANCELLED = "cancelled"
"""What a request whose caller went away before its answer counts as."""

CODES = (
    "internal", "invalid_input", "schema_mismatch", "malformed_payload", "payload_too_large", "unsupported_media", "not_found", "conflict", "denied",
    "unauthenticated", "forbidden", "rejected", "overloaded", "unavailable", "deadline_exceeded", "model_failed", "malformed_message", CANCELLED,
    "other",
)  # fmt: skip
"""The error codes that can reach a client, and the one that cannot; what is none of them counts as `other`."""

_LABEL_BYTES = 128
_REQUESTS, _ROWS, _BATCHES, _SHED, _QUEUE_ROWS, _IN_PROGRESS, _RESIDENT, _LIMIT = range(8)
_ERRORS = 8
_LATENCY = _ERRORS + len(CODES)
_PREDICT = _LATENCY + len(LATENCIES_S) + 2
_PREPARE = _PREDICT + len(LATENCIES_S) + 2
_BATCH = _PREPARE + len(LATENCIES_S) + 2
_NUMBERS = _BATCH + len(BATCH_ROWS) + 2
BLOCK_BYTES = _LABEL_BYTES + 8 * _NUMBERS
GROWTH = 64
_INDEX = {code: _ERRORS + index for index, code in enumerate(CODES)}


class Meter:
    """The numbers of one model version (or of the server itself) in one slot; written by one thread only."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: Any) -> None:  # a memoryview of doubles
        self._numbers = numbers
        numbers[_QUEUE_ROWS] = numbers[_LIMIT] = numbers[_IN_PROGRESS] = 0.0  # of a predecessor that is gone

    def answered(self, latencies_s: list[float], rows: int, predict_s: float, prepare_s: float) -> None:
        """Count one batch: a latency per request (longest first), its rows, the model's seconds and the mean seconds of decoding."""
        numbers, count = self._numbers, len(latencies_s)
        numbers[_REQUESTS] += count
        numbers[_ROWS] += rows
        numbers[_BATCHES] += 1
        numbers[_BATCH + bisect_left(BATCH_ROWS, rows)] += 1
        numbers[_BATCH + len(BATCH_ROWS) + 1] += rows
        numbers[_PREDICT + bisect_left(LATENCIES_S, predict_s)] += count
        numbers[_PREDICT + len(LATENCIES_S) + 1] += predict_s * count
        numbers[_PREPARE + bisect_left(LATENCIES_S, prepare_s)] += count
        numbers[_PREPARE + len(LATENCIES_S) + 1] += prepare_s * count
        longest, shortest = bisect_left(LATENCIES_S, latencies_s[0]), bisect_left(LATENCIES_S, latencies_s[-1])
        if longest == shortest:
            numbers[_LATENCY + longest] += count
        else:
            for latency_s in latencies_s:
                numbers[_LATENCY + bisect_left(LATENCIES_S, latency_s)] += 1
        numbers[_LATENCY + len(LATENCIES_S) + 1] += sum(latencies_s)

    def failed(self, code: str) -> None:
        """Count one request that was refused or failed."""
        self._numbers[_INDEX.get(code, _INDEX["other"])] += 1
        if code == "overloaded":
            self._numbers[_SHED] += 1

    def gauge(self, *, queue_rows: int = 0, concurrency_limit: int = 0, in_progress: int = 0, resident_bytes: int = 0) -> None:
        """Say how things stand now."""
        numbers = self._numbers
        numbers[_QUEUE_ROWS], numbers[_LIMIT], numbers[_IN_PROGRESS], numbers[_RESIDENT] = queue_rows, concurrency_limit, in_progress, resident_bytes


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

    def text(self, slots: Iterable[int]) -> bytes:
        """The sum over `slots` in Prometheus' text form (0.0.4)."""
        sums: dict[tuple[str, int], list[float]] = {}
        for slot in slots:
            for label, numbers in read(self._run, slot):
                old = sums.get(label)
                sums[label] = numbers if old is None else [first + second for first, second in zip(old, numbers, strict=True)]
        return _render(sums).encode()

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
        yield (name, version), list(memoryview(data)[at + _LABEL_BYTES : at + BLOCK_BYTES].cast("d"))


def _render(sums: dict[tuple[str, int], list[float]]) -> str:
    lines: list[str] = []
    server = sums.pop(("", 0), [0.0] * _NUMBERS)
    models = sorted(sums.items())
    labels = {key: f'model_name="{key[0]}",model_version="{key[1]}"' for key, _ in models}

    def family(name: str, kind: str, says: str, samples: Iterable[tuple[str, float]]) -> None:
        lines.append(f"# HELP {name} {says}")
        lines.append(f"# TYPE {name} {kind}")
        for label, value in samples:
            lines.append(f"{name}{{{label}}} {value:.17g}" if label else f"{name} {value:.17g}")

    def histogram(name: str, says: str, at: int, bounds: tuple[float, ...]) -> None:
        lines.append(f"# HELP {name} {says}")
        lines.append(f"# TYPE {name} histogram")
        for key, numbers in models:
            total = 0.0
            for index, bound in enumerate((*bounds, "+Inf")):
                total += numbers[at + index]
                lines.append(f'{name}_bucket{{{labels[key]},le="{bound}"}} {total:.17g}')
            lines.append(f"{name}_sum{{{labels[key]}}} {numbers[at + len(bounds) + 1]:.17g}")
            lines.append(f"{name}_count{{{labels[key]}}} {total:.17g}")

    def per_model(at: int) -> list[tuple[str, float]]:
        return [(labels[key], numbers[at]) for key, numbers in models]

    failures = [(key, sum(numbers[_ERRORS:_LATENCY])) for key, numbers in models]
    family("modelyard_requests_total", "counter", "Requests answered with a prediction.", per_model(_REQUESTS))
    family("modelyard_predictions_total", "counter", "Rows predicted.", per_model(_ROWS))
    family("modelyard_batches_total", "counter", "Runs of the model.", per_model(_BATCHES))
    by_code = [(f'{labels[key]},code="{code}"', numbers[_INDEX[code]]) for key, numbers in models for code in CODES if numbers[_INDEX[code]]]
    unrouted = [(f'model_name="",model_version="",code="{code}"', server[_INDEX[code]]) for code in CODES if server[_INDEX[code]]]
    family("modelyard_errors_total", "counter", "Requests refused or failed, by error code.", by_code + unrouted)
    family("modelyard_shed_total", "counter", "Requests refused to protect those already in.", per_model(_SHED))
    family("modelyard_queue_rows", "gauge", "Rows waiting for the model.", per_model(_QUEUE_ROWS))
    family("modelyard_concurrency_limit", "gauge", "Requests that the workers hold at once before they shed.", per_model(_LIMIT))
    family("modelyard_in_flight_requests", "gauge", "Requests without an answer yet.", [("", server[_IN_PROGRESS])])
    family("modelyard_resident_bytes", "gauge", "Memory of all workers.", [("", server[_RESIDENT])])
    histogram("modelyard_request_duration_seconds", "From the request's last byte to its answer.", _LATENCY, LATENCIES_S)
    histogram("modelyard_batch_rows", "Rows of a run.", _BATCH, BATCH_ROWS)
    family("model_infer_request_success", "counter", "As MLServer counts.", per_model(_REQUESTS))
    family("model_infer_request_failure", "counter", "As MLServer counts.", [(labels[key], value) for key, value in failures])
    histogram("request_preprocess_seconds", "As KServe measures: decoding.", _PREPARE, LATENCIES_S)
    histogram("request_predict_seconds", "As KServe measures: the model's run.", _PREDICT, LATENCIES_S)
    return "\n".join(lines) + "\n"
