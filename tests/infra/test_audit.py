"""The audit: whatever is changed in it shows, and what was erased does not look like a change."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from infra import postgres as embedded
from infra.database.audit import Actor, Audit
from infra.database.audit_chain import FORGET, Anchor
from infra.database.cluster import Cluster, started_cluster
from infra.database.connect import transact
from infra.settings import load_settings
from tasks.domain.errors import InvalidDefinition

BY = Actor(who="operator:test", origin="cli")
ENTRIES = 6
"""So many are there before each attack: two of `acme`, two of `beta`, two of nobody."""


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A cluster of this module's own: the others' entries must stay whole."""
    with tempfile.TemporaryDirectory(prefix="orchard-test-") as folder:
        settings = load_settings(home=f"{folder}/home")
        try:
            yield started_cluster(settings)
        finally:
            embedded.stop(settings.home)


@pytest.fixture
def audit(own_cluster: Cluster) -> Audit:
    """An audit with a few entries, all from the beginning."""
    owner(own_cluster, "DELETE FROM audit_details", "DELETE FROM audit")
    audit = Audit(own_cluster)
    for number, tenant in enumerate(["acme", "beta", None, "acme", "beta", None]):
        audit.record("test", "done", by=BY, tenant=tenant, number=number, use_case="sales")
    return audit


def owner(cluster: Cluster, *statements: str) -> None:
    """What the owner of the database can do: with triggers off and the tables' bonds loosened."""
    off = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in ("audit", "audit_details")]
    on = [f"ALTER TABLE {table} ENABLE TRIGGER USER" for table in ("audit", "audit_details")]
    free = "ALTER TABLE audit_details DROP CONSTRAINT IF EXISTS audit_details_entry_fkey"

    def work(connection: object) -> None:
        for statement in (free, *off, *statements, *on):
            connection.execute(text(statement))  # type: ignore[attr-defined]

    transact(cluster.operator_url, work)


def test_what_is_recorded_is_found_again(audit: Audit) -> None:
    odd = {
        "count": 3,
        "flag": True,
        "none": None,
        "ids": ["a", "b"],
        "share": 0.1 + 0.2,
        "text": "\x00\ud800" + "x" * 999,
    }
    number = audit.record("test.odd", "refused", by=Actor(who="key:1", origin="api ::1"), tenant="acme", **odd)
    assert number == ENTRIES + 1
    found = audit.entries("acme")
    assert found["entry"].tolist() == [7, 4, 1]
    newest = found.iloc[0]
    assert (newest["action"], newest["outcome"], newest["tenant"]) == ("test.odd", "refused", "acme")
    assert (newest["actor"], newest["origin"]) == ("key:1", "api ::1")
    assert newest["details"]["ids"] == ["a", "b"]
    assert len(newest["details"]["text"]) == 500
    assert newest["subject"] == audit.subject("acme") != audit.subject("beta")
    assert audit.entries(action="test.odd")["entry"].tolist() == [7]
    assert audit.entries(since=datetime.now(UTC) + timedelta(hours=1)).empty
    assert audit.entries(since=newest["at"])["entry"].tolist() == [7]
    assert audit.entries(limit=2)["entry"].tolist() == [7, 6]
    assert audit.entries(before=6, limit=2)["entry"].tolist() == [5, 4]
    checked = audit.verify()
    assert (checked.entries, checked.wrong, checked.forgotten) == (7, None, 0)


names = st.text(max_size=9).filter(lambda name: name not in ("self", "action", "outcome", "by", "tenant", "once"))
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
nested = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.dictionaries(names, nested, max_size=4))
def test_any_details_verify(own_cluster: Cluster, details: dict[str, object]) -> None:
    audit = Audit(own_cluster)
    audit.record("test", "done", by=BY, **details)
    assert audit.verify().wrong is None


def test_an_empty_audit_is_right(own_cluster: Cluster) -> None:
    owner(own_cluster, "DELETE FROM audit_details", "DELETE FROM audit")
    checked = Audit(own_cluster).verify()
    assert (checked.entries, checked.last, checked.wrong) == (0, None, None)


def test_what_is_told_once_is_one_entry(audit: Audit) -> None:
    first = audit.record("upload", "done", by=BY, tenant="acme", once="upload/acme/u1")
    assert audit.record("upload", "done", by=BY, tenant="acme", once="upload/acme/u1") == first
    assert audit.record("upload", "done", by=BY, tenant="acme", once="upload/acme/u2") == first + 1


