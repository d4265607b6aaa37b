"""What the API tells the audit, and what a tenant's admin sees of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from infra.database.audit import Audit
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.database.operator import Operator
from tasks.domain.access import Role
from tests.api.conftest import MakeClient
from tests.api.served import Api, problem
from tests.samples import sample_tenant

HISTORY = "/v1/sales/uploads/history"


@pytest.fixture
def entries(postgres: Cluster) -> Callable[..., pd.DataFrame]:
    return Audit(postgres).entries


def test_an_upload_is_one_entry_however_often_it_comes(
    client: MakeClient, keys: Keys, entries: Callable[..., pd.DataFrame]
) -> None:
    acme = client("api-told")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: acme.post(HISTORY, content=b"a,b\n1,2\n"), range(8)))
    acme.post(HISTORY, content=b"a,b\n3,4\n")
    first, second = entries("api-told", action="upload")[::-1].to_dict("records")
    assert first["details"] == {
        "upload_id": answers[0].json()["upload_id"],
        "use_case": "sales",
        "purpose": "history",
        "size_bytes": 8,
    }
    [key] = keys.list("api-told")
    assert (first["actor"], first["origin"], first["outcome"]) == (f"key:{key.key_id}", "api 127.0.0.1", "done")
    assert second["details"]["upload_id"] != first["details"]["upload_id"]


def test_what_was_refused_is_no_upload(client: MakeClient, entries: Callable[..., pd.DataFrame]) -> None:
    acme = client("api-untold", role=Role.READER)
    problem(acme.post(HISTORY, content=b"a\n1\n"), 403, "forbidden")
    assert entries("api-untold", action="upload").empty


def test_an_operator_that_acts_for_a_tenant_is_named(
    api: Api, keys: Keys, operator: Operator, entries: Callable[..., pd.DataFrame]
) -> None:
    operator.onboard(sample_tenant("api-helped"))
    key_id, key = keys.create(None, "support")
    with api.client(key) as client:
        client.post(HISTORY, content=b"a\n1\n", headers={"Orchard-Tenant": "api-helped"})
    assert entries("api-helped", action="upload")["actor"].tolist() == [f"operator-key:{key_id}"]


def test_an_admin_sees_its_own_entries_only(client: MakeClient, postgres: Cluster) -> None:
    mine, theirs = client("api-looks", role=Role.ADMIN), client("api-looked-at", role=Role.ADMIN)
    for number in range(3):
        for each in (theirs, mine, theirs):
            each.post(HISTORY, content=b"a\n%d\n" % number)
    page = mine.get("/v1/audit").json()
    assert [entry["action"] for entry in page["entries"]] == ["upload"] * 3 + ["key.create", "tenant.onboard"]
    assert [entry["number"] for entry in page["entries"]] == [5, 4, 3, 2, 1]  # others' entries leave no gap
    assert page["before"] is None
    assert "looked-at" not in str(page)
    created = page["entries"][3]
    assert (created["outcome"], created["details"]["role"]) == ("done", "admin")


def test_it_is_read_page_by_page(client: MakeClient) -> None:
    acme = client("api-pages", role=Role.ADMIN)
    for number in range(4):
        acme.post(HISTORY, content=b"a\n%d\n" % number)
    numbers, before = [], None
    while True:
        page = acme.get("/v1/audit", params={"limit": 2} | ({"before": before} if before else {})).json()
        assert len(page["entries"]) <= 2
        numbers += [entry["number"] for entry in page["entries"]]
        if (before := page["before"]) is None:
            break
    assert numbers == [6, 5, 4, 3, 2, 1]
    only = acme.get("/v1/audit", params={"action": "upload", "since": "2000-01-01T00:00:00Z"}).json()
    assert [entry["number"] for entry in only["entries"]] == [6, 5, 4, 3]
    assert acme.get("/v1/audit", params={"since": "2999-01-01T00:00:00Z"}).json() == {"entries": [], "before": None}
    for odd in ({"limit": 0}, {"limit": 201}, {"before": 0}, {"since": "soon"}, {"since": "2026-01-01T00:00:00"}):
        problem(acme.get("/v1/audit", params=odd), 422, "invalid")
