"""Stage 4: find the release by tags → predict in mapped batches → lake table and SQL, atomically."""

from __future__ import annotations

from prefect import flow

from flows.events import announce_failed, announce_finished
from flows.failure import record_failure
from flows.runner import shared, threads, watch
from flows.space import open_space
from flows.work import working
from tasks.scoring.steps import plan_scoring, publish, score_batch, uploads_to_score


@flow(
    name="scoring",
    flow_run_name="{tenant}.{use_case} scoring",
    task_runner=threads(),
    persist_result=False,
    on_failure=[record_failure, announce_failed],
    on_completion=[announce_finished],
)
def score(
    tenant: str,
    use_case: str,
    upload_id: str | None = None,
    again: bool = False,
    job_id: int | None = None,
    attempt: int = 1,
) -> list[int]:
    """Predicts the rows of one scoring upload or, without one, of all that wait for a release.

    Triggered by the pipeline, a schedule or a person. Readers see all rows of an upload or none; every row comes out
    once. `again` also predicts anew, with the release that serves now, the uploads some of whose rows still wait for
    their target. Returns the ids of the runs; an upload keeps waiting while there is no release.

    Args:
        tenant: the tenant's id.
        use_case: the use case's id.
        upload_id: one scoring upload; all that wait without it.
        again: predict open rows of scored uploads anew.
        job_id: filled in by dispatch; without it, the run takes nobody's turn.
        attempt: filled in by dispatch.
    """
    space = open_space(tenant)
    runs = []
    with working(space, job_id, attempt), space.records.lock(use_case):
        for upload in uploads_to_score(space, use_case, upload_id, again):
            run, batches = plan_scoring(space, upload)
            if run is not None:
                watch(score_batch.map(shared(space), shared(run), batches), f"scoring {tenant}.{use_case}")
                runs.append(publish(space, run))
    return runs
