"""What units of finished work used, booked in the transaction that stores their outcome: never lost, never doubled."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from sqlalchemy import ColumnElement, Connection, Select, String, cast, func, literal, select
from sqlalchemy.dialects import postgresql

from infra.database.tables import BatchRow, PartitionModelRow, RunRow, TenantRow, UploadRow, table
from infra.database.usage_tables import UsageRow
from infra.metering import Spent, peak_mb, shift
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Run

USAGE, RUNS, BATCHES, TENANTS = table(UsageRow), table(RunRow), table(BatchRow), table(TenantRow)
UPLOADS, MODELS = table(UploadRow), table(PartitionModelRow)


def book_batch(connection: Connection, tenant: str, stage: Stage, batch: Batch, *, again: bool, **counts: int) -> None:
    """Books what this thread used since the batch's start. `counts`: rows, bytes and models, as columns of `usage`.
    `again`: the batch was finished before, so it is booked already; unless somebody with the tenant's login said so."""
    attempts = (
        select(BATCHES.c.attempts)
        .where(BATCHES.c.tenant == tenant, BATCHES.c.run_id == batch.run_id, BATCHES.c.number == batch.number)
        .scalar_subquery()
    )
    unit = func.concat(f"run/{batch.run_id}/batch/{batch.number}/", cast(attempts, String))
    spent = shift().batch(batch.run_id)
    facts = {"batch": batch.number, **counts}
    if again and connection.scalar(select(_same(tenant, stage=stage.value, run_id=batch.run_id, **facts).exists())):
        return
    _book(connection, tenant, stage, batch.run_id, unit, spent, facts)


def book_rest(connection: Connection, tenant: str, run: Run, receipt: dict[str, object]) -> None:
    """Books what this process used for the run beside its batches."""
    counts: dict[str, object] = {}
    if run.stage is Stage.INGESTION:
        size = select(UPLOADS.c.size_bytes).where(UPLOADS.c.tenant == tenant, UPLOADS.c.upload_id == run.upload_id)
        counts = {
            "rows_in": receipt.get("read", 0),
            "rows_out": receipt.get("accepted", 0),
            "bytes_in": connection.scalar(size) or 0,
        }
    elif run.stage is Stage.TRAINING:
        settled = select(func.count()).where(
            MODELS.c.tenant == tenant,
            MODELS.c.run_id == run.run_id,
            MODELS.c.batch == 0,
            MODELS.c.outcome == "reused",
        )
        counts = {"models_reused": connection.scalar(settled) or 0}
    unit = literal(f"run/{run.run_id}/rest/{run.attempts}")
    _book(connection, tenant, run.stage, run.run_id, unit, shift().rest_of_run(run.run_id), counts)


def _book(
    connection: Connection,
    tenant: str,
    stage: Stage,
    run_id: int,
    unit: object,
    spent: Spent,
    counts: Mapping[str, object],
) -> None:
    # The stage is what this process did, and not what somebody with the tenant's login may have written to the run.
    facts = {"process": shift().name, "stage": stage.value, **counts}
    values = {"cpu_s": spent.cpu_s, "wall_s": spent.wall_s, "peak_mb": peak_mb(), **facts}
    known = [RUNS.c.tenant, RUNS.c.run_id, RUNS.c.use_case, RUNS.c.release_version, TENANTS.c.tier]
    columns = [literal(value) if isinstance(value, str | int | float) else value for value in values.values()]
    names = [*(column.name for column in known), *values, "unit"]

    def book(name: object, *conditions: ColumnElement[bool]) -> int:
        found = (
            select(*known, *columns, name)  # type: ignore[call-overload]  # columns of all kinds
            .join(TENANTS, TENANTS.c.tenant == RUNS.c.tenant)
            .where(RUNS.c.tenant == tenant, RUNS.c.run_id == run_id, *conditions)
        )
        booked = postgresql.insert(USAGE).from_select(names, found).on_conflict_do_nothing()
        return connection.execute(booked.execution_options(preserve_rowcount=True)).rowcount

    if not book(unit):
        # It is booked already, where the database had taken it and could not say so; or somebody with the tenant's
        # login has taken the unit's name beforehand, which must not hide it: nobody guesses the other name, and a row
        # that says the same of the work hides nothing.
        named = (USAGE.c.unit == unit) | func.starts_with(USAGE.c.unit, func.concat(unit, "/"))
        book(func.concat(unit, "/", uuid.uuid4().hex), ~_same(tenant, **facts).where(named).exists())


def _same(tenant: str, **facts: object) -> Select[tuple[str]]:
    """What is booked of a tenant and says this."""
    same = [USAGE.c[name] == value for name, value in facts.items()]
    return select(USAGE.c.unit).where(USAGE.c.tenant == tenant, *same)
