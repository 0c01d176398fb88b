"""What a route is, and in which form a request on it is read and answered.

Hides how Content-Type and Accept choose among the bulk forms (Arrow, CSV, JSON lines) beside a wire's own. It must not compute, nor know any
wire's body. All of it is decided once per head; the same head, byte for byte, costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Protocol

from modelyard.errors import UnsupportedMedia
from modelyard.security.policy import Right

if TYPE_CHECKING:
    from modelyard.serve.server import Exchange

ARROW = "application/vnd.apache.arrow.stream"
FORMS = {
    ARROW: "arrow",
    "text/csv": "csv",
    "application/jsonlines": "json_lines",
    "application/x-ndjson": "json_lines",
    "application/json": "",
}
"""Media types of the bulk forms, and of a wire's own form ("")."""

Handler = Callable[["Exchange", "Route"], None]
Methods = dict[bytes, "Route"]


class Route:
    """What a method and path ask for, and the right that it takes; resolved once per head."""

    __slots__ = ("allow", "handler", "has_forms", "is_strict", "label", "model", "number", "right", "wire")

    def __init__(
        self,
        handler: Handler,
        right: Right,
        *,
        model: str = "",
        number: int | None = None,
        label: str = "",
        wire: str = "",
        allow: str = "",
        has_forms: bool = False,
        is_strict: bool = False,
    ) -> None:
        self.handler = handler
        self.right = right
        self.model = model
        self.number = number
        self.label = label
        self.wire = wire
        """The codec, and where a bulk form takes part `wire:reader:writer` (see `protocols.Codecs`)."""
        self.allow = allow
        self.has_forms = has_forms
        """Whether the bulk forms are read and written here beside the wire's own."""
        self.is_strict = is_strict
        """Whether an Accept that names nothing that is written here is refused; elsewhere such a caller gets the wire's own form."""

    def settled(self, media: str, accept: str) -> Route:
        """This route with the codec that Content-Type and Accept choose. Raises UnsupportedMedia."""
        reader = FORMS.get(media, "")
        default = reader if reader == "arrow" or not self.is_strict else ""
        writer = _writer(accept, default) if accept else default
        if writer is None:
            if self.is_strict:
                raise UnsupportedMedia(f"this route answers in {', '.join(FORMS)}", field="accept", rule="media_type")
            writer = default
        if not reader and not writer:
            return self
        made = copy(self)
        made.wire = f"{self.wire}:{reader}:{writer}"
        return made


def _writer(accept: str, default: str) -> str | None:
    """The form that `accept` likes best; `default` for a wildcard, None when it names none that is written here."""
    liked: list[tuple[float, int, str]] = []
    for at, part in enumerate(accept.split(",")):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        form = FORMS.get(media, default if media in {"*/*", "*", "application/*"} else None)
        if form is not None and quality > 0:
            liked.append((-quality, at, form))
    return min(liked)[2] if liked else None


class Routes(Protocol):
    """The routes of one family of wires."""

    fixed: dict[str, Methods]
    """By whole path, without a trailing slash."""

    def find(self, parts: list[str]) -> Methods | None:
        """The methods of the path whose segments are `parts` (the first is empty), where it holds a name; None if it is not of this family."""
