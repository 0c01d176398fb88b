"""Forked workers: what a child keeps of its supervisor, how its end is told, and where nobody forks."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.serve import forked

CHILD = """
import json, os, signal, sys
from modelyard.serve import forked

def run(arguments):
    kept, place, how = arguments
    told = {
        "open": [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")],
        "environment": dict(os.environ),
        "path": sys.path[:1],
        "term": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "inode": os.fstat(int(kept)).st_ino,
        "streams": [os.fstat(each).st_rdev == os.stat(os.devnull).st_rdev for each in (0, 1)],
    }
    with open(place, "w") as file:
        json.dump(told, file)
    if how == "raise":
        raise SystemExit("not the supervisor's end")
    if how == "wait":
        signal.pause()
    return int(how)

forked.run = run
signal.signal(signal.SIGTERM, lambda number, frame: None)
lock, kept = os.open(sys.argv[1] + ".lock", os.O_CREAT | os.O_RDONLY), os.open(sys.argv[0], os.O_RDONLY)
child = forked.start([str(kept), sys.argv[1], sys.argv[2]], {"ONLY": "this"}, [kept])
if sys.argv[2] == "wait":
    while not os.path.exists(sys.argv[1]) or not os.path.getsize(sys.argv[1]):
        pass
    child.send_signal(signal.SIGTERM)
while child.poll() is None:
    pass
child.kill()  # of one that has ended: nothing happens
print(json.dumps({"code": child.poll(), "kept": kept, "inode": os.fstat(kept).st_ino, "pid": child.pid}))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")


def grown(tmp_path: Path, how: str) -> tuple[dict, dict, str]:
    """What the parent and the child of a fork say, and stderr."""
    script, place = tmp_path / "parent.py", tmp_path / "told.json"
    script.write_text(CHILD)
    done = subprocess.run([sys.executable, str(script), str(place), how], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout), json.loads(place.read_text()), done.stderr


def test_a_child_has_its_own_environment_and_only_the_descriptors_that_it_is_given(tmp_path: Path) -> None:
    parent, child, _ = grown(tmp_path, "7")
    assert parent["code"] == 7
    assert child["environment"] == {"ONLY": "this"}
    assert child["inode"] == parent["inode"]
    assert str(tmp_path / "parent.py") in child["open"]
    assert str(tmp_path / "told.json.lock") not in child["open"]
    assert len(child["open"]) <= 5  # three streams, the kept one, and the folder that was listed
    assert child["streams"] == [True, True]


def test_a_child_has_no_handler_of_its_supervisor_and_no_folder_of_its_script(tmp_path: Path) -> None:
    parent, child, _ = grown(tmp_path, "wait")
    assert parent["code"] == -signal.SIGTERM
    assert child["term"]
    assert child["blocked"] == 0
    assert child["path"] != [str(tmp_path)]


def test_whatever_a_child_raises_ends_the_child_alone(tmp_path: Path) -> None:
    parent, _, errors = grown(tmp_path, "raise")
    assert parent["code"] == 1
    assert "not the supervisor's end" in errors
    assert os.getpid() != parent["pid"]


def test_a_process_of_several_threads_does_not_fork() -> None:
    code = "import threading; from modelyard.serve import forked; one = forked.is_safe()\n"
    code += "wait = threading.Event(); threading.Thread(target=wait.wait).start(); print(one, forked.is_safe()); wait.set()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_child_that_somebody_else_waited_for_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert forked.Forked(process.pid).poll() == 0
