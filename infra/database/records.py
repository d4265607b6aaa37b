"""All records of one tenant."""

from __future__ import annotations

from infra.database.jobs import JobRecords
from infra.database.pages import PageRecords
from infra.database.predictions import PredictionRecords
from infra.database.processes import ProcessRecords
from infra.database.pulls import PullRecords
from infra.database.retention import RetentionRecords
from infra.database.scores import ScoreRecords
from infra.database.spending import BudgetRecords
from infra.database.uploads import UploadRecords


class PostgresRecords(
    UploadRecords,
    JobRecords,
    PullRecords,
    PageRecords,
    ScoreRecords,
    PredictionRecords,
    RetentionRecords,
    ProcessRecords,
    BudgetRecords,
):
    """Implements `tasks.ports.Records` for one tenant, with that tenant's own login.

    Holds a URL and the tenant's id, pickles, and connects on first use through a pool that the process shares. Every
    method is one transaction, tried again for about ten seconds while the database is away.
    """
