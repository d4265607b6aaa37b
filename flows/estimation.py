"""What `orchard run` would do and use, told beforehand; nothing is changed by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pandas as pd

from flows.forecast_uploads import uploads_work
from flows.operations import releases_wait, waiting_uploads
from infra.database.cluster import Cluster
from infra.database.past import past_jobs, past_units, peers
from infra.database.prices import PriceBooks
from infra.space import TenantSpace
from tasks.domain.names import Stage
from tasks.domain.run import RunStatus, Upload
from tasks.domain.use_case import UseCase
from tasks.estimation.estimate import Estimate, estimate
from tasks.estimation.past import Past, Source, own_past, peers_past, similar_peers
from tasks.estimation.units import Kind, Unit
from tasks.estimation.work import BY_COUNTS, Work, one_process, scoring_work, training_work
from tasks.scoring.waiting import chosen_uploads, scoring_key
from tasks.training.intention import Intention, intend, plan_of, reused_in_batches, tenant_wide_rows
from tasks.training.lineage import seen_seq
from tasks.training.plan import Selection, recipe

OWN_RUNS, PEERS, RUNS_OF_A_PEER = 30, 10, 5
"""So many runs are learnt from: of the use case itself; else of so many others, so many each."""


GB, SMALLEST = 10**9, Decimal("0.000001")


@dataclass(frozen=True)
class Charge:
    """What is charged, in the price book's currency."""

    low: Decimal
    expected: Decimal
    high: Decimal
    currency: str


@dataclass(frozen=True)
class Forecast:
    """What is expected of one use case. `charge` is None while no price book is valid."""

    use_case: str
    work: Work
    estimate: Estimate
    charge: Charge | None


def forecasts(
    cluster: Cluster,
    space: TenantSpace,
    use_cases: Sequence[str],
    stage: Stage | None = None,
    selection: Selection = Selection(),  # noqa: B008  (it is frozen)
    dataset_version: int | None = None,
) -> list[Forecast]:
    """One per use case, of the run that `orchard run` with these options would start now: uploads that wait or, without
    any in all of the use cases, training, promotion and scoring, or one of them."""
    selective = stage is not None or selection != Selection() or dataset_version is not None
    waiting = [] if selective else waiting_uploads(space, use_cases)
    return [
        _forecast(cluster, space, space.tenant.use_case(name), waiting, stage, selection, dataset_version)
        for name in use_cases
    ]


def _forecast(
    cluster: Cluster,
    space: TenantSpace,
    use_case: UseCase,
    waiting: Sequence[Upload],
    stage: Stage | None,
    selection: Selection,
    dataset_version: int | None,
) -> Forecast:
    if waiting:
        mine = [upload for upload in waiting if upload.use_case == use_case.id]
        work = uploads_work(space, use_case, mine)
    else:
        work = one_process(_stages_work(space, use_case, stage, selection, dataset_version))
    found = estimate(work, past_of(cluster, space, use_case, work))
    return Forecast(use_case.id, work, found, charge_of(cluster, space, found, work))


def _stages_work(
    space: TenantSpace, use_case: UseCase, stage: Stage | None, selection: Selection, dataset_version: int | None
) -> Work:
    work = Work()
    if space.table(use_case).version() is None:
        return Work(notes=("it has no data yet",))
    if stage in (None, Stage.TRAINING):
        if dataset_version is not None:
            selection = Selection(selection.only_failed, selection.partitions, again=True)
        work = _training_work(space, intend(space, use_case.id, dataset_version, selection))
        if dataset_version is not None:
            return work
    elif stage is Stage.PROMOTION:
        done = (run for run in space.records.runs(use_case.id, Stage.TRAINING) if run.status is RunStatus.FINISHED)
        latest = next(done, None)
        partitions = 0 if latest is None else int(str(latest.receipt.get("partitions", 0)))
        work = Work((Unit(Kind.PROMOTION, partitions),))
    if stage in (None, Stage.SCORING):
        work = work.then(_scoring_work(space, use_case, work.train > 0 and not releases_wait(space, use_case.id)))
    return work


