"""`orchard releases`: what serves, what served, what waits."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.actor import tell_reading, witness
from deployments.cli.output import Json, Limit, console, note, records_of, show
from deployments.platform import running_platform
from infra.settings import load_settings
from tasks.domain.errors import NotFound

app = typer.Typer(help="List, explain, approve and roll back releases.", no_args_is_help=True)


@app.command("list", epilog="Example: orchard releases list ua arrival-delay")
def list_releases(tenant: str, use_case: str, as_json: Json = False) -> None:
    """All releases of a use case, the newest first."""
    from flows import operations

    with running_platform(load_settings()) as platform:
        space = platform.open_space(tenant)
        space.tenant.use_case(use_case)
        releases = space.records.releases(use_case)
        waits = operations.releases_wait(space, use_case)
    fields = ("version", "status", "partitions", "promoted", "held", "dataset_version", "training_run", "created_at")
    show([{name: getattr(release, name) for name in fields} for release in releases], as_json, empty="no release yet")
    if waits:
        note(f"what the gate promotes waits for `orchard releases approve {tenant} {use_case}`")


@app.command(epilog="Example: orchard releases verdicts ua arrival-delay --held")
def verdicts(
    tenant: str,
    use_case: str,
    version: Annotated[int | None, typer.Argument(help="By default the release that serves, else the newest.")] = None,
    held: Annotated[bool, typer.Option("--held", help="Only partitions whose new model the gate held.")] = False,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """What the gate said of each partition's new model, with the reason, and who answers for it."""
    with running_platform(load_settings()) as platform:
        space = platform.open_space(tenant)
        space.tenant.use_case(use_case)
        known = space.records.releases(use_case)
        if not known:
            raise NotFound(
                f"{tenant}.{use_case} has no release yet", hint=f"orchard upload {tenant} {use_case} history FILE"
            )
        serves = next((each for each in known if each.status == "champion"), known[0])
        release = serves if version is None else space.records.release(use_case, version)
        rows = space.records.verdicts(use_case, release.version)
        if held:
            rows = rows[rows["verdict"] == "hold"]
        tell_reading(platform.cluster, tenant, use_case, "verdicts", min(limit, len(rows)))
    if not as_json:
        rows = rows[["partition", "verdict", "reason", "answer", "estimator"]]
    show(
        records_of(rows.head(limit)),
        as_json,
        title=f"release {release.version} ({release.status}): {len(rows):,} partitions",
        empty="none",
    )


@app.command(epilog="Example: orchard releases approve ua arrival-delay")
def approve(tenant: str, use_case: str) -> None:
    """Let the release that waits as challenger serve."""
    from flows import operations

    with running_platform(load_settings()) as platform:
        version = operations.approve(platform.open_space(tenant), use_case, witness(platform.cluster))
    console.print(f"release {version} of {tenant}.{use_case} serves now")


@app.command(epilog="Example: orchard releases rollback ua arrival-delay --to 3")
def rollback(
    tenant: str,
    use_case: str,
    to: Annotated[int | None, typer.Option(help="Version; by default the one that served before.")] = None,
) -> None:
    """Let an earlier release serve again; one alias moves. Later releases wait for approval, until one is approved."""
    from flows import operations

    with running_platform(load_settings()) as platform:
        space = platform.open_space(tenant)
        version = operations.roll_back(space, use_case, to, witness(platform.cluster))
        waits = operations.releases_wait(space, use_case)
    console.print(f"release {version} of {tenant}.{use_case} serves again")
    if waits:
        note(f"what the gate promotes from now on waits for `orchard releases approve {tenant} {use_case}`")
