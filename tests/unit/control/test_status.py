"""The running world in one value."""

from __future__ import annotations

import os
from pathlib import Path

from modelyard import config
from modelyard.control.plane import ControlPlane
from modelyard.control.status import status
from modelyard.control.traffic import Watch
from modelyard.rollout.election import Leader
from modelyard.rollout.hosts import LEASE_S, HostReport, Seen
from modelyard.targets.base import Deployment, Release
from modelyard.types import ModelState, ServeState, WorkerState, write_serve_state, write_unstarted, write_worker_state
from serving import Home


def test_what_should_serve_what_does_and_what_is_wrong(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.add("line")
    version = home.registry.resolve("line")
    release = Release(model="line", version=1, digest=version.digest, index=version.index)
    with ControlPlane(config.load({"home": tmp_path})) as plane:
        deployment = Deployment(name="line", model="line", generation=1, current=release, previous=(release,))
        assert status(plane, [deployment], trouble={}, traffic={}).data_plane is None
        run = tmp_path / "run"
        run.mkdir()
        write_serve_state(run, ServeState(pid=os.getpid(), host="127.0.0.1", port=8080, slots=(0, 1), started_at=""))
        write_worker_state(run, WorkerState(slot=0, pid=os.getpid(), sequence=1, models={version.digest: ModelState(state="ready")}))
        write_worker_state(run, WorkerState(slot=1, pid=os.getpid(), sequence=0, models={version.digest: ModelState(state="loading")}))
        plane.targets["local"].remove("nothing")
        found = status(plane, [deployment], trouble={"line": "no room"}, traffic=Watch(plane).traffic([deployment]))
    assert found.data_plane is not None
    assert (found.data_plane.url, found.data_plane.workers, found.data_plane.up_to_date) == ("http://127.0.0.1:8080", 2, 1)
    assert found.health is not None and not found.health.is_ready  # these reports say nothing of having started
    (told,) = found.deployments
    assert (told.trouble, told.rollback_to, told.serving[0].ready, told.serving[0].weight) == ("no room", 1, 1, 100)
    assert told.traffic is not None and told.traffic.requests == 0


def test_a_degraded_data_plane_says_what_is_wrong(tmp_path: Path) -> None:
    Home(tmp_path)
    with ControlPlane(config.load({"home": tmp_path})) as plane:
        assert status(plane, [], trouble={}, traffic={}).health is None
        run = tmp_path / "run"
        run.mkdir()
        write_unstarted(run, "serve", "no room")
        found = status(plane, [], trouble={}, traffic={})
        assert found.data_plane is None and found.health is not None and not found.health.is_ready
        assert found.health.troubles[0].evidence == "the data plane cannot be started (no room), which is tried again"
        write_serve_state(run, ServeState(pid=os.getpid(), host="127.0.0.1", port=8080, slots=(0,), started_at="", size=2, is_up=True))
        write_worker_state(run, WorkerState(slot=0, pid=os.getpid(), sequence=1, is_ready=True))
        found = status(plane, [], trouble={}, traffic={})
    assert found.health is not None and found.health.is_ready
    assert [(trouble.reason, trouble.slot) for trouble in found.health.troubles] == [("no_worker", 1)]


def test_hosts_are_told_with_who_leads_and_who_is_here(tmp_path: Path) -> None:
    Home(tmp_path)
    (tmp_path / "host.id").write_text("here\n")
    reports = [HostReport(id=each, instance="i", started_at="t", data=f"http://{each}:1", counts=True, workers=2) for each in ("here", "other")]
    seen = [Seen(reports[0], 1, 0.0), Seen(reports[1], 2, LEASE_S + 1)]
    with ControlPlane(config.load({"home": tmp_path})) as plane:
        found = status(plane, [], trouble={}, traffic={}, hosts=seen, leader=Leader(host="other", instance="i", term=7))
    assert [(host.id, host.is_here, host.leads, host.is_live) for host in found.hosts] == [("here", True, False, True), ("other", False, True, False)]
    assert found.term == 7
