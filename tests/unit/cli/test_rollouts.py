"""A plan in sentences."""

from __future__ import annotations

import contextlib

import pytest

from modelyard.cli import rollouts
from modelyard.cli.rollouts import steps
from modelyard.rollout.history import Event
from modelyard.rollout.strategies import complete
from modelyard.rollout.written import Written, strategy
from modelyard.targets.base import Strategy
from modelyard.types import Verdict


def test_a_canary_is_told_step_by_step() -> None:
    wanted = strategy(Written(strategy="canary", steps=(1, 100), guards=("p99<1.2x",), approve=(100,), sticky="header:x-user", mirror="5%"))
    assert steps(wanted, first=5, old=3) == [
        "load it beside what serves, replay its golden records, at 0 %",
        "1 % of the callers by header:x-user, each with one version, 5 % of the champion's requests mirrored (generation 5), "
        "at least 5m 00s and 100 requests, until every estimate keeps to its bound; paused after 1d 00h",
        "once somebody else has approved it, 100 % of the requests (generation 6), at least 5m 00s and 100 requests, "
        "until every estimate keeps to its bound; paused after 1d 00h",
        "done: version 3 is kept ready no longer; `modelyard rollback` loads it again and goes back to it",
    ]


def test_a_flip_and_a_shadow() -> None:
    assert steps(complete(Strategy()), first=1, old=None) == ["100 % of the requests (generation 1)"]
    assert steps(complete(Strategy(kind="blue-green")), first=2, old=1)[-1].startswith("done: version 1 is kept ready until the next rollout")
    assert steps(complete(Strategy()), first=2, old=1, is_warm=True)[0] == "100 % of the requests (generation 2)", "nothing is loaded for it"
    shadow = steps(complete(Strategy(kind="shadow")), first=2, old=1)
    assert shadow[1].startswith("100 % of the requests asked of both, answered by the old one") and "somebody promotes it" in shadow[1]
    split = steps(complete(Strategy(kind="ab", metric="accuracy", sticky="field:user")), first=2, old=1)
    assert "the better by accuracy is known" in split[1] and split[2] == "100 % of the requests (generation 3)"


def test_a_reason_is_shown_as_it_is_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Control:
        def call(self, *_: object, **__: object) -> tuple[Event, ...]:
            return (Event(deployment="line", sequence=1, at="2030-01-01T00:00:00", by="key:ann", what="pause", why="[/bold] \x1b[2Jlunch"),)

    monkeypatch.setattr(rollouts, "connect", lambda *_: contextlib.nullcontext(Control()))
    rollouts.history("line")
    assert r"[/bold] \x1b[2Jlunch" in capsys.readouterr().out


def test_the_verdicts_of_the_latest_turn_are_shown_and_no_gates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    judged, gate = (Verdict(outcome="unknown", rule=rule, evidence=f"found {rule}") for rule in ("p99<1.2x", "seal"))
    events = [
        Event(deployment="line", sequence=place, at="2030-01-01T00:00:00", by="key:ann", what=what, verdicts=(verdict,))
        for place, (what, verdict) in enumerate((("deploy", gate), ("pause", judged), ("rollback", gate)), 1)
    ]

    class Control:
        def call(self, *_: object, **__: object) -> tuple[Event, ...]:
            return tuple(events)

    monkeypatch.setattr(rollouts, "connect", lambda *_: contextlib.nullcontext(Control()))
    rollouts.history("line")
    told = capsys.readouterr().out
    assert "the verdicts of 2, pause" in told and "found p99<1.2x" in told and "found seal" not in told
