"""A tenant of the command line's tests: a definition file, and sales of six articles."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tests.samples import SALES

COLUMNS = tuple(SALES["contract"]["columns"])


def definition(tenant: str, *, tier: str = "standard", **changes: Any) -> dict[str, Any]:
    """The tenant with the use case `sales`; changes are fields of the use case."""
    training = {"min_rows": 20, "lightgbm": {"num_iterations": 20}, "tenant_wide": {"lightgbm": {"num_iterations": 20}}}
    sales = SALES | {"training": training} | changes
    return {"id": tenant, "name": tenant.title(), "tier": tier, "use_cases": [sales]}


def tenant_file(folder: Path, tenant: str, **changes: Any) -> Path:
    path = folder / f"{tenant}.yaml"
    path.write_text(yaml.safe_dump(definition(tenant, **changes), sort_keys=False))
    return path


def sales(days: int = 40, *, first: str = "2026-01-01", seed: int = 1) -> pd.DataFrame:
    """One row per (store, sku, day): six articles, in the columns of the contract."""
    rng = np.random.default_rng(seed)
    start = dt.date.fromisoformat(first)
    keys = [(store, sku, start + dt.timedelta(day)) for store in (1, 2) for sku in (1, 2, 3) for day in range(days)]
    frame = pd.DataFrame(keys, columns=["store", "sku", "day"])
    frame["price"] = rng.uniform(1, 3, len(frame)).round(2)
    frame["promo"] = rng.random(len(frame)) < 0.3
    frame["color"] = rng.choice(["red", "blue"], len(frame))
    noise = rng.normal(0, 0.3, len(frame))
    frame["sales"] = (10 * frame["store"] + frame["sku"] - 2 * frame["price"] + 3 * frame["promo"] + noise).round(3)
    return frame


def history(days: int = 40, *, first: str = "2026-01-01", seed: int = 1) -> str:
    """The same as CSV."""
    return sales(days, first=first, seed=seed).to_csv(index=False)


def scoring(days: int = 3, *, first: str = "2026-06-01", seed: int = 2) -> str:
    """Rows without their target, as CSV."""
    return sales(days, first=first, seed=seed).drop(columns="sales").to_csv(index=False)
