"""The first schema: tables, row-level security on every one of them, views."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE tenants (
    tenant text PRIMARY KEY,
    name text NOT NULL,
    tier text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE use_cases (
    tenant text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    use_case text NOT NULL,
    position integer NOT NULL,
    spec json NOT NULL,
    active boolean NOT NULL,
    last_seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, use_case)
);
CREATE TABLE uploads (
    tenant text NOT NULL,
    upload_id text NOT NULL,
    use_case text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('history', 'scoring', 'actuals')),
    seq bigint NOT NULL,
    filename text NOT NULL,
    size_bytes bigint NOT NULL,
    content_sha256 text NOT NULL,
    status text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    dataset_version bigint,
    rows_read bigint NOT NULL DEFAULT 0,
    rows_accepted bigint NOT NULL DEFAULT 0,
    rows_quarantined bigint NOT NULL DEFAULT 0,
    rows_duplicate bigint NOT NULL DEFAULT 0,
    error text,
    report text,
    PRIMARY KEY (tenant, upload_id),
    UNIQUE (tenant, use_case, seq),
    FOREIGN KEY (tenant, use_case) REFERENCES use_cases ON DELETE CASCADE
);
CREATE TABLE runs (
    tenant text NOT NULL,
    run_id bigint GENERATED ALWAYS AS IDENTITY,
    key text NOT NULL,
    use_case text NOT NULL,
    stage text NOT NULL,
    status text NOT NULL CHECK (status IN ('running', 'finished', 'failed')),
    upload_id text,
    dataset_version bigint,
    release_version bigint,
    attempts integer NOT NULL DEFAULT 1,
    planned_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    receipt jsonb NOT NULL DEFAULT '{}',
    error text,
    PRIMARY KEY (tenant, run_id),
    UNIQUE (tenant, key),
    FOREIGN KEY (tenant, use_case) REFERENCES use_cases ON DELETE CASCADE,
    FOREIGN KEY (tenant, upload_id) REFERENCES uploads ON DELETE CASCADE
);
CREATE INDEX runs_of_use_case ON runs (tenant, use_case, stage, run_id);
CREATE TABLE batches (
    tenant text NOT NULL,
    run_id bigint NOT NULL,
    number integer NOT NULL,
    bucket integer NOT NULL,
    partitions text[] NOT NULL,
    rows bigint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    finished_at timestamptz,
    PRIMARY KEY (tenant, run_id, number),
    FOREIGN KEY (tenant, run_id) REFERENCES runs ON DELETE CASCADE
);
CREATE TABLE partition_models (
    tenant text NOT NULL,
    run_id bigint NOT NULL,
    partition text NOT NULL,
    batch integer NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('trained', 'reused', 'rejected', 'failed')),
    estimator text,
    rows bigint NOT NULL,
    data_hash text,
    metric double precision,
    naive_metric double precision,
    holdout_rows bigint,
    holdout_sum double precision,
    naive_sum double precision,
    new_rows bigint,
    new_metric double precision,
    new_champion_metric double precision,
    seconds double precision,
    reason text,
    source_run bigint,
    PRIMARY KEY (tenant, run_id, partition),
    FOREIGN KEY (tenant, run_id) REFERENCES runs ON DELETE CASCADE
);
CREATE INDEX partition_models_by_partition ON partition_models (tenant, partition, run_id);
CREATE TABLE scoring_runs (
    tenant text NOT NULL,
    run_id bigint NOT NULL,
    use_case text NOT NULL,
    upload_id text,
    release_version bigint NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    superseded boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, run_id),
    FOREIGN KEY (tenant, run_id) REFERENCES runs ON DELETE CASCADE
);
CREATE TABLE predictions (
    tenant text NOT NULL,
    run_id bigint NOT NULL,
    batch integer NOT NULL,
    partition text NOT NULL,
    row_key text NOT NULL,
    prediction double precision,
    label text,
    probabilities double precision[],
    baseline double precision[],
    answer text NOT NULL,
    fallback boolean NOT NULL,
    model_run bigint
) PARTITION BY LIST (tenant);
CREATE INDEX predictions_of_run ON predictions USING brin (run_id, batch);
CREATE TABLE scored_partitions (
    tenant text NOT NULL,
    run_id bigint NOT NULL,
    batch integer NOT NULL,
    partition text NOT NULL,
    answer text NOT NULL,
    fallback boolean NOT NULL,
    rows bigint NOT NULL,
    PRIMARY KEY (tenant, run_id, partition, answer, fallback, batch),
    FOREIGN KEY (tenant, run_id, batch) REFERENCES batches ON DELETE CASCADE
);
CREATE TABLE releases (
    tenant text NOT NULL,
    use_case text NOT NULL,
    version bigint NOT NULL,
    training_run bigint NOT NULL,
    dataset_version bigint NOT NULL,
    upload_seq bigint NOT NULL,
    status text NOT NULL,
    source text NOT NULL,
    digest text NOT NULL,
    partitions integer NOT NULL,
    promoted integer NOT NULL,
    held integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, use_case, version),
    FOREIGN KEY (tenant, use_case) REFERENCES use_cases ON DELETE CASCADE
);
CREATE UNIQUE INDEX one_champion ON releases (tenant, use_case) WHERE status = 'champion';
CREATE TABLE verdicts (
    tenant text NOT NULL,
    use_case text NOT NULL,
    version bigint NOT NULL,
    partition text NOT NULL,
    verdict text NOT NULL,
    reason text,
    answer text,
    fallback boolean,
    estimator text,
    source_run bigint,
    metric double precision,
    naive_metric double precision,
    PRIMARY KEY (tenant, use_case, version, partition),
    FOREIGN KEY (tenant, use_case, version) REFERENCES releases ON DELETE CASCADE
);
CREATE TABLE health (
    tenant text NOT NULL,
    run_id bigint NOT NULL,
    partition text NOT NULL,
    rows bigint NOT NULL,
    metric text NOT NULL,
    loss_sum double precision NOT NULL,
    baseline_sum double precision NOT NULL,
    own_rows bigint NOT NULL,
    PRIMARY KEY (tenant, run_id, partition),
    FOREIGN KEY (tenant, run_id) REFERENCES runs ON DELETE CASCADE
);
"""

