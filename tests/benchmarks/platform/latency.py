"""From the upload of 10,000 rows in 50 partitions to published predictions, each run in a fresh process."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import httpx
from rich.console import Console
from rich.table import Table

from infra.database.keys import Keys
from infra.database.records import PostgresRecords
from tasks.domain.names import Purpose
from tasks.domain.run import UploadStatus
from tasks.domain.tenant import Tier
from tests.benchmarks.platform.running import Running, platform_up, rows, small_tenant, until

TENANT = "latency"


@dataclass(frozen=True)
class Timed:
    """One upload: seconds from the first byte sent, by what they were spent on."""

    purpose: str
    total: float
    parts: dict[str, float]


def measure(running: Running, uploads: int, rows_each: int) -> Iterator[Timed]:
    """Uploads by HTTP one after another: a history first, then scoring files."""
    running.onboard(small_tenant(TENANT, Tier.PREMIUM))
    _, key = Keys(running.platform.cluster).create(TENANT, "benchmark")
    space = running.platform.open_space(TENANT)
    base = f"http://127.0.0.1:{running.settings.api_port}"
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        for number in range(uploads + 1):
            purpose = Purpose.SCORING if number else Purpose.HISTORY
            body = rows(rows_each, number * rows_each, target=number == 0, seed=number)
            began = datetime.now().astimezone()
            clock = time.perf_counter()
            answer = client.post(f"/v1/demand/uploads/{purpose}", content=body).raise_for_status().json()
            upload_id = answer["upload_id"]
            until(partial(_done, space.records, upload_id), 300, every_s=0.05)
            total = time.perf_counter() - clock
            yield Timed(purpose, total, _parts(running, upload_id, began, total))


def _done(records: PostgresRecords, upload_id: str) -> bool:
    return records.upload(upload_id).status is UploadStatus.DONE


def _parts(running: Running, upload_id: str, began: datetime, total: float) -> dict[str, float]:
    records = running.platform.open_space(TENANT).records
    upload = records.upload(upload_id)
    job = until(lambda: (found := records.job_of_upload(upload_id)) and found.finished_at and found, 30)
    runs = [run for run in reversed(records.runs("demand")) if run.started_at >= began and run.finished_at]
    marks = {
        "sent, hashed, stored": upload.received_at,
        "dispatched": job.submitted_at,
        "polled, process started, imports": job.started_at,
    }
    parts, before = {}, began
    for name, at in marks.items():
        parts[name], before = (at - before).total_seconds(), at
    for run in runs:
        parts[run.stage.value] = (run.finished_at - run.started_at).total_seconds()
    parts["between stages, receipt"] = total - sum(parts.values())
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=10)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = 130
    with platform_up() as running:
        timed = list(measure(running, options.uploads, options.rows))
    scored = [each for each in timed if each.purpose == Purpose.SCORING]
    names = list(dict.fromkeys(name for each in timed for name in each.parts))
    table = Table(
        title=f"{options.rows:,} rows in 50 partitions, upload to published predictions", title_justify="left"
    )
    table.add_column("seconds")
    table.add_column("history (trains)", justify="right")
    table.add_column(f"scoring, median of {len(scored)}", justify="right")
    table.add_column("max", justify="right")
    for name in [*names, "total"]:
        values = [each.total if name == "total" else each.parts.get(name, 0.0) for each in scored]
        first = timed[0].total if name == "total" else timed[0].parts.get(name, 0.0)
        style = "bold" if name == "total" else None
        table.add_row(name, f"{first:.2f}", f"{statistics.median(values):.2f}", f"{max(values):.2f}", style=style)
    console.print(table)


if __name__ == "__main__":
    main()
