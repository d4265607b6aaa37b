"""`orchard costs`: what tenants cost, what they are charged, whether a model is worth it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.actor import operator_here, tell_reading
from deployments.cli.output import Json, Limit, console, note, print_json, records_of, show
from deployments.cli.times import span
from deployments.platform import running_platform
from infra.settings import load_settings
from tasks.domain.errors import InvalidDefinition
from tasks.domain.prices import PriceBook, Quantities
from tasks.domain.tenant import Tier

if TYPE_CHECKING:
    from tasks.costs.invoice import Invoice

app = typer.Typer(
    help="What every tenant costs and is charged, by month; invoices, price books, utilisation, worth.",
    invoke_without_command=True,
    epilog="Example: orchard costs --month 2026-11 --by use_case --tenant ua",
)

Month = Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="This month without it.")]


@app.callback()
def costs(
    context: typer.Context,
    by: Annotated[
        str, typer.Option(help="One or more of tenant, use_case, stage, tier, team, day, month; with commas.")
    ] = "tenant",
    month: Annotated[
        list[str] | None, typer.Option("--month", metavar="YYYY-MM", help="May be given several times.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    as_json: Json = False,
) -> None:
    """What tenants cost the provider, and what they are charged for it.

    cost: their CPU, what was killed or failed included, and storage, at the provider's prices. overhead: their part of
    what serves all (servers, dispatch, idle workers), by CPU. charge: their bills, spread over what they used by its
    cost. In the currency of the price book (`orchard costs prices`).
    """
    if context.invoked_subcommand is not None:
        return
    from deployments.costs.ledgers import price
    from deployments.costs.tables import cost_rows
    from infra.database.operator import Operator

    dimensions = _dimensions(by)
    with running_platform(load_settings()) as platform:
        if tenant:
            Operator(platform.cluster).tenant(tenant)
        priced = price(platform.cluster, month or [""])
    wanted = [entry for entry in priced.entries if not tenant or entry.tenant == tenant]
    rows = cost_rows(wanted, dimensions, priced.history.currency)
    if as_json:
        print_json({"currency": priced.history.currency, "rows": rows})
        return
    months = ", ".join(sorted({entry.month for entry in priced.entries}))
    show(_readable(rows), False, title=f"{months}, in {priced.history.currency}", empty="nothing was used")


@app.command(epilog="Example: orchard costs prices --set prices-2027.yaml")
def prices(
    file: Annotated[Path | None, typer.Option("--set", metavar="FILE", help="A price book to add.")] = None,
    as_json: Json = False,
) -> None:
    """Show the price books, or add one. What was invoiced keeps its prices: a new version begins later."""
    from infra.database.prices import PriceBooks
    from infra.definitions import load_prices

    with running_platform(load_settings()) as platform:
        books = PriceBooks(platform.cluster, operator_here())
        if file is not None:
            book = load_prices(file)
            added = books.set(book)
            note(f"price book {book.version} {'is set' if added else 'is there already, just like that'}")
        history = books.all()
    if as_json:
        print_json([book.model_dump(mode="json") for book in history.books])
        return
    for each in history.books:
        _show_book(each)


@app.command(epilog="Example: orchard costs invoice ua --month 2026-10 --issue --to invoices/")
def invoice(
    tenant: str,
    month: Month = "",
    issue: Annotated[bool, typer.Option("--issue", help="For good: of a month that is over.")] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", file_okay=False, help="Write CSV, JSON and a page there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A tenant's invoice for a month; before it is issued, a preview of what there is so far."""
    from deployments.costs.invoices import invoice as invoice_for

    with running_platform(load_settings()) as platform:
        found = invoice_for(platform.cluster, tenant, month, issue=issue, by=operator_here())
    if to is not None:
        from deployments.costs.pages import write_invoice

        for path in write_invoice(found, to):
            note(f"wrote {path}")
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    _show_invoice(found)


