"""Who calls: a tenant or an operator by an API key, storage and scrapers by the hook secret. Nothing else in a request
says so. What a route needs is in its signature, `space: ReadersSpace`; a route that needs nothing says that too, in
`tests/api/test_roles.py`.
"""

from __future__ import annotations

import hmac
import logging
import math
from dataclasses import dataclass
from typing import Annotated, NoReturn

from anyio import to_thread
from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from deployments.api.problems import FORBIDDEN, LOCKED_OUT, NOT_FOUND, UNAUTHENTICATED, Problem
from deployments.api.service import Service, TheService, is_loopback
from infra.database.audit import Actor
from infra.database.keys import ApiKey
from infra.space import TenantSpace, open_space
from tasks.domain.access import Role
from tasks.domain.errors import NotFound
from tasks.domain.names import TenantId

logger = logging.getLogger(__name__)

_tenant_id: TypeAdapter[str] = TypeAdapter(TenantId)

_api_key = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    bearerFormat="orc_…",
    description="A key that the operator made with `orchard keys create`. It alone decides whose data is meant. Its "
    "role must be the one that an endpoint names, or a later one of `reader`, `uploader`, `admin`.",
)
_hook_secret = HTTPBearer(auto_error=False, scheme_name="HookSecret", description="The operator's secret for hooks.")

ApiKeyGiven = Annotated[HTTPAuthorizationCredentials | None, Security(_api_key)]
HookSecretGiven = Annotated[HTTPAuthorizationCredentials | None, Security(_hook_secret)]
ActsFor = Annotated[
    str | None, Header(alias="Orchard-Tenant", description="Only for an operator's key: whose data is meant.")
]


@dataclass(frozen=True)
class Caller:
    """Who calls, and for which tenant."""

    key: ApiKey
    tenant: str
    actor: Actor


async def caller_of(
    request: Request, service: TheService, credentials: ApiKeyGiven, needed: SecurityScopes, acts_for: ActsFor = None
) -> Caller:
    """The caller, if its key has the role that the route needs."""
    [role] = map(Role, needed.scopes)  # a route that says none lets nobody in
    key = service.keyring.known(credentials.credentials) if credentials is not None else None
    if key is not None:
        return _let_in(request, key, role, acts_for)  # nobody is asked, so nothing is waited for
    return await run_in_threadpool(_caller, request, service, credentials, role, acts_for)


def known_caller(request: Request, service: Service, role: Role) -> Caller | None:
    """`caller_of` for one whose key nobody has to ask about; None for anyone else."""
    scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
    key = service.keyring.known(presented) if scheme.lower() == "bearer" else None
    return None if key is None else _let_in(request, key, role, request.headers.get("Orchard-Tenant"))


def _caller(
    request: Request,
    service: Service,
    credentials: HTTPAuthorizationCredentials | None,
    role: Role,
    acts_for: str | None,
) -> Caller:
    key = _holder(request, service, credentials)
    if key is None:
        _refuse(request, service, credentials, "present an API key of yours: Authorization: Bearer orc_…")
    return _let_in(request, key, role, acts_for)


def _let_in(request: Request, key: ApiKey, role: Role, acts_for: str | None) -> Caller:
    if not key.role.covers(role):
        raise Problem(FORBIDDEN, f"this needs a key with the role {role}; yours has the role {key.role}")
    actor = Actor(who=key.who, origin=f"api {_address(request)}")
    return Caller(key, _tenant_of(key, acts_for), actor)


def _tenant_of(key: ApiKey, acts_for: str | None) -> str:
    """For whom a key acts: a tenant's for that tenant; an operator's for whom the header names."""
    if key.tenant is not None:
        if acts_for not in (None, key.tenant):
            raise Problem(FORBIDDEN, "a tenant's key acts for no other tenant: leave out the header Orchard-Tenant")
        return key.tenant
    if acts_for is None:
        raise Problem(FORBIDDEN, "an operator's key says for whom it acts: Orchard-Tenant: acme")
    try:
        return _tenant_id.validate_python(acts_for)
    except ValidationError:
        raise Problem(NOT_FOUND, "there is no such tenant") from None


