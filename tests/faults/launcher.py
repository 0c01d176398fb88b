"""Starts the same server with one port or pure function replaced: the failpoints and negative controls of the suite.

`launcher.py MODULE ARGUMENT…` runs MODULE's `main` after the wirings that FAULTS_WIRED names; a supervisor started so starts its workers
so. The product has no switch that weakens it: everything here replaces an attribute from outside.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(os.environ.get("FAULTS_FOLDER", "."))


def _sleeper() -> None:
    """A model whose input `turns` says how many ms it takes, without using the processor: it sleeps, and answers that number."""
    from modelyard.runtime.onnx import Onnx

    predict = Onnx.predict

    def sleep(self: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if "turns" not in inputs:
            return predict(self, inputs)
        turns = inputs["turns"].reshape(-1).astype(float)
        time.sleep(float(turns.max()) / 1000)
        return {"prediction": turns}

    Onnx.predict = sleep  # type: ignore[method-assign]


def _recorder() -> None:
    """Writes down each execution: when it began, and the first input of every row."""
    from modelyard.runtime.onnx import Onnx

    predict = Onnx.predict
    log = (FOLDER / f"executions-{os.getpid()}.log").open("a", buffering=1)

    def record(self: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        first = next(iter(inputs.values())).reshape(-1).tolist()
        log.write(f"{time.monotonic()} {' '.join(map(str, first))}\n")
        return predict(self, inputs)

    Onnx.predict = record  # type: ignore[method-assign]


def _failing_upstream() -> None:
    """While a file says so, every second question to a model that is code fails with 503."""
    from modelyard.errors import Unavailable
    from modelyard.runtime.isolated.pool import Isolated

    submit, turns, sign = Isolated._submit, [0], FOLDER / "upstream-fails"

    def fail(self: Any, *given: Any) -> None:
        turns[0] += 1
        if turns[0] % 2 and sign.exists():
            raise Unavailable("the model's process is not there; try again")
        submit(self, *given)

    Isolated._submit = fail  # type: ignore[method-assign]


def _counting() -> None:
    """One byte in a file for each question that a process is asked."""
    from modelyard.runtime.isolated.seats import Seat

    ask = Seat.ask
    log = os.open(FOLDER / f"asks-{os.getpid()}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def count(self: Any, question: Any) -> None:
        os.write(log, b".")
        ask(self, question)

    Seat.ask = count  # type: ignore[method-assign]


class _Failpoints:
    """Calls of stores and sinks, counted by name from the moment when a verb begins. Each is written to a log, or the process ends at one."""

    def __init__(self) -> None:
        self.log = FOLDER / "points"
        self.target = ""
        self.is_armed = False
        self.counts: dict[str, int] = {}
        self.context = threading.local()

    def arm(self) -> None:
        """A verb begins: count if a file tells at which point to end, or says `?`, and then write down the points."""
        sign = FOLDER / "failpoint"
        if not self.is_armed and sign.exists():
            self.target, self.is_armed = sign.read_text(), True

    def hit(self, name: str) -> None:
        """One of them is reached."""
        if not self.is_armed:
            return
        self.counts[name] = self.counts.get(name, 0) + 1
        point = f"{name}#{self.counts[name]}"
        if self.target == "?":
            line = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(line, f"{point}\n".encode())
            os.close(line)
        elif point == self.target:
            os.kill(os.getpid(), 9)

    def around(self, owner: Any, method: str, name: Callable[..., str]) -> None:
        """Before and after each call of a method; what it asks of the system meanwhile is counted under its name."""
        plain = getattr(owner, method)

        def watched(*given: Any, **more: Any) -> Any:
            called = name(*given)
            self.hit(f"{called}:before")
            before, self.context.inside = getattr(self.context, "inside", ""), called
            try:
                found = plain(*given, **more)
            finally:
                self.context.inside = before
            self.hit(f"{called}:after")
            return found

        setattr(owner, method, watched)

    def system(self, method: str) -> None:
        """After each call of `os.method` that one of the watched makes."""
        plain = getattr(os, method)

        def watched(*given: Any, **more: Any) -> Any:
            found = plain(*given, **more)
            if inside := getattr(self.context, "inside", ""):
                self.context.inside = ""
                self.hit(f"{inside}:{method}")
                self.context.inside = inside
            return found

        setattr(os, method, watched)


def _failpoints() -> None:
    """Ends the control process at a point that was found by an earlier run."""
    from modelyard.control.plane import ControlPlane
    from modelyard.registry import records, verbs
    from modelyard.security.audit import FileLines
    from modelyard.targets import local

    points = _Failpoints()

    def armed(plain: Any) -> Any:
        def verb(*given: Any, **more: Any) -> Any:
            points.arm()
            return plain(*given, **more)

        return verb

    for name in ("deploy", "rollback", "promote", "abort", "undeploy", "delete", "set_alias"):
        if hasattr(ControlPlane, name):
            setattr(ControlPlane, name, armed(getattr(ControlPlane, name)))
    transaction = records.SqliteRecords.transaction

    @contextmanager
    def watched(self: Any) -> Any:
        points.hit("commit:begin")
        with transaction(self) as taken:
            yield taken
            points.hit("commit:before")
        points.hit("commit:after")

    records.SqliteRecords.transaction = watched  # type: ignore[method-assign]
    points.around(verbs.Verbs, "put", lambda self, kind, *_: f"record-put:{kind}")
    points.around(verbs.Verbs, "delete", lambda self, kind, *_: f"record-delete:{kind}")
    points.around(verbs.Verbs, "append", lambda *_: "audit")
    points.around(FileLines, "append", lambda *_: "audit")
    points.around(local, "write_plan", lambda *_: "plan")
    for method in ("write", "pwrite", "fsync", "replace"):
        points.system(method)


def _pausing() -> None:
    """The leader stops itself (SIGSTOP) at a write that a file asks for, and says in another what became of that write once it woke up.

    `before`: it has decided, by what it read, and not begun to write; `inside`: it has written and not committed.
    """
    import signal

    from modelyard.rollout.election import Fenced

    plain, sign = Fenced.transaction, FOLDER / "pause"

    @contextmanager
    def watched(self: Any) -> Any:
        where = ""
        with suppress(FileNotFoundError):
            where = sign.read_text()
            sign.unlink()

        def stop(here: str) -> None:
            if where == here:
                (FOLDER / "paused").write_text(str(os.getpid()))
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # of this thread: it takes no step more, and all others stop with it

        outcome = "refused"
        try:
            stop("before")
            with plain(self) as records:
                yield records
                stop("inside")
            outcome = "committed"
        finally:
            if where:
                (FOLDER / "woken.new").write_text(outcome)
                (FOLDER / "woken.new").replace(FOLDER / "woken")

    Fenced.transaction = watched  # type: ignore[method-assign]


# Defences taken away.


def _terms() -> None:
    """A leader whose writes look neither for its term nor for what they were decided on."""
    from modelyard.rollout.election import Election

    _compare_and_swap()
    Election._require = lambda self, records, term: records.get("leader", "leader")  # type: ignore[method-assign, assignment]


def _restarts() -> None:
    from modelyard.serve.supervisor import Supervisor

    start, started = Supervisor._start, set()

    def once(self: Any, slot: Any, environment: dict[str, str]) -> None:
        if slot.number not in started:
            started.add(slot.number)
            start(self, slot, environment)

    Supervisor._start = once  # type: ignore[method-assign]


def _freeing() -> None:
    """A model that keeps what it was asked, and opens a file for each twentieth."""
    from modelyard.runtime.onnx import Onnx

    predict, kept = Onnx.predict, []

    def leak(self: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        kept.append(bytes(65536))
        if len(kept) % 20 == 0:
            kept.append(os.dup(0))
        return predict(self, inputs)

    Onnx.predict = leak  # type: ignore[method-assign]


def _draining() -> None:
    """A drain that waits for nobody."""
    import msgspec

    from modelyard.serve.worker import Worker

    drain = Worker._drain

    async def at_once(self: Any, *listeners: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, drain_timeout_s=0.0)
        await drain(self, *listeners)

    Worker._drain = at_once  # type: ignore[method-assign]


def _closing_the_door() -> None:
    """A drain that leaves its listener open, where newcomers are taken and then left waiting."""
    from modelyard.serve.server import Connection, Server
    from modelyard.serve.worker import Worker

    drain, made, received = Worker._drain, Connection.connection_made, Connection.data_received
    late: set[Any] = set()

    async def ajar(self: Any, *listeners: Any) -> None:
        await drain(self)

    def entered(self: Any, transport: Any) -> None:
        made(self, transport)
        if self.server.is_draining:
            late.add(self)

    def ignored(self: Any, data: bytes) -> None:  # pausing the transport is not enough: uvloop begins to read behind `connection_made`
        if self not in late:
            received(self, data)

    Worker._drain = ajar  # type: ignore[method-assign]
    Connection.connection_made = entered  # type: ignore[method-assign]
    Connection.data_received = ignored  # type: ignore[method-assign]
    Server.stop_listening = lambda self: None  # type: ignore[method-assign]


def _loading_beside() -> None:
    """The old version goes before the new one is there."""
    from modelyard.serve.worker import Worker

    adopt = Worker._adopt

    def in_place(self: Any, plan: Any) -> None:
        if not self.plane.is_ready:
            adopt(self, plan)
            return
        self.plane.switch({})
        self._loop.call_later(0.02, adopt, self, plan)

    Worker._adopt = in_place  # type: ignore[method-assign]


def _true_acknowledgement() -> None:
    """A worker that says it has applied a plan, and applies it later."""
    from modelyard.serve.worker import Worker

    adopt = Worker._adopt

    def early(self: Any, plan: Any) -> None:
        if not self.plane.is_ready:
            adopt(self, plan)
            return
        self._sequence = plan.sequence
        self._say()
        self._loop.call_later(0.3, adopt, self, plan)

    Worker._adopt = early  # type: ignore[method-assign]


def _one_version_an_answer() -> None:
    """Rows of one answer from two versions."""
    from modelyard.serve.dataplane import Version

    answer, last = Version._answer, {}

    def mix(self: Any, ran: Any) -> None:
        fresh = ran.outputs["prediction"].copy()
        if "prediction" in last and len(last["prediction"]) == len(fresh):
            ran.outputs["prediction"][:1] = last["prediction"][:1]
        last["prediction"] = fresh
        answer(self, ran)

    Version._answer = mix  # type: ignore[method-assign]


def _deadlines() -> None:
    """A queue that gives the model whatever waits in it, late or not, and does not ask whether somebody still waits."""
    from modelyard.serve.batching import Batcher
    from modelyard.serve.server import Exchange

    take = Batcher._take

    def all_of_them(self: Any) -> Any:
        for call in self._waiting:
            call.deadline_s += 3600
        return take(self)

    Batcher._take = all_of_them  # type: ignore[method-assign]
    Batcher._watch = lambda self, deadline_s, now: None  # type: ignore[method-assign]
    Exchange.is_open = property(lambda self: self._answer is None)  # type: ignore[method-assign, assignment]


def _back_pressure() -> None:
    """A server that reads on while its answers heap up."""
    from modelyard.serve.server import Connection

    Connection.pause_writing = lambda self: None  # type: ignore[method-assign]
    Connection._stop_reading = lambda self: None  # type: ignore[method-assign]


def _timeouts() -> None:
    from modelyard.serve.server import Connection

    Connection.sweep = lambda self, now: None  # type: ignore[method-assign]


def _header_limits() -> None:
    from modelyard.serve import server

    server.HEADER_BYTES = server.URL_BYTES = server.HEADER_COUNT = 1 << 40


def _strict_parsing() -> None:
    """llhttp as lenient as it can be told to be."""
    import httptools

    from modelyard.serve import server

    def lenient(protocol: Any) -> Any:
        parser = httptools.HttpRequestParser(protocol)
        names = ("headers", "chunked_length", "keep_alive", "transfer_encoding", "version", "data_after_close", "optional_lf_after_cr")
        more = ("optional_cr_before_lf", "optional_crlf_after_chunk", "spaces_after_chunk_size")
        parser.set_dangerous_leniencies(**{f"lenient_{name}": True for name in (*names, *more)})
        return parser

    found = {name: getattr(httptools, name) for name in dir(httptools) if not name.startswith("_")}
    server.httptools = SimpleNamespace(**{**found, "HttpRequestParser": lenient})  # type: ignore[assignment]


def _body_limits() -> None:
    """No limit on what a body becomes, nor on its chunks."""
    from modelyard.serve import server

    plain = server.decompress
    server.CHUNKS = 1 << 40
    server.decompress = lambda body, coding, limit_bytes: plain(body, coding, 1 << 40)


def _checks_of_counts() -> None:
    """Reading that lets whatever a codec says of a body pass for a failure of the server."""
    from modelyard.errors import ModelyardError
    from modelyard.serve import edge, grpc

    edge.STATUS = dict.fromkeys(edge.STATUS, 500) | {ModelyardError: 500}
    grpc.GRPC = dict.fromkeys(grpc.GRPC, grpc.GRPC[ModelyardError])


def _suspicion() -> None:
    from modelyard.serve.suspects import Suspects

    Suspects.refuses = lambda self, inputs: False  # type: ignore[method-assign]


def _isolation() -> None:
    """A model that is code and does its worst in the worker."""
    import ctypes

    from modelyard.runtime.isolated.pool import Isolated

    submit = Isolated._submit

    def inside(self: Any, inputs: Mapping[str, Any], *more: Any) -> None:
        if (inputs["X"][:, 0] == 666.0).any():
            ctypes.string_at(0)
        submit(self, inputs, *more)

    Isolated._submit = inside  # type: ignore[method-assign]


def _ending_what_hangs() -> None:
    from modelyard.runtime.isolated.seats import Seat

    ring = Seat._ring

    def patient(self: Any) -> None:
        if not (self.process is not None and self.is_ready):
            ring(self)

    Seat._ring = patient  # type: ignore[method-assign]


def _heartbeats() -> None:
    from modelyard.serve import supervisor

    supervisor.HUNG_S = supervisor.LOADING_S = 1e9


def _memory_limit() -> None:
    """The scene gives the limit away: it is a setting."""


def _admission() -> None:
    from modelyard.serve.admission import Limit

    Limit.ran = lambda self, latency_s, run_s, now: False  # type: ignore[method-assign]


def _own_process() -> None:
    """A model that is code, run on the worker's event loop."""
    from modelyard.runtime.isolated.pool import Isolated

    submit = Isolated._submit

    def on_the_loop(self: Any, inputs: Mapping[str, Any], *more: Any) -> None:
        if inputs["X"][0, 0] == 1 / 128:
            time.sleep(1 / 128)
        submit(self, inputs, *more)

    Isolated._submit = on_the_loop  # type: ignore[method-assign]


