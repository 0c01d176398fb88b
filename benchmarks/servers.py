"""Servers under load: homes with models, processes on a core of their own, and wrk on the other.

Hides command lines, ports, keys and wrk's scripts. It knows no bar: what is compared with what stands in the benchmarks that import it.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

JSON = {"Content-Type": "application/json"}
PINNED = shutil.which("taskset") is not None and (os.cpu_count() or 1) > 1
ON_SERVER_CORE = ["taskset", "-c", "0"] if PINNED else []
ON_LOAD_CORE = ["taskset", "-c", "1"] if PINNED else []


class Question(NamedTuple):
    """One request that is sent over and over. Of several paths each connection takes the next in turn."""

    paths: Sequence[str]
    body: bytes
    headers: Mapping[str, str]


class Load(NamedTuple):
    """What a closed loop of requests came to."""

    requests_s: float
    p50_us: float
    p99_us: float = float("nan")


class Running(NamedTuple):
    """A server that answers: where, how long it took to its first answer, and the process that computes."""

    port: int
    seconds: float
    pid: int


class Home:
    """A home that serves some models to who holds its key."""

    def __init__(self, folder: Path) -> None:
        from modelyard.security import identity
        from modelyard.security.keys import FileKeys

        self.folder = folder
        self.keys_file = folder / "keys.json"
        self._runs = count()
        folder.mkdir(parents=True, exist_ok=True)
        key, record = identity.new("bench", roles=("invoker", "viewer"))
        FileKeys(self.keys_file).put(record)
        self.authorization = {"Authorization": f"Bearer {key}"}

    def model(self, name: str) -> bytes:
        """The graph of the newest version of `name`, as its bundle holds it: the same session is opened by who is compared."""
        from modelyard import bundle, registry
        from modelyard.bundle.base import FolderReader
        from modelyard.security.seal import Trust

        version = registry.open(self.folder).resolve(name)
        return bundle.open(FolderReader(self.folder / "blobs"), version.index, trust=Trust(self.folder / "keys")).read("model")

    def serve(self, *names: str, plan: str = "plan") -> None:
        """Write the plan file `plan` by which the newest version of each name takes all its traffic; `name:2` names one, served as `name-2`."""
        from modelyard import registry
        from modelyard.types import HostPlan, Placement, TrafficPlan, write_plan

        known = registry.open(self.folder)
        found = {name: known.resolve(name) for name in names}
        plans = (
            TrafficPlan(name=name.replace(":", "-"), generation=1, weights={v.digest: 100}, versions={v.digest: v.version})
            for name, v in found.items()
        )
        places = {v.digest: Placement(blobs=str(self.folder / "blobs"), index=v.index) for v in found.values()}
        write_plan(self.folder / f"{plan}.json", HostPlan(sequence=1, plans=tuple(plans), placements=places))

    def split(self, name: str, weights: Mapping[int, int], *, plan: str, shadows: Mapping[int, float] | None = None, **more: Any) -> None:
        """Write the plan file `plan` by which versions of `name` share its traffic, the one with the smallest number as champion."""
        from modelyard import registry
        from modelyard.types import HostPlan, Placement, TrafficPlan, write_plan

        known, shadows = registry.open(self.folder), shadows or {}
        found = {number: known.resolve(f"{name}:{number}") for number in {**weights, **shadows}}
        made = TrafficPlan(
            name=name,
            generation=1,
            weights={found[number].digest: weight for number, weight in weights.items()},
            versions={version.digest: number for number, version in found.items()},
            shadows={found[number].digest: share for number, share in shadows.items()},
            champion=found[min(found)].digest,
            **more,
        )
        places = {version.digest: Placement(blobs=str(self.folder / "blobs"), index=version.index) for version in found.values()}
        write_plan(self.folder / f"{plan}.json", HostPlan(sequence=1, plans=(made,), placements=places))

    @contextmanager
    def started(self, question: Question, *, plan: str = "plan", has_spool: bool = True) -> Iterator[Running]:
        """One worker over this home with everything on: schema check, metrics, key and (unless it has no spool) profile, log and sampling."""
        run = self.folder / f"run-{next(self._runs)}"
        flags = ["--workers", "1", "--home", str(self.folder), "--plan", str(self.folder / f"{plan}.json"), "--run", str(run)]
        flags += ["--keys-file", str(self.keys_file), "--grpc-port", "0"]
        if has_spool:
            flags += ["--spool", str(run / "spool")]
        with started([sys.executable, "-P", "-m", "modelyard.serve", *flags, "--port", "{port}"], question) as running:
            yield running._replace(pid=_only_child(running.pid))


@contextmanager
def started(command: Sequence[str], question: Question, *, environment: Mapping[str, str] | None = None, wait_s: float = 60) -> Iterator[Running]:
    """`command` (with `{port}` for a free port) as a process on the servers' core, from its first answer to `question` on; then it is ended."""
    port = _free_port()
    words = [*ON_SERVER_CORE, *(word.replace("{port}", str(port)) for word in command)]
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(words, stdout=said, stderr=said, env=_environment(environment or {}, port), start_new_session=True)
        try:
            try:
                _first_answer(process, port, question, wait_s)
            except OSError as error:
                said.seek(0)
                raise RuntimeError(f"{Path(command[0]).name} did not answer; it said: {said.read()[-2000:].decode(errors='replace')}") from error
            yield Running(port, time.perf_counter() - began, process.pid)
        finally:
            _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _environment(more: Mapping[str, str], port: int) -> dict[str, str]:
    """This process's, with compiled files kept: a second start is compared with a second start."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
        name: value.replace("{port}", str(port)) for name, value in more.items()
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # some leave children behind
    process.wait()


def _first_answer(process: subprocess.Popen[bytes], port: int, question: Question, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    status = None
    while time.monotonic() < until and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=wait_s)
            connection.request("POST", question.paths[0], question.body, dict(question.headers))
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.005)
    raise ConnectionError(f"no answer within {wait_s:.0f} s (last status: {status})")


def _only_child(parent: int) -> int:
    return int(subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True).stdout.split()[0])


class Wrk:
    """Sends one question in a closed loop. Owns a folder for its scripts."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("wrk") is None:
            raise RuntimeError("needs wrk (apt-get install wrk)")
        self._folder = folder
        self._scripts: list[tuple[Question, float, Path]] = []

    def load(self, port: int, question: Question, connections: int, seconds: int = 3, *, pause_ms: float = 0.0) -> Load:
        """Raises RuntimeError when any answer was not a good one. With `pause_ms` each connection waits so long, on average, before it asks again."""
        url = f"http://127.0.0.1:{port}{question.paths[0]}"
        script = self._script(question, pause_ms)
        command = [*ON_LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        counted = re.search(r"errors (\d+) p50 (\d+) p99 (\d+)", said)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        if counted is None or rate is None or counted[1] != "0" or "Socket errors" in said:
            raise RuntimeError(said)
        return Load(float(rate[1]), float(counted[2]), float(counted[3]))

    def _script(self, question: Question, pause_ms: float) -> Path:
        """wrk reads the body from a file, since it may hold any bytes, and writes each request once."""
        for known, pause, script in self._scripts:
            if known is question and pause == pause_ms:
                return script
        script = self._folder / f"wrk-{len(self._scripts)}.lua"
        body = script.with_suffix(".body")
        body.write_bytes(question.body)
        headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in question.headers.items())
        paths = ", ".join(f'"{path}"' for path in question.paths)
        # Whole milliseconds are what wrk waits: evenly spread ones with the mean that is asked for.
        pause = f"delay = function() return math.floor(math.random() * {2 * pause_ms} + 0.5) end\n" if pause_ms else ""
        script.write_text(
            f'wrk.method = "POST"\nlocal file = io.open("{body}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n{headers}\n'
            f"local paths = {{{paths}}}\nlocal requests = {{}}\nlocal at = 0\n{pause}"
            "init = function() for i, path in ipairs(paths) do requests[i] = wrk.format(nil, path) end end\n"
            "if #paths > 1 then request = function() at = at % #requests + 1; return requests[at] end end\n"
            "done = function(s, l, r) io.write(string.format("
            '"errors %d p50 %d p99 %d\\n", s.errors.status, l:percentile(50), l:percentile(99))) end\n'
        )
        self._scripts.append((question, pause_ms, script))
        return script


