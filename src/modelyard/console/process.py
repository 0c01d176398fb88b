"""The control process: one per home, from its lock to its last tick.

Hides the lock, the socket, and the loops beside the API: the host, which carries out on this machine what the records say; while this process
leads, the driver, which takes rollouts from step to step, the monitor, which judges each deployment once a minute, and the deliverer, which hands
over what people are to be told; the lease, by which others know that this host lives and who leads; the intake, which takes the workers'
observations in, and the tally, which adds what was counted here to the evidence; where other hosts are to see it too, the export of what was taken
in and of labels, and the inlet of what they have sent; and the look at the keys of a tokens' issuer, where there is one. It can be killed at any
moment: all that it knows is in the records, the plan file and the log.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from modelyard import files
from modelyard.config import Settings
from modelyard.console import damaged
from modelyard.console.app import build
from modelyard.console.failures import Failures
from modelyard.console.guard import Guard
from modelyard.console.opening import Opening
from modelyard.control.access import admin_key, home_identity, home_issuer
from modelyard.control.monitoring import Monitoring
from modelyard.control.plane import ControlPlane
from modelyard.control.status import Status, status
from modelyard.control.traffic import Watch
from modelyard.errors import Conflict, ModelyardError, Unavailable
from modelyard.monitor import destinations, export, relay, sharing
from modelyard.monitor.alerts.deliver import Deliverer
from modelyard.monitor.export import Exporter
from modelyard.monitor.intake import Intake, labels_outbox, outbox_path, windows_path
from modelyard.monitor.windows import Windows
from modelyard.rollout.driver import Driver
from modelyard.rollout.evidence import Tally
from modelyard.rollout.hosts import Hosts, Seen
from modelyard.security.base import Identity
from modelyard.security.issuer import Issuer
from modelyard.security.uses import EVERY_S, Uses
from modelyard.types import ControlState, learn, write_control_state

REST_S = 1.0  # between ticks when nothing moves
MOVING_S = (0.02, 0.25)  # between ticks of a rollout: the longer nothing has come of them, the fewer


def serve(settings: Settings) -> None:
    """Be the control process of this home until SIGTERM or SIGINT, also while its store cannot be opened: it says so, and the data plane serves on.

    Raises Conflict when there is such a process, Unavailable for a port in use, and what no waiting mends: InvalidConfig, UnsupportedFormat.
    """
    import uvicorn

    from modelyard.console import door

    files.make_folder(settings.run)
    learn("modelyard.")
    with _alone(settings), _listen(settings) as listener, contextlib.ExitStack() as opened:
        for path in (
            settings.plan,
            settings.run / "control.json",
            settings.run / "used-control.json",
        ):  # one that was killed may have been writing them
            files.remove_leftovers(path)
        admin_key(settings)
        uses, url, failures = Uses(settings.run, "control"), _url(settings, listener), Failures()
        issuer = home_issuer(settings, failed=lambda error: failures.tell("issuer", error), went_well=lambda: failures.forget("issuer"))
        identity = home_identity(settings, issuer, uses=uses)
        if issuer is not None:
            opened.enter_context(issuer)
        opening = Opening(lambda: opened.enter_context(_world(settings, identity, issuer, uses, url)), lambda why: damaged.build(why, identity))
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it would write a line for each request that is none
        server = uvicorn.Server(door.options(opening))

        def stop(*_: object) -> None:
            server.should_exit = True

        # From before anybody is told that it runs: an exception out of a signal would hit the server's loop while it is being made.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        waits = opening.begin()
        listener.listen(server.config.backlog)  # who reads that it runs and asks at once waits for the loop, and is not refused
        opened.callback((settings.run / "control.json").unlink, missing_ok=True)
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        write_control_state(settings.run, ControlState(pid=os.getpid(), url=url, started_at=started_at, waits=waits))
        try:
            server.run(sockets=[listener])
        finally:
            opening.end()


@contextlib.contextmanager
def _world(settings: Settings, identity: Identity, issuer: Issuer | None, uses: Uses, url: str) -> Iterator[Guard]:
    """The API on the home's store, with the loops beside it."""
    port = url.rpartition(":")[2]
    named = [name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()]
    hosts = {f"{name}:{port}" for name in (settings.control_host, "localhost", "127.0.0.1", "[::1]", *named)} | set(named)
    with ControlPlane(settings, is_checked=True) as plane:
        loops = Loops(plane, control=url, uses=uses)
        app = build(
            plane, identity=identity, hosts=hosts, status=lambda: _with_issuer(loops.status(), issuer), changed=loops.changed, failing=loops.failing
        )
        with loops:
            try:
                yield app
            finally:
                app.denials.flush()


def _with_issuer(found: Status, issuer: Issuer | None) -> Status:
    return found if issuer is None else msgspec.structs.replace(found, issuer=issuer.state)


def _url(settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.control_host}]" if ":" in settings.control_host else settings.control_host
    return f"http://{host}:{listener.getsockname()[1]}"


