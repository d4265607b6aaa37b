"""A use case with personal columns, and rows of it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tasks.domain.use_case import UseCase
from tests.samples import sales_use_case

COLUMNS: dict[str, Any] = {
    "customer": {"type": "string", "pattern": "^[a-z]+$", "personal": "hash"},
    "day": {"type": "date"},
    "city": {"type": "string", "nullable": True, "allowed": ["rome", "oslo"], "personal": "hash"},
    "born": {"type": "date", "nullable": True, "personal": "drop"},
    "email": {"type": "string", "nullable": True, "pattern": "@", "personal": "drop"},
    "price": {"type": "number", "min": 0},
    "sales": {"type": "number"},
}

FIELDS: dict[str, Any] = {
    "contract": {"columns": COLUMNS, "row_key": ["customer", "day"], "max_bad_rows": 0.5},
    "partition_by": ["customer"],
    "features": {"numeric": ["price"], "categorical": ["city", "weekday"]},
}


def personal_use_case(**changes: Any) -> UseCase:
    """Sales per customer and day: the customer is a hashed key, the city a hashed feature, the rest is dropped."""
    return sales_use_case(**(FIELDS | changes))


def rows(customers: tuple[str, ...] = ("anna", "ben"), days: int = 5) -> pd.DataFrame:
    """One row per customer and day."""
    keys = [(customer, f"2026-01-0{day}") for customer in customers for day in range(1, days + 1)]
    frame = pd.DataFrame(keys, columns=["customer", "day"])
    return frame.assign(city="rome", born="1990-05-05", email="who@there", price=2.5, sales=1.0)
