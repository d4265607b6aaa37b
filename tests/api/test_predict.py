"""`POST /v1/{use_case}/predict`: answers, refusals, releases that change, a database that is away."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.serving.tables import ARROW, PARQUET
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.settings import Settings
from infra.space import TenantSpace
from tasks.domain.access import Role
from tasks.domain.tenant import Tier
from tests.api.served import Api
from tests.promotion import bundles
from tests.serving.deployed import deploy, onboarded, store_answers

ROW = {"store": 0, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"}


@pytest.fixture(scope="module")
def space(api_settings: Settings, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> TenantSpace:
    found = onboarded(api_settings, postgres, "api-predicts")
    deploy(found, tmp_path_factory.mktemp("made"))
    return found


@pytest.fixture(scope="module")
def asks(api: Api, space: TenantSpace, keys: Keys) -> Iterator[httpx.Client]:
    with api.client(keys.create("api-predicts", "test", Role.READER)[1]) as client:
        yield client


def rows_as_json() -> list[dict[str, Any]]:
    frame = bundles.rows(stores=5)
    plain = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{name: value.isoformat() if name == "day" else value for name, value in row.items()} for row in plain]


def test_answers_are_those_of_batch_scoring(asks: httpx.Client, space: TenantSpace) -> None:
    answer = asks.post("/v1/demand/predict", json={"rows": rows_as_json()})
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["request_id"] == answer.headers["X-Request-ID"]
    assert (content["use_case"], content["release"]) == ("demand", 1)
    expected = space.registry.scorer("demand", 1).predict(bundles.rows(stores=5))
    for found, wanted in zip(content["rows"], expected.to_dict("records"), strict=True):
        assert abs(found["prediction"] - wanted["prediction"]) < 1e-9
        for name in ("partition", "answer", "fallback", "model_run"):
            assert found[name] == wanted[name], name
        assert found["source"] == ("fallback" if found["fallback"] else "online")
    assert content["rows"][-1]["fallback"]  # store 4 is unknown, and it is told so


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_tables_are_answered_with_tables(asks: httpx.Client, kind: str) -> None:
    table, sink = pa.Table.from_pandas(bundles.rows(), preserve_index=False), io.BytesIO()
    if kind == PARQUET:
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    headers = {"Content-Type": kind, "Accept": kind}
    answer = asks.post("/v1/demand/predict", content=sink.getvalue(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Orchard-Release"] == "1"
    read = (
        pq.read_table(io.BytesIO(answer.content)) if kind == PARQUET else pa.ipc.open_stream(answer.content).read_all()
    )
    as_json = asks.post("/v1/demand/predict", json={"rows": rows_as_json()[:20]}).json()["rows"]
    assert read["prediction"].to_pylist() == [row["prediction"] for row in as_json]


def test_contributions_are_given_on_request(asks: httpx.Client) -> None:
    [answer] = asks.post("/v1/demand/predict?explain=true", json={"rows": [ROW]}).json()["rows"]
    assert sum(answer["contributions"].values()) == pytest.approx(answer["prediction"])
    [plain] = asks.post("/v1/demand/predict", json={"rows": [ROW]}).json()["rows"]
    assert "contributions" not in plain


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 422, "at least one row"),
        (b'{"rows": []}', 422, "at least one row"),
        (b'{"rows": [{}], "more": 1}', 422, "nothing else"),
        (b'{"rows": [3]}', 422, "a row is an object"),
        (b'{"rows": [{"store": 1}]}', 422, "day is missing"),
        (b'{"rows": [{"store": "x", "day": "2013-11-01", "price": 1}]}', 422, "store is not an integer"),
        (b'{"rows": [{"store": 1, "day": "2013-11-01", "size": 1}]}', 422, "no such column"),
        (b"[" * 100_000, 400, "not JSON"),
    ],
)
def test_what_does_not_fit_is_told(asks: httpx.Client, body: bytes, status: int, says: str) -> None:
    answer = asks.post("/v1/demand/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert says in answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_mistake_has_row_column_and_rule(asks: httpx.Client) -> None:
    answer = asks.post("/v1/demand/predict", json={"rows": [ROW, {**ROW, "price": "cheap"}]})
    assert answer.json()["errors"] == [{"where": "rows.1.price", "message": "price is not a number"}]


@pytest.mark.parametrize("body", [b"PAR1", b"\0" * 100, b""])
def test_what_is_no_table_is_told(asks: httpx.Client, body: bytes) -> None:
    for kind in (ARROW, PARQUET):
        answer = asks.post("/v1/demand/predict", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 400, answer.text


def test_what_does_not_exist_is_told(asks: httpx.Client, api: Api) -> None:
    assert asks.post("/v1/nothing/predict", json={"rows": [ROW]}).status_code == 404
    assert api.client().post("/v1/demand/predict", json={"rows": [ROW]}).status_code == 401


def test_a_use_case_without_release_is_told(api: Api, api_settings: Settings, postgres: Cluster, keys: Keys) -> None:
    onboarded(api_settings, postgres, "api-untrained")
    with api.client(keys.create("api-untrained", "test", Role.READER)[1]) as client:
        answer = client.post("/v1/demand/predict", json={"rows": [ROW]})
    assert answer.status_code == 404
    assert "no release" in answer.json()["detail"]


def test_too_many_rows_and_too_many_requests_are_refused(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    deploy(onboarded(api_settings, postgres, "api-hasty", Tier.FREE), tmp_path)
    with api.client(keys.create("api-hasty", "test", Role.READER)[1]) as client:
        assert client.post("/v1/demand/predict", json={"rows": [ROW] * 11}).status_code == 413
        codes = [client.post("/v1/demand/predict", json={"rows": [ROW]}) for _ in range(30)]
    refused = [answer for answer in codes if answer.status_code == 429]
    assert refused
    assert int(refused[-1].headers["Retry-After"]) >= 1
    assert refused[-1].json()["type"] == "urn:orchard:problem:too-many-requests"


def test_a_release_takes_over_and_gives_way_without_a_failed_request(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    space = onboarded(api_settings, postgres, "api-changing", Tier.PREMIUM)
    first, second = deploy(space, tmp_path, 1), deploy(space, tmp_path, 2, serves=False)
    answers: list[tuple[float, int, int | None]] = []
    stop = time.monotonic() + 14

    def ask(key: str) -> None:
        with api.client(key) as client:
            while time.monotonic() < stop:
                answer = client.post("/v1/demand/predict", json={"rows": [ROW]})
                release = answer.json()["release"] if answer.status_code == 200 else None
                answers.append((time.monotonic(), answer.status_code, release))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask, keys.create("api-changing", "test", Role.READER)[1]) for _ in range(2)]
        switched = []
        for version in (second, first):
            time.sleep(1)
            space.records.set_champion("demand", version)
            switched.append(time.monotonic())
            while time.monotonic() - switched[-1] < 5 and answers[-1][2] != version:
                time.sleep(0.05)
            assert answers[-1][2] == version
        for each in asking:
            each.result()
    assert {status for _, status, _ in answers} == {200}


def test_stored_answers_are_served_where_the_use_case_says_so(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    space = onboarded(api_settings, postgres, "api-stored", precomputed_s=60.0)
    store_answers(space, deploy(space, tmp_path))
    stored = [row for row in rows_as_json() if row["store"] == 0]
    asked = [*stored, {**ROW, "day": "2031-01-01T00:00:00Z"}]
    with api.client(keys.create("api-stored", "test", Role.READER)[1]) as client:
        answers = client.post("/v1/demand/predict", json={"rows": asked}).json()["rows"]
        assert [answer["source"] for answer in answers] == ["precomputed"] * len(stored) + ["online"]
        [explained] = client.post("/v1/demand/predict?explain=true", json={"rows": asked[:1]}).json()["rows"]
    assert explained["source"] == "online"
    assert explained["prediction"] == pytest.approx(answers[0]["prediction"], abs=1e-9)