def test_nobody_changes_entries_by_mistake(own_cluster: Cluster, audit: Audit) -> None:
    for statement in (
        "UPDATE audit SET outcome = 'failed'", "DELETE FROM audit", "TRUNCATE audit CASCADE",
        "UPDATE audit_details SET actor = 'x'", "TRUNCATE audit_details",
    ):  # fmt: skip
        with pytest.raises(Exception, match="never changed"):
            transact(own_cluster.operator_url, lambda connection, s=statement: connection.execute(text(s)))


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ("UPDATE audit SET at = at + interval '1 microsecond' WHERE entry = 3", "entry 3 is not as it was written"),
        ("UPDATE audit SET subject = NULL WHERE entry = 2", "entry 2 is not as it was written"),
        ("UPDATE audit SET subject = repeat('0', 32) WHERE entry = 2", "entry 2 is not as it was written"),
        ("UPDATE audit SET action = 'other' WHERE entry = 4", "entry 4 is not as it was written"),
        ("UPDATE audit SET outcome = 'refused' WHERE entry = 1", "entry 1 is not as it was written"),
        ("UPDATE audit SET details_mac = repeat('0', 64) WHERE entry = 5", "entry 5 is not as it was written"),
        ("UPDATE audit SET mac = repeat('0', 64) WHERE entry = 6", "entry 6 is not as it was written"),
        ("UPDATE audit SET entry = 60 WHERE entry = 6", "entry 6 has details, and does not exist"),
        ("UPDATE audit_details SET tenant = 'beta' WHERE entry = 1", "details of entry 1 are not as they were"),
        ("UPDATE audit_details SET tenant = 'beta' WHERE entry = 3", "details of entry 3 are not as they were"),
        ("UPDATE audit_details SET actor = 'somebody' WHERE entry = 2", "details of entry 2 are not as they were"),
        ("UPDATE audit_details SET origin = 'moon' WHERE entry = 2", "details of entry 2 are not as they were"),
        ("UPDATE audit_details SET details = '{\"number\": 9}' WHERE entry = 2", "entry 2 are not as they were"),
        ("UPDATE audit_details SET details = '{}' WHERE entry = 2", "details of entry 2 are not as they were"),
        ("UPDATE audit_details SET token = 'x' WHERE entry = 2", "details of entry 2 are not as they were"),
        ("UPDATE audit_details SET entry = 99 WHERE entry = 2", "details of entry 2 are missing"),
        ("UPDATE audit_details SET entry = 99 WHERE entry = 6", "details of entry 6 are missing"),
        ("DELETE FROM audit_details WHERE entry = 5", "details of entry 5 are missing, and no erasure took them"),
        ("DELETE FROM audit_details", "details of entry 1 are missing, and no erasure took them"),
        ("DELETE FROM audit WHERE entry = 3", "entry 3"),
        ("DELETE FROM audit_details WHERE entry = 3; DELETE FROM audit WHERE entry = 3", "entry 3 is missing"),
        ("DELETE FROM audit_details WHERE entry = 1; DELETE FROM audit WHERE entry = 1", "entry 1 is missing"),
        ("DELETE FROM audit WHERE entry = 6", "entry 6 has details, and does not exist"),
        ("INSERT INTO audit SELECT 7, at, subject, action, outcome, details_mac, mac FROM audit WHERE entry = 6",
         "entry 7 is not as it was written"),
        ("UPDATE audit SET entry = -entry WHERE entry IN (2, 3); UPDATE audit SET entry = 5 + entry WHERE entry < 0",
         "entry 2 is not as it was written"),
        ("UPDATE audit_details SET entry = -entry WHERE entry IN (1, 4);"
         "UPDATE audit_details SET entry = 5 + entry WHERE entry < 0", "details of entry 1 are not as they were"),
    ],
)  # fmt: skip
def test_what_the_owner_of_the_database_changes_shows(
    own_cluster: Cluster, audit: Audit, change: str, wrong: str
) -> None:
    before = audit.verify()
    assert (before.entries, before.wrong) == (ENTRIES, None)
    owner(own_cluster, *change.split(";"))
    assert wrong in str(audit.verify().wrong)


