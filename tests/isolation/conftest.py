"""One guarded store for the tests of isolation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.isolation.credentials import forget
from tests.isolation.store import Store, running_store


@pytest.fixture(scope="package")
def store() -> Iterator[Store]:
    """A real S3 endpoint that authorizes every call."""
    with running_store() as running:
        yield running


@pytest.fixture(autouse=True)
def no_credentials_kept() -> Iterator[None]:
    """What one test assumed is nothing to the next."""
    forget()
    yield
    forget()
