"""A use case whose fields contradict one another is refused, and the message names the contradiction."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.domain.names import Purpose, partition_name, partition_values
from tasks.domain.use_case import UseCase
from tests.samples import SALES, sales_use_case


def changed(path: str, value: Any) -> dict[str, Any]:
    """The sample with one field set, or removed where the value is ..."""
    content = copy.deepcopy(SALES)
    content["contract"]["columns"]["note"] = {"type": "string", "nullable": True}
    *parents, last = path.split(".")
    here: dict[str, Any] = content
    for name in parents:
        here = here.setdefault(name, {})
    here[last] = value
    return content


CONTRADICTIONS = {
    "derived has the name of a column": ("derived.price", {"as": "log1p", "from": "sales"}, "has the name of a column"),
    "derived from nothing": ("derived.x", {"as": "log1p", "from": "nothing"}, "'nothing', which is neither a column"),
    "derived from itself": ("derived.x", {"as": "log1p", "from": "x"}, "derived feature above"),
    "partition key that is missing": ("partition_by", ["shop"], "which the contract does not have"),
    "partition key that is a number": ("partition_by", ["price"], "non-nullable integer, string, boolean or date"),
    "partition key that may be null": ("partition_by", ["color"], "non-nullable"),
    "no partition key": ("partition_by", [], "at least 1 item"),
    "feature that is missing": ("features.numeric", ["weight"], "features names 'weight'"),
    "the target as a feature": ("features.numeric", ["sales"], "is made of the target"),
    "a feature twice": ("features.categorical", ["price"], "listed twice"),
    "no feature": ("features", {}, "at least one column"),
    "text as a number": ("features", {"numeric": ["color"]}, "numeric feature 'color' is a string column"),
    "target that is missing": ("target", "profit", "target names 'profit'"),
    "target that is text": ("target", "note", "regression needs a numeric target"),
    "target that is a key": ("target", "sku", "cannot be a key"),
    "time that is missing": ("time", "hour", "not 'hour'"),
    "time that is no time": ("time", "color", "date, timestamp or integer"),
    "baseline that is missing": ("baseline", "guess", "baseline names 'guess'"),
    "metric of another kind": ("gate.metric", "log_loss", "does not fit regression"),
    "classes without labels": ("kind", "classification", "needs a target with classes"),
    "row key that is missing": ("contract.row_key", ["hour"], "which the contract does not have"),
    "row key that may be null": ("contract.row_key", ["store", "color"], "must not be nullable"),
    "row key that repeats itself": ("contract.row_key", ["store", "store"], "names a column twice"),
    "no row key": ("contract.row_key", [], "at least 1 item"),
    "bounds the wrong way round": ("contract.columns.price", {"type": "number", "min": 3, "max": 1}, "above max"),
    "bounds of a text": ("contract.columns.color", {"type": "string", "max": 1}, "numeric column"),
    "pattern of a number": ("contract.columns.price", {"type": "number", "pattern": "a"}, "string column"),
    "pattern that is none": ("contract.columns.color", {"type": "string", "pattern": "[A-Z"}, "no regular expression"),
    "yes without quotes": ("contract.columns.color", {"type": "string", "allowed": [True, "maybe"]}, "write 'yes'"),
    "nothing allowed": ("contract.columns.color", {"type": "string", "allowed": []}, "at least one value"),
    "no rows left to train on": ("training", {"validation": 0.45, "holdout": 0.4}, "less than 20 %"),
    "unknown estimator": ("estimators", ["forest"], "lightgbm"),
    "unknown field": ("goal", "sales", "Extra inputs"),
    "a path as an id": ("id", "../sales", "pattern"),
    "an encoding that unpacks": ("contract.encoding", "zlib_codec", "not an encoding of text files"),
    "an encoding that reads escapes": ("contract.encoding", "unicode_escape", "not an encoding of text files"),
    "an encoding of another letter": ("contract.encoding", "rot13", "not an encoding of text files"),
    "an encoding that there is not": ("contract.encoding", "utf-9", "no such encoding"),
    "an encoding that is no name": ("contract.encoding", "a\0b", "no such encoding"),
    "a schedule of seconds": ("schedule", "* * * * * *", "five fields"),
    "a column that is code": ("contract.columns.a;b", {"type": "number"}, "pattern"),
}


@pytest.mark.parametrize(("path", "value", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_refused(path: str, value: Any, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        UseCase.model_validate(changed(path, value))
    assert says in str(caught.value)


def test_texts_of_a_table_are_no_numbers() -> None:
    """Each would be missing in every row, without a word."""
    content = changed("derived.shade", {"as": "lookup", "from": "color", "table": {"red": "warm", "blue": 3}})
    content["features"] = {"categorical": ["shade"]}
    assert UseCase.model_validate(content)
    with pytest.raises(ValidationError, match="regression needs a numeric target"):
        UseCase.model_validate(content | {"features": {"numeric": ["price"]}, "target": "shade"})
    content["features"] = {"numeric": ["shade"]}
    with pytest.raises(ValidationError, match="numeric feature 'shade' has texts in its table"):
        UseCase.model_validate(content)


def test_a_feature_may_not_be_derived_from_what_makes_the_target() -> None:
    content = changed("derived.high", {"as": "threshold", "from": "sales", "above": 3})
    content |= {"kind": "classification", "target": "high"}
    assert UseCase.model_validate(content).classes == ("0", "1")
    content["derived"]["leak"] = {"as": "log1p", "from": "high"}
    content["features"] = {"numeric": ["leak"]}
    with pytest.raises(ValidationError, match="'leak' is made of the target"):
        UseCase.model_validate(content)


def test_a_feature_may_not_be_what_only_the_target_is_made_of() -> None:
    content = changed("derived.high", {"as": "threshold", "from": "sales", "above": 3})
    content |= {"kind": "classification", "target": "high", "features": {"numeric": ["sales"]}}
    with pytest.raises(ValidationError, match="'sales' needs the column 'sales', which scoring uploads do not have"):
        UseCase.model_validate(content)
    content["contract"]["columns"]["sales"]["purposes"] = [
        "history",
        "scoring",
        "actuals",
    ]  # known beforehand after all
    assert UseCase.model_validate(content).features.all == ("sales",)


@pytest.mark.parametrize(
    ("column", "purposes", "says"),
    [
        ("price", ["history"], "'price' needs the column 'price', which scoring uploads"),
        ("day", ["history", "scoring"], "'day' needs the column 'day', which actuals uploads"),
        ("sales", ["actuals"], "'sales' needs the column 'sales', which history uploads"),
        ("sku", ["history", "actuals"], "which scoring uploads"),
    ],
)
def test_a_column_that_is_needed_comes_with_the_upload(column: str, purposes: list[str], says: str) -> None:
    spec = SALES["contract"]["columns"][column] | {"purposes": purposes}
    with pytest.raises(ValidationError, match=says):
        UseCase.model_validate(changed(f"contract.columns.{column}", spec))


def test_every_purpose_needs_its_columns() -> None:
    use_case = sales_use_case()
    assert set(use_case.columns_for(Purpose.HISTORY)) == set(use_case.contract.columns)
    assert set(use_case.columns_for(Purpose.SCORING)) == set(use_case.contract.columns) - {"sales"}
    assert set(use_case.columns_for(Purpose.ACTUALS)) == {"store", "sku", "day", "sales"}


def test_the_contract_hash_tells_what_shapes_a_model() -> None:
    use_case = sales_use_case()
    for same in (
        {"description": "new"},
        {"schedule": "0 3 * * *"},
        {"gate": {"min_gain": 0.1}},
        {"training": {"version": 2}},
    ):
        assert sales_use_case(**same).contract_hash() == use_case.contract_hash(), same
    others = ({"estimators": ["linear"]}, {"training": {"min_rows": 50}}, {"gate": {"metric": "mae"}}, {"time": None})
    hashes = {sales_use_case(**other).contract_hash() for other in others} | {use_case.contract_hash()}
    assert len(hashes) == len(others) + 1


DROPPED, HASHED = {"type": "string", "personal": "drop"}, {"type": "string", "personal": "hash"}

PERSONAL = {
    "dropped row key": (DROPPED, {"row_key": ["store", "who"]}, {}, "row_key names the column 'who', which is"),
    "dropped partition key": (DROPPED, {}, {"partition_by": ["who"]}, "partition_by names the column 'who', which is"),
    "dropped feature": (DROPPED, {}, {"features": {"categorical": ["who"]}}, "features.categorical names the column"),
    "dropped number": (
        {"type": "number", "personal": "drop"}, {}, {"features": {"numeric": ["who"]}}, "personal and dropped",
    ),
    "dropped time": ({"type": "date", "personal": "drop"}, {}, {"time": "who"}, "time names the column 'who', which"),
    "dropped baseline": (DROPPED | {"type": "number"}, {}, {"baseline": "who"}, "baseline names the column 'who'"),
    "dropped target": (DROPPED | {"type": "number"}, {}, {"target": "who"}, "target names the column 'who', which is"),
    "dropped source": (
        {"type": "date", "personal": "drop"}, {},
        {"derived": {"age": {"as": "date_part", "from": "who", "part": "year"}}, "features": {"numeric": ["age"]}},
        "derived feature 'age' names the column 'who', which is personal and dropped",
    ),
    "hashed source": (
        HASHED, {}, {"derived": {"kin": {"as": "lookup", "from": "who", "table": {"x": 1}}}},
        "derived feature 'kin' names the column 'who', of which only a hash is kept",
    ),
    "hashed classes": (
        HASHED | {"allowed": ["a", "b"]}, {}, {"target": "who", "kind": "classification"}, "target names the column",
    ),
    "hashed number": (HASHED, {}, {"features": {"numeric": ["who"]}}, "numeric feature 'who' is a string column"),
    "a hash of no text": ({"type": "integer", "personal": "hash"}, {}, {}, "personal: hash needs a string column"),
    "personal watermark": (
        DROPPED, {},
        {"pull": {"secret": "x", "query": ":watermark", "watermark": "who", "start": 1, "schedule": "* * * * *"}},
        "the column 'who' is personal",
    ),
    "another word": ({"type": "string", "personal": "mask"}, {}, {}, "'drop' or 'hash'"),
}  # fmt: skip


@pytest.mark.parametrize(("column", "contract", "fields", "says"), PERSONAL.values(), ids=PERSONAL)
def test_a_personal_column_serves_nothing_that_needs_its_value(
    column: dict[str, Any], contract: dict[str, Any], fields: dict[str, Any], says: str
) -> None:
    base = SALES | {"derived": {}, "features": {"numeric": ["price"]}}
    columns = SALES["contract"]["columns"] | {"who": column}
    with pytest.raises(ValidationError) as caught:
        UseCase.model_validate(base | fields | {"contract": SALES["contract"] | {"columns": columns} | contract})
    assert says in str(caught.value)


def test_a_hashed_column_may_identify() -> None:
    columns = SALES["contract"]["columns"] | {"who": HASHED, "born": {"type": "date", "personal": "drop"}}
    contract = SALES["contract"] | {"columns": columns, "row_key": ["store", "sku", "day", "who"]}
    use_case = sales_use_case(contract=contract, partition_by=["who"], features={"categorical": ["who"]})
    assert use_case.contract.personal == {"who", "born"}
    assert set(use_case.contract.columns) - set(use_case.contract.stored) == {"born"}
    assert "born" in use_case.columns_for(Purpose.HISTORY), "it must be there, and follows the rules"


def test_contracts_without_personal_columns_keep_the_hash_that_they_had() -> None:
    assert sales_use_case().contract_hash() == "262ca4a4b6270ee1"
    columns = SALES["contract"]["columns"]
    hashed = columns | {"color": columns["color"] | {"personal": "hash"}}
    other = sales_use_case(contract=SALES["contract"] | {"columns": hashed})
    assert other.contract_hash() != sales_use_case().contract_hash()


NAMES = st.text("abcXYZ_", min_size=1)


@given(st.dictionaries(NAMES, st.text(), min_size=1), st.dictionaries(NAMES, st.text(), min_size=1))
def test_partition_names_are_injective_and_come_back(values: dict[str, str], others: dict[str, str]) -> None:
    assert partition_values(partition_name(values)) == values
    if list(values.items()) != list(others.items()):
        assert partition_name(values) != partition_name(others)
