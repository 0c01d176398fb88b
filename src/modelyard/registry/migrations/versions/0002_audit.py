"""Format 2: the audit chain stands beside the records, so that one transaction changes a record and tells of it."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Make the table of the chain."""
    number = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    op.execute(f"CREATE TABLE audit (sequence {number} PRIMARY KEY, line TEXT NOT NULL)")
