"""`orchard tenants`: onboarding."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.actor import operator_here, witness
from deployments.cli.isolation import kept_apart
from deployments.cli.output import Json, console, note, print_json, show
from deployments.onboarding import onboard
from deployments.platform import running_platform, supervised
from infra.definitions import load_tenant
from infra.settings import load_settings
from tasks.domain.tenant import Isolation

MOST_VERIFIED = 3
"""Of the tenants that one command onboards, so many are verified by it; the daily proof comes to all."""

app = typer.Typer(help="Onboard tenants and look at them.", no_args_is_help=True)


@app.command(epilog="Example: orchard tenants add acme.yaml")
def add(
    files: Annotated[list[Path], typer.Argument(help="One YAML file per tenant.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply changes without asking.")] = False,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Attack each new tenant, and let it attack, to see that it is kept apart (seconds). By default, as"
            " ORCHARD_VERIFY_ONBOARDING says: yes.",
        ),
    ] = None,
) -> None:
    """Onboard tenants, or apply changed files. Onboarding twice changes nothing. Exits with 1 where a new tenant is not
    kept apart from the others."""
    tenants, settings = [load_tenant(file) for file in files], load_settings()
    verify = settings.verify_onboarding if verify is None else verify
    from infra.database.operator import Operator

    with running_platform(settings) as platform:
        operator = Operator(platform.cluster)
        known = {tenant.id for tenant in operator.tenants()}
        for tenant in tenants:
            changes = operator.changes(tenant) if tenant.id in known else []
            for change in changes:
                console.print(f"  {change}", highlight=False, markup=False)
            if changes and not yes and not typer.confirm(f"apply these changes to {tenant.id}?"):
                raise typer.Exit(1)
            changed = onboard(platform, tenant, operator_here())
            done = "onboarded" if tenant.id not in known else "changed" if changed else "unchanged"
            console.print(f"{tenant.id} ({tenant.tier}): {done}", highlight=False)
        new = [tenant.id for tenant in tenants if tenant.id not in known]
        if verify and not kept_apart(platform.settings, new[:MOST_VERIFIED]):
            raise typer.Exit(1)
        if verify and len(new) > MOST_VERIFIED:
            note(f"{len(new) - MOST_VERIFIED} more are new: orchard verify-isolation tries each of them in turn")


@app.command("list", epilog="Example: orchard tenants list --json")
def list_tenants(as_json: Json = False) -> None:
    """All tenants with their tiers and use cases."""
    from infra.database.operator import Operator

    settings = load_settings()
    with running_platform(settings) as platform:
        rows = [
            {
                "tenant": tenant.id,
                "name": tenant.name,
                "tier": tenant.tier.value,
                "use_cases": ", ".join(use_case.id for use_case in tenant.use_cases),
            }
            for tenant in Operator(platform.cluster).tenants()
        ]
    show(rows, as_json, empty=f"no tenants yet in {settings.home}; orchard tenants add FILE")


@app.command(epilog="Example: orchard tenants move acme --to silo")
def move(
    tenant: str,
    to: Annotated[Isolation, typer.Option(help="pool, bridge or silo.")],
    as_json: Json = False,
    drain: Annotated[int, typer.Option(help="Seconds to wait for runs of the tenant to end.")] = 600,
) -> None:
    """Isolate a tenant in another way. What it has is copied and compared before anything is switched; uploads and jobs
    wait meanwhile. A move that was cut off goes on when it is asked for again."""
    from deployments.moving import move as move_tenant

    with running_platform(load_settings()) as platform:
        moved = move_tenant(platform, tenant, to, operator_here(), note, drain)
        if moved is not None and supervised(platform.settings):
            from deployments.supervision.up import up

            up(platform.settings, note)  # workers of its own begin or end
    if as_json:
        print_json({"tenant": tenant, "isolation": to.value, **(moved._asdict() if moved else {})})
    elif moved is None:
        console.print(f"{tenant} is isolated as {to} already", highlight=False)
    else:
        size = f"{moved.rows:,} rows and {moved.files:,} files ({moved.bytes / 1e6:,.1f} MB)"
        console.print(f"{tenant} is isolated as {to} now; {size} were copied and compared", highlight=False)


@app.command(epilog="Example: orchard tenants pseudonym acme anna@example.com")
def pseudonym(
    tenant: str,
    values: Annotated[list[str] | None, typer.Argument(help="Without any: lines of standard input.")] = None,
    as_json: Json = False,
) -> None:
    """What stands for a value where a personal column of the tenant is hashed: one line for each. It joins predictions
    with the tenant's own records; that it was asked for is audited, the values are not."""
    from infra.database.operator import Operator

    given = values or [line.rstrip("\r\n") for line in sys.stdin]
    with running_platform(load_settings()) as platform:
        pseudonyms = Operator(platform.cluster).pseudonyms(tenant)
        witness(platform.cluster).record("pseudonyms.read", "done", tenant=tenant, values=len(given))
    found = [pseudonyms.of(value) if value else "" for value in given]
    if as_json:
        print_json([{"value": value, "pseudonym": made} for value, made in zip(given, found, strict=True)])
        return
    for made in found:
        typer.echo(made)


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
