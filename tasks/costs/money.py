"""Amounts of money: decimal, rounded once, per line of a bill."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

_OTHER = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
PLACES = {currency: places for places, currencies in _OTHER.items() for currency in currencies.split()}
"""Decimal places of currencies that have not two (ISO 4217)."""


def rounded(amount: Decimal, currency: str) -> Decimal:
    """To the smallest unit of the currency, half of it upwards."""
    return amount.quantize(Decimal(1).scaleb(-PLACES.get(currency, 2)), ROUND_HALF_UP)
