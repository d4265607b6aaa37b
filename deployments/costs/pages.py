"""Pages about money, for people: an invoice, and a month's costs of all tenants. Each is a single file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from deployments.costs.ledgers import Priced
from deployments.costs.tables import invoice_csv, plain, quantity
from tasks.costs.invoice import Invoice
from tasks.costs.ledger import NOBODY, grouped, total
from tasks.costs.money import rounded

GREEN, PALE = "#2f7d4f", "#b9d4c3"


def write_invoice(invoice: Invoice, folder: Path) -> list[Path]:
    """Writes `invoice-<number>` as .csv, .json and .html; returns the paths. What was there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "csv": invoice_csv(invoice),
        "json": invoice.model_dump_json(indent=1) + "\n",
        "html": _render("invoice.html.j2", invoice=invoice, days=_days(invoice)),
    }
    paths = []
    for ending, text in contents.items():
        path = folder / f"invoice-{invoice.number}.{ending}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def write_costs(month: str, priced: Priced, path: Path) -> None:
    """Writes the page of a month's costs."""
    entries, currency = priced.entries, priced.history.currency
    path.parent.mkdir(parents=True, exist_ok=True)
    tenants = [entry for entry in grouped(entries, ("tenant", "tier")) if entry.tenant != NOBODY]
    tenants.sort(key=lambda entry: -(entry.cost + entry.overhead))
    page = _render(
        "costs.html.j2",
        month=month,
        currency=currency,
        tenants=tenants,
        whole=total(entries),
        stages=sorted(grouped(entries, ("stage",)), key=lambda entry: -entry.cost),
        teams=[entry for entry in grouped(entries, ("team",)) if entry.team],
        plots=[_by_tenant(tenants[:TOP], currency), _by_day(priced)],
    )
    path.write_text(page, encoding="utf-8")


TOP = 20
"""So many tenants are in the plot; all are in the table."""


def _render(name: str, **values: Any) -> str:
    environment = Environment(autoescape=True, loader=PackageLoader("deployments.costs", ""))
    environment.filters |= {"money": _money, "quantity": quantity, "plain": plain, "small": _small, "cost": _cost}
    return environment.get_template(name).render(**values)


def _money(amount: Decimal, currency: str) -> str:
    """`1,234.50`."""
    return f"{rounded(amount, currency) + 0:,f}"  # there is no -0.00


def _small(amount: Decimal) -> str:
    """To a hundredth of a cent: most costs are small."""
    return f"{amount.quantize(Decimal('0.0001')):,f}"


def _cost(amount: Decimal, currency: str) -> str:
    """Finer where it is less than one unit."""
    return _money(amount, currency) if amount >= 1 else _small(amount)


def _days(invoice: Invoice) -> Markup:
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    days = [_day(each.day) for each in invoice.days]
    left.bar(days, [float(each.cpu_hours) for each in invoice.days], color=GREEN)
    left.set(title="Computing, CPU hours a day", **MONTH_AXIS)
    right.bar(days, [each.predictions for each in invoice.days], color=PALE)
    right.set(title="Predictions a day", **MONTH_AXIS)
    return _svg(figure)


MONTH_AXIS: dict[str, Any] = {"xlabel": "day of the month", "xlim": (0.4, 31.6), "xticks": range(1, 32, 3)}


def _day(day: str) -> int:
    """Of the month."""
    return int(day[-2:])


def _by_tenant(tenants: Sequence[Any], currency: str) -> Markup:
    figure = _figure(9, 0.9 + 0.34 * max(1, len(tenants)))
    axes = figure.subplots()
    names = [entry.tenant for entry in reversed(tenants)]
    direct = [float(entry.cost) for entry in reversed(tenants)]
    axes.barh(names, direct, color=GREEN, label="direct cost")
    axes.barh(
        names, [float(entry.overhead) for entry in reversed(tenants)], left=direct, color=PALE, label="part of overhead"
    )
    axes.set(title="What tenants cost", xlabel=currency)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return _svg(figure)


def _by_day(priced: Priced) -> Markup:
    figure = _figure(9, 3)
    axes = figure.subplots()
    days = [entry for entry in grouped(priced.entries, ("day",)) if entry.day]
    axes.bar([_day(entry.day) for entry in days], [float(entry.cost + entry.overhead) for entry in days], color=GREEN)
    axes.set(title="Cost by day", ylabel=priced.history.currency, **MONTH_AXIS)
    return _svg(figure)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> Markup:
    """The drawing itself, so that the page stays one file; without the date, so that it stays the same."""
    text = io.StringIO()
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue()
    return Markup(drawing[drawing.index("<svg") :])  # matplotlib escapes what it writes
