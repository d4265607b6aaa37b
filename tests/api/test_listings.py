"""What all listings have in common: pages, files, cursors, whose rows they are, what the audit is told."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from deployments.api.readings import Readings
from infra.database.audit import Actor, Audit
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.settings import Settings
from infra.space import TenantSpace
from tasks.domain.access import Role
from tasks.domain.errors import DatabaseUnavailable
from tasks.domain.names import Purpose
from tasks.domain.tenant import Tier
from tests.api.conftest import MakeClient
from tests.api.filled import ACTUALS, answers, fill, id_of, publish
from tests.api.served import Api, problem
from tests.samples import witness
from tests.serving.deployed import onboarded

LISTINGS = {
    "/v1/demand/releases": "releases",
    "/v1/demand/releases/2/verdicts": "verdicts",
    "/v1/runs": "runs",
    "/v1/demand/predictions": "predictions",
    "/v1/demand/health": "health",
    "quarantine": "rows",
}


@pytest.fixture(scope="module")
def space(api_settings: Settings, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> TenantSpace:
    found = onboarded(api_settings, postgres, "api-lists", Tier.PREMIUM)
    fill(found, tmp_path_factory.mktemp("made"))
    return found


@pytest.fixture(scope="module")
def reads(api: Api, space: TenantSpace, keys: Keys) -> Iterator[httpx.Client]:
    """An admin's client: it may read all there is."""
    with api.client(keys.create("api-lists", "test", Role.ADMIN)[1]) as client:
        yield client


@pytest.fixture(params=LISTINGS)
def listing(request: pytest.FixtureRequest, space: TenantSpace) -> str:
    """The path of each listing in turn."""
    if request.param == "quarantine":
        return f"/v1/uploads/{id_of(space, Purpose.ACTUALS, ACTUALS)}/quarantine"
    return str(request.param)


