"""A home of the demo's own: a temporary folder, free ports, and `modelyard up` running in it until the story ends.

Hides processes, signals and clean-up. Nothing is left behind, whatever ends the story (success, an error, Ctrl-C, SIGTERM, a closed
terminal), unless it is kept on purpose. It speaks to the running world through the command line's `--json`, as any script can.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from modelyard import config
from modelyard.errors import DeadlineExceeded, ModelyardError, Unavailable
from modelyard.files import translate

START_LIMIT_S = 30.0
STOP_LIMIT_S = 20.0  # longer than a parent gives its children to drain
VERB_LIMIT_S = 60.0


class World:
    """The private home. `start` and `verb` use it; its end is `private_world`'s business."""

    def __init__(self, settings: config.Settings) -> None:
        self.settings = settings
        self.is_kept = False
        self._up: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the data plane answers."""
        return f"http://{self.settings.host}:{self.settings.port}"

    def start(self) -> None:
        """Run `modelyard up` and wait until both planes listen. Raises Unavailable with the last line that it wrote."""
        log = self.settings.home / "up.log"
        with log.open("wb") as file:
            command = [*_program(), "up", "--home", str(self.settings.home)]
            environment = config.child_environment(self.settings)
            self._up = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
        settings = self.settings
        waiting = [(settings.host, settings.port), (settings.control_host, settings.control_port)]
        deadline = time.monotonic() + START_LIMIT_S
        while waiting:
            if self._up.poll() is not None or time.monotonic() > deadline:
                said = log.read_text("utf-8", "replace").strip().splitlines()
                last = next((line for line in reversed(said) if not line.startswith("{")), "it said nothing")  # lines of the log are JSON
                raise Unavailable(f"modelyard up did not start: {last}")
            waiting = [address for address in waiting if not _listens(address)]
            time.sleep(0.05)

    def verb(self, *arguments: str) -> Any:
        """What `modelyard ARGUMENTS --json` prints. Raises ModelyardError with its message when it fails."""
        command = [*_program(), *arguments, "--home", str(self.settings.home), "--json"]
        environment = config.child_environment(self.settings) | {f"{config.PREFIX}KEY": ""}  # the caller's is another home's
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=VERB_LIMIT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(f"modelyard {' '.join(arguments)} took longer than {VERB_LIMIT_S:.0f} s") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise ModelyardError(f"modelyard {' '.join(arguments)}: {said.removeprefix('modelyard: ') or f'exit code {done.returncode}'}")
        return msgspec.json.decode(done.stdout)

    def stop(self) -> None:
        """Stop what `start` started, and whatever a parent that was killed left behind."""
        up, self._up = self._up, None
        if up is None:
            return
        try:
            up.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                up.wait(STOP_LIMIT_S)
        finally:
            up.kill()
            if up.wait() != 0:
                with contextlib.suppress(ModelyardError):
                    self.verb("down")


@contextlib.contextmanager
def private_world() -> Iterator[World]:
    """A World in a fresh temporary home; stopped and removed at the end unless the block ended well and set `is_kept`."""
    try:
        home = Path(tempfile.mkdtemp(prefix="modelyard-demo-"))
    except OSError as error:
        raise translate(error, Path(tempfile.gettempdir())) from error
    ports = _free_ports(3)
    given = {
        "home": home,
        "port": ports[0],
        "control_port": ports[1],
        "grpc_port": ports[2],
        "host": "127.0.0.1",
        "control_url": "",
        "oidc_issuer": "",
    }
    world = World(config.load(given))
    with _signals_as_interrupts():
        try:
            yield world
        except BaseException:
            world.is_kept = False
            raise
        finally:
            if not world.is_kept:
                try:
                    world.stop()
                finally:
                    shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that its clean-up runs."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _program() -> list[str]:
    return [sys.executable, "-m", "modelyard.cli"]


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=0.5).close()
    except OSError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
