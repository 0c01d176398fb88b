"""What live data of one version is held against, read from its opened bundle.

Hides which members say what, and that a bundle of an earlier release says less. It must not open or verify: whoever has the bundle did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.errors import NotFound
from modelyard.monitor import estimate, profile
from modelyard.monitor.base import Reference

if TYPE_CHECKING:
    from modelyard.bundle import Bundle


def read(bundle: Bundle) -> Reference:
    """The reference that a bundle carries. Without what was learnt of its performance there is no importance and no quality but the card's.

    Raises MalformedPayload for a profile, or for what was learnt, in a form that this release does not read.
    """
    try:
        learnt = estimate.decode(bundle.read("performance"))
    except NotFound:
        learnt = None
    return Reference(
        digest=bundle.digest,
        schema=bundle.schema,
        profile=profile.reference(bundle),
        importance={} if learnt is None else learnt.importance,
        quality=learnt.quality if learnt is not None and learnt.quality else bundle.card.quality,
        learnt=learnt,
    )
