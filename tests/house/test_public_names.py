"""The public names: each is there, each is documented, and importing the package loads nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import modelyard

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", modelyard.__all__)
def test_a_public_name_resolves_and_is_documented(name: str) -> None:
    assert getattr(modelyard, name).__doc__
    assert f"modelyard.{name}" in (ROOT / "docs/reference.md").read_text("utf-8")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pickle'"):
        _ = modelyard.pickle


def test_the_version_is_the_one_of_the_distribution() -> None:
    from importlib.metadata import version

    assert version("modelyard") == modelyard.__version__


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys, modelyard; print(sorted(name for name in sys.modules if name.startswith(('modelyard.', 'numpy'))))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
