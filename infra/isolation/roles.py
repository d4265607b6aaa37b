"""What a tenant gets at onboarding, and loses at erasure, where its files are.

On S3 that is a role whose policy allows its folders alone; for a silo a bucket and a key of its own, which refuse
everyone else; for the shared buckets, that they refuse plain transport and other keys. On a local disk it is folders
that are open to nobody else. All of it may be asked for again at any time.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from infra.isolation.aws import aws_errors, client, identity
from infra.isolation.buckets import ensure_bucket, ensure_encryption, ensure_statements, ensure_tags, remove_bucket
from infra.isolation.credentials import Login, Session
from infra.isolation.iam import ensure_policy, ensure_role, remove_role
from infra.isolation.keys import ensure_key, find_key, remove_key
from infra.isolation.policies import (
    Document,
    key_policy,
    operator_policy,
    shared_bucket_policy,
    shared_urls,
    silo_bucket_policy,
    tenant_policy,
    trust_policy,
)
from infra.places import check_apart, places, places_of, role_of, silo_url
from infra.settings import Settings
from tasks.domain.errors import InvalidDefinition, StorageUnavailable
from tasks.domain.labels import Label, Labels, cloud_labels
from tasks.domain.tenant import Isolation, Tenant

KNOWN_S = 30
"""So long it may take until a new role is known everywhere."""

HINT = "what this login needs is in OPERATORS.md, On S3; ORCHARD_STORAGE__ROLES=false does without roles"


def provide(settings: Settings, tenant: Tenant, *isolations: Isolation) -> list[str]:
    """Provides a tenant's storage; says what changed, a line each: nothing the second time.

    `isolations`: the ways that its role opens, by default the tenant's own; while it moves, both.
    Raises `InvalidDefinition`, `StorageUnavailable`.
    """
    check_apart(settings, tenant.id)
    ways = isolations or (tenant.isolation or Isolation.POOL,)
    opened = [places(settings, tenant.id, way) for way in ways]
    for location in (location for each in opened for location in each.all()):
        location.make()
    if all(location.bucket is None for each in opened for location in each.all()):
        return []
    with aws_errors("the tenant's storage cannot be provided", tenant.id, HINT):
        provider = _Provider(settings, tenant.id, {Label.TENANT: tenant.id, Label.TIER: tenant.tier.value})
        return provider.provide(ways) if settings.storage.roles else provider.make_bucket(ways)


def remove(settings: Settings, tenant_id: str, isolation: Isolation) -> list[str]:
    """Removes what `provide` provided, and all that a silo's bucket holds; says what went: nothing the second time.
    Files in shared buckets and in local folders are for the caller to remove before."""
    if not any(location.bucket for location in places(settings, tenant_id, isolation).all()):
        return []
    with aws_errors("the tenant's storage cannot be removed", tenant_id, HINT):
        provider = _Provider(settings, tenant_id)
        gone = remove_role(provider.client("iam"), provider.role) if settings.storage.roles else []
        return gone + (provider.remove_silo() if isolation is Isolation.SILO else [])


def remove_silo(settings: Settings, tenant_id: str) -> list[str]:
    """Removes the bucket and the key of a silo that the tenant has left; its role stays. Local folders are for the
    caller."""
    if urlsplit(settings.silo_url).scheme != "s3":
        return []
    with aws_errors("the tenant's silo cannot be removed", tenant_id, HINT):
        return _Provider(settings, tenant_id).remove_silo()


def policy_of(settings: Settings, tenant: Tenant) -> Document:
    """What a tenant's role may do. Raises `InvalidDefinition` where it has none."""
    location = places_of(settings, tenant).lake
    if location.role is None:
        raise InvalidDefinition(
            "there are no roles here",
            expected="a lake on S3, and ORCHARD_STORAGE__ROLES not false",
            found=location.url,
        )
    return _Provider(settings, tenant.id).policy((tenant.isolation or Isolation.POOL,))


def policy_of_operator(settings: Settings) -> Document:
    """What the login of these settings has to be granted. Raises `InvalidDefinition` where nothing is on S3."""
    if not any(url.startswith("s3://") for url in (*shared_urls(settings), settings.silo_url)):
        raise InvalidDefinition("nothing of these settings is on S3", hint="set ORCHARD_LAKE_URL=s3://bucket")
    return operator_policy(settings, identity(settings.lake_options, settings.storage))


