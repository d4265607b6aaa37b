"""Monitoring's Prefect tasks."""

from __future__ import annotations

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.domain.names import Stage
from tasks.domain.run import RunStatus, run_key
from tasks.monitoring.health import live_error
from tasks.ports import HEALTH, Space


@task(cache_policy=NO_CACHE, persist_result=False)
def measure_health(space: Space, use_case_id: str, upload_id: str) -> int:
    """Live error per partition over the rows whose actuals this upload brought, a bucket at a time."""
    use_case, records = space.tenant.use_case(use_case_id), space.records
    upload = records.upload(upload_id)
    assert upload.dataset_version is not None
    run = records.open_run(
        Stage.MONITORING,
        use_case_id,
        run_key(Stage.MONITORING, use_case_id, upload_id),
        upload_id=upload_id,
        dataset_version=upload.dataset_version,
    )
    if run.status is RunStatus.FINISHED:
        return run.run_id
    table, predictions = space.table(use_case), space.predictions(use_case)
    partitions = table.partitions(upload.dataset_version)
    touched = partitions[partitions["last_labelled"] >= upload.seq]
    health = [pd.DataFrame(columns=list(HEALTH))]
    for bucket in sorted(set(touched["bucket"].tolist())):
        names = touched.loc[touched["bucket"] == bucket, "partition"].tolist()
        rows = table.read(upload.dataset_version, bucket, names, labelled=True)
        rows = rows[rows["_labelled"] == upload.seq]
        health.append(live_error(rows, predictions.read(partitions=names), use_case))
    records.save_health(run, pd.concat([frame for frame in health if len(frame)] or health))
    return run.run_id
