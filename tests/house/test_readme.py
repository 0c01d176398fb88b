"""Every fenced block of the README is run, as printed but for the ports: what it shows is what it does."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def commands(block: str) -> list[str]:
    """The lines behind `$ `, with what a trailing backslash continues."""
    joined = block.replace("\\\n", "")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def run(command: str, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_the_readme_has_two_commands_and_a_tour() -> None:
    first = next(block for language, block in BLOCKS if language == "console")
    assert [line.split("#")[0].strip() for line in commands(first)] == ["make demo", "make test"]
    assert {language for language, _ in BLOCKS} <= {"console", "python", "text"}


@pytest.mark.system
def test_the_two_commands_run() -> None:
    """`make demo` is run whole by tests/system/test_demo.py; here both are resolved as printed (`make test` by collecting: it is what runs this)."""
    environment = {**os.environ, "PYTEST_ADDOPTS": "--collect-only -q -p no:randomly"}
    assert "modelyard demo" in run("make -n demo", environment, ROOT)
    assert "tests/house/test_readme.py" in run(f"{sys.executable} -m pytest tests/house", environment, ROOT)
    assert "-m pytest" in run("make -n test", environment, ROOT)


@pytest.mark.system
def test_the_tour_runs(tmp_path: Path) -> None:
    ports = {"8080": str(free_port()), "8090": str(free_port())}
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "MODELYARD_HOME": str(tmp_path / "home"),
        "MODELYARD_PORT": ports["8080"],
        "MODELYARD_CONTROL_PORT": ports["8090"],
        "MODELYARD_GRPC_PORT": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    shown = ""
    try:
        for language, block in BLOCKS[1:]:
            for written, free in ports.items():
                block = block.replace(f":{written}", f":{free}")
            if language == "python":
                (tmp_path / "train.py").write_text(block, "utf-8")
                run("python train.py", environment, tmp_path)
            elif language == "console":
                for command in commands(block):
                    shown += run(command, environment, tmp_path)
    finally:
        subprocess.run(["modelyard", "down"], env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert '"outputs"' in shown
    assert '"predictions"' in shown
