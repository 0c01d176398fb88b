"""What Alembic runs to migrate: the connection is the caller's, with its transaction already begun."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
