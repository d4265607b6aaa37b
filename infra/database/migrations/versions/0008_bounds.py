"""What a tenant's login may write is such that the operator's work over all tenants can read it: numbers that add up,
times that exist, a run's id that is one. And nothing that it writes hides what a run has used."""

from alembic import op

revision = "0008"
down_revision = "0007"

SECONDS, MEBIBYTES, COUNT, BYTES = "1e8", "1e9", "1e11", "1e15"
"""More than any unit of work ever has; so much that sums of a hundred million units are still numbers. NaN is above."""

BOUNDS = {
    "usage": {
        **dict.fromkeys(("cpu_s", "wall_s"), SECONDS),
        "peak_mb": MEBIBYTES,
        **dict.fromkeys(("rows_in", "rows_out", "models_trained", "models_reused", "requests"), COUNT),
        **dict.fromkeys(("bytes_in", "bytes_out"), BYTES),
    },
    "processes": {"cpu_s": SECONDS, "peak_mb": MEBIBYTES},
}

TIMES = {
    "uploads": ("received_at",),
    "runs": ("planned_at", "started_at", "finished_at"),
    "batches": ("finished_at",),
    "scoring_runs": ("published_at",),
    "releases": ("created_at",),
    "jobs": ("not_before", "started_at", "heartbeat_at", "finished_at"),
    "processes": ("started_at",),
}

OTHERS = {
    "health": {
        "rows": ("rows >= 0", "0"),
        **{name: (f"metric <> 'rmse' OR {name} >= 0", "0") for name in ("loss_sum", "baseline_sum")},
    },
    "jobs": {
        "tries_left": ("tries_left BETWEEN -100 AND 100", "0"),
        "flow_run_id": ("flow_run_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'", "NULL"),
    },
    "runs": {"receipt": ("jsonb_typeof(receipt) = 'object'", "'{}'")},
}
"""Condition, and what is put in the place of what does not fulfil it."""

# Bills call these stages what is charged to nobody, or what they work out themselves.
WORK = "stage NOT IN ('waste', 'overhead', 'plan', 'start', 'running', 'storage')"

BOOKING = """
CREATE OR REPLACE FUNCTION books_truly() RETURNS trigger LANGUAGE plpgsql AS $$
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
                IF OLD.ended = 'done' THEN
                    NEW.ended := 'done';
                END IF;
            END IF;
        END IF;
    END IF;
    RETURN NEW;
END $$;
"""


RUN = (
    "tenant, key, use_case, stage, status, upload_id, dataset_version, release_version, attempts, planned_at,"
    " started_at, finished_at, receipt, error"
)


def upgrade() -> None:
    op.execute(BOOKING)
    # All but its number: one sequence numbers all tenants' runs, and goes on above the greatest when a tenant moves.
    op.execute(f"REVOKE INSERT ON runs FROM orchard_tenants; GRANT INSERT ({RUN}) ON runs TO orchard_tenants")
    # Orchard never wrote what is outside of these; what somebody else wrote must not keep the platform from starting.
    for table, bounds in BOUNDS.items():
        fine = " AND ".join(f"{name} BETWEEN 0 AND {most}" for name, most in bounds.items())
        wanted = f"{fine} AND {WORK}" if table == "usage" else fine
        op.execute(f"DELETE FROM {table} WHERE NOT ({wanted})")  # noqa: S608
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_bounds_check CHECK ({wanted})")
    for table, columns in TIMES.items():
        for name in columns:
            fine = f"{name} BETWEEN '2000-01-01 00:00+00' AND '2200-01-01 00:00+00'"
            _check(table, name, fine, "now()")
    for table, conditions in OTHERS.items():
        for name, (fine, instead) in conditions.items():
            _check(table, name, fine, instead)


def _check(table: str, name: str, fine: str, instead: str) -> None:
    op.execute(f"UPDATE {table} SET {name} = {instead} WHERE NOT ({fine})")  # noqa: S608
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_{name}_sane CHECK ({fine})")


def downgrade() -> None:
    op.execute("GRANT INSERT ON runs TO orchard_tenants")
    for table in BOUNDS:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_bounds_check")
    for table, names in (*TIMES.items(), *OTHERS.items()):
        for name in names:
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{name}_sane")
