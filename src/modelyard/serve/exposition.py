"""What was counted, in Prometheus' text form (0.0.4): under our own names always, and beside them in one dialect that dashboards already read.

Hides the names, labels, units and types of KServe, MLServer, Triton and TensorFlow Serving. All of it is derived from the same sums of counters when
Prometheus asks. It must not invent: what a dialect has and we do not measure is left out (docs/reference.md lists it). Sources: kserve `metrics.py`;
MLServer `dataplane.py` and its metrics page; Triton's metrics page; TensorFlow Serving `servables/tensorflow/util.cc`, `prometheus_exporter.cc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from modelyard import metrics
from modelyard.serve.metrics import (
    BATCH,
    BATCH_ROWS,
    BATCHES,
    COMPARED,
    DISAGREED,
    ENCODE,
    ENDED,
    ERROR,
    EXPLAIN,
    GRPC_ACCEPTED,
    GRPC_OPEN,
    HTTP_ACCEPTED,
    HTTP_OPEN,
    IN_PROGRESS,
    LATENCIES_S,
    LATENCY,
    LIMIT,
    MIRROR_FAILED,
    MIRROR_SHED,
    MIRRORED,
    NUMBERS,
    PREDICT,
    PREPARE,
    QUEUE,
    QUEUE_REQUESTS,
    QUEUE_ROWS,
    REQUESTS,
    RESIDENT,
    ROWS,
    SHED,
    TRACED,
    UNTRACED,
)

Numbers = Sequence[float]
Sums = Mapping[tuple[str, int], Numbers]

STAGES = {"decode": PREPARE, "queue": QUEUE, "predict": PREDICT, "encode": ENCODE}
"""Where a request's time goes; together they are its duration."""

TF_STATUS = {
    "internal": "INTERNAL",
    "invalid_input": "INVALID_ARGUMENT",
    "schema_mismatch": "INVALID_ARGUMENT",
    "malformed_payload": "INVALID_ARGUMENT",
    "payload_too_large": "RESOURCE_EXHAUSTED",
    "unsupported_media": "INVALID_ARGUMENT",
    "not_found": "NOT_FOUND",
    "conflict": "ABORTED",
    "denied": "PERMISSION_DENIED",
    "unauthenticated": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "rejected": "FAILED_PRECONDITION",
    "overloaded": "RESOURCE_EXHAUSTED",
    "unavailable": "UNAVAILABLE",
    "deadline_exceeded": "DEADLINE_EXCEEDED",
    "model_failed": "INTERNAL",
    "malformed_message": "INVALID_ARGUMENT",
    "cancelled": "CANCELLED",
    "other": "UNKNOWN",
}
TRITON_REASONS = {"overloaded": "REJECTED", "deadline_exceeded": "REJECTED", "cancelled": "CANCELED", "model_failed": "BACKEND"}
"""What is none of them is OTHER."""


