"""What happens by itself: cron expressions, and rows that are fetched from a tenant's own database."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from tasks.domain.contract import Frozen
from tasks.domain.names import ColumnName, Purpose, SecretName


def _is_cron(expression: str) -> str:
    from cronsim import CronSim, CronSimError

    if len(expression.split()) > 5:
        raise ValueError("a cron expression has five fields: minute hour day month weekday")
    try:
        CronSim(expression, datetime(2026, 1, 1))
    except CronSimError as error:
        raise ValueError(f"not a cron expression (minute hour day month weekday): {error}") from None
    return expression


Schedule = Annotated[str, AfterValidator(_is_cron)]
"""A cron expression, in UTC."""


class Pull(Frozen):
    """Rows that Orchard fetches from the tenant's own database by itself; each fetch that finds any is an upload.

    Attributes:
        secret: the Prefect Secret block `{tenant}-{secret}` holds the database's SQLAlchemy URL.
        query: a SELECT with the parameter `:watermark`, such as `... WHERE changed_at >= :watermark`: with `>`, rows
            of the greatest value that come later are never fetched; with `>=`, the same rows again are the same upload.
        watermark: column of its result; its greatest value is where the next fetch begins.
        start: where the first one begins.
    """

    secret: SecretName
    query: str = Field(max_length=20_000)
    watermark: ColumnName
    start: int | date | datetime | str
    purpose: Purpose = Purpose.HISTORY
    schedule: Schedule

    @model_validator(mode="after")
    def _asks_for_what_is_new(self) -> Pull:
        if ":watermark" not in self.query:
            raise ValueError(
                "the query of a pull needs the parameter :watermark, or it would fetch all rows every time"
            )
        return self
