"""Getting in where the attacker's login does not belong: other databases, other logins."""

from __future__ import annotations

from functools import partial

from sqlalchemy import make_url

from infra.attacks.attempt import Finding, Outcome, denied, succeeded, unproven
from infra.attacks.scene import Scene
from infra.attacks.sql.group import GROUP
from infra.attacks.sql.login import Shut, session
from infra.database.cluster import silo_database

ADMINISTRATORS = ("postgres", "template1")
"""Databases of the cluster that are its administrator's."""


def _let_in(url: str, **changes: str) -> Finding:
    try:
        with session(url, **changes) as connection:
            seen = connection.execute("SELECT session_user::text, current_database()").fetchone()
    except Shut as shut:
        return denied(str(shut))
    return succeeded(f"the session is {seen}")


def _database(name: str, scene: Scene) -> Finding:
    found = _unless_missing(scene, name)
    foreign = name in ADMINISTRATORS and scene.settings.database_url is not None
    if foreign and found.outcome is Outcome.SUCCEEDED:
        return unproven(f"{found.why}; Orchard may not close {name} on a server that is not its own")
    return found


def _unless_missing(scene: Scene, name: str) -> Finding:
    import psycopg

    try:
        return _let_in(scene.at(name))
    except psycopg.OperationalError as error:
        if f'database "{name}" does not exist' not in str(error):
            raise
        return denied(f"there is no database {name}")


for _database_name in (*ADMINISTRATORS, "prefect"):
    GROUP.add(
        f"connect-{_database_name}",
        f"connects to the database {_database_name} with its own login",
        partial(_database, _database_name),
    )


@GROUP.attack("connects to the victim's own database, which it has if it is a silo")
def connect_victims_database(scene: Scene) -> Finding:
    return _unless_missing(scene, silo_database(scene.victim.tenant.id))


def _as_victim(scene: Scene, password: str | None) -> Finding:
    url = make_url(scene.shared_door).set(username=f"tenant_{scene.victim.tenant.id}", password=password)
    return _let_in(url.render_as_string(hide_password=False))


@GROUP.attack("uses its own password for the victim's login", quick=True)
def victims_login_own_password(scene: Scene) -> Finding:
    return _as_victim(scene, make_url(scene.shared_door).password)


@GROUP.attack("guesses that the victim's password is its name")
def victims_login_its_name(scene: Scene) -> Finding:
    return _as_victim(scene, scene.victim.tenant.id)


@GROUP.attack("tries the victim's login without a password")
def victims_login_no_password(scene: Scene) -> Finding:
    import psycopg

    try:
        return _as_victim(scene, None)
    except psycopg.OperationalError as error:
        if "no password supplied" not in str(error):
            raise
        return denied(str(error).strip())


@GROUP.attack("uses its own password for the operator's login")
def operators_login_own_password(scene: Scene) -> Finding:
    login = make_url(scene.cluster.operator_url).username
    return _let_in(make_url(scene.shared_door).set(username=login).render_as_string(hide_password=False))


@GROUP.attack("asks for the stream of all changes, as a replica would")
def connect_as_replica(scene: Scene) -> Finding:
    import psycopg

    try:
        return _let_in(scene.shared_door, replication="database")
    except psycopg.OperationalError as error:
        if not any(sign in str(error) for sign in ("permission denied", "REPLICATION", "max_wal_senders")):
            raise
        return denied(str(error).strip())
