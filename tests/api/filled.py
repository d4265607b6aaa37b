"""A tenant that has something of everything: releases, verdicts, runs, predictions, live error, quarantine."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from infra.space import TenantSpace
from tasks.domain.names import Purpose, Stage, upload_id
from tasks.domain.run import Batch, Run, UploadStatus
from tasks.ingestion.quarantine import Quarantine
from tasks.scoring.predict import answer_rows
from tests.promotion import bundles
from tests.serving.deployed import deploy

SCORED, ACTUALS = "aa", "bb"
"""Content hashes of its uploads."""


def fill(space: TenantSpace, folder: Path, marker: str = "plain") -> None:
    """Fills the use case of the small bundles. The marker is in texts that come out again: names, reasons, cells."""
    deploy(space, folder, 1)
    version = deploy(space, folder, 2)
    score(space, version, SCORED, bundles.rows(stores=5), f"{marker}.csv")
    known = space.records.add_upload(
        "demand", Purpose.ACTUALS, id_of(space, Purpose.ACTUALS, ACTUALS), f"{marker}-actuals.csv", 1, ACTUALS
    )[0]
    run = space.records.open_run(Stage.MONITORING, "demand", f"monitoring-{marker}", upload_id=known.upload_id)
    partitions = [f"store={store}" for store in range(3)]
    space.records.save_health(
        run,
        pd.DataFrame(
            {
                "partition": partitions,
                "rows": 4,
                "metric": "rmse",
                "loss_sum": 16.0,
                "baseline_sum": 64.0,
                "own_rows": 2,
            }
        ),
    )
    quarantine(space, known.upload_id, [f"=cmd|{marker}", *map(str, range(6))])
    failed = space.records.open_run(Stage.TRAINING, "demand", f"training-{marker}")
    space.records.fail_run(
        failed, f"OSError: [Errno 2] '/srv/{marker}/scratch/part.parquet'; where: /srv/{marker}/hidden; found: nothing"
    )


def score(space: TenantSpace, version: int, content: str, rows: pd.DataFrame, filename: str = "rows.csv") -> Run:
    """A scoring upload, and its run, which is published: one batch per partition."""
    use_case, scorer = space.tenant.use_case("demand"), space.registry.scorer("demand", version)
    uploaded = id_of(space, Purpose.SCORING, content)
    space.records.add_upload("demand", Purpose.SCORING, uploaded, filename, 1, content)
    run = space.records.open_run(
        Stage.SCORING, "demand", f"{content}-{version}", upload_id=uploaded, release_version=version
    )
    named = rows.assign(_partition=[f"store={store}" for store in rows["store"]])
    parts = [part for _, part in named.groupby("_partition")]
    batches = [
        Batch(run_id=run.run_id, number=number, bucket=0, partitions=tuple(part["_partition"].unique()), rows=len(part))
        for number, part in enumerate(parts, 1)
    ]
    space.records.plan(run, batches)
    for batch, part in zip(batches, parts, strict=True):
        space.records.finish_scoring_batch(batch, answer_rows(part, use_case, scorer))
    space.records.update_upload(uploaded, status=UploadStatus.DONE, rows_read=len(rows), rows_accepted=len(rows))
    return space.records.publish_scores(run, {"rows": len(rows)})


def quarantine(space: TenantSpace, upload: str, cells: list[str], per_add: int = 2) -> None:
    """Rows that an upload left in quarantine, with those cells."""
    with Quarantine("demand", upload) as kept:
        for start in range(0, len(cells), per_add):
            some = cells[start : start + per_add]
            lines = list(range(start + 1, start + 1 + len(some)))
            kept.add(lines, [["price is not a number"]] * len(some), [{"price": cell} for cell in some])
        kept.keep(space.files)
    space.records.update_upload(upload, rows_read=len(cells), rows_quarantined=len(cells))


def id_of(space: TenantSpace, purpose: Purpose, content: str) -> str:
    return upload_id(space.tenant.id, "demand", purpose, content)


def answers(rows: list[tuple[str, str]], value: float = 1.0) -> pa.Table:
    """`PREDICTION` rows of those partitions and row keys."""
    size = len(rows)
    return pa.table(
        {
            "partition": [partition for partition, _ in rows],
            "row_key": [row_key for _, row_key in rows],
            "prediction": pa.array([value] * size, pa.float64()),
            "label": pa.nulls(size, pa.string()),
            "probabilities": pa.nulls(size, pa.list_(pa.float64())),
            "baseline": pa.array([[0.5]] * size, pa.list_(pa.float64())),
            "answer": ["own"] * size,
            "fallback": [False] * size,
            "model_run": pa.array([7] * size, pa.int64()),
        }
    )


def publish(space: TenantSpace, content: str, batches: list[pa.Table], version: int = 1) -> Run:
    """A published scoring run of an upload with that content, in those batches."""
    uploaded = id_of(space, Purpose.SCORING, content)
    space.records.add_upload("demand", Purpose.SCORING, uploaded, "a.csv", 1, content)
    run = space.records.open_run(
        Stage.SCORING, "demand", f"{content}-{version}", upload_id=uploaded, release_version=version
    )
    planned = [
        Batch(
            run_id=run.run_id,
            number=number,
            bucket=0,
            partitions=tuple(sorted(set(rows["partition"].to_pylist()))),
            rows=len(rows),
        )
        for number, rows in enumerate(batches, 1)
    ]
    space.records.plan(run, planned)
    for batch, rows in zip(planned, batches, strict=True):
        space.records.finish_scoring_batch(batch, rows)
    return space.records.publish_scores(run, {"rows": sum(map(len, batches))})
