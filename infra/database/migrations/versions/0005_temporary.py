"""Until the prices are there."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute(
        "CREATE TABLE price_rates (tier text NOT NULL, valid_from timestamptz NOT NULL, valid_to timestamptz,"
        " price_book text NOT NULL, currency text NOT NULL, cpu_hour numeric NOT NULL, gb_month numeric NOT NULL,"
        " million_predictions numeric NOT NULL, PRIMARY KEY (tier, valid_from));"
        " ALTER TABLE price_rates ENABLE ROW LEVEL SECURITY; ALTER TABLE price_rates FORCE ROW LEVEL SECURITY;"
        " CREATE POLICY operator ON price_rates TO CURRENT_USER USING (true);"
        " CREATE POLICY everybody ON price_rates TO orchard_tenants USING (true);"
        " GRANT SELECT ON price_rates TO orchard_tenants;"
    )


def downgrade() -> None:
    op.execute("DROP TABLE price_rates")
