"""What a detector remembers of a release, as the bytes that it hands out.

Hides that they are msgpack, and data alone. Pure. Bytes of another release or format, and what nobody wrote, are none: whoever is handed them begins
anew. It must not know what any detector remembers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from modelyard.types import Digest


class OfRelease(Protocol):
    """What says of which format it is, and of which release."""

    @property
    def format(self) -> int: ...

    @property
    def digest(self) -> Digest: ...


S = TypeVar("S", bound=OfRelease)


def read(data: bytes, kind: type[S], *, form: int, digest: Digest) -> S | None:
    """What was remembered of the release `digest` in this format, or None: `read(written(s), type(s), form=s.format, digest=s.digest) == s`."""
    try:
        found = msgspec.msgpack.decode(data, type=kind) if data else None
    except msgspec.MsgspecError:
        return None
    return found if found is not None and (found.format, found.digest) == (form, digest) else None


def written(kept: OfRelease) -> bytes:
    """The bytes to be handed out."""
    return msgspec.msgpack.encode(kept)
