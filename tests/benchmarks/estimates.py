"""`make bench-estimates`: how near estimates come to what the next run really uses.

Ten tenants, each with partitions, rows and estimators of its own, hand in histories of different sizes and files to
score. After at least five runs of each, the next one is estimated, then done, then compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from deployments.onboarding import onboard
from deployments.platform import Platform
from flows.estimation import Forecast, forecasts
from infra.database.connect import transact
from infra.metering import end_shift
from tasks.domain.names import Purpose
from tasks.domain.tenant import Tenant, Tier
from tasks.domain.use_case import UseCase
from tests.benchmarks import data
from tests.benchmarks.stages import platform
from tests.samples import witness

WITHIN, WANTED = 0.20, 8
USE_CASE = "demand"


@dataclass(frozen=True)
class Case:
    """A tenant: its partitions, the rows of each at first (from, to), and what competes for them."""

    name: str
    tier: Tier
    partitions: int
    rows: tuple[int, int]
    choice: str


CASES = (
    Case("tiny", Tier.FREE, 4, (80, 300), "linear"),
    Case("corner", Tier.FREE, 12, (200, 900), "full"),
    Case("baker", Tier.FREE, 30, (60, 150), "lightgbm"),
    Case("grocer", Tier.STANDARD, 60, (300, 700), "full"),
    Case("dentist", Tier.STANDARD, 25, (1000, 3000), "lightgbm"),
    Case("florist", Tier.STANDARD, 150, (40, 200), "linear"),
    Case("cinema", Tier.STANDARD, 8, (2000, 4000), "full"),
    Case("airline", Tier.PREMIUM, 120, (200, 600), "lightgbm"),
    Case("market", Tier.PREMIUM, 60, (100, 1500), "full"),
    Case("railway", Tier.PREMIUM, 150, (60, 250), "full"),
)
SHARES = (1.0, 0.5, 0.15, 0.8, 0.3)
"""Of its partitions, what each history of a tenant touches; the next one's share is drawn."""

ESTIMATORS = {"linear": ["linear"], "lightgbm": ["lightgbm"], "full": ["lightgbm", "linear", "tenant_wide"]}


class Customer:
    """One tenant and its files."""

    def __init__(self, running: Platform, case: Case, folder: Path, seed: int) -> None:
        self.running, self.case, self.folder = running, case, folder
        self.random = np.random.default_rng([seed, len(case.name), case.partitions])
        self.size = data.Size(case.partitions, case.rows[1], seed)
        self.rows_of = self.random.integers(*case.rows, case.partitions)
        self.written = np.zeros(case.partitions, dtype=int)
        self.files = 0
        choice = {"estimators": ESTIMATORS[case.choice]}
        definition = data.use_case(data.FULL, USE_CASE).model_dump(mode="json", by_alias=True)
        self.use_case = UseCase.model_validate(definition | choice)
        onboard(running, Tenant(id=case.name, name=case.name.title(), tier=case.tier, use_cases=(self.use_case,)))
        self.space = running.open_space(case.name)

    def admit(self, purpose: Purpose, share: float) -> str:
        """Hands in a file of that share of the partitions; returns the upload's id."""
        from flows.operations import admit

        chosen = self.random.permutation(self.case.partitions)[: max(1, round(share * self.case.partitions))]
        self.files += 1
        tables = []
        for unit in sorted(chosen.tolist()):
            first = int(self.written[unit])
            rows = (
                int(self.rows_of[unit])
                if first == 0
                else max(1, int(self.rows_of[unit] * self.random.uniform(0.05, 0.3)))
            )
            if purpose is Purpose.HISTORY:
                tables.append(data.unit_table(self.size, unit, first, rows))
                self.written[unit] += rows
            else:
                tables.append(data.unit_table(self.size, unit, 10**6 * self.files, rows).drop_columns("y"))
        path = self.folder / f"{self.case.name}-{self.files}.parquet"
        pq.write_table(pa.concat_tables(tables), path)
        upload, _ = admit(self.space, USE_CASE, purpose, path, witness(self.running.cluster))
        return upload.upload_id

    def run(self, upload_id: str) -> None:
        from flows.pipeline import pipeline
        from flows.runner import in_this_process

        end_shift()  # files were written and estimates made meanwhile, which is not the run's work
        with in_this_process():
            pipeline(self.case.name, upload_id)

    def used(self) -> tuple[float, float]:
        """CPU and wall seconds of all runs so far, as metered."""
        query = text(
            "SELECT coalesce(sum(cpu_s), 0), coalesce(sum(extract(epoch FROM read_at - started_at)), 0)"
            " FROM processes WHERE tenant = :tenant"
        )
        cpu_s, wall_s = transact(self.space.records.url, lambda c: c.execute(query, {"tenant": self.case.name}).one())
        return float(cpu_s), float(wall_s)

    def kept(self) -> int:
        from flows.storage import read_storage

        return sum(each.bytes for each in read_storage(self.running.settings, [self.case.name]))


