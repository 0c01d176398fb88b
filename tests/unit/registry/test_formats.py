"""registry.formats: from every released format to the newest, whole or not at all, once."""

from __future__ import annotations

import ast
import multiprocessing
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from postgres import Postgres

from modelyard.errors import UnsupportedFormat
from modelyard.registry import formats
from modelyard.registry import records as records_module
from modelyard.registry.postgres import PostgresRecords
from modelyard.registry.records import SqliteRecords

VERSIONS = Path(formats.__file__).parent / "migrations" / "versions"
OLD = Path(__file__).parents[2] / "golden" / "homes" / "0.1.0" / "registry.sqlite"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of a registry that release 0.1.0 wrote."""
    return Path(shutil.copy(OLD, tmp_path / "registry.sqlite"))


def tables(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type IN ('table', 'index') AND sql IS NOT NULL")
        return {
            (name, " ".join(sql.replace("\n", " ").replace("\t", " ").replace("( ", "(").split()).replace("( ", "(").replace(" )", ")"))
            for name, sql in made
        }


def stamps(path: Path) -> tuple[int, str]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0], connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def test_each_format_has_its_file_and_follows_the_one_before() -> None:
    found = {}
    for path in VERSIONS.glob("*.py"):
        assigned = next(node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.Assign))
        revision, before = ast.literal_eval(assigned.value)
        assert path.name.startswith(f"{revision}_")
        found[revision] = before
    assert found == dict(zip(formats.REVISIONS, (None, *formats.REVISIONS), strict=False))


def test_what_a_new_home_gets_is_what_all_migrations_make(tmp_path: Path, old: Path) -> None:
    SqliteRecords(tmp_path / "new").close()
    SqliteRecords(old).close()
    assert tables(old) == tables(tmp_path / "new")
    assert stamps(old) == stamps(tmp_path / "new") == (formats.NEWEST, formats.REVISIONS[-1])


def test_a_home_of_0_1_0_keeps_all_that_it_had(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection:
        before = connection.execute("SELECT kind, key, revision, body FROM record ORDER BY kind, key").fetchall()
        counted = connection.execute("SELECT revision FROM counter").fetchall()
        assert connection.execute("PRAGMA user_version").fetchone() == (1,) and before
    store = SqliteRecords(old)
    assert store.get("version", "diabetes:000000001") is not None
    store.append(lambda last: b"one")
    store.close()
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("SELECT kind, key, revision, body FROM record ORDER BY kind, key").fetchall() == before
        assert connection.execute("SELECT revision FROM counter").fetchall() == counted


def _open(path: Path) -> None:
    SqliteRecords(path).close()


def test_of_several_that_migrate_at_once_one_does(old: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_open, args=(old,)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert stamps(old) == (formats.NEWEST, formats.REVISIONS[-1])


CRASH = """
import os, sys
from pathlib import Path
import alembic.command
from modelyard.registry.records import SqliteRecords
upgrade = alembic.command.upgrade
def crash(config, revision):
    upgrade(config, revision)
    os._exit(9)
alembic.command.upgrade = crash
SqliteRecords(Path(sys.argv[1]))
"""


def test_a_crash_amid_migrating_leaves_the_old_format_which_the_next_start_migrates(old: Path) -> None:
    assert subprocess.run([sys.executable, "-c", CRASH, str(old)], check=False).returncode == 9
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")} == {"record", "counter"}
    SqliteRecords(old).close()
    assert stamps(old) == (formats.NEWEST, formats.REVISIONS[-1])


def test_nothing_is_loaded_where_nothing_is_to_be_migrated(tmp_path: Path, old: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from modelyard.registry.records import SqliteRecords; SqliteRecords(Path(sys.argv[1])).close()\n"
        "print('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    )

    def loads(path: Path) -> str:
        return subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout.strip()

    assert [loads(tmp_path / "new"), loads(tmp_path / "new"), loads(old), loads(old)] == ["False", "False", "True", "False"]


def test_an_older_table_layout_in_postgresql_is_migrated(postgres: Postgres) -> None:
    url = postgres.url()
    store = PostgresRecords(url)
    store.put("m", "a", {"n": 1}, expected=0)
    store.close()
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE audit")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    stores = [PostgresRecords(url) for _ in range(2)]
    for each in stores:
        each.append(lambda last: b"line")
        found = each.get("m", "a")
        assert found is not None and found.body == {"n": 1}
    for each in stores:
        each.close()


def test_a_stamp_that_no_release_knows_yet_is_a_newer_ones() -> None:
    assert [formats.number(revision) for revision in formats.REVISIONS] == list(range(1, formats.NEWEST + 1))
    with pytest.raises(UnsupportedFormat, match="newer"):
        formats.number("9999")


def test_the_newest_tables_carry_the_newest_stamp() -> None:
    assert f"VALUES ('{formats.REVISIONS[-1]}')" in records_module._TABLES