def paged(client: httpx.Client, path: str, name: str, **params: Any) -> list[dict[str, Any]]:
    """All rows, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        answer = client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page[name]
        if page["next"] is None:
            return found
        params["cursor"] = page["next"]


def test_pages_put_together_are_the_whole(reads: httpx.Client, listing: str) -> None:
    [name] = reads.get(listing).json().keys() & set(LISTINGS.values())
    whole = paged(reads, listing, name)
    assert len(whole) > 1
    for limit in (1, 3):
        assert paged(reads, listing, name, limit=limit) == whole


def test_pages_go_on_where_they_were_while_runs_are_published(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys
) -> None:
    space = onboarded(api_settings, postgres, "api-steady", Tier.PREMIUM)
    rows = [(f"store={store}", f"{store},{day}") for store in range(3) for day in range(4)]
    publish(space, "one", [answers(rows)])
    with api.client(keys.create("api-steady", "test", Role.READER)[1]) as client:
        first = client.get("/v1/demand/predictions", params={"limit": 5}).json()
        publish(space, "two", [answers(rows, 2.0)])
        rest = paged(client, "/v1/demand/predictions", "predictions", limit=5, cursor=first["next"])
        seen = [(row["row_key"], row["prediction"]) for row in first["predictions"] + rest]
        assert seen == [(key, value) for value in (1.0, 2.0) for _, key in rows]
        latest = max(row["scored_at"] for row in rest)
        assert {row["prediction"] for row in paged(client, "/v1/demand/predictions", "predictions", since=latest)} == {
            2.0
        }


def test_listings_are_files_too(reads: httpx.Client, listing: str) -> None:
    page = reads.get(listing).json()
    [name] = page.keys() & set(LISTINGS.values())
    rows = page[name]
    as_csv = reads.get(listing, headers={"Accept": "text/csv"})
    assert as_csv.headers["Content-Type"].partition(";")[0] == "text/csv"
    assert as_csv.text == reads.get(listing, params={"format": "csv"}).text
    assert (
        f'-{name}.csv"' in as_csv.headers["Content-Disposition"]
        or f'"{name}.csv"' in as_csv.headers["Content-Disposition"]
    )
    lines = list(csv.DictReader(io.StringIO(as_csv.text, newline="")))
    assert len(lines) == len(rows)
    assert list(lines[0]) == list(rows[0])
    as_parquet = reads.get(listing, headers={"Accept": "application/vnd.apache.parquet;q=1, */*"})
    assert as_parquet.content == reads.get(listing, params={"format": "parquet"}).content
    table = pq.read_table(io.BytesIO(as_parquet.content)).to_pylist()
    for found, expected in zip(table, rows, strict=True):
        for column, value in expected.items():
            if isinstance(found[column], datetime):
                assert found[column] == datetime.fromisoformat(value)
            elif isinstance(value, dict):
                assert json.loads(found[column]) == value
            else:
                assert found[column] == value, column
    two = reads.get(listing, params={"format": "csv", "limit": 2}).text
    assert len(list(csv.DictReader(io.StringIO(two, newline="")))) == 2


def test_no_cell_of_a_csv_file_is_a_formula(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, space: TenantSpace, reads: httpx.Client
) -> None:
    other = onboarded(api_settings, postgres, "api-formulas", Tier.PREMIUM)
    odd = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "plain", 'quo"ted,\n']
    publish(other, "one", [answers([("store=1", key) for key in odd], -1.0)])
    with api.client(keys.create("api-formulas", "test", Role.READER)[1]) as client:
        text = client.get("/v1/demand/predictions", params={"format": "csv"}).content.decode()
        as_json = client.get("/v1/demand/predictions").json()["predictions"]
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    cells = sorted(line["row_key"] for line in lines)
    assert cells == sorted([f"'{key}" for key in odd[:6]] + odd[6:])
    assert {line["prediction"] for line in lines} == {"-1"}  # a number is no text
    assert sorted(row["row_key"] for row in as_json) == sorted(odd)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_large_files_are_read_in_pieces(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr("deployments.api.listings.PIECE", 7)  # millions of rows would show the same, later
    space = onboarded(api_settings, postgres, f"api-large-{form}", Tier.PREMIUM)
    rows = [("store=1", f"{number:03}") for number in range(100)]
    publish(space, "one", [answers(rows[:60]), answers(rows[60:])])
    with api.client(keys.create(space.tenant.id, "test", Role.READER)[1]) as client:
        whole = client.get("/v1/demand/predictions", params={"format": form}).content
        cut = client.get("/v1/demand/predictions", params={"format": form, "limit": 15}).content
        middle = client.get("/v1/demand/predictions", params={"limit": 90}).json()["next"]
        rest = client.get("/v1/demand/predictions", params={"format": form, "cursor": middle}).content
    expected = [key for _, key in rows]
    assert keys_in(whole, form) == expected
    assert keys_in(cut, form) == expected[:15]
    assert keys_in(rest, form) == expected[90:]
    if form == "parquet":
        assert pq.ParquetFile(io.BytesIO(whole)).num_row_groups == 15


def keys_in(content: bytes, form: str) -> list[str]:
    if form == "csv":
        return [line["row_key"] for line in csv.DictReader(io.StringIO(content.decode(), newline=""))]
    found: list[str] = pq.read_table(io.BytesIO(content))["row_key"].to_pylist()
    return found


def test_an_empty_listing_is_a_file_with_columns(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys
) -> None:
    onboarded(api_settings, postgres, "api-empty")
    with api.client(keys.create("api-empty", "test", Role.READER)[1]) as client:
        assert client.get("/v1/demand/predictions").json() == {"classes": [], "predictions": [], "next": None}
        text = client.get("/v1/demand/predictions", params={"format": "csv"}).text
        table = client.get("/v1/demand/predictions", params={"format": "parquet"}).content
    assert text.startswith('"partition","row_key"')
    assert len(text.splitlines()) == 1
    assert pq.read_table(io.BytesIO(table)).num_rows == 0


def forged(cursor: str, *position: object, listing: str | None = None) -> str:
    """The cursor with another position, or of another listing."""
    content = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    changed = [listing or content[0], *(position or content[1:])]
    return base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")


def test_a_cursor_is_a_position_and_nothing_else(reads: httpx.Client) -> None:
    path = "/v1/demand/predictions"
    cursor = reads.get(path, params={"limit": 3}).json()["next"]
    assert reads.get(path, params={"cursor": cursor}).status_code == 200
    elsewhere = reads.get("/v1/demand/health", params={"limit": 1}).json()["next"]
    large = 2**63
    for odd in (
        "", "a", "=", "é", "A" * 5001, "bnVsbA", elsewhere,
        forged(cursor, listing="0" * 16),
        forged(cursor, 1, 2, 3), forged(cursor, 1, 2, 3, "a", 5), forged(cursor, 1, 2, 3, "a", "\0"),
        forged(cursor, -1, 2, 3, "a", "b"), forged(cursor, large, 2, 3, "a", "b"), 
        forged(cursor, 1, large, 3, "a", "b"),
        forged(cursor, 1, 2, 2**31, "a", "b"), forged(cursor, 1, 2, 3.5, "a", "b"), forged(cursor, [], {}, None, 1, 2),
        forged(cursor, 1, 2, 3, "a", "\ud800"), forged(cursor, 10**30, 2, 3, "a", "b"),
    ):  # fmt: skip
        found = reads.get(path, params={"cursor": odd})
        problem(found, 422, "invalid")
        assert found.json()["errors"][0]["where"] == "query.cursor"
    problem(reads.get(path, params={"cursor": cursor, "partition": "store=1"}), 422, "invalid")  # of another listing
    begun_early = reads.get(path, params={"cursor": forged(cursor, 0, 0, 0, "", "")}).json()
    assert begun_early["predictions"] == reads.get(path).json()["predictions"]


def test_nobody_reads_another_tenants_rows(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path, listing: str, reads: httpx.Client
) -> None:
    """The same listing with another's key is empty or unknown, also with a cursor of the first."""
    onboarded(api_settings, postgres, "api-stranger", Tier.PREMIUM)
    cursor = reads.get(listing, params={"limit": 1}).json()["next"]
    with api.client(keys.create("api-stranger", "test", Role.ADMIN)[1]) as stranger:
        for params in ({}, {"format": "csv"}, {"format": "parquet"}):
            answer = stranger.get(listing, params=params)
            assert answer.status_code in (200, 404)
            assert b"store=" not in answer.content
        assert stranger.get(listing, params={"cursor": cursor}).status_code in (404, 422)


