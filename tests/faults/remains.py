"""What a tenant's uploads have left behind, in a form that two tenants can be compared by.

Run ids become "training 1", "training 2", …; upload ids the number of the upload; times and seconds are left out.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from sqlalchemy import text

from infra.database.audit import Audit
from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.settings import load_settings
from infra.space import TenantSpace
from tasks.bundle import read_index, read_part
from tasks.domain.names import Stage
from tasks.domain.run import RunStatus
from tasks.ingestion.quarantine import read_quarantine
from tests.faults.story import USE_CASE

TIMES = ["seconds", "scored_at", "last_run_at", "received_at", "created_at"]

Frame = pd.DataFrame
Names = Mapping[Any, str]


@dataclass(frozen=True)
class Tenant:
    """One tenant, with names for its run and upload ids."""

    space: TenantSpace
    runs: Names
    uploads: Names

    def plain(self, frame: Frame, *keys: str) -> Frame:
        """The frame in the order of its keys, without ids and times."""
        frame = frame.drop(columns=[*TIMES, "tenant"], errors="ignore")
        for column, names in (
            ("run_id", self.runs), ("model_run", self.runs), ("source_run", self.runs), ("upload_id", self.uploads),
        ):  # fmt: skip
            if column in frame:
                frame[column] = frame[column].map(lambda value, names=names: names.get(value, value))
        for column in frame:
            if frame[column].map(lambda value: hasattr(value, "tolist")).any():
                frame[column] = frame[column].map(lambda value: value.tolist() if hasattr(value, "tolist") else value)
        return frame.sort_values(list(keys), ignore_index=True)


def remains(space: TenantSpace) -> dict[str, Any]:
    """Everything that readers, people or later runs can see, by name."""
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    for run in reversed(space.records.runs(USE_CASE)):
        counts[run.stage] = counts.get(run.stage, 0) + 1
        names[run.run_id] = f"{run.stage} {counts[run.stage]}"
    uploads = {upload.upload_id: f"upload {upload.seq}" for upload in space.records.uploads(USE_CASE)}
    tenant = Tenant(space, names, uploads)
    parts: dict[str, Callable[[Tenant], dict[str, Any]]] = {
        "lake": _lake, "runs": _runs, "models": _models, "releases": _releases, "scores": _scores,
        "audit": _audit, "units": _units,
    }  # fmt: skip
    return {f"{part}: {name}": value for part, look in parts.items() for name, value in look(tenant).items()}


def _lake(tenant: Tenant) -> dict[str, Any]:
    space, use_case = tenant.space, tenant.space.tenant.use_case(USE_CASE)
    table = space.table(use_case)
    snapshot = table.snapshot()
    assert snapshot is not None
    rows = pd.concat([table.read(snapshot.version, bucket) for bucket in range(snapshot.buckets)])
    commits = [entry.get("upload_id") for entry in snapshot.delta.history()]
    quarantined = {name: read_quarantine(space.files, USE_CASE, id_, 1000) for id_, name in tenant.uploads.items()}
    return {
        "rows": tenant.plain(rows, "store", "sku", "day"),
        "buckets": snapshot.buckets,
        "commits": [tenant.uploads.get(each, each) for each in commits],
        "quarantine": quarantined,
        "uploads": [
            upload.model_dump(exclude={"upload_id", "received_at", "report"}) for upload in
            space.records.uploads(USE_CASE)
        ],
    }  # fmt: skip


def _runs(tenant: Tenant) -> dict[str, Any]:
    records = tenant.space.records
    runs = sorted(records.runs(USE_CASE), key=lambda run: run.run_id)
    receipts = []
    for run in runs:
        receipt = {**run.receipt}
        if "bundle_run" in receipt:
            receipt["bundle_run"] = tenant.runs[receipt["bundle_run"]]
        upload = tenant.uploads.get(run.upload_id or "")
        receipts.append(
            (tenant.runs[run.run_id], run.status, upload, run.dataset_version, run.release_version, receipt)
        )
    return {
        "receipts": receipts,
        "batches": [(tenant.runs[b.run_id], b.number, b.partitions) for run in runs for b in records.batches(run)],
        "unfinished": [run for run in runs if run.status is not RunStatus.FINISHED],
    }


def _units(tenant: Tenant) -> dict[str, Any]:
    """What was booked of finished work, each unit as often as it was booked."""
    query = text(
        "SELECT stage, run_id, coalesce(batch, 0) AS batch, release_version, rows_in, rows_out, bytes_in,"
        " models_trained, models_reused, count(*) AS times FROM usage WHERE tenant = :tenant"
        " GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9"
    )
    rows = transact(
        tenant.space.records.url,
        lambda connection: connection.execute(query, {"tenant": tenant.space.tenant.id}).mappings().all(),
    )
    return {"booked": tenant.plain(pd.DataFrame(map(dict, rows)), "run_id", "batch")}


def _models(tenant: Tenant) -> dict[str, Any]:
    found: dict[str, Any] = {}
    records, registry = tenant.space.records, tenant.space.registry
    with tempfile.TemporaryDirectory() as scratch:
        for run in records.runs(USE_CASE, Stage.TRAINING):
            name = tenant.runs[run.run_id]
            found[f"{name} partitions"] = tenant.plain(records.partition_models(run), "partition")
            if run.receipt["bundle_run"] == run.run_id:
                folder = registry.fetch_candidate(USE_CASE, run, Path(scratch) / str(run.run_id))
                found |= _bundle(tenant, f"{name} bundle", folder)
    versions, active = _registered(tenant.space)
    found["candidates"], found["MLflow runs"] = len(versions), active
    return found


def _bundle(tenant: Tenant, name: str, folder: Path) -> dict[str, Any]:
    rows = [row for part in sorted((folder / "models").glob("*.parquet")) for row in read_part(part)]
    index = [entry._asdict() | {"partition": name} for name, entry in read_index(folder).items()]
    return {
        f"{name}, models": tenant.plain(pd.DataFrame(rows), "partition"),
        f"{name}, index": tenant.plain(pd.DataFrame(index), "partition"),
        f"{name}, about": (folder / "bundle.json").read_text().replace(tenant.space.tenant.id, "TENANT"),
    }


def _registered(space: TenantSpace) -> tuple[list[str], int]:
    """Keys of the registered candidates, each once; how many MLflow runs are left."""
    from infra.registry.store import client

    mlflow = client(space.registry.training_uri)
    name = f"{space.tenant.id}.{USE_CASE}"
    keys = [version.tags["orchard.key"] for version in mlflow.search_model_versions(f"name = '{name}'")]
    assert len(set(keys)) == len(keys), "one version per run"
    return keys, len(mlflow.search_runs([mlflow.get_experiment_by_name(name).experiment_id]))


def _releases(tenant: Tenant) -> dict[str, Any]:
    from infra.registry.store import client

    space, registry = tenant.space, tenant.space.registry
    found: dict[str, Any] = {"champion": registry.find(USE_CASE, "champion")}
    released = client(registry.production_uri).search_model_versions(f"name = '{space.tenant.id}.{USE_CASE}'")
    found["registered"] = sorted(int(version.version) for version in released)
    releases = space.records.releases(USE_CASE)
    found["releases"] = [
        (each.version, each.status, tenant.runs[each.training_run], each.dataset_version, each.upload_seq,
         each.partitions, each.promoted, each.held)
        for each in releases
    ]  # fmt: skip
    assert [each.version for each in releases if each.status == "champion"] == [found["champion"]]
    for each in releases:
        verdicts = space.records.verdicts(USE_CASE, each.version)
        verdicts["reason"] = [
            re.sub(r"\brun (\d+)", lambda match: tenant.runs[int(match[1])], reason) for reason in verdicts["reason"]
        ]
        found[f"verdicts of {each.version}"] = tenant.plain(verdicts, "partition")
        with registry.open_release(USE_CASE, each.version) as folder:  # checks its digests as well
            found |= _bundle(tenant, f"release {each.version}", folder)
    return found


def _scores(tenant: Tenant) -> dict[str, Any]:
    space = tenant.space
    in_sql = space.records.predictions(USE_CASE)
    on_lake = space.predictions(space.tenant.use_case(USE_CASE)).read().to_pandas()
    for rows in (in_sql, on_lake):
        assert not rows.duplicated(["upload_id", "row_key"]).any(), "a row came out twice"
    keys = ["upload_id", "row_key"]
    shared = [column for column in in_sql if column in on_lake and column != "scored_at"]
    pd.testing.assert_frame_equal(
        in_sql.sort_values(keys, ignore_index=True)[shared],
        on_lake.sort_values(keys, ignore_index=True)[shared],
        check_dtype=False,
    )
    return {
        "in SQL": tenant.plain(in_sql, *keys),
        "on the lake": tenant.plain(on_lake, *keys),
        "health": tenant.plain(space.records.health(USE_CASE), "partition"),
    }


def _audit(tenant: Tenant) -> dict[str, Any]:
    audit = Audit(connected_cluster(load_settings(home=tenant.space.scratch_folder.parent)))
    entries = audit.entries(tenant.space.tenant.id)[::-1].query("action != 'tenant.onboard'")
    details = [
        {name: value for name, value in each.items() if name not in ("upload_id", "training_run")}
        for each in entries["details"]
    ]
    return {"entries": list(zip(entries["action"], entries["outcome"], details, strict=True))}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what the two differ, a line or a few each; empty when they are equal."""
    found = [f"only in one: {name}" for name in one.keys() ^ other.keys()]
    for name in one.keys() & other.keys():
        if isinstance(one[name], pd.DataFrame):
            try:
                pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)
            except AssertionError as error:
                found.append(f"{name}: {error}")
        elif one[name] != other[name]:
            found.append(f"{name}: {one[name]} != {other[name]}")
    return found


