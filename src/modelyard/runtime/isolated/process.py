"""One process of a model that is code, seen from the side that asks: how it is started, spoken to, ended and judged.

Hides the socket pair, the file in memory through which the members are handed over, the scratch folder and the exit status. Blocking calls here
are for packaging, replay and gates; `seats.py` speaks to the same process from an event loop. It must pass on nothing of this process: no
environment, no descriptor but two.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard import config
from modelyard.config import Settings
from modelyard.errors import ModelFailed, Rejected, Unavailable
from modelyard.runtime.isolated import codec
from modelyard.types import Verdict

if TYPE_CHECKING:
    from modelyard.types import Array

ANSWER_LIMIT_BYTES = 256 << 20
SOCKET_BYTES = 1 << 20
PATIENCE_S = 0.25
NEAR_LIMIT = 0.8
"""A process that ended while it held this share of its memory limit is taken to have run out of it, where its peak can be told from its parent's:
Linux counts into a process's peak what its parent held when it started it."""

_SCRATCH = "modelyard-isolated-"
_USERS = (61_184, 65_519)  # the range that systemd gives to services for as long as they run


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's processes are kept: how many, how large, how strictly, for how long they are waited for, and which folder they must not see."""

    processes: int = 1
    memory_bytes: int = 4 << 30
    weak: bool = False
    start_timeout_s: float = 60.0
    answer_timeout_s: float = 30.0
    home: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Isolation:
        """As the settings say."""
        return cls(
            processes=settings.isolated_processes,
            memory_bytes=settings.isolated_memory_bytes,
            weak=settings.isolation == "weak",
            start_timeout_s=settings.isolated_start_timeout_s,
            answer_timeout_s=settings.request_timeout_s,
            home=str(settings.home.expanduser().resolve()),
        )


class Raised(Exception):
    """What the model's code raised, for its author and never for a client: the class, the first line, the place in the code."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.kind = str(facts.get("kind", ""))
        where = f" ({facts['where']})" if facts.get("where") else ""
        super().__init__(f"{self.kind}: {facts.get('text', '')}{where}")


class Ended(Exception):
    """The process is gone. `reason` is one word: crash, hang, oom, killed, garbled or exit."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


