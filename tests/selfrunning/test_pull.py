"""A tenant's own database, pulled on a schedule: its new rows become uploads by themselves."""

from __future__ import annotations

import pytest
from prefect.blocks.system import Secret
from sqlalchemy import text

from infra.database.connect import session
from tasks.domain.run import UploadStatus
from tasks.domain.tenant import Tenant, Tier
from tasks.domain.use_case import UseCase
from tests.benchmarks.platform.running import FEATURES, small_use_case, until
from tests.selfrunning.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_new_rows_are_fetched_on_schedule(site: Site) -> None:
    url = site.running.platform.cluster.operator_url
    values = ", ".join(f"random() AS x{number}" for number in range(FEATURES))
    with session(url) as connection:
        connection.execute(text("CREATE SCHEMA shop"))
        connection.execute(
            text(
                f"CREATE TABLE shop.sales AS SELECT n % 50 AS shop, n AS step, {values}, random() AS y"
                " FROM generate_series(1, 5000) AS n"
            )
        )
    Secret(value=url).save("puller-warehouse")  # type: ignore[unused-coroutine]
    pull = {
        "secret": "warehouse",
        "query": "SELECT * FROM shop.sales WHERE step > :watermark",
        "watermark": "step",
        "start": 0,
        "schedule": "* * * * *",
    }
    spec = small_use_case().model_dump(mode="json", by_alias=True) | {"pull": pull}
    tenant = Tenant(id="puller", name="p", tier=Tier.PREMIUM, use_cases=(UseCase.model_validate(spec),))
    site.running.onboard(tenant)
    space = site.running.platform.open_space("puller")
    until(lambda: [u.status for u in space.records.uploads()] == [UploadStatus.DONE], 180)
    [upload] = space.records.uploads()
    assert (upload.rows_accepted, upload.filename) == (5_000, "demand-pull.parquet")
    assert space.records.pull_progress("demand").watermark == 5_000

    with session(url) as connection:  # rows without a shop are refused, and so is a file of nothing else
        connection.execute(
            text(f"INSERT INTO shop.sales SELECT NULL, n, {values}, 1 FROM generate_series(5001, 5100) n")
        )
    until(lambda: [u.status for u in space.records.uploads()] == [UploadStatus.DONE, UploadStatus.REJECTED], 180)
    with session(url) as connection:  # mended where they come from: the next pull has them
        connection.execute(text("UPDATE shop.sales SET shop = 7 WHERE shop IS NULL"))
    until(lambda: [u.status for u in space.records.uploads()][2:] == [UploadStatus.DONE], 180)
    assert space.records.uploads()[2].rows_accepted == 100
    assert space.records.pull_progress("demand").watermark == 5_100
