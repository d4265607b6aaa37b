"""What of the platform is running, and where."""

from __future__ import annotations

from sqlalchemy import make_url

from infra import servers
from infra.database.cluster import connected_cluster
from infra.settings import Settings
from tasks.domain.errors import DatabaseUnavailable


def platform_status(settings: Settings, *, show_secrets: bool = False) -> dict[str, str | None]:
    """Addresses by name; None for what is not running. Passwords are left out unless asked for."""
    try:
        cluster = connected_cluster(settings)
    except DatabaseUnavailable:
        cluster = None
    prefect = servers.running(settings.home, "prefect")
    mlflow = {stage: servers.running(settings.home, f"mlflow-{stage}") for stage in ("training", "production")}
    own = {
        "database_url": cluster.operator_url if cluster else None,
        "training_registry_uri": settings.training_registry_uri or (cluster.training_registry_url if cluster else None),
        "production_registry_uri": settings.production_registry_uri
        or (cluster.production_registry_url if cluster else None),
    }
    return {
        **{name: _address(url, show_secrets) for name, url in own.items()},
        "prefect_api_url": settings.prefect_api_url or (prefect.url if prefect else None),
        "mlflow_training_url": mlflow["training"].url if mlflow["training"] else None,
        "mlflow_production_url": mlflow["production"].url if mlflow["production"] else None,
        "lake_url": settings.lake_url,
        "api_url": None,
        "home": str(settings.home),
    }


def _address(url: str | None, show_secrets: bool) -> str | None:
    return make_url(url).render_as_string(hide_password=not show_secrets) if url else None
