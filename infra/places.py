"""Where the files of a tenant are: on the lake, and among the artifacts of the two registries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from infra.isolation.credentials import assume_by
from infra.lake.location import Location
from infra.lake.tagging import Tagging
from infra.settings import Settings
from tasks.domain.errors import InvalidDefinition
from tasks.domain.labels import Label
from tasks.domain.tenant import Isolation, Tenant, Tier


@dataclass(frozen=True)
class Places:
    """Three folders that are one tenant's alone, each with what opens it: on S3 the name of the tenant's role, which a
    process assumes when it uses them. They pickle, and carry no login of the platform."""

    lake: Location
    training_artifacts: Location
    production_artifacts: Location

    def all(self) -> tuple[Location, ...]:
        """The folders, for whoever has to grant, copy or remove all there is."""
        return (self.lake, self.training_artifacts, self.production_artifacts)


def places_of(settings: Settings, tenant: Tenant) -> Places:
    """The folders of a tenant, wherever its isolation puts them."""
    return places(settings, tenant.id, tenant.isolation or Isolation.POOL, tenant.tier)


def places(settings: Settings, tenant_id: str, isolation: Isolation, tier: Tier | None = None) -> Places:
    """The folders that a tenant has, or would have, in that isolation. What is written there is tagged with its tier
    where that is given."""
    if isolation is Isolation.SILO:
        root = _opened(settings, tenant_id, silo_url(settings, tenant_id), kms_key=None)  # its bucket knows its key
        if root.local is not None:
            root = Location(settings.silo_url).child(tenant_id)
        own = Places(root.child("lake"), root.child("artifacts", "training"), root.child("artifacts", "production"))
        return _tagged(settings, own, tenant_id, tier)
    lake, training, production = (
        _opened(settings, tenant_id, url, settings.storage.kms_key)
        for url in (settings.lake_url, settings.training_artifacts_url, settings.production_artifacts_url)
    )
    own = Places(lake.child("tenants", tenant_id), training.child(tenant_id), production.child(tenant_id))
    return _tagged(settings, own, tenant_id, tier)


def _tagged(settings: Settings, own: Places, tenant_id: str, tier: Tier | None) -> Places:
    labels = ((Label.TENANT, tenant_id), *(((Label.TIER, tier.value),) if tier is not None else ()))

    def tagged(place: Location, use_case_at: int) -> Location:
        if place.bucket is None or not settings.storage.tags:
            return place
        return replace(place, tagging=Tagging(labels, place.url, use_case_at))

    return Places(tagged(own.lake, 1), tagged(own.training_artifacts, 0), tagged(own.production_artifacts, 0))


def check_apart(settings: Settings, tenant_id: str) -> None:
    """Raises `InvalidDefinition` when the settings put the folders of several tenants into one another: where the lake
    and artifacts share a root, a tenant's name can be the name of somebody else's folder."""
    lake = f"{settings.lake_url.rstrip('/')}/tenants"
    roots = [lake, settings.training_artifacts_url, settings.production_artifacts_url, silo_url(settings, tenant_id)]
    for number, one in enumerate(roots):
        for other in roots[number + 1 :]:
            first, second = sorted((one.rstrip("/") + "/", other.rstrip("/") + "/"))
            if second.startswith(first):
                raise InvalidDefinition(
                    "the lake, the artifacts of the two registries and silos need places of their own",
                    expected="addresses of which none lies in another",
                    found=f"{one} and {other}",
                    hint="change ORCHARD_LAKE_URL, ORCHARD_..._ARTIFACTS_URL or ORCHARD_SILO_URL",
                )


def role_of(settings: Settings, tenant_id: str) -> str:
    """Name of a tenant's role."""
    return f"{settings.storage.role_prefix}{tenant_id}"


def _opened(settings: Settings, tenant_id: str, url: str, kms_key: str | None) -> Location:
    """A folder that the settings name, opened as the tenant: by its role, where there are roles."""
    location = Location.of(url, settings.lake_options)
    if location.bucket is None:
        return location
    if not settings.storage.roles:
        return replace(location, kms_key=kms_key)
    role = role_of(settings, tenant_id)
    assume_by(settings, role)
    return location.opened_by(role, kms_key)


def silo_url(settings: Settings, tenant_id: str) -> str:
    """Root of a silo: a folder below the settings' `silo_url` or, on S3, a bucket whose name begins with it."""
    url = settings.silo_url.rstrip("/")
    return f"{url}-{tenant_id}" if urlsplit(url).scheme == "s3" else f"{url}/{tenant_id}"
