"""Laws: rows add up whatever the file; upserts equal a model in plain Python; a repeated merge changes nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given, settings

from tasks.domain.errors import OrchardError, TooManyBadRows
from tasks.domain.names import Purpose
from tasks.domain.use_case import UseCase
from tasks.training.rows import labelled_rows
from tests.ingestion.lake import Lake, make_upload
from tests.samples import SALES, sales_use_case

CELLS = st.sampled_from(
    ["1", "2", "3.0", "-4", "", "NA", "x", "inf", "2026-01-01", "2026-13-01", "true", '"a,b"', "1e3"]
)
RECORDS = st.lists(st.lists(CELLS, min_size=6, max_size=8).map(",".join), min_size=1, max_size=30)


@settings(max_examples=30, deadline=None)
@given(records=RECORDS, good=st.integers(0, 5))
def test_every_row_is_in_exactly_one_state(records: list[str], good: int) -> None:
    rows = [f"1,{n % 3},2026-01-01,2,true,red,{n}" for n in range(good)] + records
    content = "store,sku,day,price,promo,color,sales\n" + "\n".join(rows) + "\n"
    use_case = sales_use_case(contract=SALES["contract"] | {"max_bad_rows": 1.0})
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder), use_case)
        try:
            receipt = lake.ingest(content).receipt
        except TooManyBadRows:  # no row has a target: nothing was merged
            assert lake.table.version() is None
            return
        kept = lake.quarantined(1) if receipt.quarantined + receipt.duplicate else pd.DataFrame({"line": []})
        assert receipt.read == len(rows)
        assert len(lake.rows() if receipt.accepted else []) == receipt.accepted
        assert len(kept) == receipt.quarantined + receipt.duplicate
        assert kept["line"].is_unique
        assert kept["line"].between(2, len(rows) + 1).all()


def moving() -> UseCase:
    """Rows are known by an id alone, so a row can move to another partition."""
    columns = {
        "id": {"type": "string"},
        "store": {"type": "integer"},
        "x": {"type": "number", "nullable": True},
        "sales": {"type": "number", "nullable": True},
    }
    return sales_use_case(
        contract={"columns": columns, "row_key": ["id"], "max_bad_rows": 1.0},
        derived={},
        partition_by=["store"],
        time=None,
        features={"numeric": ["x"]},
    )


def staying() -> UseCase:
    """Rows are known by store and id."""
    contract = moving().contract.model_dump()
    return moving().model_validate(
        {**moving().model_dump(), "contract": {**contract, "row_key": ["store", "id"]}, "derived": {}}
    )


UPLOADS = st.lists(
    st.tuples(
        st.sampled_from(list(Purpose)),
        st.lists(
            st.tuples(st.integers(0, 8), st.integers(1, 3), st.integers(0, 9), st.integers(-1, 9)),
            min_size=1,
            max_size=12,
        ),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("use_case", [moving(), staying()], ids=["moving", "staying"])
@settings(max_examples=25, deadline=None)
@given(uploads=UPLOADS)
def test_upserts_equal_a_model(
    use_case: UseCase, uploads: list[tuple[Purpose, list[tuple[int, int, int, int]]]]
) -> None:
    model: dict[tuple[object, ...], dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder), use_case)
        for seq, (purpose, rows) in enumerate(uploads, start=1):
            frame = pd.DataFrame(rows, columns=["id", "store", "x", "sales"]).assign(
                _line=range(2, len(rows) + 2), id=lambda f: "r" + f["id"].astype(str)
            )
            frame["sales"] = frame["sales"].where(frame["sales"] >= 0).astype(float)
            measured = [n for n, (earlier, _) in enumerate(uploads[: seq - 1], start=1) if earlier is Purpose.ACTUALS]
            staging = lake.table.stage(make_upload(seq, purpose), measured)
            staging.append(frame[[*use_case.columns_for(purpose), "_line"]])
            left_out = sum(map(len, staging.duplicates())) + sum(map(len, staging.unmatched()))
            merged = staging.merge()
            staging.discard()
            assert merged.accepted + left_out == len(rows)
            assert merged.version == seq - 1
            _apply(model, frame, use_case, purpose, seq, measured)
            found = lake.rows()[["id", "store", "x", "sales", "_upload", "_labelled"]]
            expected = pd.DataFrame(model.values(), columns=found.columns)
            expected = expected.sort_values(list(use_case.contract.row_key), ignore_index=True)
            pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def _apply(
    model: dict[tuple[object, ...], dict[str, object]],
    frame: pd.DataFrame,
    use_case: UseCase,
    purpose: Purpose,
    seq: int,
    measured: list[int],
) -> None:
    before = dict(model)
    for row in frame.to_dict("records"):
        key = tuple(row[name] for name in use_case.contract.row_key)
        known = model.get(key)
        labelled = float("nan") if row["sales"] != row["sales"] else float(seq)
        if purpose is Purpose.ACTUALS:
            again = known and before[key]["_labelled"] in measured and _same(before[key]["sales"], row["sales"])
            if known and not again:  # else handed in again, and not new
                model[key] = known | {"sales": row["sales"], "_labelled": labelled}
            continue
        new = {name: row[name] for name in ("id", "store", "x", "sales")} | {
            "_upload": seq,
            "_labelled": labelled,
        }
        if purpose is Purpose.SCORING:
            kept = known or {"sales": float("nan"), "_labelled": float("nan")}
            new |= {"sales": kept["sales"], "_labelled": kept["_labelled"]}
        elif (old := before.get(key)) and all(_same(old[name], new[name]) for name in ("id", "store", "x", "sales")):
            new |= {"_upload": old["_upload"], "_labelled": old["_labelled"]}  # handed in again, and not new
        model[key] = new


def _same(one: object, other: object) -> bool:
    return one == other or (one != one and other != other)


def test_actuals_that_come_again_are_not_new(tmp_path: Path) -> None:
    """Whoever sends the month so far, every day, must not have its first days judged and counted every day."""
    lake = Lake(tmp_path, sales_use_case())
    lake.ingest(
        "store,sku,day,price,promo,color\n" + "".join(f"1,{n},2026-01-01,2,true,red\n" for n in (1, 2, 3)),
        1,
        Purpose.SCORING,
    )
    actuals = "store,sku,day,sales\n1,1,2026-01-01,5\n1,2,2026-01-01,6\n"
    lake.ingest(actuals, 2, Purpose.ACTUALS)
    lake.ingest(actuals.replace(",6\n", ",7\n") + "1,3,2026-01-01,8\n", 3, Purpose.ACTUALS, [2])
    assert lake.rows()["sales"].tolist() == [5, 7, 8]
    assert lake.rows()["_labelled"].tolist() == [2, 3, 3]


def test_actuals_are_new_where_history_brought_the_target(tmp_path: Path) -> None:
    """Only actuals are compared with what was predicted."""
    lake = Lake(tmp_path, sales_use_case())
    lake.ingest("store,sku,day,price,promo,color,sales\n1,1,2026-01-01,2,true,red,5\n")
    lake.ingest("store,sku,day,sales\n1,1,2026-01-01,5\n", 2, Purpose.ACTUALS)
    assert lake.rows()["_labelled"].tolist() == [2]


@pytest.mark.parametrize("purposes", [["history", "scoring"], ["history", "scoring", "actuals"]], ids=", ".join)
def test_what_a_target_is_made_of_may_be_known_before(tmp_path: Path, purposes: list[str]) -> None:
    """The delay is known afterwards, the plan that it is measured from before: it comes with rows to score, and rows
    are labelled once their actuals are there."""
    columns = {"store": "integer", "n": "integer", "actual": "number"}
    use_case = UseCase.model_validate(
        {
            "id": "sales",
            "kind": "regression",
            "contract": {
                "columns": {n: {"type": kind} for n, kind in columns.items()}
                | {"plan": {"type": "number", "purposes": purposes}},
                "row_key": ["store", "n"],
            },
            "derived": {"delay": {"as": "difference", "left": "actual", "right": "plan"}},
            "partition_by": ["store"],
            "target": "delay",
            "features": {"numeric": ["plan"]},
        }
    )
    lake = Lake(tmp_path, use_case)
    lake.ingest("store,n,plan\n1,1,30\n1,2,40\n", 1, Purpose.SCORING)
    assert lake.rows()["plan"].tolist() == [30, 40]
    assert lake.rows()["_labelled"].isna().all()
    also = "plan" in use_case.columns_for(Purpose.ACTUALS)
    lake.ingest("store,n,actual,plan\n1,1,33,30\n" if also else "store,n,actual\n1,1,33\n", 2, Purpose.ACTUALS)
    assert lake.rows()["actual"].tolist()[0] == 33
    assert lake.rows()["_labelled"].tolist()[0] == 2


def test_a_row_reads_the_same_whatever_is_read_with_it(tmp_path: Path) -> None:
    """Else a partition has other categories, and passes for changed, because another one has a missing value."""
    columns = {"store": {"type": "integer"}, "n": {"type": "integer"}, "y": {"type": "number"}}
    columns |= {"code": {"type": "integer", "nullable": True}, "flag": {"type": "boolean", "nullable": True}}
    use_case = UseCase.model_validate(
        {
            "id": "sales",
            "kind": "regression",
            "contract": {"columns": columns, "row_key": ["store", "n"]},
            "partition_by": ["store"],
            "target": "y",
            "features": {"numeric": ["flag"], "categorical": ["code"]},
        }
    )
    lake = Lake(tmp_path, use_case)
    lake.ingest("store,n,y,code,flag\n1,1,5,9007199254740993,true\n1,2,5,9007199254740992,false\n2,1,5,,\n")
    parts = []
    for partitions in (["store=1"], ["store=1", "store=2"]):
        frame = lake.table.read(0, 0, partitions)
        rows, places = labelled_rows(frame.sort_values(["store", "n"], ignore_index=True), use_case)
        parts.append(rows.part(places["store=1"]))
    one, both = parts
    assert one.data_hash() == both.data_hash()
    assert one.features.texts["code"] == both.features.texts["code"] == ["9007199254740993", "9007199254740992"]
    assert one.features.numeric.tolist() == both.features.numeric.tolist() == [[1.0], [0.0]]


CSV = "store,sku,day,price,promo,color,sales\n" + "".join(f"1,{n},2026-01-01,2,true,red,{n}\n" for n in range(1, 50))


def test_a_second_attempt_after_the_commit_finds_it(tmp_path: Path) -> None:
    """The process died between the commit and its record in the database: everything is done again."""
    lake = Lake(tmp_path, sales_use_case())
    first = lake.ingest(CSV)
    later = lake.ingest(CSV.replace("red", "blue"), seq=2)
    assert lake.ingest(CSV, seq=1) == first
    assert lake.table.version() == later.dataset_version
    assert set(lake.rows()["color"]) == {"blue"}


def test_a_second_attempt_counts_actuals_as_the_first_did(tmp_path: Path) -> None:
    lake = Lake(tmp_path, sales_use_case())
    lake.ingest(CSV)
    actuals = "store,sku,day,sales\n1,1,2026-01-01,5\n" + "".join(f"1,{n},2026-01-01,9\n" for n in range(2, 30))
    actuals += "1,99,2026-01-01,5\n"
    first = lake.ingest(actuals, 2, Purpose.ACTUALS)
    assert first.receipt.quarantined == 1
    assert list(first.rules) == ["row key was never seen in history or scoring"]
    lake.ingest(CSV.replace("1,1,2026", "1,99,2026"), 3)  # now 99 is known
    assert lake.ingest(actuals, 2, Purpose.ACTUALS) == first


def test_an_attempt_that_dies_before_the_commit_leaves_nothing_to_see(tmp_path: Path) -> None:
    lake = Lake(tmp_path, sales_use_case())
    first = lake.ingest(CSV)
    upload = make_upload(2)
    staging = lake.table.stage(upload)
    staging.append(lake.rows().assign(color="lost", _line=range(49)))
    lake.table.stage(upload)  # the next attempt
    assert lake.table.version() == first.dataset_version
    again = lake.ingest(CSV.replace("red", "blue"), seq=2)
    assert again.receipt.accepted == 49
    assert set(lake.rows()["color"]) == {"blue"}
    assert set(lake.rows(first.dataset_version)["color"]) == {"red"}


def test_of_two_merges_at_once_one_is_told_to_run_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path, sales_use_case())
    lake.ingest(CSV)
    staging = lake.table.stage(make_upload(2))
    staging.append(lake.rows().assign(color="green", _line=range(49)))
    lake.ingest(CSV.replace("red", "blue"), seq=3)
    with pytest.raises(OrchardError, match="another merge"):
        staging.merge()
    assert set(lake.rows()["color"]) == {"blue"}