class Text:
    """Lines of the exposition. A family is written once, with all its samples."""

    def __init__(self, sums: Sums) -> None:
        self.lines: list[str] = []
        self.server: Numbers = sums.get(("", 0), [0.0] * NUMBERS)
        self.models = sorted((key, numbers) for key, numbers in sums.items() if key != ("", 0))

    def family(self, name: str, kind: str, says: str, samples: Iterable[tuple[str, float]]) -> None:
        """A counter or gauge. Samples are (labels, value)."""
        self.lines += [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]
        self.lines += [f"{name}{{{labels}}} {value:.17g}" if labels else f"{name} {value:.17g}" for labels, value in samples]

    def ours(self, name: str, samples: Iterable[tuple[str, float]]) -> None:
        """A counter or gauge of our table."""
        self.lines += metrics.family(name, samples)

    def our_head(self, name: str) -> None:
        """The head of a family of our table whose samples follow."""
        self.lines += metrics.head(name, metrics.METRICS[name].kind, metrics.METRICS[name].says)

    def our_histogram(self, name: str, at: int, labels: Callable[[tuple[str, int]], str]) -> None:
        """A histogram of our table, of seconds, per version."""
        self.histogram(name, metrics.METRICS[name].says, at, labels)

    def head(self, name: str, kind: str, says: str) -> None:
        """The head of a family whose samples follow."""
        self.lines += [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]

    def buckets(self, name: str, labels: str, numbers: Numbers, bounds: Sequence[float], *, scale: float = 1.0) -> None:
        """The samples of one histogram, `numbers` beginning with its first bucket; none where nothing was observed."""
        total = 0.0
        counts = []
        for count in numbers[: len(bounds) + 1]:
            total += count
            counts.append(total)
        if not total:
            return
        edges = (*(f"{bound * scale:.12g}" for bound in bounds), "+Inf")
        self.lines += [f'{name}_bucket{{{labels},le="{edge}"}} {count:.17g}' for edge, count in zip(edges, counts, strict=True)]
        self.lines += [f"{name}_sum{{{labels}}} {numbers[len(bounds) + 1] * scale:.17g}", f"{name}_count{{{labels}}} {total:.17g}"]

    def histogram(self, name: str, says: str, at: int, labels: Callable[[tuple[str, int]], str]) -> None:
        """A histogram of seconds, per version."""
        self.head(name, "histogram", says)
        for key, numbers in self.models:
            self.buckets(name, labels(key), numbers[at:], LATENCIES_S)


def render(sums: Sums, *, dialect: str = "none", degraded: Mapping[str, int] | None = None) -> bytes:
    """`sums` by (model, version), those of the server itself under ("", 0), in our names and those of `dialect`, if it is one.

    `degraded` counts what is less than whole, by reason.
    """
    text = Text(sums)
    _ours(text)
    reasons = [(f'reason="{reason}"', count) for reason, count in (degraded or {}).items()]
    text.ours("modelyard_degraded", reasons)
    if dialect in DIALECTS:
        DIALECTS[dialect](text)
    return ("\n".join(text.lines) + "\n").encode()


def _named(key: tuple[str, int]) -> str:
    return f'model_name="{key[0]}",model_version="{key[1]}"'


def _triton(key: tuple[str, int]) -> str:
    return f'model="{key[0]}",version="{key[1]}"'


def _failures(numbers: Numbers) -> float:
    return sum(numbers[at] for at in ERROR.values())


def _sum_s(numbers: Numbers, at: int) -> float:
    return numbers[at + len(LATENCIES_S) + 1]


def _by_name(text: Text) -> dict[str, list[float]]:
    """The sums over each model's versions, for dialects that know no versions."""
    found: dict[str, list[float]] = {}
    for (name, _), numbers in text.models:
        before = found.get(name)
        found[name] = list(numbers) if before is None else [first + second for first, second in zip(before, numbers, strict=True)]
    return found


