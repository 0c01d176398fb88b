"""A home's control process under test: the real one, killed and brought back in a moment, and a client of its API.

It is a fork of a process that has loaded what a control process loads and nothing more (`launcher.py control`), so that a fault can afford to
start it a hundred times. When its block ends the home is judged: the records are whole, the audit chain verifies, no secret stands in its log.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.faults import probes
from tests.faults.scene import CANARY, LAUNCHER, SERVER_CORE, Scene, pinned

from modelyard.control.audit import require_whole, verify
from modelyard.errors import ModelyardError
from modelyard.registry.records import SqliteRecords
from modelyard.security.audit import FileLines
from modelyard.types import read_control_state, read_plan, read_worker_state
from serving import Home

CONVERGED_S, START_S = 10.0, 30.0


class Bare(Home):
    """A home whose registry the test does not open, because it matters who does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plans = {}


class Reply:
    """An answer of the control API; status 0: there was none, because the process went or is not there."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:300]!r}"


class Control:
    """The control process of `home`, started and ended at will."""

    def __init__(self, scene: Scene, home: Home, *, environment: Mapping[str, str]) -> None:
        self.scene = scene
        self.home = home
        self.log = scene.folder / f"control-{home.folder.name}.log"
        self.pid = 0
        self._environment = dict(environment)
        with self.log.open("ab") as errors, pinned(SERVER_CORE):
            self._mother = subprocess.Popen(
                [sys.executable, "-P", str(LAUNCHER), "control"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        assert self._mother.stdout is not None and self._mother.stdout.readline(), self.log.read_text()

    def start(self, *wired: str, waits: bool = True, **environment: str) -> None:
        """Start it with what of launcher.py `wired` names; `waits` until it answers."""
        assert self._mother.stdin is not None and self._mother.stdout is not None
        names = [*wired, *([self.scene.without] if self.scene.without else [])]
        asked = {"environment": {**self._environment, **environment, "FAULTS_WIRED": ",".join(names)}}
        self._mother.stdin.write(json.dumps(asked).encode() + b"\n")
        self._mother.stdin.flush()
        self.pid = int(self._mother.stdout.readline())
        if waits:
            took_s = probes.wait(lambda: self.is_up or not self.is_alive, START_S)
            assert took_s is not None and self.is_alive, f"{took_s} {self.ask('GET', '/status')} {self.log.read_text()[-4000:]}"

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return bool(self.pid) and probes.is_alive(self.pid)

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        return self.ask("GET", "/status", timeout=2).status == 200

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        probes.wait(lambda: not self.is_alive, 5)

    def end(self, seconds: float = 15) -> bool:
        """Stop it as `modelyard down` does; whether it ended in time."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        return probes.wait(lambda: not self.is_alive, seconds) is not None

    def close(self) -> None:
        """End it and the process that it was forked from."""
        if self.is_alive and not self.end():
            self.kill()
        assert self._mother.stdin is not None and self._mother.stdout is not None
        self._mother.stdin.close()
        self._mother.wait(10)
        self._mother.stdout.close()

    @property
    def key(self) -> str:
        """The home's admin key."""
        return (self.home.folder / "keys" / "admin.key").read_text().strip()

    def ask(self, method: str, path: str, body: Any = None, *, timeout: float = 30, key: str | None = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        try:
            state = read_control_state(self.home.run)
            host, _, port = state.url.removeprefix("http://").rpartition(":")
            lines = {"Authorization": f"Bearer {key or self.key}", **headers}
            with closing(http.client.HTTPConnection(host, int(port), timeout=timeout)) as connection:
                connection.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), lines)
                answer = connection.getresponse()
                return Reply(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, http.client.HTTPException, ModelyardError):
            return Reply(0, {}, b"")

    def deploy(self, name: str, reference: str, **more: Any) -> Reply:
        """Ask for a deployment."""
        return self.ask("POST", f"/deployments/{name}", {"reference": reference, **more})

    def settled(self, name: str, seconds: float = CONVERGED_S) -> float | None:
        """Seconds until no rollout of `name` is under way, and record, plan and workers agree; None: not in time."""
        return probes.wait(lambda: self.is_settled(name), seconds, 0.01)

    def is_settled(self, name: str) -> bool:
        """Whether record, plan and workers agree, and nothing is under way."""
        reply = self.ask("GET", f"/deployments/{name}")
        if reply.status not in {200, 404}:
            return False
        deployment = reply.json() if reply.status == 200 else {}
        if deployment.get("rollout"):
            return False
        try:
            plan = read_plan(self.home.folder / "plan.json")
        except ModelyardError:
            return False
        weights = {digest: weight for each in plan.plans if each.name == name for digest, weight in each.weights.items() if weight}
        current = deployment.get("current")
        if weights != ({current["digest"]: 100} if current else {}):
            return False
        return self.acts_by(plan.sequence)

    def acts_by(self, sequence: int) -> bool:
        """Whether every worker acts by the plan `sequence`."""
        states = []
        for path in self.home.run.glob("worker-*.json"):
            try:
                states.append(read_worker_state(self.home.run, int(path.stem.split("-")[1])))
            except ModelyardError:
                return False
        return bool(states) and all(state.sequence >= sequence for state in states)

    def serving(self, name: str) -> int | None:
        """The version that the record of `name` says serves; None: there is no such record."""
        reply = self.ask("GET", f"/deployments/{name}")
        return reply.json()["current"]["version"] if reply.status == 200 else None


@contextmanager
def control(
    scene: Scene, home: Home, *, settings: Mapping[str, Any] | None = None, starts: Sequence[str] | None = (), **shim: str
) -> Iterator[Control]:
    """The control process of `home`, up unless `starts` is None; it names what is wired into it. `shim` is environment for all of its lives."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")}
    given = {"home": home.folder, "control_port": 0, **(settings or {})}
    environment |= {f"MODELYARD_{key.upper()}": str(value) for key, value in given.items()}
    environment |= {"FAULTS_FOLDER": str(scene.folder), "FAULTS_SECRET": CANARY, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **shim}
    running = Control(scene, home, environment=environment)
    try:
        if starts is not None:
            running.start(*starts)
        yield running
        if scene.judges_aftermath:
            if running.is_alive:
                _tell_secrets(running)
            scene.troubles += judged(home.folder)
    finally:
        running.close()
    if scene.judges_aftermath and CANARY.encode() in running.log.read_bytes():
        scene.troubles.append("a secret in the control process's log")


def _tell_secrets(running: Control) -> None:
    for body in ({CANARY: CANARY}, {"reference": CANARY}, [CANARY]):
        running.ask("POST", f"/deployments/{CANARY.lower().replace('_', '-')}", body, Cookie=f"key={CANARY}")
        running.ask("POST", "/deployments/x", body, key=CANARY)


def judged(folder: Path) -> list[str]:
    """What is not whole in a home."""
    troubles: list[str] = []
    if not (folder / "registry.sqlite").exists():  # the records are elsewhere
        return troubles
    with closing(sqlite3.connect(f"file:{folder / 'registry.sqlite'}?mode=ro", uri=True)) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        troubles.append(f"integrity_check: {found[:3]}")
    try:
        with closing(SqliteRecords(folder / "registry.sqlite")) as records:
            require_whole(verify(records, FileLines(folder / "audit.jsonl")))
    except ModelyardError as error:
        troubles.append(f"audit: {error.message}")
    return troubles
