"""What tenants may write and read about money: what they use, when it is used and as the tier that they are in, nothing
negative, nothing taken back; and of the platform's budget their own share alone."""

from alembic import op

revision = "0007"
down_revision = "0006"

COUNTS = ("rows_in", "rows_out", "bytes_in", "bytes_out", "models_trained", "models_reused", "requests")

BOOKING = """
CREATE FUNCTION books_truly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF starts_with(session_user, 'tenant_') THEN
        NEW.tier := coalesce((SELECT t.tier FROM tenants AS t WHERE t.tenant = NEW.tenant), NEW.tier);
        IF TG_TABLE_NAME = 'usage' THEN
            NEW.at := now();
        ELSE
            NEW.read_at := now();
            IF TG_OP = 'UPDATE' THEN
                NEW.cpu_s := greatest(OLD.cpu_s, NEW.cpu_s);
                NEW.tier := OLD.tier;
            END IF;
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER books_truly BEFORE INSERT ON usage FOR EACH ROW EXECUTE FUNCTION books_truly();
CREATE TRIGGER books_truly BEFORE INSERT OR UPDATE ON processes FOR EACH ROW EXECUTE FUNCTION books_truly();
"""


def upgrade() -> None:
    counted = " AND ".join(f"{name} >= 0" for name in COUNTS)
    op.execute(f"ALTER TABLE usage ADD CONSTRAINT usage_counts_check CHECK ({counted})")
    op.execute("ALTER TABLE processes ADD CONSTRAINT processes_cpu_s_check CHECK (cpu_s >= 0)")
    op.execute("CREATE INDEX processes_by_time ON processes (tenant, read_at)")
    op.execute("ALTER TABLE budget_shares DROP hard")
    op.execute(BOOKING)


def downgrade() -> None:
    op.execute("DROP TRIGGER books_truly ON usage; DROP TRIGGER books_truly ON processes; DROP FUNCTION books_truly()")
    op.execute("ALTER TABLE budget_shares ADD hard numeric(18, 6) NOT NULL DEFAULT 0")
    op.execute("DROP INDEX processes_by_time")
    op.execute("ALTER TABLE processes DROP CONSTRAINT processes_cpu_s_check")
    op.execute("ALTER TABLE usage DROP CONSTRAINT usage_counts_check")
