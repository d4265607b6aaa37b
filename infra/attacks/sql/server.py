"""The server beneath: its files and programs, other sessions, large objects, statistics, messages."""

from __future__ import annotations

from functools import partial

from sqlalchemy import text

from infra.attacks.attempt import Finding, denied, succeeded
from infra.attacks.scene import Scene
from infra.attacks.sql.group import GROUP, forbid, secrets_of, silent
from infra.attacks.sql.login import Refusal, say, session
from infra.database.connect import transact

for _name, _what, _statement in (
    ("read-file", "reads a file of the server", "SELECT pg_read_file('postgresql.conf')"),
    ("list-files", "lists the server's files", "SELECT pg_ls_dir('.')"),
    ("stat-file", "asks for a file's size", "SELECT pg_stat_file('postgresql.conf')"),
    ("list-log", "lists the server's log", "SELECT pg_ls_logdir()"),
    ("copy-to-file", "copies into a file of the server", "COPY (SELECT 1) TO '/tmp/isolation-canary'"),
    ("copy-to-program", "runs a program on the server", "COPY (SELECT 1) TO PROGRAM 'cat'"),
    ("import-large-object", "loads a file of the server", "SELECT lo_import('/etc/hostname')"),
    ("export-large-object", "writes a file on the server", "SELECT lo_export(1, '/tmp/isolation-canary')"),
    ("passwords", "reads the verifiers of passwords", "SELECT rolpassword FROM pg_authid"),
    ("shadow", "reads the verifiers of passwords through a view", "SELECT passwd FROM pg_shadow"),
    ("host-rules", "reads who may connect from where", "SELECT * FROM pg_hba_file_rules"),
    ("file-settings", "reads the server's settings files", "SELECT * FROM pg_file_settings"),
    ("raw-statistics", "reads values that the planner keeps of columns", "SELECT stavalues1 FROM pg_statistic"),
    ("raw-large-objects", "reads the pages of large objects", "SELECT data FROM pg_largeobject"),
    (
        "replication-slot",
        "follows all changes by a slot",
        "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')",
    ),
    ("reset-statistics", "resets the server's statistics", "SELECT pg_stat_reset()"),
    ("reload-settings", "has the server read its settings anew", "SELECT pg_reload_conf()"),
    ("load-library", "loads a library into its session", "LOAD 'auto_explain'"),
    ("log-setting", "has statements of its choice logged", "SET log_min_messages = debug5"),
    ("database-settings", "changes what all sessions begin with", "ALTER DATABASE orchard SET row_security = off"),
):
    forbid(_name, _what, _statement)

forbid(
    "alter-system",
    "changes a setting of the server",
    "ALTER SYSTEM SET application_name = 'isolation-canary'",
    transaction=False,  # no transaction may hold it; it would change nothing that anybody needs
)
silent(
    "planner-statistics",
    "reads frequent values that the planner knows of",
    "SELECT * FROM pg_stats WHERE tablename IN ('uploads', 'runs')",
)


@GROUP.attack("reads what the victim's session is doing")
def others_queries(scene: Scene) -> Finding:
    with session(scene.victim.records.url) as theirs, session(scene.shared_door) as connection:
        theirs.execute("SELECT 'isolation-canary' AS secret")
        query = "SELECT query FROM pg_stat_activity WHERE usename = %(login)s AND query LIKE %(like)s"
        values = {"login": f"tenant_{scene.victim.tenant.id}", "like": "%isolation-canary%"}
        found = say(connection, query, values)
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    return (
        succeeded(f"it reads {len(found.rows)} queries")
        if found.rows
        else denied("the text of other logins' queries is hidden")
    )


def _signal(function: str, scene: Scene) -> Finding:
    with session(scene.victim.records.url) as theirs, session(scene.shared_door) as connection:
        found = say(connection, f"SELECT {function}(%(pid)s)", {"pid": theirs.info.backend_pid})
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    return succeeded("the server did it")


for _function, _what in (
    ("pg_cancel_backend", "cancels what the victim's session is doing"),
    ("pg_terminate_backend", "ends the victim's session"),
):
    GROUP.add(_function.replace("_", "-"), _what, partial(_signal, _function))


def _large_object(statement: str, scene: Scene) -> Finding:
    """One of the victim's own, made within its session and taken back with it."""
    with session(scene.victim.records.shared_url or scene.victim.records.url) as theirs:
        oid = theirs.execute("SELECT lo_from_bytea(0, convert_to(%s, 'UTF8'))", (scene.prey.marker,)).fetchone()
        assert oid is not None
        try:
            with session(scene.shared_door) as connection:
                found = say(connection, statement, {"oid": oid[0]})
        finally:
            theirs.execute("SELECT lo_unlink(%s)", oid)
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    return succeeded("the server did it")


for _name, _what, _statement in (
    ("read-large-object", "reads a large object of the victim", "SELECT lo_get(%(oid)s)"),
    ("write-large-object", "writes into a large object of the victim", "SELECT lo_put(%(oid)s, 0, 'x')"),
    ("remove-large-object", "removes a large object of the victim", "SELECT lo_unlink(%(oid)s)"),
    ("open-large-object", "opens a large object of the victim", "SELECT lo_open(%(oid)s, 262144)"),
):
    GROUP.add(_name, _what, partial(_large_object, _statement))


@GROUP.attack("listens to messages that go by names it can guess while the victim's rows change")
def listen(scene: Scene) -> Finding:
    channels = ("orchard", "jobs", "uploads", "runs", "events", "dispatch", scene.victim.tenant.id)
    touch = text("UPDATE jobs SET error = error WHERE job_id = (SELECT max(job_id) FROM jobs WHERE tenant = :tenant)")
    with session(scene.shared_door) as connection:
        for channel in channels:
            connection.execute(f'LISTEN "{channel}"')
        values = {"tenant": scene.victim.tenant.id}
        transact(scene.cluster.operator_url, lambda operator: operator.execute(touch, values))
        heard = [message.payload for message in connection.notifies(timeout=0.2)]
    if heard:
        return succeeded(f"it hears {len(heard)} messages")
    return denied("nothing is told to whoever listens")


@GROUP.attack("reads the names and settings of the victim's login")
def role_settings(scene: Scene) -> Finding:
    query = (
        "SELECT setconfig::text FROM pg_db_role_setting JOIN pg_roles AS r ON r.oid = setrole WHERE r.rolname = %(r)s"
    )
    with session(scene.shared_door) as connection:
        found = say(connection, query, {"r": f"tenant_{scene.victim.tenant.id}"})
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    leaks = [value for value in secrets_of(scene) if value in str(found.rows)]
    return (
        succeeded(f"it reads {len(leaks)} values of the victim's")
        if leaks
        else denied("nothing of the victim is kept there")
    )
