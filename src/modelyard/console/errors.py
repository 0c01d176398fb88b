"""From the error tree to HTTP statuses and one JSON form: the control API's edge. The table is total (`tests/house/test_error_tables.py`)."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from modelyard import errors
from modelyard.errors import ModelyardError, Rejected

STATUS: dict[type[ModelyardError], int] = {
    errors.ModelyardError: 500,
    errors.InvalidInput: 400,
    errors.SchemaMismatch: 422,
    errors.MalformedPayload: 400,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.InvalidConfig: 400,
    errors.Misconfigured: 500,
    errors.Unconvertible: 422,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Denied: 403,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.Tampered: 422,
    errors.DigestMismatch: 422,
    errors.SealInvalid: 422,
    errors.UntrustedSigner: 422,
    errors.UnsupportedFormat: 422,
    errors.Rejected: 422,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.StorageFull: 507,
    errors.ModelFailed: 500,
}


RETRY_S = 2
"""When to ask again what was unavailable: a lock is let go within seconds, and no caller should wait longer than five."""

LONGEST_RETRY_S = 5


def body(error: ModelyardError, *, current: object = None, home: Path | None = None) -> bytes:
    """The JSON that a caller gets: code, message, field, rule and, of a rejection, its verdicts; `current` is the state that a loser should see.

    Of files of `home` the message tells where they are in it, and not where it is.
    """
    message = error.message if home is None else error.message.replace(f"{home}/", "")
    verdicts = error.verdicts if isinstance(error, Rejected) else ()
    told = {"code": error.code, "message": message, "field": error.field, "rule": error.rule, "verdicts": verdicts}
    return msgspec.json.encode({"error": told if current is None else {**told, "current": current}})


def headers(error: ModelyardError) -> dict[str, str]:
    """The headers that go with a failure: how to authenticate, and when to ask again."""
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, errors.Overloaded):
        return {"Retry-After": str(min(LONGEST_RETRY_S, max(1, math.ceil(error.retry_after_s))))}
    if isinstance(error, errors.Unavailable) and not isinstance(error, errors.DeadlineExceeded | errors.StorageFull):
        return {"Retry-After": str(RETRY_S)}
    return {}