def _ours(text: Text) -> None:
    def per_model(at: int) -> list[tuple[str, float]]:
        return [(_named(key), numbers[at]) for key, numbers in text.models]

    server = text.server
    text.ours("modelyard_requests_total", per_model(REQUESTS))
    text.ours("modelyard_predictions_total", per_model(ROWS))
    text.ours("modelyard_batches_total", per_model(BATCHES))
    by_code = [(f'{_named(key)},code="{code}"', numbers[at]) for key, numbers in text.models for code, at in ERROR.items() if numbers[at]]
    unrouted = [(f'model_name="",model_version="",code="{code}"', server[at]) for code, at in ERROR.items() if server[at]]
    text.ours("modelyard_errors_total", by_code + unrouted)
    text.ours("modelyard_shed_total", per_model(SHED))
    text.ours("modelyard_queue_rows", per_model(QUEUE_ROWS))
    text.ours("modelyard_queue_requests", per_model(QUEUE_REQUESTS))
    text.ours("modelyard_concurrency_limit", per_model(LIMIT))
    text.ours("modelyard_in_flight_requests", [("", server[IN_PROGRESS])])
    text.ours("modelyard_resident_bytes", [("", server[RESIDENT])])
    isolated = [(_named(key), numbers[RESIDENT]) for key, numbers in text.models if numbers[RESIDENT]]
    text.ours("modelyard_isolated_resident_bytes", isolated)
    ends = [(f'{_named(key)},reason="{reason}"', numbers[at]) for key, numbers in text.models for reason, at in ENDED.items() if numbers[at]]
    text.ours("modelyard_isolated_ends_total", ends)
    opened = [('protocol="http"', server[HTTP_OPEN]), ('protocol="grpc"', server[GRPC_OPEN])]
    text.ours("modelyard_connections", opened)
    accepted = [('protocol="http"', server[HTTP_ACCEPTED]), ('protocol="grpc"', server[GRPC_ACCEPTED])]
    text.ours("modelyard_connections_accepted_total", accepted)
    mirrors = [(_named(key), numbers) for key, numbers in text.models if numbers[MIRRORED] or numbers[MIRROR_SHED]]
    asked = [
        (f'{labels},outcome="{outcome}"', value)
        for labels, each in mirrors
        for outcome, value in {"answered": each[MIRRORED] - each[MIRROR_FAILED], "failed": each[MIRROR_FAILED], "shed": each[MIRROR_SHED]}.items()
    ]
    text.ours("modelyard_mirrored_requests_total", asked)
    compared = [
        (f'{labels},outcome="{outcome}"', value)
        for labels, each in mirrors
        for outcome, value in {"agreed": each[COMPARED] - each[DISAGREED], "disagreed": each[DISAGREED]}.items()
    ]
    text.ours("modelyard_mirrored_rows_total", compared)
    traced = [('outcome="sent"', server[TRACED]), ('outcome="dropped"', server[UNTRACED])]
    text.ours("modelyard_traces_total", traced)
    text.our_histogram("modelyard_request_duration_seconds", LATENCY, _named)
    text.our_head("modelyard_stage_duration_seconds")
    for key, numbers in text.models:
        for stage, at in STAGES.items():
            text.buckets("modelyard_stage_duration_seconds", f'{_named(key)},stage="{stage}"', numbers[at:], LATENCIES_S)
    text.our_histogram("modelyard_explain_duration_seconds", EXPLAIN, _named)
    text.our_head("modelyard_batch_rows")
    for key, numbers in text.models:
        text.buckets("modelyard_batch_rows", _named(key), numbers[BATCH:], BATCH_ROWS)


def _kserve(text: Text) -> None:
    families = {
        "request_preprocess_seconds": ("pre-process request latency: decoding", PREPARE),
        "request_predict_seconds": ("predict request latency: the model's run", PREDICT),
        "request_postprocess_seconds": ("post-process request latency: encoding", ENCODE),
        "request_explain_seconds": ("explain request latency", EXPLAIN),
    }
    models = _by_name(text)
    for name, (says, at) in families.items():
        text.head(name, "histogram", says)
        for model, numbers in models.items():
            text.buckets(name, f'model_name="{model}"', numbers[at:], LATENCIES_S)


def _mlserver(text: Text) -> None:
    # Both pairs of labels: MLServer's code has model and version, its documentation model_name and model_version.
    labels = {key: f"{_triton(key)},{_named(key)}" for key, _ in text.models}
    answered = [(labels[key], numbers[REQUESTS]) for key, numbers in text.models]
    text.family("model_infer_request_success_total", "counter", "Model infer request success count", answered)
    failed = [(labels[key], _failures(numbers)) for key, numbers in text.models]
    text.family("model_infer_request_failure_total", "counter", "Model infer request failure count", failed)
    text.head("model_infer_request_duration", "summary", "Model infer request duration")
    for key, numbers in text.models:
        text.lines.append(f"model_infer_request_duration_count{{{labels[key]}}} {numbers[REQUESTS]:.17g}")
        text.lines.append(f"model_infer_request_duration_sum{{{labels[key]}}} {_sum_s(numbers, LATENCY):.17g}")
    text.family("rest_server_requests_in_progress", "gauge", "Requests in progress", [("", text.server[IN_PROGRESS])])


