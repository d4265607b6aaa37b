"""What was spent so far: what was metered, times the prices of its time. Asked at each batch, so it is one query.

CPU counts as it was used: of finished work what is booked, and of processes what no finished work explains, which is
their start, what a batch in progress has used up to the latest reading, and what a kill wasted. Predictions count when
their batch is finished. Bytes that are kept are left out: their month is not over, and stopping work frees none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, select, text

from infra.database.budget_tables import BudgetRow, BudgetShareRow
from infra.database.connect import transact
from infra.database.tables import table
from infra.database.tenant_rows import TenantRows
from tasks.domain.budget import PLACES, Budget, Level, Period, Standing, money
from tasks.domain.run import Run

BUDGETS, SHARES = table(BudgetRow), table(BudgetShareRow)

_PRICED = """
    JOIN price_rates AS r
      ON r.tier = {0}.tier AND r.currency = :currency
     AND r.valid_from <= {0}.{1} AND (r.valid_to > {0}.{1}) IS NOT FALSE
"""

OPEN_S = 60
"""Work is booked within a transaction that ends sooner than this, and processes that live are read more often."""

REMEMBERED_S = 300

SPENT = """
    WITH work AS MATERIALIZED (
        SELECT u.tenant, u.use_case, r.cpu_hour, r.million_predictions, sum(u.cpu_s) AS cpu_s,
               coalesce(sum(u.rows_out) FILTER (WHERE u.stage IN ('scoring', 'online')), 0) AS predictions
        FROM usage AS u {priced_usage}
        WHERE {whose_usage} AND u.at >= :since AND u.at < :until
        GROUP BY u.tenant, u.use_case, r.cpu_hour, r.million_predictions
    ), unexplained AS MATERIALIZED (
        SELECT p.tenant, p.use_case, p.tier, p.read_at,
               p.cpu_s - coalesce((SELECT sum(x.cpu_s) FROM usage AS x
                                   WHERE x.tenant = p.tenant AND x.process = p.process), 0) AS cpu_s
        FROM processes AS p WHERE {whose_processes} AND p.read_at >= :since AND p.read_at < :until
    ), costs AS (
        SELECT tenant, use_case, cpu_s::numeric * cpu_hour / 3600 + predictions / 1e6 * million_predictions AS cost
        FROM work
        UNION ALL
        SELECT p.tenant, p.use_case, p.cpu_s::numeric * r.cpu_hour / 3600
        FROM unexplained AS p {priced_processes}
        WHERE p.cpu_s > 0
    )
    SELECT tenant, use_case, round(sum(cost), 6) AS cost FROM costs GROUP BY tenant, use_case
"""


def _spent(usage: str, processes: str) -> str:
    return SPENT.format(
        priced_usage=_PRICED.format("u", "at"),
        priced_processes=_PRICED.format("p", "read_at"),
        whose_usage=usage,
        whose_processes=processes,
    )


SPENT_BY_TENANT = text(_spent("u.tenant = :tenant", "p.tenant = :tenant"))
SPENT_BY_TENANTS = text(_spent("u.tenant = ANY(:tenants)", "p.tenant = ANY(:tenants)"))
SPENT_BY_ALL = text(_spent("true", "true"))

SPENT_BY_RUNS = text(
    """
    SELECT u.run_id, r.currency,
           round(sum(u.cpu_s::numeric * r.cpu_hour / 3600
                     + CASE WHEN u.stage = 'scoring' THEN u.rows_out ELSE 0 END / 1e6 * r.million_predictions), 6)
               AS cost
    FROM usage AS u
    JOIN price_rates AS r ON r.tier = u.tier AND r.valid_from <= u.at AND (r.valid_to > u.at) IS NOT FALSE
    WHERE u.tenant = :tenant AND u.run_id = ANY(:run_ids) AND u.at >= :since
    GROUP BY u.run_id, r.currency
    """
)
"""What finished batches of runs used, and the rest of their attempts that have ended."""


def month_of(now: datetime) -> str:
    """The calendar month, in UTC: `2026-11`."""
    return f"{now.astimezone(UTC):%Y-%m}"


def month_start(now: datetime) -> datetime:
    """When the calendar month began, in UTC."""
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


class _Settled(NamedTuple):
    """What was spent up to a moment after which nothing of before is booked any more; `read_s` is a monotonic clock."""

    until: datetime
    read_s: float
    spent: dict[str, Decimal]


_settled: dict[tuple[str, str, str], _Settled] = {}


def spent_by_use_case(url: str, tenant: str, currency: str, now: datetime) -> dict[str, Decimal]:
    """What a tenant has spent this month, by use case (an empty one: before a process knew what it works on).

    What is older than a minute is remembered for a few minutes, because it does not change any more: all that is asked
    at each batch is the work of the last minutes.
    """

    def read(since: datetime, until: datetime) -> dict[str, Decimal]:
        values = {"tenant": tenant, "currency": currency, "since": since, "until": until}
        return transact(url, lambda c: {row.use_case: row.cost for row in c.execute(SPENT_BY_TENANT, values)})

    key, start = (url, tenant, currency), month_start(now)
    settled = _settled.get(key)
    if settled is None or settled.until < start or time.monotonic() - settled.read_s > REMEMBERED_S:
        until = max(start, now - timedelta(seconds=OPEN_S))
        settled = _settled[key] = _Settled(until, time.monotonic(), read(start, until))
    recent = read(settled.until, now + timedelta(days=1))
    known = settled.spent
    return {name: known.get(name, Decimal(0)) + recent.get(name, Decimal(0)) for name in {*known, *recent}}


def spent_on_runs(connection: Connection, tenant: str, runs: Sequence[Run]) -> dict[tuple[int, str], Decimal]:
    """What runs have cost so far, over all of their attempts, by run and currency."""
    since = min((run.started_at for run in runs), default=None)
    values = {"tenant": tenant, "run_ids": [run.run_id for run in runs], "since": since}
    return {(row.run_id, row.currency): row.cost for row in connection.execute(SPENT_BY_RUNS, values)}


def spent_on_run(connection: Connection, tenant: str, run: Run, currency: str) -> Decimal:
    """What one has cost so far, in a currency."""
    return spent_on_runs(connection, tenant, [run]).get((run.run_id, currency), Decimal(0))


def covered(budget: Budget, spent: Mapping[str, Decimal]) -> Decimal:
    """What counts of a tenant's costs by use case."""
    return sum((cost for use_case, cost in spent.items() if budget.covers(use_case)), Decimal(0))


