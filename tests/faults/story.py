"""A small use case with many batches, and the four uploads that take it through every stage."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tasks.domain.names import Purpose
from tasks.domain.tenant import Tenant
from tests.samples import SALES, sales_use_case, sample_tenant

USE_CASE = "sales"
STORES, SKUS = 4, 4
BATCH_ROWS, BUCKET_ROWS = 200, 300
"""With so few rows a batch and a bucket, 16 small partitions already make several buckets with several batches each."""


class Chapter(NamedTuple):
    """One upload of the story."""

    name: str
    purpose: Purpose
    path: Path


def tenant(tenant_id: str) -> Tenant:
    """A tenant with the story's use case: 16 partitions, small models, and a personal column, because of which files go
    once they are settled."""
    small = {"num_iterations": 8, "num_leaves": 5, "min_data_in_leaf": 5}
    columns = SALES["contract"]["columns"] | {"shopper": {"type": "string", "personal": "drop"}}
    use_case = sales_use_case(
        contract=SALES["contract"] | {"columns": columns, "max_bad_rows": 0.05},
        training={"min_rows": 20, "lightgbm": small, "tenant_wide": {"lightgbm": small}},
    )
    return sample_tenant(tenant_id, use_case)


def write_chapters(folder: Path) -> list[Chapter]:
    """First history, rows to score, half of their actuals, and more history for a few of the partitions.

    Every file has rows that are not accepted: bad ones, repeated ones, a key that was never seen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    past, coming = _days(rng, 0, 60), _days(rng, 60, 80)
    fresh = _days(rng, 80, 92)
    fresh = fresh[(fresh["store"] == 2) | ((fresh["store"] == 4) & (fresh["sku"] == 1))]
    unseen = coming.head(5).assign(store=90)  # a partition without any history
    bad = past.head(4).assign(price=-1.0, day="2026-12-24")
    known = coming[(coming["day"] < "2024-03-11") & (coming["store"] < 3)]
    stranger = known.head(2).assign(store=91)
    files = {
        ("history", Purpose.HISTORY): pd.concat([past, bad, past.tail(3)]),
        ("scoring", Purpose.SCORING): pd.concat([coming, unseen, coming.tail(2)]).drop(columns="sales"),
        ("actuals", Purpose.ACTUALS): pd.concat([known, stranger])[["store", "sku", "day", "sales"]],
        ("more-history", Purpose.HISTORY): pd.concat([fresh, bad.head(2), fresh.tail(1)]),
    }
    chapters = []
    for (name, purpose), rows in files.items():
        path = folder / f"{name}.csv"
        rows.to_csv(path, index=False)
        chapters.append(Chapter(name, purpose, path))
    return chapters


def _days(rng: np.random.Generator, start: int, stop: int) -> pd.DataFrame:
    """One row per store, article and day; sales follow price and promotion."""
    days = pd.date_range("2024-01-01", periods=stop)[start:].strftime("%Y-%m-%d")
    keys = pd.MultiIndex.from_product([range(1, STORES + 1), range(1, SKUS + 1), days], names=["store", "sku", "day"])
    rows = keys.to_frame(index=False)
    rows["price"] = rng.uniform(1, 9, len(rows)).round(2)
    rows["promo"] = rng.random(len(rows)) < 0.3
    rows["shopper"] = "anna"
    rows["color"] = rng.choice(["red", "green", None], len(rows))
    noise = rng.normal(0, 1, len(rows))
    level = 40 + 3 * rows["store"] + 2 * rows["sku"]
    rows["sales"] = (level - 3 * rows["price"] + 9 * rows["promo"] + noise).round(3)
    return rows
