"""Budgets: limits of what may be spent, what was told of them, shares of the platform's; runs that stop over them."""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = """
CREATE TABLE budgets (
    tenant text NOT NULL,
    use_case text NOT NULL,
    period text NOT NULL CHECK (period IN ('month', 'run')),
    hard numeric(18, 6) NOT NULL CHECK (hard > 0),
    soft numeric(18, 6) NOT NULL CHECK (soft BETWEEN 0 AND hard),
    currency text NOT NULL,
    priority integer NOT NULL DEFAULT 0 CHECK (priority >= 0),
    set_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, use_case, period),
    CHECK (tenant <> '' OR (use_case = '' AND period = 'month'))
);
CREATE TABLE budget_alerts (
    tenant text NOT NULL,
    use_case text NOT NULL,
    period text NOT NULL,
    about text NOT NULL,
    level text NOT NULL CHECK (level IN ('soft', 'hard')),
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, use_case, period, about, level),
    FOREIGN KEY (tenant, use_case, period) REFERENCES budgets ON DELETE CASCADE
);
CREATE TABLE budget_shares (
    tenant text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    month text NOT NULL,
    stop_at numeric(18, 6) NOT NULL,
    hard numeric(18, 6) NOT NULL,
    currency text NOT NULL,
    PRIMARY KEY (tenant, month)
);
ALTER TABLE jobs ADD held text;
ALTER TABLE runs DROP CONSTRAINT runs_status_check,
    ADD CONSTRAINT runs_status_check CHECK (status IN ('running', 'finished', 'failed', 'stopped'));
ALTER TABLE partition_models DROP CONSTRAINT partition_models_outcome_check,
    ADD CONSTRAINT partition_models_outcome_check
        CHECK (outcome IN ('trained', 'reused', 'rejected', 'failed', 'left'));
"""

OWN_TENANT = "CASE WHEN starts_with(session_user, 'tenant_') THEN substr(session_user, 8) END"

TENANTS_OWN = ("budgets", "budget_alerts", "budget_shares")


def upgrade() -> None:
    op.execute(TABLES)
    for table in TENANTS_OWN:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY operator ON {table} TO CURRENT_USER USING (true)")
        # Only the operator says how much may be spent.
        op.execute(f"CREATE POLICY own_rows ON {table} TO orchard_tenants USING (tenant = {OWN_TENANT})")
        op.execute(f"GRANT SELECT ON {table} TO orchard_tenants")


def downgrade() -> None:
    op.execute("DROP TABLE budget_alerts; DROP TABLE budgets; DROP TABLE budget_shares")
    op.execute("ALTER TABLE jobs DROP held")
