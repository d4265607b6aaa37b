"""`orchard costs`: from an upload to a report, an invoice, a page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.definitions import load_prices
from infra.settings import Settings
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal

MONTH = f"{datetime.now(UTC):%Y-%m}"


def run_sql(settings: Settings, statement: str, **values: object) -> None:
    url = connected_cluster(settings).operator_url
    transact(url, lambda connection: connection.execute(text(statement), values))


@pytest.fixture(scope="module")
def priced(terminal: Terminal, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tenant with a label, whose files were taken in, and that was there since January."""
    folder = tmp_path_factory.mktemp("priced")
    terminal("tenants", "add", tenant_file(folder, "priced", team="Retail")).worked()
    for purpose, content in (("history", history()), ("scoring", scoring())):
        path = folder / f"{purpose}.csv"
        path.write_text(content)
        terminal("upload", "priced", "sales", purpose, str(path)).worked()
    run_sql(settings, "UPDATE memberships SET since = '2026-01-01' WHERE tenant = 'priced'")
    yield "priced"
    run_sql(settings, "DELETE FROM invoices")


def test_a_report_adds_up_and_names_the_team(orchard: Terminal, priced: str) -> None:
    by_team = orchard("costs", "--tenant", priced, "--by", "team,stage", "--json").worked().json
    rows = {row["stage"]: row for row in by_team["rows"] if row["team"] == "Retail"}
    assert {"ingestion", "training", "promotion", "scoring"} <= set(rows)
    assert rows["training"]["models_trained"] == 6
    assert rows["scoring"]["predictions"] == 18
    assert by_team["currency"] == "EUR"
    whole = by_team["rows"][-1]
    assert whole["team"] == "total"
    for name in ("cost", "overhead"):
        parts = sum(Decimal(row[name]) for row in by_team["rows"][:-1])
        assert abs(parts - Decimal(whole[name])) < Decimal("0.000001")
    assert Decimal(whole["charge"]) >= 49  # the fee of the tier
    twice = orchard("costs", "--tenant", priced, "--month", MONTH, "--month", MONTH, "--json").worked().json
    assert twice["rows"][-1]["models_trained"] == 6
    shown = orchard("costs", "--by", "tenant").worked().out
    assert priced in shown
    assert "EUR" in shown


def test_months_that_nobody_was_there_are_empty_and_wrong_ones_are_refused(orchard: Terminal, priced: str) -> None:
    assert orchard("costs", "--month", "2021-02", "--json").worked().json["rows"] == []
    for wrong in ("soon", "1969-12", "9999-01"):
        orchard("costs", "--month", wrong).failed(2, "this is no month", "2026-11")
    orchard("costs", "--month", "2099-01").failed(2, "still to come")
    orchard("costs", "--by", "colour").failed(2, "colour", "use_case")
    orchard("costs", "--tenant", "nobody").failed(2, "there is no tenant")


def test_an_invoice_is_a_preview_until_it_is_issued(orchard: Terminal, priced: str, tmp_path: Path) -> None:
    preview = orchard("costs", "invoice", priced, "--json").worked().json
    assert (preview["issued_at"], preview["month"]) == (None, MONTH)
    orchard("costs", "invoice", priced, "--issue").failed(2, "is not over")
    orchard("costs", "invoice", priced, "--month", "2025-12").failed(2, "was no tenant in 2025-12")

    issued = orchard("costs", "invoice", priced, "--month", "2026-10", "--issue", "--json").worked().json
    assert (issued["number"], issued["total"]) == ("2026-10-priced", "49.00")
    assert orchard("costs", "invoice", priced, "--month", "2026-10", "--issue", "--json").worked().json == issued
    listed = orchard("costs", "invoices", "--json").worked().json
    assert [(each["number"], each["total"]) for each in listed] == [("2026-10-priced", "49.00")]
    orchard("costs", "invoices", "--month", "2026-09", "--issue").worked()
    assert "2026-09-priced" in orchard("costs", "invoices", priced).worked().out
    orchard("costs", "invoices", "--issue").failed(2, "--month")


def test_an_invoice_on_paper_says_the_same_in_all_three_forms(orchard: Terminal, priced: str, tmp_path: Path) -> None:
    folder = tmp_path / "invoices"
    orchard("costs", "invoice", priced, "--to", folder).worked()
    stem = folder / f"invoice-{MONTH}-{priced}"
    whole = json.loads(stem.with_name(f"{stem.name}.json").read_text())
    rows = list(csv.DictReader(io.StringIO(stem.with_name(f"{stem.name}.csv").read_text())))
    assert rows[-1]["what"] == "total"
    assert rows[-1]["amount"] == whole["total"]
    assert sum(Decimal(row["amount"]) for row in rows[:-1]) == Decimal(whole["total"])
    page = stem.with_name(f"{stem.name}.html").read_text()
    for expected in (whole["total"], "Priced", "sales", "Retail", "Base fee", "<svg", "Not issued yet"):
        assert expected in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")  # nothing is loaded from elsewhere


def test_the_page_of_all_tenants(orchard: Terminal, priced: str, tmp_path: Path) -> None:
    orchard("costs", "page", "--to", tmp_path / "costs.html").worked()
    page = (tmp_path / "costs.html").read_text()
    for expected in (f"Costs of {MONTH}", priced, "By stage", "Retail", "<svg"):
        assert expected in page


def test_a_price_book_is_set_and_its_mistakes_are_named(orchard: Terminal, priced: str, tmp_path: Path) -> None:
    shown: list[dict[str, Any]] = orchard("costs", "prices", "--json").worked().json
    assert [book["version"] for book in shown] == ["default-1"]
    assert "base fee" in orchard("costs", "prices").worked().out
    path = tmp_path / "prices.yaml"
    path.write_text(load_prices().model_copy(update={"version": "x"}).model_dump_json().replace('"EUR"', '"euros"'))
    orchard("costs", "prices", "--set", path).failed(2, "currency", "prices.yaml:1")
    orchard("costs", "prices", "--set", tmp_path / "none.yaml").failed(2, "no such price book")


def test_slots_and_cores(orchard: Terminal, priced: str) -> None:
    found = orchard("costs", "utilisation", "--since", "1h", "--json").worked().json
    shares = {each["who"]: each["share"] for each in found["machine"]}
    assert 0 < shares["tenants"] < 1
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert "idle" in orchard("costs", "utilisation").worked().out


def test_models_that_do_not_earn_their_cost(orchard: Terminal, priced: str) -> None:
    found = orchard("costs", "worth", priced, "sales", "--min-gain", "0.999", "--json").worked().json
    assert found["do_not_earn"] == found["models"] == len(found["partitions"]) > 0
    assert Decimal(found["saved"]) == Decimal(found["cost"]) > 0
    assert all(each["gain"] < 0.999 and each["trainings"] == 1 for each in found["partitions"])
    assert "do not earn their cost" in orchard("costs", "worth", priced, "sales").worked().out
    orchard("costs", "worth", priced, "nothing").failed(2, "nothing")
