"""A worker made by a fork of its supervisor: the quickest start, since the interpreter and what both load are there already.

Hides what a new process must forget: signals, descriptors, environment, streams. Where a fork is not safe (another system, more than one thread) it
says so and its caller starts a fresh interpreter. It must load nothing that the supervisor does not hold already; the worker's own modules are
loaded in the child.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from modelyard import config

ENDING = (signal.SIGTERM, signal.SIGINT)


class Forked:
    """The child of a fork, with the few methods of `subprocess.Popen` that a supervisor needs. It alone waits for its process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code (a signal's number negative), None while it runs."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for it, so how it ended is not known
                self.returncode = 0
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended: its number may be another's by now."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def is_safe() -> bool:
    """Whether this process may fork and go on in the child: on Linux, while it has no other thread, whose locks nobody would ever open there."""
    try:
        return sys.platform == "linux" and len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False


def start(arguments: Sequence[str], environment: Mapping[str, str], kept: Sequence[int]) -> Forked:
    """Run `modelyard.serve.worker` with `arguments` in a fork that has the descriptors `kept` and no other. Raises OSError."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # none may meet the supervisor's handlers in the child
    try:
        pid = os.fork()
        if pid == 0:
            _live(arguments, environment, kept, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Forked(pid)


def _live(arguments: Sequence[str], environment: Mapping[str, str], kept: Sequence[int], mask: set[int | signal.Signals]) -> None:
    """The child's whole life; it never returns, so that nothing of the supervisor's is ever unwound, closed or written here."""
    code = 1
    try:
        _forget(environment, kept)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = run(arguments)
    except BaseException:  # noqa: BLE001 - nothing may leave this frame
        with suppress(BaseException):
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _forget(environment: Mapping[str, str], kept: Sequence[int]) -> None:
    """Let go of what is the supervisor's. Its objects stay, unused, until the process ends: their descriptors' numbers are others' soon."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    lowest = 3
    for descriptor in sorted(kept):
        os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
    config.take_environment(environment)
    if not sys.flags.safe_path:
        del sys.path[:1]  # as `-P` has it: no folder of the call or of a script


def run(arguments: Sequence[str]) -> int:
    """Load the worker's modules and run it, in the child. What stays for ever is made without the collector and never looked at by it."""
    gc.disable()
    from modelyard.serve import worker

    gc.freeze()
    gc.enable()
    return worker.main(list(arguments))
