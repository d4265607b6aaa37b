"""Price books, list prices, consumption and invoices in the database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from infra.database.audit import Actor, Audit
from infra.database.budgets import Budgets
from infra.database.cluster import Cluster, started_cluster
from infra.database.connect import transact
from infra.database.consumption import Consumption
from infra.database.invoices import Invoices, Issued
from infra.database.operator import Operator
from infra.database.prices import PriceBooks
from infra.database.storage_readings import Stored, record_stored
from infra.definitions import load_prices
from infra.settings import Settings
from tasks.domain.budget import Budget, Period
from tasks.domain.errors import InvalidDefinition
from tasks.domain.months import Month, Span
from tasks.domain.prices import PriceBook
from tasks.domain.tenant import Isolation
from tests.conftest import MakeRecords
from tests.samples import sample_tenant

LATER = date(2031, 1, 1)


def execute(cluster: Cluster, statement: str, **values: object) -> None:
    transact(cluster.operator_url, lambda connection: connection.execute(text(statement), values))


@pytest.fixture
def books(postgres: Cluster) -> Any:
    """The default book alone, before and after, and no budgets, which a book must fit."""
    execute(postgres, "DELETE FROM budgets")
    yield PriceBooks(postgres)
    execute(postgres, "DELETE FROM price_books")
    execute(postgres, "DELETE FROM price_rates")
    execute(postgres, "DELETE FROM invoices")
    from infra.database.rates import provide_default

    provide_default(postgres.operator_url)


def newer(version: str = "next", since: date = LATER, **fields: object) -> PriceBook:
    return load_prices().model_copy(update={"version": version, "valid_from": since, **fields})


def rates_of(url: str) -> list[tuple[str, int, int | None]]:
    query = text(
        "SELECT price_book, extract(year FROM valid_from)::int, extract(year FROM valid_to)::int FROM price_rates"
        " WHERE tier = 'standard' ORDER BY valid_from"
    )
    return [tuple(row) for row in transact(url, lambda connection: connection.execute(query).all())]


def test_the_default_book_is_there_at_once(books: PriceBooks, make_records: MakeRecords) -> None:
    assert books.all().books == (load_prices(),)
    assert rates_of(make_records("prices-reader").url) == [("default-1", 2020, None)]  # with the tenant's own login


def test_ones_own_first_book_takes_the_place_of_the_default(books: PriceBooks) -> None:
    dollars = newer("usd-1", date(2024, 1, 1), currency="USD")
    assert books.set(dollars)
    assert not books.set(dollars)
    assert books.all().books == (dollars,)
    assert books.set(newer("usd-2", date(2032, 1, 1), currency="USD"))
    assert rates_of(books.cluster.operator_url) == [("usd-1", 2024, 2032), ("usd-2", 2032, None)]
    with pytest.raises(InvalidDefinition, match="another currency"):
        books.set(newer("eur", date(2033, 1, 1)))
    with pytest.raises(InvalidDefinition, match="same day"):
        books.set(newer("usd-3", date(2032, 1, 1), currency="USD"))


def test_silos_have_the_list_prices_too(books: PriceBooks, operator: Operator) -> None:
    operator.onboard(sample_tenant("priced-silo").model_copy(update={"isolation": Isolation.SILO}))
    url = books.cluster.tenant_url("priced-silo", silo=True)
    assert rates_of(url) == [("default-1", 2020, None)]
    own = newer("own", date(2025, 1, 1))
    books.set(own)
    assert rates_of(url) == [("own", 2025, None)]
    transact(books.cluster.silo_url("priced-silo"), lambda c: c.execute(text("DELETE FROM price_rates")))
    assert not books.set(own)  # as after a call that was cut off
    assert rates_of(url) == [("own", 2025, None)]


def test_prices_cover_the_time_of_all_tenants(books: PriceBooks, make_records: MakeRecords) -> None:
    make_records("early")
    with pytest.raises(InvalidDefinition, match="there would be no prices"):
        books.set(newer("late", LATER))
    assert books.all().books == (load_prices(),)
    assert books.set(newer("own", date(2024, 1, 1)))
    assert books.set(newer("late", LATER))


def test_a_book_whose_currency_no_budget_has_is_refused(books: PriceBooks, make_records: MakeRecords) -> None:
    make_records("limited")
    limits = Budgets(books.cluster)
    limits.set(Budget(tenant="limited", hard=Decimal(5), soft=Decimal(4), currency="EUR"))
    dollars = newer("usd", date(2024, 1, 1), currency="USD")
    with pytest.raises(InvalidDefinition, match="would stop nothing"):
        books.set(dollars)
    limits.remove("limited", None, Period.MONTH)
    assert books.set(dollars)


def test_what_was_charged_already_keeps_its_prices(books: PriceBooks) -> None:
    first = newer("one", date(2024, 1, 1))
    books.set(first)
    since = datetime(2024, 1, 1, tzinfo=UTC)
    Invoices(books.cluster).issue(Issued("2026-10-acme", "acme", since, "2026-10", {"total": "1.00"}))
    with pytest.raises(InvalidDefinition, match="would change prices of months"):
        books.set(newer("two", date(2026, 10, 15)))
    with pytest.raises(InvalidDefinition, match="would change prices of months"):
        books.set(first.model_copy(update={"valid_to": date(2027, 1, 1)}))
    assert books.set(newer("two", date(2026, 11, 1)))
    assert books.set(newer("two", date(2026, 11, 8)))  # it has not been charged yet


def test_no_day_is_left_without_prices(books: PriceBooks, make_records: MakeRecords) -> None:
    """Else nothing can be shown or billed, and budgets stop nothing."""
    make_records("there-already")
    first = newer("one", date(2024, 1, 1))
    ended = first.model_copy(update={"valid_to": date(2026, 1, 1)})
    today = datetime.now(UTC).date()
    with pytest.raises(InvalidDefinition, match="no prices from"):
        books.set(first.model_copy(update={"valid_to": today}))
    assert books.set(first.model_copy(update={"valid_to": today + timedelta(days=2)}))
    assert books.set(newer("two", date(2025, 12, 1)))
    assert books.set(ended)  # another follows it


def test_who_issued_an_invoice_is_told_once(books: PriceBooks) -> None:
    invoices = Invoices(books.cluster, Actor(who="operator:ann", origin="test"))
    for _ in range(2):
        invoices.issue(
            Issued("2026-08-invoiced", "invoiced", datetime(2026, 1, 1, tzinfo=UTC), "2026-08", {"total": "1.00"})
        )
    [entry] = Audit(books.cluster).entries("invoiced").to_dict("records")
    assert (entry["action"], entry["actor"]) == ("invoice.issue", "operator:ann")
    assert entry["details"] == {"number": "2026-08-invoiced", "month": "2026-08"}


def test_an_invoice_is_issued_once_and_numbers_are_not_given_twice(books: PriceBooks) -> None:
    invoices, since = Invoices(books.cluster), datetime(2026, 1, 1, tzinfo=UTC)
    first = invoices.issue(Issued("2026-10-acme", "acme", since, "2026-10", {"total": "1.00"}))
    again = invoices.issue(Issued("2026-10-acme", "acme", since, "2026-10", {"total": "9.00"}))
    assert (again.number, again.content["total"], again.content["issued_at"]) == (
        "2026-10-acme", "1.00", first.content["issued_at"],
    )  # fmt: skip
    other = invoices.issue(Issued("2026-10-acme", "acme", since + timedelta(days=290), "2026-10", {"total": "2.00"}))
    assert other.number == "2026-10-acme.2"  # another customer, who came by the name of one that had left
    assert [each.number for each in invoices.all("acme")] == ["2026-10-acme", "2026-10-acme.2"]
    neighbour = invoices.issue(Issued("2026-10-acme-2", "acme-2", since, "2026-10", {"total": "3.00"}))
    assert neighbour.number == "2026-10-acme-2"


def test_storage_is_paid_for_by_the_time_that_it_is_kept(postgres: Cluster, make_records: MakeRecords) -> None:
    make_records("keeper")
    gigabyte = 10**9
    for day, size in ((1, gigabyte), (11, 4 * gigabyte), (21, 0)):
        execute(
            postgres,
            "INSERT INTO stored VALUES ('keeper', 'sales', 'lake', :at, :size)",
            at=datetime(2026, 9, day, tzinfo=UTC),
            size=size,
        )
    month = Month(year=2026, month=9)
    half = datetime(2026, 9, 16, tzinfo=UTC)
    spans = [Span(month.start, half), Span(half, month.end)]
    used = Consumption(postgres).used(spans, "keeper")
    days = used.set_index("span")["byte_seconds"] / gigabyte / 86400
    assert days.to_dict() == pytest.approx({0: 10 * 1 + 5 * 4, 1: 5 * 4})
    assert set(used["stage"]) == {"storage"}


def test_storage_to_come_is_not_paid_for_yet(postgres: Cluster, make_records: MakeRecords) -> None:
    make_records("fresh")
    record_stored(postgres, [Stored("fresh", "sales", "lake", 10**9)])
    now = datetime.now(UTC)
    used = Consumption(postgres).used([Span(now - timedelta(hours=1), now + timedelta(days=10))], "fresh")
    assert used["byte_seconds"].sum() < 60 * 10**9


def test_a_reading_that_found_nothing_new_is_not_kept(postgres: Cluster, make_records: MakeRecords) -> None:
    make_records("constant")
    for size in (5, 5, 6, 6, 5):
        record_stored(postgres, [Stored("constant", "sales", "lake", size), Stored("constant", "sales", "models", 1)])
    count = text("SELECT place, count(*) FROM stored WHERE tenant = 'constant' GROUP BY place ORDER BY place")
    found = transact(postgres.operator_url, lambda connection: connection.execute(count).all())
    assert [tuple(row) for row in found] == [("lake", 3), ("models", 1)]


def test_units_processes_and_waste(postgres: Cluster, make_records: MakeRecords) -> None:
    make_records("worker")
    unit = (
        "INSERT INTO usage (tenant, unit, use_case, stage, process, tier, at, cpu_s, wall_s, rows_out)"
        " VALUES ('worker', :unit, 'sales', :stage, :process, 'standard', :at, :cpu_s, 1, 10)"
    )
    process = (
        "INSERT INTO processes (tenant, process, use_case, tier, read_at, ended, cpu_s)"
        " VALUES ('worker', :process, 'sales', 'standard', :at, :ended, :cpu_s)"
    )
    at = datetime(2026, 8, 10, tzinfo=UTC)
    execute(postgres, unit, unit="u1", stage="training", process="p1", at=at, cpu_s=5.0)
    execute(postgres, unit, unit="u2", stage="scoring", process="p1", at=at, cpu_s=2.0)
    execute(postgres, unit, unit="u3", stage="training", process="p2", at=at, cpu_s=1.0)
    execute(postgres, process, process="p1", at=at, ended="done", cpu_s=8.5)
    execute(postgres, process, process="p2", at=at, ended=None, cpu_s=4.0)  # killed
    month = Month(year=2026, month=8)
    used = Consumption(postgres).used([Span(month.start, month.end)], "worker").set_index("stage")
    assert used["cpu_s"].to_dict() == pytest.approx({"training": 6.0, "scoring": 2.0, "start": 1.5, "waste": 0.0})
    assert used["waste_s"]["waste"] == pytest.approx(3.0)
    assert used["predictions"]["scoring"] == 10
    assert used["predictions"]["training"] == 0
    list_price = text("SELECT stage, list_price FROM tenant_costs WHERE tenant = 'worker'")
    rows = dict(transact(Operator(postgres).records("worker").url, lambda c: c.execute(list_price).all()))
    plan = load_prices().plans.standard.prices
    assert rows["start"] == pytest.approx(1.5 / 3600 * float(plan.cpu_hour))
    assert rows["scoring"] == pytest.approx(float(plan.price(2.0, 0, 10)))
    assert "waste" not in rows


def test_prices_are_money() -> None:
    assert load_prices().cost.cpu_hour == Decimal("0.05")


def test_an_unknown_field_of_a_price_book_is_named_with_its_line(settings: Settings, tmp_path: Any) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("version: a\ncurrency: euro\nvalid_from: 2026-01-01\ncost: {cpu_hour: -1, gb_month: 0}\n")
    with pytest.raises(InvalidDefinition) as refused:
        load_prices(path)
    for expected in ("prices.yaml:2: currency", "prices.yaml:4: cost.cpu_hour", "plans"):
        assert expected in str(refused.value)


def test_a_restart_keeps_the_prices(books: PriceBooks, settings: Settings) -> None:
    books.set(newer("kept", date(2025, 1, 1)))
    assert PriceBooks(started_cluster(settings)).all().books[0].version == "kept"
