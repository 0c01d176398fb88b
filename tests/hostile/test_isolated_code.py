"""Code that tries to get out: keys, database, environment, network, processes, files.

The control of each: the same code with the walls away gets it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isolated_models import nosy

from modelyard.errors import Rejected
from modelyard.runtime.isolated import Isolated, Isolation, process, sandbox
from modelyard.runtime.isolated.pool import Code
from modelyard.security.seal import local_signer

SOURCE = Path(nosy.__file__).read_bytes()
NEEDS_ROOT = {"read_passwords", "read_parents_memory"}
# What a plain process of the same user cannot do either, or what the test's own machine would be changed by.
NOT_TRIED_OUTSIDE = {"trace_parent", "lift_limits", "fill_scratch", "write_beside_python", "use_io_uring", "new_namespace", "slow_parent"}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("outside")
    home = folder / "home"
    local_signer(home / "keys")
    (home / "registry.sqlite").write_bytes(b"SQLite format 3\0")
    (home / "keys" / "admin.key").write_text("my_canary")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "s"))
        unix.listen()
        found = {"key": str(home / "keys" / "admin.key"), "database": str(home / "registry.sqlite"), "home": str(home), "folder": str(folder)}
        yield {**found, "port": tcp.getsockname()[1], "socket": str(folder / "s")}


@pytest.fixture(scope="module")
def answers(targets: dict[str, Any]) -> dict[str, str]:
    """What came of every attempt inside."""
    os.environ["MODELYARD_CANARY"] = "canary"
    try:
        parts = {"code/nosy.py": SOURCE, "files/targets.json": json.dumps(targets).encode()}
        runtime = Isolated(Code(kind="python", entry="nosy:Nosy"), parts, None, Isolation())
    finally:
        del os.environ["MODELYARD_CANARY"]
    try:
        rows = np.arange(100, 100 + len(nosy.ATTEMPTS), dtype=np.float64).reshape(-1, 1)
        honest = runtime.predict({"X": np.array([[99.0]])})["answer"][0]
        found = {name: runtime.predict({"X": row.reshape(1, 1)})["answer"][0] for name, row in zip(nosy.ATTEMPTS, rows, strict=True)}
        return {**found, "honest": honest}
    finally:
        runtime.close()


@pytest.mark.parametrize("attempt", nosy.ATTEMPTS)
def test_an_attempt_to_get_out_is_refused(answers: dict[str, str], attempt: str) -> None:
    assert answers[attempt].startswith("refused: "), answers[attempt]


OUTSIDE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import nosy
try:
    print("got:", nosy.ATTEMPTS[sys.argv[2]](json.loads(sys.argv[3])))
except BaseException as error:
    print("refused:", type(error).__name__)
"""


