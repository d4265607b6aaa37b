"""Changing what tables, policies and views are; and tricks with rows that one table's policy alone does not stop."""

from __future__ import annotations

import json

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.scene import Scene
from infra.attacks.sql.group import GROUP, filled, forbid, powerless, silent
from infra.attacks.sql.login import BOUNDS, LET_THROUGH, PRIVILEGE, Refusal, Shut, say, session

for _name, _what, _statement in (
    ("disable-policies", "switches a table's policies off", "ALTER TABLE uploads DISABLE ROW LEVEL SECURITY"),
    ("unforce-policies", "exempts the owner from policies", "ALTER TABLE uploads NO FORCE ROW LEVEL SECURITY"),
    ("own-table", "takes a table over", "ALTER TABLE uploads OWNER TO CURRENT_USER"),
    ("create-policy", "adds a policy that lets everything in", "CREATE POLICY mine ON uploads USING (true)"),
    ("alter-policy", "widens a policy", "ALTER POLICY own_rows ON uploads USING (true)"),
    ("drop-policy", "removes a policy", "DROP POLICY own_rows ON uploads"),
    (
        "create-trigger",
        "has a function of its own run on the victim's writes",
        "CREATE TRIGGER mine BEFORE INSERT ON uploads EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ),
    ("create-rule", "has the victim's writes copied", "CREATE RULE mine AS ON INSERT TO uploads DO ALSO NOTHING"),
    ("create-table", "makes a table beside ours", "CREATE TABLE uploads_of_mine (tenant text)"),
    ("create-temporary-table", "hides a table behind one of its own", "CREATE TEMPORARY TABLE uploads (tenant text)"),
    ("create-view", "makes a view that reads with its owner's rights", "CREATE VIEW mine AS SELECT * FROM uploads"),
    (
        "alter-view",
        "has a view read with its owner's rights",
        "ALTER VIEW current_predictions SET (security_invoker = false)",
    ),
    (
        "create-function",
        "makes a function that runs with its owner's rights",
        "CREATE FUNCTION mine() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM uploads'",
    ),
    (
        "create-temporary-function",
        "makes a function for its session alone, to look into rows before policies do",
        "CREATE FUNCTION pg_temp.mine(text) RETURNS boolean LANGUAGE sql COST 0.0001 AS 'SELECT true'",
    ),
    ("create-schema", "makes a schema that names are looked up in first", "CREATE SCHEMA mine"),
    (
        "create-operator",
        "gives an operator a meaning of its own",
        "CREATE OPERATOR public.= (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text)",
    ),
    (
        "replace-refusal",
        "rewrites the function that guards the audit",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    ),
    ("edit-catalogue", "edits the catalogue by hand", "UPDATE pg_class SET relrowsecurity = false"),
    ("edit-policies", "edits policies in the catalogue", "DELETE FROM pg_policy"),
    ("drop-table", "drops a table", "DROP TABLE uploads"),
    ("truncate-table", "empties a table that all tenants share", "TRUNCATE predictions"),
    ("add-column", "adds a column", "ALTER TABLE uploads ADD mine text"),
    ("read-partition", "reads the victim's part of the predictions", 'SELECT * FROM "predictions_VICTIM"'),
    ("empty-partition", "empties the victim's part of the predictions", 'DELETE FROM "predictions_VICTIM"'),
    ("copy-partition", "copies the victim's part of the predictions", 'COPY "predictions_VICTIM" TO STDOUT'),
    (
        "detach-partition",
        "takes the victim's part out of the predictions",
        'ALTER TABLE predictions DETACH PARTITION "predictions_VICTIM"',
    ),
    (
        "attach-partition",
        "makes its own part that of the victim",
        "ALTER TABLE predictions ATTACH PARTITION \"predictions_ATTACKER\" FOR VALUES IN ('VICTIM')",
    ),
    ("publish", "publishes a table for replication", "CREATE PUBLICATION mine FOR TABLE uploads"),
    ("foreign-server", "connects the database to another", "CREATE FOREIGN DATA WRAPPER mine"),
    ("extension-dblink", "installs what opens connections from inside", "CREATE EXTENSION dblink"),
    ("extension-files", "installs what reads the server's files", "CREATE EXTENSION file_fdw"),
    ("reset-sequence", "turns back the numbers of runs", "SELECT setval('runs_run_id_seq', 1)"),
    ("next-of-sequence", "draws from the numbers of runs", "SELECT nextval('runs_run_id_seq')"),
    ("read-sequence", "reads how many runs there are of all tenants", "SELECT last_value FROM runs_run_id_seq"),
    ("reindex", "locks a table for a rebuild of its indexes", "REINDEX TABLE uploads"),
):
    forbid(_name, _what, _statement)

forbid(
    "partition-row",
    "loads a row of the victim into its own part of the predictions",
    'INSERT INTO "predictions_ATTACKER" (tenant, run_id, batch, partition, row_key, answer, fallback)'
    " VALUES ('VICTIM', 1, 1, 'x', 'x', 'own', false)",
    PRIVILEGE,
    BOUNDS,
)

for _name, _what, _statement in (
    (
        "lock-rows",
        "locks rows of the victim, so that its runs would wait",
        "SELECT * FROM uploads WHERE tenant = 'VICTIM' FOR UPDATE",
    ),
    (
        "merge-rows",
        "merges into rows of the victim",
        "MERGE INTO uploads AS u USING (SELECT 'VICTIM' AS tenant) AS s ON u.tenant = s.tenant"
        " WHEN MATCHED THEN UPDATE SET error = 'x'",
    ),
    (
        "delete-using-own-rows",
        "joins its own rows with the victim's and deletes those",
        "DELETE FROM runs AS theirs USING runs AS own WHERE own.tenant = 'ATTACKER' AND theirs.tenant = 'VICTIM'",
    ),
    (
        "update-returning",
        "has an update return what it touched",
        "UPDATE uploads SET status = status WHERE tenant = 'VICTIM' RETURNING *",
    ),
    (
        "modifying-cte",
        "reads what a deletion inside a query returns",
        "WITH gone AS (DELETE FROM health WHERE tenant = 'VICTIM' RETURNING *) SELECT * FROM gone",
    ),
    (
        "prepared-statement",
        "prepares a query before it changes its role",
        "PREPARE mine AS SELECT * FROM uploads WHERE tenant = 'VICTIM'; SET ROLE orchard_tenants; EXECUTE mine",
    ),
    (
        "cursor",
        "opens a cursor before it changes its role",
        "DECLARE mine CURSOR FOR SELECT * FROM uploads WHERE tenant = 'VICTIM'; SET ROLE orchard_tenants;"
        " FETCH ALL mine",
    ),
    (
        "lateral-join",
        "reaches the victim's rows from its own by a join",
        "SELECT theirs.* FROM use_cases AS own, LATERAL (SELECT * FROM runs WHERE tenant = 'VICTIM') AS theirs"
        " WHERE own.tenant = 'ATTACKER'",
    ),
):
    powerless(_name, _what, _statement)

for _name, _what, _statement in (
    (
        "query-to-xml",
        "has a query run inside a function",
        "SELECT query_to_xml('SELECT * FROM uploads', true, false, '')",
    ),
    ("table-to-xml", "has a whole table turned into XML", "SELECT table_to_xml('runs', true, false, '')"),
    ("schema-to-xml", "has all tables turned into XML", "SELECT schema_to_xml('public', true, false, '')"),
    (
        "anonymous-block",
        "reads in a block of code and tells by an error",
        "DO $$ BEGIN RAISE EXCEPTION '%', (SELECT string_agg(u::text, ' ') FROM uploads AS u); END $$",
    ),
    (
        "statistics-of-text",
        "has words of all rows counted",
        "SELECT * FROM ts_stat('SELECT to_tsvector(filename) FROM uploads')",
    ),
):
    silent(_name, _what, _statement)


@GROUP.attack("copies a whole table out")
def copy_out(scene: Scene) -> Finding:
    with session(scene.shared_door) as connection, connection.cursor().copy("COPY runs TO STDOUT") as rows:
        text = b"".join(bytes(chunk) for chunk in rows).decode()
    if any(line.startswith(f"{scene.victim.tenant.id}\t") for line in text.splitlines()):
        return succeeded("the copy has rows of the victim")
    return denied(f"the copy has {len(text.splitlines())} rows, none of them the victim's")


@GROUP.attack("moves a row of its own into the victim's name", quick=True)
def give_row_away(scene: Scene) -> Finding:
    for url in scene.doors:
        try:
            with session(url) as connection:
                statement = filled("UPDATE uploads SET tenant = 'VICTIM' WHERE tenant = 'ATTACKER'", scene)
                found = say(connection, statement, expected=(PRIVILEGE, *LET_THROUGH))
        except Shut:
            continue
        if isinstance(found, Refusal) and found.code in LET_THROUGH:
            return succeeded(f"{found.code}: only a constraint stopped it")
        if isinstance(found, Refusal):
            return denied(f"{found.code}: {found.message}")
        if found.touched:
            return succeeded(f"{found.touched} rows are the victim's now")
    return unproven("the attacker has no upload to give away")


@GROUP.attack("inserts the victim's row, and updates it where it is there already")
def upsert_row(scene: Scene) -> Finding:
    row = scene.prey_rows.get("uploads")
    if row is None:
        return unproven("the victim has no upload")
    statement = """
        INSERT INTO uploads SELECT * FROM jsonb_populate_record(NULL::uploads, %(row)s::jsonb)
        ON CONFLICT (tenant, upload_id) DO UPDATE SET error = 'x' RETURNING *
    """
    with session(scene.shared_door) as connection:
        found = say(connection, statement, {"row": json.dumps(row)})
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    return succeeded(f"{found.touched} rows")


@GROUP.attack("looks for functions that run with their owner's rights", quick=True)
def security_definers(scene: Scene) -> Finding:
    query = """
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE prosecdef AND has_function_privilege(oid, 'EXECUTE') AND proowner <> session_user::regrole
    """
    with session(scene.shared_door) as connection:
        found = [name for (name,) in connection.execute(query).fetchall()]
    if found:
        return succeeded(f"it may call {', '.join(found[:5])}")
    return denied("there is none that it may call")


@GROUP.attack("looks for views that read with their owner's rights", quick=True)
def owners_views(scene: Scene) -> Finding:
    query = """
        SELECT c.relname FROM pg_class AS c
        WHERE c.relkind IN ('v', 'm') AND c.relnamespace = 'public'::regnamespace
          AND has_table_privilege(c.oid, 'SELECT')
          AND NOT coalesce(c.reloptions && '{security_invoker=true,security_invoker=on}', false)
    """
    with session(scene.shared_door) as connection:
        found = [name for (name,) in connection.execute(query).fetchall()]
    if found:
        return succeeded(f"with their owner's rights it reads {', '.join(found)}")
    return denied("every view reads with the rights of who asks")
