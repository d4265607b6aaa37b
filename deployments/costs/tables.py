"""Costs as rows, for tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from tasks.costs.invoice import Invoice
from tasks.costs.ledger import Entry, grouped
from tasks.costs.money import rounded

EIGHT = Decimal("0.00000001")


def cost_rows(entries: Iterable[Entry], by: Sequence[str], currency: str) -> list[dict[str, Any]]:
    """One row per combination of what it is grouped by, and their sum; charges to the smallest unit of the currency,
    all else to eight decimal places, since costs are small."""
    rows = grouped(entries, by)
    whole = grouped(rows, ())
    named = [({name: getattr(entry, name) for name in by}, entry) for entry in rows]
    named += [({name: "total" if name == by[0] else "" for name in by}, entry) for entry in whole if len(rows) > 1]
    return [{**names, **_numbers(entry, currency)} for names, entry in named]


def _numbers(entry: Entry, currency: str) -> dict[str, Any]:
    return {
        "cpu_hours": entry.used.cpu_hours.quantize(EIGHT),
        "waste_hours": entry.waste_hours.quantize(EIGHT),
        "gb_months": entry.used.gb_months.quantize(EIGHT),
        "predictions": int(entry.used.predictions),
        "models_trained": entry.models_trained,
        "cost": entry.cost.quantize(EIGHT),
        "overhead": entry.overhead.quantize(EIGHT),
        "charge": rounded(entry.charge, currency),
    }


def invoice_csv(invoice: Invoice) -> str:
    """One line per line of the invoice, the total last."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("what", "unit", "used", "included", "charged", "price", "price_per")
    writer.writerow(["invoice", "customer", "month", "from", "to", "tier", "price_book", *names, "amount", "currency"])
    facts = [invoice.number, invoice.customer, invoice.month]
    for line in invoice.lines:
        values = ["" if (value := getattr(line, name)) is None else plain(value) for name in names]
        span = [line.start.isoformat(), line.end.isoformat()]
        tail = [plain(line.amount), invoice.currency]
        writer.writerow([*facts, *span, line.tier.value, line.price_book, *values, *tail])
    span = [invoice.start.isoformat(), invoice.end.isoformat()]
    writer.writerow([*facts, *span, "", "", "total", *[""] * 6, plain(invoice.total), invoice.currency])
    return text.getvalue()


def quantity(value: Decimal | int | None) -> str:
    """A quantity as one reads it: whole when it is, else with as many places as tell something."""
    if value is None:
        return "–"
    number = Decimal(value)
    if number == number.to_integral_value():
        return f"{int(number):,}"
    return f"{number:,.4f}" if abs(number) < 100 else f"{number:,.1f}"


def plain(value: object) -> str:
    """A number without an exponent, and with eight decimal places at most: prices have so many."""
    if isinstance(value, Decimal):
        value = value.quantize(EIGHT) if value != value.quantize(EIGHT) else value
        return f"{value:f}"
    return str(value)
