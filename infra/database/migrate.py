"""Brings a database to the newest schema."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from infra.database.connect import transact
from tasks.domain.errors import InvalidDefinition


def migrate(url: str) -> None:
    """Applies the migrations that are missing, in one transaction; of two at once, one waits for the other.

    `url` is the operator's: the login that runs this owns all tables. Raises `InvalidDefinition` for a database that a
    newer Orchard has upgraded.
    """
    transact(url, _upgrade)


def _upgrade(connection: Connection) -> None:
    # Alembic is imported late: most commands find nothing to migrate, but all of them import this module.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('orchard.migrate'))"))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise InvalidDefinition(
            "the database's schema is newer than this version of Orchard",
            found=str(error),
            hint="use the version that it was upgraded by, or a later one",
        ) from None
