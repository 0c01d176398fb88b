"""As OpenShift and KServe start a container: a user id without a name, group 0, `HOME=/` or none, and next to nothing that may be written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import random_user

from isolated import package, poison
from modelyard.bundle import archive
from serving import Home, Running, children, line_row

pytestmark = pytest.mark.system
MODELYARD = str(Path(sys.executable).with_name("modelyard"))
OPEN = ["--insecure", "--host", "0.0.0.0", "--workers", "2", "--grpc-port", "-1", "--json"]
ANSWER = {"predictions": [321.0]}


@pytest.fixture(scope="module")
def place(component: Callable[[str], str], lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    """A folder that any user reaches, which those of pytest are not."""
    with random_user.folder(0o755, component, lacks) as folder:
        yield folder


@pytest.fixture(scope="module")
def image(place: Path) -> Path:
    """What an image has: `models` with two bundles, `home` with the public key of their signer and nothing else."""
    made = Home(place / "maker")
    made.add("line")
    bundle = package(made.folder, "Crasher")
    (place / "models").mkdir()
    for name in ("line", bundle.name):
        archive.export(made.registry.blobs, made.registry.resolve(name).index, place / "models" / f"{name}.tar")
    _home(place / "home", made.folder / "keys" / "signing.pub", mode=0o750)
    return place


def _home(folder: Path, signer: Path, *, mode: int) -> Path:
    """A home of root's, for its group by `mode`, that trusts `signer`."""
    (folder / "keys").mkdir(parents=True)
    shutil.copy(signer, folder / "keys" / "signing.pub")
    for path in (folder, folder / "keys"):
        path.chmod(mode)
    return folder


