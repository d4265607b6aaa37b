"""What the database tells without being asked: errors, keys, estimates, times, sizes, locks."""

from __future__ import annotations

import json
import statistics
import time
from functools import partial
from typing import Any

import psycopg
from sqlalchemy import text

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.scene import Scene, operator_urls
from infra.attacks.sql.group import GROUP, filled
from infra.attacks.sql.login import PRIVILEGE, Answer, Refusal, say, session
from infra.database.connect import transact

NOBODY = "isolation-nobody"
"""A tenant that there is not."""

UNIQUE, FOREIGN = "23505", "23503"
PATIENCE_S = 3.0


def _errs(statement: str, code: str, scene: Scene) -> Finding:
    """A condition that fails on rows which the login may not see tells that they are there."""
    with session(scene.shared_door) as connection:
        found = say(connection, filled(statement, scene), expected=(PRIVILEGE, code))
    if isinstance(found, Refusal) and found.code == code:
        return succeeded(f"{found.code}: the error tells of a row")
    return denied("the condition was not put to the victim's rows")


for _name, _what, _statement, _code in (
    (
        "error-division",
        "divides by zero where a row is the victim's",
        "SELECT count(*) FROM uploads WHERE 1 / (tenant <> 'VICTIM')::int = 1",
        "22012",
    ),
    (
        "error-cast",
        "has the victim's keys read as numbers, and quoted in the error",
        "SELECT count(*) FROM runs WHERE CASE WHEN tenant = 'VICTIM' THEN key::bigint > 0 END",
        "22P02",
    ),
    (
        "error-pattern",
        "takes the victim's text for a pattern that is wrong",
        "SELECT count(*) FROM uploads WHERE tenant = 'VICTIM' AND 'x' LIKE filename || E'\\\\'",
        "22025",
    ),
    (
        "error-in-view",
        "divides by zero where a row of a view is the victim's",
        "SELECT count(*) FROM run_receipts WHERE 1 / (tenant <> 'VICTIM')::int = 1",
        "22012",
    ),
):
    GROUP.add(_name, _what, partial(_errs, _statement, _code), quick=_name == "error-division")


def _key_is_free(table: str, column: str, scene: Scene) -> Finding:
    """A row of one's own under a key of the victim: whether it can be added must not depend on the victim."""
    theirs, own = scene.prey_rows.get(table), scene.my_rows.get(table)
    if theirs is None or own is None:
        return unproven(f"one of the two has no row of {table}")
    row = own | {column: theirs[column], "seq": -1}
    names = ", ".join(name for name in own if name != "run_id")
    statement = (
        f"INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, %(row)s::jsonb)"  # noqa: S608
    )
    with session(scene.attacker.records.url) as connection:
        found = say(connection, statement, {"row": json.dumps(row)}, expected=(UNIQUE,))
    if isinstance(found, Refusal):
        return succeeded(f"{found.code}: the key is taken, which tells that the victim has it")
    return denied("the same key can be used by each tenant")


for _table, _column in (("uploads", "upload_id"), ("runs", "key")):
    GROUP.add(
        f"key-of-{_table}",
        f"finds out whether the victim has a {_column} by using it itself",
        partial(_key_is_free, _table, _column),
    )


@GROUP.attack("finds out whether the victim has an upload by referring to it")
def foreign_key(scene: Scene) -> Finding:
    theirs, own = scene.prey_rows.get("uploads"), scene.my_rows.get("uploads")
    if theirs is None or own is None:
        return unproven("one of the two has no upload")
    statement = """
        INSERT INTO runs (tenant, key, use_case, stage, status, upload_id)
        VALUES (%(tenant)s, 'isolation-canary', %(use_case)s, 'monitoring', 'running', %(upload)s)
    """
    said = []
    with session(scene.attacker.records.url) as connection:
        for upload in (theirs["upload_id"], "0" * 32):
            values = {"tenant": own["tenant"], "use_case": own["use_case"], "upload": upload}
            found = say(connection, statement, values, expected=(FOREIGN,))
            said.append(found.message.replace(str(upload), "…") if isinstance(found, Refusal) else "accepted")
    if said[0] != said[1]:
        return succeeded(f"an upload of the victim is answered with {said[0]!r}, one of nobody with {said[1]!r}")
    return denied(f"both are answered with {said[0]!r}")


