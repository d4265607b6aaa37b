"""Budgets as the operator has them: set and removed, watched over all tenants, and what is told and held by them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from infra.database.audit import SOMEBODY, Actor, Audit
from infra.database.budget_tables import ALL, BudgetAlertRow, BudgetRow, BudgetShareRow
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.operator import Operator
from infra.database.runs import run_of
from infra.database.spending import (
    SPENT_BY_ALL,
    SPENT_BY_TENANTS,
    budget_of,
    covered,
    month_of,
    month_start,
    spent_on_run,
)
from infra.database.tables import TenantRow, table
from tasks.domain.budget import Budget, Claim, Level, Period, Standing, share_out
from tasks.domain.errors import InvalidDefinition, NotFound
from tasks.domain.run import RunStatus

BUDGETS, ALERTS, SHARES = table(BudgetRow), table(BudgetAlertRow), table(BudgetShareRow)
TENANTS = table(TenantRow)

CURRENCIES = text("SELECT DISTINCT currency FROM price_rates ORDER BY currency")

HOLD = text(
    """
    WITH held AS (
        SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:use_cases AS text[]), CAST(:reasons AS text[]))
            AS h (tenant, use_case, reason)
    ), wanted AS (
        SELECT j.tenant, j.job_id,
               (SELECT reason FROM held AS h WHERE h.tenant = j.tenant AND h.use_case IN ('', j.use_case)
                ORDER BY h.use_case DESC LIMIT 1) AS reason
        FROM jobs AS j WHERE j.status = 'waiting' AND (j.held IS NOT NULL OR j.tenant = ANY(CAST(:tenants AS text[])))
    )
    UPDATE jobs AS j SET held = w.reason FROM wanted AS w
    WHERE j.tenant = w.tenant AND j.job_id = w.job_id AND j.held IS DISTINCT FROM w.reason
    """
)


OPEN_RUNS = text(
    """
    SELECT * FROM runs AS r
    WHERE r.tenant = ANY(CAST(:tenants AS text[])) AND r.stage IN ('training', 'scoring')
      AND (r.status IN ('running', 'stopped') OR r.finished_at > now() - interval '10 minutes')
      AND NOT EXISTS (SELECT FROM runs AS later WHERE (later.tenant, later.use_case, later.stage)
                                                    = (r.tenant, r.use_case, r.stage) AND later.run_id > r.run_id)
    """
)


class Held(NamedTuple):
    """Whose new runs are refused, and why. No use case: all of the tenant's."""

    tenant: str
    use_case: str
    reason: str


Spent = Mapping[str, Mapping[str, Decimal]]
"""By tenant, and then by use case."""