def resident_mb(pid: int) -> float:
    """Memory of a process that is in RAM, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_us(pid: int) -> tuple[float, float]:
    """A process's time so far, its own and the kernel's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = 1e6 / os.sysconf("SC_CLK_TCK")
    return int(fields[11]) * tick, int(fields[12]) * tick


def alone(model: Path, rows: Path, seconds: float = 3) -> float:
    """Runs per second of the session alone over the arrays in `rows` (npz), in a process on the servers' core: no socket, no server."""
    words = [*ON_SERVER_CORE, sys.executable, "-m", "benchmarks.alone", str(model), str(rows), str(seconds)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def v2(name: str, array: Any, key: Mapping[str, str], *, binary: bool = False, path: str | None = None) -> Question:
    """`array` as the one input X of an Open Inference Protocol V2 request, JSON or with binary tensors both ways."""
    import json

    import numpy as np

    datatype = {"float32": "FP32", "float64": "FP64"}[array.dtype.name]
    tensor: dict[str, object] = {"name": "X", "shape": list(array.shape), "datatype": datatype}
    where = [path or f"/v2/models/{name}/infer"]
    if not binary:
        tensor["data"] = array.ravel().astype(np.float64).tolist()
        return Question(where, json.dumps({"inputs": [tensor]}).encode(), {**JSON, **key})
    raw = np.ascontiguousarray(array).tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lines = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Question(where, head + raw, {**lines, **key})
