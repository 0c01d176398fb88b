"""The nouns that both planes share: what a model takes and gives, what should be served, and what was judged.

Hides the file forms of the plan and of a worker's state (JSON, replaced atomically). It must stay light: no numpy, no
network, no clock at import, because the supervisor and every `--help` load it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NewType, TypeVar

import msgspec

from modelyard.errors import DigestMismatch, InvalidInput, MalformedPayload, ModelyardError
from modelyard.files import read_limited, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Digest = NewType("Digest", str)
"""`sha256:` and 64 hex digits: of a bundle's OCI manifest (a model's only identity) or of any blob."""

Datatype = Literal["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BYTES"]
Task = Literal["classification", "regression", "other"]
Layout = Literal["frame", "array", "tensors"]
Tag = Literal["drop", "hash", "mask"]
Outcome = Literal["pass", "warn", "fail", "unknown"]
Scalar = str | int | float | bool

T = TypeVar("T")

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
PLAN_LIMIT_BYTES = 16 << 20


def learn(*rooms: str) -> None:
    """Have msgspec know every struct of these rooms that is loaded. For a process whose threads decode, before it starts them.

    It learns a type at the first use and shows it half learnt to a second thread, which ends the process (msgspec 0.22).
    """
    for kind in _structs(msgspec.Struct):
        if kind.__module__.startswith(rooms):
            with suppress(NameError, TypeError):  # one that is never decoded
                msgspec.json.Decoder(kind)


def _structs(kind: type[Any]) -> Iterator[type[Any]]:
    each: type[Any]
    for each in kind.__subclasses__():
        yield each
        yield from _structs(each)


def parse_digest(text: str) -> Digest:
    """`text` as a Digest. Raises DigestMismatch when it has another form."""
    if not _DIGEST.fullmatch(text):
        raise DigestMismatch("a digest is written sha256: and 64 hex digits")
    return Digest(text)


def parse_name(text: str) -> str:
    """`text` as a model or deployment name (a DNS label with dots and underscores). Raises InvalidInput."""
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            "a name has 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit",
            field="name",
            rule="name",
        )
    return text


def parse_sticky(text: str) -> tuple[Literal["header", "field"], str]:
    """Where the value stands by which requests stay with a version: (`header`, its name in small letters) or (`field`, an input's name).

    Raises InvalidInput for another form.
    """
    kind, _, name = text.partition(":")
    if kind == "header" and _HEADER.fullmatch(name):
        return "header", name.lower()
    if kind == "field" and name:
        return "field", name
    raise InvalidInput("a sticky key is written header:NAME or field:NAME", field="sticky", rule="form")


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One named tensor: what the data had, so what may come.

    `shape`: -1 is the batch or an open dimension. `minimum` and `maximum` are the observed range: one number per element of the last
    dimension (one for shape [-1] and [-1, 1]), empty for strings. `categories` are the observed values of a categorical or
    string column, sorted; with `unknown_allowed` others may come too. `is_nullable`: null (any type) and NaN (floats) mean missing.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    is_nullable: bool = False
    categories: tuple[Scalar, ...] | None = None
    unknown_allowed: bool = True
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    tag: Tag | None = None


class Schema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What goes in and comes out of a model.

    layout `frame`: one input per column, shape [-1, 1], in the frame's order; `array`: one input `X` [-1, n…]; `tensors`: the
    named inputs of a plain ONNX model. A classifier has outputs `label` [-1] and, where it has probabilities, `probability` [-1, k] with the
    order of `classes`; a regressor `prediction` [-1] or [-1, m].
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layout: Layout
    task: Task
    classes: tuple[Scalar, ...] | None = None


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """How far a converted or replayed answer may lie from the original's: `|Δ| <= absolute + relative · |original|`."""

    absolute: float = 1e-5
    relative: float = 1e-5


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The one noun for judgement: may we go on? `rule` names what was asked, `evidence` what was found, in a sentence.

    Where it judges data: `window` is from when to before when (seconds since 1970, UTC), `columns` are the guilty ones, the worst first, and `harm`
    is the estimated loss of the model's own figure (accuracy, or MAE relative to the reference's), 0 for none; None where nobody can tell.
    """

    outcome: Outcome
    rule: str
    evidence: str
    numbers: dict[str, float] = {}
    window: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    harm: float | None = None


class Principal(msgspec.Struct, frozen=True):
    """Who acts: `local:<user>`, `key:<id>`, …; a mandatory argument of every control verb. No `models` means every model."""

    name: str
    roles: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


ALONE = -1
"""The group of a request that stays with no version, and so is drawn for itself."""


class InferenceRequest:
    """The one internal form of a question: named numpy arrays; knows no wire.

    Arrays have the schema's names and shapes with the batch first, all of `rows` rows. Numbers have the numpy dtype of their datatype, except that
    a nullable BOOL or integer travels as float64; missing is NaN. BYTES are object arrays of `str`, missing is None.
    `deadline_s` is a time of the monotonic clock. `group` is there only where callers stay with a version by a field (`events.Callers`, or ALONE).
    """

    group: int

    __slots__ = ("deadline_s", "group", "id", "inputs", "outputs", "parameters", "principal", "rows")

    def __init__(self, inputs: Mapping[str, Array], rows: int, *, id: str = "", outputs: tuple[str, ...] | None = None) -> None:
        self.inputs = inputs
        self.rows = rows
        self.id = id
        self.outputs = outputs
        self.parameters: dict[str, Scalar] | None = None
        self.principal: Principal | None = None
        self.deadline_s: float | None = None


class InferenceResponse:
    """The one internal form of an answer: named numpy arrays in the schema's output order, and who gave them."""

    __slots__ = ("digest", "id", "name", "outputs", "rows", "version")

    def __init__(self, outputs: dict[str, Array], rows: int, *, name: str, version: int, digest: Digest, id: str) -> None:
        self.outputs = outputs
        self.rows = rows
        self.name = name
        self.version = version
        self.digest = digest
        self.id = id


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What each element of a row's inputs, in schema order and row-major, contributed to one number of its answer.

    `explained` names that number; `value` is what it is, `base` its mean over the background rows. Law: contributions sum to `value - base`.
    `standard_errors` are those of the contributions, zero where the method is exact.
    """

    explained: dict[str, Scalar]
    value: float
    base: float
    contributions: tuple[float, ...]
    standard_errors: tuple[float, ...]
    method: Literal["exact", "sampled"]
    background_rows: int
    evaluations: int


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a bundle's bytes lie on this host: a folder of blobs (`<blobs>/sha256/<hex>`) and the digest of its OCI index in it."""

    blobs: str
    index: Digest


class TrafficPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who answers for one deployment. Weights sum to 100; digests in `hold` are ready and reachable by version, at weight 0.

    `versions` gives the registry's number for every digest named. `champion` is the release by whose schema requests are read and with which the
    others are compared, through a whole rollout (None: that of the largest weight, the first among equals). Of the requests that it answers,
    `shadows` are asked a share too, above 0 to 1, and their answers go nowhere. `sticky` (`header:NAME` or `field:NAME`) sends requests that have the
    same value there to the same version. `url` is what a platform that asked for the model called its place.
    Laws: `tests/property/test_traffic_plan.py`.
    """

    name: str
    generation: int
    weights: dict[Digest, int]
    versions: dict[Digest, int]
    hold: tuple[Digest, ...] = ()
    shadows: dict[Digest, float] = {}
    sticky: str | None = None
    champion: Digest | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if sum(self.weights.values()) != 100 or any(not 0 < weight <= 100 for weight in self.weights.values()):
            raise InvalidInput("the weights of a plan are above 0 and sum to 100", field="weights", rule="sum")
        if set(self.digests) != set(self.versions):
            raise InvalidInput("a plan gives a version for each digest that it names", field="versions", rule="complete")
        if not all(0 < share <= 1 for share in self.shadows.values()):
            raise InvalidInput("a shadow is asked a share above 0, at most 1, of the champion's requests", field="shadows", rule="share")
        if self.sticky is not None:
            parse_sticky(self.sticky)

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Every digest that must be loaded, weighted ones first, each once."""
        champion = () if self.champion is None else (self.champion,)
        return tuple(dict.fromkeys((*self.weights, *champion, *self.hold, *self.shadows)))


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All plans of one host under one sequence number; the single value by which control moves the data plane."""

    sequence: int
    plans: tuple[TrafficPlan, ...]
    placements: dict[Digest, Placement]

    def __post_init__(self) -> None:
        named = {digest for plan in self.plans for digest in plan.digests}
        if not named <= set(self.placements):
            raise InvalidInput("a host plan places each digest that it names", field="placements", rule="complete")
        if len({plan.name for plan in self.plans}) != len(self.plans):
            raise InvalidInput("a name stands once in a host plan", field="plans", rule="unique")


class ModelState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one worker says of one digest; a failed one says why."""

    state: Literal["loading", "ready", "failed"]
    verdict: Verdict | None = None

    @property
    def failure(self) -> Verdict | None:
        """Why it should not serve: it could not be loaded, or it is ready and its processes keep ending; None where nothing says so."""
        if self.state == "failed":
            return self.verdict or Verdict(outcome="fail", rule="load", evidence="a worker could not load the model")
        return self.verdict if self.verdict is not None and self.verdict.outcome == "fail" else None


class WorkerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one worker says of itself: `sequence` is the newest plan that it has applied (0: none yet), `adopted` the newest that it works towards.

    `missing` are the deployments that it should answer and cannot; `is_ready` says that it has applied a plan, or found that there is none.
    """

    slot: int
    pid: int
    sequence: int
    models: dict[Digest, ModelState] = {}
    missing: tuple[str, ...] = ()
    is_ready: bool = False
    adopted: int = 0

    def has_seen(self, sequence: int) -> bool:
        """Whether what it says of a digest is said under the plan of `sequence`, or a later one."""
        return max(self.adopted, self.sequence) >= sequence


class ServeState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the serve supervisor says of itself: its slots whose worker lives, and where it listens (`grpc_port` -1: not for gRPC).

    `size` is how many slots there are; `is_up` says that all of them had a worker that was ready, once since the start; `trouble`, why a worker could
    not be started at the last try.
    """

    pid: int
    host: str
    port: int
    grpc_port: int = -1
    slots: tuple[int, ...]
    started_at: str
    scheme: Literal["http", "https"] = "http"
    size: int = 0
    is_up: bool = False
    trouble: str = ""

    @property
    def _seen_host(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"[{host}]" if ":" in host else host

    @property
    def url(self) -> str:
        """Where the data plane answers, as seen from this machine."""
        return f"{self.scheme}://{self._seen_host}:{self.port}"

    @property
    def grpc(self) -> str | None:
        """Where it answers gRPC, as seen from this machine; None where it does not."""
        return f"{self._seen_host}:{self.grpc_port}" if self.grpc_port > 0 else None


class ControlState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the control process said of itself at its start: where its API listens, and what kept it from opening its store, if anything did.

    Its access key lies elsewhere, in a file of mode 0600.
    """

    pid: int
    url: str
    started_at: str
    waits: str = ""


def write_plan(path: Path, plan: HostPlan) -> None:
    """Replace the plan file atomically. Raises StorageFull or InvalidConfig."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(plan, order="sorted"), indent=1))


def read_plan(path: Path) -> HostPlan:
    """The plan in `path`. Raises NotFound, or MalformedPayload when it is not a plan."""
    return _read(path, HostPlan)


def write_worker_state(run: Path, state: WorkerState) -> None:
    """Replace `run/worker-<slot>.json` atomically."""
    write_atomically(run / f"worker-{state.slot}.json", msgspec.json.encode(state))


def read_worker_state(run: Path, slot: int) -> WorkerState:
    """What the worker of `slot` last said. Raises NotFound or MalformedPayload."""
    return _read(run / f"worker-{slot}.json", WorkerState)


def write_serve_state(run: Path, state: ServeState) -> None:
    """Replace `run/serve.json` atomically."""
    write_atomically(run / "serve.json", msgspec.json.encode(state))


def read_serve_state(run: Path) -> ServeState:
    """What the supervisor last said. Raises NotFound or MalformedPayload."""
    return _read(run / "serve.json", ServeState)


def write_control_state(run: Path, state: ControlState) -> None:
    """Replace `run/control.json` atomically."""
    write_atomically(run / "control.json", msgspec.json.encode(state))


def read_control_state(run: Path) -> ControlState:
    """What the control process last said. Raises NotFound or MalformedPayload."""
    return _read(run / "control.json", ControlState)


def write_unstarted(run: Path, process: str, why: str) -> None:
    """Say in `run` why `process`, `serve` or `control`, cannot be started now; nothing where it can be. Raises StorageFull or InvalidConfig."""
    path = run / f"{process}.unstarted"
    if why:
        write_atomically(path, why.encode(), durable=False)
    else:
        path.unlink(missing_ok=True)


def read_unstarted(run: Path, process: str) -> str:
    """Why `process` cannot be started now, as its parent last said; empty where it said nothing."""
    try:
        return read_limited(run / f"{process}.unstarted", 1024).decode("utf-8", "replace")
    except ModelyardError:
        return ""


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(read_limited(path, PLAN_LIMIT_BYTES), type=kind)
    except (msgspec.MsgspecError, InvalidInput) as error:
        raise MalformedPayload(f"{path.name} is not a {kind.__name__} of this release") from error
