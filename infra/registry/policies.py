"""Row-level security in MLflow's databases: a tenant's login sees and writes what bears its own name, and no more.

MLflow knows no tenants. What it keeps hangs on a name, `{tenant}.{use_case}`, of an experiment or a registered model;
the policies compare that name with the login, as those of Orchard's own tables do. MLflow's servers have the login that
owns the tables. A table that is not listed here, which a later MLflow may add, is closed to tenants.
"""

from __future__ import annotations

from sqlalchemy import Connection, make_url, text

from infra.database.cluster import OWN_TENANT, TENANTS_ROLE
from infra.database.connect import transact

OWN_NAME = f"starts_with(name, ({OWN_TENANT}) || '.')"
OWN_EXPERIMENT = f"experiment_id IN (SELECT experiment_id FROM experiments WHERE {OWN_NAME})"  # noqa: S608
OWN_RUN = "{column} IN (SELECT run_uuid FROM runs)"  # of which the login sees its own

POLICIES = {
    "experiments": OWN_NAME,
    **dict.fromkeys(
        ("runs", "experiment_tags", "datasets", "logged_models", "logged_model_metrics", "logged_model_params",
         "logged_model_tags", "trace_info"),
        OWN_EXPERIMENT,
    ),
    **dict.fromkeys(("tags", "params", "metrics", "latest_metrics"), OWN_RUN.format(column="run_uuid")),
    "inputs": OWN_RUN.format(column="destination_id"),
    "input_tags": "input_uuid IN (SELECT input_uuid FROM inputs)",
    **dict.fromkeys(
        ("registered_models", "model_versions", "registered_model_tags", "model_version_tags",
         "registered_model_aliases"),
        OWN_NAME,
    ),
    # MLflow looks into these whenever something is registered or deleted, and finds nothing: webhooks are the
    # operator's, and nobody assesses models here.
    **dict.fromkeys(("webhooks", "webhook_events", "assessments"), "false"),
}  # fmt: skip

DEFAULT_EXPERIMENT = "experiment_id = 0"
"""MLflow makes it first of all, and looks for it whenever it connects. It is nobody's, and empty."""


def confine_tenants(uri: str) -> None:
    """Puts the policies in force. `uri` is that of the login that owns MLflow's tables. Safe to call again.

    Does nothing to a registry outside of Orchard's PostgreSQL, which has no logins of tenants.
    """
    if make_url(uri).get_backend_name() == "postgresql":
        transact(uri, _confine)


def confined(uri: str) -> bool:
    """Whether there is nothing to do: the policies are in force, as one of them tells. Asks without MLflow, which takes
    seconds."""
    if make_url(uri).get_backend_name() != "postgresql":
        return True  # it has no logins of tenants
    known = text("SELECT 1 FROM pg_policies WHERE tablename = 'model_versions' AND policyname = 'own_rows'")
    return bool(transact(uri, lambda connection: connection.scalar(known)))


def _confine(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('orchard.registry'))"))
    if not connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": TENANTS_ROLE}):
        return
    database = connection.engine.url.database
    existing = set(connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")))
    connection.execute(text(f'GRANT CONNECT ON DATABASE "{database}" TO {TENANTS_ROLE}'))
    connection.execute(text(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {TENANTS_ROLE}"))
    connection.execute(text(f"GRANT SELECT ON alembic_version TO {TENANTS_ROLE}"))
    for name, condition in POLICIES.items():
        if name not in existing:
            continue
        for statement in (
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
            f"DROP POLICY IF EXISTS own_rows ON {name}",
            f"DROP POLICY IF EXISTS owner ON {name}",
            f"CREATE POLICY own_rows ON {name} TO {TENANTS_ROLE} USING ({condition})",
            f"CREATE POLICY owner ON {name} TO CURRENT_USER USING (true)",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {TENANTS_ROLE}",
        ):
            connection.execute(text(statement))
    connection.execute(text("DROP POLICY IF EXISTS default_experiment ON experiments"))
    connection.execute(
        text(
            f"CREATE POLICY default_experiment ON experiments FOR SELECT TO {TENANTS_ROLE} USING ({DEFAULT_EXPERIMENT})"
        )
    )