@dataclass(frozen=True)
class Outcome:
    """An estimate, and what came of it."""

    case: Case
    past_runs: int
    forecast: Forecast
    cpu_s: float
    wall_s: float
    storage_bytes: int

    @property
    def off(self) -> float:
        return self.forecast.estimate.cpu_s.expected / self.cpu_s - 1

    @property
    def inside(self) -> bool:
        cpu = self.forecast.estimate.cpu_s
        return cpu.low <= self.cpu_s <= cpu.high


def live(customer: Customer) -> None:
    """The runs that the estimate may learn from."""
    for number, share in enumerate(SHARES):
        customer.run(customer.admit(Purpose.HISTORY, share))
        if number in (0, 2):
            customer.run(customer.admit(Purpose.SCORING, share))


def compare(customer: Customer, scores: bool) -> Outcome:
    """Estimates the next run, does it, and says what both came to."""
    waiting = [customer.admit(Purpose.HISTORY, float(customer.random.uniform(0.1, 0.9)))]
    if scores:
        waiting.append(customer.admit(Purpose.SCORING, float(customer.random.uniform(0.1, 0.9))))
    kept, (cpu_s, wall_s) = customer.kept(), customer.used()
    [forecast] = forecasts(customer.running.cluster, customer.space, [USE_CASE])
    for upload_id in waiting:
        customer.run(upload_id)
    cpu_after, wall_after = customer.used()
    return Outcome(
        customer.case, forecast.estimate.runs, forecast, cpu_after - cpu_s, wall_after - wall_s, customer.kept() - kept
    )


def show(console: Console, outcomes: list[Outcome]) -> None:
    table = Table("tenant", "partitions", "estimators", header_style="bold")
    for name in (
        "past runs",
        "train",
        "score",
        "CPU s: range",
        "expected",
        "really",
        "off",
        "wall s",
        "really",
        "MB kept",
        "really",
    ):
        table.add_column(name, justify="right")
    for each in outcomes:
        found, work = each.forecast.estimate, each.forecast.work
        cpu = found.cpu_s
        table.add_row(
            each.case.name, str(each.case.partitions), each.case.choice, str(each.past_runs), str(work.train),
            f"{work.rows_to_score:,}", f"{cpu.low:.2f} – {cpu.high:.2f}{'' if each.inside else ' !'}",
            f"{cpu.expected:.2f}", f"{each.cpu_s:.2f}", f"{each.off:+.0%}",
            f"{found.wall_s.expected:.1f}", f"{each.wall_s:.1f}",
            f"{found.storage_bytes.expected / 1e6:.1f}", f"{each.storage_bytes / 1e6:.1f}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-estimates", description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="threads of a run")
    parser.add_argument("--tenants", default=",".join(case.name for case in CASES), help="some of them; all by default")
    options = parser.parse_args()
    chosen = options.tenants.split(",")
    console, started = Console(), time.monotonic()
    if not console.is_terminal:
        console.width = 150
    with (
        tempfile.TemporaryDirectory(prefix="orchard-estimates-") as folder,
        platform(Path(folder) / "home", options.workers) as running,
    ):
        warm_up = Customer(running, Case("warm-up", Tier.FREE, 2, (100, 200), "full"), Path(folder), options.seed)
        for purpose in (Purpose.HISTORY, Purpose.SCORING):
            warm_up.run(warm_up.admit(purpose, 1.0))
        outcomes = []
        for number, case in enumerate(CASES):
            if case.name not in chosen:
                continue
            customer = Customer(running, case, Path(folder), options.seed)
            live(customer)
            outcomes.append(compare(customer, scores=number % 2 == 0))
            console.print(f"[dim]{time.monotonic() - started:6.0f} s  {case.name}: {outcomes[-1].off:+.0%}[/]")
    show(console, outcomes)
    near, inside = sum(abs(each.off) <= WITHIN for each in outcomes), sum(each.inside for each in outcomes)
    print(f"{inside} of {len(outcomes)} runs were within their range")
    verdict = "PASS" if near >= WANTED else "FAIL"
    print(f"{verdict}: {near} of {len(outcomes)} estimates of CPU within {WITHIN:.0%} (goal: {WANTED})")


if __name__ == "__main__":
    main()