class Loops:
    """The threads beside the API, from `with` to its end. A failure of one turn is logged and the next turn comes all the same."""

    def __init__(self, plane: ControlPlane, *, control: str | None = None, uses: Uses | None = None) -> None:
        self._plane = plane
        self._uses = uses or Uses(plane.settings.run, "control")
        self._membership = plane.membership()
        self._host = plane.host(self._membership, control=control)
        self._election = plane.election(self._membership)
        self._hosts = Hosts(plane.registry.records)
        self._seen: tuple[Seen, ...] = ()
        self._driver: Driver | None = None
        self._failures = Failures()
        self._stop = threading.Event()
        self._wake_host = threading.Event()
        self._wake_driver = threading.Event()
        loops = (
            ("host", self._carry_out),
            ("driver", self._drive),
            ("lease", self._hold),
            ("intake", self._take_in),
            ("tally", self._tell),
            ("monitor", self._judge),
            ("uses", self._write_uses),
            ("alerts", self._hand_over),
        )
        self._threads = [threading.Thread(target=target, name=name) for name, target in loops]
        shared = (("export", self._export), ("labels", self._relay), ("inlet", self._let_in)) if plane.settings.shared_url else ()
        # They wait on the network, which must not hold up an end in order; what they are at is done again.
        self._sharing = [threading.Thread(target=target, name=name, daemon=True) for name, target in shared]
        self._watch = Watch(plane)

    def __enter__(self) -> Loops:
        for thread in (*self._threads, *self._sharing):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.changed()
        for thread in self._threads:
            thread.join()
        for thread in self._sharing:
            thread.join(export.LAST_S + 1.0)
        for leave in (self._election.lay_down, self._membership.leave, self._uses.write):
            with contextlib.suppress(ModelyardError):  # whoever cannot say so now is found silent
                leave()

    def _write_uses(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self._uses.write()
                self._failures.forget("uses of keys")
            except Exception as error:  # noqa: BLE001  # it is written the next time
                self._failures.tell("uses of keys", error)

    def changed(self) -> None:
        """Something was written down: let host and driver look now."""
        self._wake_host.set()
        self._wake_driver.set()

    def status(self) -> Status:
        """The running world as these loops know it."""
        stored = [each.deployment for each in self._plane.deployments.all()]
        trouble = {**({} if self._driver is None else self._driver.trouble), **self._host.report.trouble}
        traffic = self._watch.traffic(stored)
        found = status(self._plane, stored, trouble=trouble, traffic=traffic, hosts=self._seen, leader=self._election.leader)
        return msgspec.structs.replace(found, failing=self.failing(), unkept=self._watch.unkept())

    def failing(self) -> dict[str, str]:
        """What this control process cannot do now, and why."""
        return self._failures.now()

    def _carry_out(self) -> None:
        pace = Pace()
        while not self._stop.is_set():
            self._wake_host.clear()
            is_moving = False
            try:
                is_moving = self._host.tick()
                if self._host.written():
                    pace.restart()
                    self._wake_driver.set()
                self._failures.forget("host")
            except Exception as error:  # noqa: BLE001  # a turn that fails must not be the last
                self._failures.tell("host", error)
            if self._wake_host.wait(pace.pause_s(is_moving=is_moving)):
                pace.restart()

    def _drive(self) -> None:
        pace, term = Pace(), 0
        while not self._stop.is_set():
            self._wake_driver.clear()
            is_moving = False
            try:
                if self._election.term != term:
                    term = self._election.term
                    self._driver = self._plane.driver(self._election.fenced(term)) if term else None
                if self._driver is not None:
                    is_moving = self._driver.tick()
                    if self._driver.has_written:
                        pace.restart()
                        self._wake_host.set()
                self._failures.forget("driver")
            except Exception as error:  # noqa: BLE001
                self._failures.tell("driver", error)
            if self._wake_driver.wait(pace.pause_s(is_moving=is_moving)):
                pace.restart()

    def _hold(self) -> None:
        """Keep this host's lease, and the leader's where this process leads or can."""
        while not self._stop.is_set():
            try:
                began_s = time.monotonic()
                move = self._election.look()
                self._seen = self._hosts.look()
                if move is not None or self._membership.is_due:
                    with self._plane.registry.records.transaction() as records:
                        self._membership.renew(records)
                        if move is not None:
                            self._election.move(move, within=records)
                if move is not None:
                    self._election.moved(began_s)
                if move == "take":
                    self._wake_driver.set()
                self._failures.forget("lease")
            except Exception as error:  # noqa: BLE001  # a lease that ends is taken again
                self._failures.tell("lease", error)
            self._stop.wait(REST_S)

    def _tell(self) -> None:
        """Add what was counted here to the evidence on rollouts."""
        tally = Tally(self._plane.registry.records, host=self._membership.id)
        while not self._stop.wait(REST_S):
            rollouts = self._host.rollouts
            if not any(rollouts.values()):
                self._failures.forget("tally")  # what failed is over with its rollout
                continue
            try:
                with contextlib.closing(Windows(windows_path(self._plane.settings))) as windows:
                    if tally.publish(rollouts, windows):
                        self._wake_driver.set()
                self._failures.forget("tally")
            except Exception as error:  # noqa: BLE001  # the counts are told by the next turn that goes well
                self._failures.tell("tally", error)

    def _judge(self) -> None:
        """Judge each deployment once a minute, while this process leads."""
        monitoring: Monitoring | None = None
        term = 0
        while not self._stop.is_set():
            is_more = False
            try:
                if self._election.term != term:
                    term = self._election.term
                    monitoring = self._plane.monitoring(self._election.fenced(term)) if term else None
                is_more = monitoring is not None and monitoring.turn()
                self._failures.forget("monitor")
            except Exception as error:  # noqa: BLE001  # what was seen waits: a turn that fails has kept nothing
                self._failures.tell("monitor", error)
            if not is_more:
                self._stop.wait(REST_S)

    def _hand_over(self) -> None:
        """Hand over what people are to be told, while this process leads."""
        deliverer: Deliverer | None = None
        term = 0
        while not self._stop.wait(REST_S):
            try:
                if self._election.term != term:
                    term = self._election.term
                    if deliverer is not None:
                        deliverer.close()
                    deliverer = self._plane.deliverer(self._election.fenced(term)) if term else None
                if deliverer is not None:
                    deliverer.tick()
                self._failures.forget("alerts")
            except Exception as error:  # noqa: BLE001  # what waits is in the records
                self._failures.tell("alerts", error)
        if deliverer is not None:
            deliverer.close()

    def _take_in(self) -> None:
        intake: Intake | None = None
        while not self._stop.is_set():
            is_more = False
            try:
                intake = intake or Intake(self._plane.settings)
                is_more = intake.turn().is_more
                self._failures.forget("intake")
            except Exception as error:  # noqa: BLE001  # observations wait in the spool until a turn goes well
                self._failures.tell("intake", error)
            if not is_more:
                self._stop.wait(REST_S)
        if intake is not None:
            with contextlib.suppress(ModelyardError):
                intake.drain()
            intake.close()

    def _export(self) -> None:
        """Send what was taken in here to where other hosts, or another home, have it too."""
        settings = self._plane.settings

        def exporter() -> Exporter:
            destination = destinations.open(settings, settings.shared_url)
            return Exporter(outbox_path(settings), destination, host=self._membership.id, limit_bytes=settings.spool_limit_bytes)

        self._send("export", exporter)

    def _relay(self) -> None:
        """Send the labels that this host was given to the others."""
        settings = self._plane.settings
        if not sharing.is_shared(settings.shared_url):
            return

        def exporter() -> Exporter:
            destination = destinations.open(settings, settings.shared_url)
            return Exporter(labels_outbox(settings), destination, host=relay.sender(self._membership.id), lossless=True)

        self._send("labels", exporter, every_s=relay.EVERY_S)

    def _send(self, what: str, make: Callable[[], Exporter], *, every_s: float | None = None) -> None:
        exporter: Exporter | None = None
        while exporter is None:
            try:
                exporter = make()
            except Exception as error:  # noqa: BLE001  # a disk that cannot be read
                self._failures.tell(what, error)
                if self._stop.wait(REST_S):
                    return
        export.run(
            exporter,
            self._stop,
            failed=lambda error: self._failures.tell(what, error),
            went_well=lambda: self._failures.forget(what),
            every_s=every_s,
        )
        exporter.close()

    def _let_in(self) -> None:
        """Bring what other hosts have sent, unless what this one sends goes to a control API."""
        settings = self._plane.settings
        store = sharing.store_at(settings.shared_url)
        if store is None:
            return
        inlet = sharing.Inlet(store, spool=settings.spool, limit_bytes=settings.spool_limit_bytes, host=self._membership.id)
        while not self._stop.wait(sharing.EVERY_S):
            try:
                with contextlib.closing(Windows(windows_path(settings))) as windows:
                    inlet.turn(windows, now=time.time())
                self._failures.forget("inlet")
            except Exception as error:  # noqa: BLE001  # what others have sent stays there
                self._failures.tell("inlet", error)


class Pace:
    """How long to rest between turns: a twentieth of the time for which nothing has come of them, within bounds."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()

    def restart(self) -> None:
        """Something has come of a turn."""
        self._since_s = time.monotonic()

    def pause_s(self, *, is_moving: bool) -> float:
        """The pause before the next turn."""
        shortest, longest = MOVING_S
        return min(longest, max(shortest, (time.monotonic() - self._since_s) / 20)) if is_moving else REST_S


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the home's control lock while the block runs; it goes with the process, however that ends. Raises Conflict."""
    descriptor = os.open(settings.run / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"a control process of {settings.home} is running already") from None
        # For whoever must end it before it has said where it listens.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.control_host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.control_host, settings.control_port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"port {settings.control_port} on {settings.control_host} cannot be used ({error.strerror}); give another with --control-port"
        ) from error
    return listener