class _Provider:
    """One tenant's provisioning, with clients that are made when they are needed."""

    def __init__(self, settings: Settings, tenant_id: str, labels: Labels | None = None) -> None:
        self._settings, self._tenant = settings, tenant_id
        self._tags = cloud_labels(labels or {}) if settings.storage.tags else {}
        self._options, self._storage = settings.lake_options, settings.storage
        self.role = role_of(settings, tenant_id)
        parts = urlsplit(silo_url(settings, tenant_id))
        self._silo = parts.netloc if parts.scheme == "s3" else None
        self._identity = identity(self._options, self._storage)
        self._operator = self._storage.operator or self._identity.principal

    def client(self, service: str) -> Any:
        return client(service, self._options, self._storage)

    def provide(self, ways: tuple[Isolation, ...]) -> list[str]:
        made = ensure_role(
            self.client("iam"),
            self.role,
            self._tenant,
            trust_policy(self._operator),
            self._storage.session_s,
            self._tags,
        )
        changed, keys = list(made), []
        if Isolation.SILO in ways and self._silo is not None:
            key, lines = self._provide_silo(self._silo)
            keys, changed = [key] if key else [], changed + lines
        if any(way is not Isolation.SILO for way in ways):
            changed += self._guard_shared()
            keys += [self._storage.kms_key] if self._storage.kms_key else []
        changed += ensure_policy(self.client("iam"), self.role, self._policy(ways, keys))
        if made:
            self._await_role()
        return changed

    def policy(self, ways: tuple[Isolation, ...]) -> Document:
        """The policy of the tenant's role as it is provided."""
        own = find_key(self.client("kms"), self.role) if Isolation.SILO in ways and self._storage.silo_keys else None
        shared = self._storage.kms_key if any(way is not Isolation.SILO for way in ways) else None
        return self._policy(ways, [key for key in (own, shared) if key])

    def _policy(self, ways: tuple[Isolation, ...], keys: list[str]) -> Document:
        opened = [places(self._settings, self._tenant, way) for way in dict.fromkeys(ways)]
        return tenant_policy(self._identity, opened, keys)

    def make_bucket(self, ways: tuple[Isolation, ...]) -> list[str]:
        """Just a silo's bucket, where one login opens everything."""
        if Isolation.SILO not in ways or self._silo is None:
            return []
        return self._make_bucket(self._silo)

    def _make_bucket(self, bucket: str) -> list[str]:
        changed = ensure_bucket(self.client("s3"), self._identity, bucket, self._options.region)
        return changed + (ensure_tags(self.client("s3"), bucket, self._tags) if self._tags else [])

    def _provide_silo(self, bucket: str) -> tuple[str | None, list[str]]:
        s3, role_arn = self.client("s3"), self._identity.role(self.role)
        changed = self._make_bucket(bucket)
        key = None
        if self._storage.silo_keys:
            policy = key_policy(self._identity, role_arn)
            key, lines = ensure_key(self.client("kms"), self.role, self._tenant, policy, self._tags)
            changed += lines + ensure_encryption(s3, bucket, key)
        if self._secure:
            principals = dict.fromkeys((role_arn, self._operator, *self._storage.administrators))
            changed += ensure_statements(s3, bucket, silo_bucket_policy(self._identity, bucket, key, [*principals]))
        return key, changed

    def _guard_shared(self) -> list[str]:
        s3, key, changed = self.client("s3"), self._storage.kms_key, list[str]()
        for bucket in dict.fromkeys(urlsplit(url).netloc for url in shared_urls(self._settings) if url[:5] == "s3://"):
            changed += ensure_encryption(s3, bucket, key) if key else []
            if self._secure:
                changed += ensure_statements(s3, bucket, shared_bucket_policy(self._identity, bucket, key))
        return changed

    @property
    def _secure(self) -> bool:
        """Whether buckets are told to refuse plain transport: at an endpoint that has no other, not even we got in."""
        return not (self._options.endpoint_url or "").startswith("http://")

    def remove_silo(self) -> list[str]:
        if self._silo is None:
            return []
        gone = remove_bucket(self.client("s3"), self._silo)
        return gone + (remove_key(self.client("kms"), self.role) if self._storage.silo_keys else [])

    def _await_role(self) -> None:
        """Waits until a role that was just made can be assumed."""
        session, deadline = Session(self.role, Login(self._options, self._storage)), time.monotonic() + KNOWN_S
        while True:
            try:
                session.credentials()
                return
            except StorageUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
