"""Traffic is told from what was taken in, against the profile that the bundle carries."""

from __future__ import annotations

from pathlib import Path

from modelyard import config
from modelyard.control.plane import ControlPlane
from modelyard.control.traffic import Watch
from modelyard.targets.base import Deployment, Release
from modelyard.types import Digest
from serving import Home


def test_a_deployment_without_traffic_is_told_as_such(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.add("line")
    version = home.registry.resolve("line")
    release = Release(model="line", version=1, digest=version.digest, index=version.index)
    gone = Release(model="line", version=9, digest=Digest("sha256:" + "9" * 64), index=Digest("sha256:" + "8" * 64))
    with ControlPlane(config.load({"home": tmp_path})) as plane:
        watch = Watch(plane)
        deployments = [
            Deployment(name="a", model="line", generation=1, current=release),
            Deployment(name="b", model="line", generation=1, current=gone),
            Deployment(name="c", model="line", generation=0),
        ]
        for _ in range(2):
            found = watch.traffic(deployments)
            assert set(found) == {"a", "b", "c"} and all(traffic.requests == 0 and traffic.shifts == () for traffic in found.values())


def test_windows_that_cannot_be_read_leave_traffic_out(tmp_path: Path) -> None:
    with ControlPlane(config.load({"home": tmp_path})) as plane:
        (tmp_path / "monitor.sqlite").mkdir()
        assert Watch(plane).traffic([Deployment(name="a", model="m", generation=0)]) == {}
