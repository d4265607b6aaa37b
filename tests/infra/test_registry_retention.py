"""Old entries of the registries go for good, with their files, and nothing else does."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from infra.database.connect import transact
from infra.database.operator import Operator
from infra.lake.files import LakeFiles, stored_files
from infra.lake.location import Location
from infra.registry import MlflowRegistry
from infra.registry.retention import remove_folders
from infra.registry.store import client
from tests.infra.test_registry import log, of_tenant, release, training_run
from tests.infra.test_registry import stores as stores
from tests.promotion import bundles

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


NAMES = (f"aging-{number}" for number in itertools.count(1))


def filled(operator: Operator, folder: Path) -> MlflowRegistry:
    """A new tenant's: two candidates, three releases."""
    made = bundles.make(folder / "bundle", {0: "lightgbm", 1: "naive"}, run=7)
    registry = of_tenant(next(NAMES), operator, folder)
    for number in (7, 8):
        log(registry, made, training_run(number), {})
    for key in ("key-1", "key-2", "key-3"):
        release(registry, made, key)
    return registry


@pytest.fixture
def registry(stores: tuple[str, str], operator: Operator, tmp_path: Path) -> MlflowRegistry:
    return filled(operator, tmp_path)


def rows(uri: str, table: str, column: str) -> list[object]:
    return transact(uri, lambda c: list(c.scalars(text(f"SELECT {column} FROM {table} ORDER BY 1"))))


def test_candidates_go_with_runs_and_artifacts(
    registry: MlflowRegistry, stores: tuple[str, str], tmp_path: Path
) -> None:
    mlflow = client(registry.training_uri)
    named = f"name = '{registry.tenant}.demand'"
    versions = {each.tags["orchard.key"]: each for each in mlflow.search_model_versions(named)}
    artifacts = registry.training_artifacts.child("demand")
    LakeFiles(artifacts).write(f"{'0' * 32}/artifacts/model", b"left over by a killed attempt")
    everything, runs = stored_files(artifacts), rows(stores[0], "runs", "run_uuid")

    would = registry.remove_candidates("demand", {"key-7"}, LONG_AGO, dry_run=True)
    assert stored_files(artifacts) == everything
    assert registry.remove_candidates("demand", {"key-7"}, LONG_AGO, dry_run=False) == would
    assert {file.path.split("/")[0] for file in would} == {versions["key-7"].run_id}
    assert stored_files(artifacts) == [file for file in everything if file not in would]
    [left] = mlflow.search_model_versions(named)
    assert left.tags["orchard.key"] == "key-8"
    assert set(runs) - set(rows(stores[0], "runs", "run_uuid")) == {versions["key-7"].run_id}, "not only marked"
    for table in ("tags", "params", "metrics", "latest_metrics"):
        assert versions["key-7"].run_id not in rows(stores[0], table, "run_uuid")
    assert registry.remove_candidates("demand", {"key-7"}, LONG_AGO, dry_run=False) == []
    soon = datetime.now(UTC) + timedelta(days=1)
    assert len(registry.remove_candidates("demand", {"key-7"}, soon, dry_run=False)) == 1, "and what was left over"
    registry.fetch_candidate("demand", training_run(8), tmp_path / "into")
    assert log(registry, tmp_path / "bundle", training_run(9), {}) == "3", "numbers are not given twice"


def test_releases_go_with_their_files(registry: MlflowRegistry) -> None:
    artifacts = registry.production_artifacts.child("demand")
    versions = registry.release_versions("demand")
    assert sorted(versions) == [1, 2, 3]
    assert all(datetime.now(UTC) - made_at < timedelta(minutes=5) for made_at in versions.values())
    would = registry.remove_releases("demand", {1, 2, 9}, LONG_AGO, dry_run=True)
    assert registry.remove_releases("demand", {1, 2, 9}, LONG_AGO, dry_run=False) == would
    assert {file.path.split("/")[0] for file in would} == {"key-1", "key-2"}
    assert {file.path.split("/")[0] for file in stored_files(artifacts)} == {"key-3"}
    assert list(registry.release_versions("demand")) == [3]
    assert registry.remove_releases("demand", {1, 2}, LONG_AGO, dry_run=False) == []
    registry.check_release("demand", 3)


def test_another_tenants_entries_stay(registry: MlflowRegistry, operator: Operator, tmp_path: Path) -> None:
    theirs = filled(operator, tmp_path)
    before = [stored_files(place) for place in (theirs.training_artifacts, theirs.production_artifacts)]
    registry.remove_candidates("demand", {"key-7", "key-8"}, datetime.now(UTC), dry_run=False)
    registry.remove_releases("demand", {1, 2, 3}, datetime.now(UTC), dry_run=False)
    assert [stored_files(place) for place in (theirs.training_artifacts, theirs.production_artifacts)] == before
    assert sorted(theirs.release_versions("demand")) == [1, 2, 3]
    theirs.check_release("demand", 1)


def test_folders_of_artifacts(location: Location) -> None:
    files = LakeFiles(location)
    for path in ("kept/a", "gone/a", "gone/b/c", "left-over/a"):
        files.write(path, b"1")
    removed = remove_folders(location, {"kept"}, {"kept", "gone"}, LONG_AGO, dry_run=False)
    assert [file.path for file in removed] == ["gone/a", "gone/b/c"]
    assert [file.path for file in stored_files(location)] == ["kept/a", "left-over/a"]
    soon = datetime.now(UTC) + timedelta(days=1)
    remove_folders(location, {"kept"}, {"kept"}, soon, dry_run=False)
    assert [file.path for file in stored_files(location)] == ["kept/a"]
