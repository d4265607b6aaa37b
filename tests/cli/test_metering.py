"""What an upload used, as it is booked: every stage, the process that did it, and what it left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from flows.storage import read_storage
from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.settings import Settings
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal


@pytest.fixture
def metered(orchard: Terminal) -> str:
    """A tenant that had its files taken in by processes of their own, as from a shell."""
    orchard("tenants", "add", tenant_file(Path(), "metered")).worked()
    for purpose, content in (("history", history()), ("scoring", scoring())):
        Path(f"{purpose}.csv").write_text(content)
        orchard.process("upload", "metered", "sales", purpose, f"{purpose}.csv").worked()
    return "metered"


def test_an_upload_is_booked_stage_by_stage(metered: str, settings: Settings) -> None:
    def read(query: str) -> list[dict[str, object]]:
        url = connected_cluster(settings).operator_url
        own = {"tenant": metered}
        return transact(url, lambda connection: [dict(row) for row in connection.execute(text(query), own).mappings()])

    stages = {
        row["stage"]: row
        for row in read(
            "SELECT stage, sum(rows_in) AS rows_in, sum(rows_out) AS rows_out, sum(models_trained) AS trained,"
            " min(cpu_s) AS least, bool_and(tier = 'standard') AS tier FROM usage WHERE tenant = :tenant GROUP BY stage"
        )
    }
    assert set(stages) == {"ingestion", "training", "promotion", "scoring"}
    assert all(float(str(row["least"])) > 0 and row["tier"] for row in stages.values())
    assert (stages["ingestion"]["rows_in"], stages["ingestion"]["rows_out"]) == (240 + 18, 240 + 18)
    assert stages["training"]["trained"] == 6
    assert (stages["scoring"]["rows_in"], stages["scoring"]["rows_out"]) == (18, 18)
    processes = read(
        "SELECT p.ended, p.use_case, p.cpu_s, sum(u.cpu_s) AS explained, p.peak_mb FROM processes AS p"
        " JOIN usage AS u USING (tenant, process) WHERE tenant = :tenant GROUP BY p.process, p.tenant"
    )
    assert len(processes) == 2
    for each in processes:
        assert (each["ended"], each["use_case"]) == ("done", "sales")
        assert 0 < float(str(each["explained"])) < float(str(each["cpu_s"]))  # the rest is its start
        assert float(str(each["peak_mb"])) > 50

    kept = read_storage(settings, [metered])
    assert {(each.use_case, each.place) for each in kept if each.bytes} == {
        ("sales", "lake"), ("sales", "models"), ("sales", "database"),
    }  # fmt: skip
    assert [row["bytes"] for row in read("SELECT bytes FROM stored WHERE tenant = :tenant AND place = 'models'")] == [
        sum(each.bytes for each in kept if each.place == "models")
    ]


def test_what_a_use_case_that_is_switched_off_keeps_is_counted_once(orchard: Terminal, settings: Settings) -> None:
    orchard("tenants", "add", tenant_file(Path(), "reduced")).worked()
    Path("history.csv").write_text(history())
    orchard("upload", "reduced", "sales", "history", "history.csv", "--no-run").worked()
    before = {(each.use_case, each.place): each.bytes for each in read_storage(settings, ["reduced"])}
    assert before["sales", "lake"] > 0
    definition = tenant_file(Path(), "reduced")
    definition.write_text(definition.read_text().replace("id: sales", "id: other"))
    orchard("tenants", "add", definition, "--yes").worked()
    after = {(each.use_case, each.place): each.bytes for each in read_storage(settings, ["reduced"])}
    assert after["sales", "lake"] == before["sales", "lake"]
    assert after.get(("", "lake"), 0) == before.get(("", "lake"), 0)
