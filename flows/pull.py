"""Rows that are fetched from a tenant's own database: each fetch is an upload like any other."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.blocks.system import Secret

from flows.auditing import witness
from flows.events import announce_failed, announce_finished
from flows.operations import hand_in
from flows.space import open_space
from flows.work import working
from infra.database.pulls import Pulled
from infra.source import fetch
from tasks.domain.errors import InvalidDefinition
from tasks.domain.names import secret_block
from tasks.personal import discreetly


@flow(
    name="pull",
    flow_run_name="{tenant}.{use_case} pull",
    persist_result=False,
    on_failure=[announce_failed],
    on_completion=[announce_finished],
)
def pull(tenant: str, use_case: str, job_id: int | None = None, attempt: int = 1) -> str | None:
    """Fetches what is new since the last time and hands it in. Triggered by the schedule of the use case's `pull`.

    Cut off after the rows were handed in, it fetches them again: the same content is the same upload, and a row of the
    same key replaces itself. So it does, with those that came since, where an upload of earlier pulls was rejected.
    Returns the upload's id, None where nothing is new.

    Args:
        tenant: the tenant's id.
        use_case: the use case's id.
        job_id: filled in by dispatch; without it, the run takes nobody's turn.
        attempt: filled in by dispatch.
    """
    space = open_space(tenant)
    with working(space, job_id, attempt), space.scratch("pull") as scratch:
        contract = space.tenant.use_case(use_case).contract
        source = space.tenant.use_case(use_case).pull
        if source is None:
            raise InvalidDefinition(f"use case {use_case!r} of {tenant!r} has no pull", hint="declare it in its file")
        url = str(Secret.load(secret_block(tenant, source.secret)).get())  # type: ignore[union-attr]  # sync here
        before = space.records.pull_progress(use_case)
        since = source.start if before.watermark is None else before.watermark
        path = scratch / f"{use_case}-pull.parquet"
        with discreetly(contract):
            quotable = not contract.personal
            fetched = fetch(url, source.query, source.watermark, since, path, quotable=quotable)
        get_run_logger().info("%s.%s: %d new rows", tenant, use_case, fetched.rows)
        if not fetched.rows:
            return None
        upload, _ = hand_in(space, use_case, source.purpose, path, "pull", witness("run:pull"))
        space.records.save_pull(use_case, before, Pulled(upload.upload_id, since), fetched.watermark)
        return upload.upload_id
