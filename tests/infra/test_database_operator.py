"""What only the operator does: onboarding, and looking across tenants."""

from __future__ import annotations

import pickle

import pytest

from infra.database.operator import Operator
from tasks.domain.errors import NotFound
from tasks.domain.names import Purpose, Stage
from tasks.domain.tenant import Tier
from tests.conftest import MakeRecords
from tests.samples import SALES, sales_use_case, sample_tenant


def test_onboarding_twice_changes_nothing(operator: Operator) -> None:
    tenant = sample_tenant("9-shops-of-mine")
    expected = ["tenant 9-shops-of-mine: new", "use case sales: new"]
    assert operator.changes(tenant) == expected
    assert operator.onboard(tenant) == expected
    assert operator.changes(tenant) == []
    assert operator.onboard(tenant) == []
    assert operator.tenant(tenant.id) == tenant
    assert tenant in operator.tenants()


def test_a_change_is_shown_before_it_applies(operator: Operator) -> None:
    operator.onboard(sample_tenant("changing"))
    changed = sample_tenant("changing", sales_use_case(gate={"min_gain": 0.02}), tier=Tier.PREMIUM)
    expected = ["tier: standard → premium", "sales.gate.min_gain: 0.0 → 0.02"]
    assert operator.changes(changed) == expected
    assert operator.tenant("changing").tier is Tier.STANDARD
    assert operator.onboard(changed) == expected
    assert operator.tenant("changing") == changed


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
    assert operator.tenant("ordered") == sample_tenant("ordered")


def test_a_use_case_that_is_dropped_keeps_its_data(operator: Operator, make_records: MakeRecords) -> None:
    both = sample_tenant("dropping", sales_use_case(), sales_use_case(id="returns"))
    records = make_records(both)
    records.add_upload("returns", Purpose.HISTORY, "u1", "a.csv", 1, "aa")
    operator.onboard(sample_tenant("dropping"))
    assert [use_case.id for use_case in operator.tenant("dropping").use_cases] == ["sales"]
    operator.onboard(both)
    assert operator.tenant("dropping") == both
    assert records.add_upload("returns", Purpose.HISTORY, "u2", "a.csv", 1, "bb")[0].seq == 2


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
