"""What the demo's tenants got, gathered from the database: one account per tenant and use case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd

from deployments.demo.compare import (
    Comparison,
    classification_scores,
    compare_arrivals,
    summarise,
    tenants_of,
)
from deployments.demo.data import HISTORY_UNTIL, SCORED, Flights
from deployments.platform import Platform
from infra.space import TenantSpace
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import RunStatus
from tasks.domain.tenant import Tenant

ARRIVALS, DEPARTURES = "arrival-delay", "late-departure"
ROWS = ("uploaded", "accepted", "quarantined", "duplicate")
OUTCOMES = ("trained", "reused", "rejected", "failed")
ANSWERS = ("own", "tenant_wide", "naive")


@dataclass
class Account:
    """One tenant's use case: rows by purpose, partitions by outcome, who serves them, verdicts."""

    tenant: str
    name: str
    tier: str
    use_case: str
    rows: dict[str, dict[str, int]]
    partitions: dict[str, int]
    unseen: int
    serving: dict[str, int]
    promoted: int
    held: int
    scored: int


@dataclass
class Results:
    """All accounts, the comparison on November, and the seconds that it took."""

    accounts: list[Account]
    arrivals: Comparison | None
    by_tenant: dict[str, Comparison | None]
    departures: dict[str, float]
    tenant_seconds: dict[str, float]
    errors: pd.DataFrame
    seconds: float = 0.0
    health: list[dict[str, object]] = field(default_factory=list)

    def of(self, use_case: str) -> list[Account]:
        """The accounts of one use case."""
        return [account for account in self.accounts if account.use_case == use_case]

    def total(self, use_case: str) -> dict[str, int]:
        """Sums over the tenants: rows per purpose and state, partitions per outcome, answers, verdicts."""
        accounts = self.of(use_case)
        sums = {
            f"{purpose}_{state}": sum(account.rows.get(purpose, {}).get(state, 0) for account in accounts)
            for purpose in Purpose
            for state in ROWS
        }
        sums |= {outcome: sum(account.partitions.get(outcome, 0) for account in accounts) for outcome in OUTCOMES}
        sums |= {f"served_{who}": sum(account.serving.get(who, 0) for account in accounts) for who in ANSWERS}
        for name in ("unseen", "promoted", "held", "scored"):
            sums[name] = sum(getattr(account, name) for account in accounts)
        return sums

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "accounts": [asdict(account) for account in self.accounts],
            "totals": {use_case: self.total(use_case) for use_case in (ARRIVALS, DEPARTURES)},
            "arrivals": asdict(self.arrivals) if self.arrivals else None,
            "departures": self.departures,
            "tenant_seconds": self.tenant_seconds,
            "seconds": self.seconds,
        }


def gather(platform: Platform, flights: Flights, tenants: Sequence[Tenant], seconds: Mapping[str, float]) -> Results:
    """Reads every tenant's receipts and predictions through its own space."""
    accounts: list[Account] = []
    predictions: dict[str, list[pd.DataFrame]] = {ARRIVALS: [], DEPARTURES: []}
    for tenant in tenants:
        space = platform.open_space(tenant.id)
        for use_case in tenant.use_cases:
            accounts.append(_account(space, use_case.id))
            rows = space.records.predictions(use_case.id)
            predictions[use_case.id].append(rows.assign(tenant=tenant.id))
    errors = _arrival_errors(flights, [tenant.id for tenant in tenants], pd.concat(predictions[ARRIVALS]))
    return Results(
        accounts=accounts,
        arrivals=summarise(errors) if len(errors) else None,
        by_tenant=tenants_of(errors, [tenant.id for tenant in tenants]),
        departures=_departure_scores(flights, pd.concat(predictions[DEPARTURES])),
        tenant_seconds=dict(seconds),
        errors=errors,
    )


def _account(space: TenantSpace, use_case: str) -> Account:
    records = space.records
    uploads = records.uploads(use_case)
    finished = [run for run in records.runs(use_case) if run.status is RunStatus.FINISHED]
    training = next((run for run in finished if run.stage is Stage.TRAINING), None)
    scoring = next((run for run in finished if run.stage is Stage.SCORING), None)
    champion = next((release for release in records.releases(use_case) if release.status == "champion"), None)
    served = records.verdicts(use_case, champion.version)["answer"] if champion else pd.Series(dtype="str")
    scored = scoring.receipt if scoring else {}
    return Account(
        tenant=space.tenant.id,
        name=space.tenant.name,
        tier=space.tenant.tier.value,
        use_case=use_case,
        rows={
            upload.purpose.value: {
                "uploaded": upload.rows_read,
                "accepted": upload.rows_accepted,
                "quarantined": upload.rows_quarantined,
                "duplicate": upload.rows_duplicate,
            }
            for upload in uploads
        },
        partitions={name: _number(training.receipt, name) for name in OUTCOMES} if training else {},
        unseen=_number(scored, "unseen_partitions"),
        serving={str(who): int(count) for who, count in served.value_counts().items()},
        promoted=champion.promoted if champion else 0,
        held=champion.held if champion else 0,
        scored=_number(scored, "rows"),
    )


def _number(receipt: Mapping[str, object], name: str) -> int:
    value = receipt.get(name, 0)
    return int(value) if isinstance(value, int | float) else 0


def _keyed(flights: pd.DataFrame) -> pd.DataFrame:
    """Flights with the row key as the results have it: time, origin, flight."""
    text = flights["time_hour"] + "," + flights["origin"] + "," + flights["flight"].astype(str)
    return flights.assign(row_key=text, tenant=flights["carrier"].str.lower())


def _arrival_errors(flights: Flights, tenants: Sequence[str], predictions: pd.DataFrame) -> pd.DataFrame:
    table = flights.table[flights.table["carrier"].str.lower().isin(tenants)].dropna(subset=["arr_delay"])
    november = _keyed(table[table["month"] == SCORED])
    wanted = predictions[["tenant", "row_key", "prediction"]]
    arrivals = november.merge(wanted, on=["tenant", "row_key"], how="inner").reset_index(drop=True)
    if len(arrivals) != len(november):
        raise AssertionError(f"{len(november)} arrivals, but {len(arrivals)} of them were predicted")
    return compare_arrivals(table[table["month"] <= HISTORY_UNTIL], arrivals)


def _departure_scores(flights: Flights, predictions: pd.DataFrame) -> dict[str, float]:
    november = _keyed(flights.table[flights.table["month"] == SCORED].dropna(subset=["dep_delay"]))
    wanted = predictions[["tenant", "row_key", "probabilities", "baseline"]]
    rows = november.merge(wanted, on=["tenant", "row_key"], how="inner")
    if rows.empty:
        return {}
    return classification_scores(
        (rows["dep_delay"] > 15).to_numpy().astype(np.int64),
        np.array([values[1] for values in rows["probabilities"]]),
        np.array([values[1] for values in rows["baseline"]]),
    )
