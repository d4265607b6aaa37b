"""A tenant leaves at the command line: what it had is handed over, then removed, and it says so with a signature."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.settings import Settings
from tasks.domain.errors import StorageUnavailable
from tests.cli.shop import history, sales, scoring, tenant_file
from tests.cli.terminal import Terminal
from tests.leaving.everywhere import STAYING, places_of


def customer(orchard: Terminal, tenant: str, *, isolation: str = "pool", **changes: Any) -> None:
    """A tenant with data: history with a bad row, rows to score."""
    file = tenant_file(Path(), tenant, **changes)
    file.write_text(file.read_text() + f"isolation: {isolation}\n")
    orchard("tenants", "add", file).worked()
    bad = "1,1,2026-12-24,-5,False,=2+3,1\n"
    Path(f"{tenant}-history.csv").write_text(history() + bad)
    Path(f"{tenant}-open.csv").write_text(scoring())
    orchard("upload", tenant, "sales", "history", f"{tenant}-history.csv").worked()
    orchard("upload", tenant, "sales", "scoring", f"{tenant}-open.csv").worked()


def manifest(folder: Path) -> dict[str, str]:
    """Digest by path."""
    return {each["path"]: each["sha256"] for each in json.loads((folder / "manifest.json").read_bytes())["files"]}


def test_an_export_holds_everything_in_open_formats(orchard: Terminal) -> None:
    customer(orchard, "kingfisher")
    summary = orchard("tenants", "export", "kingfisher", "--to", "out", "--csv", "--history", "--json").worked().json
    out = Path("out")
    digests = manifest(out)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - {"manifest.json"} == (
        digests.keys()
    )
    assert all(hashlib.sha256((out / path).read_bytes()).hexdigest() == digest for path, digest in digests.items())
    assert (summary["files"], summary["tenant"]) == (len(digests), "kingfisher")

    rows = pd.read_parquet(out / "data/tables/sales.parquet")
    assert len(rows) == 240 + 18  # history, and the rows that wait for their truth
    expected = sales()
    merged = rows.merge(expected.assign(day=pd.to_datetime(expected["day"]).dt.date), on=["store", "sku", "day"])
    assert len(merged) == 240
    assert (merged["sales_x"] == merged["sales_y"]).all()
    shown = orchard("results", "kingfisher", "sales", "--limit", "100", "--json").worked().json
    predictions = pd.read_parquet(out / "data/predictions/sales.parquet")
    assert sorted(predictions["prediction"]) == sorted(row["prediction"] for row in shown)
    in_sql = pd.read_parquet(out / "data/rows/predictions.parquet")
    assert sorted(in_sql["prediction"]) == sorted(predictions["prediction"])

    uploads = {path.name for path in (out / "files/uploads/sales").iterdir()}
    assert uploads == {"history-000001-kingfisher-history.csv", "scoring-000002-kingfisher-open.csv"}
    original = Path("kingfisher-open.csv").read_bytes()
    assert (out / "files/uploads/sales/scoring-000002-kingfisher-open.csv").read_bytes() == original
    assert len(list((out / "files/quarantine/sales").iterdir())) == 1
    assert len(list((out / "files/reports/sales").rglob("index.html"))) == 2
    receipts = json.loads((out / "receipts/receipts.json").read_bytes())["sales"]
    assert [run["stage"] for run in receipts["runs"]] == ["ingestion", "training", "promotion", "ingestion", "scoring"]
    assert list((out / "history/tables/sales/_delta_log").glob("*.json"))

    released = mlflow.pyfunc.load_model(str(out / "models/releases/sales/1"))
    again = released.predict(sales(3, first="2026-06-01", seed=2).drop(columns="sales"))
    assert sorted(again["prediction"]) == pytest.approx(sorted(predictions["prediction"]))
    registry = json.loads((out / "models/registry.json").read_bytes())
    assert registry["production"]["models"][0]["aliases"] == {"champion": 1}
    assert registry["training"]["runs"][0]["status"] == "FINISHED"
    assert [entry["action"] for entry in json.loads((out / "audit/audit.json").read_bytes())]

    readme = (out / "README.md").read_text()
    for folder in {path.partition("/")[0] for path in digests} - {"README.md"}:
        assert f"`{folder}/" in readme or f"`{folder}" in readme, folder
    orchard("tenants", "show", "kingfisher").worked()  # it is still there


def test_what_is_exported_can_be_onboarded(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "wren")).worked()
    orchard("tenants", "export", "wren", "--to", "out").worked()
    assert "unchanged" in orchard("tenants", "add", "out/definition/tenant.yaml").worked().out
    assert pq.read_table("out/data/tables/sales.parquet").num_rows == 0


def test_no_secret_is_exported_and_every_table_is_accounted_for(orchard: Terminal, settings: Settings) -> None:
    from infra.database.handover import OPERATORS, SECRET_COLUMNS, WITHHELD
    from infra.database.price_tables import metadata

    orchard("tenants", "add", tenant_file(Path(), "dunnock")).worked()
    orchard("tenants", "export", "dunnock", "--to", "out").worked()
    owned = {name for name, table in metadata.tables.items() if "tenant" in table.c}
    assert {path.stem for path in Path("out/data/rows").iterdir()} == owned - WITHHELD - OPERATORS
    assert {path.stem for path in Path("out/data/access").iterdir()} == OPERATORS
    for path in Path("out").rglob("*.parquet"):
        assert not SECRET_COLUMNS & set(pq.read_schema(path).names), path


def test_an_export_goes_into_an_empty_folder_or_its_own(orchard: Terminal, settings: Settings) -> None:
    for tenant in ("robin", "linnet"):
        orchard("tenants", "add", tenant_file(Path(), tenant)).worked()
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    for force in ((), ("--force",)):
        orchard("tenants", "export", "robin", "--to", "full", *force).failed(2, "the folder is in use", "other files")
    orchard("tenants", "export", "robin", "--to", settings.home / "x").failed(2, "the platform's own folders")
    orchard("tenants", "export", "robin", "--to", "out").worked()
    first = manifest(Path("out"))
    Path("out/mine.txt").write_text("mine")
    orchard("tenants", "export", "robin", "--to", "out").worked()  # it is complete
    assert manifest(Path("out")) == first
    for more in ("--history", "--csv"):
        orchard("tenants", "export", "robin", "--to", "out", more).failed(2, f"without {more}", "--force")
    for force in ((), ("--force",)):
        orchard("tenants", "export", "linnet", "--to", "out", *force).failed(2, "an export of robin")
    orchard("tenants", "export", "robin", "--to", "out", "--force", "--csv").worked()
    orchard("tenants", "export", "robin", "--to", "out", "--csv").worked()
    assert Path("out/mine.txt").read_text() == "mine"
    orchard("tenants", "export", "nobody", "--to", "none").failed(2, "no tenant 'nobody'")


@pytest.mark.slow
def test_an_export_that_was_cut_off_goes_on(orchard: Terminal) -> None:
    customer(orchard, "siskin")
    orchard("tenants", "export", "siskin", "--to", "whole").worked()
    orchard("tenants", "export", "siskin", "--to", "out").worked()
    out = Path("out")
    # As if it had been cut off while models were fetched: one part is not done, half a file is there.
    (out / "manifest.json").unlink()
    state = {"tenant": "siskin", "started_at": "2026-01-01T00:00:00Z", "done": ["definition", "rows of the database"]}
    (out / ".unfinished.json").write_text(json.dumps(state))
    (out / "models/registry.json").unlink()
    bundle = next(out.glob("models/releases/sales/1/artifacts/bundle/models/*.parquet"))
    bundle.write_bytes(bundle.read_bytes()[:100])
    orchard("tenants", "export", "siskin", "--to", "out").worked()
    assert not (out / ".unfinished.json").exists()
    changing = {"audit/audit.json"}  # the exports themselves are in it
    assert {path: digest for path, digest in manifest(out).items() if path not in changing | written_anew(out)} == {
        path: digest for path, digest in manifest(Path("whole")).items() if path not in changing | written_anew(out)
    }


def written_anew(out: Path) -> set[str]:
    """Rows whose export may differ from the one before: the database gives them in no order."""
    return {path for path in manifest(out) if path.startswith("data/rows")}


def joined(settings: Settings, tenant: str, since: datetime) -> None:
    """Has the tenant pay from that moment on."""
    statement = text("UPDATE memberships SET since = :since WHERE tenant = :tenant")
    values = {"since": since, "tenant": tenant}
    transact(connected_cluster(settings).operator_url, lambda connection: connection.execute(statement, values))


def test_an_erased_tenant_is_nowhere(orchard: Terminal, settings: Settings) -> None:
    customer(orchard, "capercaillie")
    customer(orchard, "ptarmigan")
    before = orchard("results", "ptarmigan", "sales", "--limit", "100", "--json").worked().json
    assert places_of(settings, "capercaillie") - STAYING
    joined(settings, "capercaillie", datetime.now(UTC) - timedelta(days=40))
    answer = orchard("tenants", "erase", "capercaillie", "--yes", "--certificate", "certificates").worked()
    assert "Certificate of erasure" in answer.out
    assert places_of(settings, "capercaillie") <= STAYING
    assert "Error flushing" not in (settings.home / "logs" / "prefect.log").read_text()  # of states of task runs
    assert orchard("results", "ptarmigan", "sales", "--limit", "100", "--json").worked().json == before
    orchard("tenants", "show", "capercaillie").failed(2, "no tenant 'capercaillie'")
    genuine = orchard("tenants", "certificate", "verify", "certificates/erasure-capercaillie.json").worked()
    assert "of tenant capercaillie" in genuine.out
    [kept] = (settings.home / "certificates").glob("*.json")
    assert "one tenant" in orchard("tenants", "certificate", "verify", kept).worked().out
    again = orchard("tenants", "erase", "capercaillie", "--yes", "--json").worked().json
    assert again["certificate"]["erasure"] == kept.stem
    assert {rest["what"].partition(" (")[0] for rest in again["certificate"]["remains"]} == {
        "entries of the audit, under the pseudonym alone",
        "server events of Prefect",
        "invoices",
    }
    invoices = orchard("costs", "invoices", "capercaillie", "--json").worked().json
    assert len(invoices) in (2, 3)  # each month that it was there, of which it has paid none
    assert all(0 < Decimal(each["total"]) <= 49 for each in invoices)  # the fee of its tier, or the part of it
    removed = {step["step"]: step["found"] for step in again["certificate"]["removed"]}
    assert removed["rows"]["predictions"] == 18
    assert removed["registries"] == {"models": 2, "versions": 2, "experiments": 1, "runs": 1}
    shown = orchard("tenants", "certificate", "show", kept.stem).worked().out
    assert "capercaillie" not in shown
    assert "tenant `capercaillie`" in orchard("tenants", "certificate", "show", kept.stem, "--for", "capercaillie").out
    orchard("tenants", "certificate", "show", kept.stem, "--for", "ptarmigan").failed(2, "not that of 'ptarmigan'")
    customer(orchard, "capercaillie")  # whoever comes back begins anew
    assert len(orchard("receipts", "capercaillie", "--json").worked().json) == 7
    assert orchard("costs", "invoice", "capercaillie", "--json").worked().json["issued_at"] is None


@pytest.mark.slow
def test_a_silo_leaves_with_its_database_and_its_folder(orchard: Terminal, settings: Settings) -> None:
    customer(orchard, "bittern", isolation="silo")
    assert (settings.home / "silos" / "bittern").is_dir()
    words = ("tenants", "erase", "bittern", "--yes", "--export-first", "out", "--json")
    certificate = orchard(*words).worked().json["certificate"]
    assert places_of(settings, "bittern") <= STAYING
    removed = {step["step"]: step["found"] for step in certificate["removed"]}
    assert (removed["rows"]["predictions"], removed["rows"]["uploads"]) == (18, 2)
    assert removed["files"]["files"] > 20
    assert pd.read_parquet("out/data/rows/predictions.parquet")["tenant"].unique().tolist() == ["bittern"]
    assert (Path("out") / "data/rows-shared/jobs.parquet").is_file()


def test_erasing_asks_for_the_tenants_id(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "plover")).worked()
    orchard("tenants", "erase", "plover", answers="plovers\n").failed(2, "nothing was removed")
    orchard("tenants", "erase", "plover", answers="").failed(1)
    orchard("tenants", "show", "plover").worked()
    assert orchard("tenants", "erase", "plover", answers="plover\n").worked()
    orchard("tenants", "show", "plover").failed(2)
    orchard("tenants", "erase", "nobody", "--yes").failed(2, "no tenant 'nobody'")


def test_an_export_that_is_asked_for_later_is_made_or_refused(
    orchard: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never left out without a word: all is removed afterwards."""
    orchard("tenants", "add", tenant_file(Path(), "twite")).worked()

    def away(*_: object) -> None:
        raise StorageUnavailable("the disk is full")

    erase = ("tenants", "erase", "twite", "--yes")
    with monkeypatch.context() as patched:
        patched.setattr("deployments.costs.invoices.last_invoices", away)
        orchard(*erase).failed(1, "disk is full")
    with monkeypatch.context() as patched:
        patched.setattr("deployments.leaving.files.TenantFiles.remove_work", away)
        orchard(*erase, "--export-first", "out").failed(1, "disk is full")
    assert "definition/tenant.yaml" in manifest(Path("out"))
    orchard(*erase, "--export-first", "elsewhere").failed(2, "has come too far")
    orchard(*erase, "--export-first", "out").worked()


