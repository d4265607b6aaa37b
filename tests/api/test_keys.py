"""API keys: made, listed, revoked, and never stored."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from deployments.api.keyring import Keyring
from infra.database.audit import Actor, Audit
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.keys import Keys, is_key
from infra.database.operator import Operator
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.errors import DatabaseUnavailable, InvalidDefinition, NotFound
from tests.cli.terminal import Terminal
from tests.samples import sample_tenant

NOWHERE = Keyring(Settings(database_url="postgresql://nobody:pw@127.0.0.1:1/none", secret_key="x"))
"""A keyring whose database does not exist: to ask it is to fail."""


@pytest.fixture
def tenant(operator: Operator, request: pytest.FixtureRequest) -> str:
    name = f"api-{request.node.name.removeprefix('test_').replace('_', '-')[:30].strip('-')}"
    operator.onboard(sample_tenant(name))
    return name


@pytest.fixture
def orchard(settings: Settings, postgres: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """The command line on this session's home."""
    monkeypatch.setenv("ORCHARD_HOME", str(settings.home))
    monkeypatch.setenv("COLUMNS", "200")
    with Terminal() as terminal:
        yield terminal


def tenant_of(keys: Keys, key: str) -> str | None:
    holder = keys.holder(key)
    return holder.tenant if holder is not None else None


def test_a_key_names_its_tenant_until_it_is_revoked(keys: Keys, tenant: str) -> None:
    key_id, key = keys.create(tenant, " export ")
    assert re.fullmatch(r"orc_[A-Za-z0-9_-]{43}", key)
    assert tenant_of(keys, key) == tenant
    (listed,) = keys.list(tenant)
    assert (listed.key_id, listed.name, listed.revoked_at) == (key_id, "export", None)
    revoked = keys.revoke(tenant, key_id)
    assert revoked.revoked_at is not None
    assert keys.holder(key) is None
    assert keys.revoke(tenant, key_id) == revoked  # a second call changes nothing
    assert [each.revoked_at for each in keys.list(tenant)] == [revoked.revoked_at]


def test_a_key_has_a_role_and_a_life(keys: Keys, tenant: str) -> None:
    for role in Role:
        _, key = keys.create(tenant, "export", role, timedelta(hours=1))
        holder = keys.holder(key)
        assert holder is not None
        assert (holder.role, holder.tenant) == (role, tenant)
        assert holder.expires_at == holder.created_at + timedelta(hours=1)
    _, key = keys.create(tenant, "short", life=timedelta(milliseconds=200))
    assert tenant_of(keys, key) == tenant
    time.sleep(0.25)
    assert keys.holder(key) is None
    for odd in (timedelta(0), timedelta(seconds=-1), timedelta(days=9999)):
        with pytest.raises(InvalidDefinition, match="no key lives so long"):
            keys.create(tenant, "export", life=odd)


def test_a_rotated_key_has_a_successor_like_it(keys: Keys, tenant: str) -> None:
    old_id, old = keys.create(tenant, "export", Role.READER, timedelta(hours=2))
    new_id, new = keys.rotate(tenant, old_id, timedelta(milliseconds=300))
    assert new_id != old_id
    before, after = keys.list(tenant)
    assert (after.key_id, after.name, after.role) == (new_id, "export", Role.READER)
    assert after.expires_at == after.created_at + timedelta(hours=2)
    assert before.expires_at == after.created_at + timedelta(milliseconds=300)
    assert tenant_of(keys, old) == tenant_of(keys, new) == tenant
    time.sleep(0.35)
    assert keys.holder(old) is None
    assert tenant_of(keys, new) == tenant
    with pytest.raises(InvalidDefinition, match="counts no more"):
        keys.rotate(tenant, old_id)
    assert len(keys.list(tenant)) == 2


def test_rotation_never_lengthens_a_life(keys: Keys, tenant: str) -> None:
    old_id, _ = keys.create(tenant, "export", life=timedelta(hours=1))
    keys.rotate(tenant, old_id, timedelta(days=1))
    old, _ = keys.list(tenant)
    assert old.expires_at == old.created_at + timedelta(hours=1)
    endless, key = keys.create(tenant, "endless")
    keys.rotate(tenant, endless, timedelta(0))
    assert keys.holder(key) is None
    assert keys.list(tenant)[-1].expires_at is None
    revoked, _ = keys.create(tenant, "revoked")
    keys.revoke(tenant, revoked)
    with pytest.raises(InvalidDefinition, match="counts no more"):
        keys.rotate(tenant, revoked)


