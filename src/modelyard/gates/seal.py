"""Is every byte what a signer that this home believes has sealed, now?"""

from __future__ import annotations

from pathlib import Path

from modelyard import bundle
from modelyard.bundle.base import FolderReader
from modelyard.errors import NotFound, Tampered
from modelyard.gates.base import Candidate
from modelyard.security.seal import Trust
from modelyard.types import Verdict


class Seal:
    """Reads the whole bundle again from where it lies: what was true when it was registered may have changed on disk, or in whom the home trusts."""

    def judge(self, candidate: Candidate) -> Verdict:
        """See `Gate.judge`."""
        blobs = FolderReader(Path(candidate.placement.blobs))
        try:
            opened = bundle.open(blobs, candidate.placement.index, trust=Trust(candidate.keys))
        except (Tampered, NotFound) as error:
            return Verdict(outcome="fail", rule="seal", evidence=error.message)
        if opened.digest != candidate.bundle.digest:
            return Verdict(outcome="fail", rule="seal", evidence="the bytes in the store are of another bundle")
        return Verdict(outcome="pass", rule="seal", evidence=f"every byte verified; sealed by {opened.signer[:16]}…")
