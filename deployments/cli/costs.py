"""`orchard costs`: what tenants cost, what they are charged, whether a model is worth it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.actor import operator_here, tell_reading
from deployments.cli.output import Json, Limit, console, note, print_json, records_of, show
from deployments.cli.times import span
from deployments.platform import running_platform
from infra.settings import load_settings
from tasks.domain.errors import InvalidDefinition

if TYPE_CHECKING:
    from tasks.costs.invoice import Invoice
    from tasks.domain.prices import PriceHistory

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
    show(rows, False, title=f"{months}, in {priced.history.currency}", empty="nothing was used")


@app.command(epilog="Example: orchard costs prices --set prices-2027.yaml")
def prices(
    file: Annotated[Path | None, typer.Option("--set", metavar="FILE", help="A price book to add.")] = None,
    as_json: Json = False,
) -> None:
    """Show the price books, or add one. One that is in use is never changed: a new version follows it."""
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
    show(
        _price_rows(history), False, title=f"prices in {history.currency}; months begin at midnight {history.timezone}"
    )


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
        found = invoice_for(platform.cluster, tenant, month, issue=issue)
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
            issue_all(platform.cluster, month)
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
    from deployments.costs.models import judge

    with running_platform(load_settings()) as platform:
        judged = judge(platform, tenant, use_case, min_gain)
        tell_reading(platform.cluster, tenant, use_case, "worth", min(limit, len(judged.rows)))
    rows = judged.rows if everything else judged.rows[~judged.rows["earns"]]
    if as_json:
        print_json({**judged.summary(), "partitions": records_of(rows.head(limit))})
        return
    show(records_of(rows.head(limit)), False, empty="every model of its own earns its cost")
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


def _price_rows(history: PriceHistory) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for book in history.books:
        common = {"book": book.version, "from": str(book.valid_from), "to": str(book.valid_to or "–")}
        rows.append({**common, "who": "provider's cost", "fee": None, "minimum": None, **book.cost.model_dump()})
        for tier in ("free", "standard", "premium"):
            plan = getattr(book.plans, tier)
            included = {f"included_{name}": value for name, value in plan.included.model_dump().items()}
            rows.append(
                {
                    **common,
                    "who": tier,
                    "fee": plan.fee,
                    "minimum": plan.minimum,
                    **plan.prices.model_dump(),
                    **included,
                }
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _show_invoice(found: Invoice) -> None:
    from deployments.costs.tables import plain

    rows = [
        {
            "from": f"{line.start:%Y-%m-%d}",
            "tier": line.tier.value,
            "what": line.what,
            "used": None if line.used is None else f"{plain(line.used)} {line.unit}",
            "included": None if line.included is None else plain(line.included),
            "charged": None if line.charged is None else plain(line.charged),
            "price": None if line.price is None else plain(line.price),
            "amount": line.amount,
        }
        for line in found.lines
    ]
    state = "a preview, up to now" if found.preview else f"issued {found.issued_at:%Y-%m-%d}"
    show(rows, False, title=f"{found.number}: {found.name}, {found.month} ({state})", empty="nothing to pay")
    console.print(f"[bold]total {found.total:,f} {found.currency}[/]", highlight=False)
