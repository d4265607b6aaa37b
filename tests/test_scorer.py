from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.domain.names import partition_name
from tasks.scorer import ANSWER_SCHEMA, LatestModels, Scorer, derive, partition_names, row_keys
from tasks.training.batch import train_batch
from tests.training.frames import churn, customers, demand, sales, tenant_wide_of, whole_batch, write_bundle

texts = st.text(st.characters(codec="utf-8"), max_size=6)
keys = st.fixed_dictionaries(
    {"store": st.integers(-(10**9), 10**9), "sku": texts, "open": st.booleans(), "since": st.dates()}
)


@given(st.lists(keys, max_size=20))
def test_partition_names_are_canonical(rows: list[dict[str, Any]]) -> None:
    names = ["store", "sku", "open", "since"]
    rows = [{name: row[name] for name in names} for row in rows]
    frame = pd.DataFrame(rows, columns=names)
    assert partition_names(frame, list(frame.columns)).tolist() == [partition_name(row) for row in rows]
    widened = frame.assign(since=pd.to_datetime(frame["since"], errors="coerce")).dropna()
    expected = [partition_name(rows[position]) for position in widened.index]
    assert partition_names(widened, list(frame.columns)).tolist() == expected


@given(st.lists(st.tuples(st.integers(), texts), max_size=20))
def test_row_keys_are_injective(rows: list[tuple[int, str]]) -> None:
    frame = pd.DataFrame({"sku": [text for _, text in rows], "line": [number % 2**60 for number, _ in rows]})
    names = row_keys(frame, ["sku", "line"])
    assert names.nunique() == len(frame.drop_duplicates())


def test_row_keys_write_times_in_utc() -> None:
    hours = pd.to_datetime(["2013-11-01T06:00:00-04:00", "2013-11-01T10:00:00.25Z"], utc=True, format="ISO8601")
    frame = pd.DataFrame({"carrier": ["a,b", "UA"], "hour": hours, "day": [dt.date(2013, 11, 1)] * 2})
    assert row_keys(frame, ["carrier", "hour", "day"]).tolist() == [
        "a%2Cb,2013-11-01T10:00:00Z,2013-11-01",
        "UA,2013-11-01T10:00:00.250000Z,2013-11-01",
    ]
    as_text = frame.assign(hour=["2013-11-01T06:00:00-04:00", "2013-11-01T10:00:00.25Z"])
    types = {"hour": "timestamp"}
    assert row_keys(as_text, ["hour"], types).tolist() == row_keys(frame, ["hour"]).tolist()


