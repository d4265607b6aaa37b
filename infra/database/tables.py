"""The tables, as SQLModel classes. They only store: what comes in was validated by `tasks.domain`.

Every table is the tenants': `tenant` comes first in every key, and the row-level policies compare it with the login.
The migrations are what creates them; a test holds both to each other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

NOW = text("now()")


def key_column(kind: type = Text, **options: Any) -> Any:
    return Field(primary_key=True, sa_type=kind, **options)


def text_column() -> Any:
    return Field(sa_type=Text)


def time_column(default: bool = False) -> Any:
    kind = DateTime(timezone=True)
    return Field(sa_type=cast(Any, kind), sa_column_kwargs={"server_default": NOW} if default else {})


def belongs_to(table: str, *columns: str) -> ForeignKeyConstraint:
    theirs = [f"{table}.{'number' if column == 'batch' else column}" for column in columns]
    return ForeignKeyConstraint(columns, theirs, ondelete="CASCADE")


class TenantRow(SQLModel, table=True):
    """One row per tenant."""

    __tablename__ = "tenants"

    tenant: str = key_column()
    name: str = text_column()
    tier: str = text_column()
    created_at: datetime = time_column(default=True)
    updated_at: datetime = time_column(default=True)
    last_turn_at: datetime | None = time_column()
    isolation: str = Field(sa_type=Text, sa_column_kwargs={"server_default": text("'pool'")})
    state: str = Field(sa_type=Text, sa_column_kwargs={"server_default": text("'active'")})


class UseCaseRow(SQLModel, table=True):
    """One row per use case. `spec` is JSON and not JSONB, which would lose the order of columns and features."""

    __tablename__ = "use_cases"
    __table_args__ = (belongs_to("tenants", "tenant"),)

    tenant: str = key_column()
    use_case: str = key_column()
    position: int
    spec: dict[str, Any] = Field(sa_type=JSON)
    active: bool
    last_seq: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": text("0")})


class UploadRow(SQLModel, table=True):
    """One row per upload; `seq` counts from 1 within its use case."""

    __tablename__ = "uploads"
    __table_args__ = (
        belongs_to("use_cases", "tenant", "use_case"),
        UniqueConstraint("tenant", "use_case", "seq"),
    )

    tenant: str = key_column()
    upload_id: str = key_column()
    use_case: str = text_column()
    purpose: str = text_column()
    seq: int = Field(sa_type=BigInteger)
    filename: str = text_column()
    size_bytes: int = Field(sa_type=BigInteger)
    content_sha256: str = text_column()
    status: str = text_column()
    received_at: datetime = time_column(default=True)
    dataset_version: int | None = Field(sa_type=BigInteger)
    rows_read: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": text("0")})
    rows_accepted: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": text("0")})
    rows_quarantined: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": text("0")})
    rows_duplicate: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": text("0")})
    error: str | None = text_column()
    report: str | None = text_column()


class RunRow(SQLModel, table=True):
    """One row per run, whatever the number of its attempts; `key` makes it idempotent."""

    __tablename__ = "runs"
    __table_args__ = (
        belongs_to("use_cases", "tenant", "use_case"),
        belongs_to("uploads", "tenant", "upload_id"),
        UniqueConstraint("tenant", "key"),
        Index("runs_of_use_case", "tenant", "use_case", "stage", "run_id"),
    )

    tenant: str = key_column()
    run_id: int = Field(
        sa_column=Column("run_id", BigInteger, Identity(always=True), primary_key=True),
    )
    key: str = text_column()
    use_case: str = text_column()
    stage: str = text_column()
    status: str = text_column()
    upload_id: str | None = text_column()
    dataset_version: int | None = Field(sa_type=BigInteger)
    release_version: int | None = Field(sa_type=BigInteger)
    attempts: int = Field(sa_column_kwargs={"server_default": text("1")})
    planned_at: datetime | None = time_column()
    started_at: datetime = time_column(default=True)
    finished_at: datetime | None = time_column()
    receipt: dict[str, Any] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": text("'{}'")})
    error: str | None = text_column()


class BatchRow(SQLModel, table=True):
    """One row per batch of a run; `finished_at` is null until its results are stored."""

    __tablename__ = "batches"
    __table_args__ = (belongs_to("runs", "tenant", "run_id"),)

    tenant: str = key_column()
    run_id: int = key_column(BigInteger)
    number: int = key_column(Integer)
    bucket: int
    partitions: list[str] = Field(sa_type=cast(Any, ARRAY(Text)))
    rows: int = Field(sa_type=BigInteger)
    attempts: int = Field(sa_column_kwargs={"server_default": text("0")})
    finished_at: datetime | None = time_column()


class PartitionModelRow(SQLModel, table=True):
    """One row per partition of a training run: the columns of `PARTITION_MODEL`."""

    __tablename__ = "partition_models"
    __table_args__ = (
        belongs_to("runs", "tenant", "run_id"),
        Index("partition_models_by_partition", "tenant", "partition", "run_id"),
    )

    tenant: str = key_column()
    run_id: int = key_column(BigInteger)
    partition: str = key_column()
    batch: int
    outcome: str = text_column()
    estimator: str | None = text_column()
    rows: int = Field(sa_type=BigInteger)
    data_hash: str | None = text_column()
    metric: float | None = Field(sa_type=Double)
    naive_metric: float | None = Field(sa_type=Double)
    holdout_rows: int | None = Field(sa_type=BigInteger)
    holdout_sum: float | None = Field(sa_type=Double)
    naive_sum: float | None = Field(sa_type=Double)
    new_rows: int | None = Field(sa_type=BigInteger)
    new_metric: float | None = Field(sa_type=Double)
    new_champion_metric: float | None = Field(sa_type=Double)
    seconds: float | None = Field(sa_type=Double)
    reason: str | None = text_column()
    source_run: int | None = Field(sa_type=BigInteger)
    tenant_wide_metric: float | None = Field(sa_type=Double)
    model_bytes: int | None = Field(sa_type=BigInteger)


class ScoringRunRow(SQLModel, table=True):
    """One row per published scoring run. A later run of the same upload supersedes it."""

    __tablename__ = "scoring_runs"
    __table_args__ = (belongs_to("runs", "tenant", "run_id"),)

    tenant: str = key_column()
    run_id: int = key_column(BigInteger)
    use_case: str = text_column()
    upload_id: str | None = text_column()
    release_version: int = Field(sa_type=BigInteger)
    published_at: datetime = time_column(default=True)
    superseded: bool = Field(sa_column_kwargs={"server_default": text("false")})


class ScoredPartitionRow(SQLModel, table=True):
    """One row per (partition, answer, fallback) of a finished scoring batch: receipts need not count predictions."""

    __tablename__ = "scored_partitions"
    __table_args__ = (belongs_to("batches", "tenant", "run_id", "batch"),)

    tenant: str = key_column()
    run_id: int = key_column(BigInteger)
    partition: str = key_column()
    answer: str = key_column()
    fallback: bool = key_column(Boolean)
    batch: int = key_column(Integer)
    rows: int = Field(sa_type=BigInteger)


class PredictionRow(SQLModel, table=True):
    """One row per scored row and run: the columns of `PREDICTION`.

    Partitioned by tenant, and without a key or an index that every loaded row would have to pay for: batches make
    rows unique, and a block range index finds those of a run, which lie side by side.
    """

    __tablename__ = "predictions"
    __table_args__ = (
        Index("predictions_of_run", "run_id", "batch", postgresql_using="brin"),
        {"postgresql_partition_by": "LIST (tenant)"},
    )
    # The mapper needs a key, which the table itself has not.
    __mapper_args__ = {"primary_key": ["tenant", "run_id", "partition", "row_key"]}

    tenant: str = Field(sa_type=Text)
    run_id: int = Field(sa_type=BigInteger)
    batch: int = Field(sa_type=Integer)
    partition: str = text_column()
    row_key: str = text_column()
    prediction: float | None = Field(sa_type=Double)
    label: str | None = text_column()
    probabilities: list[float] | None = Field(sa_type=cast(Any, ARRAY(Double)))
    baseline: list[float] | None = Field(sa_type=cast(Any, ARRAY(Double)))
    answer: str = text_column()
    fallback: bool = Field(sa_type=Boolean)
    model_run: int | None = Field(sa_type=BigInteger)


class ReleaseRow(SQLModel, table=True):
    """One row per release; at most one per use case is the champion."""

    __tablename__ = "releases"
    __table_args__ = (
        belongs_to("use_cases", "tenant", "use_case"),
        Index("one_champion", "tenant", "use_case", unique=True, postgresql_where=text("status = 'champion'")),
    )

    tenant: str = key_column()
    use_case: str = key_column()
    version: int = key_column(BigInteger)
    training_run: int = Field(sa_type=BigInteger)
    dataset_version: int = Field(sa_type=BigInteger)
    upload_seq: int = Field(sa_type=BigInteger)
    status: str = text_column()
    source: str = text_column()
    digest: str = text_column()
    partitions: int
    promoted: int
    held: int
    created_at: datetime = time_column(default=True)


class VerdictRow(SQLModel, table=True):
    """One row per partition of a release: the columns of `VERDICT`."""

    __tablename__ = "verdicts"
    __table_args__ = (belongs_to("releases", "tenant", "use_case", "version"),)

    tenant: str = key_column()
    use_case: str = key_column()
    version: int = key_column(BigInteger)
    partition: str = key_column()
    verdict: str = text_column()
    reason: str | None = text_column()
    answer: str | None = text_column()
    fallback: bool | None = Field(sa_type=Boolean)
    estimator: str | None = text_column()
    source_run: int | None = Field(sa_type=BigInteger)
    metric: float | None = Field(sa_type=Double)
    naive_metric: float | None = Field(sa_type=Double)


class HealthRow(SQLModel, table=True):
    """One row per partition of a monitoring run: the columns of `HEALTH`."""

    __tablename__ = "health"
    __table_args__ = (belongs_to("runs", "tenant", "run_id"),)

    tenant: str = key_column()
    run_id: int = key_column(BigInteger)
    partition: str = key_column()
    rows: int = Field(sa_type=BigInteger)
    metric: str = text_column()
    loss_sum: float = Field(sa_type=Double)
    baseline_sum: float = Field(sa_type=Double)
    own_rows: int = Field(sa_type=BigInteger)


metadata = SQLModel.metadata


def table(row: type[SQLModel]) -> Table:
    """The table behind a class."""
    return cast(Table, vars(row)["__table__"])


def predictions_of(tenant: str) -> str:
    """Name of a tenant's own partition of the predictions."""
    return f"predictions_{tenant}"
