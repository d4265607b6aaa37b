"""Lets a registry's entries point at the place where their files are now."""

from __future__ import annotations

from sqlalchemy import Connection, text

from infra.database.connect import transact
from tasks.domain.errors import InvalidDefinition

ENTRIES = (
    ("experiments", "artifact_location", "name"),
    ("model_versions", "source", "name"),
    ("model_versions", "storage_location", "name"),
)
RUNS = """
UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1)
WHERE starts_with(artifact_uri, :old || '/')
  AND experiment_id IN (SELECT experiment_id FROM experiments WHERE starts_with(name, :tenant || '.'))
"""


def check_movable(uri: str) -> None:
    """Raises `InvalidDefinition` for a registry behind http: MLflow's API cannot change where an entry's files are."""
    if uri.startswith("http"):
        raise InvalidDefinition(
            "entries of a registry behind MLflow's server cannot be moved",
            expected="a database URL, or the registry of Orchard's own PostgreSQL",
            found=uri.split("?")[0],
            hint="set ORCHARD_TRAINING_REGISTRY_URI and ORCHARD_PRODUCTION_REGISTRY_URI to the databases for the move",
        )


def repoint(uri: str, tenant: str, old: str, new: str) -> int:
    """Changes every address of a tenant's entries that lies below `old`; returns how many. Safe to call again.

    `uri` is that of the login that owns MLflow's tables.
    """
    return transact(uri, lambda connection: _repoint(connection, {"tenant": tenant, "old": old, "new": new}))


def _repoint(connection: Connection, values: dict[str, str]) -> int:
    changed = connection.execute(text(RUNS), values).rowcount
    for table, column, name in ENTRIES:
        statement = (
            f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1)"  # noqa: S608
            f" WHERE starts_with({name}, :tenant || '.') AND starts_with({column}, :old || '/')"
        )
        changed += connection.execute(text(statement), values).rowcount
    return changed