VIEWS = """
CREATE VIEW current_predictions WITH (security_invoker = true) AS
SELECT p.tenant, s.use_case, p.partition, p.row_key, p.prediction, p.label, p.probabilities, p.baseline, p.answer,
       p.fallback, p.model_run, s.release_version, s.upload_id, p.run_id, s.published_at AS scored_at
FROM predictions AS p
JOIN scoring_runs AS s ON s.tenant = p.tenant AND s.run_id = p.run_id
WHERE NOT s.superseded;
COMMENT ON VIEW current_predictions IS
'One row per scored row: what the latest published run of its upload predicted.';

-- Of several finished runs over the same upload of actuals, the last one counts.
CREATE VIEW model_health WITH (security_invoker = true) AS
SELECT tenant, use_case, partition, metric, rows, own_rows, loss_sum, baseline_sum, error, baseline_error,
       1 - error / nullif(baseline_error, 0) AS skill, last_run_at
FROM (
    SELECT h.tenant, r.use_case, h.partition, h.metric, sum(h.rows)::bigint AS rows,
           sum(h.own_rows)::bigint AS own_rows, sum(h.loss_sum) AS loss_sum, sum(h.baseline_sum) AS baseline_sum,
           CASE h.metric WHEN 'rmse' THEN sqrt(sum(h.loss_sum) / nullif(sum(h.rows), 0))
                         ELSE sum(h.loss_sum) / nullif(sum(h.rows), 0) END AS error,
           CASE h.metric WHEN 'rmse' THEN sqrt(sum(h.baseline_sum) / nullif(sum(h.rows), 0))
                         ELSE sum(h.baseline_sum) / nullif(sum(h.rows), 0) END AS baseline_error,
           max(r.finished_at) AS last_run_at
    FROM health AS h
    JOIN runs AS r ON r.tenant = h.tenant AND r.run_id = h.run_id
    WHERE r.status = 'finished' AND NOT EXISTS (
        SELECT FROM runs AS later
        WHERE later.tenant = r.tenant AND later.use_case = r.use_case AND later.stage = r.stage
          AND later.upload_id = r.upload_id AND later.run_id > r.run_id AND later.status = 'finished')
    GROUP BY h.tenant, r.use_case, h.partition, h.metric
) AS per_partition;
COMMENT ON VIEW model_health IS
'One row per partition and metric: live error (rmse, or mean loss) of predictions and of the naive rule;'
' skill is 1 - error / baseline_error.';

CREATE VIEW run_receipts WITH (security_invoker = true) AS
SELECT tenant, use_case, run_id, stage, status, upload_id, dataset_version, release_version, attempts, started_at,
       finished_at, extract(epoch FROM finished_at - started_at)::double precision AS seconds, receipt, error
FROM runs;
COMMENT ON VIEW run_receipts IS 'One row per run: what became of every row or partition.';
"""

READ = ("tenants", "use_cases", "predictions", "current_predictions", "model_health", "run_receipts")
WRITTEN = (
    "uploads", "runs", "batches", "partition_models", "scoring_runs", "scored_partitions", "releases", "verdicts",
    "health",
)  # fmt: skip

# The login itself, which no session can change: not a variable, and not the current role. Other logins get null.
OWN_TENANT = "CASE WHEN starts_with(session_user, 'tenant_') THEN substr(session_user, 8) END"


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(VIEWS)
    # What any tenant may do is granted to this role; the policies then narrow it down to the tenant's own rows.
    op.execute(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'orchard_tenants') "
        "THEN CREATE ROLE orchard_tenants NOLOGIN; END IF; END $$"
    )
    for table in (*READ[:3], *WRITTEN):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_rows ON {table} TO orchard_tenants USING (tenant = {OWN_TENANT})")
        op.execute(f"CREATE POLICY operator ON {table} TO CURRENT_USER USING (true)")
    op.execute(f"GRANT SELECT ON {', '.join(READ)} TO orchard_tenants")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(WRITTEN)} TO orchard_tenants")
    # The numbering of uploads, and the row lock that orders it.
    op.execute("GRANT UPDATE (last_seq) ON use_cases TO orchard_tenants")


def downgrade() -> None:
    raise NotImplementedError("there is nothing before the first schema; drop the database instead")
