"""Attacks on models: by name and alias, in MLflow's tables, by sources and files that are not what they seem."""

from infra.attacks.registry import clients, files, names, tables
from infra.attacks.registry.group import GROUP

__all__ = ["GROUP", "clients", "files", "names", "tables"]
