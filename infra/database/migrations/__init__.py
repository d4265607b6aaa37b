"""Alembic's folder; `infra.database.migrate` runs it."""
