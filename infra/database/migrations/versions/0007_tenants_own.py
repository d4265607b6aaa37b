"""What tenants may write and read about money: no negative use, and of the platform's budget their own share alone."""

from alembic import op

revision = "0007"
down_revision = "0006"

COUNTS = ("rows_in", "rows_out", "bytes_in", "bytes_out", "models_trained", "models_reused", "requests")


def upgrade() -> None:
    counted = " AND ".join(f"{name} >= 0" for name in COUNTS)
    op.execute(f"ALTER TABLE usage ADD CONSTRAINT usage_counts_check CHECK ({counted})")
    op.execute("ALTER TABLE processes ADD CONSTRAINT processes_cpu_s_check CHECK (cpu_s >= 0)")
    op.execute("CREATE INDEX processes_by_time ON processes (tenant, read_at)")
    op.execute("ALTER TABLE budget_shares DROP hard")


def downgrade() -> None:
    op.execute("ALTER TABLE budget_shares ADD hard numeric(18, 6) NOT NULL DEFAULT 0")
    op.execute("DROP INDEX processes_by_time")
    op.execute("ALTER TABLE processes DROP CONSTRAINT processes_cpu_s_check")
    op.execute("ALTER TABLE usage DROP CONSTRAINT usage_counts_check")
