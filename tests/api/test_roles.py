"""What each role opens: every route of the API, with every kind of key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from starlette.routing import Mount, Route

from deployments.api.app import create_app
from deployments.api.auth import hook_caller, scraper
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.settings import Settings
from tasks.domain.access import Role
from tests.api.served import Api, problem
from tests.samples import sample_tenant

OPEN = {"/healthz", "/readyz"}
"""Routes that need nothing: they say whether the API works, and no more."""

NEEDED = {
    ("POST", "/v1/{use_case}/uploads/{purpose}"): Role.UPLOADER,
    ("GET", "/v1/uploads"): Role.READER,
    ("GET", "/v1/uploads/{upload_id}"): Role.READER,
    ("POST", "/v1/{use_case}/jobs"): Role.UPLOADER,
    ("POST", "/v1/{use_case}/predict"): Role.READER,
    ("GET", "/v1/jobs/{job_id}"): Role.READER,
    ("GET", "/v1/use-cases"): Role.READER,
    ("GET", "/v1/{use_case}/definition"): Role.READER,
    ("GET", "/v1/{use_case}/releases"): Role.READER,
    ("GET", "/v1/{use_case}/releases/{version}"): Role.READER,
    ("GET", "/v1/{use_case}/releases/{version}/verdicts"): Role.READER,
    ("GET", "/v1/{use_case}/predictions"): Role.READER,
    ("GET", "/v1/{use_case}/health"): Role.READER,
    ("GET", "/v1/runs"): Role.READER,
    ("GET", "/v1/runs/{run_id}"): Role.READER,
    ("GET", "/v1/uploads/{upload_id}/quarantine"): Role.ADMIN,
    ("GET", "/v1/budgets"): Role.READER,
    ("GET", "/v1/key"): Role.READER,
    ("GET", "/v1/audit"): Role.ADMIN,
}
PATHS = {
    "{use_case}": "sales",
    "{purpose}": "history",
    "{upload_id}": "0" * 32,
    "{job_id}": "1",
    "{run_id}": "1",
    "{version}": "1",
}
DESCRIPTIONS = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/static-offline-docs"}
HOOKS = {"/hooks/s3": hook_caller, "/metrics": scraper}


def routes(settings: Settings) -> Iterator[tuple[str, str, Dependant]]:
    """Method, path and dependencies of every route that is not FastAPI's own."""
    for part in create_app(settings).routes:
        if isinstance(part, Route | Mount):
            assert part.path in DESCRIPTIONS
            continue
        for route in part.effective_route_contexts():  # type: ignore[attr-defined]  # of an included router
            yield from ((method, route.path, route.dependant) for method in route.methods)


def path_of(template: str) -> str:
    for name, value in PATHS.items():
        template = template.replace(name, value)
    return template


@pytest.fixture(scope="module")
def bearers(keys: Keys, operator: Operator) -> dict[str, str]:
    """A key of each role of one tenant, and an operator's."""
    operator.onboard(sample_tenant("api-roles"))
    operator.onboard(sample_tenant("api-roles-other"))
    made = {role.value: keys.create("api-roles", role.value, role)[1] for role in Role}
    return made | {"operator": keys.create(None, "operator")[1]}


def test_every_route_says_what_it_needs(settings: Settings) -> None:
    found = {}
    for method, path, dependant in routes(settings):
        all_of_them = list(_all(dependant))
        scopes = {scope for each in all_of_them for scope in each.own_oauth_scopes or ()}
        if path in HOOKS:
            assert HOOKS[path] in [each.call for each in all_of_them], path
        elif path not in OPEN:
            assert len(scopes) == 1, f"{method} {path} declares no role, or several"
            found[method, path] = Role(*scopes)
    assert found == NEEDED


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _all(each)


@pytest.mark.parametrize(("method", "template"), NEEDED, ids=" ".join)
@pytest.mark.parametrize("held", [*Role, "operator", "operator without tenant"])
def test_a_role_opens_what_it_covers(api: Api, bearers: dict[str, str], method: str, template: str, held: str) -> None:
    headers = {"Orchard-Tenant": "api-roles"} if held == "operator" else {}
    with api.client(bearers[held.split()[0]]) as client:
        answer = client.request(method, path_of(template), headers=headers, content=b"{}" if method == "POST" else None)
    needed = NEEDED[method, template]
    if held == "operator without tenant":
        assert "Orchard-Tenant" in problem(answer, 403, "forbidden")
    elif held == "operator" or Role(held).covers(needed):
        assert answer.status_code in (200, 202, 404, 422), answer.text  # it was looked at
    else:
        detail = problem(answer, 403, "forbidden")
        assert detail == f"this needs a key with the role {needed}; yours has the role {held}"


def test_a_refused_role_stores_nothing(api: Api, bearers: dict[str, str]) -> None:
    with api.client(bearers["reader"]) as client:
        before = client.get("/v1/uploads").json()
        problem(client.post("/v1/sales/uploads/history", content=b"refused\n1\n"), 403, "forbidden")
        assert client.get("/v1/uploads").json() == before


def test_a_header_opens_no_other_tenant(api: Api, bearers: dict[str, str]) -> None:
    with api.client(bearers["admin"]) as client:
        for other in ("api-roles-other", "api-nobody", "API-ROLES", "../api-roles", "", "\xfc"):
            answer = client.get("/v1/key", headers={"Orchard-Tenant": other.encode("latin-1")})  # type: ignore[dict-item]
            assert "acts for no other tenant" in problem(answer, 403, "forbidden")
        assert client.get("/v1/key", headers={"Orchard-Tenant": "api-roles"}).json()["tenant"] == "api-roles"


def test_an_operators_key_acts_for_any_tenant(api: Api, bearers: dict[str, str]) -> None:
    with api.client(bearers["operator"]) as client:
        for tenant in ("api-roles", "api-roles-other"):
            found = client.get("/v1/key", headers={"Orchard-Tenant": tenant}).json()
            assert (found["tenant"], found["role"]) == (tenant, "admin")
            assert client.get("/v1/uploads", headers={"Orchard-Tenant": tenant}).status_code == 200
        for odd in ("api-nobody", "API-ROLES", "../x", "x" * 41, "\xfc"):
            headers = {"Orchard-Tenant": odd.encode("latin-1")}
            answer = client.get("/v1/uploads", headers=headers)  # type: ignore[arg-type]  # httpx takes bytes, too
            assert problem(answer, 404, "not-found") == "there is no such tenant"


def test_a_key_says_what_it_is_good_for(api: Api, bearers: dict[str, str], keys: Keys) -> None:
    with api.client(bearers["reader"]) as client:
        found = client.get("/v1/key").json()
    [listed] = [each for each in keys.list("api-roles") if each.role is Role.READER]
    assert found == {
        "tenant": "api-roles",
        "key_id": listed.key_id,
        "name": "reader",
        "role": "reader",
        "expires_at": None,
    }
