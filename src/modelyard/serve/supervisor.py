"""The supervisor: keeps one worker per slot on one port, and holds no model code.

Hides sockets, processes and signals. On Linux each slot has its own SO_REUSEPORT socket, opened and kept here and inherited by the slot's
worker, so that what waits at a dead worker is answered by its successor; elsewhere all slots share one socket. It must stay light (no numpy)
and never end because a worker did.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import msgspec

from modelyard import config
from modelyard.config import Settings
from modelyard.errors import Conflict, InvalidConfig, MalformedPayload, ModelyardError, NotFound
from modelyard.files import make_folder
from modelyard.serve import card, forked
from modelyard.serve.access import require_keys
from modelyard.serve.beside import Beside
from modelyard.serve.forked import Forked
from modelyard.serve.heartbeat import LOADING, READY
from modelyard.serve.log import Log
from modelyard.serve.tls import open_tls
from modelyard.types import ServeState, read_plan, read_serve_state, read_worker_state, write_serve_state

RESTART_S = (0.0, 0.0, 0.1, 0.3, 0.8)
"""Waits before restarts that follow one another quickly; the last one repeats."""

UNSTARTED_S = (0.2, 0.5, 1.0, 2.0)
"""The same after starts that the system refused, for want of processes, memory or descriptors."""

STEADY_S = 10.0
"""A worker that lived this long did not die of starting."""

ABANDONED_S = 2.0
"""A slot without a worker that accepts for this long is closed until it has one, so that its share of connections is not kept waiting."""

PROMPT_S = 5.0
"""A worker that started within this time is waited for twice as long again: closing the slot would reset the connections that it is about to take."""

HUNG_S = 3.0
"""A worker that says nothing for this long hangs and is replaced; it speaks about every half second, from its event loop."""

LOADING_S = 60.0
"""The same while it starts or loads: a library may keep the interpreter to itself meanwhile."""

ASLEEP_S = 1.0
"""When this process itself was away for so long, nobody's silence meanwhile counts: the whole machine may have stood still."""

SPARE_S = 0.8
"""What a drain may take beyond its limit before what is left is killed."""

EXPORT_S = 6.0
"""How long the exporter has, once the workers have ended, to send what they have left."""

UNSENT_BYTES = 256 << 10
"""What the system may hold of answers that a caller does not read; it would grow to 4 MiB each. Connections inherit it from the listener."""

TICK_S = 0.05
HAS_SLOT_SOCKETS = sys.platform == "linux"


class Slot:
    """One place for a worker: its sockets (HTTP, and gRPC if that is spoken), and the process in it, if any."""

    def __init__(self, number: int, listener: socket.socket, grpc: socket.socket | None = None) -> None:
        self.number = number
        self.listener = listener
        self.grpc = grpc
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.has_started = False
        self.channel: socket.socket | None = None
        self.is_ready = False
        self.is_listening = False
        self.started_s = 0.0
        self.start_took_s = 0.0
        self.heard_s = 0.0
        self.is_loading = True
        self.idle_since_s = time.monotonic()
        self.restart_at_s = 0.0
        self.quick_deaths = 0
        self.refused_starts = 0
        self.trouble = ""


