"""runtime.isolated.sandbox: each wall alone, entered by a child of the test; `tests/hostile/test_isolated_code.py` tries them from inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.runtime.isolated.sandbox import Means, _readable_by_all, keep_apart, readable

ENTER = """
import json, os, resource, sys
from modelyard.runtime.isolated import sandbox, seccomp
{change}
means = sandbox.enter(sys.argv[1], memory_bytes=1 << 30, user=int(sys.argv[2]), parent=os.getppid(), weak={weak})
limits = [resource.getrlimit(getattr(resource, name))[0] for name in ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_NOFILE")]
print(json.dumps({{"means": means._asdict(), "limits": limits, "uid": os.getuid(), "cwd": os.getcwd(), "session": os.getsid(0) == os.getpid()}}))
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")


def entered(tmp_path: Path, *, change: str = "", user: int = 0, weak: bool = False) -> dict[str, object]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = ENTER.format(change=change, weak=weak)
    command = [sys.executable, "-I", "-c", code, str(scratch), str(user)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"OPENBLAS_NUM_THREADS": "1"}, cwd="/", start_new_session=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@linux
def test_all_that_this_machine_has_is_taken(tmp_path: Path) -> None:
    found = entered(tmp_path)
    assert found["limits"] == [1 << 30, 0, 64]
    assert found["cwd"] == str(tmp_path / "scratch") and found["session"]
    means = found["means"]
    assert isinstance(means, dict) and means["calls"] == "seccomp" and means["network"] and means["files"]


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take another user")
def test_root_becomes_a_user_that_owns_nothing_where_that_user_can_read_python(tmp_path: Path) -> None:
    found = entered(tmp_path, change="sandbox._readable_by_all = lambda _: True", user=61_200)
    assert found["uid"] == 61_200 and found["means"]["user"] == "61200"  # type: ignore[index]


@linux
def test_files_left_open_are_refused_and_named(tmp_path: Path) -> None:
    change = "sandbox._landlock = lambda _: (-1, 0); sandbox._take_user = lambda *_: False"
    with pytest.raises(AssertionError, match=r"cannot shut files \(Landlock"):
        entered(tmp_path, change=change)


@linux
def test_weak_goes_on_without(tmp_path: Path) -> None:
    change = "sandbox._landlock = lambda _: (-1, 0); sandbox._take_user = lambda *_: False"
    found = entered(tmp_path, change=change, weak=True)
    assert found["means"]["files"] == ""  # type: ignore[index]


@linux
def test_the_process_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):  # exit code 1 and no answer
        entered(tmp_path, change="was = os.getppid(); sandbox.os.getppid = lambda: was if sys._getframe(1).f_code.co_name == '<module>' else 1")


def test_a_home_among_the_folders_of_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "project" / "home"
    home.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    keep_apart("")
    keep_apart(str(home))
    monkeypatch.syspath_prepend(str(tmp_path / "project"))  # as of a project that is installed in place
    for named in (home, tmp_path / "link", tmp_path / "project"):
        with pytest.raises(PermissionError, match="the home lies"):
            keep_apart(str(named))
    keep_apart(str(tmp_path))
    keep_apart(str(tmp_path / "project-b"))


def test_strong_means_network_and_files() -> None:
    assert Means("seccomp", "landlock 7", "seccomp", "").is_strong
    assert not Means("", "landlock 7", "seccomp", "").is_strong and not Means("seccomp", "", "", "").is_strong


def test_what_others_cannot_reach_is_not_readable_by_all(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.txt"
    file.parent.mkdir()
    file.write_text("x")
    file.chmod(0o644)
    closed = tmp_path / "a"
    closed.chmod(0o700)
    assert not _readable_by_all([str(file)])
    assert _readable_by_all(["/usr"])
    assert sys.prefix in readable() and "/" not in readable()
