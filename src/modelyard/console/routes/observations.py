"""Observations over HTTP: what data planes elsewhere have counted, one segment a request.

The same segment, under the same name from the same key, counts once however often it is sent, so a change of nothing is audited here: only denials
are.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from modelyard.console.operations import Call, Operation
from modelyard.events import SENT_LIMIT_BYTES
from modelyard.monitor.receive import NAME_LIMIT, Observed


class ObservationsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which name: that of its source, a dash, and which of that source's segments it is."""

    name: Annotated[str, msgspec.Meta(min_length=3, max_length=NAME_LIMIT)]


def _observe(call: Call) -> Observed:
    asked: ObservationsQuery = call.query
    return call.plane.observe(call.who, asked.name, call.body)


OPERATIONS = (
    Operation(
        "POST", "/observations", "observe", "Hand over what a data plane elsewhere has counted, as `modelyard serve --export` does.",
        _observe, Observed, query=ObservationsQuery, kind="bytes", body_limit_bytes=SENT_LIMIT_BYTES, is_reading=True,
    ),
)  # fmt: skip
