"""What a tenant reads of its models: what serves, verdicts and live error, the last two in pages."""

from __future__ import annotations

import pyarrow as pa
from psycopg import sql
from sqlalchemy import select

from infra.database.arrow import UTC, read_table
from infra.database.connect import driver
from infra.database.models import RELEASES, ModelRecords
from tasks.domain.errors import NotFound
from tasks.domain.run import Release

VERDICTS = pa.schema(
    [
        ("partition", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("answer", pa.string()),
        ("fallback", pa.bool_()),
        ("estimator", pa.string()),
        ("source_run", pa.int64()),
        ("metric", pa.float64()),
        ("naive_metric", pa.float64()),
    ]
)
"""`VERDICT` as Arrow."""

HEALTH = pa.schema(
    [
        ("partition", pa.string()),
        ("metric", pa.string()),
        ("rows", pa.int64()),
        ("own_rows", pa.int64()),
        ("error", pa.float64()),
        ("baseline_error", pa.float64()),
        ("skill", pa.float64()),
        ("last_run_at", UTC),
    ]
)
"""What the view `model_health` says of a use case."""


class PageRecords(ModelRecords):
    """What serves, why, and how good it is."""

    def champions(self) -> dict[str, int]:
        """The version of the release that serves, by use case."""
        serving = self._own(RELEASES) & (RELEASES.c.status == "champion")
        query = select(RELEASES.c.use_case, RELEASES.c.version).where(serving)
        return self._transact(lambda connection: {row.use_case: row.version for row in connection.execute(query)})

    def release(self, use_case: str, version: int) -> Release:
        """Raises `NotFound`."""
        found = self.releases(use_case, below=version + 1, limit=1)
        if not found or found[0].version != version:
            raise NotFound(
                f"{use_case!r} has no release {version}", hint=f"orchard releases list {self.tenant} {use_case}"
            )
        return found[0]

    def verdicts_after(
        self, use_case: str, version: int, partition: str | None, limit: int, verdict: str | None = None
    ) -> pa.Table:
        """Rows of `VERDICTS` of a release, by partition, from the one after that on; at most so many."""
        query = sql.SQL(
            "SELECT {columns} FROM verdicts WHERE tenant = %s AND use_case = %s AND version = %s"
            ' AND (%s::text IS NULL OR verdict = %s) AND (%s::text IS NULL OR partition COLLATE "C" > %s)'
            ' ORDER BY partition COLLATE "C" LIMIT %s'
        ).format(columns=sql.SQL(", ").join(map(sql.Identifier, VERDICTS.names)))
        values = (self.tenant, use_case, version, verdict, verdict, partition, partition, limit)
        return self._transact(lambda connection: read_table(driver(connection), query, values, VERDICTS))

    def health_after(self, use_case: str, place: tuple[str, str] | None, limit: int) -> pa.Table:
        """Rows of `HEALTH`, by partition and metric, from the ones after those on; at most so many."""
        partition, metric = place or (None, None)
        query = sql.SQL(
            "SELECT {columns} FROM model_health WHERE tenant = %s AND use_case = %s"
            ' AND (%s::text IS NULL OR (partition COLLATE "C", metric COLLATE "C") > (%s, %s))'
            ' ORDER BY partition COLLATE "C", metric COLLATE "C" LIMIT %s'
        ).format(columns=sql.SQL(", ").join(map(sql.Identifier, HEALTH.names)))
        values = (self.tenant, use_case, partition, partition, metric, limit)
        return self._transact(lambda connection: read_table(driver(connection), query, values, HEALTH))
