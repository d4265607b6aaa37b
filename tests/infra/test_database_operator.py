"""What only the operator does: onboarding, and looking across tenants."""

from __future__ import annotations

import pickle

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from infra.database.audit import Actor, Audit
from infra.database.connect import engine, transact
from infra.database.operator import Operator
from infra.database.records import PostgresRecords
from tasks.domain.errors import InvalidDefinition, NotFound
from tasks.domain.job import JobKind
from tasks.domain.names import Purpose, Stage
from tasks.domain.tenant import Isolation, Tier
from tests.conftest import MakeRecords
from tests.samples import SALES, sales_use_case, sample_tenant


def test_onboarding_twice_changes_nothing(operator: Operator) -> None:
    tenant = sample_tenant("9-shops-of-mine")
    pooled = tenant.model_copy(update={"isolation": Isolation.POOL})
    expected = ["tenant 9-shops-of-mine: new", "use case sales: new"]
    assert operator.changes(tenant) == expected
    assert operator.onboard(tenant) == expected
    assert operator.changes(tenant) == []
    assert operator.onboard(tenant) == []
    assert operator.tenant(tenant.id) == pooled
    assert pooled in operator.tenants()


def test_a_tenant_gets_a_key_of_its_own_once_and_only_the_operator_reads_it(
    operator: Operator, make_records: MakeRecords
) -> None:
    silo = sample_tenant("keeper").model_copy(update={"isolation": Isolation.SILO})
    records = [make_records("holder"), make_records(silo)]
    keys = [operator.pseudonyms(each.tenant) for each in records]
    assert len({each.key for each in keys}) == 2
    operator.onboard(sample_tenant("holder", tier=Tier.PREMIUM))
    operator.onboard(silo.model_copy(update={"name": "Another"}))
    assert [operator.pseudonyms(each.tenant) for each in records] == keys
    query = text("SELECT personal_key FROM tenant_secrets")
    assert transact(operator.cluster.silo_url("keeper"), lambda c: c.scalars(query).all()) == [], "there is one key"
    for each in records:
        with pytest.raises(ProgrammingError, match="permission denied"):
            transact(each.url, lambda c: c.execute(query))
    with pytest.raises(NotFound, match="nobody"):
        operator.pseudonyms("nobody")


def test_a_change_is_shown_before_it_applies(operator: Operator) -> None:
    operator.onboard(sample_tenant("changing"))
    changed = sample_tenant("changing", sales_use_case(gate={"min_gain": 0.02}), tier=Tier.PREMIUM)
    expected = ["tier: standard → premium", "sales.gate.min_gain: 0.0 → 0.02"]
    assert operator.changes(changed) == expected
    assert operator.tenant("changing").tier is Tier.STANDARD
    assert operator.onboard(changed) == expected
    assert operator.tenant("changing") == changed.model_copy(update={"isolation": Isolation.POOL})


def test_the_order_of_columns_and_features_is_kept(operator: Operator) -> None:
    columns = dict(reversed(SALES["contract"]["columns"].items()))
    derived = {
        "zz": {"as": "log1p", "from": "price"},
        "a": {"as": "log1p", "from": "zz"},  # only right after what it is made of
        "weekday": SALES["derived"]["weekday"],
    }
    tenant = sample_tenant(
        "ordered", sales_use_case(contract=SALES["contract"] | {"columns": columns}, derived=derived)
    )
    operator.onboard(tenant)
    stored = operator.tenant("ordered").use_cases[0]
    assert list(stored.contract.columns) == list(columns)
    assert list(stored.derived) == list(derived)
    operator.onboard(sample_tenant("ordered"))
    assert operator.tenant("ordered").use_cases == sample_tenant("ordered").use_cases


def test_a_use_case_that_is_dropped_keeps_its_data(operator: Operator, make_records: MakeRecords) -> None:
    both = sample_tenant("dropping", sales_use_case(), sales_use_case(id="returns"))
    records = make_records(both)
    records.add_upload("returns", Purpose.HISTORY, "u1", "a.csv", 1, "aa")
    operator.onboard(sample_tenant("dropping"))
    assert [use_case.id for use_case in operator.tenant("dropping").use_cases] == ["sales"]
    operator.onboard(both)
    assert operator.tenant("dropping").use_cases == both.use_cases
    assert records.add_upload("returns", Purpose.HISTORY, "u2", "a.csv", 1, "bb")[0].seq == 2


