"""Costs add up, whatever they are grouped by; overhead and charges are spread by the stated rules."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pandas as pd
import pytest

from tasks.costs.ledger import Entry, MonthUse, bills, grouped, ledger, total
from tasks.costs.spans import spans_of
from tasks.costs.worth import saved, worth
from tasks.domain.months import Month
from tasks.domain.prices import PriceHistory, Prices
from tasks.domain.tenant import Membership, Tier
from tests.costs.test_bills import book

NOVEMBER = Month(year=2026, month=11)
HISTORY = PriceHistory(books=(book(since=date(2026, 1, 1)),))
SINCE = datetime(2025, 1, 1, tzinfo=UTC)
SPANS = spans_of(NOVEMBER, HISTORY, [])
GB_MONTH = 1e9 * NOVEMBER.seconds


def row(tenant: str, stage: str, span: int, cpu_h: float = 0, **numbers: float) -> dict[str, object]:
    zeros = dict.fromkeys(("waste_s", "byte_seconds", "predictions", "requests", "models_trained", "models_reused"), 0)
    return {
        "tenant": tenant, "use_case": "sales", "stage": stage, "span": span, "cpu_s": cpu_h * 3600, **zeros, **numbers,
    }  # fmt: skip


def measured(*rows: dict[str, object], overhead: dict[int, float] | None = None, tenants: str = "ab") -> MonthUse:
    memberships = {tenant: [Membership(SINCE, Tier.STANDARD)] for tenant in tenants}
    return MonthUse(NOVEMBER, SPANS, pd.DataFrame(rows), memberships, overhead or {}, {("a", "sales"): "logistics"})


USED = (
    row("a", "training", 0, 12, models_trained=5),
    row("a", "scoring", 1, 3, predictions=2_000_000),
    row("a", "waste", 1, waste_s=3600),
    row("a", "storage", 0, byte_seconds=2 * GB_MONTH),
    row("b", "training", 4, 8),
)


def entries() -> list[Entry]:
    return ledger(measured(*USED, overhead={0: 3600.0 * 24}), HISTORY)


def test_costs_are_cpu_with_waste_and_storage() -> None:
    by_tenant = {entry.tenant: entry for entry in grouped(entries(), ("tenant",))}
    assert by_tenant["a"].cost == Decimal("0.84")  # 16 hours at 0.05, 2 GB-months at 0.02
    assert by_tenant["b"].cost == Decimal("0.40")
    assert by_tenant["a"].waste_hours == 1


def test_overhead_is_spread_by_cpu() -> None:
    by_tenant = {entry.tenant: entry.overhead for entry in grouped(entries(), ("tenant",))}
    assert by_tenant == {"a": Decimal("0.80"), "b": Decimal("0.40")}  # 24 hours at 0.05; 16 and 8 hours


def test_overhead_without_any_work_is_nobodys() -> None:
    found = ledger(measured(row("a", "storage", 0, byte_seconds=1), overhead={3: 7200.0}), HISTORY)
    assert [(entry.tenant, entry.overhead) for entry in grouped(found, ("tenant",)) if entry.overhead] == [
        ("", Decimal("0.10"))
    ]


def test_charges_are_the_bills_and_waste_is_charged_to_nobody() -> None:
    found, charged = entries(), bills(measured(*USED), HISTORY)
    assert charged["a"].total == Decimal("36.00")  # 30, 5 hours above the included ones, a million predictions
    by_stage = {entry.stage: entry.charge for entry in grouped((e for e in found if e.tenant == "a"), ("stage",))}
    assert by_stage["waste"] == 0
    assert sum(by_stage.values()) == pytest.approx(Decimal("36.00"))
    assert by_stage["training"] == pytest.approx(Decimal(36) * Decimal("0.60") / Decimal("0.79"))


def test_a_tenant_that_used_nothing_still_pays_its_fee() -> None:
    found = ledger(measured(*USED, tenants="abc"), HISTORY)
    idle = [entry for entry in found if entry.tenant == "c"]
    assert [(entry.stage, entry.charge, entry.cost) for entry in idle] == [("plan", Decimal("30.00"), 0)]


@pytest.mark.parametrize("by", ["tenant", "use_case", "stage", "tier", "team", "day", "month", "tenant,stage,day"])
def test_the_parts_are_the_whole_whatever_it_is_grouped_by(by: str) -> None:
    found = entries()
    parts, whole = total(grouped(found, by.split(","))), total(found)
    assert (parts.used, parts.waste_hours) == (whole.used, whole.waste_hours)
    assert parts.cost == whole.cost == Decimal("1.24")
    assert parts.overhead == pytest.approx(Decimal("1.20"))
    assert parts.charge == pytest.approx(Decimal("66.00"))


def test_days_and_teams_are_named() -> None:
    assert [entry.day for entry in grouped(entries(), ("day",))] == ["2026-11-01", "2026-11-02", "2026-11-05"]
    assert [entry.team for entry in grouped(entries(), ("team",))] == ["", "logistics"]


def test_worth() -> None:
    models = pd.DataFrame(
        [
            ("good", "lightgbm", 100, 8.0, 10.0, 1_000_000_000, 2, 7200.0),
            ("poor", "lightgbm", 100, 9.99, 10.0, 0, 1, 3600.0),
            ("worse", "linear", 100, 11.0, 10.0, 0, 1, 3600.0),
            ("unknown", "linear", 100, 11.0, float("nan"), 0, 1, 3600.0),
            ("shared", "tenant_wide", 100, 10.0, 10.0, 0, 1, 3600.0),
        ],
        columns=[
            "partition", "estimator", "rows", "metric", "tenant_wide_metric", "model_bytes", "trainings", "training_s",
        ],
    )  # fmt: skip
    judged = worth(models, Prices(cpu_hour=Decimal("0.05"), gb_month=Decimal("0.02")), 0.01)
    assert list(judged["partition"]) == ["worse", "poor", "good", "unknown"]
    assert list(judged["earns"]) == [False, False, True, True]
    assert list(judged["cost"]) == [Decimal("0.05"), Decimal("0.05"), Decimal("0.14"), Decimal("0.05")]
    assert saved(judged) == Decimal("0.10")