def _classes() -> None:
    from modelyard.serve import http

    http._TAKERS[b"x-priority"] = lambda head, value: None


def _patience_that_ends() -> None:
    from modelyard.serve import streams

    streams.RESETS = streams.IDLE_FRAMES = 1 << 40


def _client_certificates() -> None:
    import ssl

    from modelyard.serve.tls import Tls

    make = Tls._make

    def trusting(self: Any, protocols: tuple[str, ...]) -> ssl.SSLContext:
        context = make(self, protocols)
        context.verify_mode = ssl.CERT_NONE
        return context

    Tls._make = trusting  # type: ignore[method-assign]
    Tls.admits = lambda self, connection: True  # type: ignore[method-assign]


def _rotation_beside() -> None:
    """The old certificate is let go before the new one has been read."""
    from modelyard.serve.tls import Tls

    load = Tls.load

    def emptied(self: Any) -> Any:
        self._newest = {}
        time.sleep(0.3)
        return load(self)

    Tls.load = emptied  # type: ignore[method-assign]


def _retry_budget() -> None:
    """The scene gives the client's budget away: it stands in its own process."""


def _once_loaded(change: Callable[[Any, Mapping[str, Any], dict[str, Any]], dict[str, Any]]) -> None:
    """Let `change` have each run's answer, but for those of the golden replay, which would find it out."""
    from modelyard.runtime.onnx import Onnx
    from modelyard.serve import worker

    predict, load = Onnx.predict, worker.load_bundle

    def changed(self: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return change(self, inputs, predict(self, inputs))

    def replayed(*given: Any, **more: Any) -> Any:
        Onnx.predict = predict  # type: ignore[method-assign]
        try:
            return load(*given, **more)
        finally:
            Onnx.predict = changed  # type: ignore[method-assign]

    worker.load_bundle = replayed


def _right_answers() -> None:
    """A model that is wrong by one in every hundredth run."""
    turns = [0]

    def wrong(self: Any, inputs: Mapping[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        turns[0] += 1
        return {name: array + 1 for name, array in outputs.items()} if turns[0] % 100 == 0 else outputs

    _once_loaded(wrong)


def _tidiness() -> None:
    """A worker that opens a file at each run, logs a secret and leaves a process behind."""
    import subprocess

    kept: list[int] = []

    def untidy(self: Any, inputs: Mapping[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        if not kept:
            sys.stderr.write(os.environ["FAULTS_SECRET"] + "\n")
            kept.append(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
        if len(kept) < 500:
            kept.append(os.dup(0))
        return outputs

    _once_loaded(untidy)


def _quick_gates() -> None:
    """The golden gate without a process of its own."""
    from modelyard.gates.replay import Replay
    from modelyard.types import Verdict

    Replay.judge = lambda self, candidate: Verdict(outcome="pass", rule="golden-replay", evidence="not asked")  # type: ignore[method-assign]


def _going_on() -> None:
    """A driver that carries out only what was asked of this process."""
    from modelyard.rollout.driver import Driver

    made, drive = Driver.__init__, Driver._drive

    def remembering(self: Any, deployments: Any, *given: Any, **more: Any) -> None:
        made(self, deployments, *given, **more)
        self.begun_before = {each.deployment.name for each in deployments.all() if each.deployment.rollout is not None}

    def only_ours(self: Any, stored: Any, *given: Any) -> bool:
        return False if stored.deployment.name in self.begun_before else drive(self, stored, *given)

    Driver.__init__ = remembering  # type: ignore[method-assign]
    Driver._drive = only_ours  # type: ignore[method-assign]


def _trying_again() -> None:
    """Records that stay closed after a full disk."""
    from modelyard.errors import StorageFull
    from modelyard.registry.records import SqliteRecords

    plain = SqliteRecords.transaction

    @contextmanager
    def once(self: Any) -> Any:
        try:
            with plain(self) as taken:
                yield taken
        except StorageFull:
            self._is_doubtful = True
            raise

    SqliteRecords.transaction = once  # type: ignore[method-assign]


def _synced_commits() -> None:
    """Commits that are told of before they are on the disk."""
    from modelyard.registry.records import SqliteRecords

    opened = SqliteRecords.__init__

    def unsynced(self: Any, *given: Any, **more: Any) -> None:
        opened(self, *given, **more)
        self._writer._connection.execute("PRAGMA synchronous=OFF")

    SqliteRecords.__init__ = unsynced  # type: ignore[method-assign]


def _doubt() -> None:
    """A disk that has failed to sync is believed at the next try."""
    from modelyard.registry.records import SqliteRecords

    SqliteRecords._is_doubtful = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]


def _impatience() -> None:
    """A database that is waited for."""
    from modelyard.registry import records

    records.BUSY_TIMEOUT_S = records.TURN_TIMEOUT_S = 60.0


def _compare_and_swap() -> None:
    """Changes that do not look whether what they were decided on still stands."""
    from modelyard.registry.verbs import Verbs

    Verbs._expect = lambda self, kind, key, expected: None  # type: ignore[method-assign]


def _looking_for_damage() -> None:
    from modelyard.registry import records

    records._check = lambda *given: None  # type: ignore[assignment]


def _standing_plans() -> None:
    """A host that takes its plans away when it cannot read the records."""
    from modelyard.errors import ModelyardError
    from modelyard.rollout.host import Host

    tick = Host.tick

    def hasty(self: Any, *given: Any, **more: Any) -> bool:
        try:
            return tick(self, *given, **more)
        except ModelyardError:
            self._target.converge([], {}, keep=set())
            raise

    Host.tick = hasty  # type: ignore[method-assign]


def _unloadable() -> None:
    """Versions that cannot be loaded, known by their title."""
    from modelyard.serve import worker

    load = worker.load_bundle

    def broken(*given: Any, **more: Any) -> Any:
        found = load(*given, **more)
        if found.bundle.card.title.endswith("+ 13"):
            raise RuntimeError("it does not load")
        return found

    worker.load_bundle = broken


def _going_back() -> None:
    """Nothing that serves is left by itself."""
    from modelyard.rollout import machine

    machine._is_left = lambda deployment, seen: False  # type: ignore[assignment]


def _guards() -> None:
    """Guards that never fail."""
    import msgspec

    from modelyard.rollout import judging

    judge = judging.judge

    def lenient(*given: Any, **more: Any) -> Any:
        found = judge(*given, **more)
        return msgspec.structs.replace(found, outcome="unknown") if found.outcome == "fail" else found

    judging.judge = lenient


def _monotonic_time() -> None:
    """Durations measured by the clock that people read."""
    time.monotonic = time.time


def _expiry() -> None:
    """Keys whose time is over are taken."""
    import msgspec

    from modelyard.security.keys import FileKeys

    get = FileKeys.get

    def for_ever(self: Any, id: str) -> Any:
        found = get(self, id)
        return None if found is None else msgspec.structs.replace(found, expires_at=None)

    FileKeys.get = for_ever  # type: ignore[method-assign]


def _blobs_first() -> None:
    """A version is listed before its blobs are there."""
    from modelyard import registry

    def add(self: Any, name: str, built: Any, *, summary: Any = None, **more: Any) -> Any:
        with self.records.transaction() as records:
            version = registry._record(records, name, built, summary or {})
        for data in built.blobs.values():
            self.blobs.put(data)
        return version

    registry.Registry.add = add  # type: ignore[method-assign]


def _elsewhere() -> None:
    """The scene takes it away itself."""


WIRINGS: dict[str, Callable[[], None]] = {
    "failpoints": _failpoints,
    "quick gates": _quick_gates,
    "pausing": _pausing,
    "terms": _terms,
    "going on": _going_on,
    "syncing": _elsewhere,
    "trying again": _trying_again,
    "synced commits": _synced_commits,
    "doubt": _doubt,
    "impatience": _impatience,
    "compare and swap": _compare_and_swap,
    "looking for damage": _looking_for_damage,
    "standing plans": _standing_plans,
    "unloadable": _unloadable,
    "going back": _going_back,
    "guards": _guards,
    "monotonic time": _monotonic_time,
    "expiry": _expiry,
    "blobs first": _blobs_first,
    "sleeper": _sleeper,
    "recorder": _recorder,
    "restarts": _restarts,
    "freeing": _freeing,
    "draining": _draining,
    "closing the door": _closing_the_door,
    "loading beside": _loading_beside,
    "true acknowledgement": _true_acknowledgement,
    "one version an answer": _one_version_an_answer,
    "deadlines": _deadlines,
    "back-pressure": _back_pressure,
    "timeouts": _timeouts,
    "header limits": _header_limits,
    "strict parsing": _strict_parsing,
    "body limits": _body_limits,
    "refusals": _checks_of_counts,
    "suspicion": _suspicion,
    "isolation": _isolation,
    "ending what hangs": _ending_what_hangs,
    "heartbeats": _heartbeats,
    "memory limit": _memory_limit,
    "admission": _admission,
    "own process": _own_process,
    "classes": _classes,
    "patience that ends": _patience_that_ends,
    "client certificates": _client_certificates,
    "rotation beside": _rotation_beside,
    "failing upstream": _failing_upstream,
    "counting": _counting,
    "retry budget": _retry_budget,
    "tidiness": _tidiness,
    "right answers": _right_answers,
}


def _workers_alike() -> None:
    """Let the supervisor start its workers, the first ones too, through this file."""
    import subprocess

    from modelyard.serve import forked, supervisor

    forked.is_safe = lambda: False  # type: ignore[assignment]

    def start(command: list[str], **more: Any) -> Any:
        at = command.index("-m")
        return subprocess.Popen([*command[:at], str(Path(__file__)), *command[at + 1 :]], **more)

    supervisor.subprocess = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]


def _mother() -> int:
    """Be what control processes are forked from: each line of standard input asks for one, whose pid is the answer."""
    import json
    import signal

    for name in ("uvicorn", "modelyard.console.process", "modelyard.gates.replay", "modelyard.gates.schema"):
        import_module(name)  # once for all
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    print("ready", flush=True)
    for line in sys.stdin:
        environment = json.loads(line)["environment"]
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.environ.clear()
            os.environ.update(environment)
            code = _import() if "FAULTS_IMPORT" in environment else _run("modelyard.console")
            os._exit(code)
        except BaseException:  # noqa: BLE001 - nothing of the mother's may run here
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    return 0


def _import() -> int:
    """Register the bundle in FAULTS_IMPORT, as `modelyard import` does."""
    from modelyard import config
    from modelyard.control.plane import ControlPlane, local_principal

    _wire()
    with ControlPlane(config.load()) as plane:
        plane.import_(local_principal(), Path(os.environ["FAULTS_IMPORT"]))
    return 0


def main() -> int:
    """Wire, then run the module; `control` waits to be asked for control processes."""
    module = sys.argv.pop(1)
    return _mother() if module == "control" else _run(module)


def _wire() -> None:
    for name in os.environ.get("FAULTS_WIRED", "").split(","):
        if name:
            WIRINGS[name]()


def _run(module: str) -> int:
    if module == "modelyard.serve":
        _workers_alike()
    _wire()
    target = import_module(f"{module}.__main__" if module in {"modelyard.serve", "modelyard.console"} else module)
    return int(target.main())


if __name__ == "__main__":
    sys.exit(main())
