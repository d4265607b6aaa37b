"""`orchard demo`, `upload`, `run`: what starts work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.actor import witness
from deployments.cli.output import Json, complain_of, console, note, show
from deployments.platform import Platform, running_platform
from infra.settings import load_settings
from infra.space import TenantSpace
from tasks.domain.budget import amount
from tasks.domain.errors import OrchardError, OverBudget
from tasks.domain.job import JobKind, JobStatus
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Upload, UploadStatus

FACTS = (
    "upload_id", "use_case", "purpose", "status", "rows_read", "rows_accepted", "rows_quarantined", "rows_duplicate",
    "dataset_version", "error",
)  # fmt: skip

WHAT_CAME = {
    Purpose.HISTORY: "orchard releases verdicts {0} · orchard models {0}",
    Purpose.SCORING: "orchard results {0}",
    Purpose.ACTUALS: "orchard results {0} --health",
}
"""Commands that show what a finished upload led to."""


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the tree."""
    app.command(epilog="Example: orchard demo --keep")(demo)
    app.command(epilog="Example: orchard upload ua arrival-delay history flights.csv.gz")(upload)
    app.command(epilog="Example: orchard run ua arrival-delay --dry-run")(run)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave PostgreSQL, Prefect and MLflow running.")] = False,
    carriers: Annotated[
        str, typer.Option(help="Only these airlines, comma-separated, such as HA,AS; all 16 without it.")
    ] = "",
    as_json: Json = False,
) -> None:
    """The whole platform on real flights: 16 airlines, two use cases each, from file to prediction."""
    from deployments.demo.run import run_demo

    run_demo(load_settings(), [name for name in carriers.upper().split(",") if name], keep=keep, as_json=as_json)


