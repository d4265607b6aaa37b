"""Answers that batch scoring has stored already, looked up by row key.

The lookup may cost no more than a prediction is worth: it has a deadline, and once the database has not kept it,
nobody asks for that tenant for a while (a circuit breaker; Nygard 2007).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from deployments.serving.breaker import Breaker
from deployments.serving.releases import Serving
from infra.database.connect import transact
from infra.database.deadline import within
from infra.database.tables import predictions_of
from tasks.domain.errors import OrchardError

DEADLINE_MS = 100
PATIENCE_S = 0.3
"""After so long a database that does not even keep its own deadline is given up."""

OPEN_S = 5.0
"""After a lookup that failed or came too late, so long there are no others of its tenant."""


class Precomputed:
    """Lookups of this process."""

    def __init__(self, breaker: Breaker | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`breaker`: of those who keep up with what serves; while it is open, there are no lookups at all."""
        self._breaker, self._clock = breaker or Breaker(), clock
        self._until: dict[str, float] = {}

    def find(self, serving: Serving, row_keys: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Stored answers of the release that serves, by the row's place; none while the database does not answer."""
        tenant = serving.space.tenant.id
        if self._breaker.is_open() or self._clock() < self._until.get(tenant, 0.0):
            return {}
        records, keys = serving.space.records, list(row_keys)
        try:
            with within(PATIENCE_S):
                found = transact(records.url, lambda c: _stored(c, serving, keys), patient=False)
        except (OrchardError, DBAPIError):
            self._until[tenant] = self._clock() + OPEN_S
            return {}
        return {number: found[key] for number, key in enumerate(keys) if key in found}


def _stored(connection: Connection, serving: Serving, row_keys: list[str]) -> dict[str, dict[str, Any]]:
    connection.execute(text(f"SET LOCAL statement_timeout = {DEADLINE_MS}"))
    # By the tenant's own partition, whose hash index on the row key onboarding has made.
    query = text(
        f"""
        SELECT p.row_key, p.partition, p.prediction, p.label, p.probabilities, p.answer, p.fallback, p.model_run,
               s.published_at
        FROM "{predictions_of(serving.space.tenant.id)}" AS p
        JOIN scoring_runs AS s ON s.tenant = :tenant AND s.run_id = p.run_id
        WHERE p.row_key = ANY (:row_keys) AND NOT s.superseded AND s.use_case = :use_case
          AND s.release_version = :release AND s.published_at > now() - make_interval(secs => :age)
        ORDER BY s.published_at
        """  # noqa: S608  # the id of a tenant is letters, digits and hyphens
    )
    values = {
        "tenant": serving.space.tenant.id,
        "row_keys": row_keys,
        "use_case": serving.use_case.id,
        "release": serving.version,
        "age": serving.use_case.online.precomputed_s,
    }
    return {row["row_key"]: _answer(serving, dict(row)) for row in connection.execute(query, values).mappings()}


def _answer(serving: Serving, row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"partition": row["partition"]}
    if classes := serving.scorer.classes:
        found["label"] = row["label"]
        found["probabilities"] = dict(zip(classes, row["probabilities"], strict=True))
    else:
        found["prediction"] = row["prediction"]
    found |= {name: row[name] for name in ("answer", "fallback", "model_run")}
    return found | {"source": "precomputed", "scored_at": row["published_at"].isoformat()}
