"""A whole home for tests: `modelyard up` as a process, verbs as a person would type them, and a client that never stops asking."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modelyard.cli import main
from modelyard.client import Client
from modelyard.errors import ModelyardError
from modelyard.targets.local import Local
from modelyard.types import read_control_state, read_serve_state
from serving import Home

START_S = 60.0


class Said:
    """What a verb left: exit code, stdout and stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    def json(self) -> Any:
        """The JSON on stdout of a verb that went well."""
        assert self.code == 0, self
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line on stderr."""
        (line,) = self.err.splitlines()
        return line

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


class World:
    """A home folder with its ports, on `stores` of others where their URLs are given.

    `home` registers bundles without a converter; `verb` runs the command line here, `start` as a process.
    """

    def __init__(self, folder: Path, *, workers: int = 1, **stores: str) -> None:
        self.folder = folder
        self.home = Home(folder, **stores)
        if stores:
            (folder / "settings.toml").write_text("".join(f"{name} = {json.dumps(url)}\n" for name, url in stores.items()))
        self.workers = workers
        self.port, self.control_port = free_ports(2)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")},
            "MODELYARD_HOME": str(folder),
            "MODELYARD_PORT": str(self.port),
            "MODELYARD_CONTROL_PORT": str(self.control_port),
            "MODELYARD_GRPC_PORT": "0",
            "MODELYARD_WORKERS": str(workers),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def url(self) -> str:
        """The data plane."""
        return f"http://127.0.0.1:{self.port}"

    def verb(self, *arguments: str) -> Said:
        """`modelyard ARGUMENTS` for this home, in this process: what it loads is loaded once for all tests."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*arguments, "--home", str(self.folder)])
        return Said(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`modelyard ARGUMENTS` in this home, still running."""
        return subprocess.Popen(
            [sys.executable, "-m", "modelyard.cli", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def up(self) -> Any:
        """Bring it up, detached."""
        return self.ask_up().json()

    def ask_up(self) -> Said:
        """What `modelyard up --detach` says."""
        return self.verb(
            "up", "--detach", "--json", f"--port={self.port}", f"--control-port={self.control_port}", "--grpc-port=0", f"--workers={self.workers}"
        )

    def pids(self) -> dict[str, int]:
        """The living processes of this home, by what they are; workers as worker-0, …"""
        found: dict[str, int] = {}
        lock = self.folder / "run" / "up.lock"
        if lock.exists() and lock.read_text().isdigit():
            found["parent"] = int(lock.read_text())
        with contextlib.suppress(ModelyardError):
            found["control"] = read_control_state(self.folder / "run").pid
        with contextlib.suppress(ModelyardError):
            found["serve"] = read_serve_state(self.folder / "run").pid
        for path in (self.folder / "run").glob("worker-*.json"):
            with contextlib.suppress(ValueError, KeyError):
                found[path.stem] = json.loads(path.read_text())["pid"]
        return {name: pid for name, pid in found.items() if alive(pid)}

    def kill(self, *names: str) -> None:
        """kill -9 of these processes."""
        pids = self.pids()
        for name in names:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[name], signal.SIGKILL)
        for name in names:
            wait_until(lambda name=name: not alive(pids[name]))  # type: ignore[misc]

    def end(self) -> None:
        """Stop everything of this home, politely if it listens, else not."""
        self.verb("down")
        for pid in self.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def deployment(self, name: str) -> Any:
        """One deployment of `status --json`."""
        return next(item for item in self.verb("status", "--json").json()["deployments"] if item["deployment"]["name"] == name)

    @contextlib.contextmanager
    def asked(self, name: str, inputs: dict[str, Any]) -> Iterator[Asking]:
        """A client that asks `name` again and again while the block runs."""
        asking = Asking(self.url, name, inputs)
        try:
            yield asking
        finally:
            asking.stop()


class Asking:
    """Answers and failures of one client, in order. It retries once on a connection that broke, as the fault suite's client does."""

    def __init__(self, url: str, name: str, inputs: dict[str, Any]) -> None:
        self.answers: list[Any] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(url, name, inputs))
        self._thread.start()

    def _ask(self, url: str, name: str, inputs: dict[str, Any]) -> None:
        with Client(data_url=url, timeout_s=10) as client:
            while not self._stop.wait(0.02):
                for attempt in (1, 2):
                    try:
                        outputs = client.predict(name, inputs)
                        self.answers.append(float(outputs["prediction"][0]))
                        break
                    except ModelyardError as error:
                        if attempt == 2:
                            self.failures.append(error.message)

    def count(self) -> int:
        """How many answers there are."""
        return len(self.answers)

    def more(self, count: int = 3) -> None:
        """Wait until `count` further questions were answered."""
        target = self.count() + count
        wait_until(lambda: self.count() >= target)

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return bool(shown) and not shown.startswith("Z")


def wait_until(is_so: Callable[[], bool], timeout_s: float = START_S) -> None:
    """Return when `is_so`; fail when it is not within a time that only a hang exceeds."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def acknowledged(world: World) -> bool:
    """Whether every worker acts by the newest plan."""
    local = Local(plan=world.folder / "plan.json", run=world.folder / "run")
    return local.has_applied(local.state().sequence)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