class Supervisor:
    """The slots of one run folder. Single-threaded; `run` returns the exit code."""

    def __init__(self, settings: Settings, *, plan: Path, run: Path, spool: Path | None, as_json: bool, needs_models: bool) -> None:
        count = settings.workers or config.cores()
        self.settings = msgspec.structs.replace(settings, workers=count)
        self._plan = plan
        self._run = run
        self._spool = spool
        self._as_json = as_json
        self._needs_models = needs_models
        self.dynamic: Path | None = None
        """The folder whose bundles may be loaded by request; none but under `serve --dynamic`."""
        self.beside: Beside | None = None
        """A process that is kept alive beside the workers, if one is wanted."""
        self.forks = False
        """Whether the first worker of each slot may be a fork of this process. Its successors never are: they start from what is on the disk then."""
        self._signals = 0
        self._has_announced = False
        self._shown: ServeState | None = None
        self._is_up = False
        self._selector = selectors.DefaultSelector()
        self.log = Log(settings.log_format, process="supervisor")
        self._lock = _lock(run)
        listeners = _open_sockets(self.settings.host, self.settings.port, count, run)
        self.port: int = listeners[0].getsockname()[1]
        self.grpc_port = -1
        grpc: list[socket.socket] | list[None] = [None] * count
        if settings.grpc_port >= 0:
            try:
                grpc = _open_sockets(self.settings.host, settings.grpc_port, count, run, setting="grpc_port")
            except InvalidConfig:
                for listener in listeners:
                    listener.close()
                raise
            self.grpc_port = grpc[0].getsockname()[1]
        self.slots = [Slot(number, *pair) for number, pair in enumerate(zip(listeners, grpc, strict=True))]
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        _tidy(run)

    @property
    def url(self) -> str:
        """Where the data plane answers."""
        return self._state().url

    def run(self) -> int:
        """Keep the slots filled until told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        environment = config.child_environment(self.settings, is_serve=True)
        for slot in self.slots:
            self._start(slot, environment)
        self._write_state()
        self.log.info("listening", url=self.url, workers=len(self.slots))
        code = 0
        before = time.monotonic()
        while not self._signals:
            self._wait(TICK_S)
            self._reap()
            now = time.monotonic()
            self._end_hung(now, was_away=now - before > ASLEEP_S)
            before = now
            for slot in self.slots:
                if slot.process is None and now >= slot.restart_at_s:
                    self._start(slot, environment)
                if not slot.is_ready and slot.is_listening and now - slot.idle_since_s > _patience_s(slot):
                    self.log.warning("slot_closed", worker=slot.number, message="it has no worker that accepts; closed until it has one")
                    _stop_listening(slot)
            if self.beside is not None:
                self.beside.tend(now)
            self._is_up = self._is_up or all(slot.is_ready for slot in self.slots)
            self._write_state()
            if self._is_up and not self._has_announced:
                code = self._announce()
                if code:
                    break
        return self._stop(code)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signals += 1

    def _start(self, slot: Slot, environment: dict[str, str]) -> None:
        slot.started_s = slot.heard_s = time.monotonic()
        slot.is_loading = True
        try:
            ours, theirs = socket.socketpair()
            try:
                ours.setblocking(False)
                self._selector.register(ours, selectors.EVENT_READ, slot)
                slot.process = self._started(slot, theirs.fileno(), environment)
            except BaseException:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(ours)
                ours.close()
                raise
            finally:
                theirs.close()
        except OSError as error:
            self._put_off(slot, error.strerror or "no reason given")
            return
        slot.channel, slot.has_started = ours, True
        slot.refused_starts, slot.trouble = 0, ""
        self.log.info("worker_started", worker=slot.number, worker_pid=slot.process.pid)

    def _started(self, slot: Slot, channel: int, environment: dict[str, str]) -> subprocess.Popen[bytes] | Forked:
        arguments = [
            f"--slot={slot.number}",
            f"--listener={slot.listener.fileno()}",
            f"--channel={channel}",
            f"--plan={self._plan}",
            f"--run={self._run}",
        ]
        if self._spool is not None:
            arguments.append(f"--spool={self._spool}")
        if self.dynamic is not None:
            arguments.append(f"--dynamic={self.dynamic}")
        inherited = [slot.listener.fileno(), channel]
        if slot.grpc is not None:
            arguments.append(f"--grpc={slot.grpc.fileno()}")
            inherited.append(slot.grpc.fileno())
        if self.forks and not slot.has_started and forked.is_safe():
            return forked.start(arguments, environment, inherited)
        command = [sys.executable, "-P", "-m", "modelyard.serve.worker", *arguments]
        return subprocess.Popen(command, env=environment, pass_fds=inherited, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _put_off(self, slot: Slot, why: str) -> None:
        """Try again later what the system has refused, and say so once for each reason."""
        if why != slot.trouble:
            self.log.error("worker_not_started", worker=slot.number, message=f"{why}; it is tried again")
        slot.trouble = why
        slot.restart_at_s = slot.started_s + UNSTARTED_S[min(slot.refused_starts, len(UNSTARTED_S) - 1)]
        slot.refused_starts += 1

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            slot: Slot = key.data
            try:
                said = key.fileobj.recv(64)  # type: ignore[union-attr]
            except OSError:
                said = b""
            if not said:
                self._selector.unregister(key.fileobj)
                continue
            slot.heard_s = time.monotonic()
            slot.is_loading = said.endswith(LOADING)
            if READY in said:
                slot.is_ready = slot.is_listening = True
                slot.start_took_s = slot.heard_s - slot.started_s
                self.log.info("worker_ready", worker=slot.number, seconds=round(slot.start_took_s, 3))

    def _end_hung(self, now: float, *, was_away: bool) -> None:
        """Kill the workers that have been silent for too long; one under a debugger's hand is left."""
        for slot in self.slots:
            if slot.process is None:
                continue
            if was_away:
                slot.heard_s = now
            elif now - slot.heard_s > (LOADING_S if slot.is_loading else HUNG_S) and not _is_traced(slot.process.pid):
                silent_s = round(now - slot.heard_s, 1)
                self.log.error("worker_hung", worker=slot.number, worker_pid=slot.process.pid, seconds=silent_s, message="it is killed and replaced")
                slot.heard_s = now
                slot.process.kill()

    def _reap(self) -> None:
        for slot in self.slots:
            if slot.process is None or slot.process.poll() is None:
                continue
            now = time.monotonic()
            slot.quick_deaths = slot.quick_deaths + 1 if now - slot.started_s < STEADY_S else 0
            slot.restart_at_s = now + RESTART_S[min(slot.quick_deaths, len(RESTART_S) - 1)]
            if not self._signals:
                self.log.warning("worker_ended", worker=slot.number, worker_pid=slot.process.pid, exit=slot.process.returncode)
            if slot.is_ready:
                slot.idle_since_s = now
            slot.process, slot.is_ready = None, False
            if slot.channel is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(slot.channel)
                slot.channel.close()
                slot.channel = None

    def _write_state(self) -> None:
        state = self._state()
        if state == self._shown:
            return
        try:
            write_serve_state(self._run, state)
            self._shown = state
        except ModelyardError as error:
            self.log.error("error", code=error.code, message=error.message)

    def _state(self) -> ServeState:
        return ServeState(
            pid=os.getpid(),
            host=self.settings.host,
            port=self.port,
            grpc_port=self.grpc_port,
            slots=tuple(slot.number for slot in self.slots if slot.process is not None),
            started_at=self._started_at,
            scheme="https" if self.settings.tls_cert_file else "http",
            size=len(self.slots),
            is_up=self._is_up,
            trouble=next((slot.trouble for slot in self.slots if slot.process is None and slot.trouble), ""),
        )

    def _announce(self) -> int:
        """Print the endpoint card once every slot is ready. Gives the exit code: 1 when models are needed and none came up."""
        self._has_announced = True
        try:
            endpoint = card.read(self._run)
        except (NotFound, MalformedPayload):
            endpoint = card.Endpoint(sequence=0, models=())
        failures = self._failures()
        for line in failures:
            self.log.error("not_served", message=line)
        if self._needs_models and failures:
            return 1
        workers, asked = len(self.slots), card.reach(self.url, self.settings)
        if self._as_json:
            text = json.dumps(card.as_data(self.url, endpoint, workers=workers, asked=asked, grpc=self._state().grpc)) + "\n"
        else:
            text = card.as_text(self.url, endpoint, workers=workers, asked=asked, grpc=self._state().grpc)
        with contextlib.suppress(OSError):
            sys.stdout.write(text)
            sys.stdout.flush()
        return 0

    def _failures(self) -> list[str]:
        try:
            plan, state = read_plan(self._plan), read_worker_state(self._run, 0)
        except (NotFound, MalformedPayload):
            return []
        names = {digest: each.name for each in plan.plans for digest in each.digests}
        failed = [(digest, each.verdict) for digest, each in state.models.items() if each.state == "failed"]
        return [f"{names.get(digest, digest)} is not served: {verdict.evidence if verdict else 'it did not load'}" for digest, verdict in failed]

    def _stop(self, code: int) -> int:
        """Drain the workers; a second signal ends them at once."""
        self.log.info("draining", workers=sum(slot.process is not None for slot in self.slots))
        self._tell(signal.SIGTERM)
        until = time.monotonic() + self.settings.drain_timeout_s + SPARE_S
        first = self._signals
        while any(slot.process is not None for slot in self.slots):
            self._wait(0.02)
            self._reap()
            if time.monotonic() > until or self._signals > max(first, 1):
                self._tell(signal.SIGKILL)
        if self.beside is not None:
            self.beside.stop(limit_s=EXPORT_S if self._signals <= max(first, 1) else 0.0)
        for slot in self.slots:
            slot.listener.close()
            if slot.grpc is not None:
                slot.grpc.close()
        with contextlib.suppress(OSError):
            (self._run / "serve.json").unlink(missing_ok=True)
        self.log.info("ended", exit=code)
        return code

    def _tell(self, number: int) -> None:
        for slot in self.slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.send_signal(number)


