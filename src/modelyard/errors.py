"""The error tree: every failure that modelyard reports, and nothing about any wire.

Hides nothing; it is the vocabulary that all other modules raise in. It must not know HTTP, gRPC or exit
codes: each edge translates with one total table of its own (`tests/house/test_error_tables.py` holds that
the tables are total). A message says what happened, to what, and what to do next; it never holds a payload,
a secret or an internal path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from modelyard.types import Verdict


class ModelyardError(Exception):
    """Base of all errors. `code` is stable across releases; `retryable` says whether the same call may succeed later."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None, rule: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.rule = rule


class InvalidInput(ModelyardError):
    """The caller can fix it by sending something else."""

    code = "invalid_input"


class SchemaMismatch(InvalidInput):
    """A field does not fit the model's schema; `field` and `rule` name which and why."""

    code = "schema_mismatch"


class MalformedPayload(InvalidInput):
    """The bytes are not a message of the wire (or file format) that they claim to be."""

    code = "malformed_payload"


class PayloadTooLarge(InvalidInput):
    """A count or size is above its limit; the message names the limit and the form that carries more."""

    code = "payload_too_large"


class UnsupportedMedia(InvalidInput):
    """A media type or content coding that the route does not read; the message names those that it does."""

    code = "unsupported_media"


class InvalidConfig(InvalidInput):
    """A setting, flag or argument is out of its range or cannot be honoured here."""

    code = "invalid_config"


class Misconfigured(InvalidConfig):
    """Something that this server needs (folders, keys, stores, credentials) is not as it must be; its operator can mend it, no caller can."""

    code = "misconfigured"


class Unconvertible(InvalidInput):
    """No way of conversion gives the model's own answers; names operator or step and what else will serve it."""

    code = "unconvertible"


class NotFound(ModelyardError):
    """No such name, version, alias, route or file."""

    code = "not_found"


class Conflict(ModelyardError):
    """The world has moved on (stale generation, name taken, in use); read again, then decide. `current` is what there is, where a server said it."""

    code = "conflict"

    def __init__(self, message: str, *, field: str | None = None, rule: str | None = None) -> None:
        super().__init__(message, field=field, rule=rule)
        self.current: object = None


class Denied(ModelyardError):
    """The caller may not do this. `caller` names who that is where they have shown it and are let in to nothing; it is for the audit log alone."""

    code = "denied"

    def __init__(self, message: str, *, field: str | None = None, rule: str | None = None) -> None:
        super().__init__(message, field=field, rule=rule)
        self.caller: str | None = None


class Unauthenticated(Denied):
    """No credential, or not a valid one."""

    code = "unauthenticated"


class Forbidden(Denied):
    """A known caller without the right to do this."""

    code = "forbidden"


class Tampered(ModelyardError):
    """Bytes are not what their seal or digest says. Nothing of them was loaded."""

    code = "tampered"


class DigestMismatch(Tampered):
    """A member's bytes do not hash to the digest that lists them, are missing, or are not listed."""

    code = "digest_mismatch"


class SealInvalid(Tampered):
    """A signature does not verify, or signs something else."""

    code = "seal_invalid"


class UntrustedSigner(Tampered):
    """A valid seal by a key that this home does not trust; `modelyard trust add` is the way in."""

    code = "untrusted_signer"


class UnsupportedFormat(Tampered):
    """A format or version of one that this release does not open, or never opens (pickle)."""

    code = "unsupported_format"


class Rejected(ModelyardError):
    """A gate or guard said no; `verdicts` say why."""

    code = "rejected"

    def __init__(self, message: str, *, verdicts: Iterable[Verdict] = ()) -> None:
        super().__init__(message)
        self.verdicts = tuple(verdicts)


class Overloaded(ModelyardError):
    """Refused to protect those already in; try again after `retry_after_s` seconds."""

    code = "overloaded"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(ModelyardError):
    """A target, store or model is not reachable or not ready."""

    code = "unavailable"
    retryable = True


class DeadlineExceeded(Unavailable):
    """The time that the caller gave has passed."""

    code = "deadline_exceeded"


class StorageFull(Unavailable):
    """The disk or store has no room; nothing half-written was left."""

    code = "storage_full"


class ModelFailed(ModelyardError):
    """The model itself failed on an input that its schema accepts; the cause is chained and withheld from clients."""

    code = "model_failed"
