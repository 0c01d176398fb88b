"""Which stretches of a deployment's windows have changed, so that whoever keeps windows at hand reads only these anew.

Hides how a change is numbered: each writing transaction has a number above all before it, and of a stretch the latest change is kept, until a longer
stretch takes its place. What it costs a writer is one row for each minute that is written to. It must not know what a window holds.

Law: of the windows that begin in no stretch told by `since(after)`, none differs from what it was when `after` was the number. Held by
`tests/property/test_recent_laws.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

Stretch = tuple[int, int]
"""From when to before when windows begin."""

TABLES = """
CREATE TABLE changed (
  name TEXT NOT NULL, start INTEGER NOT NULL, until INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (name, start, until)
) WITHOUT ROWID;
CREATE INDEX changed_numbers ON changed (name, number);
CREATE TABLE last_change (number INTEGER NOT NULL);
INSERT INTO last_change VALUES (0);
"""


def note(connection: sqlite3.Connection, stretches: Iterable[tuple[str, Stretch]]) -> None:
    """Windows of these deployments that begin in these stretches are written to by the transaction that is open."""
    connection.execute("UPDATE last_change SET number = number + 1")
    number = connection.execute("SELECT number FROM last_change").fetchone()[0]
    for name, (start, until) in stretches:
        connection.execute("DELETE FROM changed WHERE name = ? AND start >= ? AND start < ? AND until <= ?", (name, start, until, until))
        connection.execute("INSERT INTO changed VALUES (?, ?, ?, ?)", (name, start, until, number))


def forgotten(connection: sqlite3.Connection, before: int) -> None:
    """All windows of all deployments that end before a time are let go of."""
    names = [name for (name,) in connection.execute("SELECT DISTINCT name FROM changed")]
    note(connection, [(name, (0, before)) for name in names])


def since(connection: sqlite3.Connection, name: str, after: int) -> tuple[int, list[Stretch]]:
    """The number of the latest change, and the stretches of a deployment that have changed after the one with the number `after`, in any order.

    A number that is still to come was of another file: all has changed.
    """
    number = connection.execute("SELECT number FROM last_change").fetchone()[0]
    if after > number:
        return number, [(0, 2**62)]
    return number, connection.execute("SELECT start, until FROM changed WHERE name = ? AND number > ?", (name, after)).fetchall()
