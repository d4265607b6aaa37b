"""What uploads that wait will lead to, one after the other, as if each had been merged and trained on already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from infra.database.past import past_files, past_units
from infra.space import TenantSpace
from tasks.domain.errors import Permanent
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Upload, UploadStatus
from tasks.domain.use_case import UseCase
from tasks.estimation.work import (
    BY_COUNTS,
    Work,
    counts_with_buckets,
    ingestion_work,
    monitoring_work,
    one_process,
    rows_by_size,
    rows_per_touched,
    scoring_work,
    spread_evenly,
    table_after,
    training_work,
)
from tasks.ingestion.admission import stored_path
from tasks.ingestion.counting import count_partitions
from tasks.training.intention import models_after, reused_in_batches
from tasks.training.lineage import bundle_run, latest_comparable, load_tenant_wide, quarantined_partitions, seen_seq
from tasks.training.plan import Selection, plan_run
from tasks.training.tenant_wide import is_due

COUNTED_BYTES = 50_000_000
"""Of larger files, rows are told by their size; smaller ones are read, for their partition keys alone."""

LEARNT_FROM = 30


@dataclass
class _State:
    """The use case as it will be when some of the uploads are done."""

    table: pd.DataFrame
    models: pd.DataFrame | None
    seen: int
    fitted_at: int | None
    serves: bool
    unscored: list[pd.DataFrame] = field(default_factory=list)


def uploads_work(space: TenantSpace, use_case: UseCase, uploads: Sequence[Upload]) -> Work:
    """All that the pipeline would do about these uploads, in the order of arrival."""
    work = Work()
    if not uploads:
        return work
    state = _now(space, use_case)
    for upload in uploads:
        counts, job = _counted(space, use_case, upload, state)
        if upload.purpose is Purpose.HISTORY:
            if upload.status is UploadStatus.RECEIVED:
                state.table = table_after(state.table, counts, upload.seq)
            job = job.then(_training(space, use_case, state, upload))
        elif upload.purpose is Purpose.SCORING:
            state.unscored.append(counts)
        else:
            job = job.then(monitoring_work(int(counts["rows"].sum())))
        if upload.purpose is not Purpose.ACTUALS and state.serves:
            for rows in state.unscored:
                job = job.then(scoring_work(rows, space.policy.max_batches))
            state.unscored.clear()
        work = work.then(one_process(job))
    if state.unscored:
        work = work.then(Work(notes=(f"{len(state.unscored)} scoring files wait for a release",)))
    return work


def _now(space: TenantSpace, use_case: UseCase) -> _State:
    records, table = space.records, space.table(use_case)
    version = table.version()
    previous = latest_comparable(records.runs(use_case.id, Stage.TRAINING), use_case)
    empty = pd.DataFrame({"partition": pd.Series(dtype="str"), "bucket": pd.Series(dtype="int64")})
    state = _State(
        table=empty if version is None else table.partitions(version),
        models=None if previous is None else records.partition_models(previous),
        seen=0 if previous is None else seen_seq(space, previous),
        fitted_at=None
        if previous is None
        else load_tenant_wide(space, use_case.id, bundle_run(previous)).labelled_rows,
        serves=any(release.status == "champion" for release in records.releases(use_case.id)),
    )
    for upload in records.uploads(use_case.id):
        if upload.purpose is Purpose.SCORING and upload.status is UploadStatus.INGESTED and upload.dataset_version:
            state.unscored.append(table.partitions(upload.dataset_version, upload_seq=upload.seq))
    return state


def _training(space: TenantSpace, use_case: UseCase, state: _State, upload: Upload) -> Work:
    options = use_case.training
    quarantined = quarantined_partitions(space, use_case.id, space.table(use_case).version() or 0)
    plan = plan_run(state.table, state.models, state.seen, Selection(), quarantined)
    labelled, sampled = int(state.table["labelled"].sum()), 0
    if state.fitted_at is None or is_due(labelled, state.fitted_at, options.tenant_wide.refresh_growth):
        state.fitted_at, sampled = labelled, min(labelled, options.tenant_wide.max_rows)
    version = space.table(use_case).version()
    same, exact = set[str](), True
    if version is not None:
        same, exact = reused_in_batches(space, use_case, version, plan, state.table, state.models, state.seen)
    outcomes, batches = plan.settled["outcome"], space.policy.max_batches
    work = training_work(plan.train, outcomes, sampled, options.min_rows, batches, same)
    if not exact:
        work = work.then(Work(notes=(BY_COUNTS,)))
    state.models, state.seen = models_after(plan, options.min_rows), max(state.seen, upload.seq)
    state.serves = state.serves or (work.train > 0 and use_case.gate.approval == "auto")
    return work


def _counted(space: TenantSpace, use_case: UseCase, upload: Upload, state: _State) -> tuple[pd.DataFrame, Work]:
    """Rows of an upload by partition (`partition`, `bucket`, `rows`), and its ingestion; none where it is ingested."""
    if upload.status is not UploadStatus.RECEIVED:
        rows = pd.DataFrame({"partition": ["all"], "bucket": [0], "rows": [upload.rows_accepted]})
        return rows, Work(uploads=1)
    stored = stored_path(use_case.id, upload.upload_id)
    if upload.purpose is not Purpose.ACTUALS and upload.size_bytes <= COUNTED_BYTES and space.files.exists(stored):
        try:
            with space.scratch("estimation") as scratch, space.files.local(stored, scratch) as path:
                counts = count_partitions(path, use_case, upload, space.pseudonyms)
        except Permanent:
            rows = counts_with_buckets(pd.Series(dtype="int64"), state.table)
            return rows, Work(uploads=1, notes=(f"{upload.filename} cannot be read: it will be rejected",))
        return counts_with_buckets(counts, state.table), ingestion_work(int(counts.sum()), upload.size_bytes)
    url, tenant = space.records.url, space.tenant.id
    guess = rows_by_size(upload.filename, upload.size_bytes, past_files(url, tenant, use_case.id, LEARNT_FROM))
    touched, doubt = rows_per_touched(past_units(url, tenant, use_case.id, LEARNT_FROM))
    counts = spread_evenly(guess.rows, list(state.table["partition"]), touched)
    note = f"{upload.filename}: about {guess.rows:,} rows, {guess.why}; its partitions are a guess"
    work = ingestion_work(guess.rows, upload.size_bytes, math.hypot(guess.doubt, doubt))
    return counts_with_buckets(counts, state.table), work.then(Work(notes=(note,)))