def run(
    settings: Settings,
    plan: Path,
    run: Path,
    spool: Path | None = None,
    *,
    as_json: bool = False,
    needs_models: bool = False,
    dynamic: Path | None = None,
    forks: bool = False,
    exports: bool = False,
) -> int:
    """Serve what `plan` says on the settings' host and port until SIGTERM or SIGINT; gives the exit code.

    `run` takes the state files, `spool` the observations (none are kept without one). With `needs_models` a model that cannot be served at the start
    ends it all with code 1; bundles in `dynamic` may be loaded by request. `forks` is for a process that has loaded nothing but this: its first
    workers may be forks of it. With `exports` the observations in `spool` are
    sent to `export_url`. Raises InvalidConfig (a port in use, an open address without keys, a folder that is not writable), Conflict.
    """
    require_keys(settings)  # here once, so that a bad file is one clear line and not a worker that never starts
    open_tls(settings)
    make_folder(run)
    if spool is not None:
        make_folder(spool)
    supervisor = Supervisor(settings, plan=plan, run=run, spool=spool, as_json=as_json, needs_models=needs_models)
    supervisor.dynamic, supervisor.forks = dynamic, forks
    if exports and spool is not None:
        supervisor.beside = Beside(
            "modelyard.monitor.export", [f"--spool={spool}", "--beside"], environment=config.child_environment(settings), log=supervisor.log
        )
    return supervisor.run()


