"""What applications and analysts read: use cases, releases, verdicts, runs, predictions, live error, quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from deployments.api.problems import public_text
from infra.database.budgets import Budgets
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tasks.domain.access import Role
from tasks.domain.budget import Budget, Period
from tasks.domain.tenant import Tier
from tasks.scoring.predict import answer_rows
from tests.api.conftest import MakeClient
from tests.api.filled import fill, score
from tests.api.served import Api, problem
from tests.priced import prices_kept, set_cpu_prices
from tests.promotion import bundles
from tests.samples import sales_use_case, sample_tenant
from tests.serving.deployed import onboarded


@pytest.fixture(scope="module")
def space(api_settings: Settings, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> TenantSpace:
    found = onboarded(api_settings, postgres, "api-reads", Tier.PREMIUM)
    fill(found, tmp_path_factory.mktemp("made"))
    return found


@pytest.fixture(scope="module")
def reads(api: Api, space: TenantSpace, keys: Keys) -> Iterator[httpx.Client]:
    with api.client(keys.create("api-reads", "test", Role.READER)[1]) as client:
        yield client


def test_use_cases(reads: httpx.Client) -> None:
    [found] = reads.get("/v1/use-cases").json()["use_cases"]
    assert found == {
        "id": "demand",
        "description": "",
        "kind": "regression",
        "partition_by": ["store"],
        "target": "sales",
        "release": 2,
    }


def test_a_definition_has_rules_and_no_secret(client: MakeClient, api_settings: Settings, postgres: Cluster) -> None:
    acme = client("api-defines", role=Role.READER)
    pull = {
        "secret": "hiddenhouse",
        "query": "SELECT * FROM hidden_table WHERE day > :watermark",
        "watermark": "day",
        "start": "2024-01-01",
        "schedule": "*/15 * * * *",
    }
    Operator(postgres).onboard(
        sample_tenant("api-defines", sales_use_case(pull=pull, schedule="0 3 * * *", gate={"min_gain": 0.02}))
    )
    answer = acme.get("/v1/sales/definition")
    found = answer.json()
    assert found["contract"]["columns"]["price"] == {
        "type": "number", "nullable": False, "min": 0.0, "max": None, "allowed": None, "pattern": None,
        "personal": None, "purposes": None,
    }  # fmt: skip
    assert found["contract"]["row_key"] == ["store", "sku", "day"]
    assert found["columns"]["scoring"] == ["store", "sku", "day", "price", "promo", "color"]
    assert found["features"] == {"numeric": ["price", "promo"], "categorical": ["color", "weekday"]}
    assert found["derived"]["weekday"]["as"] == "date_part"
    assert (found["schedule"], found["gate"]["min_gain"], found["metric"]) == ("0 3 * * *", 0.02, "rmse")
    assert found["pull"] == {"watermark": "day", "purpose": "history", "schedule": "*/15 * * * *"}
    assert found["release"] is None
    assert "hidden" not in answer.text
    problem(acme.get("/v1/rent/definition"), 404, "not-found")


def test_releases_and_verdicts(reads: httpx.Client) -> None:
    newest, oldest = reads.get("/v1/demand/releases").json()["releases"]
    assert (newest["version"], newest["status"], oldest["status"]) == (2, "champion", "retired")
    assert (newest["partitions"], newest["promoted"], newest["held"]) == (4, 4, 0)
    assert reads.get("/v1/demand/releases/1").json() == oldest
    assert "source" not in newest
    verdicts = reads.get("/v1/demand/releases/2/verdicts").json()
    assert verdicts["release"] == 2
    assert [row["partition"] for row in verdicts["verdicts"]] == [f"store={store}" for store in range(4)]
    assert verdicts["verdicts"][0]["estimator"] == "lightgbm"
    held = reads.get("/v1/demand/releases/2/verdicts", params={"verdict": "hold"}).json()["verdicts"]
    assert held == [row for row in verdicts["verdicts"] if row["verdict"] == "hold"]
    problem(reads.get("/v1/demand/releases/9"), 404, "not-found")
    problem(reads.get("/v1/demand/releases/9/verdicts"), 404, "not-found")
    problem(reads.get("/v1/demand/releases/9/verdicts", params={"format": "csv"}), 404, "not-found")
    problem(reads.get("/v1/rent/releases"), 404, "not-found")
    problem(reads.get(f"/v1/demand/releases/{2**63}"), 422, "invalid")


def test_runs_have_receipts_and_say_nothing_of_the_machine(reads: httpx.Client, space: TenantSpace) -> None:
    found = reads.get("/v1/runs").json()["runs"]
    assert [run["stage"] for run in found] == ["training", "monitoring", "scoring"]
    failed, _, scored = found
    assert scored["receipt"] == {"rows": 25}
    assert (scored["use_case"], scored["release_version"]) == ("demand", 2)
    assert failed["error"] == "OSError: [Errno 2] '…'"
    assert reads.get(f"/v1/runs/{scored['run_id']}").json() == scored
    for filters, stages in (
        ({"stage": "scoring"}, ["scoring"]),
        ({"status": "failed"}, ["training"]),
        ({"use_case": "demand", "status": "finished"}, ["monitoring", "scoring"]),
        ({"stage": "ingestion"}, []),
    ):
        assert [run["stage"] for run in reads.get("/v1/runs", params=filters).json()["runs"]] == stages
    problem(reads.get("/v1/runs", params={"use_case": "rent"}), 404, "not-found")
    problem(reads.get("/v1/runs", params={"stage": "baking"}), 422, "invalid")
    problem(reads.get("/v1/runs/999999999"), 404, "not-found")


def test_predictions_are_those_of_the_release(reads: httpx.Client, space: TenantSpace) -> None:
    page = reads.get("/v1/demand/predictions").json()
    rows, use_case = bundles.rows(stores=5), space.tenant.use_case("demand")
    expected = answer_rows(
        rows.assign(_partition=[f"store={store}" for store in rows["store"]]),
        use_case,
        space.registry.scorer("demand", 2),
    ).to_pylist()
    assert page["classes"] == []
    shared = ("partition", "row_key", "prediction", "baseline", "answer", "fallback", "model_run")
    assert [{name: row[name] for name in shared} for row in page["predictions"]] == [
        {name: row[name] for name in shared} for row in sorted(expected, key=lambda row: row["row_key"])
    ]
    [run] = {row["run_id"] for row in page["predictions"]}
    assert {row["release_version"] for row in page["predictions"]} == {2}
    assert {row["upload_id"] for row in page["predictions"]} == {space.records.run(run).upload_id}


def test_predictions_are_filtered(reads: httpx.Client) -> None:
    path = "/v1/demand/predictions"
    all_of_them = reads.get(path).json()["predictions"]
    one = all_of_them[7]
    for params, expected in (
        ({"partition": "store=1"}, [row for row in all_of_them if row["partition"] == "store=1"]),
        ({"row_key": one["row_key"]}, [one]),
        ({"row_key": one["row_key"], "partition": one["partition"]}, [one]),
        ({"partition": "nothing"}, []),
        ({"partition": "' OR 1=1 --"}, []),
        ({"release": 2, "current": False}, all_of_them),
        ({"release": 1, "current": False}, []),
        ({"since": one["scored_at"]}, all_of_them),
        ({"since": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, []),
    ):
        assert reads.get(path, params=params).json()["predictions"] == expected, params
    for odd in (
        {"since": "soon"},
        {"since": "2026-01-01T00:00:00"},
        {"release": 0},
        {"partition": "a\0b"},
        {"limit": 0},
    ):
        problem(reads.get(path, params=odd), 422, "invalid")


def test_a_use_case_may_be_called_like_a_listing(
    api: Api, postgres: Cluster, keys: Keys, api_settings: Settings
) -> None:
    names = ("uploads", "jobs", "runs", "audit", "key", "use-cases", "predictions", "releases", "health")
    Operator(postgres).onboard(
        sample_tenant("api-names", *(sales_use_case(id=name) for name in names), tier=Tier.PREMIUM)
    )
    with api.client(keys.create("api-names", "test", Role.UPLOADER)[1]) as client:
        assert [each["id"] for each in client.get("/v1/use-cases").json()["use_cases"]] == list(names)
        for name in names:
            assert client.get(f"/v1/{name}/definition").json()["id"] == name
            for part in ("predictions", "releases", "health"):
                assert client.get(f"/v1/{name}/{part}").status_code == 200, (name, part)
            assert client.post(f"/v1/{name}/jobs", json={"kind": "scoring"}).status_code == 202


def test_rescored_uploads_are_read_once(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    space = onboarded(api_settings, postgres, "api-rescored", Tier.PREMIUM)
    fill(space, tmp_path)
    score(space, 1, "aa", bundles.rows(stores=2))
    with api.client(keys.create("api-rescored", "test", Role.READER)[1]) as client:
        now = client.get("/v1/demand/predictions").json()["predictions"]
        assert {row["release_version"] for row in now} == {1}
        ever = client.get("/v1/demand/predictions", params={"current": False}).json()["predictions"]
        assert len(ever) == 25 + len(now)


def test_texts_for_tenants_name_no_place_of_the_machine() -> None:
    for said, shown in {
        "OSError: [Errno 2] No such file: '/srv/x/part.parquet'": "OSError: [Errno 2] No such file: '…'",
        "cannot connect to postgresql://u:p@host/db, sorry": "cannot connect to …, sorry",
        "3 of 4 partitions failed; found: /x/y (3 ×)": "3 of 4 partitions failed",
        "over budget: 2 of 1 EUR this month; do next: raise it with orchard budgets set acme --hard AMOUNT": (
            "over budget: 2 of 1 EUR this month"
        ),
        "rmse 14.9 / 3, and/or path=/var/log/x": "rmse 14.9 / 3, and/or path=/var/log/x",
    }.items():
        assert public_text(said, whole=False) == shown
        assert public_text(said, whole=True) == said
    assert public_text(None, whole=False) is None


def test_budgets_say_what_was_spent(client: MakeClient, api_settings: Settings, postgres: Cluster) -> None:
    mine = client("api-spends", role=Role.READER)
    assert mine.get("/v1/budgets").json() == {"budgets": []}
    common = {"tenant": "api-spends", "currency": "EUR"}
    Budgets(postgres).set(Budget(hard=Decimal(12), soft=Decimal("9.6"), **common))
    Budgets(postgres).set(Budget(hard=Decimal(1), soft=Decimal(1), use_case="sales", period=Period.RUN, **common))
    records = open_space(api_settings, "api-spends").records
    work = text(
        "INSERT INTO usage (tenant, unit, use_case, stage, process, tier, cpu_s, wall_s)"
        " VALUES ('api-spends', 'u', 'sales', 'training', 'p', 'standard', 12.5, 0)"
    )
    transact(records.url, lambda connection: connection.execute(work))
    with prices_kept(postgres):
        set_cpu_prices(postgres, "standard")
        month, run = mine.get("/v1/budgets").json()["budgets"]
    assert month == {
        "use_case": None,
        "per": "month",
        "spent": "12.50",
        "soft": "9.60",
        "hard": "12.00",
        "currency": "EUR",
        "reached": "hard",
        "message": "over budget: 12.50 of 12.00 EUR this month",
    }
    assert (run["use_case"], run["per"], run["spent"], run["hard"]) == ("sales", "run", None, "1.00")
