"""`orchard tenants`: onboarding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.output import Json, console, print_json, show
from deployments.onboarding import onboard
from deployments.platform import running_platform
from infra.definitions import load_tenant
from infra.settings import load_settings

app = typer.Typer(help="Onboard tenants and look at them.", no_args_is_help=True)


@app.command(epilog="Example: orchard tenants add acme.yaml")
def add(
    files: Annotated[list[Path], typer.Argument(help="One YAML file per tenant.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply changes without asking.")] = False,
) -> None:
    """Onboard tenants, or apply changed files. Onboarding twice changes nothing."""
    tenants = [load_tenant(file) for file in files]
    from infra.database.operator import Operator

    with running_platform(load_settings()) as platform:
        operator = Operator(platform.cluster)
        known = {tenant.id for tenant in operator.tenants()}
        for tenant in tenants:
            changes = operator.changes(tenant) if tenant.id in known else []
            for change in changes:
                console.print(f"  {change}", highlight=False, markup=False)
            if changes and not yes and not typer.confirm(f"apply these changes to {tenant.id}?"):
                raise typer.Exit(1)
            changed = onboard(platform, tenant)
            done = "onboarded" if tenant.id not in known else "changed" if changed else "unchanged"
            console.print(f"{tenant.id} ({tenant.tier}): {done}", highlight=False)


@app.command("list", epilog="Example: orchard tenants list --json")
def list_tenants(as_json: Json = False) -> None:
    """All tenants with their tiers and use cases."""
    from infra.database.operator import Operator

    with running_platform(load_settings()) as platform:
        rows = [
            {
                "tenant": tenant.id,
                "name": tenant.name,
                "tier": tenant.tier.value,
                "use_cases": ", ".join(use_case.id for use_case in tenant.use_cases),
            }
            for tenant in Operator(platform.cluster).tenants()
        ]
    show(rows, as_json, empty="no tenants yet; orchard tenants add FILE")


@app.command("show", epilog="Example: orchard tenants show ua")
def show_tenant(tenant: str, as_json: Json = False) -> None:
    """One tenant's definition, as Orchard understands it."""
    import yaml

    from infra.database.operator import Operator

    with running_platform(load_settings()) as platform:
        spec = Operator(platform.cluster).tenant(tenant).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if as_json:
        print_json(spec)
    else:
        typer.echo(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))
