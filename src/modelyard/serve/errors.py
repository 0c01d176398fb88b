"""The one table from errors of ours to HTTP statuses on the data plane; total (`tests/house/test_error_tables.py`).

Hides nothing. It must stay a table: wires choose the body, never the status.
"""

from __future__ import annotations

from modelyard import errors

STATUS: dict[type[errors.ModelyardError], int] = {
    errors.ModelyardError: 500,
    errors.InvalidInput: 400,
    errors.SchemaMismatch: 400,
    errors.MalformedPayload: 400,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.InvalidConfig: 400,
    errors.Unconvertible: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Denied: 403,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.Tampered: 500,
    errors.DigestMismatch: 500,
    errors.SealInvalid: 500,
    errors.UntrustedSigner: 500,
    errors.UnsupportedFormat: 500,
    errors.Rejected: 422,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.StorageFull: 507,
    errors.ModelFailed: 500,
}
