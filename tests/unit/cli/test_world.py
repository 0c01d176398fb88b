"""How the running world is found and told."""

from __future__ import annotations

import pytest

from modelyard import config
from modelyard.cli.world import _duration, _require_success, _rows, _state, connect
from modelyard.control.status import DeploymentStatus, Serving
from modelyard.errors import Rejected, Unavailable
from modelyard.targets.base import Deployment, Outcome, Release, Rollout
from modelyard.types import Digest, Verdict

DIGEST = Digest("sha256:" + "1" * 64)
RELEASE = Release(model="m", version=2, digest=DIGEST, index=DIGEST)
FAILED = Verdict(outcome="fail", rule="load", evidence="broken [x]")


def test_a_home_that_is_not_up_says_how_to_start_it() -> None:
    with pytest.raises(Unavailable, match="modelyard up"):
        connect(config.load())


def test_a_rollout_that_went_back_is_a_rejection() -> None:
    outcome = Outcome(kind="deploy", goal=RELEASE, generation=2, ended_at="t", verdict=FAILED)
    with pytest.raises(Rejected, match="serves on") as refused:
        _require_success("m", outcome)
    assert refused.value.verdicts == (FAILED,)


def test_each_state_is_told() -> None:
    base = Deployment(name="m", model="m", generation=3, current=RELEASE)
    rollout = Rollout(kind="deploy", strategy="direct", goal=RELEASE, generation=4, phase="holding", started_at="t")
    moving = Deployment(name="m", model="m", generation=3, current=RELEASE, rollout=rollout)
    back = Deployment(
        name="m", model="m", generation=3, current=RELEASE, last=Outcome(kind="deploy", goal=RELEASE, generation=4, ended_at="t", verdict=FAILED)
    )
    assert "generation 3" in _state(DeploymentStatus(deployment=base, serving=()))
    assert "version 2: holding" in _state(DeploymentStatus(deployment=moving, serving=()))
    assert "went back: broken \\[x]" in _state(DeploymentStatus(deployment=back, serving=()))
    assert "no room" in _state(DeploymentStatus(deployment=base, serving=(), trouble="no room"))


def test_a_row_per_version_names_the_deployment_once() -> None:
    deployment = Deployment(name="m", model="m", generation=3, current=RELEASE)
    serving = (Serving(version=2, digest=DIGEST, weight=100, ready=2), Serving(version=3, digest=DIGEST, weight=0, ready=1))
    rows = _rows(DeploymentStatus(deployment=deployment, serving=serving, rollback_to=1))
    assert [row[0] for row in rows] == ["m", ""] and [row[3] for row in rows] == ["100 %", "0 %"]
    assert _rows(DeploymentStatus(deployment=deployment, serving=()))[0][0] == "m"


def test_durations_have_their_unit() -> None:
    assert (_duration(None), _duration(0.00123), _duration(2.5)) == (None, "1.23 ms", "2.5 s")
