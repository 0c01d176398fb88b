from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.serve import beside
from modelyard.serve.beside import Beside
from modelyard.serve.log import Log

CODE = """
import os, signal, sys, time
from pathlib import Path
folder, limit_s = Path(sys.argv[1]), float(sys.argv[2])
def end(*_):
    time.sleep(limit_s)
    (folder / "ended").touch()
    sys.exit(0)
if sys.argv[-1] == "--last":
    (folder / "last").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
(folder / f"started-{os.getpid()}").touch()
if os.read(0, 1) == b"":
    (folder / "orphaned").touch()
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beside:
    monkeypatch.setattr(beside, "RESTART_S", (0.0, 0.1))
    (tmp_path / "helper.py").write_text(CODE)
    return Beside("helper", [str(tmp_path), "0"], environment={**os.environ, "PYTHONPATH": str(tmp_path)}, log=Log("json", process="supervisor"))


def wait(folder: Path, pattern: str, count: int = 1) -> None:
    until = time.monotonic() + 30
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_it_is_started_again_when_it_ends(made: Beside, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made.tend(time.monotonic())
    first = made.pid
    assert first is not None
    wait(tmp_path, "started-*")
    made.tend(time.monotonic())
    assert made.pid == first, "one at a time"
    os.kill(first, signal.SIGKILL)
    until = time.monotonic() + 30
    while made.pid in (first, None) and time.monotonic() < until:
        made.tend(time.monotonic())
        time.sleep(0.01)
    wait(tmp_path, "started-*", 2)
    made.stop(limit_s=10)
    assert made.pid is None and (tmp_path / "ended").exists() and not (tmp_path / "last").exists()
    said = capfd.readouterr().err
    assert said.count("exporter_started") == 2 and said.count("exporter_ended") == 1


def test_what_does_not_end_in_time_is_ended(made: Beside, tmp_path: Path) -> None:
    made._command[-1] = "600"
    made.tend(time.monotonic())
    wait(tmp_path, "started-*")
    started_s = time.monotonic()
    made.stop(limit_s=0.05)
    assert time.monotonic() - started_s < 60 and not (tmp_path / "ended").exists()
    made.stop(limit_s=0)
    assert not (tmp_path / "last").exists(), "without time there is nothing to do"


def test_what_does_not_run_at_the_end_runs_once_more(made: Beside, tmp_path: Path) -> None:
    made.stop(limit_s=30)
    assert (tmp_path / "last").exists()
    (tmp_path / "last").unlink()
    made.tend(time.monotonic())
    wait(tmp_path, "started-*")
    assert made.pid is not None
    os.kill(made.pid, signal.SIGKILL)
    made.stop(limit_s=30)
    assert (tmp_path / "last").exists()


SUPERVISOR = """
import os, sys, time
from pathlib import Path
from modelyard.serve.beside import Beside
from modelyard.serve.log import Log
folder = Path(sys.argv[1])
Beside("helper", [str(folder), "0"], environment=os.environ, log=Log("json", process="supervisor")).tend(0.0)
while not list(folder.glob("started-*")):
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""


def test_it_knows_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(CODE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", SUPERVISOR, str(tmp_path)], env=environment, check=False).returncode == -signal.SIGKILL
    wait(tmp_path, "orphaned")


def test_what_cannot_be_started_is_told(made: Beside, capfd: pytest.CaptureFixture[str]) -> None:
    made._command[0] = f"{sys.executable}-is-not-there"
    made.tend(time.monotonic())
    assert made.pid is None and "could not be started" in capfd.readouterr().err
    made.stop(limit_s=5)
