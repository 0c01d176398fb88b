"""The folder in which a command is called may be full of downloads: no process of ours imports from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelyard import config
from modelyard.cli import host


def said(command: Sequence[str], folder: Path) -> str:
    """What the interpreter of `command`, with its own flags, says when it imports modelyard in `folder`."""
    interpreter = command[: command.index("-m")]
    done = subprocess.run([*interpreter, "-c", "import modelyard.types"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr


@pytest.mark.parametrize("module", ["modelyard", "msgspec"])
def test_planes_import_nothing_from_where_they_are_started(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("raise SystemExit('taken from the folder')")
    assert "taken from the folder" in said([sys.executable, "-m"], tmp_path), "without the flag it is imported"
    settings = config.load({"home": tmp_path / "home"})
    for plane in host.MODULES:
        assert said(host.Child(plane, settings)._command, tmp_path) == ""
