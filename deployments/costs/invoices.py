"""Invoices: looked at beforehand, issued when the month is over, and once more when a tenant leaves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from deployments.costs.ledgers import measure, parse_month
from infra.database.audit import SOMEBODY, Actor
from infra.database.cluster import Cluster
from infra.database.consumption import Consumption
from infra.database.invoices import Invoices, Issued
from infra.database.operator import Operator
from infra.database.prices import PriceBooks
from tasks.costs.invoice import Invoice, invoice_of
from tasks.costs.ledger import Entry, MonthUse, bills, ledger
from tasks.domain.errors import InvalidDefinition, NotFound
from tasks.domain.months import Month
from tasks.domain.prices import PriceHistory

CLOSES_AFTER = timedelta(minutes=5)
"""Work that was booked just before midnight is stored, and processes of that night were read anew, by then."""


def preview(cluster: Cluster, tenant: str, month: Month, until: datetime | None = None) -> Invoice:
    """The invoice as it would be issued if nothing more was used and the tenant stayed to the end of the month, or to
    `until`. Raises `NotFound` for a tenant that was not there in that month."""
    history = PriceBooks(cluster).all()
    found = _previews(measure(cluster, month, history, tenant, until), history, {tenant: _name(cluster, tenant)})
    if not found:
        raise NotFound(f"{tenant} was no tenant in {month}", hint="orchard costs invoices lists those that were issued")
    return found[0]


def _name(cluster: Cluster, tenant: str) -> str:
    return Operator(cluster).tenant(tenant).name


def _previews(measured: MonthUse, history: PriceHistory, names: Mapping[str, str]) -> list[Invoice]:
    """One of each tenant that was measured and was there in the month."""
    entries: dict[str, list[Entry]] = {}
    for entry in ledger(measured, history):
        entries.setdefault(entry.tenant, []).append(entry)
    month = measured.month
    return [
        invoice_of(
            billed,
            entries.get(tenant, []),
            len(month.days()),
            number=f"{month}-{tenant}",
            customer=tenant,
            customer_since=measured.memberships[tenant][0].since,
            name=names[tenant],
            month=str(month),
            start=measured.spans[0].start,
            end=measured.spans[-1].end,
            timezone=month.timezone,
        )
        for tenant, billed in bills(measured, history).items()
    ]


def invoice(
    cluster: Cluster, tenant: str, month_text: str = "", *, issue: bool = False, by: Actor = SOMEBODY
) -> Invoice:
    """The invoice that was issued for the month, else a preview; with `issue`, it is issued.

    Raises `InvalidDefinition` for issuing one of a month that is not over, and `NotFound`.
    """
    month = parse_month(month_text, PriceBooks(cluster).all())
    if issued := own_invoices(cluster, tenant, str(month)):
        return issued[-1]
    found = preview(cluster, tenant, month)
    if not issue:
        return found
    check_over(month, datetime.now(UTC))
    return _issued(cluster, found, by)


def own_invoices(cluster: Cluster, tenant: str, month: str | None = None) -> list[Invoice]:
    """What was issued to a tenant, not to another that had its name before; of one that has left, all."""
    since = Consumption(cluster).memberships().get(tenant)
    return [
        Invoice.model_validate(each.content)
        for each in Invoices(cluster).all(tenant, month)
        if since is None or each.customer_since == since[0].since
    ]


def check_over(month: Month, now: datetime) -> None:
    """Raises `InvalidDefinition` while something of the month may still be booked."""
    closes = month.end.astimezone(UTC) + CLOSES_AFTER
    if now < closes:
        there = closes.astimezone(ZoneInfo(month.timezone))
        raise InvalidDefinition(
            f"{month} is not over", expected=f"from {there:%Y-%m-%d %H:%M %Z} on", hint="leave out --issue to look"
        )


def issue_all(cluster: Cluster, month_text: str, by: Actor = SOMEBODY) -> list[Invoice]:
    """Issues the invoices of all tenants that were there in a month that is over, but for those that were issued. The
    month is measured once for all of them."""
    history = PriceBooks(cluster).all()
    month = parse_month(month_text, history)
    check_over(month, datetime.now(UTC))
    names = {tenant.id: tenant.name for tenant in Operator(cluster).tenants()}
    return [_issued(cluster, each, by) for each in _previews(measure(cluster, month, history), history, names)]


def last_invoices(cluster: Cluster, tenant: str, by: Actor = SOMEBODY) -> list[Invoice]:
    """Issues what a tenant that leaves has still to pay: an invoice of every month since its first that has none and
    comes to anything, the last up to this moment. May be repeated: what was issued stays as it is."""
    since = Consumption(cluster).memberships().get(tenant)
    if not since:
        return []
    history = PriceBooks(cluster).all()
    first = max(since[0].since, history.turns()[0])
    now = datetime.now(UTC)
    month, found = Month.of(first, history.timezone), []
    while month.start <= now:
        if (last := preview(cluster, tenant, month, until=now)).total:
            found.append(_issued(cluster, last, by))
        month = month.following()
    return found


def _issued(cluster: Cluster, found: Invoice, by: Actor) -> Invoice:
    content = found.model_dump(mode="json")
    stored = Invoices(cluster, by).issue(
        Issued(found.number, found.customer, found.customer_since, found.month, content)
    )
    return Invoice.model_validate(stored.content)
