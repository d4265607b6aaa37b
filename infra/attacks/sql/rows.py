"""Rows of another tenant, table by table: read, changed, removed, forged. Each table has its own policy and grants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from infra.attacks.attempt import Finding, Outcome, all_denied, denied, succeeded, unproven
from infra.attacks.scene import Scene
from infra.attacks.sql.group import GROUP
from infra.attacks.sql.login import LET_THROUGH, PRIVILEGE, Answer, Refusal, Shut, say, shared
from infra.database.price_tables import metadata

VIEWS = ("current_predictions", "model_health", "run_receipts", "tenant_costs")
TABLES = tuple(sorted(name for name, table in metadata.tables.items() if "tenant" in table.columns))
"""The tables that have rows of tenants; that they are all there are is an attack of its own."""

Connection = psycopg.Connection[tuple[Any, ...]]
Act = Callable[[Scene, Connection, str], Answer | Refusal]


def _count(scene: Scene, connection: Connection, relation: str) -> Answer | Refusal:
    query = sql.SQL("SELECT * FROM {} WHERE tenant = %(tenant)s LIMIT 3").format(sql.Identifier(relation))
    return say(connection, query, {"tenant": scene.victim.tenant.id})


def _change(scene: Scene, connection: Connection, relation: str) -> Answer | Refusal:
    column = _granted(connection, relation, "UPDATE")
    name = sql.Identifier(column[0] if column else "tenant")
    query = sql.SQL("UPDATE {} SET {} = {} WHERE tenant = %(tenant)s").format(sql.Identifier(relation), name, name)
    return say(connection, query, {"tenant": scene.victim.tenant.id})


def _remove(scene: Scene, connection: Connection, relation: str) -> Answer | Refusal:
    query = sql.SQL("DELETE FROM {} WHERE tenant = %(tenant)s").format(sql.Identifier(relation))
    return say(connection, query, {"tenant": scene.victim.tenant.id})


def _forge(scene: Scene, connection: Connection, relation: str) -> Answer | Refusal:
    """A row of the victim's once more: the policy speaks before any key does."""
    row = scene.prey_rows.get(relation, {"tenant": scene.victim.tenant.id})
    columns = [name for name in _granted(connection, relation, "INSERT") if name in row] or ["tenant"]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    query = sql.SQL(
        "INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, %(row)s::jsonb)"
    ).format(table=sql.Identifier(relation), names=names)
    found = say(connection, query, {"row": json.dumps(row)}, expected=(PRIVILEGE, *LET_THROUGH))
    if isinstance(found, Refusal) and found.code != PRIVILEGE:
        return Answer([(f"only a constraint stopped it: {found.code}",)], 1)
    return found


def _granted(connection: Connection, relation: str, what: str) -> list[str]:
    """Columns that this login may write."""
    query = """
        SELECT attname FROM pg_attribute
        WHERE attrelid = to_regclass(quote_ident(%(relation)s)) AND attnum > 0 AND NOT attisdropped
          AND attidentity <> 'a' AND has_column_privilege(attrelid, attnum, %(what)s) ORDER BY attnum
    """
    return [str(name) for (name,) in connection.execute(query, {"relation": relation, "what": what}).fetchall()]


def _everywhere(act: Act, relation: str, scene: Scene) -> Finding:
    """The act at every database that lets the attacker in."""
    return all_denied(_findings(act, relation, scene))


def _findings(act: Act, relation: str, scene: Scene) -> Iterator[Finding]:
    for url in scene.doors:
        try:
            with shared(scene, url) as connection:
                found = act(scene, connection, relation)
        except Shut as shut:
            yield denied(f"the login is not let in: {shut}")
            continue
        if isinstance(found, Refusal):
            yield denied(f"{found.code}: {found.message}")
        elif found.touched > 0:
            yield succeeded(f"{found.touched} rows of the victim")
        else:
            yield _nothing(scene, relation)


def _nothing(scene: Scene, relation: str) -> Finding:
    """What it means that no row was found."""
    if relation not in scene.prey_rows:
        return unproven("the victim has no row there")
    if relation not in scene.my_rows:
        return unproven("the attacker has no row there, so that it sees none proves nothing")
    return denied("no row of it is there for this login")


def _reads(relation: str, scene: Scene) -> Finding:
    found = _everywhere(_count, relation, scene)
    if found.outcome is Outcome.DENIED and found.why.startswith("no row"):
        return _sees_its_own(relation, scene) or found
    return found


def _sees_its_own(relation: str, scene: Scene) -> Finding | None:
    """None when the attacker sees rows of its own; otherwise its blindness is no proof."""
    own = sql.SQL("SELECT count(*) FROM {} WHERE tenant = %(tenant)s").format(sql.Identifier(relation))
    for url in scene.doors:
        try:
            with shared(scene, url) as connection:
                found = say(connection, own, {"tenant": scene.attacker.tenant.id})
        except Shut:
            continue
        if isinstance(found, Answer) and found.rows[0][0]:
            return None
    raise LookupError(f"the attacker does not see its own rows of {relation}")


for _relation in (*TABLES, *VIEWS):
    _shown = _relation.replace("_", "-")
    GROUP.add(f"read-{_shown}", f"reads rows of {_relation}", partial(_reads, _relation), quick=True)
for _relation in TABLES:
    _shown = _relation.replace("_", "-")
    for _verb, _done, _act in (
        ("change", f"changes rows of {_relation}", _change),
        ("remove", f"removes rows of {_relation}", _remove),
        ("forge", f"adds a row of {_relation} in the victim's name", _forge),
    ):
        GROUP.add(f"{_verb}-{_shown}", _done, partial(_everywhere, _act, _relation), quick=_verb == "forge")


@GROUP.attack("looks for tables that nobody has put under a policy", quick=True)
def read_unknown_tables(scene: Scene) -> Finding:
    known = {*TABLES, *VIEWS}
    unknown = sorted(scene.prey_rows.keys() - known)
    if not unknown:
        return denied(
            f"all of the {len(scene.prey_rows)} tables and views that hold rows of tenants were tried by name"
        )
    return all_denied(_everywhere(_count, relation, scene) for relation in unknown)
