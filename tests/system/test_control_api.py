"""The control API as a process: what schemathesis makes of it, and of one that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from world import World

from modelyard import config
from modelyard.client.places import read_admin_key
from modelyard.types import read_control_state

pytestmark = pytest.mark.system


def schemathesis(url: str, key: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    tool = str(Path(sys.executable).parent / "schemathesis")
    command = [
        tool, "run", f"{url}/api/v1/openapi.json", "--checks", "not_a_server_error,response_schema_conformance", "--seed", "1",
        "--max-examples", "25", "--header", f"Authorization: Bearer {key}", "--no-color", "--workers", "1", *options,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=280)


def test_schemathesis_finds_no_server_error(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    world.home.add("line")
    world.home.add("line", offset=1.0)
    world.up()
    try:
        settings = config.load({"home": world.folder})
        done = schemathesis(read_control_state(settings.run).url, read_admin_key(settings), tmp_path)
        assert done.returncode == 0, done.stdout[-8000:]
    finally:
        world.end()
