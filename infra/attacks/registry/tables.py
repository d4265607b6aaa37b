"""MLflow's tables by SQL, with the attacker's login."""

from __future__ import annotations

from functools import partial

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.registry.clients import SHARED
from infra.attacks.registry.group import Models, add, operator_uris, shares_login
from infra.attacks.scene import Scene
from infra.attacks.sql.login import Refusal, Shut, say, session

OF_MODEL = ("registered_models", "model_versions", "model_version_tags", "registered_model_tags")
OF_EXPERIMENT = ("experiments", "experiment_tags", "runs")
OF_RUN = ("tags", "params", "metrics", "latest_metrics")

READS = [
    *(("training", table, "name = %(model)s") for table in OF_MODEL),
    *(("training", table, "experiment_id = %(experiment)s") for table in OF_EXPERIMENT),
    *(("training", table, "run_uuid = %(run)s") for table in OF_RUN),
    *(("production", table, "name = %(model)s") for table in (*OF_MODEL, "registered_model_aliases")),
]


def _url(scene: Scene, which: str) -> str:
    registry = scene.attacker.registry
    return registry.production_uri if which == "production" else registry.training_uri


def _values(models: Models) -> dict[str, object]:
    prey = models.prey
    return {"model": prey.name, "experiment": int(prey.experiment), "run": prey.run, "mine": models.mine.name}


def _read(which: str, table: str, condition: str, scene: Scene, models: Models) -> Finding:
    if shares_login(scene):
        return unproven(SHARED)
    query = f"SELECT * FROM {table} WHERE {condition}"  # noqa: S608  # names of ours
    operator = operator_uris(scene)[1 if which == "production" else 0]
    with session(operator) as own:
        there = say(own, query, _values(models))
    if isinstance(there, Refusal) or not there.rows:
        raise LookupError(f"nothing is planted in {table}")
    try:
        with session(_url(scene, which)) as connection:
            found = say(connection, query, _values(models))
    except Shut as shut:
        return denied(f"the login is not let in: {shut}")
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    return (
        succeeded(f"it reads {len(found.rows)} rows of the victim")
        if found.rows
        else denied("no row of the victim is there for it")
    )


for _which, _table, _condition in READS:
    add(
        f"sql-{_which}-{_table.replace('_', '-')}",
        f"reads {_table} of the {_which} registry by SQL",
        partial(_read, _which, _table, _condition),
    )

WRITES = {
    "source": (
        "points the victim's release at its own files",
        "UPDATE model_versions SET source = 'file:///x' WHERE name = %(model)s",
    ),
    "digest": (
        "changes the digest that the victim's release is checked against",
        "UPDATE model_version_tags SET value = 'x' WHERE name = %(model)s",
    ),
    "move-alias": (
        "moves the victim's champion",
        "UPDATE registered_model_aliases SET version = 9 WHERE name = %(model)s",
    ),
    "drop-model": ("deletes the victim's model", "DELETE FROM registered_models WHERE name = %(model)s"),
    "give-version": (
        "makes its own version one of the victim's",
        "UPDATE model_versions SET name = %(model)s, version = 99 WHERE name = %(mine)s",
    ),
    "forge-alias": (
        "adds an alias to the victim's model",
        "INSERT INTO registered_model_aliases (name, alias, version) VALUES (%(model)s, 'challenger', 1)",
    ),
    "forge-version": (
        "adds a version to the victim's model",
        "INSERT INTO model_versions (name, version, source) VALUES (%(model)s, 99, 'file:///x')",
    ),
    "forge-tag": (
        "tags the victim's model",
        "INSERT INTO registered_model_tags (name, key, value) VALUES (%(model)s, 'mine', 'x')",
    ),
    "open-tables": ("switches policies off", "ALTER TABLE model_versions DISABLE ROW LEVEL SECURITY"),
}
"""What is tried in the production registry."""

TRAINING_WRITES = {
    "forge-param": (
        "adds a parameter to a run of the victim",
        "INSERT INTO params (run_uuid, key, value) VALUES (%(run)s, 'mine', 'x')",
    ),
    "steal-run": ("takes a run of the victim over", "UPDATE runs SET experiment_id = 0 WHERE run_uuid = %(run)s"),
    "drop-run": ("deletes a run of the victim", "DELETE FROM runs WHERE run_uuid = %(run)s"),
    "shared-run": (
        "leaves a run where all tenants look",
        "INSERT INTO runs (run_uuid, experiment_id) VALUES (md5('x'), 0)",
    ),
    "shared-tag": (
        "leaves a tag where all tenants look",
        "INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('mine', 'x', 0)",
    ),
}
"""What is tried in the training registry."""


def _write(which: str, statement: str, scene: Scene, models: Models) -> Finding:
    if shares_login(scene):
        return unproven(SHARED)
    try:
        with session(_url(scene, which)) as connection:
            found = say(connection, statement, _values(models))
    except Shut as shut:
        return denied(f"the login is not let in: {shut}")
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    return succeeded(f"{found.touched} rows") if found.touched > 0 else denied("no row of the victim is there for it")


for _which, _writes in (("production", WRITES), ("training", TRAINING_WRITES)):
    for _name, (_what, _statement) in _writes.items():
        add(f"sql-{_name}", f"{_what}, by SQL in the registry", partial(_write, _which, _statement))

OPEN_TABLES = """
    SELECT c.relname FROM pg_class AS c
    WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relnamespace = 'public'::regnamespace
      AND c.relname <> 'alembic_version' AND NOT c.relrowsecurity
      AND (has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE') OR has_any_column_privilege(c.oid, 'SELECT'))
"""


def _open_tables(scene: Scene, _: Models) -> Finding:
    if shares_login(scene):
        return unproven(SHARED)
    found = []
    for which in ("training", "production"):
        with session(_url(scene, which)) as connection:
            found += [f"{which}: {name}" for (name,) in connection.execute(OPEN_TABLES).fetchall()]
    return (
        succeeded(f"without a policy: {', '.join(found)}") if found else denied("every table it may use has a policy")
    )


add("open-tables", "looks for tables of MLflow's that no policy covers", _open_tables)