def test_an_operators_key_is_nobodys(keys: Keys, tenant: str, postgres: Cluster) -> None:
    key_id, key = keys.create(None, "console", life=timedelta(days=1))
    assert re.fullmatch(r"orc_op_[A-Za-z0-9_-]{43}", key)
    holder = keys.holder(key)
    assert holder is not None
    assert (holder.tenant, holder.role, holder.who) == (None, Role.ADMIN, f"operator-key:{key_id}")
    assert key_id in [each.key_id for each in keys.list(None)]
    assert key_id not in [each.key_id for each in keys.list(tenant)]
    with pytest.raises(NotFound, match="has no key"):
        keys.revoke(tenant, key_id)
    new_id, new = keys.rotate(None, key_id, timedelta(0))
    assert keys.holder(key) is None
    assert keys.holder(new) is not None
    keys.revoke(None, new_id)
    assert keys.holder(new) is None
    with pytest.raises(NotFound, match="no operator has a key"):
        keys.revoke(None, keys.create(tenant, "export")[0])
    with pytest.raises(Exception, match="permission denied"):
        transact(postgres.tenant_url(tenant), lambda c: c.execute(text("SELECT * FROM operator_keys")).all())


def test_the_audit_knows_of_every_change(tenant: str, postgres: Cluster) -> None:
    keys = Keys(postgres, Actor(who="operator:test", origin="cli"))
    key_id, key = keys.create(tenant, "export", Role.ADMIN)
    new_id, _ = keys.rotate(tenant, key_id)
    keys.revoke(tenant, key_id)
    keys.revoke(tenant, key_id)
    audit = Audit(postgres)
    found = audit.entries(tenant).head(3)
    assert found["action"].tolist() == ["key.revoke", "key.rotate", "key.create"]
    assert found["actor"].unique().tolist() == ["operator:test"]
    revoked, rotated, created = found["details"]
    assert created == {"key_id": key_id, "role": "admin", "expires": False}
    assert rotated == {"key_id": new_id, "role": "admin", "replaces": key_id, "overlap_s": 86400}
    assert revoked == {"key_id": key_id}
    assert key not in str(found.to_dict())
    with pytest.raises(NotFound):
        keys.revoke(tenant, "odd")
    assert audit.entries(tenant, limit=1)["entry"].tolist() == found["entry"].tolist()[:1]


nearly = st.from_regex(r"orc_(op_)?[A-Za-z0-9_-]{0,60}", fullmatch=True) | st.from_regex(r"orc_.{43}", fullmatch=True)


odd = (st.text(max_size=50) | nearly).filter(lambda key: not is_key(key))


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.lists(odd, min_size=25, max_size=25))
@pytest.mark.slow
def test_ten_thousand_that_are_no_keys_are_refused_without_a_database(keys_: list[str]) -> None:
    for key in keys_:
        assert NOWHERE.holder(key) is None
        assert not NOWHERE.remembers(key)


def test_what_is_a_key_needs_one() -> None:
    for key in (f"orc_{'x' * 43}", f"orc_op_{'x' * 43}"):
        with pytest.raises(DatabaseUnavailable):
            NOWHERE.holder(key)


def test_only_a_digest_is_stored(keys: Keys, tenant: str, postgres: Cluster) -> None:
    _, key = keys.create(tenant, "export")
    query = text("SELECT row_to_json(k)::text AS row, digest FROM api_keys AS k WHERE tenant = :tenant")
    stored = transact(postgres.operator_url, lambda c: c.execute(query, {"tenant": tenant}).one())
    assert stored.digest == hashlib.sha256(key.encode()).hexdigest()
    assert key.removeprefix("orc_") not in stored.row


def test_tenants_themselves_see_no_keys(keys: Keys, tenant: str, postgres: Cluster) -> None:
    keys.create(tenant, "export")
    with pytest.raises(Exception, match="permission denied"):
        transact(postgres.tenant_url(tenant), lambda c: c.execute(text("SELECT * FROM api_keys")).all())


@pytest.mark.parametrize("key", ["", "orc_", "orc_" + "x" * 43, "x" * 47, "orc_" + "ü" * 43, "orc_" + "x" * 42 + "\0"])
def test_what_is_no_key_names_nobody(keys: Keys, key: str) -> None:
    assert keys.holder(key) is None


def test_mistakes_are_told(keys: Keys, tenant: str) -> None:
    for name in ("", "  ", "a\nb", "x" * 101):
        with pytest.raises(InvalidDefinition, match="no name for a key"):
            keys.create(tenant, name)
    with pytest.raises(NotFound, match="no tenant 'api-nobody'"):
        keys.create("api-nobody", "export")
    with pytest.raises(NotFound, match="no key 'odd'"):
        keys.revoke(tenant, "odd")


