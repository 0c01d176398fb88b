"""types: plans and worker states survive their files; what is no plan is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from modelyard.errors import DigestMismatch, InvalidInput, MalformedPayload, NotFound
from modelyard.types import (
    Digest,
    HostPlan,
    ModelState,
    Placement,
    ServeState,
    TrafficPlan,
    Verdict,
    WorkerState,
    learn,
    parse_digest,
    parse_name,
    parse_sticky,
    read_plan,
    read_serve_state,
    read_worker_state,
    write_plan,
    write_serve_state,
    write_worker_state,
)

A, B = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)
UNPLACED = ('{"sequence":1,"plans":[{"name":"a","generation":1,"weights":{"A":100},"versions":{"A":1}}],"placements":{}}'.replace("A", A)).encode()


def host_plan() -> HostPlan:
    plan = TrafficPlan(name="churn", generation=3, weights={A: 90, B: 10}, versions={A: 1, B: 2})
    return HostPlan(sequence=7, plans=(plan,), placements={digest: Placement(blobs="/blobs", index=digest) for digest in (A, B)})


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.json", host_plan())
    assert read_plan(tmp_path / "plan.json") == host_plan()


def test_states_survive_their_files(tmp_path: Path) -> None:
    verdict = Verdict(outcome="fail", rule="golden", evidence="row 3 differs", numbers={"rows": 1.0})
    state = WorkerState(slot=1, pid=2, sequence=3, models={A: ModelState(state="failed", verdict=verdict)})
    write_worker_state(tmp_path, state)
    assert read_worker_state(tmp_path, 1) == state
    serve = ServeState(pid=1, host="127.0.0.1", port=80, slots=(0, 1), started_at="2026-01-01T00:00:00Z")
    write_serve_state(tmp_path, serve)
    assert read_serve_state(tmp_path) == serve


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"sequence": "x", "plans": [], "placements": {}}', b"\xff", UNPLACED])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(text)
    with pytest.raises(MalformedPayload, match=r"plan\.json"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(NotFound):
        read_plan(tmp_path / "none.json")


@pytest.mark.parametrize("weights", [{A: 99}, {A: 101}, {A: 100, B: 0}, {A: 200, B: -100}, {}])
def test_weights_sum_to_100(weights: dict[Digest, int]) -> None:
    with pytest.raises(InvalidInput, match="weights"):
        TrafficPlan(name="churn", generation=1, weights=weights, versions=dict.fromkeys(weights, 1))


def test_a_plan_loads_its_champion_and_shadows() -> None:
    given = {"name": "churn", "generation": 1, "weights": {A: 100}, "versions": {A: 1, B: 2}}
    assert TrafficPlan(**given, shadows={B: 0.05}).digests == TrafficPlan(**given, champion=B).digests == (A, B)  # type: ignore[arg-type]
    for share in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInput, match="share"):
            TrafficPlan(**given, shadows={B: share})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="version"):
        TrafficPlan(name="churn", generation=1, weights={A: 100}, versions={A: 1}, champion=B)


def test_a_sticky_key_is_a_header_or_a_field() -> None:
    assert parse_sticky("header:X-User") == ("header", "x-user")
    assert parse_sticky("field:user id") == ("field", "user id")
    assert TrafficPlan(name="churn", generation=1, weights={A: 100}, versions={A: 1}, sticky="field:age").sticky == "field:age"
    for text in ("", "header", "header:", "field:", "cookie:id", "header:a b", "header:a\r\n"):
        with pytest.raises(InvalidInput, match="sticky"):
            TrafficPlan(name="churn", generation=1, weights={A: 100}, versions={A: 1}, sticky=text)


def test_a_plan_names_versions_and_places() -> None:
    with pytest.raises(InvalidInput, match="version"):
        TrafficPlan(name="churn", generation=1, weights={A: 100}, versions={A: 1}, hold=(B,))
    with pytest.raises(InvalidInput, match="places"):
        HostPlan(sequence=1, plans=host_plan().plans, placements={})
    with pytest.raises(InvalidInput, match="once"):
        HostPlan(sequence=1, plans=host_plan().plans * 2, placements=host_plan().placements)


@pytest.mark.parametrize("name", ["", "Churn", "a/b", "../a", "a" * 64, "-a", "a-", "a b", "a\n"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        parse_name(name)
    assert parse_name("churn-2.x_y") == "churn-2.x_y"


@pytest.mark.parametrize("text", ["", "sha256:abc", "sha256:" + "A" * 64, "md5:" + "a" * 64, A + "0"])
def test_a_bad_digest_is_refused(text: str) -> None:
    with pytest.raises(DigestMismatch):
        parse_digest(text)
    assert parse_digest(A) == A


def test_the_structs_of_a_room_are_learnt_at_once_and_what_cannot_be_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[str] = []

    def learning(kind: type) -> None:
        learnt.append(kind.__name__)
        raise NameError("a name that only type checkers see")

    monkeypatch.setattr(msgspec.json, "Decoder", learning)
    learn("modelyard.types")
    assert {"TrafficPlan", "HostPlan", "WorkerState"} <= set(learnt)
    learnt.clear()
    learn("modelyard.nowhere.")
    assert learnt == []