VOLUME = "PostgreSQL tells every login of a database how large its tables are, and nothing of what is in them: "
"""Why volumes are not defended where tables are shared; the threat model says so too."""


def _estimate(connection: psycopg.Connection[Any], table: str, tenant: str) -> Any:
    plan = say(connection, f"EXPLAIN (FORMAT JSON) SELECT * FROM {table} WHERE tenant = '{tenant}'")  # noqa: S608
    assert isinstance(plan, Answer)
    return plan.rows[0][0][0]["Plan"]["Plan Rows"], plan.rows[0][0][0]["Plan"]["Total Cost"]


@GROUP.attack("compares how many rows the planner expects of the victim and of nobody")
def planner_estimates(scene: Scene) -> Finding:
    tables = [name for name in ("uploads", "runs", "jobs", "partition_models", "health") if name in scene.prey_rows]
    for url in operator_urls(scene.cluster, scene.victim.tenant.id):
        transact(url, lambda c: [c.execute(text(f"ANALYZE {table}")) for table in tables])
    told = []
    with session(scene.shared_door) as connection:
        for table in tables:
            theirs, none = (_estimate(connection, table, each) for each in (scene.victim.tenant.id, NOBODY))
            if theirs != none:
                told.append(f"{table}: {theirs} against {none}")
    if told:
        return unproven(f"{VOLUME}(rows, cost) of the victim and of nobody differ: {'; '.join(told)}")
    return denied(f"of {', '.join(tables)} it expects the same of both")


@GROUP.attack("measures whether a key of the victim takes longer than one of nobody")
def timing(scene: Scene) -> Finding:
    theirs = scene.prey_rows.get("uploads")
    if theirs is None:
        return unproven("the victim has no upload")
    query = "SELECT count(*) FROM uploads WHERE tenant = %s AND upload_id = %s"
    keys = {"victim": str(theirs["upload_id"]), "nobody": "0" * 32}
    took: dict[str, list[float]] = {who: [] for who in keys}
    with session(scene.shared_door) as connection:
        for _ in range(300):
            for who, key in keys.items():
                started = time.perf_counter()
                connection.execute(query, (scene.victim.tenant.id, key)).fetchone()
                took[who].append(time.perf_counter() - started)
    medians = {who: statistics.median(times) * 1e6 for who, times in took.items()}
    shown = ", ".join(f"{who} {median:.0f} µs" for who, median in medians.items())
    slower = abs(medians["victim"] - medians["nobody"])
    if slower > 200 and slower > 0.5 * medians["nobody"]:
        return succeeded(f"the medians differ: {shown}")
    return denied(f"the medians of 300 do not tell them apart: {shown}")


SIZES = {
    "size-of-partition": (
        "reads how large the victim's part of the predictions is",
        "SELECT pg_relation_size('\"predictions_VICTIM\"'::regclass)",
    ),
    "rows-in-catalogue": (
        "reads how many predictions of the victim the catalogue knows of",
        "SELECT greatest(reltuples, 0) FROM pg_class WHERE relname = 'predictions_VICTIM'",
    ),
    "rows-in-statistics": (
        "reads how many predictions of the victim were written",
        "SELECT n_tup_ins FROM pg_stat_all_tables WHERE relname = 'predictions_VICTIM'",
    ),
    "work-of-database": (
        "reads how much the victim's own database has to do",
        "SELECT tup_inserted FROM pg_stat_database WHERE datname = 'tenant_VICTIM'",
    ),
}


def _size(statement: str, scene: Scene) -> Finding:
    with session(scene.shared_door) as connection:
        found = say(connection, filled(statement, scene))
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    told = [value for row in found.rows for value in row if value]
    if not told:
        return denied("nothing is told")
    return unproven(f"{VOLUME}it reads {told[0]:,}")


for _name, (_what, _statement) in SIZES.items():
    GROUP.add(_name, _what, partial(_size, _statement))
