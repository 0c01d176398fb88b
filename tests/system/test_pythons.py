"""The same model under each Python: a digest each (the lock differs), and each verified under the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
UNNEEDED = re.compile(
    r"catboost|lightgbm|xgboost.*|nvidia.*|matplotlib|plotly|contourpy|fonttools|kiwisolver|pillow|graphviz|pyparsing|cycler|mypy.*|ruff|librt"
    r"|polars.*|hypothesis|pytest.*|import-linter|grimp|hatchling|editables|uv|tomlkit|trove-classifiers|openapi.*|jsonschema.*|opentelemetry-api"
)
pytestmark = pytest.mark.system

TRAIN = """
import sys
import numpy as np, pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
import modelyard

rng = np.random.default_rng(3)
X = pd.DataFrame({"a": rng.normal(size=300), "b": rng.choice(["x", "y", "z"], 300), "c": rng.normal(size=300) * 1e6})
y = X["a"] * 3 + (X["b"] == "x") + X["c"] / 1e6
columns = ColumnTransformer([("n", StandardScaler(), ["a", "c"]), ("s", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["b"])])
model = make_pipeline(columns, HistGradientBoostingRegressor(max_iter=30, random_state=0)).fit(X, y)
print("DIGEST", modelyard.package(model, name="value", data=X, labels=y).digest)
"""


def interpreters(version: str) -> str:
    if sys.version.startswith(version + "."):
        return sys.executable
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    found = sorted(path for root in roots if root.is_dir() for path in root.glob(f"{version}.*/bin/python"))
    return str(found[-1]) if found else f"python{version}"


@pytest.fixture(scope="module")
def pythons(test_environment: Callable[..., Path]) -> dict[str, Path]:
    lock = ROOT / "requirements" / "all.txt"
    only = lambda name: not UNNEEDED.fullmatch(name)  # noqa: E731
    return {
        version: Path(sys.executable)
        if sys.version.startswith(version + ".")
        else test_environment(f"python{version}", lock, python=interpreters(version), only=only)
        for version in PYTHONS
    }


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The wheel as a user would get it, unpacked where any Python finds it."""
    uv = [sys.executable, "-m", "uv", "--quiet"]
    build = ["build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run([*uv, *build], check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def at(tmp_path: Path, pythons: dict[str, Path], installed: Path) -> Iterator[Callable[..., str]]:
    def run(version: str, *arguments: str) -> str:
        home = tmp_path / version
        environment = {**os.environ, "PYTHONPATH": str(installed), "MODELYARD_HOME": str(home), "HOME": str(tmp_path)}
        done = subprocess.run([str(pythons[version]), *arguments], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert done.returncode == 0, f"{version}: {done.stdout}{done.stderr}"
        return done.stdout

    yield run


def test_a_digest_each_and_each_verified_under_the_others(at: Callable[..., str], tmp_path: Path) -> None:
    digests = {version: at(version, "-c", TRAIN).split("DIGEST ")[1].strip() for version in PYTHONS}
    assert len(set(digests.values())) == len(PYTHONS)
    for maker in PYTHONS:
        archive = tmp_path / f"value-{maker}.tar"
        at(maker, "-m", "modelyard.cli", "export", "value", str(archive))
        for other in set(PYTHONS) - {maker}:
            at(other, "-m", "modelyard.cli", "trust", "add", str(tmp_path / maker / "keys" / "signing.pub"))
            shown = json.loads(at(other, "-m", "modelyard.cli", "verify", str(archive), "--json"))
            outcomes = {verdict["rule"]: verdict["outcome"] for verdict in shown["verdicts"]}
            assert shown["digest"] == digests[maker]
            assert outcomes == {"seal": "pass", "golden-replay": "pass", "lock": "warn", "categories": "pass"}, (
                "only the locks differ: they name the Python"
            )
