"""Canaries: what the operator plants at a tenant so that there is something to steal, and takes away afterwards.

Where a tenant has rows or files of its own, those are the prey; a row is planted only in a table where it has none.
Every canary carries a marker that no other one has, so that what leaks is recognised wherever it turns up; the marker
holds its time, so that what a killed proof has left is removed by the next one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from infra.database.connect import transact
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from tasks.domain.use_case import UseCase

CANARY = "isolation-canary"
CANARY_USE_CASE = UseCase.model_validate(
    {
        "id": CANARY,
        "kind": "regression",
        "contract": {
            "columns": {"key": {"type": "string"}, "x": {"type": "number"}, "y": {"type": "number"}},
            "row_key": ["key"],
        },
        "partition_by": ["key"],
        "target": "y",
        "features": {"numeric": ["x"]},
    }
)
"""A use case for planted tables and models. No tenant's definition has it."""

STALE_S = 3600
"""A canary of that age is nobody's any more."""


def _marker() -> str:
    return f"{CANARY}-{int(time.time())}-{secrets.token_hex(6)}"


@dataclass(frozen=True)
class Canary:
    """What one proof plants at one tenant.

    Attributes:
        marker: stands in every planted text.
        token: an upload id that names the planted upload.
    """

    tenant: str
    use_case: str
    marker: str = field(default_factory=_marker)
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def path(self) -> str:
        """The planted file, in each of the tenant's folders."""
        return f"{CANARY}/{self.marker}.txt"

    @property
    def content(self) -> bytes:
        """What the planted file holds."""
        return f"{self.marker} of {self.tenant}\n".encode()


MISSING = "SELECT NOT EXISTS (SELECT FROM {table} WHERE tenant = :tenant)"

ROOTS = {
    "uploads": """
        INSERT INTO uploads (tenant, upload_id, use_case, purpose, seq, filename, size_bytes, content_sha256, status)
        VALUES (:tenant, :token, :use_case, 'history', :number, :marker, 0, :token, 'rejected')
    """,
    "runs": """
        INSERT INTO runs (tenant, key, use_case, stage, status, upload_id, finished_at)
        VALUES (:tenant, :marker, :use_case, 'monitoring', 'finished', :token, now())
    """,
    "batches": """
        INSERT INTO batches (tenant, run_id, number, bucket, partitions, rows, finished_at)
        VALUES (:tenant, (SELECT run_id FROM runs WHERE tenant = :tenant AND key = :marker), 1, 0, '{}', 0, now())
    """,
    "releases": """
        INSERT INTO releases (tenant, use_case, version, training_run, dataset_version, upload_seq, status, source,
                              digest, partitions, promoted, held)
        VALUES (:tenant, :use_case, :number, 0, 0, 0, 'retired', 'none', :marker, 0, 0, 0)
    """,
}
"""What others hang on, in that order: planted together, when any of them or of the others is wanted."""

OTHERS = {
    "partition_models": """
        INSERT INTO partition_models (tenant, run_id, partition, batch, outcome, rows)
        SELECT tenant, run_id, :marker, 1, 'rejected', 0 FROM runs WHERE tenant = :tenant AND key = :marker
    """,
    "scoring_runs": """
        INSERT INTO scoring_runs (tenant, run_id, use_case, upload_id, release_version)
        SELECT tenant, run_id, use_case, upload_id, 0 FROM runs WHERE tenant = :tenant AND key = :marker
    """,
    "predictions": """
        INSERT INTO predictions (tenant, run_id, batch, partition, row_key, prediction, answer, fallback)
        SELECT tenant, run_id, 1, :marker, :marker, 0, 'naive', true FROM runs WHERE tenant = :tenant AND key = :marker
    """,
    "scored_partitions": """
        INSERT INTO scored_partitions (tenant, run_id, batch, partition, answer, fallback, rows)
        SELECT tenant, run_id, 1, :marker, 'naive', true, 0 FROM runs WHERE tenant = :tenant AND key = :marker
    """,
    "verdicts": """
        INSERT INTO verdicts (tenant, use_case, version, partition, verdict)
        VALUES (:tenant, :use_case, :number, :marker, 'hold')
    """,
    "health": """
        INSERT INTO health (tenant, run_id, partition, rows, metric, loss_sum, baseline_sum, own_rows)
        SELECT tenant, run_id, :marker, 1, 'rmse', 0, 0, 0 FROM runs WHERE tenant = :tenant AND key = :marker
    """,
    "usage": """
        INSERT INTO usage (tenant, unit, use_case, stage, process, tier, cpu_s, wall_s)
        SELECT tenant, :marker, :use_case, 'monitoring', :marker, tier, 0, 0 FROM tenants WHERE tenant = :tenant
    """,
    "processes": """
        INSERT INTO processes (tenant, process, use_case, tier, ended)
        SELECT tenant, :marker, :use_case, tier, 'done' FROM tenants WHERE tenant = :tenant
    """,
}
SHARED = {
    "jobs": """
        INSERT INTO jobs (tenant, use_case, kind, status, requested_by)
        VALUES (:tenant, :use_case, 'refresh', 'failed', :marker)
    """,
    "schedules": "INSERT INTO schedules (tenant, use_case, kind) VALUES (:tenant, :use_case, :marker)",
    "stored": """
        INSERT INTO stored (tenant, use_case, place, at, bytes) VALUES (:tenant, :marker, 'database', now(), 0)
    """,
    "budgets": """
        INSERT INTO budgets (tenant, use_case, period, hard, soft, currency)
        VALUES (:tenant, :marker, 'run', 1, 1, 'EUR')
    """,
    "budget_alerts": """
        INSERT INTO budget_alerts (tenant, use_case, period, about, level)
        SELECT tenant, use_case, period, :marker, 'soft' FROM budgets WHERE tenant = :tenant LIMIT 1
    """,
    "budget_shares": """
        INSERT INTO budget_shares (tenant, month, stop_at, currency) VALUES (:tenant, :marker, 0, 'EUR')
    """,
}
"""What a silo, too, has in the database that all share."""