@dataclass(frozen=True)
class Budgets:
    """All budgets. Only the operator's processes have it; a tenant's run sees what its tenant may spend."""

    cluster: Cluster
    by: Actor = SOMEBODY

    def set(self, budget: Budget) -> Budget | None:
        """Sets a budget, in place of an earlier one of that scope and period, which is returned. What was told of that
        one is told again when it happens again. Raises `NotFound`."""
        if budget.tenant is not None:
            tenant = Operator(self.cluster).tenant(budget.tenant)
            if budget.use_case is not None:
                tenant.use_case(budget.use_case)
        key = _key(budget.tenant, budget.use_case, budget.period)
        values = {**budget.model_dump(include={"hard", "soft", "currency", "priority"}), "set_at": func.now()}
        statement = insert(BUDGETS).values({**key, **values})
        once = secrets.token_hex(16)

        def work(connection: Connection) -> Budget | None:
            before = self._one(connection, key)
            connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))
            if before is not None and (before.hard, before.soft) != (budget.hard, budget.soft):
                connection.execute(delete(ALERTS).where(*(ALERTS.c[name] == key[name] for name in key)))
            self._tell(connection, "set", budget, once)
            return before

        return transact(self.cluster.operator_url, work)

    def remove(self, tenant: str | None, use_case: str | None, period: Period) -> Budget:
        """Removes a budget, and what was told of it. Raises `NotFound`."""
        key = _key(tenant, use_case, period)
        once = secrets.token_hex(16)

        def work(connection: Connection) -> Budget | None:
            budget = self._one(connection, key)
            if budget is not None:
                connection.execute(delete(BUDGETS).where(*(BUDGETS.c[name] == key[name] for name in key)))
                if tenant is None:
                    connection.execute(delete(SHARES))
                self._tell(connection, "remove", budget, once)
            return budget

        removed = transact(self.cluster.operator_url, work)
        if removed is None:
            whose = " ".join(filter(None, (tenant, use_case))) or "the platform"
            raise NotFound(f"{whose} has no budget per {period}", hint="orchard budgets list")
        return removed

    def all(self, tenant: str | None = None) -> list[Budget]:
        """The platform's budget first, then the tenants'; or those of one tenant."""
        order = [BUDGETS.c.tenant, BUDGETS.c.use_case, BUDGETS.c.period]
        query = select(BUDGETS).where(*([] if tenant is None else [BUDGETS.c.tenant == tenant])).order_by(*order)
        return transact(
            self.cluster.operator_url,
            lambda connection: [budget_of(row) for row in connection.execute(query).mappings()],
        )

    def currency(self) -> str:
        """The price books'. Raises `InvalidDefinition` where there are none."""
        found = transact(self.cluster.operator_url, lambda connection: connection.scalars(CURRENCIES).all())
        if not found:
            raise InvalidDefinition(
                "there are no prices, so nothing costs anything", hint="orchard costs prices --set FILE"
            )
        return str(found[0])

    def standings(self, budgets: Sequence[Budget]) -> list[Standing]:
        """What was spent of each budget; of one per run, on the latest run of each stage."""
        now = datetime.now(UTC)
        monthly = [each for each in budgets if each.period is Period.MONTH]
        spent = {currency: self._spent(monthly, currency, now) for currency in {each.currency for each in monthly}}
        found = [_standing(each, spent[each.currency], month_of(now)) for each in monthly]
        return found + self._standings_of_runs([each for each in budgets if each.period is Period.RUN])

    def share_platform(self, standings: Sequence[Standing]) -> list[Standing]:
        """Stores where each tenant has to stop by its share of the platform's budget, which is among the standings, and
        returns where each stands. Nothing without such a budget."""
        whole = next((each for each in standings if each.budget.tenant is None), None)
        if whole is None:
            leftover = delete(SHARES).where(SHARES.c.month == month_of(datetime.now(UTC)))
            transact(self.cluster.operator_url, lambda connection: connection.execute(leftover))
            return []
        budget, month = whole.budget, whole.about
        own = {each.budget.tenant: each for each in standings if _of_tenant(each.budget)}
        spent = self._spent([budget], budget.currency, datetime.now(UTC))
        claims = []
        for tenant in transact(self.cluster.operator_url, lambda c: c.scalars(select(TENANTS.c.tenant)).all()):
            cost = sum(spent.get(tenant, {}).values(), Decimal(0))
            standing = own.get(tenant)
            need = max(Decimal(0), standing.limit - standing.spent) if standing is not None else Decimal(0)
            claims.append(Claim(tenant, cost, standing.budget.priority if standing else 0, need))
        limits = share_out(budget.hard, claims)
        rows = [
            {"tenant": name, "month": month, "stop_at": stop_at, "currency": budget.currency}
            for name, stop_at in limits.items()
        ]
        statement = insert(SHARES)
        changed = {name: statement.excluded[name] for name in ("stop_at", "currency")}
        statement = statement.on_conflict_do_update(index_elements=["tenant", "month"], set_=changed)

        def store(connection: Connection) -> None:
            connection.execute(delete(SHARES).where(SHARES.c.month < month))
            if rows:
                connection.execute(statement, rows)

        transact(self.cluster.operator_url, store)
        return [
            Standing(budget=budget, spent=each.spent, limit=limits[each.tenant], about=month, tenant=each.tenant)
            for each in claims
        ]

    def tell_once(self, standing: Standing, level: Level) -> bool:
        """Notes that a limit was told; False when it had been, in that month or of that run."""
        budget = standing.budget
        key = {**_key(budget.tenant, budget.use_case, budget.period), "about": standing.about, "level": level.value}
        there = select(BUDGETS.c.tenant).where(
            *(BUDGETS.c[name] == key[name] for name in ("tenant", "use_case", "period"))
        )
        statement = insert(ALERTS).values(key).on_conflict_do_nothing().returning(ALERTS.c.level)

        def work(connection: Connection) -> bool:
            if connection.execute(there.with_for_update()).first() is None:
                return False  # it was removed just now
            return connection.execute(statement).first() is not None

        return transact(self.cluster.operator_url, work)

    def hold(self, held: Iterable[Held]) -> int:
        """Jobs of these wait until they are not among them any more; returns how many began or ceased to."""
        rows = list(held)
        values = {
            "tenants": [each.tenant for each in rows],
            "use_cases": [each.use_case for each in rows],
            "reasons": [each.reason for each in rows],
        }
        return transact(self.cluster.operator_url, lambda connection: connection.execute(HOLD, values).rowcount)

    def _spent(self, budgets: Sequence[Budget], currency: str, now: datetime) -> Spent:
        """Of the tenants that the budgets are about, in the database where each one's rows are: what a move has left
        elsewhere does not count twice."""
        everybody = any(each.tenant is None for each in budgets)
        values: dict[str, object] = {"currency": currency, "since": month_start(now), "until": now + timedelta(days=1)}
        query = SPENT_BY_ALL if everybody else SPENT_BY_TENANTS
        if not everybody:
            values["tenants"] = sorted({str(each.tenant) for each in budgets})
        found: dict[str, dict[str, Decimal]] = {}
        urls = Operator(self.cluster).data_urls()
        for silo, url in urls.items():
            for row in transact(url, lambda connection: connection.execute(query, values).all()):
                if silo is not None or row.tenant not in urls:
                    found.setdefault(row.tenant, {})[row.use_case] = row.cost
        return found

    def _standings_of_runs(self, budgets: Sequence[Budget]) -> list[Standing]:
        """Where runs stand that budgets per run cover: those that work, were stopped, or ended just now."""
        tenants = sorted({str(each.tenant) for each in budgets})

        def read(connection: Connection) -> list[Standing]:
            found = []
            for row in connection.execute(OPEN_RUNS, {"tenants": tenants}).mappings().all():
                run = run_of(row)
                for budget in budgets:
                    if budget.tenant == row["tenant"] and budget.covers(run.use_case):
                        standing = Standing(
                            budget=budget,
                            spent=spent_on_run(connection, row["tenant"], run, budget.currency),
                            limit=budget.hard,
                            about=f"run {run.run_id}",
                            use_case=run.use_case,
                            refuses=run.status is RunStatus.STOPPED,
                        )
                        found.append(standing)
            return found

        urls = Operator(self.cluster).data_urls().values() if budgets else ()
        return [each for url in urls for each in transact(url, read)]

    def _one(self, connection: Connection, key: Mapping[str, str]) -> Budget | None:
        query = select(BUDGETS).where(*(BUDGETS.c[name] == key[name] for name in key)).with_for_update()
        row = connection.execute(query).mappings().one_or_none()
        return None if row is None else budget_of(row)

    def _tell(self, connection: Connection, act: str, budget: Budget, once: str) -> None:
        facts = budget.model_dump(mode="json", exclude={"tenant"})
        audit = Audit(self.cluster)
        audit.add(connection, f"budget.{act}", "done", by=self.by, tenant=budget.tenant, once=once, **facts)


def _key(tenant: str | None, use_case: str | None, period: Period) -> dict[str, str]:
    return {"tenant": tenant or ALL, "use_case": use_case or ALL, "period": period.value}


def _of_tenant(budget: Budget) -> bool:
    return budget.tenant is not None and budget.use_case is None and budget.period is Period.MONTH


def _standing(budget: Budget, spent: Spent, month: str) -> Standing:
    if budget.tenant is None:
        total = sum((cost for each in spent.values() for cost in each.values()), Decimal(0))
    else:
        total = covered(budget, spent.get(budget.tenant, {}))
    return Standing(budget=budget, spent=total, limit=budget.hard, about=month)
