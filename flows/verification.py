"""The proof that tenants are kept apart, as a run of its own."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.attacks.report import write_report
from flows.attacks.suite import Proof, prove
from infra import servers
from infra.database.audit import Actor
from infra.settings import load_settings
from tasks.domain.errors import NotIsolated

ACTOR = Actor(who="run:verification", origin="flow")


@flow(name="verification", flow_run_name="verify isolation", persist_result=False)
def verify_isolation(tenant: str | None = None, victim: str | None = None, quick: bool = False) -> dict[str, int]:
    """Attacks tenants with one another's credentials. Triggered once a day, or by a person.

    Nothing of theirs is changed. What was tried, and what came of it, is a table on this page and a report on disk; the
    run fails when anything got through, and so alerts.

    Args:
        tenant: who attacks; without it, one of each way of isolation, in turn.
        victim: who is attacked in full; in turn without it.
        quick: only what is tried against every tenant.
    """
    settings = load_settings()
    server = servers.running(settings.home, "api")
    proof = prove(settings, tenant, victim, quick=quick, api_url=server.url if server else None, by=ACTOR)
    page = write_report(settings, proof)
    get_run_logger().info("%s: %s", proof.note or proof.summary(), page)
    _show(proof, str(page))
    if not proof.holds:
        found = "; ".join(f"{each.group}/{each.name} ({each.why})" for each in proof.got_through[:5])
        raise NotIsolated(
            f"{len(proof.got_through)} attempts of one tenant on another got through",
            found=found,
            where=str(page),
            hint="take the cause away before anything else; orchard verify-isolation tries again",
        )
    return {outcome.value: count for outcome, count in proof.counts.items()}


def _show(proof: Proof, page: str) -> None:
    lines = [f"## {proof.note or proof.summary()}", "", f"The whole report: `{page}`"]
    create_markdown_artifact("\n".join(lines), key="isolation", description="are tenants kept apart?")
    columns = {"group", "name", "what", "outcome", "why"}  # and not who: tenants leave, and pages stay
    rows = [
        attempt.model_dump(mode="json", include=columns) for attempt in proof.attempts if attempt.outcome != "denied"
    ]
    create_table_artifact(rows, key="isolation-not-denied", description="attempts that were not denied")
