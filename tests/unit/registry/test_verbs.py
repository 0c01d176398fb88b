"""registry.verbs: the statements that both databases read; the contract suite runs them on both."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from modelyard.registry.records import SqliteRecords
from modelyard.registry.verbs import Verbs


def test_every_statement_writes_its_parameters_as_question_marks(tmp_path: Path) -> None:
    """PostgreSQL's driver writes them `%s`, and its adapter replaces each `?`: none may stand for itself, and no `%` either."""
    SqliteRecords(tmp_path / "records").close()
    asked: list[tuple[str, int]] = []
    with closing(sqlite3.connect(tmp_path / "records", isolation_level=None)) as connection:

        def run(statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            asked.append((statement, len(parameters)))
            return connection.execute(statement, parameters).fetchall()

        verbs = Verbs(run)
        record = verbs.put("m", "a", {"n": 1}, expected=0)
        assert verbs.get("m", "a") == record and verbs.list("m") == (record,)
        verbs.append(lambda last: last or b"first")
        assert list(verbs.lines()) == [b"first"]
        verbs.delete("m", "a", expected=record.revision)
    assert len(asked) >= 9
    assert all(statement.count("?") == count and "%" not in statement for statement, count in asked)
