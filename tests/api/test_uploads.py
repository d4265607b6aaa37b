"""Files come in: streamed, limited, repeated, cut off."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.database.operator import Operator
from infra.database.removal import TenantRemoval
from infra.settings import Settings
from infra.space import open_space
from tasks.domain.job import JobStatus
from tasks.domain.names import Purpose
from tasks.domain.tenant import TenantState, Tier
from tasks.ingestion.admission import stored_path
from tests.api.conftest import MakeClient
from tests.api.served import Api, problem, wait_for

HISTORY = "/v1/sales/uploads/history"
CONTENT = b"store,sku\n1,2\n"


def test_an_upload_is_stored_and_waits_for_its_turn(client: MakeClient, api: Api, api_settings: Settings) -> None:
    acme, before = client("api-store"), len(api.dispatches)
    answer = acme.post(HISTORY, content=CONTENT, headers={"X-Filename": "sales.csv"})
    assert answer.status_code == 202, answer.text
    document = answer.json()
    assert document["status"] == "queued"
    assert document["queue"]["position"] >= 1
    assert (document["use_case"], document["purpose"], document["filename"]) == ("sales", "history", "sales.csv")
    assert document["rows"] == {"read": 0, "accepted": 0, "quarantined": 0, "duplicate": 0}
    assert (document["error"], document["progress"], document["attempts"]) == (None, None, 0)
    space = open_space(api_settings, "api-store")
    assert space.files.read(stored_path("sales", document["upload_id"])) == CONTENT
    job = space.records.job_of_upload(document["upload_id"])
    assert job is not None
    assert (job.status, job.requested_by) == (JobStatus.WAITING, "api")
    assert acme.get(f"/v1/uploads/{document['upload_id']}").json() == document
    wait_for(lambda: len(api.dispatches) > before)  # it failed, and nobody was hurt
    assert not list(api.incoming.iterdir())


def test_the_same_content_is_one_upload(client: MakeClient, api_settings: Settings) -> None:
    acme = client("api-again")
    first = acme.post(HISTORY, content=CONTENT)
    second = acme.post(HISTORY, content=CONTENT, params={"filename": "other.csv"})
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["upload_id"] == first.json()["upload_id"]
    assert len(acme.get("/v1/uploads").json()["uploads"]) == 1
    assert len(open_space(api_settings, "api-again").records.jobs()) == 1
    assert acme.post("/v1/sales/uploads/scoring", content=CONTENT).status_code == 202  # another purpose is another


@pytest.mark.parametrize("gone", [False, True])
def test_a_tenant_that_leaves_while_its_file_comes_is_told_so(
    client: MakeClient, api: Api, operator: Operator, gone: bool
) -> None:
    tenant = f"api-leaves-{gone}".lower()
    acme, removal = client(tenant), TenantRemoval(operator.cluster, tenant)

    def body() -> Iterator[bytes]:
        yield CONTENT
        wait_for(lambda: list(api.incoming.iterdir()))
        operator.set_state(tenant, TenantState.LEAVING)
        removal.shut_out()
        if gone:
            removal.remove_rows()
            removal.remove_login()
            shutil.rmtree(next(api.incoming.iterdir()))
        yield CONTENT

    answer = acme.post(HISTORY, content=body())
    assert "the tenant leaves" in problem(answer, 409, "busy")


def test_many_at_once_are_one_upload(client: MakeClient, api_settings: Settings) -> None:
    acme = client("api-crowd")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: acme.post(HISTORY, content=CONTENT), range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] * 15 + [202]
    assert len({answer.json()["upload_id"] for answer in answers}) == 1
    assert len(open_space(api_settings, "api-crowd").records.jobs()) == 1


def test_any_content_type_but_a_form(client: MakeClient) -> None:
    acme = client("api-types")
    for number, kind in enumerate(("text/csv", "application/x-www-form-urlencoded", "odd")):
        body = CONTENT + b"%d,1\n" % number
        assert acme.post(HISTORY, content=body, headers={"Content-Type": kind}).status_code == 202
    answer = acme.post(HISTORY, files={"file": ("sales.csv", CONTENT)})
    assert "--data-binary" in problem(answer, 415, "not-raw")


def test_a_large_file_is_streamed(client: MakeClient, api_settings: Settings) -> None:
    line = b"0123456789abcdef" * 4096

    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield line

    document = client("api-large").post(HISTORY, content=body()).json()
    stored = open_space(api_settings, "api-large").records.upload(document["upload_id"])
    assert stored.size_bytes == 100 * len(line)


def test_the_tiers_limit_holds(client: MakeClient, api: Api) -> None:
    small = client("api-small", Tier.FREE)
    assert small.post(HISTORY, content=b"x" * 100).status_code == 202
    announced = small.post(HISTORY, content=b"x" * 101)
    assert problem(announced, 413, "too-large") == "an upload of a free tenant may have 100 bytes at most"
    unannounced = small.post(HISTORY, content=iter([b"x" * 60, b"x" * 60]))
    problem(unannounced, 413, "too-large")
    assert len(small.get("/v1/uploads").json()["uploads"]) == 1
    assert not list(api.incoming.iterdir())


def test_an_announced_size_is_refused_before_anything_is_sent(client: MakeClient, api: Api) -> None:
    key = client("api-patient", Tier.FREE).headers["Authorization"]
    with opened(api, key, 10**12) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("body", [b"", iter([b""])], ids=["announced", "chunked"])
def test_an_empty_body_is_refused(client: MakeClient, body: bytes) -> None:
    problem(client("api-empty").post(HISTORY, content=body), 400, "empty-upload")


def test_a_cut_off_upload_leaves_nothing(client: MakeClient, api: Api, api_settings: Settings) -> None:
    acme = client("api-cut")
    with opened(api, acme.headers["Authorization"], 9_000_000) as connection:
        connection.sendall(b"x" * 3_000_000)
        wait_for(lambda: sum(file.stat().st_size for file in api.incoming.glob("api-cut-*/*")) > 0)
    wait_for(lambda: not list(api.incoming.iterdir()))
    assert acme.get("/v1/uploads").json() == {"uploads": []}
    assert open_space(api_settings, "api-cut").files.list("uploads") == []
    assert acme.post(HISTORY, content=CONTENT).status_code == 202


def test_what_a_killed_api_left_goes_with_the_next_upload(client: MakeClient, api: Api) -> None:
    left = api.incoming / "api-killed-x"
    left.mkdir(parents=True, exist_ok=True)
    (left / "half.csv").write_bytes(b"half")
    client("api-killed").post(HISTORY, content=CONTENT)
    assert not left.exists()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\sales.csv", "sales.csv"),
        ("Verkäufe 2026.csv", "Verkäufe 2026.csv"),
        ("..", "upload"),
        ("a/", "upload"),
        ("", "upload"),
    ],
)
def test_a_file_name_is_only_a_name(client: MakeClient, given: str, kept: str) -> None:
    acme = client("api-named")
    by_query = acme.post(HISTORY, content=f"q{given}".encode(), params={"filename": given})
    by_header = acme.post(HISTORY, content=f"h{given}".encode(), headers={b"X-Filename": given.encode()})
    assert [answer.json()["filename"] for answer in (by_query, by_header)] == [kept, kept]


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "x" * 201, "ü" * 101])
def test_an_odd_file_name_is_refused(client: MakeClient, name: str) -> None:
    answer = client("api-odd").post(HISTORY, content=CONTENT, params={"filename": name})
    assert "file name" in problem(answer, 422, "invalid")


def test_what_does_not_exist_is_told(client: MakeClient) -> None:
    acme = client("api-lost")
    detail = problem(acme.post("/v1/absent/uploads/history", content=CONTENT), 404, "not-found")
    assert detail == "tenant 'api-lost' has no use case 'absent'"
    problem(acme.get("/v1/uploads", params={"use_case": "absent"}), 404, "not-found")
    answer = acme.post("/v1/sales/uploads/wishes", content=CONTENT)
    problem(answer, 422, "invalid")
    assert [each["where"] for each in answer.json()["errors"]] == ["path.purpose"]
    problem(acme.post("/v1/Not A Name/uploads/history", content=CONTENT), 422, "invalid")
    problem(acme.get("/v1/uploads/odd"), 422, "invalid")


def test_uploads_are_listed_newest_first(client: MakeClient) -> None:
    acme = client("api-listed")
    ids = [acme.post(HISTORY, content=b"a\n%d\n" % n).json()["upload_id"] for n in range(3)]
    listed = [each["upload_id"] for each in acme.get("/v1/uploads", params={"limit": 2}).json()["uploads"]]
    assert listed == [ids[2], ids[1]]
    assert len(acme.get("/v1/uploads", params={"use_case": "sales"}).json()["uploads"]) == 3
    for limit in (0, 201, "x"):
        problem(acme.get("/v1/uploads", params={"limit": limit}), 422, "invalid")


def test_every_purpose_is_taken(client: MakeClient) -> None:
    acme = client("api-purposes")
    for purpose in Purpose:
        assert acme.post(f"/v1/sales/uploads/{purpose}", content=CONTENT).json()["purpose"] == purpose


class opened:  # reads as what it is
    """A connection on which an upload was begun: headers only, with the size that it will have."""

    def __init__(self, api: Api, authorization: str, size: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", api.port), timeout=10)
        lines = (f"POST {HISTORY} HTTP/1.1", "Host: x", f"Authorization: {authorization}", f"Content-Length: {size}")
        self._socket.sendall("\r\n".join((*lines, "", "")).encode())

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.close()
