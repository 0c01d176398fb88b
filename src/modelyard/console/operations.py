"""What the control API can do, as values: one `Operation` per method and route.

Hides nothing of HTTP but how bytes come and go: an operation says what it takes and gives as types, and a plain function does it. The same values
make the routes, the checks and the OpenAPI document, so that none of them can say something else than the others. Who may call what stands in
`security.policy`, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from modelyard.control.once import Effect
from modelyard.control.plane import ControlPlane
from modelyard.control.status import Status
from modelyard.errors import InvalidInput
from modelyard.types import Principal

PREFIX = "/api/v1"
BODY_LIMIT_BYTES = 64 << 10
"""Of a JSON body, where an operation names no other."""

BYTES = "application/octet-stream"
LIMIT = 1000
"""The longest list that one answer holds."""


def in_utc(at: datetime, field: str) -> datetime:
    """`at` in UTC, which is meant where it names no zone. Raises InvalidInput for a time that is in no year of UTC's calendar."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput("a time is between the years 1 and 9999 of UTC", field=field, rule="range") from error


class World(NamedTuple):
    """What operations act on. `status` gives the running world; `changed` is called after each change, so that the driver looks at once; `failing` is
    what the control process cannot do now, and why.
    """

    plane: ControlPlane
    status: Callable[[], Status]
    changed: Callable[[], None]
    failing: Callable[[], Mapping[str, str]] = dict


class Call(NamedTuple):
    """One request, parsed: `path` are the route's parameters, `query` and `body` of the operation's types (bytes of one that takes them), `upload` a
    file of what was sent.
    """

    world: World
    who: Principal
    path: dict[str, str]
    query: Any = None
    body: Any = None
    if_match: int | None = None
    upload: Path | None = None

    @property
    def plane(self) -> ControlPlane:
        """The verbs."""
        return self.world.plane

    @property
    def file(self) -> Path:
        """What was uploaded. Raises InvalidInput where nothing was."""
        if self.upload is None:
            raise InvalidInput("this route takes a bundle as its body", rule="body")
        return self.upload

    @property
    def name(self) -> str:
        """The model or deployment that the path names."""
        return self.path["name"]

    @property
    def expected_generation(self) -> int | None:
        """The generation that the caller has seen, by the body or by If-Match. Raises InvalidInput when both are there and differ."""
        said = getattr(self.body, "expected_generation", None)
        if said is not None and self.if_match is not None and said != self.if_match:
            raise InvalidInput("If-Match and expected_generation name different generations", field="expected_generation", rule="unique")
        return self.if_match if said is None else said


class Download(NamedTuple):
    """A file to send, which is removed from its folder before the first byte leaves."""

    path: Path
    called: str


class Operation(NamedTuple):
    """One thing that a caller can ask. `answer` is the type of what `run` returns; with `kind` upload or download a .tar takes the body's place, with
    `bytes` the body is taken as it is, up to `body_limit_bytes`, with `metrics` the answer is Prometheus' text.

    `status` of an answer, where it is not always 200. `models` names the models that the request names beside its path: each must be granted.
    `sift` leaves of a list what a caller may see. `current` is what a caller who lost a race is told with the 409. `recall` makes the answer again
    from what a verb wrote, for a request that is repeated with its idempotency key. A secret answer is told once.
    What is long, for it opens bundles, has a few threads of its own. `is_reading`: a POST that finds something out, and changes no more than a GET.
    """

    method: str
    path: str
    name: str
    line: str
    run: Callable[[Call], Any]
    answer: Any
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    kind: Literal["json", "upload", "download", "metrics", "bytes"] = "json"
    status: Callable[[Any], int] = lambda _: 200
    statuses: tuple[int, ...] = (200,)
    models: Callable[[Call], Iterable[str]] = lambda _: ()
    sift: Callable[[Any, Callable[[str], bool]], Any] | None = None
    current: Callable[[Call], Any] | None = None
    recall: Callable[[Call, Effect], Any] | None = None
    is_long: bool = False
    is_reading: bool = False
    body_limit_bytes: int = BODY_LIMIT_BYTES
    is_secret: bool = False
    has_generation: bool = False

    @property
    def route(self) -> str:
        """The whole path, as the policy names it."""
        return PREFIX + self.path

    @property
    def is_change(self) -> bool:
        """Whether it may change the world, and so takes an idempotency key."""
        return self.method != "GET" and not self.is_reading
