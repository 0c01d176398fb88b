"""The tables from errors of ours to HTTP and gRPC statuses on the data plane, one each; total (`tests/house/test_error_tables.py`).

Hides nothing. They must stay tables: wires choose the body, never the status.
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
    errors.Misconfigured: 500,
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

(OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED,
 FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED) = range(17)  # fmt: skip

GRPC: dict[type[errors.ModelyardError], int] = {
    errors.ModelyardError: INTERNAL,
    errors.InvalidInput: INVALID_ARGUMENT,
    errors.SchemaMismatch: INVALID_ARGUMENT,
    errors.MalformedPayload: INVALID_ARGUMENT,
    errors.PayloadTooLarge: RESOURCE_EXHAUSTED,
    errors.UnsupportedMedia: UNIMPLEMENTED,
    errors.InvalidConfig: INVALID_ARGUMENT,
    errors.Misconfigured: INTERNAL,
    errors.Unconvertible: INVALID_ARGUMENT,
    errors.NotFound: NOT_FOUND,
    errors.Conflict: ABORTED,
    errors.Denied: PERMISSION_DENIED,
    errors.Unauthenticated: UNAUTHENTICATED,
    errors.Forbidden: PERMISSION_DENIED,
    errors.Tampered: INTERNAL,
    errors.DigestMismatch: INTERNAL,
    errors.SealInvalid: INTERNAL,
    errors.UntrustedSigner: INTERNAL,
    errors.UnsupportedFormat: INTERNAL,
    errors.Rejected: FAILED_PRECONDITION,
    errors.Overloaded: RESOURCE_EXHAUSTED,
    errors.Unavailable: UNAVAILABLE,
    errors.DeadlineExceeded: DEADLINE_EXCEEDED,
    errors.StorageFull: UNAVAILABLE,
    errors.ModelFailed: INTERNAL,
}
