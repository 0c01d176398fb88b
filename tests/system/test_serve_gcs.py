"""Vertex AI's model in Google's store, `AIP_STORAGE_URI=gs://…`: fetched by gcsfs from an emulator, verified, and served on the platform's routes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gcs
import pytest

from modelyard.bundle import archive
from serving import Home, Running, children

pytestmark = pytest.mark.system
ROUTE = "/v1/endpoints/1/deployedModels/2"


@pytest.fixture(scope="module")
def store(gcs_python: Path) -> Iterator[gcs.Gcs]:
    with gcs.running(gcs_python) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, store: gcs.Gcs) -> Home:
    """A home whose model lies in the store as a file, `tar/line.tar`, and as a folder, `folder/line/…`, in a store whose console marks folders."""
    folder = tmp_path_factory.mktemp("gcs")
    home = Home(folder / "home")
    home.add("line")
    for name in ("line.tar", "line"):
        archive.export(home.registry.blobs, home.registry.resolve("line").index, folder / name)
    store.write("tar/", b" ")  # the emulator takes no empty object
    store.write("tar/line.tar", (folder / "line.tar").read_bytes())
    store.write("tarot", b"of somebody else")
    for path in (folder / "line").rglob("*"):
        if path.is_file():
            store.write(f"folder/{path.relative_to(folder)}", path.read_bytes())
    return home


@contextmanager
def starting(store: gcs.Gcs, home: Path, uri: str, *, python: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """`modelyard serve` as Vertex AI starts it, with that model."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    aip = {
        "AIP_MODE": "PREDICTION",
        "AIP_STORAGE_URI": uri,
        "AIP_HTTP_PORT": str(port),
        "AIP_HEALTH_ROUTE": ROUTE,
        "AIP_PREDICT_ROUTE": f"{ROUTE}:predict",
    }
    environment = {**os.environ, **store.environment, **aip, "MODELYARD_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    command = [str(python or store.python), "-m", "modelyard.cli", "serve", "serve", "--insecure", "--host", "0.0.0.0", "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--grpc-port", "-1", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=home.parent
    )
    try:
        yield process
    finally:
        left = children(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("uri", ["gs://models/tar", "gs://models/tar/line.tar", "gs://models/folder/"])
def test_what_lies_there_is_fetched_and_served(store: gcs.Gcs, home: Home, uri: str) -> None:
    with starting(store, home.folder, uri) as process:
        assert process.stdout is not None
        card = json.loads(process.stdout.readline())
        server = Running(process, card, home, home.folder)  # type: ignore[arg-type]
        assert [(model["name"], model["version"]) for model in card["models"]] == [("line", 1)]
        assert server.ask("GET", ROUTE).status == 200
        assert server.ask("POST", f"{ROUTE}:predict", {"instances": [[1.0, 2, 3.0], [4.0, 5, 6.0]]}).json() == {"predictions": [321.0, 654.0]}


@pytest.mark.parametrize(
    ("uri", "code", "told"),
    [
        ("gs://models/nothing", "not_found", "nothing lies at the place that AIP_STORAGE_URI names"),
        ("gs://no-such-bucket/x", "not_found", "AIP_STORAGE_URI"),
        ("gs://models/tarot", "digest_mismatch", "cut short"),
    ],
)
def test_what_does_not_lie_there_is_told(store: gcs.Gcs, home: Home, uri: str, code: str, told: str) -> None:
    _refused(store, home.folder, uri, code, told)


def test_who_did_not_seal_it_is_not_believed(store: gcs.Gcs, home: Home, tmp_path: Path) -> None:
    """The way is the same, but the bytes are believed for their seal alone: a home that does not trust the signer serves nothing."""
    (tmp_path / "home").mkdir()
    _refused(store, tmp_path / "home", "gs://models/tar", "untrusted_signer", "does not trust")


def test_an_image_without_gcsfs_is_told_what_it_lacks(store: gcs.Gcs, home: Home) -> None:
    _refused(store, home.folder, "gs://models/tar", "misconfigured", "install what fsspec needs for gs://", python=Path(sys.executable))


def _refused(store: gcs.Gcs, home: Path, uri: str, code: str, told: str, *, python: Path | None = None) -> None:
    with starting(store, home, uri, python=python) as process:
        assert process.stdout is not None
        error = json.loads(process.stdout.readline())["error"]
        assert error["code"] == code and told in error["message"], error
        assert process.wait(30) != 0
