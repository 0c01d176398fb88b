"""Where a rollout is, in one line."""

from __future__ import annotations

import msgspec
import pytest

from modelyard.cli.following import Line, duration, gist, said
from modelyard.rollout.strategies import complete
from modelyard.targets.base import Deployment, Pause, Release, Rollout, Strategy
from modelyard.types import Digest, Verdict

DIGEST = Digest("sha256:" + "1" * 64)
RELEASE = Release(model="churn", version=4, digest=DIGEST, index=DIGEST)
GUARD = Verdict(outcome="unknown", rule="p99<1.2x", evidence="")
ROLLOUT = Rollout(
    kind="deploy",
    strategy=complete(Strategy(kind="canary", guards=("p99<1.2x",))),
    goal=RELEASE,
    generation=6,
    phase="watching",
    started_at="t",
    step=1,
    elapsed_s=185.0,
    requests=1204,
    guards=(GUARD,),
    waits="it takes at least 300 s",
)


def of(**changed: object) -> Deployment:
    return Deployment(name="churn", model="churn", generation=4, current=RELEASE, rollout=msgspec.structs.replace(ROLLOUT, **changed))


def test_a_step_is_told_with_all_that_it_waits_for() -> None:
    assert said(of()) == (
        "deploy of churn:4 by canary: 10 % (step 2 of 4)  ·  3m 05s of 5m 00s  ·  1,204 requests  ·  p99<1.2x open  ·  waits: it takes at least 300 s"
    )
    assert "  ·  7m 00s  ·  23 of 100 requests  ·  " in said(of(elapsed_s=420.0, requests=23))
    assert "loading it beside what serves" in said(of(phase="holding", waits=""))
    assert ": ready beside what serves" in said(of(phase="holding", waits="the step of 10 % needs an approval"))
    assert "telling every worker" in said(of(phase="switching"))
    assert said(of(pause=Pause(by="key:ann", why="lunch", at="t"))).endswith("paused by key:ann: lunch")
    assert said(of(forced="key:ann")).endswith("promoted by key:ann")
    assert "100 % mirrored" in said(of(strategy=complete(Strategy(kind="shadow")), step=0))
    assert said(Deployment(name="churn", model="churn", generation=4)) == "no rollout is under way"


def test_only_what_matters_deserves_a_line() -> None:
    assert gist(of()) == gist(of(elapsed_s=200.0, requests=9))
    for changed in ({"step": 2}, {"phase": "switching"}, {"waits": "x"}, {"guards": (msgspec.structs.replace(GUARD, outcome="pass"),)}):
        assert gist(of()) != gist(of(**changed))


def test_without_a_terminal_each_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Line() as line:
        for each in (of(), of(elapsed_s=200.0), of(step=2)):
            line.show(each)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 and "step 2 of 4" in shown[0] and "step 3 of 4" in shown[1]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (45.9, "45s"), (185, "3m 05s"), (7_800, "2h 10m"), (100_000, "1d 03h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
