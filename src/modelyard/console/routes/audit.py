"""The audit chains over HTTP, for auditors."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Annotated

import msgspec

from modelyard.console.operations import LIMIT, Call, Operation, in_utc
from modelyard.control.audit import Listed, Report

MOST = 10**15


class AuditQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries from a time on (ISO 8601; UTC where it names no zone), oldest first: after the first `skip`, at most `limit`."""

    since: datetime | None = None
    skip: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT)] = 100


def _list(call: Call) -> tuple[Listed, ...]:
    asked: AuditQuery = call.query
    since = None if asked.since is None else in_utc(asked.since, "since")
    return tuple(itertools.islice(call.plane.audit_list(since=since), asked.skip, asked.skip + asked.limit))


def _verify(call: Call) -> Report:
    return call.plane.audit_verify()


OPERATIONS = (
    Operation("GET", "/audit", "list_audit", "Who did what, and was denied what.", _list, tuple[Listed, ...], query=AuditQuery),
    Operation(
        "POST", "/audit/verify", "verify_audit", "Check both chains whole; `first_bad` is the first entry that does not fit.",
        _verify, Report, is_reading=True,
    ),
)  # fmt: skip
