"""What every tenant used: units of finished work, the processes that did it, bytes over time, and what is nobody's."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
CREATE TABLE usage (
    tenant text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    unit text NOT NULL,
    use_case text NOT NULL,
    stage text NOT NULL,
    run_id bigint,
    batch integer,
    release_version bigint,
    process text NOT NULL,
    tier text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    cpu_s double precision NOT NULL CHECK (cpu_s >= 0),
    wall_s double precision NOT NULL CHECK (wall_s >= 0),
    peak_mb double precision NOT NULL DEFAULT 0,
    rows_in bigint NOT NULL DEFAULT 0,
    rows_out bigint NOT NULL DEFAULT 0,
    bytes_in bigint NOT NULL DEFAULT 0,
    bytes_out bigint NOT NULL DEFAULT 0,
    models_trained bigint NOT NULL DEFAULT 0,
    models_reused bigint NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, unit)
);
CREATE INDEX usage_of_process ON usage (tenant, process);
CREATE INDEX usage_by_time ON usage (tenant, at);
CREATE TABLE processes (
    tenant text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    process text NOT NULL,
    use_case text NOT NULL,
    job_id bigint,
    tier text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz NOT NULL DEFAULT now(),
    ended text CHECK (ended IN ('done', 'failed')),
    cpu_s double precision NOT NULL DEFAULT 0,
    peak_mb double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, process)
);
CREATE TABLE stored (
    tenant text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    use_case text NOT NULL,
    place text NOT NULL CHECK (place IN ('lake', 'models', 'database')),
    at timestamptz NOT NULL,
    bytes bigint NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (tenant, use_case, place, at)
);
CREATE TABLE memberships (
    tenant text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    since timestamptz NOT NULL,
    tier text NOT NULL,
    PRIMARY KEY (tenant, since)
);
INSERT INTO memberships SELECT tenant, created_at, tier FROM tenants;
CREATE TABLE overhead (
    process text NOT NULL,
    at timestamptz NOT NULL,
    part text NOT NULL,
    cpu_s double precision NOT NULL CHECK (cpu_s >= 0),
    wall_s double precision NOT NULL CHECK (wall_s >= 0),
    peak_mb double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (process, at)
);
"""

OWN_TENANT = "CASE WHEN starts_with(session_user, 'tenant_') THEN substr(session_user, 8) END"

TENANTS_OWN = ("usage", "processes", "stored", "memberships")


def upgrade() -> None:
    op.execute(TABLES)
    for table in (*TENANTS_OWN, "overhead"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY operator ON {table} TO CURRENT_USER USING (true)")
    for table in TENANTS_OWN:
        op.execute(f"CREATE POLICY own_rows ON {table} TO orchard_tenants USING (tenant = {OWN_TENANT})")
        op.execute(f"GRANT SELECT ON {table} TO orchard_tenants")
    # A tenant's runs book what they used, and nothing takes it back.
    op.execute("GRANT INSERT ON usage, processes TO orchard_tenants")
    op.execute("GRANT UPDATE (use_case, read_at, ended, cpu_s, peak_mb) ON processes TO orchard_tenants")


def downgrade() -> None:
    op.execute("".join(f"DROP TABLE {table};" for table in (*TENANTS_OWN, "overhead")))
