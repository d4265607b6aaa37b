"""Alembic's entry point: runs inside the transaction that `infra.database.migrate` opened."""

from alembic import context

from infra.database.job_tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
