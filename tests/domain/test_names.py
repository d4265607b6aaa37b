"""No name that is made of ids is made of two different sets of them: a shared name would be a shared thing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tasks.domain.names import SecretName, TenantId, UseCaseId, artifact_key, registered_model_name, secret_block

# Few letters, so that hyphens fall into every place where two ids could meet.
TENANTS = st.from_regex(r"[ab]{1,2}(-[ab]{1,2}){0,2}", fullmatch=True)
USE_CASES = st.from_regex(r"[ab]{1,2}(-[ab]{1,2}){0,2}", fullmatch=True)
SECRETS = st.from_regex(r"[ab]{1,2}", fullmatch=True)


def pairs_of(others: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(TENANTS, others), min_size=2, max_size=50, unique=True)


@given(st.one_of(*(st.tuples(st.just(name), pairs_of(others)) for name, others in (
    (registered_model_name, USE_CASES),
    (secret_block, SECRETS),
    (lambda tenant, use_case: artifact_key(tenant, use_case, "receipt"), USE_CASES),
))))  # fmt: skip
def test_a_name_names_one_thing(case: tuple[Callable[[str, str], str], list[tuple[str, str]]]) -> None:
    name, pairs = case
    for pair in pairs:
        TypeAdapter(tuple[TenantId, UseCaseId]).validate_python(pair)
    assert len({name(*pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("secret", ["eu-warehouse", "-", "a-", "Warehouse", "a.b", ""])
def test_a_secret_that_could_be_anothers_is_no_name(secret: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        TypeAdapter(SecretName).validate_python(secret)