async def calling_space(
    request: Request, service: TheService, credentials: ApiKeyGiven, caller: Annotated[Caller, Depends(caller_of)]
) -> TenantSpace:
    """The space of the tenant for whom the caller acts."""
    try:
        return await to_thread.run_sync(open_space, service.settings, caller.tenant, limiter=service.openers)
    except NotFound:  # the error's own text names all others
        if caller.key.tenant is None:
            raise Problem(NOT_FOUND, "there is no such tenant") from None
        _refuse(request, service, credentials, "the key's tenant does not exist any more")


Reader = Annotated[Caller, Security(caller_of, scopes=[Role.READER.value])]
Uploader = Annotated[Caller, Security(caller_of, scopes=[Role.UPLOADER.value])]
Admin = Annotated[Caller, Security(caller_of, scopes=[Role.ADMIN.value])]
ReadersSpace = Annotated[TenantSpace, Security(calling_space, scopes=[Role.READER.value])]
UploadersSpace = Annotated[TenantSpace, Security(calling_space, scopes=[Role.UPLOADER.value])]
AdminsSpace = Annotated[TenantSpace, Security(calling_space, scopes=[Role.ADMIN.value])]


async def hook_caller(request: Request, service: TheService, credentials: HookSecretGiven) -> None:
    """Lets in who knows the hook secret."""
    if not _knows_hook_secret(service, credentials):
        _listen(request, service)
        _refuse(request, service, credentials, "present the hook secret: Authorization: Bearer …")


def scraper(request: Request, service: TheService, credentials: HookSecretGiven) -> None:
    """Lets in anyone on this machine; where others can reach it, who knows the hook secret or has an operator's key."""
    if is_loopback(service.settings.host) or _knows_hook_secret(service, credentials):
        return
    key = _holder(request, service, credentials)
    if key is None:
        _refuse(request, service, credentials, "present the hook secret or an operator's key: Authorization: Bearer …")
    if key.tenant is not None:
        raise Problem(FORBIDDEN, "this needs an operator's key")


def _knows_hook_secret(service: Service, credentials: HTTPAuthorizationCredentials | None) -> bool:
    presented = credentials.credentials if credentials is not None else ""
    return hmac.compare_digest(presented.encode(), service.settings.hook_secret().encode())


def _holder(request: Request, service: Service, credentials: HTTPAuthorizationCredentials | None) -> ApiKey | None:
    """Whose key was presented. One that was good a while ago is never locked out by what others do from its address."""
    presented = credentials.credentials if credentials is not None else ""
    if not service.keyring.remembers(presented):
        _listen(request, service)
    return service.keyring.holder(presented)


def _listen(request: Request, service: Service) -> None:
    """Raises `Problem` while the caller's address is locked out."""
    wait_s = math.ceil(service.lockouts.wait_s(_address(request)))
    if wait_s:
        detail = f"nothing from this address is looked at for {wait_s} s"
        raise Problem(LOCKED_OUT, detail, headers={"Retry-After": str(wait_s)})


def _refuse(
    request: Request, service: Service, credentials: HTTPAuthorizationCredentials | None, detail: str
) -> NoReturn:
    """Raises the refusal; who presented something that was wrong is counted."""
    if credentials is not None:
        address = _address(request)
        locked_s = service.lockouts.failed(address)
        if locked_s:
            logger.warning("%s is locked out for %.0f s: too many attempts failed", address, locked_s)
            by = Actor(who="unknown", origin=f"api {address}")
            service.reports.add("access.lockout", "refused", by, seconds=int(locked_s))
    raise Problem(UNAUTHENTICATED, detail, headers={"WWW-Authenticate": "Bearer"})


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"
