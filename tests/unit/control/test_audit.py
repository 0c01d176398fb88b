"""control.audit: both chains of a home are checked, and the first goes on where a file of 0.1.0 ends."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelyard import config
from modelyard.control import audit
from modelyard.control.plane import ControlPlane
from modelyard.errors import DigestMismatch
from modelyard.registry.records import SqliteRecords
from modelyard.security.audit import AuditLog, FileLines
from modelyard.types import Principal

OLD = Path(__file__).parents[2] / "golden" / "homes" / "0.1.0"
WHO = Principal("local:ada", ("admin",))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that 0.1.0 left, with five entries in its file."""
    return Path(shutil.copytree(OLD, tmp_path / "home"))


def opened(home: Path) -> ControlPlane:
    return ControlPlane(config.load({"home": home}))


def found(home: Path) -> dict[str, tuple[int, int | None]]:
    with opened(home) as plane:
        return {chain.name: (chain.entries, chain.first_bad) for chain in plane.audit_verify().chains}


def test_a_home_of_0_1_0_goes_on_with_its_chain(home: Path) -> None:
    with opened(home) as plane:
        assert plane.audit_verify() == audit.Report(
            is_whole=True, chains=(audit.Chain(name="records", entries=0), audit.Chain(name="audit.jsonl", entries=5))
        )
        plane.set_alias(WHO, "diabetes", "best", 2)
        head = FileLines(home / "audit.jsonl").head()
        AuditLog(FileLines(home / "audit.jsonl")).record(WHO, "request", "predict", outcome="denied")
        plane.set_alias(WHO, "diabetes", "best", None)
        first = plane.audit.first()
        assert first is not None and first.previous == head
    assert found(home) == {"records": (2, None), "audit.jsonl": (6, None)}


def test_a_file_that_was_cut_behind_the_first_entry_of_the_records_is_found_out(home: Path) -> None:
    with opened(home) as plane:
        plane.set_alias(WHO, "diabetes", "best", 2)
    lines = (home / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (home / "audit.jsonl").write_bytes(b"".join(lines[:-1]))
    assert found(home) == {"records": (0, 1), "audit.jsonl": (4, None)}


@pytest.mark.parametrize(
    ("statement", "bad"),
    [
        ("UPDATE audit SET line = replace(line, 'model-2', 'model-7') WHERE sequence = 2", 2),
        ("DELETE FROM audit WHERE sequence = 2", 2),
        ("DELETE FROM audit WHERE sequence = 1", 1),
        ("UPDATE audit SET sequence = CASE sequence WHEN 2 THEN 30 ELSE sequence END", 2),
        ("UPDATE audit SET line = 'spoilt' WHERE sequence = 3", 3),
        ("INSERT INTO audit SELECT 5, line FROM audit WHERE sequence = 4", 5),
    ],
    ids=["flipped", "deleted", "beginning cut off", "reordered", "unreadable", "repeated"],
)
def test_a_changed_chain_is_found_out_and_the_first_bad_entry_named(tmp_path: Path, statement: str, bad: int) -> None:
    with closing(SqliteRecords(tmp_path / "records")) as records:
        for number in range(1, 5):
            AuditLog(records).record(WHO, "deploy", f"model-{number}", outcome="done")
        file = FileLines(tmp_path / "audit.jsonl")
        assert audit.verify(records, file).is_whole
        with records.transaction() as verbs:
            verbs._run(statement)
        report = audit.verify(records, file)
    assert not report.is_whole and report.chains[0].first_bad == bad and report.chains[0].entries == bad - 1
    with pytest.raises(DigestMismatch, match=f"records is not whole: audit entry {bad}"):
        audit.require_whole(report)


def test_entries_of_both_chains_come_by_time(home: Path) -> None:
    with opened(home) as plane:
        plane.set_alias(WHO, "diabetes", "best", 2)
        AuditLog(FileLines(home / "audit.jsonl")).record(WHO, "request", "predict", outcome="denied")
        listed = list(plane.audit_list())
        assert [(each.chain, each.entry.action) for each in listed[-3:]] == [
            ("audit.jsonl", "deploy"),
            ("records", "alias"),
            ("audit.jsonl", "request"),
        ]
        assert [each.entry.at for each in listed] == sorted(each.entry.at for each in listed)
        assert len(list(plane.audit_list(since=datetime.now(UTC) - timedelta(hours=1)))) >= 2
        assert list(plane.audit_list(since=datetime.now(UTC) + timedelta(hours=1))) == []


def test_an_entry_that_cannot_be_read_is_told_when_listed(home: Path) -> None:
    with (home / "audit.jsonl").open("ab") as file:
        file.write(b"spoilt\n")
    with opened(home) as plane, pytest.raises(DigestMismatch, match=r"audit\.jsonl cannot be read"):
        list(plane.audit_list())
