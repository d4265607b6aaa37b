"""What an operator sees of a run in Prefect's UI: how far it is, and what came of it."""

from __future__ import annotations

import logging
from time import monotonic
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from infra import servers
from infra.settings import load_settings
from infra.space import TenantSpace
from tasks.domain.names import Stage, artifact_key, registered_model_name
from tasks.domain.run import Run, Upload

logger = logging.getLogger(__name__)

EVERY_S = 2.0
SHOWN_PARTITIONS = 200


class Bar:
    """A progress artifact of work that takes longer than a moment, moved every few seconds; a run whose server is away
    goes on without."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._moved_at = what, total, monotonic()
        self._id: UUID | None = None

    def moved(self, done: int) -> None:
        """So many batches are finished."""
        over = done == self._total and self._id is not None
        if not over and monotonic() - self._moved_at < EVERY_S:
            return
        self._moved_at = monotonic()
        try:
            self._show(100.0 * done / self._total)
        except Exception as error:  # a picture of the work must never stop the work
            logger.debug("no progress artifact: %s", error)

    def _show(self, percent: float) -> None:
        if self._id is not None:
            update_progress_artifact(self._id, progress=percent)
            return
        made = create_progress_artifact(percent, description=f"{self._what}: {self._total} batches")
        self._id = made if isinstance(made, UUID) else None


def show_upload(space: TenantSpace, upload: Upload) -> None:
    """The account of an upload, on the page of the run that took it in: rows, partitions, verdicts, where to look."""
    try:
        _show_upload(space, upload)
    except Exception as error:  # a picture of the work must never undo the work
        logger.warning("no artifact of upload %s: %s", upload.upload_id, error)


def _show_upload(space: TenantSpace, upload: Upload) -> None:
    records, use_case = space.records, upload.use_case
    runs = [run for run in records.runs(use_case) if _belongs(run, upload)]
    counts = (
        f"{upload.rows_read:,} rows = {upload.rows_accepted:,} accepted + {upload.rows_quarantined:,} quarantined"
        f" + {upload.rows_duplicate:,} duplicate"
    )
    lines = [
        f"## {space.tenant.name}: {use_case}, {upload.purpose}",
        f"{upload.status}: {counts}" if upload.rows_read else f"{upload.status}",
    ]
    if upload.error:
        lines.append(f"> {upload.error}")
    costs = records.run_costs(runs)
    lines += ["", "| run | status | seconds | list price | account |", "|---|---|---:|---:|---|"]
    lines += [_line(run, costs.get(run.run_id, "–")) for run in reversed(runs)]
    lines += ["", *_links(space, upload)]
    for run in reversed(runs):
        get_run_logger().info(
            "%s.%s %s run %d is %s: %s", space.tenant.id, use_case, run.stage, run.run_id, run.status, run.account
        )
    create_markdown_artifact(
        "\n".join(lines),
        key=artifact_key(space.tenant.id, use_case, "receipt"),
        description=f"{upload.purpose} {upload.seq}",
    )
    trained = next((run for run in runs if run.stage is Stage.TRAINING), None)
    if trained is not None:
        create_table_artifact(
            _partitions(space, use_case, trained),
            key=artifact_key(space.tenant.id, use_case, "partitions"),
            description="partitions",
        )


def _belongs(run: Run, upload: Upload) -> bool:
    """Runs of the upload itself and, of the stages that work on a whole dataset version, those of its version."""
    return upload.upload_id == run.upload_id or (
        run.upload_id is None and run.dataset_version is not None and run.dataset_version == upload.dataset_version
    )


def _line(run: Run, cost: str) -> str:
    seconds = f"{(run.finished_at - run.started_at).total_seconds():.1f}" if run.finished_at else "–"
    return f"| {run.stage} {run.run_id} | {run.status} | {seconds} | {cost} | {run.account} |"


def _links(space: TenantSpace, upload: Upload) -> list[str]:
    home, name = load_settings().home, registered_model_name(space.tenant.id, upload.use_case)
    found = []
    if upload.report:
        found.append(f"- [Data Docs of the file]({space.files.url(upload.report)})")
    for stage in ("training", "production"):
        if (server := servers.running(home, f"mlflow-{stage}")) is not None:
            found.append(f"- [{stage} registry: {name}]({server.url}/#/models/{name})")
    page = home / "demo" / "index.html"
    if page.is_file():
        found.append(f"- [the demo's page]({page.as_uri()})")
    found.append(f"- `orchard receipts {space.tenant.id} {upload.use_case}`")
    return found


def _partitions(space: TenantSpace, use_case: str, trained: Run) -> list[dict[str, object]]:
    rows = space.records.partition_models(trained)
    champion = next((each for each in space.records.releases(use_case) if each.status == "champion"), None)
    columns = ["partition", "outcome", "estimator", "rows", "metric", "naive_metric", "reason"]
    table = rows[columns].rename(columns={"reason": "why"})
    if champion is not None:
        verdicts = space.records.verdicts(use_case, champion.version)[["partition", "verdict", "reason"]]
        table = table.merge(verdicts, on="partition", how="left")
    worst = table.sort_values("metric", ascending=False).head(SHOWN_PARTITIONS).dropna(axis="columns", how="all")
    worst = worst.loc[:, ~(worst == "").all()].round({"metric": 4, "naive_metric": 4})
    plain = worst.astype(object).where(worst.notna(), None)
    return [dict(zip(plain.columns, row, strict=True)) for row in plain.itertuples(index=False, name=None)]
