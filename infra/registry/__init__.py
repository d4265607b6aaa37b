"""The training and production registries: MLflow behind the `Registry` port, for one tenant at a time."""

from infra.registry.registry import MlflowRegistry
from infra.registry.store import initialise_registry

__all__ = ["MlflowRegistry", "initialise_registry"]
