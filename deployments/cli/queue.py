"""`orchard provision`, `uploads`: what waits for its turn, and what it waits for."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.output import Json, Limit, console, note, print_json, show
from deployments.platform import running_platform
from infra.settings import load_settings


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the tree."""
    app.command(epilog="Example: orchard provision")(provision)
    app.command(epilog="Example: orchard uploads acme demand --follow")(uploads)


def provision(as_json: Json = False) -> None:
    """Make Prefect's work pools, limits, deployments and automations match what is declared; prints what changed."""
    from deployments.provision import provision as bring_up_to_date

    settings = load_settings()
    with running_platform(settings, prefect=True, report=note):
        changes = bring_up_to_date(settings)
    if as_json:
        print_json(changes)
    for change in changes if not as_json else ():
        console.print(change, highlight=False, markup=False)
    if not changes and not as_json:
        console.print("everything is as declared")


def uploads(
    tenant: str,
    use_case: Annotated[str, typer.Argument(help="All use cases without it.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Wait until none of them waits or runs.")] = False,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Where a tenant's uploads stand: queued (place, expected wait), running (stage), done, rejected (why)."""
    from deployments.following import follow_uploads, shown_upload
    from deployments.progress import upload_progress
    from infra.database.queue import Queue

    with running_platform(load_settings()) as platform:
        space, queue = platform.open_space(tenant), Queue(platform.cluster)
        if use_case:
            space.tenant.use_case(use_case)
        chosen = space.records.uploads(use_case or None)[-limit:]
        if follow:
            follow_uploads(space, queue, [upload.upload_id for upload in chosen])
            chosen = [space.records.upload(upload.upload_id) for upload in chosen]
        found = [upload_progress(space, queue, upload) for upload in chosen]
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
    else:
        show([shown_upload(each) for each in found], False, empty="no upload yet")
