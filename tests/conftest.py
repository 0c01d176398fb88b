"""What all tests share: the real components they need, found or made; in CI a missing one fails, elsewhere it skips with its reason."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]


def missing(what: str) -> NoReturn:
    """Skip for a missing component; fail where CI must have it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI lacks {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        missing("the data folder ../shared/data")
    return folder


@pytest.fixture(scope="session")
def component() -> Callable[[str], str]:
    """Finds a command on the PATH."""

    def find(command: str) -> str:
        return shutil.which(command) or missing(f"the command {command}")

    return find


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of the caller's reaches a test, and no test writes into the caller's home."""
    for name in [name for name in os.environ if name.startswith("MODELYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path_factory.mktemp("home") / "modelyard"))
    yield


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard" / "test-envs"


@pytest.fixture(scope="session")
def test_environment() -> Callable[..., Path]:
    """Makes (once, cached outside the checkout) a virtual environment from a lock file and gives its Python."""

    def make(name: str, requirements: Path, *, python: str = sys.executable, only: Callable[[str], bool] | None = None) -> Path:
        version = subprocess.run([python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=False)
        if version.returncode:
            missing(f"the interpreter {python}")
        blocks = requirements.read_text("utf-8").replace("\\\n", "\\").splitlines()
        wanted = "\n".join(line.replace("\\", "\\\n") for line in blocks if only is None or only(line.split("=")[0].split("[")[0]))
        key = hashlib.sha256(f"{wanted}{version.stdout}".encode()).hexdigest()[:12]
        folder = _cache() / f"{name}-{key}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "ready").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                (folder / "requirements.txt").write_text(wanted, "utf-8")
                uv = [sys.executable, "-m", "uv", "--quiet"]
                subprocess.run([*uv, "venv", "--python", python, str(folder / "venv")], check=True)
                install = ["pip", "install", "--python", str(folder / "venv"), "--require-hashes", "--no-deps", "-r", str(folder / "requirements.txt")]
                done = subprocess.run([*uv, *install], capture_output=True, text=True, check=False)
                if done.returncode:
                    missing(f"packages for the test environment {name}: {done.stderr[-500:]}")
                (folder / "ready").touch()
        return folder / "venv" / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def clients_python(test_environment: Callable[..., Path]) -> Path:
    """A Python that has the real clients: tritonclient and KServe's."""
    return test_environment("clients", ROOT / "requirements" / "clients.txt")
