"""Format 1, of release 0.1.0: records and the counter of their revisions."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the tables. A home in SQLite that has no stamp of Alembic's is of this format already, and begins after it."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, key))"
            " WITHOUT ROWID"
        )
        op.execute("CREATE TABLE counter (revision INTEGER NOT NULL)")
    else:
        # "C": by code point, as SQLite sorts; what begins alike then stands together.
        op.execute(
            'CREATE TABLE record (kind TEXT COLLATE "C" NOT NULL, key TEXT COLLATE "C" NOT NULL, revision BIGINT NOT NULL, body TEXT NOT NULL,'
            " PRIMARY KEY (kind, key))"
        )
        op.execute("CREATE TABLE counter (revision BIGINT NOT NULL)")
    op.execute("INSERT INTO counter VALUES (0)")
