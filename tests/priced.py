"""Prices for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import delete, insert, select, text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.operator import Operator
from infra.database.rates import RATES, copy_rates

FROM_THEN_ON = {"2020-01-01": "1"}


def set_cpu_prices(cluster: Cluster, tier: str, per_cpu_s: Mapping[str, str] = FROM_THEN_ON) -> None:
    """What a CPU second costs in EUR, by the day from which it does; a million predictions cost 1,000 EUR."""
    days = sorted(per_cpu_s)
    rows = [
        {"tier": tier, "since": day, "until": until, "price": per_cpu_s[day]}
        for day, until in zip(days, [*days[1:], None], strict=True)
    ]
    price = text(
        "INSERT INTO price_rates"
        " (tier, valid_from, valid_to, price_book, currency, cpu_hour, gb_month, million_predictions)"
        " VALUES (:tier, CAST(:since AS timestamptz), CAST(:until AS timestamptz), 'test', 'EUR',"
        " CAST(:price AS numeric) * 3600, 0, 1000)"
    )
    for url in Operator(cluster).data_urls().values():
        transact(
            url, lambda connection: connection.execute(text("DELETE FROM price_rates WHERE tier = :tier"), rows[:1])
        )
        transact(url, lambda connection: connection.execute(price, rows))


@contextmanager
def prices_kept(cluster: Cluster) -> Iterator[None]:
    """After the block, prices are what they were before: other tests have the same database."""
    shared = cluster.operator_url
    before = transact(shared, lambda connection: [dict(row) for row in connection.execute(select(RATES)).mappings()])
    try:
        yield
    finally:
        transact(shared, lambda connection: connection.execute(delete(RATES)))
        transact(shared, lambda connection: connection.execute(insert(RATES), before))
        for silo, url in Operator(cluster).data_urls().items():
            if silo is not None:
                copy_rates(shared, url)