def upload(
    tenant: str,
    use_case: str,
    purpose: Annotated[
        Purpose,
        typer.Argument(
            help="history: rows with the target, to train on. scoring: rows without it, to predict. actuals: row key"
            " and target, once the truth is known."
        ),
    ],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    no_run: Annotated[bool, typer.Option("--no-run", help="Only store it; `orchard run` takes it up.")] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Where the platform is up: do not wait until it is done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hand in a file and take it through the pipeline. The same content twice is one upload.

    Where the platform is up, the file waits for its turn there; otherwise the work is done by this command.
    """
    from deployments.runs import run_pipeline
    from deployments.supervision.supervisor import connected
    from flows.operations import admit

    settings = load_settings()
    with running_platform(settings, prefect=not no_run, report=note) as platform:
        space = platform.open_space(tenant)
        if not no_run and connected(settings.home) is not None:
            _finish(tenant, [_through_the_queue(platform, space, use_case, purpose, file, wait=not no_wait)], as_json)
            return
        admitted, new = admit(space, use_case, purpose, file, witness(platform.cluster))
        if not new and admitted.status in (UploadStatus.DONE, UploadStatus.REJECTED):
            note(f"this content was uploaded before: {admitted.upload_id} is {admitted.status}")
        elif not no_run:
            try:
                admitted = run_pipeline(space, admitted.upload_id)
            except OrchardError:
                note(
                    f"the file is stored as upload {admitted.upload_id}; `orchard run {tenant} {use_case}` takes it up"
                )
                raise
        _finish(tenant, [admitted], as_json)


def _through_the_queue(
    platform: Platform, space: TenantSpace, use_case: str, purpose: Purpose, file: Path, *, wait: bool
) -> Upload:
    """Lets the platform that is up do the work; returns the upload as it is afterwards."""
    from deployments.following import follow_uploads
    from flows.dispatch import dispatch
    from flows.operations import hand_in
    from infra.database.queue import Queue

    admitted, new = hand_in(space, use_case, purpose, file, "cli", witness(platform.cluster))
    if not new and admitted.status is UploadStatus.DONE:
        note(f"this content was uploaded before: {admitted.upload_id} is {admitted.status}")
        return admitted
    dispatch(platform.settings)
    if wait:
        follow_uploads(space, Queue(platform.cluster), [admitted.upload_id])
        job = space.records.job_of_upload(admitted.upload_id)
        if job is not None and job.held:
            note(f"the file is stored as upload {admitted.upload_id}, and goes on by itself when it may")
            raise OverBudget(job.held)
        done = space.records.upload(admitted.upload_id)
        if job is not None and job.status is JobStatus.FAILED and not done.error:  # its run could not say so
            return done.model_copy(update={"error": job.error})
        return done
    note(f"it waits for its turn: orchard uploads {space.tenant.id} {use_case}")
    return space.records.upload(admitted.upload_id)


def run(
    tenant: str,
    use_case: Annotated[str, typer.Argument(help="All use cases without it.")] = "",
    stage: Annotated[
        Stage | None, typer.Option(help="Only this stage: training (with promotion), promotion or scoring.")
    ] = None,
    only_failed: Annotated[bool, typer.Option("--only-failed", help="Train what failed last time.")] = False,
    partition: Annotated[
        list[str] | None, typer.Option(help="Train only this partition, such as store=12,sku=7; repeatable.")
    ] = None,
    dataset_version: Annotated[
        int | None, typer.Option(min=0, help="Train all partitions as of this version of the table; promotes nothing.")
    ] = None,
    queue: Annotated[
        bool, typer.Option("--queue", help="Let it wait for its turn on the platform that is up, and return.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what it would do, use and cost; nothing is changed.")
    ] = False,
    limit: Annotated[
        str | None,
        typer.Option("--ask-above", metavar="AMOUNT", help="Ask first if it may be charged more (ORCHARD_ASK_ABOVE)."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Take up uploads that wait; without any, train what changed, promote, and score the open rows."""
    from deployments.runs import run_stages, run_waiting
    from tasks.training.plan import Selection

    if stage not in (None, Stage.TRAINING, Stage.PROMOTION, Stage.SCORING):
        raise typer.BadParameter("training, promotion and scoring can be run by hand", param_hint="--stage")
    if stage in (Stage.PROMOTION, Stage.SCORING) and (only_failed or partition or dataset_version is not None):
        raise typer.BadParameter(
            "--only-failed, --partition and --dataset-version are for training", param_hint="--stage"
        )
    settings = load_settings()
    most = settings.ask_above if limit is None else amount(limit)
    with running_platform(settings, prefect=not dry_run, report=note) as platform:
        space = platform.open_space(tenant)
        names = [use_case] if use_case else [each.id for each in space.tenant.use_cases]
        for name in names:
            space.tenant.use_case(name)
        if dry_run or (most is not None and not yes):
            from deployments.cli.estimates import ask_above, print_forecasts
            from flows.estimation import forecasts

            selection = Selection(only_failed=only_failed, partitions=tuple(partition or ()))
            found = forecasts(platform.cluster, space, names, stage, selection, dataset_version)
            if dry_run:
                print_forecasts(found, as_json)
                return
            assert most is not None
            ask_above(found, most)
        if queue:
            _ask(platform, space, names, stage)
            return
        selective = bool(stage or only_failed or partition or dataset_version is not None)
        uploads = [] if selective else run_waiting(space, names)
        if uploads:
            _finish(tenant, uploads, as_json)
        else:
            rows = [
                run_stages(space, name, stage, only_failed, tuple(partition or ()), dataset_version) for name in names
            ]
            show(rows, as_json, title="runs")


def _ask(platform: Platform, space: TenantSpace, use_cases: list[str], stage: Stage | None) -> None:
    """Asks for a refresh, or for scoring alone, of each use case."""
    from flows.dispatch import dispatch

    kind = JobKind.SCORING if stage is Stage.SCORING else JobKind.REFRESH
    for use_case in use_cases:
        job = space.records.request(use_case, kind, by="cli")
        console.print(f"job {job.job_id}: {kind} of {space.tenant.id}.{use_case} is {job.status}", highlight=False)
    dispatch(platform.settings)


def _finish(tenant: str, uploads: list[Upload], as_json: bool) -> None:
    """Shows uploads as they are now; where one was rejected or did not come through, says why and exits with 1."""
    names = FACTS if as_json else FACTS[:-1]  # a person reads the error below
    show([{name: getattr(each, name) for name in names} for each in uploads], as_json)
    troubled = [each for each in uploads if each.error]
    for upload in uploads:
        rows = f"orchard quarantine {tenant} {upload.use_case} --upload {upload.upload_id}"
        if upload.error:
            rejected = upload.status is UploadStatus.REJECTED
            what = "was rejected" if rejected else f"did not come through ({upload.status})"
            complain_of(f"{upload.filename} {what}: {upload.error}")
            note(f"more: orchard receipts {tenant} {upload.use_case} · {rows}")
        elif upload.rows_quarantined:
            note(f"the rows of {upload.filename} that were set aside: {rows}")
        elif upload.status is UploadStatus.INGESTED and upload.purpose is Purpose.SCORING:
            first = f"orchard upload {tenant} {upload.use_case} history FILE"
            note(f"{upload.filename} is scored when a release serves: {first}")
    if not as_json and len(uploads) == 1 and uploads[0].status is UploadStatus.DONE:
        note(f"what came of it: {WHAT_CAME[uploads[0].purpose].format(f'{tenant} {uploads[0].use_case}')}")
    if troubled:
        raise typer.Exit(1)
