"""Erasing a tenant: step by step, searched for afterwards, certified. Cut off anywhere, the same call goes on."""

from __future__ import annotations

from pathlib import Path

from deployments.leaving.certificate import certificate_of, certificates_folder, write
from deployments.leaving.export import check_fresh
from deployments.leaving.files import TenantFiles
from deployments.leaving.orchestration import Orchestration
from deployments.leaving.search import Findings, audit_left, key_left, search
from deployments.leaving.steps import EXPORT, STEPS, Leaving
from deployments.platform import Platform, Report
from infra.database.audit import Actor, Audit
from infra.database.erasures import Erasure, Erasures, Progress
from infra.database.leavers import leavers
from infra.database.operator import Operator
from infra.database.removal import TenantRemoval
from infra.mentions import mentions_of
from tasks.domain.errors import InvalidDefinition, NotErased, NotFound, OrchardError
from tasks.domain.tenant import TenantState

SHOWN = 20


def erase(
    platform: Platform, tenant_id: str, by: Actor, report: Report = lambda _: None, export_to: Path | None = None
) -> Erasure:
    """Removes all that the platform has of a tenant; returns the erasure with its certificate. With `export_to`, all of
    it is exported first. For a tenant that was erased before, it returns that erasure.

    The others go on as ever. Raises `NotFound`, `InvalidDefinition` for a folder that is not empty or named too late,
    `Busy` for a run that does not end or a second command, `NotErased` when a search finds something afterwards that
    the certificate could not name: the next call begins anew.
    """
    from prefect.client.orchestration import get_client

    erasures, audit = Erasures(platform.cluster), Audit(platform.cluster)
    with erasures.alone(tenant_id), get_client(sync_client=True) as client:
        erasure = _begun(platform, erasures, tenant_id, by, export_to)
        if erasure.progress is None:
            return erasure
        known = leavers(platform.cluster)
        known.pop(tenant_id, None)
        mentions = mentions_of(platform.settings, erasure.progress.leaver, list(known.values()))
        leaving = Leaving(
            platform,
            by,
            erasure.subject,
            erasure.progress.leaver,
            TenantFiles(platform.settings, mentions),
            TenantRemoval(platform.cluster, tenant_id),
            Orchestration(client, mentions),
            report,
            Path(erasure.progress.export_to) if erasure.progress.export_to else None,
        )
        try:
            _remove(leaving, erasures, erasure)
            findings = _verify(leaving, erasures, erasure)
        except OrchardError as error:
            audit.record("tenant.erased", "failed", by=by, tenant=tenant_id, reason=type(error).__name__)
            raise
        audit.record("tenant.erased", "done", by=by, tenant=tenant_id, erasure=erasure.erasure_id)
        audit.forget(tenant_id)
        rests = [audit_left(leaving), *key_left(leaving), *findings.rests]
        # The certificate is on disk before the erasure is complete: whoever is cut off in between makes another one.
        document = certificate_of(
            erasures.erasure(erasure.erasure_id), rests, findings.searched, platform.settings.secret_key
        )
        write(document, certificates_folder(platform.settings), erasure.erasure_id)
        erasures.finish(erasure.erasure_id, document)
        return erasures.erasure(erasure.erasure_id)


def _begun(platform: Platform, erasures: Erasures, tenant_id: str, by: Actor, export_to: Path | None) -> Erasure:
    """The erasure to go on with; a complete one where the tenant is gone already. From now on nothing of the tenant is
    taken in or handed out."""
    operator, subject = Operator(platform.cluster), Audit(platform.cluster).subject(tenant_id)
    leaver = leavers(platform.cluster).get(tenant_id)
    if leaver is None:
        if (erasure := erasures.unfinished(tenant_id) or erasures.latest(subject)) is not None:
            return erasure
        operator.tenant(tenant_id)  # raises `NotFound`, and says which tenants there are
        raise NotFound(f"there is no tenant {tenant_id!r}")
    folder = None if export_to is None else export_to.resolve()
    known = erasures.unfinished(tenant_id)
    progress = None if known is None else known.progress
    if folder is not None and (progress is None or progress.export_to != str(folder)):
        check_fresh(platform.settings, folder)
        if known is not None and progress is not None:
            _check_exportable(progress)
            erasures.export_first(known.erasure_id, EXPORT, str(folder))
    erasure = erasures.begin(leaver, subject, by.who, None if folder is None else str(folder))
    operator.set_state(tenant_id, TenantState.LEAVING)
    return erasure


def _check_exportable(progress: Progress) -> None:
    """Raises `InvalidDefinition` for an erasure that has begun to remove what would be exported."""
    removing = STEPS[[step.name for step in STEPS].index(EXPORT) + 1 :]
    if any(step.name in progress.steps for step in removing):
        raise InvalidDefinition(
            "the erasure has come too far: not all that there was could be exported any more",
            hint="go on with it without --export-first, or with the folder that it began with",
        )


def _remove(leaving: Leaving, erasures: Erasures, erasure: Erasure) -> None:
    assert erasure.progress is not None
    for step in STEPS:
        done = erasure.progress.steps.get(step.name)
        if done is not None and done.at is not None:
            continue
        leaving.report(f"erasing {leaving.tenant}: {step.name}")
        erasures.found(erasure.erasure_id, step.name, step.find(leaving))
        step.remove(leaving)
        erasures.done(erasure.erasure_id, step.name)


def _verify(leaving: Leaving, erasures: Erasures, erasure: Erasure) -> Findings:
    leaving.report("searching for what may be left")
    leaving.files.redact_logs(leaving.subject)  # servers have written on meanwhile
    Audit(leaving.platform.cluster).forget(leaving.tenant)  # an attempt that was cut off has told of its end
    findings = search(leaving)
    if findings.hits:
        erasures.reopen(erasure.erasure_id)
        shown = "".join(f"\n  {hit.where}: {hit.times:,}" for hit in findings.hits[:SHOWN])
        raise NotErased(
            f"{leaving.tenant} is not erased: something of it was found afterwards",
            found=shown,
            hint="remove what only you can remove, and call again: all steps are done again",
        )
    return findings
