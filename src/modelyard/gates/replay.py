"""Does the model give its golden answers here?

Hides the child process in which the model runs: a model that crashes, hangs or eats memory costs that child, never the process that asks.
`python -m modelyard.gates.replay BLOBS INDEX KEYS` is the child; it prints one Verdict as JSON.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from modelyard.gates.base import Candidate
from modelyard.types import Digest, Verdict

TIMEOUT_S = 120.0


class Replay:
    """Replays the golden records in a child of its own."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s

    def judge(self, candidate: Candidate) -> Verdict:
        """See `Gate.judge`."""
        place = candidate.placement
        command = [sys.executable, "-P", "-m", "modelyard.gates.replay", place.blobs, place.index, str(candidate.keys)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=self._timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return _failed(f"no answer within {self._timeout_s:.0f} s")
        try:
            return msgspec.json.decode(done.stdout, type=Verdict)
        except msgspec.MsgspecError:
            return _failed(
                f"the process that ran the model ended by signal {-done.returncode}" if done.returncode < 0 else "the model could not be run"
            )


def _failed(evidence: str) -> Verdict:
    return Verdict(outcome="fail", rule="golden-replay", evidence=evidence)


def _child(blobs: str, index: str, keys: str) -> Verdict:
    from modelyard import bundle, config, runtime
    from modelyard.bundle.base import FolderReader
    from modelyard.errors import ModelyardError
    from modelyard.runtime.isolated import Isolation
    from modelyard.runtime.replay import replay
    from modelyard.security.seal import Trust

    try:
        opened = bundle.open(FolderReader(Path(blobs)), Digest(index), trust=Trust(Path(keys)))
        model = runtime.open(opened, isolation=Isolation.of(config.load()))
        try:
            return replay(model, opened.golden, opened.schema, opened.tolerance).verdict
        finally:
            model.close()
    except ModelyardError as error:
        return _failed(error.message)


if __name__ == "__main__":
    print(msgspec.json.encode(_child(*sys.argv[1:4])).decode())  # noqa: T201  # the child's one answer
