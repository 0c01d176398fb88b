"""What the control process answers when its home's records cannot be opened: to every request the one error, so that the data plane serves on.

Hides ASGI. It changes nothing and reads nothing but access keys and tokens; who holds none learns nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.console import errors
from modelyard.console.guard import admitted
from modelyard.errors import ModelyardError

if TYPE_CHECKING:
    from modelyard.security.base import Identity


def build(error: ModelyardError, identity: Identity) -> Any:
    """The application that answers `error`, which says how to mend the home."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  # a body is not waited for
        if scope["type"] != "http":
            return
        told = _refused(scope, identity) or error
        content = errors.body(told)
        headers = {"content-type": "application/json", "content-length": str(len(content)), **(errors.headers(told) or {})}
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": errors.STATUS[type(told)], "headers": encoded})
        await send({"type": "http.response.body", "body": content})

    return answer


def _refused(scope: Any, identity: Identity) -> ModelyardError | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = (given[0] if len(given) == 1 else b"").decode("latin-1").partition(" ")
    try:
        admitted(identity, key.strip() if scheme.lower() == "bearer" else "")
    except ModelyardError as refused:
        return refused
    return None