def test_a_cut_tail_shows_by_an_anchor(own_cluster: Cluster, audit: Audit) -> None:
    anchor = audit.verify().last
    assert anchor is not None
    assert audit.verify(anchor).wrong is None
    cut = ("DELETE FROM audit_details WHERE entry > 4", "DELETE FROM audit WHERE entry > 4")
    owner(own_cluster, *cut)
    assert audit.verify().wrong is None  # the chain itself cannot know
    assert "entry 5 is missing, and all after it" in str(audit.verify(anchor).wrong)
    for _ in range(3):
        audit.record("test", "done", by=BY)
    assert audit.verify().wrong is None
    assert "entry 6 is not the one that the anchor names" in str(audit.verify(anchor).wrong)


def test_an_anchor_of_before_stays_good(audit: Audit) -> None:
    anchor = audit.verify().last
    audit.record("test", "done", by=BY)
    assert anchor is not None
    assert Anchor.parse(f" {anchor}\n") == anchor
    assert audit.verify(anchor).wrong is None
    for odd in ("", "1", "1:x", f"0:{'0' * 64}", f"{anchor}0", f"-{anchor}", f"{'9' * 30}:{'0' * 64}"):
        with pytest.raises(InvalidDefinition, match="no anchor"):
            Anchor.parse(odd)


def test_another_key_verifies_nothing(own_cluster: Cluster, audit: Audit) -> None:
    from pydantic import SecretStr

    other = Audit(Cluster(own_cluster.operator_url, SecretStr("another")))
    assert "entry 1 is not as it was written" in str(other.verify().wrong)
    assert other.subject("acme") != audit.subject("acme")


def test_an_erased_tenant_leaves_entries_without_details(own_cluster: Cluster, audit: Audit) -> None:
    anchor = audit.verify().last
    assert audit.forget("acme") == 2
    checked = audit.verify(anchor)
    assert (checked.entries, checked.forgotten, checked.wrong) == (ENTRIES + 1, 2, None)
    found = audit.entries("acme")
    assert found["entry"].tolist() == [7, 4, 1]
    assert found["action"].tolist() == [FORGET, "test", "test"]
    assert "acme" not in found.to_csv()
    assert found["details"].tolist()[0] == {"entries": 2}
    assert len(audit.entries("beta")) == 2
    assert audit.forget("acme") == 0
    assert audit.verify().entries == ENTRIES + 1
    # What comes later is not covered by it.
    audit.record("test", "done", by=BY, tenant="acme")
    owner(own_cluster, "DELETE FROM audit_details WHERE entry = 8")
    assert "details of entry 8 are missing" in str(audit.verify().wrong)


def test_whoever_comes_by_the_name_of_an_erased_tenant_sees_nothing_of_it(audit: Audit) -> None:
    audit.forget("acme")
    assert audit.own_entries("acme") == []
    audit.record("tenant.onboard", "done", by=BY, tenant="acme")
    assert [(each["number"], each["action"]) for each in audit.own_entries("acme")] == [(1, "tenant.onboard")]
    assert [each["action"] for each in audit.own_entries("beta")] == ["test", "test"]


def test_an_erasure_cannot_be_forged(own_cluster: Cluster, audit: Audit) -> None:
    audit.forget("acme")
    forged = "UPDATE audit SET subject = (SELECT subject FROM audit WHERE entry = 2) WHERE entry = 7"
    owner(own_cluster, "DELETE FROM audit_details WHERE tenant = 'beta'", forged)
    assert audit.verify().wrong is not None


def test_eight_writers_leave_no_gap(audit: Audit) -> None:
    def write(number: int) -> list[int]:
        return [audit.record("test", "done", by=BY, tenant=f"t{number}", number=each) for each in range(50)]

    with ThreadPoolExecutor(8) as threads:
        numbers = sorted(number for found in threads.map(write, range(8)) for number in found)
    assert numbers == list(range(ENTRIES + 1, ENTRIES + 401))
    checked = audit.verify()
    assert (checked.entries, checked.wrong) == (ENTRIES + 400, None)


def test_an_entry_goes_with_the_transaction_that_it_tells_of(own_cluster: Cluster, audit: Audit) -> None:
    def work(connection: object) -> None:
        audit.add(connection, "test", "done", by=BY, once="rolled back")  # type: ignore[arg-type]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        transact(own_cluster.operator_url, work)
    assert audit.verify().entries == ENTRIES
