"""What of the platform is running, and where."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import make_url

from infra import servers
from infra.database.cluster import connected_cluster
from infra.database.queue import Queue
from infra.isolation.policies import shared_urls
from infra.settings import Settings
from tasks.domain.errors import DatabaseUnavailable, OrchardError


def platform_status(settings: Settings, *, show_secrets: bool = False) -> dict[str, str | None]:
    """Addresses by name; None for what is not running. Passwords and logins are left out unless asked for."""
    try:
        cluster = connected_cluster(settings)
    except DatabaseUnavailable:
        cluster = None
    own = {
        "database_url": cluster.operator_url if cluster else None,
        "training_registry_uri": settings.training_registry_uri or (cluster.training_registry_url if cluster else None),
        "production_registry_uri": settings.production_registry_uri
        or (cluster.production_registry_url if cluster else None),
    }
    prefect = settings.prefect_api_url or _url(settings, "prefect")
    secrets = {"prefect_login": settings.prefect_auth(), "hook_secret": settings.hook_secret()}
    return {
        **{name: _address(url, show_secrets) for name, url in own.items()},
        "prefect_api_url": prefect,
        "prefect_ui_url": _page(prefect),
        "mlflow_training_url": _url(settings, "mlflow-training"),
        "mlflow_production_url": _url(settings, "mlflow-production"),
        "lake_url": settings.lake_url,
        "inbox_url": settings.inbox_url,
        "tenants_storage": _storage(settings),
        "api_url": _url(settings, "api"),
        "home": str(settings.home),
        **(secrets if show_secrets else {}),
    }


def _storage(settings: Settings) -> str:
    """How tenants' files are kept apart."""
    if not any(url.startswith("s3://") for url in (*shared_urls(settings), settings.silo_url)):
        return "folders of this machine"
    if settings.storage.roles:
        return f"a role per tenant, {settings.storage.role_prefix}…"
    return "ONE LOGIN OPENS EVERY TENANT'S FILES (ORCHARD_STORAGE__ROLES=false)"


def parts_status(settings: Settings) -> list[dict[str, object]]:
    """Each part of the platform: whether it is healthy, what watches over it, its process, since when, and what is
    wrong with it."""
    from deployments.supervision.health import health_of

    return [asdict(health) for health in health_of(settings)]


def held_jobs(settings: Settings) -> list[dict[str, object]]:
    """Use cases whose jobs wait until more may be spent on them, and why; nothing while the database is away, or is not
    prepared yet."""
    try:
        return Queue(connected_cluster(settings)).held()
    except OrchardError:
        return []


def _url(settings: Settings, name: str) -> str | None:
    server = servers.running(settings.home, name)
    return server.url if server else None


def _page(api_url: str | None) -> str | None:
    """Where people look at what the server of Prefect answers at that address; a cloud's pages are elsewhere."""
    return api_url.removesuffix("/api") if api_url and api_url.endswith("/api") else None


def _address(url: str | None, show_secrets: bool) -> str | None:
    return make_url(url).render_as_string(hide_password=not show_secrets) if url else None