def test_reading_is_told_to_the_audit_once_an_hour(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    space = onboarded(api_settings, postgres, "api-watched", Tier.PREMIUM)
    fill(space, tmp_path)
    key_id, key = keys.create("api-watched", "test", Role.ADMIN)
    quarantined = f"/v1/uploads/{id_of(space, Purpose.ACTUALS, ACTUALS)}/quarantine"
    with api.client(key) as client:
        for path in (*list(LISTINGS)[:-1], quarantined, "/v1/demand/definition", "/v1/use-cases"):
            for _ in range(3):
                assert client.get(path).status_code == 200
        client.get("/v1/demand/predictions", params={"format": "csv"})
    entries = Audit(postgres).entries("api-watched", action="data.read")
    assert set(entries["actor"]) == {f"key:{key_id}"}
    assert set(entries["origin"]) == {"api 127.0.0.1"}
    told = sorted(row["what"] for row in entries["details"])
    assert told == ["health", "predictions", "predictions as csv", "quarantine", "verdicts"]


def test_processes_tell_one_entry_and_each_hour_has_its_own(postgres: Cluster, client: MakeClient) -> None:
    client("api-hourly")
    now, by = [0.0], Actor(who="key:1", origin="api")
    for readings in (Readings(lambda: now[0]), Readings(lambda: now[0])):
        for now[0] in (1e9, 1e9 + 10, 1e9 + 3600):
            for what in ("a", "b"):
                readings.tell(lambda actor: witness(postgres), by, "api-hourly", "sales", what)
    assert len(Audit(postgres).entries("api-hourly", action="data.read")) == 4


def test_what_the_audit_cannot_be_told_of_is_not_shown(
    reads: httpx.Client, listing: str, monkeypatch: pytest.MonkeyPatch, api: Api, keys: Keys
) -> None:
    def away(*_: object, **__: object) -> int:
        raise DatabaseUnavailable("the database does not answer")

    monkeypatch.setattr(Audit, "record", away)  # a database that is away takes the rows with it
    with api.client(keys.create("api-lists", "another", Role.ADMIN)[1]) as client:
        for form in ("json", "csv"):
            answer = client.get(listing, params={"format": form})
            if listing in ("/v1/demand/releases", "/v1/runs"):  # they show no data
                assert answer.status_code == 200
            else:
                problem(answer, 503, "unavailable")


def test_reading_too_often_is_refused_and_predicting_goes_on(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    space = onboarded(api_settings, postgres, "api-greedy", Tier.FREE)
    fill(space, tmp_path)
    with api.client(keys.create("api-greedy", "test", Role.READER)[1]) as client:
        found = [client.get("/v1/demand/health") for _ in range(30)]
        refused = [answer for answer in found if answer.status_code == 429]
        assert refused
        assert int(refused[-1].headers["Retry-After"]) >= 1
        row = {"store": 0, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"}
        assert client.post("/v1/demand/predict", json={"rows": [row]}).status_code == 200


def test_arrow_schemas_fit_what_is_documented(reads: httpx.Client, listing: str, api: Api) -> None:
    """Every field of a row is described, and every described field is there."""
    with api.client() as anyone:
        description = anyone.get("/openapi.json").json()
    page = reads.get(listing).json()
    template = next(
        path for path in description["paths"]
        if path.count("/") == listing.count("/") and path.rsplit("/", 1)[1] == listing.rsplit("/", 1)[1]
    )  # fmt: skip
    content = description["paths"][template]["get"]["responses"]["200"]["content"]
    schemas = description["components"]["schemas"]
    shape = schemas[content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]]["properties"]
    assert set(page) == set(shape)
    [name] = page.keys() & set(LISTINGS.values())
    described = schemas[shape[name]["items"]["$ref"].rsplit("/", 1)[1]]["properties"]
    assert list(page[name][0]) == list(described)
