"""The place where a fault happens: homes, the real server on its core, load and attackers on the other, and what must be so afterwards.

A Scene collects the items of one run of one fault. Its server is `python -m modelyard.serve`, or, for a control, the same behind
`launcher.py`. When a server's block ends, the aftermath is judged: health, processes, descriptors, memory, secrets in logs.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tests.faults import load, probes
from tests.faults.judge import Fault, Item

from modelyard import registry
from modelyard.types import Placement
from serving import Home, Running, command, home_with

HERE = Path(__file__).parent
LAUNCHER = HERE / "launcher.py"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[1 if len(CORES) > 1 else 0]
CANARY = "my_canary7Vq2kX9mWz4Tn8Rb"
"""A secret that every server is given, in its environment, in credentials and in payloads: no log may hold it."""
HEALTH_S, SETTLE_S, START_S = 5.0, 10.0, 60.0


class Missing(Exception):
    """A component that this fault needs is not here: it is left out, but in CI, where it must be."""


def need(*commands: str) -> None:
    """Return when each of `commands` is on the PATH. Raises Missing."""
    lacking = [command for command in commands if shutil.which(command) is None]
    if lacking:
        raise Missing(f"needs {', '.join(lacking)}")


class Traffic:
    """Requests, and for each the answers that are right."""

    def __init__(self, requests: Sequence[bytes], accepted: Sequence[Sequence[Any]] = ()) -> None:
        self.requests = list(requests)
        self.accepted = [list(each) for each in accepted] or [[] for _ in requests]


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST of JSON."""
    lines = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    return f"POST {path} HTTP/1.1\r\n{''.join(f'{name}: {value}{chr(13)}{chr(10)}' for name, value in lines.items())}\r\n".encode("latin-1") + body


def line(*, offsets: Sequence[float] = (0.0,), rows: int = 1, count: int = 32, name: str = "line") -> Traffic:
    """Traffic for `line`, whose answer is a + 10 b + 100 c + offset; the numbers are such that this is exact."""
    requests, accepted = [], []
    for turn in range(count):
        values = [((turn + row) % 8 / 8, (turn * 3 + row) % 10, (turn + row) % 4 / 4) for row in range(rows)]
        tensors = [
            {"name": key, "shape": [rows, 1], "datatype": kind, "data": [row[at] for row in values]}
            for at, (key, kind) in enumerate([("a", "FP64"), ("b", "INT64"), ("c", "FP32")])
        ]
        requests.append(post(f"/v2/models/{name}/infer", json.dumps({"id": f"{turn}", "inputs": tensors}).encode()))
        accepted.append([{"prediction": [a + 10 * b + 100 * c + offset for a, b, c in values]} for offset in offsets])
    return Traffic(requests, accepted)


def slow(turns: float, *, name: str = "slow", count: int = 1, headers: Mapping[str, str] | None = None) -> Traffic:
    """Traffic for the sleeper: each request takes `turns` ms, and its answer is that number."""
    body = {"inputs": [{"name": "turns", "shape": [1, 1], "datatype": "FP64", "data": [turns]}]}
    requests = [post(f"/v2/models/{name}/infer", json.dumps({"id": f"{turn}", **body}).encode(), headers) for turn in range(count)]
    return Traffic(requests, [[{"prediction": [turns]}]] * count)


def rows(name: str, *, count: int = 16, headers: Mapping[str, str] | None = None) -> Traffic:
    """Traffic for a model that is code, whose answer is the sum of four numbers; they are such that it is exact."""
    requests, accepted = [], []
    for turn in range(count):
        values = [(turn % 8 + 1) / 16, turn % 5 / 8, turn % 3 / 4, 0.5]
        requests.append(code_request(name, values, headers, ident=f"{turn}"))
        accepted.append([{"prediction": [sum(values)]}])
    return Traffic(requests, accepted)


def code_request(name: str, values: Sequence[float], headers: Mapping[str, str] | None = None, *, ident: str = "x") -> bytes:
    """The bytes of a question of one row to a model that is code."""
    tensor = {"name": "X", "shape": [1, len(values)], "datatype": "FP32", "data": list(values)}
    return post(f"/v2/models/{name}/infer", json.dumps({"id": ident, "inputs": [tensor]}).encode(), headers)


