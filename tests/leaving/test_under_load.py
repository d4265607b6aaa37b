"""A tenant is erased while others work, and itself; the erasure is killed on the way; the others do not notice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.leaving.certificate import check
from deployments.supervision.supervisor import connected
from infra import servers
from infra.database.audit import Audit
from infra.database.keys import Keys
from infra.signing import public_key
from infra.space import TenantSpace
from tasks.domain.names import Purpose
from tasks.domain.run import UploadStatus
from tasks.domain.tenant import Isolation
from tests.benchmarks.platform.running import ORCHARD, Running, platform_up, until
from tests.faults.remains import differences, remains
from tests.faults.story import USE_CASE, Chapter, tenant, write_chapters
from tests.leaving.everywhere import STAYING, places_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TIERS = """
free: {runs: 1, runs_per_tenant: 1, workers: 1, max_upload_bytes: 20000000, memory_mb: 4096}
standard: {runs: 3, runs_per_tenant: 2, workers: 1, max_upload_bytes: 20000000, memory_mb: 4096}
premium: {runs: 1, runs_per_tenant: 1, workers: 1, max_upload_bytes: 20000000, memory_mb: 4096}
"""

STAYERS = ("stays-a", "stays-b")
KILLS = ("access", "runs", "prefect", "files", "rows", "searching")
"""What the erasure says it does when it is killed."""

REFUSALS = {401, 409, 429}
"""Unknown, leaving, and too often unknown: nobody is told that something broke."""


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with platform_up(TIERS) as running:
        yield running


@pytest.fixture(scope="module")
def chapters(tmp_path_factory: pytest.TempPathFactory) -> list[Chapter]:
    return write_chapters(tmp_path_factory.mktemp("story"))


def api_of(running: Running) -> str:
    server = servers.running(running.settings.home, "api")
    assert server is not None
    return server.url


def send(running: Running, key: str, purpose: Purpose, content: bytes) -> httpx.Response:
    url = f"{api_of(running)}/v1/{USE_CASE}/uploads/{purpose}"
    return httpx.post(url, content=content, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def live(running: Running, name: str, chapters: Sequence[Chapter]) -> dict[str, Any]:
    """A tenant's whole story, chapter by chapter, through the API; what remains of it."""
    running.onboard(tenant(name))
    key = Keys(running.platform.cluster).create(name, "test")[1]
    space = running.platform.open_space(name)
    for number, chapter in enumerate(chapters, start=1):
        assert send(running, key, chapter.purpose, chapter.path.read_bytes()).status_code == 202
        until(lambda number=number: is_done(space, number), 300)
    left = remains(space)
    del left["audit: entries"]  # no two tenants have the same key
    return left


def is_done(space: TenantSpace, uploads: int) -> bool:
    found = space.records.uploads()
    assert all(each.error is None for each in found), [each.error for each in found]
    return len(found) == uploads and all(each.status is UploadStatus.DONE for each in found)


@dataclass
class Sender:
    """Somebody who goes on uploading, whatever is answered."""

    running: Running
    key: str
    content: str
    answers: Counter[int] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            lines = self.content.splitlines()
            text = "\n".join([*lines, re.sub(r"20\d\d-", f"{2100 + number}-", lines[-1])])  # no two are the same
            self.answers[send(self.running, self.key, Purpose.HISTORY, text.encode()).status_code] += 1
            time.sleep(0.2)


def erase(name: str, *options: str) -> None:
    """Erases a tenant, as an operator would."""
    done = subprocess.run([ORCHARD, "tenants", "erase", name, "--yes", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def killed_erasure(name: str, moment: str) -> None:
    """Begins to erase, and is killed when it says that it does this."""
    process = subprocess.Popen([ORCHARD, "tenants", "erase", name, "--yes"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if moment in line:
            process.send_signal(signal.SIGKILL)
            break
    else:
        raise AssertionError(f"it never came to {moment!r}")
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_tenant_with_compute_of_its_own_leaves_with_it(running: Running, chapters: list[Chapter]) -> None:
    running.onboard(tenant("crossbill").model_copy(update={"isolation": Isolation.BRIDGE}))
    subprocess.run([ORCHARD, "up"], check=True, capture_output=True)
    supervisor = connected(running.settings.home)
    assert supervisor is not None
    assert "worker-tenant-crossbill" in supervisor.states()
    key = Keys(running.platform.cluster).create("crossbill", "test")[1]
    send(running, key, Purpose.HISTORY, chapters[0].path.read_bytes()).raise_for_status()
    until(lambda: running.queue.running_of("crossbill"), 60)
    erase("crossbill")
    assert "worker-tenant-crossbill" not in supervisor.states()
    assert places_of(running.settings, "crossbill") <= STAYING
    assert all("crossbill" not in line for line in os.popen("ps ax -o command"))
    subprocess.run([ORCHARD, "up"], check=True, capture_output=True)
    assert places_of(running.settings, "crossbill") <= STAYING


def test_the_others_do_not_notice(running: Running, chapters: list[Chapter], tmp_path: Path) -> None:
    """The last test here: who left goes on sending until the API refuses whoever comes from its address."""
    undisturbed = live(running, "undisturbed", chapters)
    live(running, "waxwing", chapters[:3])
    key = Keys(running.platform.cluster).create("waxwing", "loud")[1]
    sender = Sender(running, key, chapters[3].path.read_text())
    with ThreadPoolExecutor(3) as threads:
        sending = threads.submit(sender.work)
        try:
            lives = [threads.submit(live, running, name, chapters) for name in STAYERS]
            until(lambda: running.queue.running_of("waxwing"), 60)  # one of its runs is under way
            for moment in KILLS:
                killed_erasure("waxwing", moment)
            erase("waxwing", "--certificate", str(tmp_path))
            assert places_of(running.settings, "waxwing") <= STAYING
            remaining = [each.result() for each in lives]
        finally:
            sender.stop.set()
        sending.result()
    assert places_of(running.settings, "waxwing") <= STAYING  # nothing came back since
    for remains_of_other in remaining:
        assert differences(remains_of_other, undisturbed) == []
    print(f"answers to the tenant that left: {dict(sender.answers)}")
    assert sender.answers.keys() <= {200, 202} | REFUSALS, sender.answers
    assert sender.answers[401] > 0
    checked = check(tmp_path / "erasure-waxwing.json", public_key(running.settings.secret_key))
    assert checked.tenant == "waxwing"
    assert Audit(running.platform.cluster).verify().wrong is None
    assert "Error flushing" not in (running.settings.home / "logs" / "prefect.log").read_text()
