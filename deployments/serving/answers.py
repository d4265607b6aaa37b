"""The answers to one request: stored ones where the use case allows it, predicted ones for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from deployments.serving.precomputed import Precomputed
from deployments.serving.releases import Serving
from tasks.online.predict import partitions_of, predict_rows, row_keys_of
from tasks.scorer import TENANT_WIDE

FEW_ROWS = 4
SMALL_BYTES = 4_000_000
"""Of models, each counted once per row: to predict with so many takes a fraction of a millisecond."""


class Asked(NamedTuple):
    """What a request asks for; `at_once`: without waiting for anything."""

    rows: Sequence[object]
    explain: bool = False
    at_once: bool = False


class NotAtOnce(Exception):
    """The answer takes a while: it needs a file or the database, or more than a moment of computing."""


class Answering(Protocol):
    """What answers are made with."""

    @property
    def precomputed(self) -> Precomputed: ...


def answer(by: Answering, serving: Serving, asked: Asked) -> list[dict[str, Any]]:
    """One answer per row, in their order. Raises `BadRows`, `NotAtOnce`."""
    stores = serving.use_case.online.precomputed_s is not None
    if asked.at_once and (stores or asked.explain or len(asked.rows) > FEW_ROWS):
        raise NotAtOnce
    columns = serving.reader.read(asked.rows)
    names = partitions_of(columns, serving.use_case)
    if asked.at_once and not _at_hand(serving, names):
        raise NotAtOnce
    stored: dict[int, dict[str, Any]] = {}
    if stores and not asked.explain:
        stored = by.precomputed.find(serving, row_keys_of(columns, serving.use_case))
        if len(stored) == columns.count:
            return [stored[number] for number in range(columns.count)]
    found = predict_rows(serving.scorer, names, columns, asked.explain)
    for number, each in enumerate(found):
        each["source"] = "fallback" if each["fallback"] else "online"
        if number in stored:
            found[number] = stored[number]
    return found


def _at_hand(serving: Serving, names: Iterable[str]) -> bool:
    """Whether the models of these rows are in memory, and small."""
    total, entries = 0, serving.scorer.entries
    for name in names:
        entry = entries.get(name, entries[TENANT_WIDE])
        if entry.answer == "naive":
            continue
        size = serving.models.bytes_held(name if entry.answer == "own" else TENANT_WIDE)
        if size is None:
            return False
        total += size
    return total <= SMALL_BYTES
