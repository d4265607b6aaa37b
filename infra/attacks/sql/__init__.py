"""Attacks by SQL, with the attacker's own login. What a statement does is taken back at once."""

from infra.attacks.sql import logins, objects, oracles, roles, rows, server
from infra.attacks.sql.group import GROUP

__all__ = ["GROUP", "logins", "objects", "oracles", "roles", "rows", "server"]
