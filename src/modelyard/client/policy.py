"""Whether to ask again, and what an answer means: the policy of every call, as a generator.

Hides the budget of tries, the pauses, and the form of failures. It knows no socket: tests hand it replies.
"""

from __future__ import annotations

import random
import secrets
from collections import defaultdict
from time import monotonic
from typing import Any

import msgspec

from modelyard import errors
from modelyard.client.steps import Pause, Reply, Send, Steps, Told
from modelyard.errors import Conflict, ModelyardError, Overloaded, Rejected, Unavailable
from modelyard.retries import TRIES, Budget, pause_s
from modelyard.types import Verdict

_BY_STATUS: dict[int, type[ModelyardError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMedia,
    422: errors.SchemaMismatch,
    429: errors.Overloaded,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
    507: errors.StorageFull,
}


class Budgets:
    """One budget of tries for each kind of question: what is asked about a model does not pay for tries of its predictions. Any thread may use it."""

    def __init__(self) -> None:
        self._by_kind: defaultdict[str, Budget] = defaultdict(Budget)

    def of(self, kind: str) -> Budget:
        """The budget of `kind`."""
        return self._by_kind[kind]


def asking(budget: Budget, send: Send, *, may_repeat: bool) -> Steps[Reply]:
    """The good reply to `send`. Raises the error tree for a refusal, Unavailable where nobody answers.

    What may be repeated is asked up to `TRIES` times where it was refused as overloaded, or the server was away, as far as the budget and the
    timeout allow; not before the time that a refusal named.
    """
    until_s = monotonic() + send.timeout_s
    budget.asked()
    tries = 0
    while True:
        tries += 1
        told: Told = yield send
        error = _failure(send.url, told)
        if error is None and isinstance(told, Reply):
            return told
        if error is None or not isinstance(error, Overloaded | Unavailable) or isinstance(error, errors.DeadlineExceeded | errors.StorageFull):
            raise error or Unavailable(f"nothing came of asking {send.url}")
        after_s = _retry_after_s(told.headers.get("retry-after", "")) if isinstance(told, Reply) else 0.0
        wait_s = pause_s(tries, random.random(), retry_after_s=after_s)  # noqa: S311 - no secret
        if not may_repeat or tries >= TRIES or monotonic() + wait_s > until_s or not budget.take():
            raise error
        yield Pause(wait_s)


def idempotency_key() -> str:
    """A new key, under which a change is one effect however often it is asked for."""
    return secrets.token_hex(16)


def decoded(reply: Reply, url: str) -> Any:
    """The JSON of a reply; None where it is empty. Raises Unavailable for what is no JSON: it is not one of ours that answered."""
    try:
        return msgspec.json.decode(reply.content) if reply.content else None
    except msgspec.MsgspecError as error:
        raise Unavailable(f"{url} answered with HTTP {reply.status} and no JSON") from error


def refusal(status: int, told: Any) -> ModelyardError:
    """The error of the tree for what a server refused with: by its code where it names one, else by the status."""
    told = told.get("error") if isinstance(told, dict) else None
    if isinstance(told, dict):
        kind = _by_code().get(str(told.get("code")), ModelyardError)
        message = str(told.get("message") or f"HTTP {status}")
        if kind is Rejected:
            return Rejected(message, verdicts=msgspec.convert(told.get("verdicts") or (), tuple[Verdict, ...]))
        error = kind(message)
        error.field, error.rule = told.get("field"), told.get("rule")
        if isinstance(error, Conflict):
            error.current = told.get("current")
        return error
    return _BY_STATUS.get(status, ModelyardError)(told if isinstance(told, str) else f"HTTP {status}")


def _failure(url: str, told: Told) -> ModelyardError | None:
    if not isinstance(told, Reply):
        return told
    if told.status < 400:
        return None
    try:
        return refusal(told.status, decoded(told, url))
    except Unavailable as error:
        return error


def _by_code() -> dict[str, type[ModelyardError]]:
    return {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ModelyardError)}


def _retry_after_s(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
