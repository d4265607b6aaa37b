"""`orchard retention`: what is old goes for good."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.actor import witness
from deployments.cli.output import Json, console, show
from deployments.platform import running_platform
from infra.settings import load_settings


def register(app: typer.Typer) -> None:
    """Adds the command of this module to the tree."""
    app.command(epilog="Example: orchard retention acme --dry-run")(retention)


def retention(
    tenant: Annotated[str, typer.Argument(help="All tenants without it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove for good what is older than `retention_days` of the tenant's tier and serves nothing any more.

    Old versions of tables, superseded predictions, raw files, quarantine and reports, training runs that nothing builds
    on, retired releases but the last. Receipts and the audit stay. The platform does the same every day.
    """
    from flows.retention import check_came_through, enforce, shown_accounts

    with running_platform(load_settings()) as platform:
        accounts = enforce(platform.settings, witness(platform.cluster), tenant=tenant or None, dry_run=dry_run)
    rows = shown_accounts(accounts)
    show(rows, as_json, empty="nothing is old enough to go")
    if rows and not as_json:
        freed = sum(each.size_bytes for account in accounts for each in account.removed)
        console.print(f"{freed / 1e6:,.1f} MB {'would be' if dry_run else 'are'} freed", highlight=False)
    check_came_through(accounts)
