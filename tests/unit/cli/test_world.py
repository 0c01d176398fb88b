"""How the running world is found and told."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from certificates import Authority
from receivers import empty_object, receiver

from modelyard import config
from modelyard.cli import show, world
from modelyard.cli.world import _duration, _host_state, _require_success, _rows, _state, _wait, connect, named
from modelyard.control.access import admin_key
from modelyard.control.status import DeploymentStatus, HostStatus, Plane, Serving, Status
from modelyard.errors import Conflict, InvalidConfig, Rejected, Unavailable
from modelyard.health import Health, Trouble
from modelyard.monitor.profile import Shift
from modelyard.monitor.summary import Traffic
from modelyard.rollout.machine import DIRECT
from modelyard.targets.base import Deployment, Outcome, Release, Rollout
from modelyard.types import ControlState, Digest, Verdict, write_control_state

DIGEST = Digest("sha256:" + "1" * 64)
RELEASE = Release(model="m", version=2, digest=DIGEST, index=DIGEST)
FAILED = Verdict(outcome="fail", rule="load", evidence="broken [x]")
PASSED = Verdict(outcome="pass", rule="rollout", evidence="serves")


def rollout(generation: int, *, phase: Literal["holding", "switching"] = "holding") -> Rollout:
    return Rollout(kind="deploy", strategy=DIRECT, goal=RELEASE, generation=generation, phase=phase, started_at=f"t{generation}")


def outcome(generation: int, verdict: Verdict = PASSED) -> Outcome:
    return Outcome(kind="deploy", goal=RELEASE, generation=generation, ended_at="t", started_at=f"t{generation}", verdict=verdict)


def deployment(*, rollout: Rollout | None = None, last: Outcome | None = None) -> Deployment:
    return Deployment(name="m", model="m", generation=1, rollout=rollout, last=last)


def test_a_home_that_is_not_up_says_how_to_start_it() -> None:
    with pytest.raises(Unavailable, match="modelyard up"):
        connect(config.load())


def test_a_rollout_that_went_back_is_a_rejection() -> None:
    with pytest.raises(Rejected, match="serves on") as refused:
        _require_success("m", rollout(2), outcome(2, FAILED))
    assert refused.value.verdicts == (FAILED,)


def test_the_key_is_not_sent_to_whoever_has_the_port_of_a_dead_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load({"home": tmp_path})
    settings.run.mkdir()
    admin_key(settings)
    write_control_state(settings.run, ControlState(pid=os.getpid(), url="http://127.0.0.1:1", started_at=""))
    connect(settings).close()
    monkeypatch.setattr("modelyard.client.places._is_running", lambda _: False)
    with pytest.raises(Unavailable, match="modelyard up"):
        connect(settings)


def test_who_shows_a_key_of_their_own_acts_as_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load({"home": tmp_path})
    settings.run.mkdir()
    admin = admin_key(settings).key
    write_control_state(settings.run, ControlState(pid=os.getpid(), url="http://127.0.0.1:1", started_at=""))
    with connect(settings) as control:
        assert control._control().key == admin
    monkeypatch.setenv("MODELYARD_KEY", "my_own")
    with connect(settings) as control:
        assert control._control().key == "my_own"


def test_a_control_url_is_believed_by_the_authority_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server("server"))
    monkeypatch.setenv("MODELYARD_KEY", "my_own")
    with receiver(context) as server:
        server.answer = empty_object
        said = {"home": tmp_path, "control_url": f"https://localhost:{server.port}"}
        with connect(config.load(said | {"control_ca_file": str(authority.path)})) as control:
            assert control.call("POST", "/deployments", answer=dict) == {}
        assert server.asked[0].headers["authorization"] == "Bearer my_own"
        for believed in ("", str(other.path)):
            with connect(config.load(said | {"control_ca_file": believed})) as control, pytest.raises(Unavailable):
                control.call("POST", "/deployments", answer=dict)
        assert len(server.asked) == 1, "the key went nowhere else"
    with pytest.raises(InvalidConfig, match="certificates"):
        connect(config.load(said | {"control_ca_file": str(tmp_path / "nowhere")}))


def test_a_control_url_is_asked_with_a_key_of_ones_own_and_needs_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load({"home": tmp_path / "none", "control_url": "http://127.0.0.1:1"})
    with pytest.raises(InvalidConfig, match="MODELYARD_KEY"):
        connect(settings)
    monkeypatch.setenv("MODELYARD_KEY", "my_own")
    with connect(settings) as control:
        assert control._control() == ("http://127.0.0.1:1", "my_own")
    assert named(settings, "churn:3", None, is_import=True) == ("churn:3", "churn")
    assert named(settings, "churn@champion", "other", is_import=False) == ("churn@champion", "other")
    with pytest.raises(InvalidConfig, match="import_"):
        named(settings, "./churn.tar", None, is_import=True)
    assert not (tmp_path / "none").exists()


class Told:
    """A control process that tells these states, one a call."""

    def __init__(self, *states: Any) -> None:
        self.states = list(states)

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, *_: object, answer: type[Any]) -> Any:
        return self.states.pop(0)


def waited(monkeypatch: pytest.MonkeyPatch, *states: Deployment) -> Deployment:
    monkeypatch.setattr(world, "connect", lambda _: Told(*states))
    return _wait(config.load(), "m", rollout(2))


def test_a_rollout_has_ended_when_the_next_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    moving, ended = deployment(rollout=rollout(2)), deployment(last=outcome(2))
    assert waited(monkeypatch, moving, deployment(rollout=rollout(2, phase="switching")), ended) == ended
    followed = deployment(rollout=rollout(3), last=outcome(2))
    assert waited(monkeypatch, moving, followed) == followed
    # The try before had the same generation, which it gave back.
    assert waited(monkeypatch, deployment(rollout=rollout(2), last=outcome(2, FAILED)), ended) == ended
    with pytest.raises(Conflict, match="someone else"):
        waited(monkeypatch, moving, deployment(last=outcome(3)))


def test_each_state_is_told() -> None:
    base = Deployment(name="m", model="m", generation=3, current=RELEASE)
    moving = Deployment(name="m", model="m", generation=3, current=RELEASE, rollout=rollout(4))
    back = Deployment(name="m", model="m", generation=3, current=RELEASE, last=outcome(4, FAILED))
    assert "generation 3" in _state(DeploymentStatus(deployment=base, serving=()))
    assert "deploy of version 2: holding" in _state(DeploymentStatus(deployment=moving, serving=()))
    assert "went back: broken \\[x]" in _state(DeploymentStatus(deployment=back, serving=()))
    assert "no room" in _state(DeploymentStatus(deployment=base, serving=(), trouble="no room"))


def test_a_row_per_version_names_the_deployment_once() -> None:
    deployment = Deployment(name="m", model="m", generation=3, current=RELEASE)
    serving = (Serving(version=2, digest=DIGEST, weight=100, ready=2), Serving(version=3, digest=DIGEST, weight=0, ready=1))
    rows = _rows(DeploymentStatus(deployment=deployment, serving=serving, rollback_to=1))
    assert [row[0] for row in rows] == ["m", ""] and [row[3] for row in rows] == ["100 %", "0 %"]
    assert _rows(DeploymentStatus(deployment=deployment, serving=()))[0][0] == "m"


@pytest.mark.parametrize(
    ("health", "word"),
    [
        (Health(is_ready=True), None),
        (Health(is_ready=True, troubles=(Trouble(reason="no_worker", slot=1, evidence="slot 1 has no worker"),)), "degraded"),
        (Health(is_ready=False, troubles=(Trouble(reason="no_worker", slot=1, evidence="slot 1 has no worker"),)), "not ready"),
    ],
)
def test_status_says_whether_the_data_plane_is_whole_and_why_not(
    health: Health, word: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plane = Plane(url="http://h:1", pid=1, workers=1, up_to_date=1)
    monkeypatch.setattr(world, "connect", lambda _: Told(Status(home="h", data_plane=plane, deployments=(), health=health)))
    world.status()
    said = capsys.readouterr().out
    assert [each in said for each in ("degraded", "not ready")] == [word == "degraded", word == "not ready"]
    assert ("slot 1 has no worker" in said) is (word is not None)


def test_status_says_what_is_not_seen_or_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def told(dropped: dict[str, int], **more: Any) -> str:
        traffic = Traffic(name="m", active_s=60, requests=5, rows=5, requests_s=1.0, dropped=dropped)
        found = DeploymentStatus(deployment=Deployment(name="m", model="m", generation=1), serving=(), traffic=traffic)
        monkeypatch.setattr(world, "connect", lambda _: Told(Status(home="h", data_plane=None, deployments=(found,), **more)))
        world.status()
        return capsys.readouterr().out

    out = told({"inputs": 7}, failing={"intake": "no space left for monitor.sqlite"}, unkept=("3 segments found no room",))
    for said in ("intake fails: no space left", "3 segments found no room", "m: the inputs of 7 rows found no room"):
        assert said in out, said
    assert not [said for said in ("fails", "no room") if said in told({})]


def test_a_chance_that_is_too_small_for_a_number_is_not_0() -> None:
    shift = Shift(feature="x", role="input", rows=1, effect=0.1, mean_shift=None, p=0.0, q=0.0, missing=0.0, missing_reference=0.0, outside=0.0)
    assert world._shift(shift)[-1] == "< 1e-300" and world._shift(msgspec.structs.replace(shift, q=0.0123))[-1] == "0.012"


def test_a_feature_is_called_as_it_is_whatever_marks_its_name_holds(capsys: pytest.CaptureFixture[str]) -> None:
    shift = Shift(
        feature="[red](x)", role="input", rows=1, effect=0.1, mean_shift=None, p=1.0, q=1.0, missing=0.0, missing_reference=0.0, outside=0.0
    )
    show.table(["a", "b", "c", "d", "e", "f", "g", "h"], [world._shift(shift)])
    assert "[red](x)" in capsys.readouterr().out


def test_durations_have_their_unit() -> None:
    assert (_duration(None), _duration(0.00123), _duration(2.5)) == (None, "1.23 ms", "2.5 s")


def test_each_state_of_a_host_is_told() -> None:
    host = HostStatus(id="h", is_live=True, counts=True, workers=1)
    told = {
        "in line": host,
        "silent": msgspec.structs.replace(host, is_live=False, trouble={"m": "broken"}),
        "m: away": msgspec.structs.replace(host, trouble={"m": "away"}, lagging=("m",)),
        "catching up": msgspec.structs.replace(host, counts=False, lagging=("m",)),
        "lags: a, b, c and 2 more": msgspec.structs.replace(host, lagging=("a", "b", "c", "d", "e")),
    }
    for said, each in told.items():
        assert said in _host_state(each)


def test_status_shows_hosts_where_there_are_several(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one = HostStatus(id="first-host", is_live=True, counts=True, workers=1, is_here=True)
    two = HostStatus(id="second-host", is_live=True, counts=True, workers=1, leads=True)
    for hosts in ((one,), (one, two)):
        monkeypatch.setattr(world, "connect", lambda _, hosts=hosts: Told(Status(home="h", data_plane=None, deployments=(), hosts=hosts)))
        world.status()
        said = capsys.readouterr().out
        assert ("second-host" in said) is ("leads" in said) is (len(hosts) > 1)


def test_an_interrupt_leaves_the_rollout_running_and_says_how_to_look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(world, "connect", lambda _: Told(deployment(rollout=rollout(2))))
    monkeypatch.setattr(world.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _wait(config.load(), "m", rollout(2))
    assert "the rollout of m goes on; see: modelyard status" in capsys.readouterr().err
