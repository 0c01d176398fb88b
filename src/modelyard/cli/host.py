"""`up` and `down`: the small parent of the control process and the serve supervisor.

Hides process life: who is up, what a dead process left behind, what is restarted and how all of it stops. The parent holds no model, no store and
no socket; it starts the two planes and never imports either.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from modelyard import config, files
from modelyard.cli.show import Home, Json, emit_json, escape, line
from modelyard.config import Settings
from modelyard.errors import MalformedPayload, ModelyardError, NotFound, Unavailable
from modelyard.targets.local import Local
from modelyard.types import ControlState, HostPlan, ServeState, read_control_state, read_plan, read_serve_state, write_plan, write_unstarted

START_LIMIT_S = 60.0
STEADY_S = 10.0  # a child that lived this long has its restart delay forgiven
LOG_LIMIT_BYTES = 16 << 20
"""A larger `run/up.log` is set aside as `up.log.1` at the next start."""
STATE = "up.json"
MODULES = {"control": "modelyard.console", "serve": "modelyard.serve"}
STATES: Mapping[str, Callable[[Path], ControlState | ServeState]] = {"control": read_control_state, "serve": read_serve_state}


class Up(msgspec.Struct, frozen=True, kw_only=True):
    """Where a home that is up can be reached; `key` is the admin key when this start has made it, `waits` what keeps its store from being opened."""

    home: str
    data: str
    control: str
    pid: int
    grpc: str | None = None
    was_up: bool = False
    key: str | None = None
    waits: str | None = None


def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when both planes are ready; stop them with `modelyard down`.")] = False,
    port: Annotated[int | None, typer.Option(help="Port of the data plane.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of the data plane for gRPC; 0 is any free one, -1 none.")] = None,
    control_port: Annotated[int | None, typer.Option(help="Port of the control API.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the data plane.")] = None,
    workers: Annotated[int | None, typer.Option(help="Serving processes; 0 is one per core.")] = None,
    isolation: Annotated[
        str | None, typer.Option(help="`weak` runs models that are code even where they cannot be shut off from network and files.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Start control and data plane for this home; on a home already up, say where it is.

    Stays in the foreground until Ctrl-C or `modelyard down`, unless --detach.
    """
    ports = {"port": port, "grpc_port": grpc_port, "control_port": control_port}
    settings = config.load({"home": home, "host": host, "workers": workers, "isolation": isolation, **ports})
    files.make_folder(settings.home)
    files.make_folder(settings.run)
    config.ensure_temporary_folder(settings.home)
    if _parent(settings) is not None:
        where = _wait_for_parent(settings, lambda: _parent(settings) is not None)
        _tell(msgspec.structs.replace(where, was_up=True), json=json)
        return
    from modelyard.control.access import admin_key

    key = admin_key(settings)
    if detach:
        _tell(msgspec.structs.replace(_detached(settings), key=key.if_new), json=json)
    else:
        sys.exit(run(settings, lambda where: _tell(msgspec.structs.replace(where, key=key.if_new), json=json)))


def down(*, home: Home = None, json: Json = False) -> None:
    """Drain and stop control and data plane of this home; one that is not up stays so."""
    settings = config.load({"home": home})
    parent = _parent(settings)
    if parent is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(parent, signal.SIGTERM)
        if not _until(lambda: _parent(settings) is None and not _lives(parent), settings.drain_timeout_s + 10):
            raise Unavailable(f"process {parent} does not stop; end it with: kill -9 {parent}, then run `modelyard down` again")
    left = _end_orphans(settings)
    stopped = parent is not None or bool(left)
    if json:
        emit_json({"home": str(settings.home), "stopped": stopped})
    else:
        line(f"{settings.home} is down" if stopped else f"{settings.home} was not up")


