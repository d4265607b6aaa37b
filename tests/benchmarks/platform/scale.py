"""Thousands of tenants with three waiting uploads each: provisioning, one claim, one worker's poll."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from infra.database.connect import transact
from infra.database.operator import Operator
from infra.definitions import load_tiers
from tasks.domain.tenant import Tier
from tests.benchmarks.platform.running import Running, platform_up, small_tenant

WAITING = text(
    """
    WITH new AS (
        INSERT INTO uploads (tenant, upload_id, use_case, purpose, seq, filename, size_bytes, content_sha256, status)
        SELECT t.tenant, t.tenant || n, 'demand', 'scoring', n, 'x.csv', 1, n::text, 'received'
        FROM tenants AS t, generate_series(1, 3) AS n WHERE t.tenant LIKE 'scale-%'
        ON CONFLICT DO NOTHING RETURNING tenant, upload_id
    )
    INSERT INTO jobs (tenant, use_case, kind, upload_id, requested_by)
    SELECT tenant, 'demand', 'pipeline', upload_id, 'benchmark' FROM new
    """
)


def measure(running: Running, tenants: int, known: int) -> dict[str, float]:
    """Seconds of each step with so many tenants, of which `known` were there before."""
    from flows.dispatch import dispatch

    operator, cluster = Operator(running.platform.cluster), running.platform.cluster
    tiers = (Tier.FREE, Tier.STANDARD, Tier.PREMIUM)
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        took[name] = time.perf_counter() - began
        return result

    new = [small_tenant(f"scale-{number}", tiers[number % 3]) for number in range(known, tenants)]
    timed("onboarding, per tenant", lambda: [operator.onboard(tenant) for tenant in new])
    took["onboarding, per tenant"] /= max(1, len(new))
    transact(cluster.operator_url, lambda connection: connection.execute(WAITING))
    queue = running.queue
    claims = timed("one claim (7 slots)", lambda: queue.claim(load_tiers(running.settings.tiers_file)))
    for claim in claims:
        queue.give_back(claim, "benchmark")
    timed("one dispatch, submissions included", lambda: dispatch(running.settings))
    timed("one worker's poll", lambda: asyncio.run(_poll("tier-premium")))
    timed("place of the last in the queue", lambda: queue.place(claims[-1].job) if claims else None)
    timed("metrics", queue.waiting)
    transact(cluster.operator_url, lambda c: c.execute(text("DELETE FROM jobs; DELETE FROM uploads")))
    return took


async def _poll(pool: str) -> int:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return len(await client.get_scheduled_flow_runs_for_work_pool(pool))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", default="100,1000,5000", help="comma-separated, ascending")
    options = parser.parse_args()
    sizes = [int(size) for size in options.tenants.split(",")]
    console = Console()
    columns: dict[int, dict[str, float]] = {}
    with platform_up() as running:
        known = 0
        for size in sizes:
            columns[size] = measure(running, size, known)
            known = size
    table = Table(title="seconds, three waiting uploads per tenant", title_justify="left")
    table.add_column("")
    for size in sizes:
        table.add_column(f"{size:,} tenants", justify="right")
    for name in columns[sizes[0]]:
        table.add_row(name, *(f"{columns[size][name]:.3f}" for size in sizes))
    console.print(table)


if __name__ == "__main__":
    main()
