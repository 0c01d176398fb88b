"""Code that tries to get out of its process: each attempt is a function, and a model answers which of them worked.

An attempt returns a word of what it got, or raises. It is told what to look for by its data member `targets`: paths and ports of the test.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

LIBC = ctypes.CDLL(None, use_errno=True)


def called(number: int, *arguments: int) -> str:
    if LIBC.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "called"


def read_key(targets):
    return Path(targets["key"]).read_text()


def read_database(targets):
    return Path(targets["database"]).read_bytes()[:16].hex()


def list_home(targets):
    return str(os.listdir(targets["home"]))


def read_parents_environment(targets):
    return Path(f"/proc/{os.getppid()}/environ").read_bytes().decode()


def read_parents_memory(targets):
    with open(f"/proc/{os.getppid()}/mem", "rb"):
        return "opened"


def read_passwords(targets):
    return Path("/etc/shadow").read_text()


def own_environment(targets):
    found = {name: value for name, value in os.environ.items() if "CANARY" in name or "MODELYARD" in name or "canary" in value}
    if not found:
        raise LookupError("nothing")
    return str(found)


def write_outside(targets):
    (Path(targets["folder"]) / "written").write_text("x")
    return "written"


def write_beside_python(targets):
    (Path(np.__file__).parent / "modelyard_was_here.py").write_text("x")
    return "written"


def change_mode(targets):
    os.chmod(targets["folder"], 0o777)
    return "changed"


def change_times(targets):
    os.utime(targets["key"], (0, 0))
    return "changed"


def own_keys(targets):
    os.chown(targets["key"], os.getuid(), os.getgid())
    return "owned"


def link_out(targets):
    os.symlink(targets["key"], "link")
    return Path("link").read_text()


def connect_tcp(targets):
    with socket.create_connection(("127.0.0.1", targets["port"]), timeout=2):
        return "connected"


def connect_unix(targets):
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(targets["socket"])
        return "connected"


def send_udp(targets):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"x", ("127.0.0.1", targets["port"]))
        return "sent"


def listen(targets):
    with socket.create_server(("127.0.0.1", 0)):
        return "listening"


def fork(targets):
    child = os.fork()
    if child == 0:
        os._exit(0)
    return "forked"


def run_program(targets):
    return subprocess.run(["/bin/echo", "hello"], capture_output=True, text=True, check=True).stdout


def trace_parent(targets):
    return called(101 if os.uname().machine == "x86_64" else 117, 16, os.getppid(), 0, 0)


def signal_parent(targets):
    os.kill(os.getppid(), 0)
    return "signalled"


def limit_parent(targets):
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE, resource.prlimit(os.getppid(), resource.RLIMIT_CORE))
    return "limited"


def slow_parent(targets):
    os.sched_setscheduler(os.getppid(), os.SCHED_BATCH, os.sched_param(0))
    return "slowed"


def outlive_parent(targets):
    return called(157 if os.uname().machine == "x86_64" else 167, 1, 0, 0, 0, 0)


def signal_parent_by_a_pipe(targets):
    fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())
    return "owned"


def use_io_uring(targets):
    return called(425, 4, 0)


def new_namespace(targets):
    return called(272 if os.uname().machine == "x86_64" else 97, 0x10000000)


def lift_limits(targets):
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "lifted"


def fill_scratch(targets):
    for number in range(40):
        Path(f"fill-{number}").write_bytes(bytes(8 << 20))
    return "filled"


NOT_ATTEMPTS = ("called",)
ATTEMPTS = {name: value for name, value in list(globals().items()) if getattr(value, "__module__", "") == __name__ and name not in NOT_ATTEMPTS}


def honest(targets):
    """What a model may do: threads, its scratch folder, its libraries, printing."""
    print("a word to nobody", file=sys.stderr)
    print("a word to nobody")
    Path("own.txt").write_text("mine")
    found = []
    thread = threading.Thread(target=lambda: found.append(Path("own.txt").read_text()))
    thread.start()
    thread.join()
    import json as again

    signal.signal(signal.SIGUSR1, lambda *_: found.append("signal"))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert again is json
    return str(found)


class Nosy:
    """Row by row: tries attempt number X and answers what came of it; on numbers beyond, what an honest model does."""

    def load(self, files):
        self.targets = json.loads(files["targets"])

    def predict(self, inputs):
        answers = []
        for number in inputs["X"][:, 0].astype(int).tolist():
            if not 0 <= number - 100 < len(ATTEMPTS):
                answers.append("ok: " + honest(self.targets) if number == 99 else "-")
                continue
            try:
                answers.append("got: " + str(list(ATTEMPTS.values())[number - 100](self.targets)))
            except BaseException as error:  # noqa: BLE001 - whatever it was, it was refused
                answers.append(f"refused: {type(error).__name__}")
        return {"answer": np.array(answers)}
