"""Who calls: the key alone says, and for no longer than it counts."""

from __future__ import annotations

import time

import pytest

from deployments.api.keyring import AHEAD_S, KEPT_S, Keyring
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.settings import Settings
from tests.api.conftest import MakeClient
from tests.api.served import Api, problem
from tests.samples import sample_tenant

UPLOADS = "/v1/uploads"


def tenant_of(ring: Keyring, key: str) -> str | None:
    holder = ring.holder(key)
    return holder.tenant if holder is not None else None


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer orc_", f"Bearer orc_{'x' * 43}", "Basic b3JjOm9yYw==", "Bearer \xfc"],
)
def test_without_a_good_key_nothing_opens(api: Api, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    with api.client() as client:
        for method, path in (
            ("GET", UPLOADS),
            ("GET", f"{UPLOADS}/{'0' * 32}"),
            ("POST", "/v1/sales/uploads/history"),
            ("POST", "/v1/sales/jobs"),
            ("GET", "/v1/jobs/1"),
        ):
            answer = client.request(method, path, headers=headers)  # type: ignore[arg-type]  # httpx takes bytes, too
            assert "API key" in problem(answer, 401, "unauthenticated")
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_caller_is_known_before_the_request_is_looked_at(api: Api) -> None:
    with api.client() as client:
        problem(client.post("/v1/Not A Name/uploads/odd", content=b"x"), 401, "unauthenticated")
        problem(client.post("/v1/sales/jobs", content=b"{"), 401, "unauthenticated")


def test_a_revoked_key_is_out_within_five_seconds(api: Api, keys: Keys, operator: Operator) -> None:
    operator.onboard(sample_tenant("api-revoked"))
    key_id, key = keys.create("api-revoked", "test")
    with api.client(key) as client:
        assert client.get(UPLOADS).status_code == 200
        keys.revoke("api-revoked", key_id)
        revoked_at = time.monotonic()
        while client.get(UPLOADS).status_code == 200:
            assert time.monotonic() - revoked_at < 5
            time.sleep(0.1)
        problem(client.get(UPLOADS), 401, "unauthenticated")


def test_a_good_key_is_kept_for_a_moment_and_a_bad_one_never(
    settings: Settings, postgres: Cluster, keys: Keys, operator: Operator
) -> None:
    operator.onboard(sample_tenant("api-kept"))
    key_id, key = keys.create("api-kept", "test")
    now = [0.0]
    ring = Keyring(settings, clock=lambda: now[0])
    assert tenant_of(ring, key) == "api-kept"
    keys.revoke("api-kept", key_id)
    now[0] = KEPT_S - AHEAD_S - 0.01
    assert tenant_of(ring, key) == "api-kept"
    now[0] = KEPT_S - AHEAD_S
    assert ring.known(key) is not None  # it is asked about beside, and found to be revoked
    deadline = time.monotonic() + 10
    while ring.known(key) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert tenant_of(ring, key) is None


def test_a_tenant_sees_nothing_of_another(client: MakeClient, api: Api) -> None:
    mine, theirs = client("api-mine"), client("api-theirs")
    upload = mine.post("/v1/sales/uploads/history", content=b"a,b\n1,2\n").json()["upload_id"]
    job = mine.post("/v1/sales/jobs", json={"kind": "refresh"}).json()["job_id"]
    assert mine.get(f"{UPLOADS}/{upload}").json()["upload_id"] == upload
    assert mine.get(f"/v1/jobs/{job}").json()["job_id"] == job
    assert theirs.get(UPLOADS).json() == {"uploads": []}
    unknown = "0" * 32
    answers = [problem(theirs.get(f"{UPLOADS}/{each}"), 404, "not-found") for each in (upload, unknown)]
    assert answers[0].replace(upload, unknown) == answers[1]
    answers = [problem(theirs.get(f"/v1/jobs/{each}"), 404, "not-found") for each in (job, 987654321)]
    assert answers[0].replace(str(job), "987654321") == answers[1]
    assert "api-mine" not in "".join(answers)


def test_the_same_content_of_two_tenants_is_two_uploads(client: MakeClient) -> None:
    ids = {
        client(tenant).post("/v1/sales/uploads/history", content=b"a\n1\n").json()["upload_id"]
        for tenant in ("api-twin-a", "api-twin-b")
    }
    assert len(ids) == 2