@cache
def shelf() -> Path:
    """A home, made once, that holds packaged models that are code: packaging takes seconds and is not what is tested."""
    folder = Path(tempfile.mkdtemp(prefix="faults-packaged-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "home"


@cache
def packaged(model: str) -> None:
    """Have `model` of tests/support/isolated_models on the shelf."""
    import isolated

    isolated.package(shelf(), model)


@cache
def packaged_twice(first: str, second: str, *, name: str) -> None:
    """Have two of these classes on the shelf as versions 1 and 2 of `name`."""
    import isolated

    for model in (first, second):
        isolated.package(shelf(), model, name=name)


class Tally:
    """What a run of the load generator found."""

    def __init__(self, records: np.ndarray, strays: int) -> None:
        self.records = records
        self.strays = strays

    @property
    def sent(self) -> int:
        """Requests, however they ended."""
        return len(self.records)

    @property
    def is_good(self) -> np.ndarray:
        """Which were answered rightly."""
        return (self.records["status"] == 200) & (self.records["match"] >= 0)

    @property
    def good(self) -> int:
        """How many were answered rightly."""
        return int(self.is_good.sum())

    @property
    def wrong(self) -> int:
        """Answers that are none of the accepted ones, or that nobody had asked for."""
        return int((self.records["match"] == -1).sum()) + self.strays

    @property
    def success(self) -> float:
        """Share answered rightly, in percent."""
        return 100 * self.good / max(1, self.sent)

    def of(self, *statuses: int) -> np.ndarray:
        """The records that ended so."""
        return self.records[np.isin(self.records["status"], statuses)]

    @property
    def seconds(self) -> float:
        """From the first that was due to the last that was due."""
        return float(self.records["due"].max() - self.records["due"].min()) if self.sent else 0.0

    @property
    def goodput(self) -> float:
        """Right answers a second."""
        return self.good / self.seconds if self.seconds else 0.0

    def p(self, share: float, records: np.ndarray | None = None) -> float:
        """The `share` percentile of the latency of the right answers (or of `records`), in ms, from when each was due."""
        chosen = self.records[self.is_good] if records is None else records
        return float(np.percentile(chosen["done"] - chosen["due"], share) * 1000) if len(chosen) else float("nan")


class Loading:
    """A load generator at work."""

    def __init__(self, scene: Scene, spec: load.Spec) -> None:
        self._scene = scene
        self._output = Path(spec.output)
        self.process = subprocess.Popen([sys.executable, "-P", str(HERE / "load.py")], stdin=subprocess.PIPE)
        data = msgspec.msgpack.encode(spec)
        assert self.process.stdin is not None
        self.process.stdin.write(len(data).to_bytes(4, "big") + data)
        self.process.stdin.flush()
        assert probes.wait(self._output.exists, 20, 0.005) is not None, "the load generator does not begin"

    def end(self, *, now: bool = False) -> Tally:
        """What it found, when its time is over, or `now`."""
        assert self.process.stdin is not None
        if now:
            self.process.stdin.close()
        code = self.process.wait()
        self.process.stdin.close()
        assert code == 0, "the load generator failed"
        data = self._output.read_bytes()
        self._output.unlink()
        tally = Tally(np.frombuffer(data[8:], load.RECORD), int.from_bytes(data[:8], "big"))
        self._scene.wrong += tally.wrong
        self._scene.checked += tally.sent
        return tally


class Server(Running):
    """The running data plane, and what its aftermath is compared with."""

    def __init__(self, scene: Scene, process: subprocess.Popen[bytes], card: dict[str, Any], home: Home, log: Path) -> None:
        super().__init__(process, card, home, log)
        self.scene = scene
        self.watch = probes.Watch(process.pid)
        self.before: tuple[int, int] = (0, 0)
        self.is_ended = False
        """Set by a fault that ends the server itself."""

    def load(self, traffic: Traffic, *, connections: int, seconds: float, rate: float = 0.0, **more: Any) -> Loading:
        """Start a load generator; see `load.Spec`."""
        self.scene.loads += 1
        output = str(self.scene.folder / f"load{self.scene.loads}")
        given = {"port": self.port, "output": output, "requests": traffic.requests, "accepted": traffic.accepted, "connections": connections}
        return Loading(self.scene, load.Spec(**{**given, "seconds": seconds, "rate": rate, **more}))

    def capacity(self, traffic: Traffic, *, connections: int = 16, seconds: float = 3.0, most: float = 1e9) -> float:
        """C: right answers a second in a closed loop; at most `most`, where the generator is the slower side."""
        tally = self.load(traffic, connections=connections, seconds=seconds).end()
        assert tally.good, f"no right answer: statuses {np.unique(tally.records['status'])}"
        return min(most, tally.goodput)

    def latency(self, traffic: Traffic, rate: float, *, connections: int = 16, seconds: float = 3.0) -> float:
        """L: the p99 at `rate`, in ms."""
        return self.load(traffic, connections=connections, seconds=seconds, rate=rate).end().p(99)

    def holds(self) -> tuple[int, int]:
        """Descriptors and resident bytes of all its processes."""
        living = probes.tree(self.process.pid)
        return sum(map(probes.descriptors, living)), sum(map(probes.resident, living))

    def mark(self) -> None:
        """From here on it may not have grown."""
        self.before = self.holds()

    def worker(self, slot: int = 0) -> int:
        """The pid of the worker in `slot`; 0 when it has said nothing yet."""
        try:
            return int(json.loads((self.home.run / f"worker-{slot}.json").read_bytes())["pid"])
        except (OSError, ValueError):
            return 0

    def metric(self, name: str, *labels: str) -> float:
        """The sum of a metric's values whose labels hold all of `labels`."""
        text = self.ask("GET", "/metrics").body.decode()
        found = [line for line in text.splitlines() if line.startswith((name + "{", name + " ")) and all(label in line for label in labels)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def is_healthy(self) -> bool:
        """Whether it says ready within half a second."""
        try:
            return self.ask("GET", "/v2/health/ready", timeout=0.5).status == 200
        except (OSError, ValueError, AssertionError):
            return False

    def tell_secrets(self) -> None:
        """Let the canary pass by in every part of a request that a careless server would log."""
        bodies = [b"{", json.dumps({"inputs": [{"name": CANARY, "shape": [1], "datatype": "FP64", "data": [CANARY]}]}).encode(), CANARY.encode()]
        for path in [*(f"/v2/models/{name}/infer" for name in self.home.plans), f"/v2/models/{CANARY}", "/invocations"]:
            for body in bodies:
                with suppress(OSError, ValueError, AssertionError):
                    headers = {"Authorization": f"Bearer {CANARY}", "X-Secret": CANARY, "Cookie": f"key={CANARY}"}
                    self.ask("POST", path, body, headers=headers, timeout=5)


class Scene:
    """One run of one fault: its folder, its items, and how its server is wired."""

    def __init__(self, fault: Fault, folder: Path, *, without: str = "", is_long: bool = False, limit_s: float = 0.0, limit: int = 0) -> None:
        self.fault = fault
        self.folder = folder
        self.without = without
        self.is_long = is_long
        self.limit_s = limit_s
        self.limit = limit
        self.loads = 0
        self.wrong = 0
        self.checked = 0
        self.items: list[Item] = []
        self._homes = 0
        self.troubles: list[str] = []
        """What of the aftermath is not as it must be."""

    @property
    def judges_aftermath(self) -> bool:
        """Whether it is of interest how things stand when the server's block ends."""
        return self.without in {"", "tidiness"}

    @property
    def is_control(self) -> bool:
        """Whether a defence was taken away, so that only the failing check is of interest."""
        return bool(self.without)

    def item(
        self, name: str, figure: float | None, bar: float, unit: str = "", *, better: str = "lower", exact: bool = False, note: str = ""
    ) -> None:
        """Add a figure; None: it could not be had, because what was waited for did not happen."""
        value = float("inf" if better == "lower" else "-inf") if figure is None else float(figure)
        item = Item(name=f"{self.fault.label}.{name}", figure=value, bar=bar, unit=unit, better=better, exact=exact, note=note)  # type: ignore[arg-type]
        self.items.append(item)

    def home(self, *kinds: str) -> Home:
        """A fresh home that serves `kinds`."""
        self._homes += 1
        return home_with(self.folder / f"home{self._homes}", *kinds)

    def code_home(self, *models: str, also: Sequence[str] = ()) -> Home:
        """A fresh home that serves these classes of tests/support/isolated_models, each under its name in small letters, and the kinds of `also`."""
        self._homes += 1
        folder = self.folder / f"home{self._homes}"
        for model in models:
            packaged(model)
        shutil.copytree(shelf() / "keys", folder / "keys")  # so that it believes what the shelf has sealed
        home, shelved = home_with(folder, *also), registry.open(shelf())
        for model in models:
            version = shelved.resolve(model.lower())
            home.placements[version.digest] = Placement(blobs=str(shelved.blobs.folder), index=version.index)
            home.deploy(model.lower(), {(version.digest, version.version): 100})
        return home

    @contextmanager
    def server(
        self,
        home: Home,
        *flags: str,
        workers: int = 1,
        settings: Mapping[str, Any] | None = None,
        wired: Sequence[str] = (),
        shim: Mapping[str, str] | None = None,
        mark: bool = True,
    ) -> Iterator[Server]:
        """A data plane over `home`, ready, on its core; `wired` names what of launcher.py is put into it beside the defence that is missing.

        `shim` is the environment of what stands between it and its system.
        """
        wiring = [*wired, *([self.without] if self.without else [])]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")}
        environment |= {f"MODELYARD_{key.upper()}": str(value) for key, value in (settings or {}).items()}
        environment |= {"FAULTS_WIRED": ",".join(wiring), "FAULTS_FOLDER": str(self.folder), "FAULTS_SECRET": CANARY, **(shim or {})}
        line = [*command(home, "--workers", str(workers), "--spool", str(home.folder / "spool")), *flags]
        if wiring:
            line = [sys.executable, "-P", str(LAUNCHER), "modelyard.serve", *line[line.index("--home") :]]
        log = home.folder / "serve.log"
        with log.open("wb") as errors, pinned(SERVER_CORE):
            process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, env=environment, start_new_session=True)
        server: Server | None = None
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said, log.read_text()
            server = Server(self, process, json.loads(said), home, log)
            if mark:
                for _ in range(5):
                    server.is_healthy()
                server.mark()
            yield server
            if self.judges_aftermath:
                self.troubles += _aftermath(server)
        finally:
            seen = _end(process, server)
        left = [pid for pid in seen if probes.is_alive(pid)]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.judges_aftermath:
            if left:
                self.troubles.append(f"{len(left)} processes outlive the server")
            if CANARY.encode() in log.read_bytes():
                self.troubles.append("a secret in a log")

    def finish(self) -> tuple[Item, ...]:
        """The items, with those that every fault has."""
        if self.checked:
            self.item("wrong_answers", self.wrong, 0, exact=True, note=f"of {self.checked:,} checked")
        if self.judges_aftermath:
            self.item("aftermath", len(self.troubles), 0, exact=True, note="; ".join(self.troubles))
        return tuple(self.items)


def _aftermath(server: Server) -> list[str]:
    """What is not as it was before the fault."""
    if server.is_ended:
        return []
    troubles = []
    if probes.wait(server.is_healthy, HEALTH_S) is None:
        troubles.append("not healthy within 5 s")
    server.tell_secrets()
    descriptors, memory = server.before

    def has_settled() -> bool:
        now = server.holds()
        return abs(now[0] - descriptors) <= 5 and now[1] <= max(memory * 1.1, memory + 30e6)

    if probes.wait(has_settled, SETTLE_S, 0.1) is None:
        now = server.holds()
        troubles.append(f"descriptors {descriptors} -> {now[0]}, memory {memory / 1e6:.0f} -> {now[1] / 1e6:.0f} MB")
    zombies = [pid for pid, state in probes.tree(server.process.pid).items() if state == "Z"]
    if zombies:
        time.sleep(0.3)  # one that has ended this moment is not yet a zombie that stays
        zombies = [pid for pid, state in probes.tree(server.process.pid).items() if state == "Z" and pid in zombies]
    if zombies:
        troubles.append(f"{len(zombies)} zombies")
    return troubles


def _end(process: subprocess.Popen[bytes], server: Server | None) -> set[int]:
    """End the server; gives every pid that it ever had."""
    seen = set(probes.tree(process.pid))
    if server is not None:
        server.watch.look()
        server.watch.stop()
        seen |= server.watch.seen
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(12)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    seen.discard(process.pid)
    probes.wait(lambda: not any(map(probes.is_alive, seen)), 3)
    return seen


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started inside runs on `core`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
