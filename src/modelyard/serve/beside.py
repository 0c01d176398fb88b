"""A process of ours beside the workers: kept alive like them, told to end after them.

Hides its life. The supervisor imports it, so it must stay light; it must not know what the process does.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from modelyard.serve.log import Log

RESTART_S = (0.0, 1.0, 5.0, 30.0)
"""Waits before restarts that follow one another quickly; the last one repeats."""
STEADY_S = 60.0


class Beside:
    """`python -m MODULE …` in one process at a time, in a session of its own: what is typed at the terminal does not reach it before the workers have
    ended. It holds the end of a pipe as its standard input, by whose end it knows that its supervisor is gone. Single-threaded.
    """

    def __init__(self, module: str, arguments: Sequence[str], *, environment: Mapping[str, str], log: Log) -> None:
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._module = module
        self._environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._restart_at_s = 0.0
        self._quick_deaths = 0

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return None if self._process is None else self._process.pid

    def tend(self, now: float) -> None:
        """Start it where it does not run, once that is due."""
        if self._process is not None and self._process.poll() is not None:
            self._quick_deaths = self._quick_deaths + 1 if now - self._started_s < STEADY_S else 0
            self._restart_at_s = now + RESTART_S[min(self._quick_deaths, len(RESTART_S) - 1)]
            self._log.warning("exporter_ended", exporter_pid=self._process.pid, exit=self._process.returncode)
            self._let_go()
        if self._process is None and now >= self._restart_at_s:
            self._start(now)

    def stop(self, *, limit_s: float) -> None:
        """Tell it to end, and end it after `limit_s`.

        Where it does not run, or did not end well, it runs once more, with `--last`, in what is left.
        """
        until_s = time.monotonic() + limit_s
        if not self._has_ended_well(limit_s) and time.monotonic() < until_s:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [*self._command, "--last"],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    timeout=until_s - time.monotonic(),
                    check=False,
                )

    def _has_ended_well(self, limit_s: float) -> bool:
        if self._process is None:
            return False
        self._process.terminate()
        try:
            code = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._let_go()
        return code == 0

    def _let_go(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def _start(self, now: float) -> None:
        self._started_s = now
        try:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            self._restart_at_s = now + RESTART_S[-1]
            self._log.error("error", code="unavailable", message=f"{self._module} could not be started: {error.strerror}")
            return
        self._log.info("exporter_started", exporter_pid=self._process.pid)