def _lock(run: Path) -> int:
    descriptor = os.open(run / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(f"a data plane already runs from {run}") from error
    return descriptor


def _tidy(run: Path) -> None:
    """Remove what an earlier supervisor's processes said of themselves; Prometheus takes counters that begin again for what they are."""
    for pattern in ("worker-*.json", "metrics-*.bin", "suspects.bin", card.NAME):
        for path in run.glob(pattern):
            path.unlink(missing_ok=True)


def _open_sockets(host: str, port: int, count: int, run: Path, *, setting: str = "port") -> list[socket.socket]:
    try:
        # As bytes where it may be: a text is always put through IDNA, whose tables are large.
        name = host.encode() if host.isascii() else host
        family, _, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise InvalidConfig(f"no such address: {host}", field="host", rule="address") from error
    until = time.monotonic() + (10.0 if _is_orphaned(run, port) else 0.0)
    while True:
        try:
            first = _bind(family, address, shared=False)
            break
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < until:
                time.sleep(0.05)
                continue
            raise InvalidConfig(_why(error, host, port, setting), field=setting, rule="free") from error
    if not HAS_SLOT_SOCKETS:
        return [first, *(first.dup() for _ in range(count - 1))]
    # Bound without SO_REUSEPORT, so that a taken port was seen; now once per slot.
    address = first.getsockname()
    first.close()
    return [_bind(family, address, shared=True) for _ in range(count)]


def _bind(family: int, address: object, *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)  # type: ignore[arg-type]
    except OSError:
        made.close()
        raise
    return made


def _is_orphaned(run: Path, port: int) -> bool:
    """Whether workers of a supervisor that died may still hold the port; they let go within a moment."""
    try:
        state = read_serve_state(run)
        os.kill(state.pid, 0)
    except (NotFound, MalformedPayload):
        return False
    except ProcessLookupError:
        return port in {state.port, state.grpc_port}
    except PermissionError:
        return False
    return False


def _why(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --{setting.replace('_', '-')}, or end what holds it"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one above 1023"
    return f"cannot listen on {host}, port {port}: {error.strerror}"


def _patience_s(slot: Slot) -> float:
    is_on_its_way = slot.process is not None and slot.start_took_s < PROMPT_S
    return ABANDONED_S + 2 * slot.start_took_s if is_on_its_way else ABANDONED_S


def _stop_listening(slot: Slot) -> None:
    """Refuse connections at a slot that nobody works for; its next worker listens again."""
    slot.is_listening = False
    if HAS_SLOT_SOCKETS:
        for listener in (slot.listener, slot.grpc):
            if listener is not None:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)


def _is_traced(pid: int) -> bool:
    """Whether a debugger holds the process, where the system says so."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in status.splitlines())
