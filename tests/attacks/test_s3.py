"""The same on an object store that asks who is there: a role per tenant, and nothing else, keeps them apart."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from infra.attacks import caches, names, registry, storage
from infra.attacks.attempt import Group, Outcome
from infra.attacks.scene import Scene, prepared
from infra.database.operator import Operator
from infra.isolation.credentials import forget
from infra.isolation.roles import provide
from infra.lake.bucket import Bucket
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.settings import Settings
from tasks.domain.tenant import Isolation
from tests.attacks.conftest import attempt_of, attempts_of, tenant_of
from tests.isolation.store import Store, running_store

pytestmark = pytest.mark.slow

POOL, BRIDGE, SILO = Isolation
MakeScene = Callable[[Isolation, Isolation], AbstractContextManager[Scene]]

KNOWN = (
    "this store is moto, a simulator",  # conditions, sources of copies; the policy's text is judged instead
    "this store speaks nothing else",
    "this store does not know the call",
    "PostgreSQL tells every login",
)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_store() as running:
        yield running


@pytest.fixture(scope="module")
def on_s3(store: Store, settings: Settings) -> Settings:
    """The session's settings, but for the lake and the artifacts."""
    return store.settings(settings.home, "attacked", inbox_url="s3://attacked/inbox", silo_url="s3://attacked-silo")


@pytest.fixture
def scene(on_s3: Settings, operator: Operator, registries: None) -> Iterator[MakeScene]:
    @contextmanager
    def make(attacker: Isolation, victim: Isolation) -> Iterator[Scene]:
        tenants = [tenant_of(f"s3-{who}-{how}", how) for who, how in (("anna", attacker), ("bert", victim))]
        for tenant in tenants:
            operator.onboard(tenant)
            provide(on_s3, tenant)
        with prepared(on_s3, *(tenant.id for tenant in tenants)) as found:
            yield found

    forget()
    yield make
    forget()


@pytest.mark.parametrize(
    ("attacker", "victim"),
    [(POOL, POOL), *(pytest.param(*both, marks=pytest.mark.slow) for both in ((BRIDGE, SILO), (SILO, SILO)))],
)
def test_nothing_gets_through(scene: MakeScene, attacker: Isolation, victim: Isolation) -> None:
    with scene(attacker, victim) as prepared_scene:
        attempts = attempts_of(prepared_scene, storage.GROUP, registry.GROUP, names.GROUP, caches.GROUP)
    assert [each for each in attempts if each.got_through] == []
    unproven = [each for each in attempts if each.outcome is Outcome.UNPROVEN]
    assert [each for each in unproven if not each.why.startswith(KNOWN)] == []
    denied = {(each.group, each.name) for each in attempts if each.outcome is Outcome.DENIED}
    assert len(denied) > 250
    assert len([name for group, name in denied if name.startswith(("s3-", "sts-", "iam-", "kms-", "client-"))]) > 50


@contextmanager
def policy(store: Store, role: str, document: dict[str, Any]) -> Iterator[None]:
    """The role with another policy, for as long as the block lasts."""
    iam = store.client("iam")
    before = iam.get_role_policy(RoleName=role, PolicyName="folders")["PolicyDocument"]
    iam.put_role_policy(RoleName=role, PolicyName="folders", PolicyDocument=json.dumps(document))
    try:
        yield
    finally:
        iam.put_role_policy(RoleName=role, PolicyName="folders", PolicyDocument=json.dumps(before))


def widened(role: str, store: Store, prefix: str) -> dict[str, Any]:
    """The role's policy with a prefix that is too short by what comes after it."""
    document = store.client("iam").get_role_policy(RoleName=role, PolicyName="folders")["PolicyDocument"]
    text = json.dumps(document)
    assert f"{prefix}/*" in text
    widened: dict[str, Any] = json.loads(text.replace(f"{prefix}/*", f"{prefix}*"))
    return widened


def found(scene: Scene, group: Group, *attacks: str) -> dict[str, Outcome]:
    scene.kept.pop("policies", None)
    return {name: attempt_of(scene, group, name).outcome for name in attacks}


def test_a_prefix_without_its_slash(scene: MakeScene, store: Store) -> None:
    attacks = ("s3-sibling", "policy-beyond", "policy-getobject", "s3-list-own-beginning")
    with scene(POOL, POOL) as prepared_scene:
        mine = prepared_scene.attacker.location
        assert mine.role is not None
        with policy(store, mine.role, widened(mine.role, store, mine.prefix)):
            outcomes = found(prepared_scene, storage.GROUP, *attacks)
    assert outcomes == dict.fromkeys(attacks, Outcome.SUCCEEDED) | {"s3-list-own-beginning": Outcome.DENIED}


def test_a_policy_that_opens_all_tenants(scene: MakeScene, store: Store) -> None:
    attacks = (
        "s3-get", "s3-put", "s3-delete", "s3-copy-in", "s3-multipart", "s3-delete-many", "s3-copy-out",
        "s3-foreign-part", "client-files-read", "client-arrow-delete", "client-delta-write", "client-artifacts",
        "s3-list-victim", "s3-list-folders", "policy-beyond", "policy-deleteobject",
    )  # fmt: skip
    resources = ["arn:aws:s3:::attacked", "arn:aws:s3:::attacked/*"]
    statement = {"Effect": "Allow", "Action": ["s3:*"], "Resource": resources}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    with scene(POOL, POOL) as prepared_scene:
        role = prepared_scene.attacker.location.role
        assert role is not None
        with policy(store, role, document):
            outcomes = found(prepared_scene, storage.GROUP, *attacks)
            assert prepared_scene.unharmed()
    assert outcomes == dict.fromkeys(attacks, Outcome.SUCCEEDED)


def test_a_filesystem_that_is_shared(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As fsspec would keep it by itself, if the credentials were not among the arguments."""
    real, kept = Location.filesystem, dict[str, Any]()
    with scene(POOL, POOL) as prepared_scene, monkeypatch.context() as shared:
        shared.setattr(Location, "filesystem", lambda self: kept.setdefault("one", real(self)))
        outcomes = found(prepared_scene, caches.GROUP, "filesystem-instances")
    assert outcomes == {"filesystem-instances": Outcome.SUCCEEDED}


def test_the_roles_hold_alone(scene: MakeScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space's own check of paths is off: whatever a path leads to, the store refuses it."""
    attacks = [attack.name for attack in storage.names.GROUP if attack.name.startswith("read-")]
    attacks.remove("read-overlong")  # it is no text, and so no key
    attacks += ["write", "put", "delete", "take", "stamp", "replace", "local"]  # moto lets everybody list
    with scene(POOL, POOL) as prepared_scene, monkeypatch.context() as off:
        mine, theirs = prepared_scene.my_places.lake, prepared_scene.prey_places.lake
        real = Bucket._key

        def resolved(self: Bucket, path: Sequence[str]) -> str:
            """As a store, or a client, that takes `..` for what it is elsewhere."""
            return posixpath.normpath(real(self, path))

        off.setattr("infra.lake.files.names_in", lambda path: path.split("/"))
        off.setattr(Bucket, "_key", resolved)
        way = f"../{theirs.prefix.rpartition('/')[2]}/{prepared_scene.prey.path}"
        assert LakeFiles(mine)._store._key(way.split("/")) == prepared_scene.prey_file  # type: ignore[union-attr]
        outcomes = found(prepared_scene, storage.GROUP, *attacks)
    assert {name: outcome for name, outcome in outcomes.items() if outcome is not Outcome.DENIED} == {}
