"""A flood beside a rare visitor, more busy tenants than slots, a premium upload among free ones: who waits how long,
and whether the limits of the tier file hold at every moment."""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from sqlalchemy import text

from flows.operations import hand_in
from infra.database.connect import transact
from infra.definitions import load_tiers
from tasks.domain.job import Job, JobStatus
from tasks.domain.names import Purpose
from tasks.domain.tenant import Tier
from tests.benchmarks.platform.running import Running, platform_up, rows, small_tenant, until

SAMPLE_S = 0.05
TIERS = """
free: {runs: 2, runs_per_tenant: 1, workers: 1, max_upload_bytes: 200000000, memory_mb: 4096}
standard: {runs: 2, runs_per_tenant: 2, workers: 1, max_upload_bytes: 2000000000, memory_mb: 4096}
premium: {runs: 1, runs_per_tenant: 1, workers: 1, max_upload_bytes: 20000000000, memory_mb: 4096}
"""


@dataclass
class Sampled:
    """The most that was seen at once: open jobs per tier and per tenant, and running flow runs per pool in Prefect."""

    samples: int = 0
    per_tier: Counter[str] = field(default_factory=Counter)
    per_tenant: Counter[str] = field(default_factory=Counter)
    per_pool: Counter[str] = field(default_factory=Counter)


@contextmanager
def sampling(running: Running) -> Iterator[Sampled]:
    """Looks at the database, and at Prefect's, every `SAMPLE_S` while the block runs."""
    seen, stop = Sampled(), threading.Event()
    jobs = text(
        "SELECT tier, tenant, count(*) FROM jobs WHERE status IN ('submitted', 'running')"
        " GROUP BY GROUPING SETS ((tier), (tenant))"
    )
    runs = text(
        "SELECT p.name, count(*) FROM flow_run AS r JOIN work_queue AS q ON q.id = r.work_queue_id"
        " JOIN work_pool AS p ON p.id = q.work_pool_id"
        " WHERE r.state_type IN ('PENDING', 'RUNNING', 'CANCELLING') GROUP BY p.name"
    )
    prefect_url = running.platform.cluster.prefect_url.replace("+asyncpg", "+psycopg")

    def look() -> None:
        while not stop.wait(SAMPLE_S):
            seen.samples += 1
            for tier, tenant, count in transact(running.platform.cluster.operator_url, lambda c: c.execute(jobs).all()):
                most = seen.per_tier if tier else seen.per_tenant
                most[tier or tenant] = max(most[tier or tenant], count)
            for pool, count in transact(prefect_url, lambda c: c.execute(runs).all()):
                seen.per_pool[pool] = max(seen.per_pool[pool], count)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def hand_in_files(running: Running, tenant: str, count: int, first: int = 0) -> None:
    """So many small scoring files, which end quickly: there is no release, so they are merged and wait."""
    space = running.platform.open_space(tenant)
    with TemporaryDirectory() as folder:
        for number in range(first, first + count):
            path = Path(folder) / f"{number}.csv"
            path.write_bytes(rows(50, number, target=False, seed=number))
            use_cases = space.tenant.use_cases
            hand_in(space, use_cases[number % len(use_cases)].id, Purpose.SCORING, path, "benchmark", running.witness)


def ended(running: Running, tenants: Sequence[str]) -> list[Job]:
    """The tenants' jobs once all of them have ended."""
    spaces = [running.platform.open_space(tenant) for tenant in tenants]

    def look() -> list[Job]:
        jobs = [job for space in spaces for job in space.records.jobs(limit=1000)]
        over = all(job.status in (JobStatus.DONE, JobStatus.FAILED) for job in jobs)
        return jobs if over else []

    found: list[Job] = until(look, 3600, every_s=1)
    failed = [job for job in found if job.status is JobStatus.FAILED]
    assert not failed, failed[0]
    return found