def test_a_key_is_revoked_by_its_own_tenants_name_only(keys: Keys, tenant: str, operator: Operator) -> None:
    key_id, key = keys.create(tenant, "export")
    operator.onboard(sample_tenant("api-other-keys"))
    with pytest.raises(NotFound):
        keys.revoke("api-other-keys", key_id)
    assert tenant_of(keys, key) == tenant


def test_the_commands(orchard: Terminal, keys: Keys, tenant: str) -> None:
    answer = orchard("keys", "create", tenant, "--name", "nightly").worked()
    assert tenant_of(keys, answer.out.strip()) == tenant
    assert "cannot be shown again" in answer.err
    made = orchard("keys", "create", tenant, "--name", "weekly", "--json").worked().json
    assert tenant_of(keys, made["key"]) == tenant
    listed = orchard("keys", "list", tenant, "--json").worked()
    assert [row["name"] for row in listed.json] == ["nightly", "weekly"]
    assert "orc_" not in listed.out
    assert "weekly" in orchard("keys", "list", tenant).worked().out
    assert made["key_id"] in orchard("keys", "revoke", tenant, made["key_id"]).worked().out
    assert orchard("keys", "revoke", tenant, made["key_id"], "--json").worked().json["revoked_at"]
    assert keys.holder(made["key"]) is None
    orchard("keys", "revoke", tenant, "odd").failed(2, "no key 'odd'", f"orchard keys list {tenant}")
    orchard("keys", "create", "api-nobody", "--name", "x").failed(2, "no tenant")
    orchard("keys", "create", tenant).failed(2, "--name")


def test_the_commands_for_roles_lives_and_rotation(orchard: Terminal, keys: Keys, tenant: str) -> None:
    words = ("keys", "create", tenant, "--name", "n", "--role", "reader", "--expires", "90d", "--json")
    made = orchard(*words).worked().json
    [listed] = orchard("keys", "list", tenant, "--json").worked().json
    assert (listed["key_id"], listed["role"]) == (made["key_id"], "reader")
    life = datetime.fromisoformat(listed["expires_at"]) - datetime.fromisoformat(listed["created_at"])
    assert life == timedelta(days=90)
    rotated = orchard("keys", "rotate", tenant, made["key_id"], "--overlap", "1h", "--json").worked().json
    assert rotated["replaces"] == made["key_id"]
    assert tenant_of(keys, rotated["key"]) == tenant_of(keys, made["key"]) == tenant
    assert [row["role"] for row in orchard("keys", "list", tenant, "--json").json] == ["reader", "reader"]
    by_default = orchard("keys", "rotate", tenant, rotated["key_id"]).worked().out.strip()
    assert tenant_of(keys, by_default) == tenant
    for odd in ("90", "d", "-1d", "1y", "9999999d", ""):
        orchard("keys", "create", tenant, "--name", "n", "--expires", odd).failed(2, "span of time")
    orchard("keys", "create", tenant, "--name", "n", "--expires", "99999d").failed(2, "no key lives so long")
    orchard("keys", "create", tenant, "--name", "n", "--role", "owner").failed(2, "owner")


def test_the_commands_for_operators_keys(orchard: Terminal, keys: Keys, tenant: str) -> None:
    made = orchard("keys", "create", "--operator", "--name", "console", "--json").worked().json
    holder = keys.holder(made["key"])
    assert holder is not None
    assert holder.tenant is None
    assert made["key_id"] in orchard("keys", "list", "--operator").worked().out
    rotated = orchard("keys", "rotate", made["key_id"], "--operator", "--overlap", "0s").worked()
    assert "of the operators" in rotated.err
    assert keys.holder(made["key"]) is None
    assert keys.holder(rotated.out.strip()) is not None
    assert "revoked" in orchard("keys", "revoke", "--operator", made["key_id"]).worked().out
    orchard("keys", "create", "--name", "x").failed(2, "--operator")
    orchard("keys", "create", tenant, "--operator", "--name", "x").failed(2, "--operator")
    orchard("keys", "create", "--operator", "--name", "x", "--role", "reader").failed(2, "--role")
    orchard("keys", "list").failed(2, "--operator")
    orchard("keys", "revoke", made["key_id"]).failed(2, "--operator")
    orchard("keys", "revoke", tenant, made["key_id"], "--operator").failed(2, "--operator")
