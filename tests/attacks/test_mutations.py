"""A lock that is broken on purpose is found: each of these lets one attack through at least, and the suite says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from flows.attacks import api, uploads
from infra.attacks import caches, names, registry, sql, storage
from infra.attacks.attempt import Group, Outcome
from infra.attacks.scene import Scene
from infra.database.connect import transact
from infra.database.operator import Operator
from infra.lake.folder import Folder
from infra.lake.location import Location
from tests.attacks.conftest import MakeScene, attempt_of

OWN_ROWS = "(tenant = CASE WHEN starts_with(session_user, 'tenant_') THEN substr(session_user, 8) END)"


@contextmanager
def broken(url: str, breaking: str, mending: str) -> Iterator[None]:
    """The database, with something wrong for as long as the block lasts."""
    for statement in breaking.split(";"):
        transact(url, lambda connection, s=statement: connection.execute(text(s)))
    try:
        yield
    finally:
        for statement in mending.split(";"):
            transact(url, lambda connection, s=statement: connection.execute(text(s)))


def outcomes(scene: Scene, group: Group, *attacks: str) -> dict[str, Outcome]:
    return {name: attempt_of(scene, group, name).outcome for name in attacks}


DATABASE = {
    "policies switched off": (
        "ALTER TABLE uploads DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE uploads ENABLE ROW LEVEL SECURITY",
        ("read-uploads", "change-uploads", "forge-uploads", "give-row-away", "upsert-row", "lock-rows"),
    ),
    "a policy that lets everything in": (
        "ALTER POLICY own_rows ON runs USING (true)",
        f"ALTER POLICY own_rows ON runs USING {OWN_ROWS}",
        ("read-runs", "remove-runs", "read-run-receipts", "delete-using-own-rows", "error-cast"),
    ),
    "a policy that compares with a variable": (
        "ALTER POLICY own_rows ON uploads USING "
        f"(tenant = coalesce(current_setting('shop.owner', true), {OWN_ROWS[10:-1]}))",
        f"ALTER POLICY own_rows ON uploads USING {OWN_ROWS}",
        ("set-policy-variables",),
    ),
    "a view that reads with its owner's rights": (
        "ALTER VIEW current_predictions SET (security_invoker = false)",
        "ALTER VIEW current_predictions SET (security_invoker = true)",
        ("read-current-predictions", "owners-views"),
    ),
    "a table without a policy": (
        "CREATE TABLE notes (tenant text); INSERT INTO notes VALUES ('bert-pool'); "
        "GRANT SELECT ON notes TO orchard_tenants",
        "DROP TABLE notes",
        ("read-unknown-tables",),
    ),
    "a function with its owner's rights": (
        "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM uploads'",
        "DROP FUNCTION peek()",
        ("security-definers",),
    ),
    "a grant on the victim's part of the predictions": (
        'GRANT SELECT, DELETE ON "predictions_bert-pool" TO "tenant_anna-pool"',
        'REVOKE ALL ON "predictions_bert-pool" FROM "tenant_anna-pool"',
        ("read-partition", "empty-partition"),
    ),
    "membership in the victim's role": (
        'GRANT "tenant_bert-pool" TO "tenant_anna-pool"',
        'REVOKE "tenant_bert-pool" FROM "tenant_anna-pool"',
        ("set-role-victim", "config-role"),
    ),
    "keys that tenants may read": (
        "GRANT SELECT ON tenant_secrets TO orchard_tenants; CREATE POLICY all_rows ON tenant_secrets USING (true)",
        "REVOKE SELECT ON tenant_secrets FROM orchard_tenants; DROP POLICY all_rows ON tenant_secrets",
        ("read-tenant-secrets",),
    ),
    "a key that is unique across tenants": (
        # Other tests give uploads of several tenants one short id.
        "CREATE UNIQUE INDEX everywhere ON uploads (upload_id) WHERE length(upload_id) = 32",
        "DROP INDEX everywhere",
        ("key-of-uploads",),
    ),
}


@pytest.mark.parametrize(("breaking", "mending", "attacks"), DATABASE.values(), ids=DATABASE)
def test_a_hole_in_the_database(
    scene: MakeScene, operator: Operator, breaking: str, mending: str, attacks: tuple[str, ...]
) -> None:
    with scene() as prepared_scene:
        assert set(outcomes(prepared_scene, sql.GROUP, *attacks).values()) == {Outcome.DENIED}
        with broken(operator.cluster.operator_url, breaking, mending):
            vars(prepared_scene).pop("prey_rows", None)  # the operator looks for new tables anew
            found = outcomes(prepared_scene, sql.GROUP, *attacks)
        assert found == dict.fromkeys(attacks, Outcome.SUCCEEDED)


def test_messages_about_rows(scene: MakeScene, operator: Operator) -> None:
    url = operator.cluster.operator_url
    body = "BEGIN PERFORM pg_notify('jobs', NEW.tenant); RETURN NEW; END"
    making = f"CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
    with scene() as prepared_scene:
        transact(url, lambda c: c.execute(text(making)))
        transact(
            url,
            lambda c: c.execute(text("CREATE TRIGGER tell AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION tell()")),
        )
        try:
            assert outcomes(prepared_scene, sql.GROUP, "listen") == {"listen": Outcome.SUCCEEDED}
        finally:
            transact(url, lambda c: c.execute(text("DROP FUNCTION tell() CASCADE")))


def test_a_hole_in_the_registrys_database(scene: MakeScene, operator: Operator) -> None:
    attacks = ("mlflow-model", "mlflow-search-models", "sql-production-model-versions", "sql-source", "open-tables")
    tables = ("registered_models", "model_versions", "registered_model_tags", "registered_model_aliases")
    off = ";".join(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY" for table in tables)
    on = off.replace("DISABLE", "ENABLE")
    with scene() as prepared_scene:
        assert set(outcomes(prepared_scene, registry.GROUP, *attacks).values()) == {Outcome.DENIED}
        with broken(operator.cluster.production_registry_url, off, on):
            found = outcomes(prepared_scene, registry.GROUP, *attacks)
    assert found == dict.fromkeys(attacks, Outcome.SUCCEEDED)


def test_paths_that_nobody_checks(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    attacks = ("read-parent", "read-parent-inside", "list", "write", "put", "delete", "exists", "url", "local")
    with scene() as prepared_scene:
        monkeypatch.setattr("infra.lake.files.names_in", lambda path: path.split("/"))
        assert outcomes(prepared_scene, storage.GROUP, *attacks) == dict.fromkeys(attacks, Outcome.SUCCEEDED)


def test_links_that_are_followed(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    attacks = ("link-folder", "link-middle", "write-link", "delete-link", "link-to-table", "link-to-data-file")
    with scene() as prepared_scene:
        monkeypatch.setattr("infra.lake.folder._FOLDER", os.O_RDONLY | os.O_DIRECTORY)
        monkeypatch.setattr("infra.lake.location.refuse_links", lambda *_: None)
        monkeypatch.setattr("infra.lake.location.refuse_links_in_log", lambda _: None)
        assert outcomes(prepared_scene, storage.GROUP, *attacks) == dict.fromkeys(attacks, Outcome.SUCCEEDED)


def test_a_log_that_is_believed(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    with scene() as prepared_scene:
        monkeypatch.setattr("infra.lake.snapshot.own_data_file", lambda path: path)
        monkeypatch.setattr("infra.lake.location.refuse_links", lambda *_: None)
        assert outcomes(prepared_scene, storage.GROUP, "log-parent") == {"log-parent": Outcome.SUCCEEDED}


def test_sources_that_are_believed(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path
    from urllib.parse import urlsplit

    attacks = ("source-victims", "source-score", "source-try", "source-fetch")
    with scene() as prepared_scene:
        attempt_of(prepared_scene, registry.GROUP, "same-version")  # plants the models
        monkeypatch.setattr("infra.registry.artifacts.Artifacts.fetched", lambda _, url, into: Path(urlsplit(url).path))
        assert outcomes(prepared_scene, registry.GROUP, *attacks) == dict.fromkeys(attacks, Outcome.SUCCEEDED)


def test_code_that_is_run_as_it_comes(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    attacks = ("forged-code", "forged-pickle", "planted-release")
    with scene() as prepared_scene:
        monkeypatch.setattr("infra.registry.model.foreign_code", lambda _: None)
        assert outcomes(prepared_scene, registry.GROUP, *attacks) == dict.fromkeys(attacks, Outcome.SUCCEEDED)
        monkeypatch.setattr("infra.registry.model.verify_code", lambda *_: None)
        assert outcomes(prepared_scene, registry.GROUP, "tampered-code") == {"tampered-code": Outcome.SUCCEEDED}


def test_an_index_that_is_believed(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    with scene() as prepared_scene:
        monkeypatch.setattr("tasks.scorer._PART", re.compile(".*"))
        assert outcomes(prepared_scene, registry.GROUP, "index-elsewhere") == {"index-elsewhere": Outcome.SUCCEEDED}


def test_a_filesystem_that_is_shared(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    with scene() as prepared_scene:
        monkeypatch.setattr(Location, "filesystem", lambda _: fsspec.filesystem("file"))
        found = outcomes(prepared_scene, caches.GROUP, "filesystem-instances", "kept-filesystems")
    assert set(found.values()) == {Outcome.SUCCEEDED}


def test_an_engine_that_is_shared(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.database import connect

    with scene() as prepared_scene:
        first = connect.engine(prepared_scene.attacker.records.url)
        monkeypatch.setattr("infra.attacks.caches.engine", lambda _: first)
        found = outcomes(prepared_scene, caches.GROUP, "engines", "sessions-in-turns")
    assert set(found.values()) == {Outcome.SUCCEEDED}


def test_a_table_that_is_remembered_by_half_its_address(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.lake import counts

    real = counts._counts_of
    kept: dict[str, Any] = {}

    def by_name(url: str, file: Any, read: Any) -> Any:
        return kept.setdefault("one for all", real(url, file, read))

    with scene() as prepared_scene:
        monkeypatch.setattr(counts, "_counts_of", by_name)
        assert outcomes(prepared_scene, caches.GROUP, "remembered-tables") == {"remembered-tables": Outcome.SUCCEEDED}


def test_an_api_that_takes_the_tenant_from_a_header(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.api import auth

    monkeypatch.setattr(auth, "_tenant_of", lambda key, acts_for: acts_for or key.tenant)
    with scene(api=True) as prepared_scene:
        found = outcomes(prepared_scene, api.GROUP, "header-orchard-tenant", "upload")
    assert found == {"header-orchard-tenant": Outcome.SUCCEEDED, "upload": Outcome.DENIED}


def test_an_api_that_forgets_whose_upload_it_is(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.database.uploads import UploadRecords

    with scene(api=True) as prepared_scene:
        theirs = prepared_scene.victim.records
        monkeypatch.setattr(UploadRecords, "upload", lambda _, upload_id: theirs.uploads()[0])
        found = outcomes(prepared_scene, api.GROUP, "upload", "capitals", "delete")
    assert found == {"upload": Outcome.SUCCEEDED, "capitals": Outcome.DENIED, "delete": Outcome.DENIED}


def test_keys_that_are_remembered_too_long(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.api.keyring.KEPT_S", 60.0)
    with scene(api=True) as prepared_scene:
        assert outcomes(prepared_scene, api.GROUP, "revoked-key") == {"revoked-key": Outcome.SUCCEEDED}


def test_a_secret_whose_name_meets_anothers(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    with scene() as prepared_scene:
        monkeypatch.setattr(names, "SecretName", str)
        assert outcomes(prepared_scene, names.GROUP, "secret-in-the-middle") == {
            "secret-in-the-middle": Outcome.SUCCEEDED
        }
        monkeypatch.setattr(names, "artifact_key", lambda tenant, use_case, kind: f"{tenant}-{use_case}-{kind}")
        assert outcomes(prepared_scene, names.GROUP, "shared-names") == {"shared-names": Outcome.SUCCEEDED}


def test_yaml_that_may_do_everything(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    with scene() as prepared_scene:
        monkeypatch.setattr("infra.definitions._Strict", yaml.UnsafeLoader)
        assert outcomes(prepared_scene, uploads.GROUP, "yaml-run") == {"yaml-run": Outcome.SUCCEEDED}


def test_a_page_that_shows_cells_as_they_are(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    with scene() as prepared_scene:
        monkeypatch.setattr("infra.validation.html.escape", lambda value, **_: value)
        assert outcomes(prepared_scene, uploads.GROUP, "report-script") == {"report-script": Outcome.SUCCEEDED}


def test_a_refusal_of_another_kind_is_no_denial(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks for a reason of its own has not been refused."""
    with scene() as prepared_scene:
        monkeypatch.setattr(Folder, "read", lambda *_: (_ for _ in ()).throw(TimeoutError("the disk is slow")))
        found = outcomes(prepared_scene, storage.GROUP, "read-percent", "same-path")
    assert set(found.values()) == {Outcome.ERROR}