def flood(running: Running, console: Console, uploads: int) -> None:
    """One tenant hands in very many files, then another of its tier one."""
    from flows.dispatch import dispatch

    running.onboard(
        small_tenant("flood", Tier.STANDARD, use_cases=2)
    )  # of a use case one run at a time: it takes both slots
    running.onboard(small_tenant("visitor", Tier.STANDARD))
    hand_in_files(running, "flood", uploads)
    dispatch(running.settings)
    records = running.platform.open_space("flood").records
    until(lambda: sum(job.status is JobStatus.DONE for job in records.jobs(limit=1000)) >= 3, 300)
    asked = datetime.now().astimezone()
    hand_in_files(running, "visitor", 1, first=10_000)
    dispatch(running.settings)
    until(lambda: running.platform.open_space("visitor").records.jobs()[0].status is JobStatus.DONE, 300)
    [job] = running.platform.open_space("visitor").records.jobs()
    others = records.jobs(limit=1000)
    begun = [each for each in others if each.submitted_at]
    in_progress = [
        each for each in begun if each.submitted_at < asked and not (each.finished_at and each.finished_at < asked)
    ]
    between = [each for each in begun if asked < each.submitted_at < job.submitted_at]
    waiting = sum(each.status is JobStatus.WAITING for each in others)
    wait_s = (job.submitted_at - asked).total_seconds()
    rest_s = max(((each.finished_at or datetime.now().astimezone()) - asked).total_seconds() for each in in_progress)
    console.print(
        f"flood of {uploads}: {waiting} still waited when the visitor was done; it waited {wait_s:.1f} s for its turn,"
        f" the {len(in_progress)} runs then in progress had {rest_s:.1f} s left; {len(between)} runs of the flood"
        " were handed out before it"
    )


def crowd(running: Running, console: Console, tenants: int, uploads: int) -> None:
    """More busy tenants than slots: how long it takes until each was served once, in runs."""
    from flows.dispatch import dispatch

    names = [f"crowd-{number}" for number in range(tenants)]
    for name in names:
        running.onboard(small_tenant(name, Tier.FREE))
        hand_in_files(running, name, uploads)
    dispatch(running.settings)
    jobs = sorted(ended(running, names), key=lambda job: job.submitted_at)
    worst = max(len({job.tenant for job in jobs[:end]}) for end in [tenants])
    order = [job.tenant for job in jobs]
    gaps = [max(_gaps(order, name)) for name in names]
    console.print(
        f"{tenants} busy tenants, {load_tiers(running.settings.tiers_file)[Tier.FREE].runs} slots: among the first"
        f" {tenants} runs were {worst} tenants; between two turns of one tenant, at most {max(gaps)} runs of others"
    )


def _gaps(order: Sequence[str], name: str) -> list[int]:
    places = [-1, *(place for place, each in enumerate(order) if each == name)]
    return [later - earlier - 1 for earlier, later in itertools.pairwise(places)]


def premium(running: Running, console: Console) -> None:
    """Free tenants fill their slots and their queue; then a premium upload arrives."""
    from flows.dispatch import dispatch

    names = [f"crowd-{number}" for number in range(3)]
    for number, name in enumerate(names):
        hand_in_files(running, name, 10, first=1000 + 100 * number)
    dispatch(running.settings)
    running.onboard(small_tenant("vip", Tier.PREMIUM))
    asked = time.perf_counter()
    hand_in_files(running, "vip", 1)
    dispatch(running.settings)
    until(
        lambda: running.platform.open_space("vip").records.jobs()[0].status is not JobStatus.WAITING, 60, every_s=0.02
    )
    console.print(f"premium among waiting free ones: handed out after {time.perf_counter() - asked:.2f} s")
    ended(running, [*names, "vip"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=200, help="of the flood")
    parser.add_argument("--tenants", type=int, default=6, help="of the crowd")
    options = parser.parse_args()
    console = Console(width=130)
    with platform_up(TIERS) as running, sampling(running) as seen:
        flood(running, console, options.uploads)
        crowd(running, console, options.tenants, 4)
        premium(running, console)
    console.print(
        f"{seen.samples:,} samples; most at once per tier: {dict(seen.per_tier)};"
        f" in Prefect per pool: {dict(seen.per_pool)}"
    )
    console.print(f"most at once per tenant: {dict(seen.per_tenant.most_common(6))}")
    console.print("limits: free 2 and 1 per tenant, standard 2 and 2, premium 1 and 1")


if __name__ == "__main__":
    main()
