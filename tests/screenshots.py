"""The pages that an operator uses, as pictures: `python -m tests.screenshots FOLDER` (needs Chromium and its driver).

Starts a platform of its own with three tenants, lets files arrive, and visits Prefect's UI as a person would.
"""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flows.dispatch import dispatch
from flows.operations import hand_in
from infra.space import TenantSpace
from tasks.domain.job import JobStatus
from tasks.domain.names import Purpose
from tasks.domain.tenant import Tier
from tests.benchmarks.platform.running import Running, platform_up, rows, small_tenant, until

SIZE = (1440, 1100)
SETTLE_S = 4.0
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync",
)  # fmt: skip
TENANTS = {"acme": Tier.PREMIUM, "brook": Tier.STANDARD, "cedar": Tier.FREE}


def browser() -> Any:
    """Headless Chromium, without the calls home that it makes by itself."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tempfile.mkdtemp(prefix='orchard-chromium-')}")
    options.add_argument(f"--window-size={SIZE[0]},{SIZE[1]}")
    options.binary_location = shutil.which("chromium") or "chromium"
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def let_work_happen(running: Running, folder: Path) -> None:
    """History and scoring files of three tenants, and one file that is no good; waits until all is settled."""
    spaces: list[TenantSpace] = []
    told = running.witness
    for name, tier in TENANTS.items():
        running.onboard(small_tenant(name, tier))
        space = running.platform.open_space(name)
        spaces.append(space)
        for number, purpose in enumerate((Purpose.HISTORY, Purpose.SCORING)):
            path = folder / f"{name}-{purpose}.csv"
            path.write_bytes(rows(10_000, number * 1_000, target=purpose is Purpose.HISTORY, seed=number))
            hand_in(space, "demand", purpose, path, "screenshots", told)
    bad = folder / "bad.csv"
    bad.write_text("nothing,useful\n1,2\n")
    hand_in(spaces[1], "demand", Purpose.HISTORY, bad, "screenshots", told)
    dispatch(running.settings)
    ended = (JobStatus.DONE, JobStatus.FAILED)
    until(lambda: all(job.status in ended for space in spaces for job in space.records.jobs()), 300, 1)


def artifacts() -> dict[str, str]:
    """The account of the history upload, and its table of partitions."""
    from prefect.client.orchestration import get_client

    found = {}
    with get_client(sync_client=True) as client:
        for name in ("receipt", "partitions"):
            query = {"artifacts": {"key": {"any_": [f"acme--demand-{name}"]}}, "sort": "CREATED_DESC"}
            found[name] = client.request("POST", "/artifacts/filter", json=query).json()[-1]["id"]
    return found


def take(running: Running, into: Path) -> list[Path]:
    """Visits the pages; returns the pictures."""
    ui = running.ui_url
    space = running.platform.open_space("acme")
    run = next(job.flow_run_id for job in space.records.jobs() if job.kind == "pipeline" and job.flow_run_id)
    pages = {
        "runs-of-a-tenant": "/runs?tag=tenant:acme",
        "run": f"/runs/flow-run/{run}",
        "run-artifacts": f"/runs/flow-run/{run}?tab=Artifacts",
        "work-pools": "/work-pools",
        "work-pool": "/work-pools/work-pool/tier-premium",
        "deployments": "/deployments",
        "automations": "/automations",
        **{name: f"/artifacts/artifact/{each}" for name, each in artifacts().items()},
    }
    driver = browser()
    made = []
    try:
        driver.get(ui)
        login = base64.b64encode(running.settings.prefect_auth().encode()).decode()
        driver.execute_script("localStorage.setItem('prefect-password', arguments[0])", login)
        for name, page in pages.items():
            driver.get(ui + page)
            time.sleep(SETTLE_S)  # the pages say nowhere that they are complete
            made.append(into / f"{name}.png")
            driver.save_screenshot(str(made[-1]))
    finally:
        driver.quit()
    return made


def main(folder: str) -> None:
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    with platform_up() as running, tempfile.TemporaryDirectory() as files:
        let_work_happen(running, Path(files))
        for path in take(running, into):
            print(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".orchard/screenshots")
