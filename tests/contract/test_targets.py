"""Every target: applying is idempotent, each change is newer than the one before, and readiness is never assumed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from modelyard.targets import TARGETS
from modelyard.targets.base import Target, TargetState
from modelyard.types import Digest, Placement, TrafficPlan

ONE, TWO = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


def make_local(folder: Path) -> dict[str, Any]:
    (folder / "run").mkdir()
    return {"plan": folder / "plan.json", "run": folder / "run"}


ARGUMENTS = {"local": make_local}


@pytest.fixture(params=sorted(TARGETS))
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """Each target of the table, with nothing serving on it."""
    module, _, kind = TARGETS[request.param].partition(":")
    made: Target = getattr(import_module(module), kind)(**ARGUMENTS[request.param](tmp_path))
    return made


def plan(name: str, digest: Digest, generation: int = 1) -> TrafficPlan:
    return TrafficPlan(name=name, generation=generation, weights={digest: 100}, versions={digest: 1})


PLACES = {digest: Placement(blobs="b", index=digest) for digest in (ONE, TWO)}


def test_converging_again_changes_nothing(target: Target) -> None:
    assert target.converge([plan("a", ONE)], PLACES) == target.converge([plan("a", ONE)], PLACES)


def test_tickets_rise_with_each_change(target: Target) -> None:
    tickets = [
        target.converge([plan("a", ONE)], PLACES),
        target.converge([plan("a", ONE), plan("b", ONE)], PLACES),
        target.converge([plan("a", TWO, 2), plan("b", ONE)], PLACES),
        target.remove("b"),
    ]
    assert tickets == sorted(set(tickets))
    assert target.converge([plan("a", TWO, 2)], PLACES) == tickets[-1], "only a is left"


def test_removing_twice_is_removing_once(target: Target) -> None:
    target.converge([plan("a", ONE)], PLACES)
    ticket = target.remove("a")
    assert ticket == target.remove("a") == target.converge([], {})


def test_converging_leaves_only_what_is_planned_or_kept(target: Target) -> None:
    first = target.converge([plan("a", ONE), plan("b", TWO)], PLACES)
    second = target.converge([plan("c", ONE)], PLACES, keep=("a", "nobody"))
    assert second > first
    assert target.converge([plan("a", ONE), plan("c", ONE)], PLACES) == second, "b is gone, a was kept"
    assert target.converge([], {}) > second


def test_nothing_is_ready_or_applied_where_nothing_serves(target: Target) -> None:
    ticket = target.converge([plan("a", ONE)], PLACES)
    assert target.readiness(ONE).outcome == "unknown" and not target.has_applied(ticket)
    state = target.state()
    assert isinstance(state, TargetState) and state.serve is None and state.workers == () and state.sequence == ticket
