"""What the registries say of a tenant's models, as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.registry.registry import MlflowRegistry
from infra.registry.removal import Entries, entries_of


def releases_of(registry: MlflowRegistry) -> Iterator[tuple[str, int, str]]:
    """Every release: use case, version, address of its MLflow model folder."""
    for version in entries_of(registry.production_uri, registry.tenant).versions:
        yield version.name.partition(".")[2], int(version.version), version.source


def described(registry: MlflowRegistry) -> dict[str, Any]:
    """Models, versions and runs of both registries with their tags, aliases, parameters and metrics."""
    return {
        name: _described(entries_of(uri, registry.tenant))
        for name, uri in (("training", registry.training_uri), ("production", registry.production_uri))
    }


def _described(entries: Entries) -> dict[str, Any]:
    return {
        "models": [
            {"name": each.name, "description": each.description, "tags": each.tags, "aliases": each.aliases}
            for each in entries.models
        ],
        "versions": [
            {
                "name": each.name,
                "version": int(each.version),
                "created_ms": each.creation_timestamp,
                "source": each.source,
                "run_id": each.run_id or None,
                "tags": each.tags,
            }
            for each in entries.versions
        ],
        "runs": [
            {
                "run_id": each.info.run_id,
                "name": each.info.run_name,
                "status": each.info.status,
                "started_ms": each.info.start_time,
                "ended_ms": each.info.end_time,
                "params": each.data.params,
                "metrics": each.data.metrics,
                "tags": each.data.tags,
            }
            for each in entries.runs
        ],
    }
