"""From the error tree to HTTP statuses and one JSON form: the control API's edge. The table is total (`tests/house/test_error_tables.py`)."""

from __future__ import annotations

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


def body(error: ModelyardError) -> bytes:
    """The JSON that a caller gets: code, message, field, rule and, of a rejection, its verdicts."""
    verdicts = error.verdicts if isinstance(error, Rejected) else ()
    told = {"code": error.code, "message": error.message, "field": error.field, "rule": error.rule, "verdicts": verdicts}
    return msgspec.json.encode({"error": told})
