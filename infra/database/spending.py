"""What was spent so far: what was metered, times the prices of its time. Asked at each batch, so it is one query.

CPU counts as it was used: of finished work what is booked, and of processes what no finished work explains, which is
their start, what a batch in progress has used up to the latest reading, and what a kill wasted. Predictions count when
their batch is finished. Bytes that are kept are left out: their month is not over, and stopping work frees none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Connection, RowMapping, select, text

from infra.database.budget_tables import BudgetRow, BudgetShareRow
from infra.database.tables import table
from infra.database.tenant_rows import TenantRows
from tasks.domain.budget import Budget, Level, Period, Standing
from tasks.domain.run import Run

BUDGETS, SHARES = table(BudgetRow), table(BudgetShareRow)

_PRICED = """
    JOIN price_rates AS r
      ON r.tier = {0}.tier AND r.currency = :currency
     AND r.valid_from <= {0}.{1} AND (r.valid_to > {0}.{1}) IS NOT FALSE
"""

SPENT = """
    WITH work AS MATERIALIZED (
        SELECT u.tenant, u.use_case, r.cpu_hour, r.million_predictions, sum(u.cpu_s) AS cpu_s,
               coalesce(sum(u.rows_out) FILTER (WHERE u.stage IN ('scoring', 'online')), 0) AS predictions
        FROM usage AS u {priced_usage}
        WHERE {whose_usage} AND u.at >= :since
        GROUP BY u.tenant, u.use_case, r.cpu_hour, r.million_predictions
    ), unexplained AS MATERIALIZED (
        SELECT p.tenant, p.use_case, p.tier, p.read_at,
               p.cpu_s - coalesce((SELECT sum(x.cpu_s) FROM usage AS x
                                   WHERE x.tenant = p.tenant AND x.process = p.process), 0) AS cpu_s
        FROM processes AS p WHERE {whose_processes} AND p.read_at >= :since
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

SPENT_BY_RUN = text(
    f"""
    SELECT round(coalesce(sum(u.cpu_s::numeric * r.cpu_hour / 3600
               + CASE WHEN u.stage = 'scoring' THEN u.rows_out ELSE 0 END / 1e6 * r.million_predictions), 0), 6)
    FROM usage AS u {_PRICED.format("u", "at")}
    WHERE u.tenant = :tenant AND u.run_id = :run_id AND u.at >= :since
    """  # noqa: S608  # names of ours
)
"""What finished batches of a run used, and the rest of its attempts that have ended."""


def month_of(now: datetime) -> str:
    """The calendar month, in UTC: `2026-11`."""
    return f"{now.astimezone(UTC):%Y-%m}"


def month_start(now: datetime) -> datetime:
    """When the calendar month began, in UTC."""
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def spent_by_use_case(connection: Connection, tenant: str, currency: str, since: datetime) -> dict[str, Decimal]:
    """What a tenant has spent since then, by use case (an empty one: before a process knew what it works on)."""
    values = {"tenant": tenant, "currency": currency, "since": since}
    return {row.use_case: row.cost for row in connection.execute(SPENT_BY_TENANT, values)}


def spent_on_run(connection: Connection, tenant: str, run: Run, currency: str) -> Decimal:
    """What a run has cost so far, over all of its attempts."""
    values = {"tenant": tenant, "run_id": run.run_id, "currency": currency, "since": run.started_at}
    return Decimal(connection.scalar(SPENT_BY_RUN, values) or 0)


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

        def read(connection: Connection) -> list[Standing]:
            spent: dict[str, dict[str, Decimal]] = {}
            found = []
            for each in chosen:
                budget = each.budget
                if budget.period is Period.RUN and run is not None:
                    cost, about = spent_on_run(connection, self.tenant, run, budget.currency), f"run {run.run_id}"
                else:
                    if budget.currency not in spent:
                        since = month_start(now)
                        spent[budget.currency] = spent_by_use_case(connection, self.tenant, budget.currency, since)
                    cost, about = covered(budget, spent[budget.currency]), month_of(now)
                found.append(each.model_copy(update={"spent": cost, "about": about}))
            return found

        return self._transact(read) if chosen else []

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
            whole = Budget(hard=row["hard"], soft=row["hard"], currency=row["currency"])
            mine_of_it = Standing(budget=whole, spent=Decimal(0), limit=row["stop_at"], about="", tenant=self.tenant)
            limits.append(mine_of_it)
        return limits
