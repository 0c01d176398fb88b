"""What guards read, and what each metric finds in it.

Hides nothing; the vocabulary between `judge` and the metrics. It must hold no statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from modelyard.types import Array, Verdict


class Mirror(Protocol):
    """What became of mirrored requests (`events.Mirror`)."""

    @property
    def sent(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def disagreed(self) -> int: ...
    @property
    def latencies(self) -> Mapping[int, int]: ...
    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]: ...


class Blocks(Protocol):
    """How answered requests lay together in time (`monitor.evidence.Blocks`)."""

    @property
    def count(self) -> int: ...
    @property
    def squares(self) -> Mapping[int, int]: ...
    @property
    def products(self) -> Mapping[int, int]: ...


class Callers(Protocol):
    """How requests lie among groups of callers (`events.Callers`)."""

    @property
    def asked(self) -> Mapping[int, int]: ...
    @property
    def failed(self) -> Mapping[int, int]: ...
    @property
    def took(self) -> Mapping[int, int]: ...
    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]: ...


class Seen(Protocol):
    """Cumulative counts of one version in one generation (`monitor.evidence.Seen`); `errors` are among the `requests`."""

    @property
    def requests(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def latencies(self) -> Mapping[int, int]: ...
    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def mirror(self) -> Mirror: ...
    @property
    def blocks(self) -> Blocks: ...
    @property
    def callers(self) -> Callers: ...


class Labelled(Protocol):
    """Predictions whose truth is known, a row each: `truth`, `predicted` (label or number), `score` (of the second of two classes, else empty) and
    `groups` (of callers, -1 where one keeps to no version; or empty).
    """

    @property
    def truth(self) -> Array: ...
    @property
    def predicted(self) -> Array: ...
    @property
    def score(self) -> Array: ...
    @property
    def groups(self) -> Array: ...


class Samples(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a gauge was asked: `taken` answers, of which `broken` lay beyond the bound; the last values; `failed` asked in vain."""

    taken: int = 0
    broken: int = 0
    failed: int = 0
    value: float | None = None
    champion: float | None = None


class Stratum(NamedTuple):
    """The evidence of one generation, champion's and candidate's: all that was counted while the weights stood.

    `is_shadow`: the candidate answers nobody, so what counts are its mirrored requests. Labels belong to a stratum by the time of the prediction.
    `samples` are the guard's own, `golden` is the readiness of the candidate's workers.
    """

    champion: Seen
    candidate: Seen
    is_shadow: bool = False
    champion_labels: Labelled | None = None
    candidate_labels: Labelled | None = None
    samples: Samples | None = None
    golden: Verdict | None = None


class Finding(NamedTuple):
    """What a metric found. Evidence is the logarithm of an e-process over all steps, were the last step's counts so many times what they are.

    `estimate`, `champion` and the limits are of the last step that has any (NaN: none). `broken_before` says that the champion breaks an absolute
    bound too; then `worse` is the evidence that the candidate is worse than the champion. `least` is how many `units` it takes to say anything.
    `worth` is there where callers keep to a version: as how many units of different callers those of either version count.
    """

    estimate: float
    champion: float
    limits: tuple[float, float]
    units: str
    requests: float
    champion_requests: float
    failing: Callable[[float], float]
    passing: Callable[[float], float]
    worse: Callable[[], float] | None = None
    broken_before: bool = False
    least: float = 0.0
    worth: tuple[float, float] | None = None
