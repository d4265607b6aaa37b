"""Attacks on files: through the attacker's own space, by links in its own folder, with its own storage credentials."""

from infra.attacks.storage import clients, links, names, policies, steps, store, tables
from infra.attacks.storage.group import GROUP

__all__ = ["GROUP", "clients", "links", "names", "policies", "steps", "store", "tables"]
