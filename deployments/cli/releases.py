"""`orchard releases`: what serves, what served, what waits."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.actor import witness
from deployments.cli.output import Json, console, show
from deployments.platform import running_platform
from infra.settings import load_settings

app = typer.Typer(help="List, approve and roll back releases.", no_args_is_help=True)


@app.command("list", epilog="Example: orchard releases list ua arrival-delay")
def list_releases(tenant: str, use_case: str, as_json: Json = False) -> None:
    """All releases of a use case, the newest first."""
    with running_platform(load_settings()) as platform:
        space = platform.open_space(tenant)
        space.tenant.use_case(use_case)
        releases = space.records.releases(use_case)
    fields = ("version", "status", "partitions", "promoted", "held", "dataset_version", "training_run", "created_at")
    show([{name: getattr(release, name) for name in fields} for release in releases], as_json, empty="no release yet")


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
    """Let an earlier release serve again; one alias moves."""
    from flows import operations

    with running_platform(load_settings()) as platform:
        version = operations.roll_back(platform.open_space(tenant), use_case, to, witness(platform.cluster))
    console.print(f"release {version} of {tenant}.{use_case} serves again")
