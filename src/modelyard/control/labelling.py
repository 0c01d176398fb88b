"""Labels that somebody gives: announced, kept in the ledger, and left for the other hosts.

Hides that those who give at once share one transaction of the records, one of the ledger and one file for the others: a label at a time from many
clients costs every host of a registry little more than the same labels in one body. Nobody is told before theirs are kept. It must not decide who
may give.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

from modelyard.config import Settings
from modelyard.errors import ModelyardError, Unavailable
from modelyard.monitor import relay
from modelyard.monitor.database import TIMEOUT_S
from modelyard.monitor.intake import labels_outbox
from modelyard.monitor.labels import Ledger, Received, Sheet, labels_path
from modelyard.monitor.together import Together
from modelyard.registry.base import RecordStore
from modelyard.security.audit import AuditLog
from modelyard.types import Principal

AT_ONCE = 2_000
"""So many labels of several are kept in one transaction: whoever comes then waits for no more."""
_LEAST = 20
"""Who gives fewer counts as so many, for what a request takes beside its labels."""


class Gift(NamedTuple):
    """Who gives which labels of which deployment, and whether other hosts are to have them."""

    principal: Principal
    name: str
    labels: Sheet
    is_shared: bool


class Desk:
    """Where labels are given. Any thread may."""

    def __init__(self, settings: Settings, records: RecordStore, audit: AuditLog) -> None:
        self._path = labels_path(settings)
        self._records = records
        self._audit = audit
        self._outbox = relay.Outbox(labels_outbox(settings), limit_bytes=settings.spool_limit_bytes)
        self._together: Together[Gift, Received] = Together(self._keep, limit=AT_ONCE)

    def give(self, gift: Gift) -> Received:
        """Keep labels, for the other hosts too where they are shared.

        Raises Overloaded while too many wait to be sent, and what the audit, the ledger and the disk raise: none is kept then, but that what could
        not be left for the others stays here, and whoever is told so gives it again.
        """
        if gift.is_shared:
            self._outbox.require_room()
        return self._together.bring(gift, size=max(_LEAST, len(gift.labels.ids)), timeout_s=TIMEOUT_S)

    def _keep(self, gifts: Sequence[Gift]) -> list[Received]:
        """All of them as of now, in their order."""
        at = time.time()
        gifts = [each._replace(labels=each.labels._replace(at=at)) for each in gifts]
        self._announce(gifts)
        try:
            with contextlib.closing(Ledger(self._path)) as ledger:
                received = ledger.keep([(each.name, each.labels) for each in gifts])
            for name in dict.fromkeys(each.name for each in gifts if each.is_shared):
                self._outbox.send(name, _as_one([each.labels for each in gifts if each.is_shared and each.name == name], at))
        except BaseException as error:
            if not isinstance(error, Unavailable):  # the chain may be where what is away is: the callers would wait a second time
                code = error.code if isinstance(error, ModelyardError) else type(error).__name__
                with contextlib.suppress(ModelyardError):
                    for principal, name in dict.fromkeys((each.principal, each.name) for each in gifts):
                        self._audit.record(principal, "labels", name, outcome="failed", detail=code)
            raise
        return received

    def _announce(self, gifts: Sequence[Gift]) -> None:
        """Say in the audit chain who gives what, before anything is kept: one entry for all that one gives of one deployment."""
        given: dict[tuple[Principal, str], list[int]] = {}
        for each in gifts:
            given.setdefault((each.principal, each.name), []).append(len(each.labels.ids))
        with self._records.transaction() as transaction:
            for (principal, name), counts in given.items():
                several = f" in {len(counts)} requests" if len(counts) > 1 else ""
                self._audit.within(transaction).record(principal, "labels", name, outcome="begun", detail=f"{sum(counts)} labels{several}")


def _as_one(sheets: Sequence[Sheet], at: float) -> Sheet:
    ids = [key for each in sheets for key in each.ids]
    return Sheet(ids, [truth for each in sheets for truth in each.truths], [known_at for each in sheets for known_at in each.known], at)
