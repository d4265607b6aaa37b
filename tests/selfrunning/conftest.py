"""A platform that is up for these tests: supervised, with workers, inbox and API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from deployments.supervision.supervisor import Supervisor, connected
from flows.operations import hand_in
from infra import servers
from infra.database.keys import Keys
from infra.space import TenantSpace
from tasks.domain.job import JobStatus
from tasks.domain.names import Purpose
from tasks.domain.run import Upload, UploadStatus
from tasks.domain.tenant import Tier
from tests.benchmarks.platform.running import Running, platform_up, rows, small_tenant, until

TIERS = """
free: {runs: 2, runs_per_tenant: 1, workers: 1, max_upload_bytes: 20000000, memory_mb: 4096}
standard: {runs: 2, runs_per_tenant: 2, workers: 1, max_upload_bytes: 20000000, memory_mb: 4096}
premium: {runs: 2, runs_per_tenant: 2, workers: 1, max_upload_bytes: 20000000, memory_mb: 4096}
"""


@dataclass
class Site:
    """The platform, and what the tests do to it."""

    running: Running

    @property
    def supervisor(self) -> Supervisor:
        found = connected(self.running.settings.home)
        assert found is not None
        return found

    @property
    def api(self) -> str:
        server = servers.running(self.running.settings.home, "api")
        assert server is not None
        return server.url

    @property
    def inbox(self) -> Path:
        return self.running.settings.home / "inbox"

    def tenant(self, name: str, tier: Tier = Tier.STANDARD) -> TenantSpace:
        self.running.onboard(small_tenant(name, tier))
        return self.running.platform.open_space(name)

    def key(self, tenant: str) -> str:
        return Keys(self.running.platform.cluster).create(tenant, "test")[1]

    def drop(self, tenant: str, name: str, content: bytes, purpose: Purpose = Purpose.SCORING) -> str:
        """Puts a complete file into the inbox; returns its place."""
        place = f"{tenant}/demand/{purpose}/{name}"
        target = self.inbox / place
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}")
        partial.write_bytes(content)
        partial.rename(target)
        return place

    def hand_in(self, space: TenantSpace, folder: Path, count: int, each: int = 50, first: int = 0) -> None:
        for number in range(first, first + count):
            path = folder / f"{number}.csv"
            path.write_bytes(rows(each, number, target=False, seed=number))
            hand_in(space, "demand", Purpose.SCORING, path, "test", self.running.witness)

    def pid(self, part: str) -> int:
        pid = self.supervisor.states()[part].pid
        assert pid is not None
        return pid

    def kill(self, part: str) -> None:
        """`kill -9`, children included: the machine would not ask either."""
        process = psutil.Process(self.pid(part))
        for victim in [*process.children(recursive=True), process]:
            victim.kill()

    def settled(self, space: TenantSpace, uploads: int, timeout_s: float = 600) -> list[Upload]:
        """The tenant's uploads, once there are so many and each has come to its end."""

        def look() -> list[Upload]:
            found = space.records.uploads()
            jobs = space.records.jobs(limit=1000)
            over = all(job.status in (JobStatus.DONE, JobStatus.FAILED) for job in jobs)
            return found if len(found) >= uploads and len(jobs) >= uploads and over else []

        found: list[Upload] = until(look, timeout_s)
        assert len(found) == uploads
        return found

    def assert_all_is_well(self, space: TenantSpace, uploads: int) -> None:
        """Every upload ended exactly once, with its rows in the table, and nothing holds a slot."""
        found = self.settled(space, uploads)
        failed = [job for job in space.records.jobs(limit=1000) if job.status is JobStatus.FAILED]
        assert failed == [], failed[0].error
        assert Counter(upload.status for upload in found) == {UploadStatus.INGESTED: uploads}  # no release: they wait
        ingested = [run for run in space.records.runs("demand", "ingestion") if run.status == "finished"]
        assert len(ingested) == uploads
        until(lambda: not self.occupied(), 90)

    def occupied(self) -> list[str]:
        """Names of runs that hold a slot in Prefect, those of dispatch and admission aside."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType

        from flows.reconcile import OCCUPYING

        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=OCCUPYING)))
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(flow_run_filter=wanted)
        return [run.name for run in found if run.work_pool_name != "operations"]


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    with platform_up(TIERS) as running:
        yield Site(running)


@pytest.fixture
def recovery(capsys: pytest.CaptureFixture[str]) -> Callable[[str, float], None]:
    """Prints what recovery took, past pytest's capture."""

    def say(what: str, began: float) -> None:
        with capsys.disabled():
            print(f"\n    {what}: {time.monotonic() - began:.1f} s")

    return say
