"""The formats of a record store's tables, and the way from an older one to the newest.

Hides Alembic, which is loaded only where there is something to migrate. All steps are made in one transaction, or none; of several that migrate at
once, one does and the others find it done. It must not know which database it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modelyard.errors import UnsupportedFormat
from modelyard.registry.verbs import Rows, Run

REVISIONS = ("0001", "0002")
"""Every format's name with Alembic, the oldest first; its number is its place, from 1. One file each in `migrations/versions`."""

NEWEST = len(REVISIONS)


class Dialect(NamedTuple):
    """How one database is migrated: `begin` opens a transaction that no other migration is in, `found` tells the format (0: no tables)."""

    url: str
    begin: str
    found: Callable[[Run], int]
    after: Sequence[str] = ()


def number(revision: str) -> int:
    """The format that a stamp of Alembic's names. Raises UnsupportedFormat for one of a newer release."""
    if revision not in REVISIONS:
        raise newer(revision)
    return REVISIONS.index(revision) + 1


def newer(found: object) -> UnsupportedFormat:
    """The error for a store that a newer release has migrated."""
    return UnsupportedFormat(f"the home's records have format {found}, made by a newer modelyard; this one reads up to {NEWEST}. Upgrade it")


def migrate(dialect: Dialect, connect: Callable[[], Any]) -> None:
    """Bring the tables to the newest format over what `connect` gives, a driver's connection. Raises SQLAlchemy's errors around the driver's."""
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with create_engine(dialect.url, creator=connect, poolclass=NullPool).connect() as connection:

        def run(statement: str, _: Sequence[Any] = (), /) -> Rows:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

        connection.exec_driver_sql(dialect.begin)
        found = dialect.found(run)
        if found < NEWEST:
            config.attributes["connection"] = connection
            if found and MigrationContext.configure(connection).get_current_revision() is None:
                command.stamp(config, REVISIONS[found - 1])
            command.upgrade(config, "head")
            for statement in dialect.after:
                connection.exec_driver_sql(statement)
        connection.commit()
