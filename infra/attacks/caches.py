"""What a process remembers, when it works for both tenants: connections, files, tables, counts, models."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from sqlalchemy import text

from infra.attacks.attempt import Finding, Group, denied, succeeded, unproven
from infra.attacks.canary import Canary
from infra.attacks.scene import Scene
from infra.attacks.storage.tables import tables_of_both
from infra.database.connect import engine
from infra.space import TenantSpace, open_space

GROUP = Group("caches")

THREADS, TURNS = 8, 40


def _both(scene: Scene) -> tuple[tuple[TenantSpace, Canary], tuple[TenantSpace, Canary]]:
    return (scene.attacker, scene.mine), (scene.victim, scene.prey)


def _in_turns(scene: Scene, act: Callable[[TenantSpace, Canary], str | None]) -> Finding:
    """Threads act for both tenants in turns, all at once; what they say is what went wrong."""
    sides = _both(scene)
    gate = threading.Barrier(THREADS)

    def work(number: int) -> str | None:
        gate.wait(timeout=30)
        for turn in range(TURNS):
            if (wrong := act(*sides[(number + turn) % 2])) is not None:
                return wrong
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        wrong = [found for found in pool.map(work, range(THREADS)) if found is not None]
    return succeeded(wrong[0]) if wrong else denied(f"{THREADS} threads, {TURNS} turns each: everyone got its own")


@GROUP.attack("is given the victim's file while threads read for both")
def files_in_turns(scene: Scene) -> Finding:
    def read(space: TenantSpace, canary: Canary) -> str | None:
        found = space.files.read(canary.path)
        return None if found == canary.content else "one was given the file of the other"

    return _in_turns(scene, read)


@GROUP.attack("is given the victim's session while threads ask the database for both", quick=True)
def sessions_in_turns(scene: Scene) -> Finding:
    def ask(space: TenantSpace, _: Canary) -> str | None:
        with engine(space.records.url).connect() as connection:
            login = connection.scalar(text("SELECT session_user::text"))
        return None if login == f"tenant_{space.tenant.id}" else "one was given the session of the other"

    return _in_turns(scene, ask)


@GROUP.attack("is given the victim's rows while threads ask for the uploads of both")
def rows_in_turns(scene: Scene) -> Finding:
    own = {scene.attacker.tenant.id: scene.my_rows, scene.victim.tenant.id: scene.prey_rows}

    def ask(space: TenantSpace, _: Canary) -> str | None:
        expected = own[space.tenant.id]["uploads"]["upload_id"]
        found = {upload.upload_id for upload in space.records.uploads()}
        return None if expected in found and len(found & _ids(own)) == 1 else "one was given the uploads of the other"

    return _in_turns(scene, ask)


def _ids(rows: dict[str, dict[str, dict[str, Any]]]) -> set[str]:
    return {each["uploads"]["upload_id"] for each in rows.values()}


@GROUP.attack("uses the connection to the lake that was opened for the victim", quick=True)
def filesystem_instances(scene: Scene) -> Finding:
    """In both orders: whoever comes second must not get what was made for the first."""
    for first, second in ((scene.attacker, scene.victim), (scene.victim, scene.attacker)):
        opened = [space.location.filesystem() for space in (first, second)]
        if opened[0] is opened[1]:
            return succeeded("the second was given the connection of the first")
        keys = [(getattr(each, "key", None), getattr(each, "token", None)) for each in opened]
        if keys[0] == keys[1] and scene.prey_places.lake.local is None:
            return succeeded("both connections have the same credentials")
    return denied("every space makes a connection of its own")


@GROUP.attack("finds the victim's connection in the list of those that fsspec keeps")
def kept_filesystems(scene: Scene) -> Finding:
    import fsspec

    scene.victim.files.read(scene.prey.path)
    protocol = "file" if scene.prey_places.lake.local is not None else "s3"
    kept = list(fsspec.get_filesystem_class(protocol)._cache.values())
    used = scene.victim.location.filesystem()
    if any(each is used for each in kept):
        return succeeded("the victim's connection is among those that are kept for everybody")
    return denied(f"none of the {len(kept)} that are kept is a tenant's")


@GROUP.attack("is given the engine of the database that was made for the victim", quick=True)
def engines(scene: Scene) -> Finding:
    one, other = engine(scene.attacker.records.url), engine(scene.victim.records.url)
    if one is other:
        return succeeded("both use one pool of connections")
    with one.connect() as mine, other.connect() as theirs:
        logins = [each.scalar(text("SELECT session_user::text")) for each in (mine, theirs)]
    if logins != [f"tenant_{space.tenant.id}" for space, _ in _both(scene)]:
        return succeeded("a session belongs to another login")
    return denied("each has a pool of its own")


@GROUP.attack("leaves a setting in its connection for whoever gets that next")
def polluted_session(scene: Scene) -> Finding:
    for url in (scene.attacker.records.url, scene.victim.records.url):
        with engine(url).connect() as connection:
            if connection.scalar(text("SELECT current_setting('orchard.isolation', true)")):
                return succeeded("a setting of another session is there")
            connection.execute(text("SELECT set_config('orchard.isolation', 'canary', false)"))
    with engine(scene.victim.records.url).connect() as connection:
        # A connection serves one login alone, so what is left there can only meet its own tenant again.
        login = connection.scalar(text("SELECT session_user::text"))
        connection.execute(text("RESET orchard.isolation"))
    with engine(scene.attacker.records.url).connect() as connection:
        connection.execute(text("RESET orchard.isolation"))
    if login != f"tenant_{scene.victim.tenant.id}":
        return succeeded("the victim was given the connection of another login")
    return denied("no connection goes from one login to another")


@GROUP.attack("asks for a version of its table that the process remembers of the victim's")
def remembered_tables(scene: Scene) -> Finding:
    """Same use case, same version, same bucket: only the places differ."""
    with tables_of_both(scene) as (mine, theirs):
        seen = {}
        for table, canary in ((theirs, scene.prey), (mine, scene.mine), (theirs, scene.prey)):
            counts = table.partitions(0)
            rows = table.read(0, int(counts["bucket"].iloc[0]))
            seen[canary.tenant] = counts.to_string() + rows.to_string()
            others = scene.mine.marker if canary is scene.prey else scene.prey.marker
            if canary.marker not in seen[canary.tenant] or others in seen[canary.tenant]:
                return succeeded("one table is answered with what is in the other")
    return denied("what is remembered is remembered by the table's whole address")


@GROUP.attack("is handed a space that was pickled for the victim", quick=True)
def pickled_space(scene: Scene) -> Finding:
    sent = [pickle.loads(pickle.dumps(space)) for space, _ in _both(scene)]
    for space, (original, canary) in zip(sent, _both(scene), strict=True):
        if space.tenant != original.tenant or space.files.read(canary.path) != canary.content:
            return succeeded("a space came back as that of another tenant")
        with engine(space.records.url).connect() as connection:
            if connection.scalar(text("SELECT session_user::text")) != f"tenant_{original.tenant.id}":
                return succeeded("its records came back with another login")
    return denied("a space arrives as what was sent")


@GROUP.attack("finds secrets of the victim in what spaces print of themselves", quick=True)
def printed_space(scene: Scene) -> Finding:
    from sqlalchemy import make_url

    secrets = {str(make_url(scene.victim.records.url).password)}
    secrets |= {str(each) for each in (scene.victim.location.secret, scene.victim.location.token) if each}
    shown = f"{scene.victim!r} {scene.victim.records!r} {scene.victim.registry!r} {scene.victim.location!r}"
    found = [secret for secret in secrets if secret in shown]
    return succeeded(f"{len(found)} secrets are printed") if found else denied("passwords and tokens are left out")


@GROUP.attack("takes away the victim's scratch folder, or finds it")
def scratch_folders(scene: Scene) -> Finding:
    with scene.victim.scratch("isolation") as theirs:
        (theirs / "secret").write_text(scene.prey.marker)
        with scene.attacker.scratch("isolation") as mine:
            if mine == theirs:
                return succeeded("both work in one folder")
            if list(mine.iterdir()):
                return succeeded("a fresh folder is not empty")
        if not (theirs / "secret").exists():
            return succeeded("the victim's folder was taken for one that nobody works in")
    return denied("folders are new, locked by whoever works in them, and gone afterwards")


def _same_space(how: str, scene: Scene) -> Finding:
    """Opens a space anew after the other one."""
    for first, second in ((scene.victim, scene.attacker), (scene.attacker, scene.victim)):
        open_space(scene.settings, first.tenant.id)
        again = open_space(scene.settings, second.tenant.id)
        found = getattr(again, how)
        expected = getattr(second, how)
        if found != expected or found == getattr(first, how):
            return succeeded(f"the {how} of one is that of the other")
    return denied(f"the {how} of a space is its tenant's, whoever came before")


for _part in ("tenant", "location", "records", "registry"):
    GROUP.add(
        f"space-{_part}",
        f"opens its space after the victim's, and is given the victim's {_part}",
        partial(_same_space, _part),
    )


@GROUP.attack("finds the process pointed at the victim's registry")
def global_registry(scene: Scene) -> Finding:
    import mlflow

    from infra.registry.store import client

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    for space, _ in _both(scene):
        for uri in (space.registry.training_uri, space.registry.production_uri):
            client(uri).search_registered_models(max_results=1)
    after = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    login = f"tenant_{scene.victim.tenant.id}"
    if before != after or any(login in uri for uri in after):
        return succeeded("the process-wide address of a registry was set")
    return denied("addresses of registries are handed on, never set for the process")


@GROUP.attack("is given the victim's client of the registry")
def registry_clients(scene: Scene) -> Finding:
    from infra.registry.store import client

    addresses = set()
    for space, _ in _both(scene):
        for uri in (space.registry.training_uri, space.registry.production_uri):
            made = client(uri)
            if made._tracking_client.tracking_uri != uri or made._registry_uri != uri:
                return succeeded("one was given a client of another address")
            addresses.add(uri)
    if len(addresses) < 4:
        return unproven("tenants share one address of a registry, so that only names keep them apart there")
    return denied("each has clients of its own, with its own login")


@GROUP.attack("has its report mixed with the victim's while both files are validated")
def validators(scene: Scene) -> Finding:
    """Great Expectations keeps its assets by name for the whole process."""
    import pandas as pd

    from infra.attacks.canary import CANARY_USE_CASE
    from infra.attacks.storage.tables import upload_of
    from infra.validation import ExpectationsValidator
    from tasks.ports import UNPARSED

    def broken(space: TenantSpace, canary: Canary) -> set[int]:
        """Rows with a gap: one for the attacker, another one for the victim."""
        gap = 0 if space is scene.attacker else 1
        frame = pd.DataFrame({"key": ["a", "b"], "x": [1.0, 1.0], "y": [1.0, 1.0]})
        frame.loc[gap, "x"] = None
        frame[UNPARSED] = pd.Series([None, None], dtype="str")
        found = ExpectationsValidator(CANARY_USE_CASE, upload_of(canary.marker), space.files).check(frame)
        return set(found["row"])

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda side: broken(*side), _both(scene) * 3))
    if results != [{0}, {1}] * 3:
        return succeeded(f"the rows that are found broken are {results}")
    return denied("each report is about its own file")