class Members:
    """The verified code and data of one model in a sealed file in memory, which all its processes map. Its owner closes it."""

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        listed, at = [], 0
        for path, data in parts.items():
            listed.append([path, at, len(data)])
            at += len(data)
        header = json.dumps(listed).encode()
        self.descriptor = _file_in_memory()
        for data in (len(header).to_bytes(8, "little"), header, *parts.values()):
            view = memoryview(data)
            while view:
                view = view[os.write(self.descriptor, view) :]
        if hasattr(fcntl, "F_ADD_SEALS"):
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)

    def close(self) -> None:
        """Give the memory back, once no process maps it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _peak_bytes(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _file_in_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("modelyard-members", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:  # macOS: a file without a name
        return os.dup(file.fileno())


class Process:
    """One started process. Its owner waits for it to be ready, asks one thing at a time, and closes it. Made, it has been started, or raises
    Unavailable and leaves nothing."""

    def __init__(self, entry: str, members: Members, isolation: Isolation) -> None:
        self.isolation = isolation
        self._parent_peak_bytes = _peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
        with contextlib.ExitStack() as undone:
            try:
                self.scratch = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))
                undone.callback(shutil.rmtree, self.scratch, ignore_errors=True)
                self.socket, theirs = socket.socketpair()
                undone.callback(self.socket.close)
                with theirs:
                    self._process = self._started(entry, members, theirs)
            except OSError as error:  # no interpreter, and no process, descriptor, memory or place for another
                raise Unavailable(f"the model's process could not be started ({error.strerror or type(error).__name__})") from error
            undone.pop_all()
        self.pid = self._process.pid
        self.reader = codec.Reader(limit_bytes=ANSWER_LIMIT_BYTES)
        self.writer = codec.Writer()
        self.facts: dict[str, Any] = {}
        self._ended: Ended | None = None
        self.longest_s = 0.0
        """The longest run so far, as far as `ask` has seen."""
        self._peak_bytes = 0
        self._asked = 0

    def _started(self, entry: str, members: Members, theirs: socket.socket) -> subprocess.Popen[bytes]:
        for each in (self.socket, theirs):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        given = {
            "entry": entry,
            "socket": theirs.fileno(),
            "members": members.descriptor,
            "scratch": str(self.scratch),
            "memory_bytes": self.isolation.memory_bytes,
            "user": _USERS[0] + secrets.randbelow(_USERS[1] - _USERS[0]),
            "parent": os.getpid(),
            "weak": self.isolation.weak,
            "closed": self.isolation.home,
        }
        return subprocess.Popen(
            [sys.executable, "-I", "-m", "modelyard.runtime.isolated.child", json.dumps(given)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), members.descriptor),
            env={**config.bare_environment(), "HOME": str(self.scratch), "TMPDIR": str(self.scratch)},
            cwd="/",
            start_new_session=True,
        )

    # Blocking.

    def wait_ready(self) -> dict[str, Any]:
        """What it says of itself once it has loaded the model.

        Raises ModelFailed (the code's own failure), Rejected (isolation) or Unavailable; then it is gone.
        """
        try:
            frame = self._receive(self.isolation.start_timeout_s)
            return self.greeted(frame)
        except (TimeoutError, Ended, codec.Garbled) as error:
            ended = self.end(error)
            raise ModelFailed("the model's code did not load") from ended
        except BaseException:
            self.close()
            raise

    def greeted(self, frame: codec.Frame) -> dict[str, Any]:
        """What its first frame says. Raises ModelFailed or Rejected."""
        facts = codec.facts(frame)
        if frame.kind == codec.READY:
            self.facts = facts
            return facts
        if frame.kind != codec.REFUSED:
            raise codec.Garbled("the first frame is no greeting")
        if facts.get("kind") == "isolation":
            text = f"{facts.get('text', '')}; --isolation=weak runs it all the same"
            raise Rejected(text, verdicts=[Verdict(outcome="fail", rule="isolation", evidence=text)])
        raise ModelFailed("the model's code did not load") from Raised(facts)

    def ask(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Its outputs for `inputs`. Raises ModelFailed, from Raised where the code failed and from Ended where the process did."""
        self._asked += 1
        try:
            for buffer in self.writer.tensors(codec.ASK, self._asked, inputs):
                self.socket.sendall(buffer)
            frame = self._receive(self.isolation.answer_timeout_s)
            if frame.ident != self._asked:
                raise codec.Garbled("an answer to another question")
            if frame.kind == codec.ANSWER:
                self.longest_s = max(self.longest_s, frame.micros / 1e6)
                return self.reader.tensors(frame)
            facts = codec.facts(frame)
        except (OSError, Ended, codec.Garbled) as error:
            raise failed(self.end(error)) from self._ended
        if facts.get("out_of_memory"):
            raise failed(self.end(Ended("oom"))) from self._ended
        raise ModelFailed("the model failed on an input that its schema accepts") from Raised(facts)

    def libraries(self) -> list[str]:
        """The top-level modules that the model loaded so far."""
        self._asked += 1
        self.socket.sendall(codec.note(codec.LIBRARIES, self._asked, {}))
        try:
            modules = codec.facts(self._receive(self.isolation.answer_timeout_s)).get("modules", [])
        except (OSError, Ended, codec.Garbled) as error:
            raise failed(self.end(error)) from self._ended
        return [name for name in modules if isinstance(name, str)]

    def _receive(self, timeout_s: float) -> codec.Frame:
        until = time.monotonic() + timeout_s
        while (frame := self.reader.next()) is None:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                count = self.socket.recv_into(self.reader.room())
            except ConnectionError:
                count = 0
            if not count:
                raise Ended("exit")
            self.reader.filled(count)
        self.socket.settimeout(timeout_s)
        return frame

    # Either way.

    @property
    def is_gone(self) -> bool:
        """Whether it was ended."""
        return self._ended is not None

    def end(self, error: BaseException) -> Ended:
        """End it for good, and say why it ended: by itself, as its status tells, or here because of `error`."""
        if self._ended is not None:
            return self._ended
        if isinstance(error, TimeoutError):
            found = Ended("hang")
        elif isinstance(error, codec.Garbled):
            found = Ended("garbled", str(error))
        elif isinstance(error, Ended) and error.reason not in ("exit", "crash"):
            found = error
        else:
            found = self.status(PATIENCE_S)
        self._ended = found
        self.close()
        return found

    def status(self, patience_s: float = 0.0) -> Ended:
        """Why it ended by itself; one that only closed its socket is still there after a while."""
        until = time.monotonic() + patience_s
        while not self.reap():
            if time.monotonic() >= until:
                return Ended("exit", "it closed its socket")
            time.sleep(0.002)
        code = self._process.returncode
        if self._peak_bytes > max(self._parent_peak_bytes, NEAR_LIMIT * self.isolation.memory_bytes) and self.isolation.memory_bytes > 0:
            return Ended("oom")
        if code == -signal.SIGKILL:
            return Ended("killed", "SIGKILL, as by the system when memory runs out")
        return Ended("crash", signal.Signals(-code).name) if code < 0 else Ended("exit", f"code {code}")

    def reap(self) -> bool:
        """Whether it is dead; takes its status, and never waits."""
        if self._process.returncode is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._process.returncode = 0
                return True
            if pid == 0:
                return False
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self._peak_bytes = _peak_bytes(usage)
        return True

    def resident_bytes(self) -> int:
        """Its memory in RAM; 0 where the system does not say."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0

    def cpu_us(self) -> int:
        """The processor time that it has taken so far, to the system's tick (10 ms); 0 where the system does not say."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                after_name = file.read().rpartition(b")")[2].split()  # a name may hold anything, brackets and blanks too
            return (int(after_name[11]) + int(after_name[12])) * 1_000_000 // os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return 0

    def kill(self) -> None:
        """Tell it to end at once; `close` waits for that."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and leave nothing of it."""
        if self._ended is None:
            self._ended = Ended("exit", "it was closed")
        self.kill()
        until = time.monotonic() + 5
        while not self.reap() and time.monotonic() < until:
            time.sleep(0.001)
        self.socket.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def failed(ended: Ended) -> ModelFailed:
    """What a caller is told of a process that ended on its question."""
    return ModelFailed(
        {"hang": "the model did not answer in time", "oom": "the model ran out of memory on this input"}.get(
            ended.reason, "the model's process ended on this input"
        )
    )


def sweep() -> None:
    """Remove the scratch folders of processes whose owner was killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        owner = re.match(rf"{_SCRATCH}(\d+)-", path.name)
        if owner and not _is_alive(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
