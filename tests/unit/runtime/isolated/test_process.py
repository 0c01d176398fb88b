"""runtime.isolated.process: what a process is given, and how its end is read."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.config import Settings
from modelyard.errors import ModelFailed, Unavailable
from modelyard.runtime.isolated.process import Ended, Isolation, Members, Process, Raised, failed, sweep

SOURCE = b"def predict(inputs):\n    return inputs['X'][:, 0]\n"


@pytest.fixture
def members() -> Iterator[Members]:
    found = Members({"code/m.py": SOURCE})
    yield found
    found.close()


def test_members_lie_in_a_file_that_nobody_changes(members: Members) -> None:
    assert SOURCE in os.pread(members.descriptor, 10_000, 0)
    with pytest.raises(OSError):
        os.pwrite(members.descriptor, b"x", 0)
    with pytest.raises(OSError):
        os.ftruncate(members.descriptor, 0)


def test_a_process_is_given_two_descriptors_and_a_bare_environment(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CANARY", "canary")
    process = Process("m:predict", members, Isolation())
    try:
        process.wait_ready()
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"-I\0" in command and b"canary" not in command
        assert process.libraries() == ["m"]
        assert process.resident_bytes() > 0 and not process.is_gone
        assert process.cpu_us() > 0  # it has imported numpy
    finally:
        process.close()
    assert process.cpu_us() == 0
    assert process.is_gone and not process.scratch.exists() and not Path(f"/proc/{process.pid}").exists()


def test_a_kill_by_others_is_told_from_a_crash(members: Members) -> None:
    for number, reason in ((9, "killed"), (6, "crash")):
        process = Process("m:predict", members, Isolation())
        process.wait_ready()
        os.kill(process.pid, number)
        with pytest.raises(ModelFailed) as caught:
            process.ask({})
        assert isinstance(caught.value.__cause__, Ended) and caught.value.__cause__.reason == reason


def test_one_that_cannot_be_started_leaves_nothing(members: Members, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(Unavailable, match=r"could not be started \(No such file"):
        Process("m:predict", members, Isolation())
    assert not list(tmp_path.iterdir()) and sorted(os.listdir("/proc/self/fd")) == before


def test_folders_of_owners_that_are_gone_are_swept_and_others_stay() -> None:
    temporary = Path(tempfile.gettempdir())
    gone, ours, other = (temporary / f"modelyard-isolated-{who}-test" for who in (2**22 + 7, os.getpid(), "x"))
    for folder in (gone, ours, other):
        folder.mkdir()
        (folder / "file").touch()
    try:
        sweep()
        assert not gone.exists() and ours.exists() and other.exists()
    finally:
        for folder in (ours, other):
            (folder / "file").unlink()
            folder.rmdir()


def test_isolation_is_as_the_settings_say() -> None:
    found = Isolation.of(
        Settings(isolation="weak", isolated_processes=3, isolated_memory_bytes=5, isolated_start_timeout_s=7.0, request_timeout_s=9.0, home=Path("h"))
    )
    home = str(Path("h").resolve())
    assert found == Isolation(processes=3, memory_bytes=5, weak=True, start_timeout_s=7.0, answer_timeout_s=9.0, home=home)


def test_callers_are_told_what_happened_and_nothing_of_the_code() -> None:
    assert "memory" in failed(Ended("oom")).message and "in time" in failed(Ended("hang")).message
    assert "canary" not in failed(Ended("crash", "canary")).message
    assert str(Raised({"kind": "ValueError", "text": "no", "where": "m.py:3"})) == "ValueError: no (m.py:3)"
