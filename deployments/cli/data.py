"""`orchard models`, `results`, `receipts`, `quarantine`: what came out."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.actor import tell_reading
from deployments.cli.output import Json, Limit, records_of, show
from deployments.platform import running_platform
from deployments.runs import finished_training
from infra.settings import load_settings
from tasks.domain.outcome import PartitionOutcome
from tasks.domain.run import Run, Upload

ASIDE = ("upload_id", "run_id", "scored_at", "model_run", "loss_sum", "baseline_sum", "last_run_at")
"""Columns of results that scripts get, and tables leave out."""


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the tree."""
    app.command(epilog="Example: orchard models ua arrival-delay --limit 10")(models)
    app.command(epilog="Example: orchard results ua arrival-delay --health")(results)
    app.command(epilog="Example: orchard receipts ua")(receipts)
    app.command(epilog="Example: orchard quarantine ua arrival-delay")(quarantine)


def models(
    tenant: str,
    use_case: str,
    outcome: Annotated[
        PartitionOutcome | None, typer.Option(help="Only trained, reused, rejected, failed or left ones.")
    ] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Every partition of the latest training run: outcome, choice, errors."""
    with running_platform(load_settings()) as platform:
        space = platform.open_space(tenant)
        space.tenant.use_case(use_case)
        run = finished_training(space, use_case)
        rows = space.records.partition_models(run)
        if outcome:
            rows = rows[rows["outcome"] == outcome]
        tell_reading(platform.cluster, tenant, use_case, "models", min(limit, len(rows)))
    columns = ["partition", "outcome", "estimator", "rows", "metric", "naive_metric", "holdout_rows", "reason"]
    show(
        records_of(rows[columns].head(limit)),
        as_json,
        title=f"training run {run.run_id}: {len(rows):,} partitions",
    )


def results(
    tenant: str,
    use_case: str,
    health: Annotated[bool, typer.Option("--health", help="Live error per partition instead.")] = False,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """The current predictions, or how good they turned out to be."""
    with running_platform(load_settings()) as platform:
        space = platform.open_space(tenant)
        space.tenant.use_case(use_case)
        rows = space.records.health(use_case) if health else space.records.predictions(use_case, limit)
        rows = rows.head(limit)
        tell_reading(platform.cluster, tenant, use_case, "health" if health else "predictions", len(rows))
    if not as_json:  # what a person wants to see fits on a screen
        rows = rows.drop(columns=["tenant", "use_case", *ASIDE], errors="ignore").dropna(axis="columns", how="all")
    show(
        records_of(rows),
        as_json,
        empty="no actuals yet" if health else "no predictions yet",
    )


def receipts(
    tenant: str,
    use_case: Annotated[str, typer.Argument(help="All use cases without it.")] = "",
    limit: Limit = 30,
    as_json: Json = False,
) -> None:
    """The account of uploads and runs: every row and every partition in exactly one state."""
    with running_platform(load_settings()) as platform:
        space = platform.open_space(tenant)
        if use_case:
            space.tenant.use_case(use_case)
        uploads = space.records.uploads(use_case or None)[-limit:]
        runs = space.records.runs(use_case or None)[:limit]
    accounts = [_upload_account(upload) for upload in uploads] + [_run_account(run) for run in reversed(runs)]
    if not as_json:  # a cell has no place for the whole story
        accounts = [account | {"error": str(account["error"] or "").split("; ")[0]} for account in accounts]
    show(accounts, as_json)


def quarantine(
    tenant: str,
    use_case: str,
    upload: Annotated[str, typer.Option(help="Upload id; by default the latest with quarantined rows.")] = "",
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Rows that were set aside, each with the rule it broke."""
    from flows.operations import quarantined

    with running_platform(load_settings()) as platform:
        space = platform.open_space(tenant)
        space.tenant.use_case(use_case)
        uploads = [space.records.upload(upload)] if upload else reversed(space.records.uploads(use_case))
        kept = (quarantined(space, use_case, each.upload_id, limit) for each in uploads)
        rows = next((rows for rows in kept if rows), [])
        tell_reading(platform.cluster, tenant, use_case, "quarantine", len(rows))
    show(rows, as_json, empty="no row is in quarantine")


def _upload_account(upload: Upload) -> dict[str, object]:
    states = ("accepted", "quarantined", "duplicate")
    counts = [getattr(upload, f"rows_{state}") for state in states]
    parts = " + ".join(f"{count:,} {state}" for count, state in zip(counts, states, strict=True))
    return {
        "what": f"{upload.purpose} upload {upload.seq}",
        "use_case": upload.use_case,
        "status": upload.status.value,
        "account": f"{upload.rows_read:,} rows = {parts}",
        "error": upload.error,
    }


def _run_account(run: Run) -> dict[str, object]:
    return {
        "what": f"{run.stage} run {run.run_id}",
        "use_case": run.use_case,
        "status": run.status.value,
        "account": run.account,
        "error": run.error,
    }
