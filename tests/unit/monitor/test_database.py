"""A SQLite file of the monitor's, opened by many."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.errors import InvalidConfig, Tampered, Unavailable
from modelyard.monitor import database, turns
from modelyard.monitor.database import Database
from modelyard.monitor.labels import Ledger

LOOK = "import sys; from pathlib import Path; from modelyard.monitor.labels import Ledger; Ledger(Path(sys.argv[1])).close()"


def test_a_new_file_is_its_owners_alone_and_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    Database(tmp_path / "new.sqlite", when_full="").close()
    assert stat.S_IMODE((tmp_path / "new.sqlite").stat().st_mode) == 0o600
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(InvalidConfig):
        Database(tmp_path / "folder.sqlite", when_full="")
    (tmp_path / "bad.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(Tampered):
        Database(tmp_path / "bad.sqlite", when_full="")


def test_labels_outlive_another_instance_and_a_process_that_comes_and_goes(tmp_path: Path) -> None:
    """A second instance in one process must leave the locks of the first."""
    path = tmp_path / "labels.sqlite"
    first = Ledger(path)
    Ledger(path).close()
    subprocess.run([sys.executable, "-c", LOOK, str(path)], check=True)
    first.give("m", [("a", 1)], at=1.0)
    assert Ledger(path).labels("m") == {"a": "1"}


def test_who_does_not_come_to_write_in_time_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "labels.sqlite")
    monkeypatch.setattr(database, "TIMEOUT_S", 0.01)
    with turns.of(tmp_path / "labels.sqlite").taken(timeout_s=1.0), pytest.raises(Unavailable):
        ledger.give("m", [("a", 1)], at=1.0)
    ledger.give("m", [("a", 1)], at=1.0)
