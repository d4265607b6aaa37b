"""The group of attacks by SQL, and the two kinds of statement that most of them are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from infra.attacks.attempt import Finding, Group, all_denied, denied, succeeded
from infra.attacks.scene import Scene
from infra.attacks.sql.login import PRIVILEGE, UNSUPPORTED, Refusal, Shut, forbidden, say, shared

GROUP = Group("sql")


def filled(statement: str, scene: Scene) -> str:
    """The statement with the names of the two tenants; ids hold nothing that would have to be quoted."""
    return statement.replace("VICTIM", scene.victim.tenant.id).replace("ATTACKER", scene.attacker.tenant.id)


def forbid(name: str, what: str, statement: str, *codes: str, transaction: bool = True, quick: bool = False) -> None:
    """Adds a statement that the database must refuse with one of the SQLSTATEs, by default for want of a privilege."""
    GROUP.add(name, what, partial(_forbidden, statement, codes, transaction), quick=quick)


def _forbidden(statement: str, codes: tuple[str, ...], transaction: bool, scene: Scene) -> Finding:
    return forbidden(scene, scene.shared_door, filled(statement, scene), *codes, transaction=transaction)


def powerless(name: str, what: str, statement: str, *, quick: bool = False) -> None:
    """Adds statements, the last of which looks for rows of the victim: it must be refused or find none."""
    GROUP.add(name, what, partial(_powerless, statement), quick=quick)


def _powerless(statement: str, scene: Scene) -> Finding:
    return all_denied(_finds(filled(statement, scene), url, scene) for url in scene.doors)


def _finds(statement: str, url: str, scene: Scene) -> Finding:
    try:
        with shared(scene, url) as connection:
            found = say(connection, statement)
    except Shut as shut:
        return denied(f"the login is not let in: {shut}")
    if isinstance(found, Refusal):
        return denied(f"{found.code}: {found.message}")
    if found.touched > 0 or found.rows:
        return succeeded(f"{found.touched} rows of the victim")
    return denied("no row of the victim is there for this login")


def silent(name: str, what: str, statement: str) -> None:
    """Adds statements whose answer, a text or an error, must not hold a value of the victim's rows."""
    GROUP.add(name, what, partial(_silent, statement))


ANY = (PRIVILEGE, UNSUPPORTED, "P0001")
"""Refusals, and what a block of code raises: their texts are looked through."""


def _silent(statement: str, scene: Scene) -> Finding:
    return all_denied(_tells(filled(statement, scene), url, scene) for url in scene.doors)


def _tells(statement: str, url: str, scene: Scene) -> Finding:
    try:
        with shared(scene, url) as connection:
            found = say(connection, statement, expected=ANY)
    except Shut as shut:
        return denied(f"the login is not let in: {shut}")
    text = found.message if isinstance(found, Refusal) else str(found.rows)
    leaks = [value for value in secrets_of(scene) if value in text]
    if leaks:
        return succeeded(f"the answer holds {len(leaks)} values of the victim's")
    return denied(f"nothing of the victim is in the {len(text)} characters that are answered")


def secrets_of(scene: Scene) -> Iterator[str]:
    """Values that stand in rows of the victim alone."""
    rows = scene.prey_rows
    for table, column in (
        ("uploads", "upload_id"),
        ("runs", "key"),
        ("predictions", "row_key"),
        ("releases", "digest"),
    ):
        if table in rows and len(str(rows[table][column])) >= 16:
            yield str(rows[table][column])
    yield scene.prey.marker
