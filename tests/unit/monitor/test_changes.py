from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from modelyard.monitor import changes


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(changes.TABLES)
    yield connection
    connection.close()


def test_what_changed_since_is_told_by_deployment(connection: sqlite3.Connection) -> None:
    assert changes.since(connection, "m", 0) == (0, [])
    changes.note(connection, [("m", (60, 120)), ("n", (0, 60))])
    changes.note(connection, [("m", (120, 180))])
    assert changes.since(connection, "m", 0) == (2, [(60, 120), (120, 180)])
    assert changes.since(connection, "m", 1) == (2, [(120, 180)])
    assert changes.since(connection, "n", 1) == (2, [])
    changes.note(connection, [("m", (60, 120))])
    assert changes.since(connection, "m", 2) == (3, [(60, 120)])


def test_a_longer_stretch_takes_the_place_of_those_within(connection: sqlite3.Connection) -> None:
    changes.note(connection, [("m", (start, start + 60)) for start in range(0, 7200, 60)])
    changes.note(connection, [("m", (0, 3600))])
    assert connection.execute("SELECT count(*) FROM changed").fetchone() == (61,)
    changes.forgotten(connection, 5400)
    changes.forgotten(connection, 7200)
    assert changes.since(connection, "m", 0) == (4, [(0, 7200)])


def test_a_number_of_another_file_means_that_all_has_changed(connection: sqlite3.Connection) -> None:
    ((start, until),) = changes.since(connection, "m", 7)[1]
    assert start == 0 and until > 2**60
