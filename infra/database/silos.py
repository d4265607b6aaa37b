"""Questions to the databases that silos have of their own: one that does not answer is nobody else's business."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from infra.database.deadline import within
from tasks.domain.errors import OrchardError

Said = TypeVar("Said")


def each_silo(
    urls: Mapping[str | None, str], within_s: float, ask: Callable[[str], Said]
) -> Iterator[tuple[str, Said | None]]:
    """What each silo's database says, by tenant; None of one that does not say it in time: it is locked, or gone.

    `urls` are those of `Operator.data_urls`; that of all others, under None, is left out.
    """
    for tenant, url in urls.items():
        if tenant is None:
            continue
        said = None
        try:
            with within(within_s):
                said = ask(url)
        except (OrchardError, DBAPIError):
            pass
        yield tenant, said
