"""What all tests share: the real components they need, found or made; in CI a missing one fails, elsewhere it skips with its reason."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
from hypothesis import settings

from modelyard.bundle import Attested, Built, Contents, build
from modelyard.bundle.card import Card
from modelyard.bundle.lock import Lock
from modelyard.security.seal import LocalSigner, Trust, local_signer
from modelyard.types import Schema, TensorSpec, Tolerance

if TYPE_CHECKING:
    from postgres import Postgres
    from s3 import S3

ROOT = Path(__file__).parents[1]


# A slow machine is no finding: a speed belongs in a benchmark.
settings.register_profile("modelyard", deadline=None)
settings.load_profile("modelyard")


def pytest_unconfigure() -> None:
    """Let pytest's closing line be the last: duckdb's binding lists its own objects as leaked when the interpreter ends, some hundred lines of it."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


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
def lacks() -> Callable[[str], NoReturn]:
    """Ends a test that needs what is not there: it skips, and fails in CI."""
    return missing


@pytest.fixture(scope="session")
def component() -> Callable[[str], str]:
    """Finds a command on the PATH."""

    def find(command: str) -> str:
        return shutil.which(command) or missing(f"the command {command}")

    return find


@pytest.fixture(scope="session")
def postgres(component: Callable[[str], str]) -> Iterator[Postgres]:
    """A real PostgreSQL; `postgres.url()` is a new empty database."""
    from postgres import running

    for command in ("initdb", "postgres", "pg_isready", "psql"):
        component(command)
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """A real S3-compatible server."""
    from s3 import running

    with running() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server with this process set up to use it; `s3.url()` is a new empty place."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


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
                install = [
                    "pip",
                    "install",
                    "--python",
                    str(folder / "venv"),
                    "--require-hashes",
                    "--no-deps",
                    "-r",
                    str(folder / "requirements.txt"),
                ]
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


@pytest.fixture(scope="session")
def mlflow_python(test_environment: Callable[..., Path]) -> Path:
    """A Python that has MLflow's scoring client."""
    return test_environment("mlflow", ROOT / "requirements" / "mlflow.txt")


@pytest.fixture(scope="session")
def openapi_python(test_environment: Callable[..., Path]) -> Path:
    """A Python that has two generators of clients, and what their clients need."""
    return test_environment("openapi", ROOT / "requirements" / "openapi.txt")


@pytest.fixture(scope="session")
def gcs_python(test_environment: Callable[..., Path]) -> Path:
    """A Python that has gcsfs and an emulator of Google's store; with `PYTHONPATH` as in tests/support/gcs.py, beside all that this one has."""
    return test_environment("gcs", ROOT / "requirements" / "gcs.txt")


@pytest.fixture(scope="session")
def tensorflow_python(test_environment: Callable[..., Path]) -> Path:
    """A Python that has TensorFlow Serving's client, in the size that needs no GPU library. TensorFlow has wheels for x86-64 Linux alone."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.version_info >= (3, 14):
        missing("wheels of tensorflow-cpu for this machine")
    return test_environment("tensorflow", ROOT / "requirements" / "tensorflow.txt")


TORCH = ("torch==2.13.0", "onnxscript==0.7.2", "safetensors==0.8.0")
"""What the PyTorch tests need; too large for everybody's environment, and never in our lock."""


@pytest.fixture(scope="session")
def torch_python() -> Path:
    """A Python that has PyTorch beside all that this one has: made once by pip, cached outside the checkout."""
    ours = sysconfig.get_paths()["purelib"]
    key = hashlib.sha256(f"{TORCH}{sys.version}{ours}".encode()).hexdigest()[:12]
    folder = _cache() / f"torch-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
            theirs = subprocess.run(
                [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], capture_output=True, text=True, check=True
            )
            (Path(theirs.stdout.strip()) / "checkout.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
            done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *TORCH], capture_output=True, text=True, check=False)
            if done.returncode:
                missing(f"PyTorch for the tests that export it: {done.stderr[-500:]}")
            (folder / "ready").touch()
    return python


def sample_contents(**changes: Any) -> Contents:
    """The contents of a small bundle whose model is no real one: what bundle, registry and archives need to be tested."""
    number = TensorSpec(name="age", datatype="FP64", shape=(-1, 1), is_nullable=True, minimum=(18,), maximum=(90.5,))
    text = TensorSpec(name="city", datatype="BYTES", shape=(-1, 1), categories=("Oslo", "Łódź"), tag="mask")
    output = TensorSpec(name="prediction", datatype="FP64", shape=(-1,))
    schema = Schema(inputs=(number, text), outputs=(output,), layout="frame", task="regression")
    lock = Lock(python="3.11.7", packages={"numpy": "2.4.6", "scikit-learn": "1.9.1"})
    card = Card(
        title="Pipeline(ColumnTransformer, Ridge)",
        schema=schema,
        method="double graph",
        tolerance=Tolerance(),
        rows=100,
        golden_rows=3,
        packages=lock.packages,
        python=lock.python,
        example={"age": 41.5, "city": "text"},
        limits=("seen ages are 18 to 90 | others extrapolate",),
    )
    golden = {"age": np.array([[18.0], [np.nan], [90.5]]), "city": np.array([["x"], [None], ["é"]], dtype=object)}
    given: dict[str, Any] = {
        "model": b"a model",
        "runtime": {"kind": "onnx", "inputs": ["age", "city"]},
        "schema": schema,
        "lock": lock,
        "profile": {"age": {"edges": [18.0, 40.0, 90.5], "counts": [50, 50]}},
        "golden": golden,
        "card": card,
    }
    return Contents(**{**given, **changes})


def sample_attested(**changes: Any) -> Attested:
    """What a machine could have found of `sample_contents`."""
    given: dict[str, Any] = {
        "name": "churn",
        "outputs": {"prediction": np.array([1.5, -2.0, 3.25])},
        "parity": {"rows": 100, "outputs": {"prediction": {"max_abs": 1e-15}}},
        "platform": {"cpu": "some", "threads": 2, "time": "2026-01-02T03:04:05+00:00"},
    }
    return Attested(**{**given, **changes})


@pytest.fixture
def contents() -> Callable[..., Contents]:
    """Makes sample contents, with changes."""
    return sample_contents


@pytest.fixture
def attested() -> Callable[..., Attested]:
    """Makes a sample attestation, with changes."""
    return sample_attested


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key folder of a home that has its key; read-only for tests."""
    folder = tmp_path_factory.mktemp("keys")
    local_signer(folder)
    return folder


@pytest.fixture(scope="session")
def signer(keys: Path) -> LocalSigner:
    """The signer of `keys`."""
    return local_signer(keys)


@pytest.fixture(scope="session")
def trust(keys: Path) -> Trust:
    """The trust of a home that believes itself alone."""
    return Trust(keys)


@pytest.fixture(scope="session")
def built(signer: LocalSigner) -> Built:
    """A sealed sample bundle."""
    return build(sample_contents(), sample_attested(), signer=signer)
