"""Jobs that wait for their turn, API keys, and what is needed to be fair and on time."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
CREATE TABLE jobs (
    tenant text NOT NULL,
    job_id bigint GENERATED ALWAYS AS IDENTITY,
    use_case text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('pipeline', 'refresh', 'scoring', 'pull')),
    upload_id text,
    status text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'submitted', 'running', 'done', 'failed')),
    requested_by text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    tries_left integer NOT NULL DEFAULT 5,
    tier text,
    flow_run_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    not_before timestamptz NOT NULL DEFAULT now(),
    submitted_at timestamptz,
    started_at timestamptz,
    heartbeat_at timestamptz,
    finished_at timestamptz,
    error text,
    PRIMARY KEY (tenant, job_id),
    FOREIGN KEY (tenant, use_case) REFERENCES use_cases ON DELETE CASCADE,
    FOREIGN KEY (tenant, upload_id) REFERENCES uploads ON DELETE CASCADE
);
CREATE UNIQUE INDEX one_job_per_upload ON jobs (tenant, upload_id) WHERE upload_id IS NOT NULL;
CREATE UNIQUE INDEX one_waiting_job ON jobs (tenant, use_case, kind) WHERE upload_id IS NULL AND status = 'waiting';
CREATE INDEX jobs_open ON jobs (status, tenant, use_case) WHERE status IN ('waiting', 'submitted', 'running');
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE status = 'done';

CREATE TABLE api_keys (
    tenant text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    key_id text NOT NULL,
    name text NOT NULL,
    digest text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    PRIMARY KEY (tenant, key_id)
);
CREATE TABLE schedules (
    tenant text NOT NULL,
    use_case text NOT NULL,
    kind text NOT NULL,
    due_at timestamptz,
    watermark jsonb,
    PRIMARY KEY (tenant, use_case, kind),
    FOREIGN KEY (tenant, use_case) REFERENCES use_cases ON DELETE CASCADE
);
ALTER TABLE tenants ADD last_turn_at timestamptz;
"""

OWN_TENANT = "CASE WHEN starts_with(session_user, 'tenant_') THEN substr(session_user, 8) END"


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("jobs", "api_keys", "schedules"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO orchard_tenants USING (tenant = {OWN_TENANT})")
        op.execute(f"CREATE POLICY operator ON {table} TO CURRENT_USER USING (true)")
    # Whose turn it is, and whose slot a job holds, is for the operator to say.
    op.execute("GRANT SELECT, INSERT (tenant, use_case, kind, upload_id, requested_by) ON jobs TO orchard_tenants")
    op.execute(
        "GRANT UPDATE (status, tries_left, not_before, started_at, heartbeat_at, finished_at, error, flow_run_id)"
        " ON jobs TO orchard_tenants"
    )
    op.execute(
        "GRANT SELECT, INSERT (tenant, use_case, kind, watermark), UPDATE (watermark) ON schedules TO orchard_tenants"
    )


def downgrade() -> None:
    op.execute("DROP TABLE jobs; DROP TABLE api_keys; DROP TABLE schedules; ALTER TABLE tenants DROP last_turn_at")