def budget_of(row: RowMapping) -> Budget:
    """A row as a value."""
    known = {name: row[name] for name in ("period", "hard", "soft", "currency", "priority")}
    return Budget(tenant=row["tenant"] or None, use_case=row["use_case"] or None, **known)


class BudgetRecords(TenantRows):
    """What a tenant may spend, and has spent, read with its own login."""

    def excess(self, use_case: str, run: Run | None = None) -> Standing | None:
        """The budget whose hard limit was reached, if one was: of the use case, of its tenant, of the tenant's share of
        the platform's, or of the run."""
        standings = self.standings(use_case, run)
        return next((each for each in standings if each.level is Level.HARD), None)

    def standings(self, use_case: str | None = None, run: Run | None = None) -> list[Standing]:
        """What was spent of each budget that covers the use case, or of all; of those per run only with a run."""
        now = datetime.now(UTC)
        limits = self._transact_shared(lambda connection: self._limits(connection, month_of(now)))
        chosen = [
            each
            for each in limits
            if (use_case is None or each.budget.covers(use_case))
            and (run is not None or each.budget.period is Period.MONTH)
        ]

        spent: dict[str, dict[str, Decimal]] = {}
        found = []
        for each in chosen:
            budget = each.budget
            if budget.period is Period.RUN and run is not None:
                cost, about = self._spent_on(run, budget.currency), f"run {run.run_id}"
            else:
                if budget.currency not in spent:
                    spent[budget.currency] = spent_by_use_case(self.url, self.tenant, budget.currency, now)
                cost, about = covered(budget, spent[budget.currency]), month_of(now)
            found.append(each.model_copy(update={"spent": cost, "about": about}))
        return found

    def _spent_on(self, run: Run, currency: str) -> Decimal:
        return self._transact(lambda connection: spent_on_run(connection, self.tenant, run, currency))

    def run_costs(self, runs: Sequence[Run]) -> dict[int, str]:
        """What each run's finished work comes to so far, over all its attempts, such as `0.0123 EUR`."""
        spent = self._transact(lambda connection: spent_on_runs(connection, self.tenant, runs))
        return {run_id: f"{money(cost)} {currency}" for (run_id, currency), cost in spent.items()}

    def budgets(self) -> list[Budget]:
        """The tenant's own, per month and per run."""
        return self._transact_shared(self._budgets)

    def _budgets(self, connection: Connection) -> list[Budget]:
        mine = select(BUDGETS).where(self._own(BUDGETS)).order_by(BUDGETS.c.use_case, BUDGETS.c.period)
        return [budget_of(row) for row in connection.execute(mine).mappings()]

    def _limits(self, connection: Connection, month: str) -> list[Standing]:
        """The tenant's budgets, and where its share of the platform's ends; nothing is counted yet."""
        budgets = self._budgets(connection)
        limits = [Standing(budget=each, spent=Decimal(0), limit=each.hard, about="") for each in budgets]
        share = select(SHARES).where(self._own(SHARES), SHARES.c.month == month)
        for row in connection.execute(share).mappings():
            hard = max(row["stop_at"], PLACES)  # the platform's own is not a tenant's to know
            whole = Budget(hard=hard, soft=hard, currency=row["currency"])
            mine_of_it = Standing(budget=whole, spent=Decimal(0), limit=row["stop_at"], about="", tenant=self.tenant)
            limits.append(mine_of_it)
        return limits
