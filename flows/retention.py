"""What is old and serves nothing any more is removed for good, as the tenants' tiers say."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.auditing import witness
from infra.database.audit import Witness
from infra.database.cluster import connected_cluster
from infra.database.operator import Operator
from infra.definitions import load_tiers
from infra.inbox import open_inbox
from infra.settings import Settings, load_settings
from infra.space import TenantSpace, open_space
from tasks.domain.errors import Busy, Retryable
from tasks.domain.retention import Horizon, Removed, RetentionAccount
from tasks.domain.use_case import UseCase
from tasks.ingestion.retention import forget_old_versions, remove_old_files
from tasks.promotion.retention import remove_old_releases
from tasks.scoring.retention import remove_old_scores
from tasks.training.retention import remove_old_models

logger = logging.getLogger(__name__)

PARTS = (remove_old_files, forget_old_versions, remove_old_scores, remove_old_releases, remove_old_models)
"""In this order: what serves decides about what it was made of. Each holds the use case for itself, and lets a run that
waits come in between."""

INBOX, EVERYTHING = "inbox", "*"
"""What stands for a use case where files belong to none, or where the tenant's space could not be opened."""


def enforce(
    settings: Settings, told: Witness, *, tenant: str | None = None, now: datetime | None = None, dry_run: bool = False
) -> list[RetentionAccount]:
    """Removes what has to go, of one tenant or of all, or says what would. Cut off, it goes on the next time.

    A use case that a run works on is left alone, and so is a tenant that moves or leaves. One that does not come
    through keeps no other from its turn. Raises `NotFound` for an unknown tenant.
    """
    operator = Operator(connected_cluster(settings))
    names = [operator.tenant(tenant).id] if tenant is not None else [each.id for each in operator.tenants()]
    accounts: list[RetentionAccount] = []
    for name in names:
        policy = load_tiers(settings.tiers_file)[operator.tenant(name).tier]
        horizon = Horizon(now=now or datetime.now(UTC), days=policy.retention_days)
        done = _tenant(settings, operator, name, horizon, dry_run)
        accounts += done
        if not dry_run and (gone := _counts(done)):
            told.record("data.expire", "done", tenant=name, days=horizon.days, gone=gone)
    return accounts


def _tenant(
    settings: Settings, operator: Operator, name: str, horizon: Horizon, dry_run: bool
) -> list[RetentionAccount]:
    try:
        space = open_space(settings, name)
        use_cases = [*space.tenant.use_cases, *operator.former_use_cases(name)]
    except Exception as error:  # as in `_account`
        accounts = [_failed(name, EVERYTHING, error)]
    else:
        accounts = [_account(name, each.id, partial(_of_use_case, space, each, horizon, dry_run)) for each in use_cases]
    return [*accounts, _account(name, INBOX, partial(_refused_files, settings, name, horizon, dry_run))]


def _account(tenant: str, use_case: str, work: Callable[[], Iterator[Removed]]) -> RetentionAccount:
    """What the work removed, as far as it came."""
    removed: list[Removed] = []
    account = RetentionAccount(tenant=tenant, use_case=use_case)
    try:
        removed.extend(work())
    except Busy as error:
        account = account.model_copy(update={"busy": error.message})
    except Exception as error:  # whatever it is, the others must not keep what has to go
        account = _failed(tenant, use_case, error)
    return account.model_copy(update={"removed": tuple(each for each in removed if each.number)})


def _failed(tenant: str, use_case: str, error: Exception) -> RetentionAccount:
    logger.warning("retention of %s.%s did not come through: %s", tenant, use_case, error)
    logger.debug("where it went wrong", exc_info=error)
    return RetentionAccount(tenant=tenant, use_case=use_case, error=f"{type(error).__name__}: {error}")


def _of_use_case(space: TenantSpace, use_case: UseCase, horizon: Horizon, dry_run: bool) -> Iterator[Removed]:
    for part in PARTS:
        with nullcontext() if dry_run else space.records.lock(use_case.id):
            yield from part(space, use_case, horizon, dry_run)


def _refused_files(settings: Settings, tenant: str, horizon: Horizon, dry_run: bool) -> Iterator[Removed]:
    """Files that the inbox refused: they belong to no use case, and nothing waits for them."""
    old = open_inbox(settings).remove_refused(tenant, horizon.cutoff, dry_run)
    yield Removed("refused files", len(old), sum(file.size_bytes for file in old))


def _counts(accounts: list[RetentionAccount]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for each in (each for account in accounts for each in account.removed):
        counts[each.what.replace(" ", "_")] += each.number
    return dict(counts)


def shown_accounts(accounts: list[RetentionAccount]) -> list[dict[str, object]]:
    """One row per tenant, use case and kind of thing, for people and scripts; one of nothing where all of it waits."""
    nothing = (Removed("", 0),)
    return [
        {
            "tenant": account.tenant,
            "use_case": account.use_case,
            "what": each.what,
            "number": each.number,
            "size_bytes": each.size_bytes,
            "note": account.error or account.busy or "",
        }
        for account in accounts
        for each in account.removed or (nothing if account.error or account.busy else ())
    ]


def totals(accounts: list[RetentionAccount]) -> list[dict[str, object]]:
    """One row per kind of thing, over all tenants and naming none: what stays on a page when a tenant leaves."""
    numbers, sizes = Counter[str](), Counter[str]()
    for each in (each for account in accounts for each in account.removed):
        numbers[each.what] += each.number
        sizes[each.what] += each.size_bytes
    numbers["use cases that were busy"] = sum(account.busy is not None for account in accounts)
    numbers["use cases that did not come through"] = sum(account.error is not None for account in accounts)
    return [{"what": what, "number": number, "size_bytes": sizes[what]} for what, number in numbers.items() if number]


@flow(name="retention", flow_run_name="retention", persist_result=False)
def enforce_retention(tenant: str | None = None, dry_run: bool = False) -> list[dict[str, object]]:
    """Removes for good what is older than the tiers of the tenants keep, and serves nothing any more.

    Triggered daily, or by a person. Idempotent, and safe to cut off. What is busy has its turn the next day. Returns
    what was removed, by kind; fails at the end when a use case did not come through for another reason.

    Args:
        tenant: one tenant's id; all without it.
        dry_run: only say what would be removed.
    """
    accounts = enforce(load_settings(), witness("run:retention"), tenant=tenant, dry_run=dry_run)
    shown = totals(accounts)
    create_table_artifact(shown, key="retention", description="what would go" if dry_run else "what is gone")
    check_came_through(accounts)
    return shown


def check_came_through(accounts: list[RetentionAccount]) -> None:
    """Raises `Retryable` when something went wrong with a use case. Whose it is, the log says, and `orchard retention`:
    the message stays on the run's page."""
    failed = [account.error.partition(":")[0] for account in accounts if account.error]
    if failed:
        raise Retryable(
            f"retention of {len(failed)} use case{'s' * (len(failed) > 1)} did not come through",
            found=", ".join(sorted(set(failed))),
            hint="the others are done, and it goes on with them the next time; orchard retention says which they are",
        )