def garbage(space: TenantSpace) -> list[str]:
    """Files of the tenant that nothing refers to.

    Data files outside the Delta logs, uploads that are settled, parts of batches, unregistered models, partial files,
    folders of work.
    """
    root, home = space.location.local, space.scratch_folder.parent
    assert root is not None
    models = [home / "artifacts" / kind / space.tenant.id for kind in ("training", "production")]
    found = [path for folder in (root, *models) for path in folder.rglob("*") if path.name.endswith(".partial")]
    found += (root / "runs").rglob("part-*.parquet")
    found += [path for path in (root / "uploads").rglob("*") if path.is_file()]  # it has a personal column
    found += space.scratch_folder.rglob(f"{space.tenant.id}-*")
    for name in ("tables", "predictions"):
        folder = root / name / USE_CASE
        referenced = _ever_referenced(folder)
        found += [path for path in folder.rglob("*.parquet") if str(path.relative_to(folder)) not in referenced]
    candidates, active = _registered(space)
    kept = [len(list((folder / USE_CASE).iterdir())) for folder in models]
    assert kept == [active, len(space.records.releases(USE_CASE))]
    assert active == len(candidates)
    return sorted(map(str, found))


def _ever_referenced(folder: Path) -> set[str]:
    """Files of a Delta table that any of its versions refers to, checkpoints among them."""
    log = folder / "_delta_log"
    paths = {str(path.relative_to(folder)) for path in log.glob("*.parquet")}
    for entry in log.glob("*.json"):
        for line in entry.read_text().splitlines():
            action = json.loads(line)
            paths |= {action[kind]["path"] for kind in ("add", "remove") if kind in action}
    return paths