@pytest.mark.slow
def test_what_only_the_operator_can_remove_keeps_an_erasure_open(orchard: Terminal, settings: Settings) -> None:
    from prefect.variables import Variable

    customer(orchard, "dotterel")
    Variable.set("escalation", "ask Kim about tenant:dotterel and tenant:other")  # it is not the tenant's own
    Variable.set("dotterel_contact", "kim@example.com")  # its name says whose it is
    stray = settings.home / "notes" / "dotterel.txt"
    stray.parent.mkdir()
    stray.write_text("x")
    orchard("tenants", "export", "dotterel", "--to", "of-last-week").worked()
    used = orchard("tenants", "erase", "dotterel", "--yes", "--export-first", "of-last-week")
    used.failed(2, "the folder is in use: nothing was removed")
    orchard("tenants", "show", "dotterel").worked()
    failed = orchard("tenants", "erase", "dotterel", "--yes", "--export-first", "out")
    failed.failed(1, "dotterel is not erased", "prefect: table variable: 1", "notes/dotterel.txt")
    [row] = [row for row in orchard("tenants", "certificate", "list", "--json").json if row["tenant"] == "dotterel"]
    assert row["finished_at"] is None
    orchard("tenants", "certificate", "show", row["erasure_id"]).failed(2, "is not complete")
    orchard("tenants", "add", "dotterel.yaml").failed(2, "being erased", "orchard tenants erase dotterel")

    exported = manifest(Path("out"))
    Variable.unset("escalation")
    stray.unlink()
    certificate = orchard("tenants", "erase", "dotterel", "--yes", "--json").worked().json["certificate"]
    assert certificate["erasure"] == row["erasure_id"]
    assert manifest(Path("out")) == exported
    removed = {step["step"]: step["found"] for step in certificate["removed"]}
    assert (removed["rows"]["predictions"], removed["prefect"]["variables"]) == (18, 1)  # of the first attempt
    assert places_of(settings, "dotterel") <= STAYING
    assert "dotterel" not in json.dumps(orchard("tenants", "certificate", "list", "--json").json)


