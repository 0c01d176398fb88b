"""A real PostgreSQL for tests: started on a Unix socket and a free TCP port of loopback, one database per test, stopped with the session."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


class Postgres:
    """A server of its own. `url()` makes a new empty database; the server can be stopped, paused and started again, as in a fault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]
        self._data = folder / "data"
        subprocess.run(
            [*_as_nobody(), "initdb", "-D", str(self._data), "-U", "modelyard", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Run it, until it answers."""
        command = [
            *_as_nobody(), "postgres", "-D", str(self._data), "-k", str(self.folder), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
            "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=16MB", "-c", "log_min_messages=fatal",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        for _ in range(1000):
            asked = subprocess.run(["pg_isready", "-q", "-h", str(self.folder), "-p", str(self.port), "-U", "modelyard"], check=False)
            if asked.returncode == 0:
                return
            assert self._process.poll() is None, "PostgreSQL ended as it began"
            time.sleep(0.02)
        raise AssertionError("PostgreSQL does not answer")

    def stop(self) -> None:
        """End it at once, its sessions with it; what was committed stays."""
        if self._process.poll() is None:
            self.resume()
            os.killpg(self._process.pid, signal.SIGINT)
            self._process.wait(60)

    def pause(self) -> None:
        """Let every process of it stand still: it accepts what comes and answers nothing."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def url(self, *, database: str | None = None, is_tcp: bool = False) -> str:
        """The address of `database`, or of a new empty one."""
        if database is None:
            database = f"d{secrets.token_hex(6)}"
            self.sql("postgres", f"CREATE DATABASE {database}")
        if is_tcp:
            return f"postgresql://modelyard@127.0.0.1:{self.port}/{database}"
        return f"postgresql://modelyard@/{database}?host={self.folder}&port={self.port}"

    def sql(self, database: str, statement: str) -> str:
        """What `psql` prints for a statement."""
        command = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-p", str(self.port), "-U", "modelyard", "-d", database]
        return subprocess.run([*command, "-c", statement], check=True, capture_output=True, text=True).stdout.strip()

    def _processes(self) -> list[int]:
        shown = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True, check=False).stdout
        return [self._process.pid, *map(int, shown.split())]


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """A server while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="my-pg-", dir="/tmp"))  # a Unix socket's path is short
    if os.getuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    server = None
    try:
        server = Postgres(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _as_nobody() -> list[str]:
    """PostgreSQL refuses to be run by root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