@pytest.mark.parametrize("attempt", sorted(set(nosy.ATTEMPTS) - NOT_TRIED_OUTSIDE))
def test_the_same_code_without_walls_gets_it(targets: dict[str, Any], tmp_path: Path, attempt: str) -> None:
    if attempt in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("only root could")
    command = [sys.executable, "-c", OUTSIDE, str(Path(nosy.__file__).parent), attempt, json.dumps(targets)]
    environment = {**os.environ, "MODELYARD_CANARY": "canary"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stdout.startswith("got:"), done.stdout


def test_what_a_model_needs_is_there(answers: dict[str, str]) -> None:
    assert answers["honest"].startswith("ok: ['mine', 'signal'"), answers["honest"]


WITHOUT_NAMESPACES = """
import sys
from modelyard.runtime.isolated import child, sandbox, seccomp
sandbox._namespaces = lambda: ("", False)
"""
WITHOUT_ANY = f"""{WITHOUT_NAMESPACES}
seccomp.is_known = lambda: False
sandbox._landlock = lambda _: (-1, 0)
sandbox._take_user = lambda *_: False
"""


def walls_away(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Start every child with `code` before it shuts itself in."""
    real = subprocess.Popen

    def start(command: list[str], **more: Any) -> Any:
        return real([command[0], "-I", "-c", code + "raise SystemExit(child.main(sys.argv))", command[-1]], **more)

    monkeypatch.setattr(process.subprocess, "Popen", start)


def test_where_nothing_holds_it_in_it_does_not_start_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    walls_away(monkeypatch, WITHOUT_ANY)
    parts = {"code/m.py": b"def predict(inputs):\n    return inputs['X'][:, 0]\n"}
    with pytest.raises(Rejected, match=r"network.*files.*--isolation=weak") as caught:
        Isolated(Code(kind="python", entry="m:predict"), parts, None, Isolation())
    assert caught.value.verdicts[0].rule == "isolation"
    runtime = Isolated(Code(kind="python", entry="m:predict"), parts, None, Isolation(weak=True))
    assert runtime.predict({"X": np.ones((1, 1))})["prediction"].tolist() == [1.0]
    assert not runtime.facts["network"] and not runtime.facts["files"]
    runtime.close()


def test_it_does_not_start_where_the_home_could_be_read() -> None:
    parts = {"code/m.py": b"import sys\ndef predict(inputs):\n    return inputs['X'][:, 0]\n"}
    home = str(Path(sys.prefix) / "home")
    with pytest.raises(Rejected, match="the home lies"):
        Isolated(Code(kind="python", entry="m:predict"), parts, None, Isolation(home=home))
    Isolated(Code(kind="python", entry="m:predict"), parts, None, Isolation(home=home, weak=True)).close()


def test_seccomp_alone_keeps_the_network_shut(targets: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no namespace is to be had, as in most containers."""
    walls_away(monkeypatch, WITHOUT_NAMESPACES)
    parts = {"code/nosy.py": SOURCE, "files/targets.json": json.dumps(targets).encode()}
    runtime = Isolated(Code(kind="python", entry="nosy:Nosy"), parts, None, Isolation())
    try:
        assert runtime.facts["network"] == "seccomp"
        names = list(nosy.ATTEMPTS)
        for attempt in ("connect_tcp", "connect_unix", "send_udp", "listen", "use_io_uring", "read_key", "fork"):
            answer = runtime.predict({"X": np.array([[100.0 + names.index(attempt)]])})["answer"][0]
            assert answer.startswith("refused"), (attempt, answer)
    finally:
        runtime.close()


AS_NOBODY = """
import ctypes, json, os, pathlib, resource, signal, socket, subprocess, sys, threading, traceback
import numpy.lib.format
from modelyard.runtime.isolated import child, sandbox, seccomp
os.chmod(json.loads(sys.argv[1])["scratch"], 0o777)
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
if {maps_ids}:
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # the change of user took /proc/self from it, which a program started by that user would have
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests here run as an ordinary user already")
@pytest.mark.parametrize("maps_ids", [True, False])
def test_an_ordinary_user_gets_the_same_walls(targets: dict[str, Any], monkeypatch: pytest.MonkeyPatch, maps_ids: bool) -> None:
    walls_away(monkeypatch, AS_NOBODY.format(maps_ids=maps_ids))
    parts = {"code/nosy.py": SOURCE, "files/targets.json": json.dumps(targets).encode()}
    runtime = Isolated(Code(kind="python", entry="nosy:Nosy"), parts, None, Isolation())
    try:
        assert runtime.facts["network"] in ("user namespace", "seccomp") and runtime.facts["user"] == ""
        assert runtime.predict({"X": np.array([[99.0]])})["answer"][0].startswith("ok: ")
        for number, attempt in enumerate(nosy.ATTEMPTS, 100):
            if attempt == "fill_scratch" and not (maps_ids and runtime.facts["network"] == "user namespace"):
                continue  # the folder is the temporary directory's own then; each file in it is bounded
            answer = runtime.predict({"X": np.array([[float(number)]])})["answer"][0]
            assert answer.startswith("refused: "), (attempt, answer)
    finally:
        runtime.close()


def test_the_folders_that_are_read_are_pythons_own() -> None:
    found = sandbox.readable()
    assert sys.prefix in found
    assert not {"/", "/etc", "/home", "/root", "/tmp", "/var", "/proc", "/run"} & set(found)
