"""`orchard budgets`: how much may be spent on a tenant, a use case, a run, or all of the platform."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from deployments.cli.actor import operator_here
from deployments.cli.output import Json, console, note, print_json, show
from deployments.platform import Platform, running_platform, send_events
from infra.settings import load_settings
from tasks.domain.budget import Budget, Period, Standing, amount, money, soft_limit
from tasks.domain.errors import InvalidDefinition, OrchardError

if TYPE_CHECKING:
    from infra.database.budgets import Budgets

app = typer.Typer(help="Set limits of what may be spent: one is told, at the other work stops.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="Left out with --platform.")]
UseCase = Annotated[str, typer.Argument(help="All of the tenant's together without it.")]
Whole = Annotated[bool, typer.Option("--platform", help="The budget of all tenants together, per month.")]
Per = Annotated[Period, typer.Option(help="A calendar month (UTC), or each run of training or scoring, all attempts.")]


@app.command("set", epilog="Example: orchard budgets set acme demand --hard 12.00 --soft 75%")
def set_budget(
    hard: Annotated[str, typer.Option(help="Once so much is spent, work stops at its next batch.")],
    tenant: Tenant = "",
    use_case: UseCase = "",
    soft: Annotated[
        str | None, typer.Option(help="Once so much is spent, it is told: an amount, or a share; 80% without it.")
    ] = None,
    per: Per = Period.MONTH,
    priority: Annotated[
        int,
        typer.Option(min=0, max=1000, help="The tenant's, when the platform's budget is shared out; highest first."),
    ] = 0,
    platform: Whole = False,
    as_json: Json = False,
) -> None:
    """Set a budget, or change it. What waited for more goes on by itself, where the platform is up."""
    whose = _whose(tenant, platform)
    limit = amount(hard)
    with running_platform(load_settings()) as running:
        budgets = _budgets(running)
        wanted = _budget(whose, use_case, per, limit, soft_limit(soft, limit), budgets.currency(), priority)
        before = budgets.set(wanted)
        [standing, *_] = [
            *budgets.standings([wanted]),
            Standing(budget=wanted, spent=Decimal(0), limit=limit, about=""),
        ]
        _hand_out(running)
    if as_json:
        print_json(_row(standing))
        return
    was = f", was {money(before.hard)}" if before is not None else ""
    console.print(
        f"{wanted.scope}: {money(wanted.hard)} {wanted.currency} per {wanted.period}{was}, told from "
        f"{money(wanted.soft)}; spent {money(standing.spent)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command("list", epilog="Example: orchard budgets list")
def list_budgets(
    tenant: Annotated[str, typer.Argument(help="All of them without it.")] = "", as_json: Json = False
) -> None:
    """All budgets, and what was spent of them: this month, or by the latest run of each stage."""
    with running_platform(load_settings()) as running:
        budgets = _budgets(running)
        known = budgets.all(tenant or None)
        standings = budgets.standings(known)
    seen = {(each.budget.scope, each.budget.period) for each in standings}
    idle = [each for each in known if (each.scope, each.period) not in seen]  # no run of theirs works or was stopped
    standings += [Standing(budget=each, spent=Decimal(0), limit=each.hard, about="") for each in idle]
    show([_row(each) for each in standings], as_json, empty="no budgets yet; orchard budgets set TENANT --hard AMOUNT")


@app.command("show", epilog="Example: orchard budgets show acme")
def show_tenant(tenant: str, as_json: Json = False) -> None:
    """What a tenant may spend and has spent, its share of the platform's budget included, and what it waits with."""
    from infra.database.queue import Queue

    with running_platform(load_settings()) as running:
        running.open_space(tenant)
        budgets = _budgets(running)
        every = budgets.standings(budgets.all())
        mine = [each for each in every if each.budget.tenant == tenant]
        mine += [each for each in budgets.share_platform(every) if each.tenant == tenant]
        held = [row for row in Queue(running.cluster).held() if row["tenant"] == tenant]
    if as_json:
        print_json({"budgets": [_row(each) for each in mine], "held": held})
        return
    show([_row(each) for each in mine], False, empty=f"no budget limits {tenant}")
    for row in held:
        note(f"{tenant}.{row['use_case']}: jobs that wait: {row['jobs']}; {row['held']}")


@app.command(epilog="Example: orchard budgets remove acme demand")
def remove(
    tenant: Tenant = "", use_case: UseCase = "", per: Per = Period.MONTH, platform: Whole = False, as_json: Json = False
) -> None:
    """Take a budget back: nothing stops by it any more."""
    whose = _whose(tenant, platform)
    with running_platform(load_settings()) as running:
        removed = _budgets(running).remove(whose, use_case or None, per)
        _hand_out(running)
    if as_json:
        print_json(removed.model_dump(mode="json"))
    else:
        console.print(f"{removed.scope}: no budget per {per} any more", highlight=False, markup=False)


def _budgets(platform: Platform) -> Budgets:
    from infra.database.budgets import Budgets

    return Budgets(platform.cluster, operator_here())


def _whose(tenant: str, platform: bool) -> str | None:
    if bool(tenant) is platform:
        raise typer.BadParameter("name a tenant, or say --platform", param_hint="TENANT")
    return tenant or None


def _budget(
    tenant: str | None, use_case: str, per: Period, hard: Decimal, soft: Decimal, currency: str, priority: int
) -> Budget:
    try:
        return Budget(
            tenant=tenant,
            use_case=use_case or None,
            period=per,
            hard=hard,
            soft=soft,
            currency=currency,
            priority=priority,
        )
    except ValidationError as error:
        [problem, *_] = error.errors()
        what = ".".join(map(str, problem["loc"]))
        raise InvalidDefinition(
            "this is no budget", found=": ".join(filter(None, (what, problem["msg"].removeprefix("Value error, "))))
        ) from None


def _hand_out(platform: Platform) -> None:
    """Lets what waits go on, where the platform is up; elsewhere `orchard run` does."""
    from deployments.supervision.supervisor import connected

    if connected(platform.settings.home) is None:
        return
    try:
        with running_platform(platform.settings, prefect=True):
            from flows.dispatch import dispatch  # Prefect reads its address when it is imported

            dispatch(platform.settings)
            send_events()
    except OrchardError:  # the scheduled dispatch does it a few seconds later
        note("what waits goes on within 15 seconds")


def _row(standing: Standing) -> dict[str, object]:
    budget = standing.budget
    return {
        "tenant": standing.tenant or budget.tenant,
        "use_case": standing.use_case or budget.use_case,
        "per": budget.period.value,
        "of": standing.about,
        "spent": money(standing.spent),
        "soft": money(budget.soft),
        "hard": money(standing.limit),
        "currency": budget.currency,
        "reached": standing.level.value if standing.level is not None else None,
        "priority": budget.priority,
    }