def test_derived_columns() -> None:
    frame = pd.DataFrame(
        {
            "clock": [1437, 5, None],
            "until": [30, 2359, 100],
            "at": pd.to_datetime(["2024-02-29T23:30Z", "2024-12-30T00:00Z", None], utc=True),
            "code": [7, None, 8],
        }
    )
    derived = {
        "start": {"as": "hhmm_to_minutes", "from": "clock"},
        "end": {"as": "hhmm_to_minutes", "from": "until"},
        "block": {"as": "difference", "left": "end", "right": "start", "wrap": 1440},
        "week": {"as": "date_part", "from": "at", "part": "week"},
        "hour": {"as": "date_part", "from": "at", "part": "hour"},
        "share": {"as": "ratio", "left": "clock", "right": "hour"},
        "small": {"as": "log1p", "from": "clock"},
        "late": {"as": "threshold", "from": "until", "above": 100},
        "name": {"as": "lookup", "from": "code", "table": {"7": "seven"}},
        "worth": {"as": "lookup", "from": "code", "table": {"7": 0.5, "8": 2}},
        "target": {"as": "threshold", "from": "absent", "above": 1},
    }
    got = derive(frame, derived)
    nan = np.nan
    expected = {
        "start": [877, 5, nan],
        "block": [593, 1434, nan],
        "week": [9, 1, nan],
        "hour": [23, 0, nan],
        "share": [1437 / 23, nan, nan],
        "small": [np.log1p(1437), np.log1p(5), nan],
        "late": [0, 1, 0],
        "worth": [0.5, nan, 2],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(got[name].to_numpy(dtype=float), values, err_msg=name)
    assert got["name"][0] == "seven"
    assert got["name"].isna().tolist() == [False, True, True]
    assert "target" not in got
    assert list(frame.columns) == ["clock", "until", "at", "code"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, pd.DataFrame]]:
    """Real bundles: own models, naive winners, and partitions that nobody trained."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}
    for use_case, frame in ((demand(), sales(5)), (churn(), customers(600))):
        wide = tenant_wide_of(frame, use_case)
        models = train_batch(frame, whole_batch(frame, use_case), use_case, wide).models
        made[use_case.id] = (write_bundle(folder / use_case.id, use_case, models, wide, wide.naive), frame)
    return made


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 80), st.sampled_from(["demand", "churn"]), st.integers(1, 3))
def test_every_row_is_answered_once_in_its_place(
    bundles: dict[str, tuple[Path, pd.DataFrame]], seed: int, rows: int, which: str, threads: int
) -> None:
    folder, frame = bundles[which]
    everything = Scorer.open(folder).predict(frame)
    some = frame.sample(n=rows, replace=True, random_state=seed)
    answers = Scorer.open(folder, LatestModels(1)).predict(some, threads=threads)
    assert list(answers.columns) == ANSWER_SCHEMA.names
    assert (answers.index == some.index).all()
    expected = everything.loc[some.index]
    for name in ("partition", "answer", "fallback", "model_run", "prediction", "label"):
        assert answers[name].equals(expected[name].astype(answers[name].dtype)), name
    for name in ("baseline", "probabilities"):
        assert answers[name].tolist() == expected[name].tolist()


def test_unknown_keys_and_odd_values_get_an_answer(bundles: dict[str, tuple[Path, pd.DataFrame]]) -> None:
    folder, frame = bundles["demand"]
    odd = frame.head(6).assign(
        store=[0, 1, 999, -1, 0, 1],
        price=[np.inf, -np.inf, np.nan, 1e308, -1e308, 0.0],
        promo=["never seen", None, "%", "", "tv", "flyer"],
    )
    answers = Scorer.open(folder).predict(odd)
    assert np.isfinite(answers["prediction"]).all()
    assert answers["fallback"].tolist() == [False, False, True, True, False, False]
    assert answers["answer"].tolist()[2:4] == ["tenant_wide"] * 2
    assert answers["model_run"].tolist()[2:4] == [7, 7]


def test_without_a_tenant_wide_model_the_naive_rule_answers(tmp_path: Path) -> None:
    use_case, frame = demand(), sales(1)
    scorer = Scorer.open(write_bundle(tmp_path / "bundle", use_case, [], None, [2.5]))
    answers = scorer.predict(frame)
    assert set(answers["answer"]) == {"naive"}
    assert answers["fallback"].all()
    np.testing.assert_allclose(answers["prediction"], frame["last_week"] + 2.5)
    assert answers["baseline"].tolist() == [[value] for value in answers["prediction"]]


def test_probabilities_add_up_and_the_label_is_the_likeliest(
    bundles: dict[str, tuple[Path, pd.DataFrame]],
) -> None:
    folder, frame = bundles["churn"]
    answers = Scorer.open(folder).predict(frame)
    probabilities = np.vstack(answers["probabilities"])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    classes = np.array(churn().classes)
    assert (answers["label"] == classes[probabilities.argmax(axis=1)]).all()
    assert answers["prediction"].isna().all()
    assert (answers["label"] == frame["state"]).mean() > 0.8


def test_a_missing_feature_is_named(bundles: dict[str, tuple[Path, pd.DataFrame]]) -> None:
    folder, frame = bundles["demand"]
    with pytest.raises(ValueError, match="missing: price"):
        Scorer.open(folder).predict(frame.drop(columns="price"))
