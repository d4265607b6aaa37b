"""Price books, list prices, invoices, and what the work of each tenant comes to at list prices."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
CREATE TABLE price_books (
    version text PRIMARY KEY,
    begins timestamptz NOT NULL UNIQUE,
    content jsonb NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE price_rates (
    tier text NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    price_book text NOT NULL,
    currency text NOT NULL,
    cpu_hour numeric NOT NULL CHECK (cpu_hour >= 0),
    gb_month numeric NOT NULL CHECK (gb_month >= 0),
    million_predictions numeric NOT NULL CHECK (million_predictions >= 0),
    PRIMARY KEY (tier, valid_from)
);
CREATE TABLE invoices (
    number text PRIMARY KEY,
    customer text NOT NULL,
    customer_since timestamptz NOT NULL,
    month text NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    content jsonb NOT NULL,
    UNIQUE (customer, customer_since, month)
);
ALTER TABLE partition_models ADD tenant_wide_metric double precision, ADD model_bytes bigint;
"""

VIEWS = """
CREATE VIEW tenant_costs WITH (security_invoker = true) AS
SELECT w.tenant, w.use_case, w.stage, (w.at AT TIME ZONE 'UTC')::date AS day, sum(w.cpu_s) / 3600 AS cpu_hours,
       sum(w.models_trained)::bigint AS models_trained, sum(w.requests)::bigint AS requests,
       sum(w.predictions)::bigint AS predictions,
       sum(w.cpu_s / 3600 * r.cpu_hour::double precision
           + w.predictions / 1e6 * r.million_predictions::double precision) AS list_price,
       min(r.currency) AS currency
FROM (
    SELECT tenant, use_case, stage, at, tier, cpu_s, models_trained, requests,
           CASE WHEN stage IN ('scoring', 'online') THEN rows_out ELSE 0 END AS predictions
    FROM usage
    UNION ALL
    SELECT p.tenant, p.use_case, 'start', p.read_at, p.tier, greatest(p.cpu_s - u.cpu_s, 0), 0, 0, 0
    FROM processes AS p
    CROSS JOIN LATERAL (SELECT coalesce(sum(cpu_s), 0) AS cpu_s FROM usage
                        WHERE usage.tenant = p.tenant AND usage.process = p.process) AS u
    WHERE p.ended = 'done'
) AS w
LEFT JOIN price_rates AS r
    ON r.tier = w.tier AND w.at >= r.valid_from AND w.at < coalesce(r.valid_to, 'infinity')
GROUP BY w.tenant, w.use_case, w.stage, (w.at AT TIME ZONE 'UTC')::date;
COMMENT ON VIEW tenant_costs IS
'One row per use case, stage and day (UTC): finished work, and what it comes to at the list prices of its tier, before'
' fees, minimums and included amounts. Stage start is what runs need to begin; storage is on invoices.';
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(VIEWS)
    for table in ("price_books", "price_rates", "invoices"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY operator ON {table} TO CURRENT_USER USING (true)")
    op.execute("CREATE POLICY list_prices ON price_rates FOR SELECT TO orchard_tenants USING (true)")
    op.execute("GRANT SELECT ON price_rates, tenant_costs TO orchard_tenants")


def downgrade() -> None:
    op.execute(
        "DROP VIEW tenant_costs; DROP TABLE price_books, price_rates, invoices;"
        " ALTER TABLE partition_models DROP tenant_wide_metric, DROP model_bytes"
    )
