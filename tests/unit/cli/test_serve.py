"""What `serve` puts into its plan; that it answers is tested with real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import config
from modelyard.bundle import archive
from modelyard.cli.serve import _plan
from modelyard.control.plane import ControlPlane
from modelyard.errors import InvalidConfig, NotFound
from serving import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    for offset in (0.0, 1.0):
        home.add("line", offset=offset)
    home.add("grid")
    return home


def test_the_first_version_named_answers_and_the_others_are_held(home: Home, tmp_path: Path) -> None:
    with ControlPlane(config.load({"home": home.folder})) as plane:
        plan = _plan(plane, ["line:2", "line:1", "grid", "line:2"], tmp_path)
    line, grid = plan.plans
    assert [line.versions[digest] for digest in line.weights] == [2] and [line.versions[digest] for digest in line.hold] == [1]
    assert grid.name == "grid" and len(plan.placements) == 3


def test_a_file_is_served_from_a_copy_that_was_verified(home: Home, tmp_path: Path) -> None:
    index = home.registry.resolve("grid").index
    archive.export(home.registry.blobs, index, tmp_path / "grid.tar")
    with ControlPlane(config.load({"home": home.folder})) as plane:
        plan = _plan(plane, [str(tmp_path / "grid.tar")], tmp_path)
    (place,) = plan.placements.values()
    assert place.blobs.startswith(str(tmp_path)) and (Path(place.blobs) / "sha256" / index.removeprefix("sha256:")).is_file()


def test_two_bundles_with_one_number_are_refused(home: Home, tmp_path: Path) -> None:
    archive.export(home.registry.blobs, home.registry.resolve("line:2").index, tmp_path / "line.tar")
    with ControlPlane(config.load({"home": home.folder})) as plane:
        with pytest.raises(InvalidConfig, match="same version number"):
            _plan(plane, ["line:1", str(tmp_path / "line.tar")], tmp_path)
        with pytest.raises(NotFound):
            _plan(plane, ["nope"], tmp_path)
