"""Runs, events and parameters: a run of the attacker's that is given what is the victim's."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import text

from flows import operations, work
from infra import servers
from infra.attacks.attempt import Finding, Group, denied, refused, succeeded, unproven
from infra.attacks.scene import Scene, operator_urls
from infra.database.connect import transact
from infra.space import TenantSpace
from tasks.domain.errors import Busy, NotFound, Permanent
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Run, RunStatus
from tasks.ingestion.admission import stored_path
from tasks.ingestion.steps import ingest_upload
from tasks.monitoring.steps import measure_health
from tasks.promotion.steps import judge_candidates
from tasks.scoring.steps import uploads_to_score

GROUP = Group("events")

Given = Callable[[TenantSpace, Scene], object]


def _id(scene: Scene, table: str, column: str) -> Any:
    """The id of a row of the victim's. Raises `LookupError` where it has none."""
    if table not in scene.prey_rows:
        raise LookupError(f"the victim has no row of {table}")
    return scene.prey_rows[table][column]


class Its(Exception):
    """The number is also one of the attacker's own, and means that: silos count for themselves."""


def _run_id(scene: Scene) -> int:
    """The number of a run of the victim's. Raises `Its`."""
    number = int(_id(scene, "runs", "run_id"))
    if scene.attacker.records.url.rpartition("@")[2] != scene.victim.records.url.rpartition("@")[2]:
        own = text("SELECT EXISTS (SELECT FROM runs WHERE tenant = :tenant AND run_id = :number)")
        values = {"tenant": scene.attacker.tenant.id, "number": number}
        url = operator_urls(scene.cluster, scene.attacker.tenant.id)[-1]
        if transact(url, lambda connection: connection.scalar(own, values)):
            raise Its(f"run {number} is also one of its own, and means that")
    return number


def _upload(scene: Scene) -> str:
    return str(_id(scene, "uploads", "upload_id"))


def _run(scene: Scene) -> Run:
    """A run of the victim's, as a value."""
    return Run(
        run_id=_run_id(scene),
        key=str(_id(scene, "runs", "key")),
        use_case=scene.mine.use_case,
        stage=Stage.TRAINING,
        status=RunStatus.FINISHED,
        started_at=datetime.now(UTC),
    )


def _batch(scene: Scene) -> Batch:
    row = scene.prey_rows["batches"]
    return Batch(run_id=_run_id(scene), number=int(row["number"]), bucket=0, partitions=())


def _work(space: TenantSpace, scene: Scene) -> None:
    with work.working(space, int(_id(scene, "jobs", "job_id")), int(_id(scene, "jobs", "attempts"))):
        return


def _stored(space: TenantSpace, scene: Scene) -> str:
    with space.files.local(stored_path(scene.mine.use_case, _upload(scene))) as path:
        return path.read_text()


GIVEN: dict[str, tuple[str, Given]] = {
    "ingest": (
        "has an upload of the victim's ingested",
        lambda space, scene: ingest_upload.fn(space, _upload(scene)),
    ),
    "score": (
        "has an upload of the victim's scored",
        lambda space, scene: uploads_to_score.fn(space, scene.mine.use_case, _upload(scene), False),
    ),
    "monitor": (
        "has actuals of the victim's compared with its own predictions",
        lambda space, scene: measure_health.fn(space, scene.mine.use_case, _upload(scene)),
    ),
    "promote": (
        "has a training run of the victim's promoted",
        lambda space, scene: judge_candidates.fn(space, scene.mine.use_case, _run_id(scene)),
    ),
    "work": ("works in the name of a job of the victim's", _work),
    "job": ("reads a job of the victim's", lambda space, scene: space.records.job(int(_id(scene, "jobs", "job_id")))),
    "run": ("reads a run of the victim's", lambda space, scene: space.records.run(_run_id(scene))),
    "upload": ("reads an upload of the victim's", lambda space, scene: space.records.upload(_upload(scene))),
    "reject": (
        "rejects an upload of the victim's",
        lambda space, scene: space.records.update_upload(_upload(scene), error="isolation-canary"),
    ),
    "file": ("opens the stored file of an upload of the victim's", _stored),
}


def _refused(given: Given, scene: Scene) -> Finding:
    return refused(lambda: given(scene.attacker, scene), NotFound, Its)


for _name, (_what, _given) in GIVEN.items():
    GROUP.add(_name, _what, partial(_refused, _given), quick=_name in ("ingest", "job"))

EMPTY: dict[str, tuple[str, Given]] = {
    "models": (
        "reads the models of a training run of the victim's",
        lambda space, scene: len(space.records.partition_models(_run(scene))),
    ),
    "batches": ("reads the batches of a run of the victim's", lambda space, scene: space.records.batches(_run(scene))),
    "scored": ("reads what a run of the victim's scored", lambda space, scene: len(space.records.scored(_run(scene)))),
    "planned": (
        "asks whether a run of the victim's is planned",
        lambda space, scene: space.records.planned(_run(scene)),
    ),
    "failed": (
        "asks what failed in a run of the victim's",
        lambda space, scene: space.records.failed_partitions(_run(scene)),
    ),
    "quarantine": (
        "reads what the victim's upload left in quarantine",
        lambda space, scene: operations.quarantined(space, scene.mine.use_case, _upload(scene), 10),
    ),
    "beat": (
        "keeps a job of the victim's alive",
        lambda space, scene: space.records.beat(int(_id(scene, "jobs", "job_id")), int(_id(scene, "jobs", "attempts"))),
    ),
}


