"""Pseudonyms, and errors that quote nothing."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import traceback

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.contract import Contract
from tasks.domain.errors import OrchardError, UnreadableUpload
from tasks.personal import Pseudonyms, discreetly, without_personal

OURS, THEIRS = Pseudonyms(bytes(range(32))), Pseudonyms(bytes(32))

CONTRACT = Contract.model_validate(
    {
        "columns": {
            "customer": {"type": "string", "personal": "hash"},
            "born": {"type": "date", "personal": "drop"},
            "price": {"type": "number"},
        },
        "row_key": ["customer"],
    }
)


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_a_column_is_hashed_value_by_value_and_nulls_stay(values: list[str | None]) -> None:
    column = pd.Series(values, index=range(5, 5 + len(values)), name="customer", dtype="str")
    hashed = OURS.of_all(column)
    expected = [None if value is None else OURS.of(value) for value in values]
    assert hashed.astype(object).where(hashed.notna(), None).tolist() == expected
    assert hashed.index.equals(column.index)
    assert hashed.dtype == column.dtype


def test_a_pseudonym_is_the_hmac_that_rfc_2104_defines() -> None:
    expected = hmac.new(OURS.key, "Jürgen".encode(), hashlib.sha256).hexdigest()[:32]
    assert OURS.of("Jürgen") == OURS.of_all(pd.Series(["Jürgen"], dtype="str"))[0] == expected


def test_tenants_have_pseudonyms_of_their_own_and_keep_the_key_to_themselves() -> None:
    assert OURS.of("anna") != THEIRS.of("anna")
    assert pickle.loads(pickle.dumps(OURS)) == OURS
    assert OURS.key.hex() not in repr(OURS)
    assert repr(OURS.key) not in repr(OURS)
    with pytest.raises(ValueError, match="32 bytes"):
        Pseudonyms(b"short")


def test_rows_lose_what_is_dropped_and_keep_the_rest() -> None:
    frame = pd.DataFrame(
        {"customer": ["anna", "ben"], "born": pd.Timestamp("1990-01-01"), "price": 1.0, "_line": [2, 3]}
    )
    kept = without_personal(frame, CONTRACT, OURS)
    assert list(kept) == ["customer", "price", "_line"]
    assert kept["customer"].tolist() == [OURS.of("anna"), OURS.of("ben")]
    assert frame["customer"].tolist() == ["anna", "ben"]
    assert without_personal(frame[["price"]], CONTRACT, OURS) is not None


def said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_an_error_leaves_without_the_words_of_a_library() -> None:
    with pytest.raises(OrchardError) as caught, discreetly(CONTRACT):
        int("anna")
    assert "anna" not in said(caught.value).replace('int("anna")', "")
    assert "ValueError" in str(caught.value)
    assert "test_personal.py:" in str(caught.value)


def test_an_error_of_ours_leaves_without_what_led_to_it() -> None:
    def read(text: str) -> None:
        try:
            float(text)
        except ValueError as error:
            raise UnreadableUpload("the file cannot be read", hint="upload it again") from error

    with pytest.raises(UnreadableUpload, match="upload it again") as caught, discreetly(CONTRACT):
        read("anna")
    assert "could not convert" not in said(caught.value)


def test_nothing_changes_without_personal_columns() -> None:
    plain = Contract.model_validate({"columns": {"price": {"type": "number"}}, "row_key": ["price"]})
    with pytest.raises(ValueError, match="anna"), discreetly(plain):
        int("anna")
