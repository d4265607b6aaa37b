"""Requests made up from the API's own description: none breaks it, none is answered with what is another tenant's, and
no answer tells of the machine. All is served, with a real PostgreSQL behind it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st

from deployments.api.app import create_app
from deployments.serving.tables import ARROW
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.settings import Settings
from infra.space import TenantSpace
from tasks.domain.access import Role
from tasks.domain.job import JobKind
from tasks.domain.names import Purpose
from tasks.domain.tenant import Tier
from tests.api.filled import ACTUALS, SCORED, fill, id_of
from tests.api.fuzzing import (
    HEADERS,
    JSON,
    MARKER,
    MINE,
    OF_ROUTING,
    ROWS,
    THEIRS,
    Target,
    bounded,
    check,
    errors_of,
    tables,
)
from tests.api.served import Api
from tests.api.test_roles import NEEDED
from tests.serving.deployed import onboarded

UPLOADS = ((Purpose.SCORING, SCORED), (Purpose.ACTUALS, ACTUALS))


@pytest.fixture(scope="module")
def target(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    spaces = {}
    for name, marker in ((MINE, "mine"), (THEIRS, MARKER)):
        spaces[name] = onboarded(api_settings, postgres, name, Tier.PREMIUM)
        fill(spaces[name], tmp_path_factory.mktemp("made"), marker)
    session, url = requests.Session(), f"http://127.0.0.1:{api.port}"
    session.trust_env = False
    theirs = {"Authorization": f"Bearer {keys.create(THEIRS, 'test', Role.ADMIN)[1]}"}
    seen = session.get(f"{url}/v1/uploads", headers=theirs).text
    assert MARKER in seen, "or nothing would be found"
    listing = {"limit": "1"}
    cursors = [
        session.get(f"{url}/v1/demand/{part}", headers=theirs, params=listing).json()["next"]
        for part in ("predictions", "health", "releases")
    ]
    paths: dict[str, list[Any]] = {
        "use_case": ["demand"],
        "purpose": ["history", "scoring"],
        "version": [1, 2, 3],
        "upload_id": [id_of(space, *of) for space in spaces.values() for of in UPLOADS],
        "run_id": [run.run_id for space in spaces.values() for run in space.records.runs()],
        "job_id": [jobs_of(space) for space in spaces.values()],
    }  # fmt: skip
    yield Target(url, session, keys.create(MINE, "test", Role.ADMIN)[1], api.settings.hook_secret(), paths, cursors)
    session.close()


def jobs_of(space: TenantSpace) -> int:
    return space.records.request("demand", JobKind.REFRESH, by="test").job_id


OPEN = ("GET /healthz", "GET /readyz", "GET /metrics")
"""Nobody needs a key for these; not from this machine."""

ENDPOINTS = (*map(" ".join, NEEDED), "POST /hooks/s3", *OPEN)


@pytest.fixture(scope="module")
def operations(settings: Settings) -> dict[str, Any]:
    """The endpoints, as the description has them."""
    schema = schemathesis.openapi.from_dict(create_app(settings).openapi())
    found = {result.ok().label: result.ok() for result in schema.get_all_operations()}
    assert set(found) == set(ENDPOINTS)
    return found


@st.composite
def cases(draw: st.DrawFn, operation: Any, target: Target) -> Any:
    """A request to an endpoint: what the description allows, or what it does not; with ids that there are, mostly."""
    mode = draw(st.sampled_from(list(schemathesis.GenerationMode)))
    case = draw(operation.as_strategy(mode))
    for name, known in target.paths.items():
        if name in (case.path_parameters or {}) and draw(st.integers(0, 3)):
            case.path_parameters[name] = draw(st.sampled_from(known))
    rarely = draw(st.integers(0, 9)) == 0  # a tenant's key with this header opens nothing
    for name in list(case.headers):
        if name.lower() not in HEADERS or (name.lower() == "orchard-tenant" and not rarely):
            del case.headers[name]
    if case.query and "cursor" in case.query and draw(st.booleans()):
        case.query["cursor"] = draw(st.sampled_from(target.cursors))
    return case


def attack(operation: Any, target: Target, limits: Any, caplog: pytest.LogCaptureFixture) -> None:
    @limits
    @given(st.data())
    def run(data: st.DataObject) -> None:
        target.send(data.draw(cases(operation, target)))

    run()
    assert errors_of(caplog) == []


@pytest.mark.parametrize("label", ENDPOINTS)
def test_a_few_requests_to_every_endpoint(
    label: str, operations: dict[str, Any], target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    attack(operations[label], target, bounded(12, derandomize=True), caplog)


@pytest.mark.slow
@pytest.mark.parametrize("label", ENDPOINTS)
def test_many_requests_to_every_endpoint(
    label: str, operations: dict[str, Any], target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    attack(operations[label], target, bounded(150), caplog)


def test_rows_of_any_values_are_answered_or_refused(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    @bounded(150, derandomize=True)
    @given(ROWS, st.booleans())
    def run(rows: list[dict[str, Any]], explain: bool) -> None:
        content = json.dumps({"rows": rows}).encode()
        answer = target.post(f"/v1/demand/predict?explain={explain}", content, "application/json")
        assert answer.status_code in (200, 400, 422), answer.text

    run()
    assert errors_of(caplog) == []


def test_tables_of_any_types_are_answered_or_refused(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    @bounded(150, derandomize=True)
    @given(tables())
    def run(table: tuple[bytes, str]) -> None:
        answer = target.post("/v1/demand/predict", *table)
        assert answer.status_code in (200, 400, 413, 422), answer.text  # a damaged one may seem to be large

    run()
    assert errors_of(caplog) == []


def test_a_table_with_an_odd_time_zone_is_refused(target: Target) -> None:
    sink, table = io.BytesIO(), pa.table({"day": pa.array([0], pa.timestamp("us", "odd"))})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    assert target.post("/v1/demand/predict", sink.getvalue(), ARROW).status_code == 400


def test_files_of_any_content_are_taken_in_or_refused(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    @bounded(30, derandomize=True)
    @given(st.binary(max_size=200) | tables().map(lambda table: table[0]), st.sampled_from(list(Purpose)))
    def run(content: bytes, purpose: Purpose) -> None:
        answer = target.post(f"/v1/demand/uploads/{purpose}", content, "application/octet-stream")
        assert answer.status_code == (202 if content else 400) or answer.status_code == 200, answer.text

    run()
    assert errors_of(caplog) == []


def test_positions_of_any_kind_are_refused_or_read(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Authorization": f"Bearer {target.bearer}"}
    url = f"{target.url}/v1/demand/predictions"
    whole = target.session.get(url, headers=headers).json()["predictions"]
    given_out = target.session.get(url, headers=headers, params={"limit": "1"}).json()["next"]
    listing = json.loads(base64.urlsafe_b64decode(given_out + "=="))[0]

    @bounded(150, derandomize=True)
    @given(st.lists(JSON | st.integers(0, 2**64), max_size=6), st.booleans(), st.binary(max_size=3))
    def run(position: list[Any], whole_one: bool, noise: bytes) -> None:
        made = [abs(hash(str(part))) for part in position[:3]] + ["a", "b"] if whole_one else position
        content = json.dumps([listing, *made]).encode()
        cursor = base64.urlsafe_b64encode(content + (b"" if whole_one else noise)).decode().rstrip("=")
        answer = target.session.get(url, headers=headers, params={"cursor": cursor})
        check(answer.status_code, answer.content, str(answer.headers))
        assert answer.status_code in (200, 422)
        if answer.status_code == 200:
            rows = answer.json()["predictions"]
            assert rows == whole[len(whole) - len(rows) :]

    run()
    assert errors_of(caplog) == []


@pytest.mark.parametrize("label", [label for label in ENDPOINTS if label not in OPEN])
def test_nobody_is_let_in_without_a_key(label: str, operations: dict[str, Any], target: Target) -> None:
    @bounded(2, derandomize=True)
    @given(st.data(), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
    def run(data: st.DataObject, made_up: str) -> None:
        for bearer in (made_up, f"orc_{'x' * 43}", target.bearer[:-1], target.bearer.upper()):
            answer = target.send(data.draw(cases(operations[label], target)), bearer or "x")
            assert answer.status_code in (400, 401, *OF_ROUTING), answer.content

    run()
