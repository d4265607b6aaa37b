"""Figures for Prometheus that Prefect does not export. No tenant is named in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from infra.database.cluster import connected_cluster
from infra.database.connect import engine, transact
from infra.database.deadline import within
from infra.database.operator import Operator
from infra.database.queue import Queue
from infra.database.silos import each_silo
from infra.definitions import load_tiers
from infra.settings import Settings
from tasks.domain.errors import OrchardError
from tasks.domain.outcome import PartitionOutcome

KEPT_S = 5.0
ANSWERS_S, READ_S, SILO_S = 1.0, 5.0, 1.0
"""So long the database is asked whether it answers, and for its figures, and a silo's own for those."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

RUNS = text(
    """
    SELECT stage, count(*), sum(extract(epoch FROM finished_at - started_at))::double precision AS seconds
    FROM runs WHERE finished_at > now() - interval '24 hours' GROUP BY stage ORDER BY stage
    """
)

# The receipts of training hold the same account as `partition_models`, in one row per run instead of one per partition.
PARTITIONS = text(
    """
    SELECT o.outcome, coalesce(sum((r.receipt ->> o.outcome)::bigint), 0)::bigint AS partitions
    FROM unnest(CAST(:outcomes AS text[])) AS o (outcome)
    LEFT JOIN runs AS r ON r.stage = 'training' AND r.status = 'finished'
    GROUP BY o.outcome ORDER BY o.outcome
    """
)


def database_answers(settings: Settings) -> bool:
    """Whether the database answers now: nothing is waited for. A connection that was kept from before a restart fails
    once, and makes way for a new one."""
    for _ in range(2):
        try:
            url = connected_cluster(settings).operator_url
            with within(ANSWERS_S), engine(url).connect() as connection:
                connection.execute(select(1))
                return True
        except DBAPIError:
            continue
        except OrchardError:
            return False
    return False


class PlatformCollector(Collector):
    """Reads the database when it is scraped, at most every five seconds. Without a database, says just that."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._figures: list[Metric] = []
        self._works: dict[str | None, Work] = {}
        self._read_at: float | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register must not read the database."""
        return []

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at >= KEPT_S:
                self._figures, self._read_at = list(self._read()), now
            return self._figures

    def _read(self) -> Iterator[Metric]:
        up = database_answers(self._settings)
        yield GaugeMetricFamily("orchard_database_up", "Whether the database answers.", value=float(up))
        if up:
            with within(READ_S):
                yield from self._queues()
                yield from _work_done(self._work())

    def _work(self) -> list[Work]:
        """Of all databases; of a silo that does not answer, as it last said: what is counted must not fall."""
        urls = Operator(connected_cluster(self._settings)).data_urls()
        known, self._works = self._works, {None: transact(urls[None], _work_of)}
        for silo, work in each_silo(urls, SILO_S, lambda url: transact(url, _work_of, patient=False)):
            if (said := known.get(silo) if work is None else work) is not None:
                self._works[silo] = said
        return list(self._works.values())

    def _queues(self) -> Iterator[Metric]:
        tiers = load_tiers(self._settings.tiers_file)
        found = {row["tier"]: row for row in Queue(connected_cluster(self._settings)).waiting()}
        for name, column, what in (
            ("orchard_jobs_waiting", "waiting", "Jobs that wait for their turn."),
            ("orchard_jobs_oldest_wait_seconds", "oldest_s", "How long the oldest of them waits."),
            ("orchard_slots_in_use", "running", "Slots of the tier that jobs hold."),
        ):
            gauge = GaugeMetricFamily(name, what, labels=["tier"])
            for tier in tiers:
                gauge.add_metric([tier], float(str(found[tier][column])) if tier in found else 0.0)
            yield gauge
        slots = GaugeMetricFamily("orchard_slots", "Slots that the tier has.", labels=["tier"])
        for tier, policy in tiers.items():
            slots.add_metric([tier], policy.runs)
        yield slots


class Work(NamedTuple):
    """What one database holds: runs of the last day (count, seconds) by stage, and partitions by outcome."""

    runs: dict[str, tuple[int, float]]
    partitions: dict[str, int]


def _work_of(connection: Connection) -> Work:
    outcomes = {"outcomes": [each.value for each in PartitionOutcome]}
    return Work(
        {stage: (count, seconds) for stage, count, seconds in connection.execute(RUNS)},
        {row.outcome: row.partitions for row in connection.execute(PARTITIONS, outcomes)},
    )


def _work_done(found: list[Work]) -> list[Metric]:
    runs = SummaryMetricFamily(
        "orchard_run_seconds",
        "Runs that ended within the last 24 hours; both values fall as time goes.",
        labels=["stage"],
    )
    for stage in sorted({stage for work in found for stage in work.runs}):
        each = [work.runs.get(stage, (0, 0.0)) for work in found]
        runs.add_metric([stage], count_value=sum(n for n, _ in each), sum_value=sum(seconds for _, seconds in each))
    partitions = CounterMetricFamily(
        "orchard_partitions", "Partitions of finished training runs, by what became of them.", labels=["outcome"]
    )
    for outcome in sorted(PartitionOutcome):
        partitions.add_metric([outcome.value], sum(work.partitions[outcome.value] for work in found))
    return [runs, partitions]


class RequestMetrics:
    """Counts and times requests, by the template of their route."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(
            "orchard_http_requests", "Requests that were answered.", ["method", "route", "status"], registry=registry
        )
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._seconds = Histogram(
            "orchard_http_request_seconds",
            "From a request's first byte to the end of its answer.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Notes one request. A method that nobody has heard of must not make a series of its own."""
        known = method if method in METHODS else "other"
        series = self._series.get((known, route, status))
        if series is None:
            series = self._total.labels(known, route, str(status)), self._seconds.labels(known, route)
            self._series[known, route, status] = series
        series[0].inc()
        series[1].observe(seconds)
