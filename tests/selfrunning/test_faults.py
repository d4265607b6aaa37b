"""Parts die and events get lost or doubled; every upload ends exactly once, and no slot stays taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from flows.dispatch import dispatch
from flows.events import announce_upload
from tasks.domain.job import Job, JobStatus
from tests.benchmarks.platform.running import rows, until
from tests.selfrunning.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Recovery = Callable[[str, float], None]


def running_job(site: Site, tenant: str) -> Job:
    """A job of the tenant whose process is at work."""
    records = site.running.platform.open_space(tenant).records
    found: Job = until(lambda: next((j for j in records.jobs() if j.status is JobStatus.RUNNING), None), 60, 0.02)
    return found


def process_of(job: Job) -> psutil.Process:
    from uuid import UUID

    from prefect.client.orchestration import get_client

    def look() -> str | None:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(UUID(str(job.flow_run_id))).infrastructure_pid

    return psutil.Process(int(until(look, 20, 0.05)))


def test_a_hundred_doubled_events(site: Site, recovery: Recovery) -> None:
    space, began = site.tenant("doubled"), time.monotonic()
    places = [site.drop("doubled", f"{n}.csv", rows(50, n, target=False, seed=n)) for n in range(20)]
    for place in places:
        for _ in range(5):
            announce_upload(place)
    site.assert_all_is_well(space, 20)
    recovery("100 doubled events of 20 files, all settled after", began)


def test_fifty_lost_events(site: Site, recovery: Recovery) -> None:
    space = site.tenant("lost")
    site.supervisor.stop(["inbox"])
    for number in range(50):
        site.drop("lost", f"{number}.csv", rows(50, number, target=False, seed=number))
    began = time.monotonic()
    site.supervisor.start(["inbox"])
    site.assert_all_is_well(space, 50)
    recovery("50 files whose events were lost, all settled after", began)


def test_the_process_of_a_run_is_killed(site: Site, tmp_path: Path, recovery: Recovery) -> None:
    space = site.tenant("killed")
    site.hand_in(space, tmp_path, 3, each=20_000)
    dispatch(site.running.settings)
    job = running_job(site, "killed")
    process_of(job).kill()
    began = time.monotonic()
    until(lambda: space.records.job(job.job_id).attempts > job.attempts, 120)
    recovery("a run's process killed; its job was handed out again after", began)
    site.assert_all_is_well(space, 3)


def test_a_worker_and_its_runs_are_killed(site: Site, tmp_path: Path, recovery: Recovery) -> None:
    space = site.tenant("orphaned")
    site.hand_in(space, tmp_path, 3, each=20_000)
    dispatch(site.running.settings)
    job = running_job(site, "orphaned")
    process = process_of(job)
    site.kill("worker-tier-standard")
    with suppress(psutil.NoSuchProcess):
        process.kill()
    began = time.monotonic()
    until(lambda: space.records.job(job.job_id).attempts > job.attempts, 180)
    recovery("worker and run killed; its job was handed out again after", began)
    site.assert_all_is_well(space, 3)


@pytest.mark.parametrize("part", ["prefect", "postgresql"])
def test_a_server_is_killed(site: Site, part: str, tmp_path: Path, recovery: Recovery) -> None:
    space = site.tenant(f"without-{part}")
    site.hand_in(space, tmp_path, 4, each=20_000)
    dispatch(site.running.settings)
    running_job(site, f"without-{part}")
    site.kill(part)
    began = time.monotonic()
    site.assert_all_is_well(space, 4)
    recovery(f"{part} killed and restarted; all settled after", began)


def test_the_api_is_killed_in_the_middle_of_an_upload(site: Site, recovery: Recovery) -> None:
    space = site.tenant("cut-off")
    content = rows(50_000, 0, target=False)
    url = f"{site.api}/v1/demand/uploads/scoring"
    header = {"Authorization": f"Bearer {site.key('cut-off')}"}

    def slowly() -> Iterator[bytes]:
        yield content[:500_000]
        site.kill("api")
        yield content[500_000:]

    with pytest.raises(httpx.HTTPError):
        httpx.post(url, content=slowly(), headers=header, timeout=30)
    assert space.records.uploads() == []
    began = time.monotonic()

    def again() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.post(url, content=content, headers=header, timeout=30).status_code == 202
        return False

    until(again, 60)
    recovery("API killed in mid-upload; it took the same upload again after", began)
    site.assert_all_is_well(space, 1)
