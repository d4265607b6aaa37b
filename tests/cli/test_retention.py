"""Retention on a whole platform: what is old and serves nothing goes, what serves goes on serving."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from sqlalchemy import text

from deployments.cli.actor import witness
from deployments.runs import pipeline_here
from infra.database.audit import Audit
from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.database.operator import Operator
from infra.database.records import PostgresRecords
from infra.inbox import open_inbox
from infra.lake.files import LakeFiles, stored_files
from infra.lake.predictions import LakePredictions
from infra.lake.retention import History
from infra.registry.store import client
from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tasks.domain.errors import Retryable
from tasks.domain.names import Purpose, Stage
from tasks.domain.retention import Removed, RetentionAccount
from tasks.domain.tenant import TenantState
from tasks.ingestion.admission import stored_path
from tests.cli.shop import history, sales, scoring, tenant_file
from tests.cli.terminal import Terminal

YEARS = dt.timedelta(days=1000)
"""After so long, everything of a standard tenant is old."""

Enforce = Callable[..., list[RetentionAccount]]


@pytest.fixture
def enforce(orchard: Terminal, settings: Settings) -> Enforce:
    """Retention as it will be some day: the clock is a parameter."""

    from flows import retention

    def run(tenant: str, later: dt.timedelta = YEARS, *, dry_run: bool = False) -> list[RetentionAccount]:
        told = witness(connected_cluster(settings))
        now = dt.datetime.now(dt.UTC) + later
        return retention.enforce(settings, told, tenant=tenant, now=now, dry_run=dry_run)

    return run


def hand_in(orchard: Terminal, tenant: str, purpose: str, content: str, *, code: int = 0) -> dict[str, Any]:
    Path("handed-in.csv").write_text(content)
    answer = orchard("upload", tenant, "sales", purpose, "handed-in.csv", "--json")
    assert answer.code == code, answer.err
    return answer.json[0]  # type: ignore[no-any-return]


def lived(orchard: Terminal, tenant: str) -> None:
    """A tenant with a past: three trainings and releases, predictions that were made anew, a rejected file, bad rows,
    actuals of some of what was predicted, a run that looked back."""
    orchard("tenants", "add", tenant_file(Path(), tenant)).worked()
    bad = sales(1, first="2027-01-01").assign(price=-1.0).head(2).to_csv(index=False, header=False)
    hand_in(orchard, tenant, "history", history() + bad)
    hand_in(orchard, tenant, "history", "nonsense", code=1)
    hand_in(orchard, tenant, "scoring", scoring())
    for number, first in enumerate(("2026-03-01", "2026-04-01"), start=3):
        hand_in(orchard, tenant, "history", history(20, first=first, seed=number))
        orchard("run", tenant, "sales", "--stage", "scoring").worked()
    known = sales(3, first="2026-06-01", seed=2).query("store == 1")[["store", "sku", "day", "sales"]]
    hand_in(orchard, tenant, "actuals", known.to_csv(index=False))
    orchard("run", tenant, "--dataset-version", "0").worked()


def gone(accounts: list[RetentionAccount]) -> dict[str, int]:
    assert [account.error or account.busy for account in accounts] == [None] * len(accounts)
    return {each.what: each.number for account in accounts for each in account.removed}


EXPECTED = {
    "raw files": 6,
    "quarantine files": 1,
    "reports": 5,  # the rejected file could not be read, and so has none
    "dataset versions": 4,
    "dataset files": 1,
    "prediction rows": 36,
    "prediction versions": 3,
    "prediction files": 2,
    "releases": 1,
    "training runs": 2,
}
"""Of five dataset versions, three scoring runs, three releases and four training runs, two of them in releases."""


def serving(space: TenantSpace) -> dict[str, pd.DataFrame]:
    """What readers see."""
    on_lake = space.predictions(space.tenant.use_case("sales")).read().to_pandas()
    frames = {
        "predictions": space.records.predictions("sales"),
        "on the lake": on_lake,
        "health": space.records.health("sales"),
    }
    return {name: frame.sort_values("partition", kind="stable", ignore_index=True) for name, frame in frames.items()}


def assert_serves_on(orchard: Terminal, space: TenantSpace, before: dict[str, pd.DataFrame], receipts: Any) -> None:
    """Nothing that serves has changed, and nothing more than it is there; work goes on."""
    tenant, files, records = space.tenant.id, space.files, space.records
    for name, frame in serving(space).items():
        pd.testing.assert_frame_equal(frame, before[name])
    assert orchard("receipts", tenant, "--json").worked().json == receipts
    for folder in ("uploads", "quarantine", "reports"):
        assert files.list(folder) == []
    assert [upload.report for upload in records.uploads()] == [None] * 6

    # What is in the registries: the champion, the one before it, and the trainings that they come from.
    looked_back, third, second, first = records.runs("sales", Stage.TRAINING)
    assert looked_back.receipt["look_back"]
    models = [len(records.partition_models(run)) for run in (looked_back, third, second, first)]
    assert models == [0, 6, 6, 0]
    mlflow = client(space.registry.training_uri)
    candidates = mlflow.search_model_versions(f"name = '{tenant}.sales'")
    assert {each.tags["orchard.key"] for each in candidates} == {third.key, second.key}
    experiment = mlflow.get_experiment_by_name(f"{tenant}.sales").experiment_id
    logged = {run.info.run_id for run in mlflow.search_runs([experiment], run_view_type=3)}  # deleted ones too
    assert logged == {each.run_id for each in candidates}
    for location, names in (
        (space.registry.training_artifacts, logged),
        (
            space.registry.production_artifacts,
            {release.source.split("/")[-2] for release in records.releases("sales")[:2]},
        ),
    ):
        found = stored_files(location.child("sales"))
        assert {file.path.split("/")[0] for file in found} == names
    kept = {f"runs/sales/training/{run.run_id}/tenant-wide.parquet" for run in (second, third)}
    assert set(files.list("runs")) == kept
    statuses = {row["version"]: row["status"] for row in orchard("releases", "list", tenant, "sales", "--json").json}
    assert statuses == {3: "champion", 2: "retired", 1: "removed"}
    assert len(records.verdicts("sales", 1)) == 0

    # Time travel ends where it was cut, and says so.
    orchard("run", tenant, "--dataset-version", "1").failed(2, "dataset version 1 of 'sales' is not kept", "4 or later")
    orchard("releases", "rollback", tenant, "sales", "--to", "1").failed(2, "no release 1", "2")

    # And everything goes on: looking back at what is kept, rolling back, training what is new, scoring it.
    orchard("run", tenant, "--dataset-version", "4").worked()
    orchard("releases", "rollback", tenant, "sales").worked()
    orchard("releases", "rollback", tenant, "sales", "--to", "3").worked()
    part = pd.read_csv(io.StringIO(history(20, first="2026-05-01", seed=9))).query("store == 1")
    hand_in(orchard, tenant, "history", part.to_csv(index=False))
    outcomes = [row["outcome"] for row in orchard("models", tenant, "sales", "--json").json]
    assert sorted(outcomes) == ["reused"] * 3 + ["trained"] * 3, "models of the last run were taken over"
    hand_in(orchard, tenant, "scoring", scoring(first="2026-07-01", seed=4))
    orchard("run", tenant, "sales", "--stage", "scoring").worked()
    assert len(records.predictions("sales")) == 36


def test_what_is_old_goes_and_what_serves_stays(orchard: Terminal, settings: Settings, enforce: Enforce) -> None:
    lived(orchard, "elderly")
    space = open_space(settings, "elderly")
    before, receipts = serving(space), orchard("receipts", "elderly", "--json").json
    assert gone(enforce("elderly", dt.timedelta())) == {}, "nothing is old yet"
    assert orchard("retention", "elderly", "--json").worked().json == []

    would = enforce("elderly", dry_run=True)
    assert gone(would) == EXPECTED
    assert all(each.size_bytes > 100 for each in would[0].removed if not each.what.endswith("rows"))
    assert gone(enforce("elderly", dry_run=True)) == EXPECTED, "it was dry"

    done = enforce("elderly")
    assert gone(done) == EXPECTED
    assert done == would
    assert gone(enforce("elderly")) == {}
    assert_serves_on(orchard, space, before, receipts)
    [told] = Audit(connected_cluster(settings)).entries("elderly", action="data.expire")["details"]
    assert told == {"days": 365, "gone": {what.replace(" ", "_"): number for what, number in EXPECTED.items()}}


class Killed(BaseException):
    """Nobody handles it."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Cuts the work off right after so many more of its effects. It stands in for `kill -9`, of which a test could not
    choose the moment: nothing is remembered between two effects, and no handler sees it."""
    from mlflow import MlflowClient

    left = [0]

    def striking(original: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return result

        return struck

    for owner, name in (
        (LakeFiles, "delete"), (History, "_checkpoint"), (PostgresRecords, "remove_scores"),
        (PostgresRecords, "remove_models"), (PostgresRecords, "remove_release"), (PostgresRecords, "update_upload"),
        (MlflowClient, "delete_model_version"), (MlflowClient, "delete_run"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, striking(getattr(owner, name)))
    return lambda number: left.__setitem__(0, number)


@pytest.mark.slow
def test_cut_off_anywhere_it_goes_on(
    orchard: Terminal, settings: Settings, enforce: Enforce, killed_after: Callable[[int], None]
) -> None:
    lived(orchard, "unlucky")
    space = open_space(settings, "unlucky")
    before, receipts = serving(space), orchard("receipts", "unlucky", "--json").json
    for number in itertools.count(1):
        killed_after(number)
        try:
            enforce("unlucky")
        except Killed:
            for name, frame in serving(space).items():
                pd.testing.assert_frame_equal(frame, before[name])
        else:
            break
    killed_after(0)
    assert number > 5
    assert gone(enforce("unlucky")) == {}
    assert_serves_on(orchard, space, before, receipts)


def test_what_is_busy_waits_for_the_next_day(orchard: Terminal, settings: Settings, enforce: Enforce) -> None:
    orchard("tenants", "add", tenant_file(Path(), "working")).worked()
    hand_in(orchard, "working", "history", history())
    space = open_space(settings, "working")
    with space.records.lock("sales"):
        [account, _] = enforce("working")
        assert account.removed == ()
        assert account.busy == "another run works on working.sales"
        [told] = orchard("retention", "working", "--json").worked().json
        assert told["note"] == account.busy
        assert gone(enforce("working", dry_run=True)) == {"raw files": 1, "reports": 1}
    operator = Operator(connected_cluster(settings))
    operator.set_state("working", TenantState.MOVING)
    assert "moving" in str(enforce("working")[0].busy)
    operator.set_state("working", TenantState.ACTIVE)
    assert gone(enforce("working")) == {"raw files": 1, "reports": 1}


def test_what_waits_keeps_what_it_needs(orchard: Terminal, settings: Settings, enforce: Enforce) -> None:
    """Rows that wait for a first release are scored at their dataset version, however long that takes."""
    orchard("tenants", "add", tenant_file(Path(), "patient", training={"min_rows": 20})).worked()
    hand_in(orchard, "patient", "scoring", scoring())
    hand_in(orchard, "patient", "scoring", scoring(first="2026-07-01"))
    Path("stored.csv").write_text(history())
    orchard("upload", "patient", "sales", "history", "stored.csv", "--no-run").worked()
    assert gone(enforce("patient")) == {"raw files": 2, "reports": 2}
    orchard("run", "patient").worked()
    space = open_space(settings, "patient")
    assert [upload.status.value for upload in space.records.uploads()] == ["done"] * 3
    assert len(space.records.predictions("sales")) == 36
    assert gone(enforce("patient"))["dataset versions"] == 2
    # Their version is gone now, so their last predictions stay as they are.
    hand_in(orchard, "patient", "history", history(20, first="2026-03-01", seed=3))
    [ran] = orchard("run", "patient", "sales", "--stage", "scoring", "--json").worked().json
    assert ran["scoring"] == []
    assert len(space.records.predictions("sales")) == 36


def test_a_scoring_run_that_was_cut_off_long_ago_begins_anew(
    orchard: Terminal, settings: Settings, enforce: Enforce
) -> None:
    from flows.operations import admit

    orchard("tenants", "add", tenant_file(Path(), "resumes")).worked()
    hand_in(orchard, "resumes", "history", history())
    Path("rows.csv").write_text(scoring())
    space = open_space(settings, "resumes")
    upload, _ = admit(space, "sales", Purpose.SCORING, Path("rows.csv"), witness(connected_cluster(settings)))

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LakePredictions, "publish", die)  # all batches are written, and nothing is published
        with pytest.raises(Killed):
            pipeline_here(space, upload.upload_id)
    [run] = space.records.runs("sales", Stage.SCORING)
    assert run.status == "running"
    assert space.records.planned(run)
    kept = gone(enforce("resumes", dt.timedelta(days=1)))
    assert "prediction rows" not in kept, "it may be taken up soon"
    assert gone(enforce("resumes"))["prediction rows"] == 18
    orchard("run", "resumes").worked()
    assert len(space.records.predictions("sales")) == 18
    assert len(space.predictions(space.tenant.use_case("sales")).read()) == 18


def test_use_cases_that_were_switched_off_grow_old_too(orchard: Terminal, settings: Settings, enforce: Enforce) -> None:
    file = tenant_file(Path(), "narrows")
    orchard("tenants", "add", file).worked()
    hand_in(orchard, "narrows", "history", history())
    spec = yaml.safe_load(file.read_text())
    spec["use_cases"][0]["id"] = "returns"
    file.write_text(yaml.safe_dump(spec))
    orchard("tenants", "add", file, "--yes").worked()
    assert [account.use_case for account in enforce("narrows", dry_run=True)] == ["returns", "sales", "inbox"]
    assert gone(enforce("narrows")) == {"raw files": 1, "reports": 1}


def test_files_that_nobody_will_fetch(orchard: Terminal, settings: Settings, enforce: Enforce) -> None:
    """One that was stored and never recorded, one that the inbox refused, a personal one that outlived its upload."""
    spec = yaml.safe_load(tenant_file(Path(), "litters").read_text())
    spec["use_cases"][0]["contract"]["columns"]["who"] = {"type": "string", "personal": "drop"}
    Path("litters.yaml").write_text(yaml.safe_dump(spec))
    orchard("tenants", "add", "litters.yaml").worked()
    done = hand_in(orchard, "litters", "history", sales().assign(who="anna").to_csv(index=False))
    space, inbox = open_space(settings, "litters"), open_inbox(settings).files
    space.files.write(f"uploads/sales/{'0' * 32}", b"stored, and never recorded")
    space.files.write(stored_path("sales", done["upload_id"]), b"whoever settled it was cut off")
    inbox.write("rejected/litters/sales/history/a.csv", b"refused")
    inbox.write("rejected/litters/sales/history/a.csv.txt", b"why")
    assert gone(enforce("litters", dt.timedelta())) == {"raw files": 1}, "personal data goes at once"
    assert gone(enforce("litters", dt.timedelta(days=2))) == {"raw files": 1}, "nobody is still about to record it"
    assert gone(enforce("litters")) == {"reports": 1, "refused files": 2}
    assert inbox.list("rejected/litters") == []


@pytest.mark.slow
def test_one_that_does_not_come_through_keeps_no_other_from_its_turn(
    orchard: Terminal, settings: Settings, enforce: Enforce
) -> None:
    from flows import retention

    for tenant in ("broken", "sound"):
        orchard("tenants", "add", tenant_file(Path(), tenant)).worked()
        hand_in(orchard, tenant, "history", history())
    files = LakeFiles(open_space(settings, "broken").location.child("tables", "sales"))
    log = "_delta_log/00000000000000000000.json"
    whole = files.read(log)
    files.write(log, b"{not json")
    accounts = retention.enforce(settings, witness(connected_cluster(settings)), now=dt.datetime.now(dt.UTC) + YEARS)
    by_tenant = {account.tenant: account for account in accounts if account.use_case == "sales"}
    assert "JSON" in str(by_tenant["broken"].error)
    assert {each.what for each in by_tenant["sound"].removed} == {"raw files", "reports"}
    orchard("retention", "broken").failed(1, "did not come through", "JSONDecodeError")
    files.write(log, whole)
    orchard("retention", "broken").worked()
    orchard("retention", "nobody").failed(2, "no tenant 'nobody'")
    # A tenant whose space cannot be opened: here its key is gone, elsewhere its silo or its role may be.
    url = connected_cluster(settings).operator_url
    lose = text("DELETE FROM tenant_secrets WHERE tenant = 'broken' RETURNING personal_key")
    [key] = transact(url, lambda c: c.scalars(lose).all())
    later = dt.datetime.now(dt.UTC) + YEARS
    accounts = retention.enforce(settings, witness(connected_cluster(settings)), now=later)
    assert [(each.tenant, each.use_case) for each in accounts if each.error] == [("broken", "*")]
    restored = {"key": key}
    transact(url, lambda c: c.execute(text("INSERT INTO tenant_secrets VALUES ('broken', :key)"), restored))


def test_the_flow_shows_what_went_and_names_nobody(orchard: Terminal, settings: Settings) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows import retention
    from flows.runner import in_this_process

    orchard("tenants", "add", tenant_file(Path(), "shown")).worked()
    inbox = open_inbox(settings).files
    inbox.write("rejected/shown/sales/history/a.csv", b"12345")
    old = (dt.datetime.now() - YEARS).timestamp()  # the flow has no clock to be set: the file is given its age
    os.utime(inbox.location.local / "rejected/shown/sales/history/a.csv", (old, old))
    with in_this_process():
        shown = retention.enforce_retention(tenant="shown")
    assert shown == [{"what": "refused files", "number": 1, "size_bytes": 5}]
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["retention"]))
    with get_client(sync_client=True) as api:
        [artifact] = api.read_artifacts(artifact_filter=wanted)
    assert json.loads(artifact.data) == shown
    accounts = [
        RetentionAccount(tenant="acme", use_case="a", removed=(Removed("reports", 1, 2), Removed("releases", 3, 4))),
        RetentionAccount(tenant="ua", use_case="b", removed=(Removed("reports", 5, 6),), busy="acme.a is busy"),
        RetentionAccount(tenant="ua", use_case="c", error="StorageUnavailable: ua.c cannot be read"),
    ]
    assert [tuple(row.values()) for row in retention.totals(accounts)] == [
        ("reports", 6, 8), ("releases", 3, 4), ("use cases that were busy", 1, 0),
        ("use cases that did not come through", 1, 0),
    ]  # fmt: skip
    with pytest.raises(Retryable, match="1 use case did not come through") as caught:
        retention.check_came_through(accounts)
    assert caught.value.found == "StorageUnavailable"
    assert "ua" not in str(caught.value).replace("StorageUnavailable", "")