def test_a_tenant_that_leaves_is_refused_everywhere(orchard: Terminal, settings: Settings) -> None:
    from infra.database.operator import Operator
    from tasks.domain.tenant import TenantState

    customer(orchard, "whimbrel")
    Operator(connected_cluster(settings)).set_state("whimbrel", TenantState.LEAVING)
    Path("more.csv").write_text(history(first="2026-03-01"))
    before = sorted(path for path in (settings.home / "lake").rglob("*"))
    orchard("upload", "whimbrel", "sales", "history", "more.csv").failed(1, "whimbrel", "leaving")
    orchard("run", "whimbrel").failed(1, "whimbrel", "leaving")
    orchard("releases", "rollback", "whimbrel", "sales").failed(1, "leaving")
    assert sorted(path for path in (settings.home / "lake").rglob("*")) == before
    orchard("tenants", "erase", "whimbrel", "--yes").worked()


def test_a_certificate_that_was_changed_is_refused(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "godwit")).worked()
    orchard("tenants", "erase", "godwit", "--yes", "--certificate", ".").worked()
    key = orchard("tenants", "certificate", "key").worked().out.strip()
    orchard("tenants", "certificate", "verify", "erasure-godwit.json", "--key", key).worked()
    path = Path("erasure-godwit.json")
    path.write_text(path.read_text().replace("operator:", "somebody:"))
    orchard("tenants", "certificate", "verify", path).failed(1, "not as it was signed")
    path.write_text("{}")
    orchard("tenants", "certificate", "verify", path).failed(2, "no certificate")
    orchard("tenants", "certificate", "show", "0" * 16).failed(2, "no erasure")
