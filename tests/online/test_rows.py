"""Rows of requests are read, judged and answered as those of files are."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.names import Purpose
from tasks.domain.use_case import UseCase
from tasks.ingestion.columns import convert
from tasks.online.predict import partitions_of, predict_rows, row_keys_of
from tasks.online.rows import BadRows, Mistake, RowColumns, RowReader
from tasks.personal import Pseudonyms, without_personal
from tasks.scorer import FrameColumns, Scorer, derive_columns, encode_columns, partition_names, row_keys
from tasks.training.batch import train_batch
from tests.ingestion.lake import Lake
from tests.samples import sales_use_case
from tests.training.frames import churn, customers, demand, sales, tenant_wide_of, whole_batch, write_bundle

STRICT: dict[str, Any] = {
    "columns": {
        "store": {"type": "integer", "min": 1, "max": 9},
        "sku": {"type": "string", "pattern": "[A-Z]{2}"},
        "day": {"type": "date"},
        "at": {"type": "timestamp", "nullable": True},
        "price": {"type": "number", "min": 0},
        "weight": {"type": "number"},
        "promo": {"type": "boolean"},
        "color": {"type": "string", "nullable": True, "allowed": ["red", "blue"]},
        "size": {"type": "integer", "nullable": True, "allowed": [1, 2]},
        "sales": {"type": "number"},
    },
    "row_key": ["store", "sku", "day"],
    "max_bad_rows": 1.0,
}

ODD: dict[str, list[Any]] = {
    "store": [1, 9, 0, 10, 3.0, 3.5, "4", "4.0", "x", None, True, 2**70, "", [1], {"a": 1}, "NA", -1.0],
    "sku": ["AB", "ABC", "aBC", "ab", "", None, 12, "AB é", True, "1AB"],
    "day": [
        "2026-01-02",
        "2026-01-02T00:00:00",
        "2026-13-01",
        "02.01.2026",
        None,
        "",
        20260102,
        "2026-01-02T10:00",
        "-0001-01-01",
    ],
    "at": ["2026-01-02T10:00:00Z", "2026-01-02 10:00", "2026-01-02", None, "", "noon", 5, "-0"],
    "price": [0, 1.5, -0.1, "2", "1e3", "inf", "abc", None, True, "NaN", 1e300],
    "weight": [1, "inf", None, -5, "-Infinity", 1.25],
    "promo": [True, False, "yes", "no", 1, 0, "1.0", "maybe", None, 2, "TRUE"],
    "color": ["red", "blue", "green", None, "", "Red"],
    "size": [1, 2, 3, None, "1", 2.0],
}


PSEUDONYMS = Pseudonyms(bytes(32))


def strict() -> UseCase:
    return sales_use_case(
        contract=STRICT,
        derived={},
        partition_by=["store", "sku"],
        features={"numeric": ["price", "weight", "promo", "size"], "categorical": ["color"]},
    )


def test_rows_are_judged_as_those_of_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    good = {"store": 2, "sku": "AB", "day": "2026-01-02", "price": 1.0, "weight": 1.0, "promo": True}
    rows: list[dict[str, Any]] = []
    for number in range(600):
        row = dict(good, day=str(pd.Timestamp("2026-01-01") + pd.Timedelta(days=number))[:10])
        for name in rng.choice(list(ODD), size=rng.integers(0, 3), replace=False):
            row[name] = ODD[name][rng.integers(len(ODD[name]))]
        rows.append(row)
    use_case = strict()
    lake = Lake(tmp_path, use_case)
    lake.ingest("\n".join(json.dumps(row) for row in rows), purpose=Purpose.SCORING)
    quarantined = lake.quarantined(1, Purpose.SCORING)
    judged = quarantined[quarantined["rule"] != "row key comes again later in the file"]
    in_file = dict(zip(judged["line"], judged["rule"], strict=True))
    reader = RowReader(use_case, convert, PSEUDONYMS)
    for number, row in enumerate(rows, start=1):
        mistakes = mistakes_of(reader, row)
        assert bool(mistakes) == (number in in_file), (row, mistakes, in_file.get(number))
        for mistake in mistakes:
            assert mistake.rule in in_file[number], (row, mistakes, in_file[number])
    assert 200 < len(in_file) < 550


def mistakes_of(reader: RowReader, row: dict[str, Any]) -> tuple[Mistake, ...]:
    try:
        reader.read([row])
    except BadRows as error:
        return error.mistakes
    return ()


@pytest.mark.parametrize(
    ("use_case", "frame"), [(demand(), sales(5)), (churn(), customers(600))], ids=["demand", "churn"]
)
def test_rows_are_answered_as_those_of_files(tmp_path: Path, use_case: UseCase, frame: pd.DataFrame) -> None:
    wide = tenant_wide_of(frame, use_case)
    models = train_batch(frame, whole_batch(frame, use_case), use_case, wide).models
    scorer = Scorer.open(write_bundle(tmp_path / "bundle", use_case, models, wide, wide.naive))
    columns = use_case.columns_for(Purpose.SCORING)
    plain = frame[list(columns)].astype(object).where(frame[list(columns)].notna(), None)
    rows = [{name: _json(value) for name, value in row.items()} for row in plain.to_dict("records")]
    rows += [
        dict(rows[0], **{use_case.partition_by[0]: unseen})
        for unseen in (["moon"] if use_case.id == "churn" else [999])
    ]
    frame = pd.concat(
        [
            frame,
            pd.DataFrame([rows[-1]]).assign(day=frame["day"].iloc[:1]) if "day" in frame else pd.DataFrame([rows[-1]]),
        ]
    )
    read = RowReader(use_case, convert, PSEUDONYMS).read(rows)
    types = {name: column.type.value for name, column in use_case.contract.columns.items()}
    assert partitions_of(read, use_case) == partition_names(frame, use_case.partition_by, types).tolist()
    expected = scorer.predict(frame)
    reader = RowReader(use_case, convert, PSEUDONYMS)
    together = predict_rows(scorer, partitions_of(read, use_case), read)
    for number, answer in enumerate(together):
        alone = reader.read([rows[number]])
        single = predict_rows(scorer, partitions_of(alone, use_case), alone)[0]
        assert single == answer
        wanted = expected.iloc[number]
        for name in ("partition", "answer", "fallback", "model_run"):
            assert answer[name] == wanted[name], name
        if scorer.classes:
            assert answer["label"] == wanted["label"]
            assert list(answer["probabilities"].values()) == wanted["probabilities"]
        else:
            assert answer["prediction"] == wanted["prediction"]


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, pd.Timestamp) else getattr(value, "item", lambda: value)()


def test_contributions_add_up(tmp_path: Path) -> None:
    use_case, frame = demand(), sales(4)
    wide = tenant_wide_of(frame, use_case)
    models = train_batch(frame, whole_batch(frame, use_case), use_case, wide).models
    scorer = Scorer.open(write_bundle(tmp_path / "bundle", use_case, models, wide, wide.naive))
    columns = list(use_case.columns_for(Purpose.SCORING))
    plain = frame[columns].astype(object).where(frame[columns].notna(), None)
    rows = [{name: _json(value) for name, value in row.items()} for row in plain.to_dict("records")]
    read = RowReader(use_case, convert, PSEUDONYMS).read(rows)
    answers = predict_rows(scorer, partitions_of(read, use_case), read, explain=True)
    explained = [(a, r) for a, r in zip(answers, rows, strict=True) if a["contributions"] is not None]
    assert len(explained) > 100
    for answer, row in explained:
        assert {"price", "weekday", "promo", "bias"} <= answer["contributions"].keys()
        assert sum(answer["contributions"].values()) + row["last_week"] == pytest.approx(answer["prediction"])


def test_every_mistake_is_named() -> None:
    reader = RowReader(strict(), convert, PSEUDONYMS)
    with pytest.raises(BadRows) as bad:
        reader.read([7, {"store": 1, "colour": "red"}])
    assert [tuple(mistake) for mistake in bad.value.mistakes] == [
        (0, "", "a row is an object of columns and values"),
        (1, "colour", "the contract has no such column"),
    ]
    with pytest.raises(BadRows) as bad:
        reader.read([{"store": 0, "sku": "AB", "day": "2026-01-02", "price": "cheap", "weight": 1, "promo": True}])
    assert [tuple(mistake) for mistake in bad.value.mistakes] == [
        (0, "price", "price is not a number"),
        (0, "store", "store is outside 1 to 9"),
    ]


def test_of_personal_columns_the_same_is_kept_as_of_files() -> None:
    columns = STRICT["columns"] | {
        "sku": {"type": "string", "personal": "hash"},
        "color": {"type": "string", "nullable": True, "personal": "drop"},
    }
    use_case = sales_use_case(
        contract=STRICT | {"columns": columns},
        derived={},
        partition_by=["store", "sku"],
        features={"numeric": ["price"], "categorical": []},
    )
    row = {"store": 1, "sku": "AB", "day": "2026-01-02", "price": 1, "weight": 1, "promo": True, "color": "red"}
    read = RowReader(use_case, convert, PSEUDONYMS).read([row])
    kept = without_personal(pd.DataFrame([row]), use_case.contract, PSEUDONYMS)
    assert list(read["sku"]) == kept["sku"].tolist() != ["AB"]
    assert "color" not in read
    assert "color" not in kept


@given(
    st.lists(
        st.tuples(st.integers(-(2**60), 2**60), st.text(max_size=5), st.dates(), st.datetimes()), min_size=1, max_size=5
    )
)
def test_row_keys_are_written_as_those_of_files(keys: list[tuple[Any, ...]]) -> None:
    names = ["line", "name", "day", "at"]
    types = dict(zip(names, ["integer", "string", "date", "timestamp"], strict=True))
    use_case = sales_use_case(
        contract={
            "columns": {
                **{name: {"type": kind} for name, kind in types.items()},
                "sales": {"type": "number"},
                "price": {"type": "number"},
            },
            "row_key": names,
        },
        derived={},
        partition_by=["line"],
        time=None,
        features={"numeric": ["price"], "categorical": []},
    )
    rows = [dict(zip(names, (*key[:3], key[3].replace(tzinfo=dt.UTC)), strict=True)) for key in keys]
    columns = RowColumns({name: [row[name] for row in rows] for name in names}, len(rows))
    frame = pd.DataFrame(rows)
    assert row_keys_of(columns, use_case) == row_keys(frame, names, types).tolist()


def test_a_date_is_the_same_text_as_in_files(tmp_path: Path) -> None:
    """A table of holidays finds its days, in files as in requests."""
    use_case = sales_use_case(
        derived={"holiday": {"as": "lookup", "from": "day", "table": {"2026-12-25": "christmas"}}},
        features={"numeric": ["price"], "categorical": ["holiday", "day"]},
    )
    row = {"store": 1, "sku": 1, "day": "2026-12-25", "price": 1.0, "promo": True, "color": None}
    lake = Lake(tmp_path, use_case)
    lake.ingest(json.dumps(row) + "\n", purpose=Purpose.SCORING)
    frame = lake.rows()
    read = RowReader(use_case, convert, PSEUDONYMS).read([row])
    derived = use_case.model_dump(mode="json", by_alias=True)["derived"]
    for columns in (FrameColumns(frame), FrameColumns(frame, {"day": "date"}), read):
        derive_columns(columns, derived)
        features = encode_columns(columns, 1, use_case.features.numeric, use_case.features.categorical)
        assert features.texts == {"holiday": ["christmas"], "day": ["2026-12-25"]}