def _finds_nothing(given: Given, scene: Scene) -> Finding:
    try:
        found = given(scene.attacker, scene)
    except Its as its:
        return denied(str(its))
    return succeeded(f"it finds a {type(found).__name__}") if found else denied(f"it finds nothing: {found!r}")


for _name, (_what, _given) in EMPTY.items():
    GROUP.add(_name, _what, partial(_finds_nothing, _given))

UNTOUCHED: dict[str, tuple[str, str, Given]] = {
    "end-job": (
        "ends a job of the victim's",
        "jobs",
        lambda space, scene: space.records.end_job(
            int(_id(scene, "jobs", "job_id")), int(_id(scene, "jobs", "attempts")), "isolation-canary"
        ),
    ),
    "give-back-job": (
        "gives a job of the victim's back",
        "jobs",
        lambda space, scene: space.records.give_back(
            int(_id(scene, "jobs", "job_id")), int(_id(scene, "jobs", "attempts")), "isolation-canary"
        ),
    ),
    "start-batch": (
        "begins a batch of the victim's",
        "batches",
        lambda space, scene: space.records.start_batch(_batch(scene)),
    ),
    "retry-failed": (
        "has what failed in a run of the victim's tried again",
        "batches",
        lambda space, scene: space.records.retry_failed(_run(scene)),
    ),
    "champion": (
        "lets a release of the victim's serve, by its number",
        "releases",
        lambda space, scene: space.records.set_champion(
            "isolation-canary", int(scene.prey_rows["releases"]["version"])
        ),
    ),
}


def _leaves_alone(table: str, given: Given, scene: Scene) -> Finding:
    before = _rows(scene, table)
    try:
        given(scene.attacker, scene)
        why = "nothing was said"
    except (Permanent, Its) as error:
        why = f"{type(error).__name__}: {error}"
    after = _rows(scene, table)
    if before != after:
        return succeeded(f"rows of {table} of the victim's have changed")
    return denied(f"the victim's rows of {table} are what they were; {why}")


def _rows(scene: Scene, table: str) -> list[str]:
    """The victim's planted row or any one of its own, read by the operator."""
    row = scene.prey_rows[table]
    keys = [name for name in ("run_id", "number", "job_id", "version", "use_case") if name in row]
    condition = " AND ".join(f"{name} = :{name}" for name in ("tenant", *keys))
    query = text(f"SELECT t::text FROM {table} AS t WHERE {condition}")  # noqa: S608  # names of ours
    values = {name: row[name] for name in ("tenant", *keys)}
    found: list[str] = []
    for url in operator_urls(scene.cluster, scene.victim.tenant.id):
        found += transact(url, lambda connection: list(connection.scalars(query, values)))
    return found


for _name, (_what, _table, _given) in UNTOUCHED.items():
    GROUP.add(_name, _what, partial(_leaves_alone, _table, _given))


@GROUP.attack("holds the victim's use case by its name while the victim wants it")
def lock(scene: Scene) -> Finding:
    with scene.attacker.records.lock(scene.mine.use_case):
        try:
            with scene.victim.records.lock(scene.prey.use_case):
                return denied("each has a lock of its own")
        except Busy as error:
            return succeeded(f"the victim is turned away: {error}")


@GROUP.attack("reads by path what the victim has in quarantine")
def quarantine_path(scene: Scene) -> Finding:
    way = f"../../../{scene.victim.tenant.id}/quarantine/{scene.prey.use_case}/{_upload(scene)}"
    return refused(lambda: operations.quarantined(scene.attacker, scene.mine.use_case, way, 10), Permanent)


@GROUP.attack("hands in a file whose stored path leads to the victim's")
def stored(scene: Scene) -> Finding:
    def act() -> object:
        with scene.attacker.files.local(stored_path(f"../../{scene.victim.tenant.id}/uploads", "x")) as path:
            return path

    return refused(act, Permanent)


PREFECT: dict[str, tuple[str, str, str, dict[str, object]]] = {
    "runs": ("reads all runs of Prefect", "POST", "/flow_runs/filter", {}),
    "event": (
        "tells Prefect of a file in the victim's inbox",
        "POST",
        "/events",
        {"event": "orchard.upload.received"},
    ),
    "secrets": (
        "reads Prefect's blocks, secrets among them",
        "POST",
        "/block_documents/filter",
        {"include_secrets": True},
    ),
    "deployments": ("lists the deployments that start runs", "POST", "/deployments/filter", {}),
    "variables": ("reads Prefect's variables", "POST", "/variables/filter", {}),
}


def _prefect(method: str, path: str, body: dict[str, object], scene: Scene) -> Finding:
    server = servers.running(scene.settings.home, "prefect")
    if server is None:
        return unproven("no Prefect server of Orchard's runs here: orchard up")
    key = scene.door.key if scene.door is not None else "orc_none"
    statuses = []
    for headers in ({}, {"Authorization": f"Bearer {key}"}, {"Authorization": "Basic b3JjaGFyZDo="}):
        request = urllib.request.Request(
            server.url.rstrip("/") + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return succeeded(f"Prefect answers with status {answer.status}")
        except urllib.error.HTTPError as error:
            if error.code not in (401, 403):
                raise
            statuses.append(error.code)
    return denied(f"without a login, with an API key and with an empty password: {statuses}")


for _name, (_what, _method, _path, _body) in PREFECT.items():
    GROUP.add(f"prefect-{_name}", _what, partial(_prefect, _method, _path, _body))
