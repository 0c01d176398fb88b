"""The audit chain: what was recorded stays as it was, or is found out; what cannot be recorded is refused."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard import files
from modelyard.errors import DigestMismatch, InvalidConfig, Unavailable
from modelyard.security.audit import FIRST, AuditLog, FileLines
from modelyard.security.identity import mint
from modelyard.types import Principal

WHO = Principal("local:ada", ("admin",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def recorded(path: Path, count: int) -> AuditLog:
    log = AuditLog(FileLines(path))
    for number in range(count):
        log.record(WHO, "deploy", f"model-{number}", outcome="begun")
    return log


def test_entries_are_numbered_and_chained(path: Path) -> None:
    log = recorded(path, 3)
    entries = list(log.entries())
    assert [entry.sequence for entry in entries] == [1, 2, 3]
    assert [entry.previous for entry in entries] == [FIRST, entries[0].hash, entries[1].hash]
    assert log.verify() == 3
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_key_is_written_down(path: Path) -> None:
    """Whoever pastes one where an id is asked for has it refused, and the refusal recorded."""
    log, key = AuditLog(FileLines(path)), mint()
    log.record(WHO, "trust-remove", key, outcome="begun", detail=f"by {key[:30]}, not {key}")
    assert b"my_***" in path.read_bytes() and key[3:20].encode() not in path.read_bytes()
    log.record(WHO, "delete", name := "my_model_of_customers_that_leave:3", outcome="done")
    assert [entry.subject for entry in log.entries()][1] == name and log.verify() == 2


def test_an_empty_log_verifies(path: Path) -> None:
    assert AuditLog(FileLines(path)).verify() == 0


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: [lines[0], lines[1].replace(b"model-1", b"model-7"), lines[2]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: lines[1:],
        lambda lines: [*lines[:2], b"{}"],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], lines[1].replace(b'"principal":', b'"principal":"local:eve","principal":'), lines[2]],
        lambda lines: [lines[0], lines[1].replace(b'"outcome":', b'"approved_by":"local:eve","outcome":'), lines[2]],
        lambda lines: [lines[0], lines[1].replace(b'"action":', b'"action": '), lines[2]],
    ],
    ids=["flipped", "deleted", "reordered", "beginning cut off", "unreadable", "repeated", "said twice", "said beside", "spaced"],
)
def test_a_changed_log_is_found_out(path: Path, tamper: object) -> None:
    log = recorded(path, 3)
    path.write_bytes(b"\n".join(tamper(path.read_bytes().splitlines())) + b"\n")  # type: ignore[operator]
    with pytest.raises(DigestMismatch, match="audit entry"):
        log.verify()


def test_a_line_cut_short_by_a_crash_is_taken_back(path: Path) -> None:
    log = recorded(path, 2)
    with path.open("ab") as file:
        file.write(b'{"sequence":3,"at":"20')
    assert log.verify() == 2
    log.record(WHO, "deploy", "again", outcome="begun")
    assert log.verify() == 3


def test_nothing_is_chained_to_an_entry_that_cannot_be_read(path: Path) -> None:
    log = recorded(path, 2)
    with path.open("ab") as file:
        file.write(b"spoilt\n")
    before = path.read_bytes()
    with pytest.raises(DigestMismatch, match=r"modelyard audit verify"):
        log.record(WHO, "deploy", "again", outcome="begun")
    assert path.read_bytes() == before


def _write(path: Path) -> None:
    recorded(path, 20)


def test_writers_of_several_processes_make_one_chain(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert AuditLog(FileLines(path)).verify() == 60


def test_a_log_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(InvalidConfig):
        AuditLog(FileLines(tmp_path / "audit.jsonl")).record(WHO, "deploy", "x", outcome="begun")


def test_a_disk_that_has_not_synced_is_not_believed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = recorded(path, 2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "input/output error")))
        with pytest.raises(Unavailable):
            log.record(WHO, "deploy", "x", outcome="begun")
    with pytest.raises(Unavailable, match="start this process again"):
        log.record(WHO, "deploy", "x", outcome="begun")
    assert AuditLog(FileLines(path)).verify() == 2
    assert recorded(path, 1).verify() == 3, "another process begins anew"


def test_the_name_of_a_new_log_is_durable_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    recorded(path, 2)
    assert synced == [path.parent]


def test_a_full_disk_keeps_nothing_of_the_entry(path: Path) -> None:
    """A file-size limit stands for the full disk: the write fails after some bytes."""
    recorded(path, 2)
    size = path.stat().st_size
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 50}, {size + 50}))\n"
        "from modelyard.security.audit import *\n"
        "try: AuditLog(FileLines(Path(sys.argv[1]))).record(Principal('x'), 'deploy', 'y', outcome='begun')\n"
        "except ModelyardError as error: print(type(error).__name__)\n"
    ).replace("from modelyard.security.audit import *", "from modelyard.security.audit import *; from modelyard.errors import ModelyardError")
    shown = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env={**os.environ})
    assert shown.stdout.strip() in ("StorageFull", "Unavailable")
    assert path.stat().st_size == size and AuditLog(FileLines(path)).verify() == 2
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != size + 50