_STALE = "(starts_with({0}, 'isolation-canary-') AND ({0} = :marker OR split_part({0}, '-', 3)::bigint < :before))"
_RUNS = f"SELECT run_id FROM runs WHERE tenant = :tenant AND {_STALE.format('key')}"  # noqa: S608  # names of ours

REMOVALS = (
    f"DELETE FROM predictions WHERE tenant = :tenant AND run_id IN ({_RUNS})",  # noqa: S608
    *(
        f"DELETE FROM {table} WHERE tenant = :tenant AND {_STALE.format(column)}"  # noqa: S608
        for table, column in (
            ("releases", "digest"),
            ("runs", "key"),
            ("uploads", "filename"),
            ("jobs", "requested_by"),
            ("schedules", "kind"),
            ("usage", "unit"),
            ("processes", "process"),
            ("stored", "use_case"),
            ("budget_alerts", "about"),
            ("budgets", "use_case"),
            ("budget_shares", "month"),
        )
    ),
)


def plant_rows(url: str, canary: Canary, shared_url: str) -> None:
    """Sees that the tenant has a row in every table; `url` is the operator's, in the database of its data."""
    values = {
        "tenant": canary.tenant,
        "use_case": canary.use_case,
        "marker": canary.marker,
        "token": canary.token,
        "number": -time.time_ns(),  # no upload and no release of its own has such a number
    }

    def missing(connection: Connection, tables: Iterable[str]) -> list[str]:
        own = {"tenant": canary.tenant}
        return [table for table in tables if connection.scalar(text(MISSING.format(table=table)), own)]

    def plant(connection: Connection) -> None:
        wanted = missing(connection, OTHERS)
        if wanted or missing(connection, ROOTS):
            for statement in (*ROOTS.values(), *(OTHERS[table] for table in wanted)):
                connection.execute(text(statement), values)

    def plant_shared(connection: Connection) -> None:
        for table in missing(connection, SHARED):
            connection.execute(text(SHARED[table]), values)

    transact(url, plant)
    transact(shared_url, plant_shared)


def remove_rows(urls: Iterable[str], canary: Canary) -> None:
    """Removes what was planted, and what earlier proofs have left."""
    values = {"tenant": canary.tenant, "marker": canary.marker, "before": int(time.time()) - STALE_S}

    def remove(connection: Connection) -> None:
        for statement in REMOVALS:
            connection.execute(text(statement), values)

    for url in urls:
        transact(url, remove)


def plant_files(places: Iterable[Location], canary: Canary) -> None:
    """Puts the file into each of the tenant's folders."""
    for place in places:
        LakeFiles(place).write(canary.path, canary.content)


def remove_files(places: Iterable[Location], canary: Canary) -> None:
    """Removes what was planted, and what earlier proofs have left."""
    for place in places:
        files = LakeFiles(place)
        for path in files.list(CANARY) if files.exists(CANARY) else []:
            if path.startswith(f"{CANARY}/{canary.marker}") or _is_stale(path):
                files.delete(path)
        if files.exists(CANARY) and not files.list(CANARY):
            files.delete(CANARY)


def _is_stale(path: str) -> bool:
    age = path.removeprefix(f"{CANARY}/{CANARY}-").partition("-")[0]
    return age.isdecimal() and int(age) < time.time() - STALE_S