def _training_work(space: TenantSpace, intention: Intention) -> Work:
    """What a training run would still do: a finished one nothing, one that was cut off its pending batches."""
    run, records, min_rows = intention.run, space.records, intention.use_case.training.min_rows
    if run is None or not (run.status is RunStatus.FINISHED or records.planned(run)):
        plan, previous = plan_of(space, intention), intention.previous
        outcomes, sampled = plan.settled["outcome"], tenant_wide_rows(space, intention)
        same, exact = set[str](), True
        if previous is not None and intention.selection.reuses:
            table = space.table(intention.use_case).partitions(intention.version)
            models = records.partition_models(previous)
            same, exact = reused_in_batches(
                space, intention.use_case, intention.version, plan, table, models, seen_seq(space, previous)
            )
        work = training_work(plan.train, outcomes, sampled, min_rows, space.policy.max_batches, same)
        return work if exact else work.then(Work(notes=(BY_COUNTS,)))
    outcomes = records.partition_models(run)["outcome"].replace("trained", "reused")
    pending = [] if run.status is RunStatus.FINISHED else records.batches(run, pending=True)
    table = space.table(intention.use_case).partitions(intention.version)
    chosen = table["partition"].isin([name for batch in pending for name in batch.partitions])
    left = table.loc[chosen, ["partition", "bucket", "labelled"]].rename(columns={"labelled": "rows"})
    return training_work(left, outcomes, 0, min_rows, space.policy.max_batches)


def _scoring_work(space: TenantSpace, use_case: UseCase, new_release: bool) -> Work:
    """The scoring of all open rows, with the release that serves or one that the same run makes."""
    work, records = Work(), space.records
    serving = next((each.version for each in records.releases(use_case.id) if each.status == "champion"), None)
    finished = {run.key for run in records.runs(use_case.id, Stage.SCORING) if run.status is RunStatus.FINISHED}
    for upload in chosen_uploads(space, use_case.id, None, again=True):
        done = serving is not None and scoring_key(space, upload, serving) in finished
        if upload.dataset_version is not None and (new_release or (serving is not None and not done)):
            rows = space.table(use_case).partitions(upload.dataset_version, upload_seq=upload.seq)
            work = work.then(scoring_work(rows, space.policy.max_batches))
    return work


def past_of(cluster: Cluster, space: TenantSpace, use_case: UseCase, work: Work) -> Past:
    """Own runs, if there are any that did what is to be done now; else those of similar use cases, or of all."""
    tenant, url = space.tenant, space.records.url
    units, jobs = (read(url, tenant.id, use_case.id, OWN_RUNS) for read in (past_units, past_jobs))
    trains = any(unit.kind is Kind.TRAINING_BATCH for unit in work.units)
    if len(jobs) and (not trains or (units["kind"] == Kind.TRAINING_BATCH).any()):
        return own_past(units, jobs, "{contract_hash}/{training_version}".format(**recipe(use_case)))
    known, urls = peers(cluster)
    known = known[(known["tenant"] != tenant.id) | (known["use_case"] != use_case.id)]
    size = work.rows_to_train / work.train if work.train else None
    similar = similar_peers(known, tenant.tier, use_case.kind, size)
    source, chosen = (Source.SIMILAR, similar) if len(similar) else (Source.ALL, known)
    return peers_past(source, [_of_peer(row, urls) for row in chosen.head(PEERS).to_dict("records")])


def _of_peer(row: dict[object, str], urls: dict[str | None, str]) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    url = urls.get(row["tenant"]) or urls[None]
    units, jobs = (read(url, row["tenant"], row["use_case"], RUNS_OF_A_PEER) for read in (past_units, past_jobs))
    return f"{row['tenant']}.{row['use_case']}", units, jobs


def charge_of(cluster: Cluster, space: TenantSpace, found: Estimate, work: Work) -> Charge | None:
    """What the tenant's plan asks for it today, for the CPU, the storage kept for a month, and the predictions; as if
    what the plan includes were used up."""
    book = PriceBooks(cluster).all().find(datetime.now(UTC))
    if book is None:
        return None
    prices, cpu, stored = book.plans.of(space.tenant.tier).prices, found.cpu_s, found.storage_bytes

    def price(cpu_s: float, kept_bytes: float) -> Decimal:
        return prices.price(cpu_s, kept_bytes / GB, work.rows_to_score).quantize(SMALLEST)

    return Charge(
        price(cpu.low, stored.low), price(cpu.expected, stored.expected), price(cpu.high, stored.high), book.currency
    )


def total_of(found: Sequence[Forecast]) -> Charge | None:
    """The charges together; None where one is not known."""
    charges = [each.charge for each in found]
    if not charges or any(charge is None for charge in charges):
        return None
    known = [charge for charge in charges if charge is not None]
    return Charge(
        sum((each.low for each in known), Decimal(0)),
        sum((each.expected for each in known), Decimal(0)),
        sum((each.high for each in known), Decimal(0)),
        known[0].currency,
    )