def published_files_exist(space: TenantSpace) -> None:
    """Every file that the current versions refer to is there, once, and has as many rows as they say."""
    from deltalake import DeltaTable

    for name in ("tables", "predictions"):
        location = space.location.child(name, USE_CASE)
        if not DeltaTable.is_deltatable(location.url):
            continue
        actions = DeltaTable(location.url).get_add_actions(flatten=True)
        assert location.local is not None
        paths = actions["path"].to_pylist()
        assert len(set(paths)) == len(paths)
        for path, rows in zip(paths, actions["num_records"].to_pylist(), strict=True):
            assert pq.read_metadata(location.local / path).num_rows == rows


class Attempts:
    """Watches that no finished batch is ever done again."""

    def __init__(self, space: TenantSpace) -> None:
        self._url, self._finished = space.records.url, Frame()
        self._repeated_before = self._look()

    def look(self) -> int:
        """Compares with the last look: whatever was finished then has the same attempts and time now. Returns how many
        attempts at batches were made in vain since the first look."""
        return self._look() - self._repeated_before

    def _look(self) -> int:
        query = text("SELECT run_id, number, attempts, finished_at FROM batches ORDER BY run_id, number")
        rows = transact(self._url, lambda connection: Frame(connection.execute(query).mappings().all()))
        if rows.empty:
            return 0
        rows = rows.set_index(["run_id", "number"])
        if len(self._finished):
            pd.testing.assert_frame_equal(rows.loc[self._finished.index], self._finished)
        self._finished = rows[rows["finished_at"].notna()]
        return int(rows["attempts"].sum()) - len(self._finished)
