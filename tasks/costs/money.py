"""Amounts of money: decimal, rounded once, per line of a bill."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

PLACES = {"JPY": 0, "KRW": 0, "CLP": 0, "ISK": 0, "VND": 0, "BHD": 3, "KWD": 3, "OMR": 3, "TND": 3, "JOD": 3}
"""Decimal places of currencies that have not two (ISO 4217)."""


def rounded(amount: Decimal, currency: str) -> Decimal:
    """To the smallest unit of the currency, half of it upwards."""
    return amount.quantize(Decimal(1).scaleb(-PLACES.get(currency, 2)), ROUND_HALF_UP)
