"""Ways for a file to arrive: each leads to predictions in SQL without any further command."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.database.audit import Audit
from tasks.domain.names import Purpose
from tasks.domain.run import UploadStatus
from tasks.domain.tenant import Tier
from tests.benchmarks.platform.running import ORCHARD, rows, until
from tests.selfrunning.conftest import Site

pytestmark = pytest.mark.timeout(600)


def predictions(site: Site, tenant: str) -> int:
    return len(site.running.platform.open_space(tenant).records.predictions("demand"))


def test_inbox_and_http_lead_to_predictions(site: Site) -> None:
    space = site.tenant("arrives", Tier.PREMIUM)
    base = site.api
    header = {"Authorization": f"Bearer {site.key('arrives')}"}

    place = site.drop("arrives", "january.csv.gz", gzip.compress(rows(5_000, 0, target=True)), Purpose.HISTORY)
    until(lambda: [u.status for u in space.records.uploads()] == [UploadStatus.DONE], 120)
    assert not (site.inbox / place).exists()

    answer = httpx.post(f"{base}/v1/demand/uploads/scoring", content=rows(500, 900, target=False), headers=header)
    assert answer.status_code == 202, answer.text
    until(lambda: predictions(site, "arrives") == 500, 60)
    again = httpx.post(f"{base}/v1/demand/uploads/scoring", content=rows(500, 900, target=False), headers=header)
    assert (again.status_code, again.json()["upload_id"]) == (200, answer.json()["upload_id"])
    status = httpx.get(f"{base}/v1/uploads/{answer.json()['upload_id']}", headers=header).json()
    assert (status["status"], status["rows"]["accepted"]) == ("done", 500)

    site.drop("arrives", "february.csv", rows(250, 2_000, target=False))
    until(lambda: predictions(site, "arrives") == 750, 60)

    job = httpx.post(f"{base}/v1/demand/jobs", json={"kind": "refresh"}, headers=header).json()
    until(lambda: space.records.job(job["job_id"]).status == "done", 120)

    audit = Audit(site.running.platform.cluster)
    told = {(entry["action"], entry["actor"].split(":")[0]) for entry in audit.own_entries("arrives")}
    assert {("upload", "inbox"), ("upload", "key"), ("release.promote", "run"), ("tenant.onboard", "operator")} <= told
    assert audit.verify().wrong is None


def test_a_file_that_cannot_be_admitted_says_why(site: Site) -> None:
    site.tenant("careful")
    nowhere = site.drop("nobody", "a.csv", b"x")
    wrong = site.inbox / "careful" / "demand" / "histories" / "b.csv"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"x")
    for place in (nowhere, "careful/demand/histories/b.csv"):
        reason: Path = site.inbox / "rejected" / f"{place}.txt"
        until(reason.exists, 60)
        assert reason.read_text().strip()
        assert not (site.inbox / place).exists()


def test_a_bad_file_is_rejected_by_itself(site: Site) -> None:
    space = site.tenant("sloppy")
    site.drop("sloppy", "bad.csv", b"nothing,useful\n1,2\n", Purpose.HISTORY)
    until(lambda: [u.status for u in space.records.uploads()] == [UploadStatus.REJECTED], 90)
    [upload] = space.records.uploads()
    assert "missing column" in (upload.error or "")


def test_the_operator_sees_the_account_of_a_run(site: Site) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    with get_client(sync_client=True) as client:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=["tenant:arrives", "tier:premium", "stage:pipeline"]))
        runs = client.read_flow_runs(flow_run_filter=tagged)
        assert len(runs) >= 3
        [receipt, *_] = client.request("POST", "/artifacts/filter", json={
            "artifacts": {"key": {"any_": ["arrives--demand-receipt"]}}, "sort": "CREATED_DESC",
        }).json()  # fmt: skip
    assert "accepted" in json.dumps(receipt["data"])
    assert " EUR |" in json.dumps(receipt["data"])  # what each run comes to


def test_the_command_line_lets_the_platform_do_the_work(site: Site, tmp_path: Path) -> None:
    space = site.tenant("typed")
    file = tmp_path / "january.csv"
    file.write_bytes(rows(5_000, 0, target=True))
    [upload] = orchard("upload", "typed", "demand", "history", file, "--json")
    assert upload["status"] == "done"
    assert space.records.job_of_upload(upload["upload_id"]).requested_by == "cli"
    [again] = orchard("upload", "typed", "demand", "history", file, "--json")
    assert again["upload_id"] == upload["upload_id"]
    [standing] = orchard("uploads", "typed", "--follow", "--json")
    assert (standing["status"], standing["attempts"]) == ("done", 1)
    subprocess.run([ORCHARD, "run", "typed", "demand", "--queue"], check=True)
    until(lambda: [job.status for job in space.records.jobs() if job.kind == "refresh"] == ["done"], 90)
    assert orchard("provision", "--json") == []


def orchard(*words: object) -> Any:
    """What a command prints as JSON."""
    done = subprocess.run([ORCHARD, *map(str, words)], check=True, capture_output=True, text=True, timeout=180)
    return json.loads(done.stdout)
