"""What the client's answers say of themselves is what the control plane's own forms say."""

from __future__ import annotations

import msgspec

from modelyard.client import answers
from modelyard.targets.base import Deployment, Release, Rollout, Strategy
from modelyard.types import Digest

DIGEST = Digest("sha256:" + "1" * 64)


def test_the_generation_in_force_is_the_one_that_a_change_is_held_to() -> None:
    goal = Release(model="line", version=2, digest=DIGEST, index=DIGEST)
    rollout = Rollout(kind="deploy", strategy=Strategy(), goal=goal, generation=4, phase="holding", started_at="t")
    for now in (None, rollout, msgspec.structs.replace(rollout, phase="switching"), msgspec.structs.replace(rollout, phase="watching")):
        there = Deployment(name="line", model="line", generation=3, rollout=now)
        here = msgspec.json.decode(msgspec.json.encode(there), type=answers.Deployment)
        assert here.in_force == there.in_force == (3 if now is None or now.phase == "holding" else 4)