def test_onboarding_and_its_entry_are_one_transaction(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit(operator.cluster)
    told = Operator(operator.cluster, Actor(who="operator:test", origin="cli"))

    def fail(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:  # an entry that cannot be written has no natural cause but a lost database
        broken.setattr(Audit, "add", fail)
        with pytest.raises(ZeroDivisionError):
            told.onboard(sample_tenant("atomic"))
    assert "atomic" not in {tenant.id for tenant in operator.tenants()}
    assert audit.entries("atomic").empty

    told.onboard(sample_tenant("atomic"))
    told.onboard(sample_tenant("atomic"))
    told.onboard(sample_tenant("atomic", sales_use_case(gate={"min_gain": 0.02}), tier=Tier.PREMIUM))
    changed, made = audit.entries("atomic").to_dict("records")
    assert (made["action"], changed["action"]) == ("tenant.onboard", "tenant.change")
    assert (changed["actor"], changed["origin"]) == ("operator:test", "cli")
    assert changed["details"] == {
        "tier": "premium",
        "isolation": "pool",
        "changed": ["tier", "sales.gate.min_gain"],
        "changes": 2,
    }


def test_an_unknown_tenant_is_named(operator: Operator, make_records: MakeRecords) -> None:
    make_records("known")
    with pytest.raises(NotFound, match="known"):
        operator.tenant("nobody")


def test_lists_cross_tenants(operator: Operator, make_records: MakeRecords) -> None:
    for name in ("left", "right"):
        records = make_records(name)
        records.add_upload("sales", Purpose.HISTORY, "u1", "a.csv", 1, "aa")
        records.finish_run(records.open_run(Stage.INGESTION, "sales", "k", upload_id="u1"), {"read": 3})
    assert {"left", "right"} <= set(operator.status()["tenant"])
    assert {"left", "right"} <= set(operator.receipts()["tenant"])
    receipts = operator.receipts("left")
    assert receipts["receipt"].tolist() == [{"read": 3}]
    assert receipts["seconds"].tolist()[0] >= 0
    assert operator.uploads("right")["upload_id"].tolist() == ["u1"]
    assert operator.health("left").empty


def test_records_pickle_small_and_keep_their_password_to_themselves(make_records: MakeRecords) -> None:
    records = make_records("pickled")
    records.runs()
    copy = pickle.loads(pickle.dumps(records))
    assert copy == records
    assert copy.runs() == []
    assert "password" not in repr(records)
    assert records.url not in repr(records)


def test_a_silo_is_seen_beside_the_others_and_only_once(operator: Operator, make_records: MakeRecords) -> None:
    silo = sample_tenant("a-silo").model_copy(update={"isolation": Isolation.SILO})
    assert operator.onboard(silo)
    assert operator.onboard(silo) == []
    shared, own = make_records("no-silo"), make_records(silo)
    for records in (shared, own):
        upload, _ = records.add_upload("sales", Purpose.HISTORY, "u1", "a.csv", 1, "aa")
        records.open_run(Stage.INGESTION, "sales", "k", upload_id="u1")
        records.request("sales", JobKind.PIPELINE, upload.upload_id, by="test")
    with engine(operator.cluster.silo_url("a-silo")).connect() as connection:
        assert connection.scalars(text("SELECT tenant FROM runs")).all() == ["a-silo"]
        assert connection.scalars(text("SELECT tenant FROM jobs")).all() == []
    with engine(operator.cluster.operator_url).connect() as connection:
        assert "a-silo" not in connection.scalars(text("SELECT tenant FROM runs")).all()
        assert "a-silo" in connection.scalars(text("SELECT tenant FROM jobs")).all()
    for frame in (operator.status(), operator.uploads(), operator.receipts()):
        assert frame["tenant"].tolist().count("a-silo") == 1
        assert frame["tenant"].tolist().count("no-silo") == 1
    assert operator.status().set_index("tenant").loc["a-silo", "running"] == 1
    assert operator.receipts("a-silo")["tenant"].tolist() == ["a-silo"]
    with pytest.raises(InvalidDefinition, match="permission denied"):
        PostgresRecords(shared.url.replace("/orchard?", "/tenant_a-silo?"), "no-silo").runs()


@pytest.mark.parametrize("name", ["no-such-tenant", "../acme", "a\0b", "a' OR true --", "\ud800", "x" * 10_000, ""])
def test_what_names_nobody_is_not_found(operator: Operator, name: str) -> None:
    with pytest.raises(NotFound, match="there is no tenant"):
        operator.tenant(name)
