"""`orchard demo`, `upload`, `run`, `status`, `down`: what starts work and shows what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.output import Json, complain_of, console, note, print_json, show
from deployments.platform import running_platform, stop_platform
from infra.settings import load_settings
from tasks.domain.errors import OrchardError
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Upload, UploadStatus

FACTS = (
    "upload_id", "use_case", "purpose", "status", "rows_read", "rows_accepted", "rows_quarantined", "rows_duplicate",
    "dataset_version", "error",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the tree."""
    app.command(epilog="Example: orchard demo --keep")(demo)
    app.command(epilog="Example: orchard upload ua arrival-delay history flights.csv.gz")(upload)
    app.command(epilog="Example: orchard run ua arrival-delay --partition origin=EWR,dest=IAH")(run)
    app.command(epilog="Example: orchard status --json")(status)
    app.command(epilog="Example: orchard down")(down)


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
    purpose: Purpose,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    no_run: Annotated[bool, typer.Option("--no-run", help="Only store it; `orchard run` takes it up.")] = False,
    as_json: Json = False,
) -> None:
    """Hand in a file and take it through the pipeline. The same content twice is one upload."""
    from deployments.runs import run_pipeline
    from flows.operations import admit

    settings = load_settings()
    with running_platform(settings, prefect=not no_run, report=note) as platform:
        space = platform.open_space(tenant)
        admitted, new = admit(space, use_case, purpose, file)
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
    as_json: Json = False,
) -> None:
    """Take up uploads that wait; without any, train what changed, promote, and score the open rows."""
    from deployments.runs import run_stages, run_waiting

    if stage not in (None, Stage.TRAINING, Stage.PROMOTION, Stage.SCORING):
        raise typer.BadParameter("training, promotion and scoring can be run by hand", param_hint="--stage")
    if stage in (Stage.PROMOTION, Stage.SCORING) and (only_failed or partition or dataset_version is not None):
        raise typer.BadParameter(
            "--only-failed, --partition and --dataset-version are for training", param_hint="--stage"
        )
    settings = load_settings()
    with running_platform(settings, prefect=True, report=note) as platform:
        space = platform.open_space(tenant)
        names = [use_case] if use_case else [each.id for each in space.tenant.use_cases]
        for name in names:
            space.tenant.use_case(name)
        selective = bool(stage or only_failed or partition or dataset_version is not None)
        uploads = [] if selective else run_waiting(space, names)
        if uploads:
            _finish(tenant, uploads, as_json)
        else:
            rows = [
                run_stages(space, name, stage, only_failed, tuple(partition or ()), dataset_version) for name in names
            ]
            show(rows, as_json, title="runs")


def status(
    as_json: Json = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="URLs with passwords.")] = False,
) -> None:
    """What runs, and where it answers."""
    from deployments.status import platform_status

    facts = platform_status(load_settings(), show_secrets=show_secrets)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        console.print(
            f"{name:>26}  {value if value is not None else '–'}", highlight=False, markup=False, soft_wrap=True
        )


def down() -> None:
    """Stop what a kept demo left running."""
    stopped = stop_platform(load_settings())
    console.print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def _finish(tenant: str, uploads: list[Upload], as_json: bool) -> None:
    """Shows uploads as they are now; where one was rejected or did not come through, says why and exits with 1."""
    names = FACTS if as_json else FACTS[:-1]  # a person reads the error below
    show([{name: getattr(each, name) for name in names} for each in uploads], as_json)
    troubled = [each for each in uploads if each.error]
    for upload in troubled:
        what = "was rejected" if upload.status is UploadStatus.REJECTED else f"did not come through ({upload.status})"
        complain_of(f"{upload.filename} {what}: {upload.error}")
        note(f"more: orchard receipts {tenant} {upload.use_case} · orchard quarantine {tenant} {upload.use_case}")
    if troubled:
        raise typer.Exit(1)