@app.command(epilog="Example: orchard costs invoices --month 2026-10")
def invoices(
    tenant: Annotated[str, typer.Argument(help="All tenants, those that have left included, without it.")] = "",
    month: Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="All months without it.")] = "",
    issue: Annotated[
        bool, typer.Option("--issue", help="First issue those of the month that are still missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The invoices that were issued; with --issue and --month, all tenants' at once."""
    from deployments.costs.invoices import issue_all
    from infra.database.invoices import Invoices

    if issue and not month:
        raise InvalidDefinition("--issue needs to know which month", expected="--month YYYY-MM")
    with running_platform(load_settings()) as platform:
        if issue:
            issue_all(platform.cluster, month, operator_here())
        found = Invoices(platform.cluster).all(tenant or None, month or None)
    rows = [
        {
            "number": each.number,
            "customer": each.customer,
            "month": each.month,
            "total": each.content["total"],
            "currency": each.content["currency"],
            "issued_at": str(each.content["issued_at"])[:19],
        }
        for each in found
    ]
    show(rows, as_json, empty="no invoice was issued")


@app.command(epilog="Example: orchard costs page --month 2026-11 --to costs.html")
def page(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", dir_okay=False, help="The page.")],
    month: Month = "",
) -> None:
    """Write a page with a month's costs and charges of all tenants, with plots."""
    from deployments.costs.ledgers import parse_month, price
    from deployments.costs.pages import write_costs
    from infra.database.prices import PriceBooks

    with running_platform(load_settings()) as platform:
        name = str(parse_month(month, PriceBooks(platform.cluster).all()))
        priced = price(platform.cluster, [name])
    write_costs(name, priced, to)
    note(f"wrote {to}")


@app.command(epilog="Example: orchard costs utilisation --since 24h")
def utilisation(
    since: Annotated[timedelta, typer.Option(parser=span, metavar="TIME", help="So far back.")] = "7d",  # type: ignore[assignment]  # it is parsed
    as_json: Json = False,
) -> None:
    """How busy the slots of each work pool are, how long jobs wait, and what the machine's cores do."""
    from deployments.costs.utilisation import machine, slots

    with running_platform(load_settings()) as platform:
        pools = slots(platform.settings, platform.cluster, since)
        shares = machine(platform.cluster, since)
    if as_json:
        print_json({"slots": [each._asdict() for each in pools], "machine": [each._asdict() for each in shares]})
        return
    show([each._asdict() for each in pools], False, title="slots", empty="no job has run")
    show([each._asdict() for each in shares], False, title="this machine's cores")


@app.command(epilog="Example: orchard costs worth ua arrival-delay --min-gain 0.02")
def worth(
    tenant: str,
    use_case: str,
    min_gain: Annotated[
        float, typer.Option(min=0, max=1, help="The share of the tenant-wide model's error that a model must avoid.")
    ] = 0.01,
    everything: Annotated[bool, typer.Option("--all", help="Those that earn their cost too.")] = False,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Partitions whose own model does not earn what it costs, and what would be saved without it."""
    from deployments.costs.worth import judge

    with running_platform(load_settings()) as platform:
        judged = judge(platform, tenant, use_case, min_gain)
        tell_reading(platform.cluster, tenant, use_case, "worth", min(limit, len(judged.rows)))
    rows = judged.rows if everything else judged.rows[~judged.rows["earns"]]
    if as_json:
        print_json({**judged.summary(), "partitions": records_of(rows.head(limit))})
        return
    shown = [{name: _six_places(value) for name, value in row.items()} for row in records_of(rows.head(limit))]
    show(shown, False, empty="every model of its own earns its cost")
    console.print(judged.sentence(), highlight=False, soft_wrap=True)


def _dimensions(by: str) -> list[str]:
    from tasks.costs.ledger import DIMENSIONS

    found = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in found if name not in DIMENSIONS]
    if unknown or not found:
        raise InvalidDefinition(
            "costs cannot be grouped like that", expected=", ".join(DIMENSIONS), found=", ".join(unknown) or by
        )
    return found


def _readable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Without columns of zeros, and with six decimal places, but for the charge, which is exact."""
    kept = [name for name in (rows[0] if rows else ()) if name in ("cost", "charge") or any(row[name] for row in rows)]
    return [{name: row[name] if name == "charge" else _six_places(row[name]) for name in kept} for row in rows]


def _six_places(value: object) -> object:
    return value.quantize(Decimal("0.000001")) if isinstance(value, Decimal) else value


def _show_book(book: PriceBook) -> None:
    plans = {tier.value: book.plans.of(tier) for tier in Tier}
    rows: list[dict[str, Any]] = []
    for name, what in (("fee", "base fee"), ("minimum", "minimum")):
        rows.append({"what": what, "cost": None, **{tier: getattr(plan, name) for tier, plan in plans.items()}})
    for name, cost in book.cost.model_dump().items():
        prices = {tier: getattr(plan.prices, name) for tier, plan in plans.items()}
        rows.append({"what": name.replace("_", " "), "cost": cost, **prices})
    for name in Quantities.model_fields:
        included = {tier: getattr(plan.included, name) for tier, plan in plans.items()}
        rows.append({"what": f"included {name.replace('_', ' ')}", "cost": None, **included})
    until = f" until {book.valid_to}" if book.valid_to else ""
    show(rows, False, title=f"{book.version}, from {book.valid_from}{until}, in {book.currency}, {book.timezone}")


def _show_invoice(found: Invoice) -> None:
    from deployments.costs.tables import plain, quantity

    rows = [
        {
            "from": f"{line.start:%Y-%m-%d}",
            "tier": line.tier.value,
            "what": f"{line.what} ({line.unit})" if line.unit else line.what,
            "used": quantity(line.used),
            "included": quantity(line.included),
            "charged": quantity(line.charged),
            "price": "–" if line.price is None else plain(line.price),
            "amount": line.amount,
        }
        for line in found.lines
    ]
    state = "a preview" if found.preview else f"issued {found.issued_at:%Y-%m-%d}"
    show(rows, False, title=f"{found.number}: {found.name}, {found.month} ({state})", empty="nothing to pay")
    console.print(f"[bold]total {found.total:,f} {found.currency}[/]", highlight=False)
