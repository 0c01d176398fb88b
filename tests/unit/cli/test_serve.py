"""What `serve` puts into its plan; that it answers is tested with real processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from s3 import S3

from modelyard import config
from modelyard.bundle import archive
from modelyard.cli.serve import _found, _plan, filling, tidy
from modelyard.control.plane import ControlPlane, local_principal
from modelyard.errors import InvalidConfig, NotFound, UntrustedSigner
from modelyard.registry.stores import Store
from modelyard.security.seal import Trust
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
        plan = _plan(plane, ["line:2", "line:1", "grid", "line:2"], tmp_path, ExitStack(), trust=plane.trust)
    line, grid = plan.plans
    assert [line.versions[digest] for digest in line.weights] == [2] and [line.versions[digest] for digest in line.hold] == [1]
    assert grid.name == "grid" and len(plan.placements) == 3


def test_a_file_is_served_from_a_copy_that_was_verified(home: Home, tmp_path: Path) -> None:
    index = home.registry.resolve("grid").index
    archive.export(home.registry.blobs, index, tmp_path / "grid.tar")
    with ControlPlane(config.load({"home": home.folder})) as plane:
        plan = _plan(plane, [str(tmp_path / "grid.tar")], tmp_path, ExitStack(), trust=plane.trust)
    (place,) = plan.placements.values()
    assert place.blobs.startswith(str(tmp_path)) and (Path(place.blobs) / "sha256" / index.removeprefix("sha256:")).is_file()


def test_two_bundles_with_one_number_are_refused(home: Home, tmp_path: Path) -> None:
    archive.export(home.registry.blobs, home.registry.resolve("line:2").index, tmp_path / "line.tar")
    with ControlPlane(config.load({"home": home.folder})) as plane:
        with pytest.raises(InvalidConfig, match="same version number"):
            _plan(plane, ["line:1", str(tmp_path / "line.tar")], tmp_path, ExitStack(), trust=plane.trust)
        with pytest.raises(NotFound):
            _plan(plane, ["nope"], tmp_path, ExitStack(), trust=plane.trust)


def test_bundles_in_files_need_no_registry_and_only_trust_of_the_home(home: Home, tmp_path: Path) -> None:
    archive.export(home.registry.blobs, home.registry.resolve("grid").index, tmp_path / "grid.tar")
    plan = _plan(None, [str(tmp_path / "grid.tar")], tmp_path, ExitStack(), trust=Trust(home.folder / "keys"))
    assert [each.name for each in plan.plans] == ["grid"]
    with pytest.raises(UntrustedSigner):
        _plan(None, [str(tmp_path / "grid.tar")], tmp_path, ExitStack(), trust=Trust(tmp_path / "keys"))
    assert not (tmp_path / "keys").exists()


def test_what_lies_in_the_registry_is_held_while_it_is_served(home: Home, tmp_path: Path) -> None:
    with ExitStack() as held, ControlPlane(config.load({"home": home.folder})) as plane:
        plan = _plan(plane, ["line:1"], tmp_path, held, trust=plane.trust)
        (place,) = plan.placements.values()
        plane.delete(local_principal(), "line", 1)
        plane.gc(local_principal())
        assert archive.FolderReader(Path(place.blobs)).read(place.index, limit_bytes=1 << 20)
    assert not Path(place.blobs).exists()


def test_without_a_reference_a_platforms_folder_is_served(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIP_STORAGE_URI", raising=False)
    monkeypatch.setattr(config, "SAGEMAKER_FOLDER", tmp_path / "nothing")
    monkeypatch.setattr(config, "KSERVE_FOLDER", tmp_path / "nothing")
    monkeypatch.delenv("AZUREML_MODEL_DIR", raising=False)
    with pytest.raises(InvalidConfig, match="say what to serve"):
        _found(tmp_path)
    folder = tmp_path / "azure"
    folder.mkdir()
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(folder))
    with pytest.raises(InvalidConfig, match="holds no bundle"):
        _found(tmp_path)
    (folder / "INPUT_model").mkdir()
    archive.export(home.registry.blobs, home.registry.resolve("grid").index, folder / "INPUT_model" / "grid.tar")
    assert _found(tmp_path) == [str(folder / "INPUT_model" / "grid.tar")]


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_vertex_ai_has_in_a_store_is_fetched(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3, is_folder: bool) -> None:
    monkeypatch.setattr(config, "SAGEMAKER_FOLDER", tmp_path / "nothing")
    monkeypatch.delenv("AZUREML_MODEL_DIR", raising=False)
    made = tmp_path / ("grid" if is_folder else "grid.tar")
    archive.export(home.registry.blobs, home.registry.resolve("grid").index, made)
    url = s3.url()
    place = Store(url, setting="test")
    for path in [made] if made.is_file() else [path for path in made.rglob("*") if path.is_file()]:
        place.write(str(path.relative_to(tmp_path)), path.read_bytes())
    Store(f"{url}2", setting="test").write("other.tar", b"of somebody else")
    monkeypatch.setenv("AIP_STORAGE_URI", url)
    (tmp_path / "run").mkdir()
    found = _found(tmp_path / "run")
    assert found == [str(tmp_path / "run" / "fetched" / made.name)]
    with ExitStack() as held, ControlPlane(config.load({"home": home.folder})) as plane:
        assert [plan.name for plan in _plan(plane, found, tmp_path / "run", held, trust=plane.trust).plans] == ["grid"]


def test_run_folders_of_servers_that_were_killed_are_removed_and_no_others(tmp_path: Path) -> None:
    old = time.time() - 3600
    for name in ("dead", "living", "young", "unlocked"):
        (tmp_path / f"modelyard-serve-{name}").mkdir()
        if name != "unlocked":
            (tmp_path / f"modelyard-serve-{name}" / "serve.lock").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "modelyard-serve-link").symlink_to(tmp_path / "other")
    for path in tmp_path.iterdir():
        if not path.name.endswith("young"):
            os.utime(path, (old, old), follow_symlinks=False)
    with (tmp_path / "modelyard-serve-living" / "serve.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        tidy(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"modelyard-serve-living", "modelyard-serve-young", "modelyard-serve-unlocked", "modelyard-serve-link", "other"}


FILL = """
import sys, time
from pathlib import Path
from modelyard.cli.serve import filling
folder = Path(sys.argv[1])
with filling(folder):
    (folder / "fetched").mkdir()
    (folder / "fetched/half.tar").write_bytes(b"0" * 4096)
    print("filling", flush=True)
    time.sleep(600)
"""


def test_what_a_fetch_that_was_killed_left_goes_and_what_another_process_fills_stays(tmp_path: Path) -> None:
    folder, old = tmp_path / "modelyard-serve-fetching", time.time() - 3600
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", FILL, str(folder)], stdout=subprocess.PIPE, text=True) as filler:
        try:
            assert filler.stdout is not None and filler.stdout.readline() == "filling\n"
            os.utime(folder, (old, old))
            tidy(tmp_path)
            assert (folder / "fetched/half.tar").is_file(), "an hour into a long fetch"
        finally:
            filler.kill()
    tidy(tmp_path)
    assert not folder.exists()


def test_a_server_that_runs_holds_its_folder_though_nobody_fills_it_any_more(tmp_path: Path) -> None:
    folder, old = tmp_path / "modelyard-serve-running", time.time() - 3600
    folder.mkdir()
    with filling(folder):
        pass
    with (folder / "serve.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.utime(folder, (old, old))
        tidy(tmp_path)
        assert folder.exists()
    tidy(tmp_path)
    assert not folder.exists()