def run(settings: Settings, ready: Callable[[Up], None]) -> int:
    """Be the parent until told to stop: start both planes, call `ready` once they are, restart each that dies. Returns the exit code."""
    stop = Stop()
    with _alone(settings) as is_alone:
        if not is_alone:
            ready(msgspec.structs.replace(_wait_for_parent(settings, lambda: True), was_up=True))
            return 0
        (settings.run / STATE).unlink(missing_ok=True)
        _end_orphans(settings)
        _check_ports(settings)
        _ensure_plan(settings)
        children = {name: Child(name, settings) for name in MODULES}
        try:
            for child in children.values():
                if why := child.start():
                    raise Unavailable(f"the {child.name} process cannot be started ({why})")
            where = _wait_for_children(settings, children, stop)
            files.write_atomically(settings.run / STATE, msgspec.json.encode(where))
            ready(where)
            while not stop.wait(0.1):
                for child in children.values():
                    child.keep()
        except ModelyardError:
            if not stop.is_set():
                raise
        finally:
            _end(list(children.values()), settings.drain_timeout_s + 2, stop)
            for name in (STATE, "control.json", "serve.json", "control.unstarted", "serve.unstarted"):
                (settings.run / name).unlink(missing_ok=True)
    return 0


class Stop:
    """Whether a signal has asked to stop; a second one asks to stop at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.is_urgent = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.is_urgent = self._asked.is_set()
        self._asked.set()

    def is_set(self) -> bool:
        """Whether it was asked."""
        return self._asked.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until asked or `timeout_s` has passed; whether it was asked."""
        return self._asked.wait(timeout_s)


class Child:
    """One plane's process, started again when it ends: at once the first time, then after growing pauses until it has been steady.

    Where the system has no room for another process, that is said in the run folder and tried again like any other end.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._run = settings.run
        self._unstarted = ""
        self._pid_file = settings.run / f"{name}.pid"
        self._command = [sys.executable, "-P", "-m", *_arguments(name, settings)]
        self._environment = config.child_environment(settings, is_serve=name == "serve")
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._pause_s = 0.0

    def start(self) -> str:
        """Start the process, in a session of its own: Ctrl-C reaches the parent alone, which stops it in order. Why not, if refused."""
        self._started_s = time.monotonic()
        try:
            self._process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
        except OSError as error:
            return error.strerror or "no reason given"
        # Who comes after a parent that was killed must find this process before it has said anything itself.
        with contextlib.suppress(OSError):
            self._pid_file.write_text(str(self._process.pid))
        return ""

    @property
    def pid(self) -> int | None:
        """The process's, or None before the first."""
        return None if self._process is None else self._process.pid

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def keep(self) -> None:
        """Start the process again when it has ended and its pause is over; one that cannot be started then, after the next."""
        if self.is_running():
            return
        lived = time.monotonic() - self._started_s
        if lived < self._pause_s:
            return
        self._pause_s = 0.1 if lived > STEADY_S else min(5.0, max(0.1, 2 * self._pause_s))
        self._tell_unstarted(self.start())

    def _tell_unstarted(self, why: str) -> None:
        if why == self._unstarted:
            return
        told = f"cannot be started ({why}), which is tried again; the rest goes on" if why else "is started again"
        print(f"modelyard: the {self.name} process {told}", file=sys.stderr, flush=True)
        self._unstarted = why
        with contextlib.suppress(ModelyardError, OSError):
            write_unstarted(self._run, self.name, why)

    def tell(self, number: int) -> None:
        """Send a signal to the process if it lives."""
        if self._process is not None and self.is_running():
            self._process.send_signal(number)


