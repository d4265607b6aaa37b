"""Following uploads and jobs: one document from what the upload, its job and its stage say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from deployments.progress import UploadState, expected_wait_s, state_of
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.jobs import JOBS
from infra.settings import Settings
from infra.space import open_space
from tasks.domain.errors import ContractBroken, DatabaseUnavailable
from tasks.domain.job import Job, JobKind, JobStatus
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Upload, UploadStatus
from tests.api.conftest import MakeClient
from tests.api.served import problem

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def upload_of(status: UploadStatus, purpose: Purpose = Purpose.HISTORY) -> Upload:
    return Upload(
        upload_id="u", use_case="sales", purpose=purpose, seq=1, filename="f", size_bytes=1, content_sha256="c",
        status=status, received_at=NOW,
    )  # fmt: skip


def job_of(status: JobStatus) -> Job:
    return Job(
        tenant="t", job_id=1, use_case="sales", kind=JobKind.PIPELINE, status=status, requested_by="api", created_at=NOW
    )


@pytest.mark.parametrize(
    ("upload", "job", "state"),
    [
        (upload_of(UploadStatus.RECEIVED), None, "received"),
        (upload_of(UploadStatus.RECEIVED), JobStatus.WAITING, "queued"),
        (upload_of(UploadStatus.RECEIVED), JobStatus.SUBMITTED, "queued"),
        (upload_of(UploadStatus.RECEIVED), JobStatus.RUNNING, "running"),
        (upload_of(UploadStatus.INGESTED), JobStatus.RUNNING, "running"),
        (upload_of(UploadStatus.INGESTED), JobStatus.FAILED, "failed"),
        (upload_of(UploadStatus.INGESTED, Purpose.SCORING), JobStatus.RUNNING, "running"),
        (upload_of(UploadStatus.INGESTED, Purpose.SCORING), JobStatus.DONE, "waiting_for_release"),
        (upload_of(UploadStatus.INGESTED, Purpose.SCORING), None, "waiting_for_release"),
        (upload_of(UploadStatus.REJECTED), JobStatus.RUNNING, "rejected"),
        (upload_of(UploadStatus.REJECTED), JobStatus.DONE, "rejected"),
        (upload_of(UploadStatus.DONE), JobStatus.RUNNING, "done"),
        (upload_of(UploadStatus.DONE), None, "done"),
    ],
)
def test_what_upload_and_job_say_together(upload: Upload, job: JobStatus | None, state: str) -> None:
    assert state_of(upload, None if job is None else job_of(job)) == UploadState(state)


@given(position=st.integers(1, 10_000), runs=st.integers(1, 100), pace=st.floats(0, 3600))
def test_the_expected_wait_grows_with_the_place_and_falls_with_the_slots(position: int, runs: int, pace: float) -> None:
    wait = expected_wait_s(position, runs, pace)
    assert wait is not None
    assert wait >= pace
    assert wait <= (expected_wait_s(position + 1, runs, pace) or 0)
    assert wait >= (expected_wait_s(position, runs + 1, pace) or 0)
    assert expected_wait_s(position, runs, None) is None


def test_an_upload_on_its_way(client: MakeClient, api_settings: Settings, postgres: Cluster) -> None:
    acme = client("api-way")
    upload_id = acme.post("/v1/sales/uploads/history", content=b"a\n1\n").json()["upload_id"]
    records = open_space(api_settings, "api-way").records
    job = records.job_of_upload(upload_id)
    assert job is not None

    def become(**values: object) -> dict[str, object]:
        mine = (JOBS.c.tenant == "api-way") & (JOBS.c.job_id == job.job_id)
        transact(postgres.operator_url, lambda c: c.execute(update(JOBS).where(mine).values(values)))
        document = acme.get(f"/v1/uploads/{upload_id}").json()
        twin = acme.get(f"/v1/jobs/{job.job_id}").json()
        assert (twin["queue"], twin["progress"]) == (document["queue"], document["progress"])
        return dict(document)

    seen = become(status="submitted", attempts=1)
    assert (seen["status"], seen["queue"], seen["attempts"]) == ("queued", {"position": 0, "expected_wait_s": 0}, 1)

    seen = become(status="running")
    assert (seen["status"], seen["queue"], seen["progress"]) == ("running", None, None)

    run = records.open_run(Stage.TRAINING, "sales", "key", dataset_version=1)
    batches = [Batch(run_id=run.run_id, number=n, bucket=0, partitions=(f"store={n}",)) for n in (1, 2, 3)]
    records.plan(run, batches)
    records.finish_training_batch(batches[0], records.partition_models(run))
    seen = become(status="running")
    assert seen["progress"] == {"stage": "training", "done_batches": 1, "batches": 3}

    secret = str(DatabaseUnavailable("the database does not answer", where="db.internal, login x", hint="restart it"))
    seen = become(status="waiting", error=secret)
    assert (seen["status"], seen["error"]) == ("queued", "the database does not answer")
    seen = become(status="failed")
    assert (seen["status"], seen["error"]) == ("failed", "the database does not answer")

    why = str(ContractBroken("missing column: sku", where="sales.csv", hint="add the column"))
    records.update_upload(upload_id, status=UploadStatus.REJECTED, error=why)
    seen = become(status="done", error=None)
    assert (seen["status"], seen["error"]) == ("rejected", why)

    again = acme.post("/v1/sales/uploads/history", content=b"a\n1\n")
    assert (again.status_code, again.json()["status"], again.json()["error"]) == (200, "queued", None)

    records.update_upload(upload_id, status=UploadStatus.DONE, rows_read=3, rows_accepted=2, rows_quarantined=1)
    seen = become(status="done", error=None)
    assert (seen["status"], seen["rows"]) == ("done", {"read": 3, "accepted": 2, "quarantined": 1, "duplicate": 0})


def test_a_job_on_demand(client: MakeClient) -> None:
    acme = client("api-demand")
    first = acme.post("/v1/sales/jobs", json={"kind": "refresh"})
    assert first.status_code == 202
    document = first.json()
    assert (document["kind"], document["status"], document["requested_by"]) == ("refresh", "waiting", "api")
    assert document["queue"]["position"] >= 1
    assert acme.post("/v1/sales/jobs", json={"kind": "refresh"}).json()["job_id"] == document["job_id"]
    other = acme.post("/v1/sales/jobs", json={"kind": "scoring"}).json()
    assert other["job_id"] != document["job_id"]
    assert acme.get(f"/v1/jobs/{other['job_id']}").json()["kind"] == "scoring"


def test_a_job_that_cannot_be(client: MakeClient) -> None:
    acme = client("api-cannot")
    problem(acme.post("/v1/absent/jobs", json={"kind": "refresh"}), 404, "not-found")
    for body in ({"kind": "pipeline"}, {}, {"kind": "refresh", "tenant": "api-mine"}, [], 1):
        problem(acme.post("/v1/sales/jobs", json=body), 422, "invalid")
    problem(acme.post("/v1/sales/jobs", content=b"{"), 400, "unreadable")
    problem(acme.post("/v1/sales/jobs", content=b"\xff"), 400, "unreadable")
    problem(acme.post("/v1/sales/jobs", content=b" " * 10_001), 413, "too-large")
    for odd in ("0", "-1", "x", str(2**63)):
        problem(acme.get(f"/v1/jobs/{odd}"), 422, "invalid")
