"""Which models of a use case earn what they cost."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pandas as pd

from deployments.platform import Platform
from infra.database.model_costs import model_costs
from infra.database.prices import PriceBooks
from tasks.costs.worth import saved, worth

FINE = Decimal("0.000000001")
"""Models cost little."""


class Judged(NamedTuple):
    """One row per partition with a model of its own (`tasks.costs.worth.WORTH`), and the currency of its cost."""

    rows: pd.DataFrame
    currency: str

    @property
    def saved(self) -> Decimal:
        """What thirty days of the models that do not earn their cost come to."""
        return saved(self.rows)

    def summary(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "models": len(self.rows),
            "do_not_earn": int((~self.rows["earns"]).sum()),
            "cost": sum(self.rows["cost"], Decimal(0)).quantize(FINE),
            "saved": self.saved.quantize(FINE),
            "currency": self.currency,
        }

    def sentence(self) -> str:
        """For people."""
        facts = self.summary()
        unknown = int(self.rows["gain"].isna().sum())
        told = (
            f"{facts['do_not_earn']:,} of {facts['models']:,} models do not earn their cost; without them, "
            f"{facts['saved']:f} of {facts['cost']:f} {self.currency} for thirty days of training and storage are saved"
        )
        return f"{told}; {unknown:,} were not compared with a tenant-wide model" if unknown else told


def judge(platform: Platform, tenant: str, use_case: str, min_gain: float) -> Judged:
    """Judges the models of the latest training run. Raises `NotFound` for an unknown tenant or use case."""
    space = platform.open_space(tenant)
    space.tenant.use_case(use_case)
    book = PriceBooks(platform.cluster).all().book_at(datetime.now(UTC))
    return Judged(worth(model_costs(space.records.url, tenant, use_case), book.cost, min_gain), book.currency)