def _end(children: list[Child], timeout_s: float, stop: Stop) -> None:
    for child in children:
        child.tell(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while any(child.is_running() for child in children) and time.monotonic() < deadline and not stop.is_urgent:
        time.sleep(0.02)
    for child in children:
        child.tell(signal.SIGKILL)
    _until(lambda: not any(child.is_running() for child in children), 5.0)


def _arguments(name: str, settings: Settings) -> list[str]:
    if name == "control":
        return [MODULES[name], str(settings.home)]
    return [MODULES[name], "--plan", str(settings.plan), "--run", str(settings.run), "--spool", str(settings.spool)]


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[bool]:
    """Whether this process is now the one parent of the home; it stays so until the block ends, or the process does."""
    descriptor = os.open(settings.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield True
    finally:
        os.close(descriptor)


def _parent(settings: Settings) -> int | None:
    """The pid of the living parent of this home; a file that a dead one left counts for nothing, because its lock went with it."""
    try:
        descriptor = os.open(settings.run / "up.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.translate(error, settings.run / "up.lock") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0)
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None


def _end_orphans(settings: Settings) -> list[int]:
    """Stop planes whose parent was killed, by the pids that they wrote (if those are still theirs), and remove what dead ones left."""
    left = []
    for name in MODULES:
        arguments = " ".join(_arguments(name, settings))
        for pid in _told(settings, name):
            if _is_ours(pid, arguments):
                left.append(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                if not _until(partial(_is_gone, pid, arguments), settings.drain_timeout_s + 2):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    _until(partial(_is_gone, pid, arguments), 5.0)
        for told in (f"{name}.json", f"{name}.unstarted"):
            (settings.run / told).unlink(missing_ok=True)
    for path in settings.run.glob("worker-*.json"):
        path.unlink(missing_ok=True)
    return left


def _told(settings: Settings, name: str) -> set[int]:
    """The pids under which a plane may still run: as its parent started it, as it took its lock, and as it said where it listens, which is all that
    there is where the disk was full, or the parent of a release that did not write the first.
    """
    pids = set()
    with contextlib.suppress(NotFound, MalformedPayload):
        pids.add(STATES[name](settings.run).pid)
    for path in (settings.run / f"{name}.pid", settings.run / f"{name}.lock"):
        with contextlib.suppress(ModelyardError, ValueError):
            pids.add(int(files.read_limited(path, 20)))
    return pids


def _is_ours(pid: int, arguments: str) -> bool:
    """Whether process `pid` runs a plane of this home, as started with `arguments`: after a reboot the number may be that of another home's."""
    state, command = _process(pid)
    return bool(state) and not state.startswith("Z") and f" -m {arguments} " in f"{command} "


def _lives(pid: int) -> bool:
    state, _ = _process(pid)
    return bool(state) and not state.startswith("Z")


def _process(pid: int) -> tuple[str, str]:
    """State and command line of a process; both empty when there is none."""
    done = subprocess.run(["ps", "-ww", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, arguments = done.stdout.strip().partition(" ")
    return state, arguments


def _is_gone(pid: int, arguments: str) -> bool:
    return not _is_ours(pid, arguments)


def _check_ports(settings: Settings) -> None:
    wanted = (
        ("port", settings.host, settings.port),
        ("grpc_port", settings.host, settings.grpc_port),
        ("control_port", settings.control_host, settings.control_port),
    )
    for name, host, port in wanted:
        if port <= 0:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                flag = f"--{name.replace('_', '-')}"
                reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
                raise Unavailable(f"port {port} on {host} {reason}; give another with {flag}") from error


def _ensure_plan(settings: Settings) -> None:
    try:
        read_plan(settings.plan)
    except (NotFound, MalformedPayload):
        write_plan(settings.plan, HostPlan(sequence=1, plans=(), placements={}))


def _wait_for_children(settings: Settings, children: Mapping[str, Child], stop: Stop) -> Up:
    """Where both planes are reached, once these very processes say so. Raises Unavailable when one ends first or they take too long."""
    started = time.monotonic()
    workers = Local(plan=settings.plan, run=settings.run)
    while time.monotonic() < started + START_LIMIT_S and not stop.is_set() and all(child.is_running() for child in children.values()):
        time.sleep(0.02)
        try:
            serve, control = read_serve_state(settings.run), read_control_state(settings.run)
        except (NotFound, MalformedPayload):
            continue
        if serve.pid != children["serve"].pid or control.pid != children["control"].pid:
            continue
        # Models that take long to load must not keep a home from being up: their workers say when they are ready.
        if workers.has_applied(1) or (serve.slots and time.monotonic() > started + START_LIMIT_S / 2):
            return Up(home=str(settings.home), data=serve.url, grpc=serve.grpc, control=control.url, pid=os.getpid(), waits=control.waits or None)
    ended = " and ".join(f"its {name} process ended" for name, child in children.items() if not child.is_running())
    reason = ended or f"its processes did not say within {START_LIMIT_S:.0f} s that they are ready"
    raise Unavailable(f"modelyard did not come up in {settings.home}: {reason}; the lines above, or run/up.log in it, say why")


def _wait_for_parent(settings: Settings, is_coming: Callable[[], bool]) -> Up:
    """Where the home is reached, once the parent that holds its lock has said so. Raises Unavailable when it ends first or takes too long."""
    deadline = time.monotonic() + START_LIMIT_S + 5.0
    while is_coming() and time.monotonic() < deadline:
        parent = _parent(settings)
        if parent is not None:
            with contextlib.suppress(NotFound, msgspec.MsgspecError):
                told = msgspec.json.decode(files.read_limited(settings.run / STATE, 64 << 10), type=Up)
                if told.pid == parent:
                    return told
        time.sleep(0.02)
    raise Unavailable(f"modelyard did not come up in {settings.home}; run/up.log in it says why")


def _detached(settings: Settings) -> Up:
    """Start a parent that outlives this process, and wait for it. Raises Unavailable with what it said last."""
    log = settings.run / "up.log"
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_name("up.log.1"))
    with log.open("ab") as file:
        start = file.tell()
        command = [sys.executable, "-P", "-m", "modelyard.cli.host"]
        environment = config.child_environment(settings)
        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
        except OSError as error:
            raise Unavailable(f"modelyard cannot be started now ({error.strerror})") from error
    try:
        where = _wait_for_parent(settings, lambda: process.poll() is None)
    except Unavailable as error:
        process.terminate()
        raise Unavailable(told(log.read_bytes()[start:]) or error.message) from error
    except KeyboardInterrupt:
        process.terminate()
        raise
    process.returncode = 0  # it outlives this process: nobody here waits for it, and its end is not reported here
    return where


def told(log: bytes) -> str:
    """What a process said last to a person: of its log's lines the last that is an error for the command line, else the last that is no JSON."""
    lines = [line for line in log.decode("utf-8", "replace").strip().splitlines() if not line.startswith("{")]
    line = next((line for line in reversed(lines) if line.startswith("modelyard: ")), lines[-1] if lines else "")
    return line.removeprefix("modelyard: ")


def _tell(up: Up, *, json: bool) -> None:
    if json:
        emit_json(up)
        sys.stdout.flush()
        return
    line(f"[bold]modelyard is {'already ' if up.was_up else ''}up[/bold] in {up.home}")
    line(f"  predictions  {up.data}" + (f"   gRPC {up.grpc}" if up.grpc else ""))
    line(f"  control      {up.control}")
    if up.waits is not None:
        line(f"  [bold]waiting[/bold]      {escape(up.waits)}; what was deployed serves meanwhile")
    if up.key is not None:
        line(f"  admin key    {up.key}   (shown this once; the command line reads it from {up.home}/keys/admin.key)")
    line("  next         modelyard deploy NAME, modelyard status, modelyard down")
    sys.stdout.flush()


def _until(is_so: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _main() -> int:
    """The detached parent: told everything by its environment, telling its failure in one line."""
    try:
        return run(config.load(), lambda _: None)
    except ModelyardError as error:
        print(f"modelyard: {error.message}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(_main())