def _port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def served(image: Path, arguments: Sequence[str], variables: Mapping[str, str], **more: Any) -> Iterator[Running]:
    """`modelyard serve` as that user, ready; what it says at its end is checked: it drains and leaves with 0."""
    log = image / "serve.log"
    with log.open("wb") as errors:
        process = random_user.start(
            [MODELYARD, "serve", *arguments], variables, models=image / "models", stdout=subprocess.PIPE, stderr=errors, **more
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        assert f"Uid:\t{random_user.USER}" in Path(f"/proc/{process.pid}/status").read_text()
        yield Running(process, json.loads(line), Home.__new__(Home), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        for pid in children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_the_user_is_one_that_may_do_little(place: Path) -> None:
    """The control of all below: it has no name, and writes where it is said and nowhere else."""
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    asked = {"here": f"touch {place}/open/a", "elsewhere": "touch /tmp/modelyard-must-not-be", "name": "id -nu", "root's": "ls /proc/1/root/"}
    done = {name: random_user.run(["sh", "-c", command], {}, writable=[place / "open"]).returncode == 0 for name, command in asked.items()}
    assert done == {"here": True, "elsewhere": False, "name": False, "root's": False}
    assert random_user.run(["touch", f"{place}/open/b"], {}).returncode == 0, "and without `writable` the modes decide"


@pytest.mark.parametrize("writable", ["tmp", "home", "anything"])
def test_serve_answers_from_a_home_and_models_that_may_only_be_read(image: Path, writable: str) -> None:
    """The platforms' model folder, port and routes, where only a folder for temporary files, or only the home, or whatever the modes say, may be
    written."""
    temporary, home = image / f"tmp-{writable}", image / "home"
    if writable == "home":
        home = _home(image / "own-home", home / "keys" / "signing.pub", mode=0o770)
    temporary.mkdir()
    temporary.chmod(0o777)
    variables = {"MODELYARD_HOME": str(home), "PORT": str(_port())} | ({} if writable == "home" else {"HOME": "/"})
    if writable == "tmp":
        variables["TMPDIR"] = str(temporary)
    folders = {"tmp": [temporary], "home": [home], "anything": []}[writable]
    with served(image, ["serve", *OPEN], variables, writable=folders) as server:  # SageMaker puts a `serve` behind the entry point
        assert server.url.endswith(f":{variables['PORT']}")
        for asked in ("GET /ping", "POST /ping", "GET /", "GET /healthz/live", "GET /healthz/ready", "GET /metrics"):
            assert server.ask(*asked.split()).status == 200, asked
        assert server.predict("line", [[1.0, 2, 3.0]]).json() == ANSWER
        assert server.infer("line", line_row()).json()["outputs"][0]["data"] == [321.0]
        for path, body in (("/models/line/invoke", {"instances": [[1.0, 2, 3.0]]}), ("/v1/models/line:predict", {"instances": [[1.0, 2, 3.0]]})):
            assert server.ask("POST", path, body).json() == ANSWER
        assert _crasher(server, [0.5] * 4) == (200, [2.0])
        assert _crasher(server, poison())[0] == 500
        until(lambda: _crasher(server, [0.25] * 4) == (200, [1.0]))  # its next process has come, as that user too
    assert not list(temporary.iterdir()) and not list((home / "tmp").glob("*"))


def _crasher(server: Running, row: list[float]) -> tuple[int, Any]:
    answer = server.infer("crasher", [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": row}])
    return answer.status, answer.json()["outputs"][0]["data"] if answer.status == 200 else None


def until(is_so: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)


def _limit_processes(pid: int, soft: str) -> None:
    done = random_user.run(["prlimit", "--pid", str(pid), f"--nproc={soft}:"], {})
    assert done.returncode == 0, done.stderr


def test_where_the_user_may_have_no_more_processes_a_model_that_is_code_says_so_and_comes_back(image: Path) -> None:
    """RLIMIT_NPROC, which does not bind root; the model beside it goes on."""
    variables = {"MODELYARD_HOME": str(image / "home"), "PORT": str(_port()), "HOME": "/"}
    with served(image, [*OPEN, "--workers", "1"], variables) as server:
        assert _crasher(server, [0.5] * 4)[0] == 200
        (worker,) = server.workers()
        said = random_user.run(["prlimit", "--pid", str(worker), "--nproc", "--noheadings", "--output=SOFT"], {})
        _limit_processes(worker, "1")
        assert _crasher(server, poison())[0] == 500
        assert [_crasher(server, [0.5] * 4)[0] for _ in range(3)] == [503] * 3
        assert server.predict("line", [[1.0, 2, 3.0]]).json() == ANSWER
        assert server.workers() == [worker]
        assert "could not be started" in server.log.read_text()
        _limit_processes(worker, said.stdout.strip())
        until(lambda: _crasher(server, [0.5] * 4)[0] == 200)


def test_a_home_for_the_group_is_brought_up_deployed_to_and_taken_down(image: Path) -> None:
    """Where nothing but that home may be written."""
    home = image / "up"
    home.mkdir()
    home.chmod(0o770)
    port = _port()
    variables = {"HOME": "/", "MODELYARD_HOME": str(home), "MODELYARD_PORT": str(port), "MODELYARD_CONTROL_PORT": "0", "MODELYARD_GRPC_PORT": "-1"}

    def verb(*arguments: str) -> str:
        done = random_user.run([MODELYARD, *arguments], {**variables, "MODELYARD_WORKERS": "1"}, models=image / "models", writable=[home])
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    signer = image / "signer.pub"
    shutil.copy(image / "home" / "keys" / "signing.pub", signer)
    try:
        verb("up", "--detach")
        verb("trust", "add", str(signer))
        for name in ("line", "crasher"):
            verb("import", f"/mnt/models/{name}.tar")
            verb("deploy", name)
        server = Running(None, {"url": f"http://127.0.0.1:{port}"}, Home.__new__(Home), home)  # type: ignore[arg-type]
        assert server.predict("line", [[1.0, 2, 3.0]]).json() == ANSWER
        assert _crasher(server, [0.5] * 4)[0] == 200
        assert len(json.loads(verb("status", "--json"))["deployments"]) == 2
        verb("keys", "create", "caller")
        verb("backup", str(home / "copy"))
        assert "whole" in verb("audit", "verify")
    finally:
        verb("down")
    assert {path.stat().st_uid for path in home.rglob("*")} == {random_user.USER}
    assert not [path for path in home.rglob("*.key") if path.stat().st_mode & 0o077]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "this user has no home folder; set MODELYARD_HOME"),
        ({"HOME": "/"}, "the folder /.modelyard cannot be made (Permission denied); set MODELYARD_HOME"),
        ({"MODELYARD_HOME": "/nowhere/home"}, "cannot be made (Permission denied); set MODELYARD_HOME"),
    ],
)
@pytest.mark.parametrize("verb", [["up"], ["serve", "line"]], ids=lambda verb: str(verb[0]))
def test_without_a_home_that_it_may_write_it_says_what_to_set(place: Path, variables: dict[str, str], told: str, verb: list[str]) -> None:
    done = random_user.run([MODELYARD, *verb], variables)
    assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