def _triton_dialect(text: Text) -> None:
    def family(name: str, says: str, value: Callable[[Numbers], float], kind: str = "counter") -> None:
        text.family(name, kind, says, [(_triton(key), value(numbers)) for key, numbers in text.models])

    family("nv_inference_request_success", "Number of successful inference requests, all batch sizes", lambda numbers: numbers[REQUESTS])
    failures: list[tuple[str, float]] = []
    for key, numbers in text.models:
        by_reason = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0.0)
        for code, at in ERROR.items():
            by_reason[TRITON_REASONS.get(code, "OTHER")] += numbers[at]
        failures += [(f'{_triton(key)},reason="{reason}"', count) for reason, count in by_reason.items()]
    text.family("nv_inference_request_failure", "counter", "Number of failed inference requests, all batch sizes", failures)
    family("nv_inference_count", "Number of inferences performed (rows)", lambda numbers: numbers[ROWS])
    family("nv_inference_exec_count", "Number of model executions performed", lambda numbers: numbers[BATCHES])
    family("nv_inference_pending_request_count", "Instantaneous number of pending requests", lambda numbers: numbers[QUEUE_REQUESTS], "gauge")
    durations = {
        "request": ("Cumulative inference request duration in microseconds", LATENCY),
        "queue": ("Cumulative inference queuing duration in microseconds", QUEUE),
        "compute_input": ("Cumulative compute input duration in microseconds: decoding", PREPARE),
        "compute_infer": ("Cumulative compute inference duration in microseconds", PREDICT),
        "compute_output": ("Cumulative compute output duration in microseconds: encoding", ENCODE),
    }
    for part, (says, place) in durations.items():
        family(f"nv_inference_{part}_duration_us", says, lambda numbers, at=place: round(_sum_s(numbers, at) * 1e6))  # type: ignore[misc]


def _tfserving(text: Text) -> None:
    prefix = ":tensorflow:serving:"
    models = _by_name(text)
    counts: list[tuple[str, float]] = []
    for model, numbers in models.items():
        by_status = {"OK": numbers[REQUESTS]}
        for code, at in ERROR.items():
            by_status[TF_STATUS[code]] = by_status.get(TF_STATUS[code], 0.0) + numbers[at]
        counts += [(f'model_name="{model}",status="{status}"', count) for status, count in by_status.items() if count or status == "OK"]
    text.family(f"{prefix}request_count", "counter", "The total number of requests.", counts)
    examples = [(f'model="{model}"', numbers[ROWS]) for model, numbers in models.items()]
    text.family(f"{prefix}request_example_count_total", "counter", "The total number of tensorflow.Examples (rows).", examples)
    times = {
        "request_latency": ("Distribution of wall time (in microseconds) for requests that were answered.", LATENCY, ',API="predict",status="OK"'),
        "runtime_latency": ("Distribution of wall time (in microseconds) for the model's run.", PREDICT, ',API="predict"'),
        "batching_session:queuing_latency": ("Distribution of time (in microseconds) that requests wait for a batch.", QUEUE, ""),
    }
    for name, (says, at, more) in times.items():
        text.head(prefix + name, "histogram", says)
        for model, numbers in models.items():
            text.buckets(prefix + name, f'model_name="{model}"{more}', numbers[at:], LATENCIES_S, scale=1e6)
    text.head(f"{prefix}batching_session:processed_batch_size", "histogram", "Rows of a run.")
    for model, numbers in models.items():
        text.buckets(f"{prefix}batching_session:processed_batch_size", f'model_name="{model}"', numbers[BATCH:], BATCH_ROWS)
    runs = [(f'model_name="{model}"', numbers[BATCHES]) for model, numbers in models.items()]
    text.family(f"{prefix}batching_session:wrapped_run_count", "counter", "Runs of the model.", runs)


DIALECTS: dict[str, Callable[[Text], None]] = {"kserve": _kserve, "mlserver": _mlserver, "triton": _triton_dialect, "tfserving": _tfserving}
"""By the value of `metrics_dialect`."""
