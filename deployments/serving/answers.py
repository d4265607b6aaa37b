"""The answers to one request: stored ones where the use case allows it, predicted ones for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from deployments.serving.precomputed import Precomputed
from deployments.serving.releases import Serving
from tasks.online.predict import predict_rows, row_keys_of


class Asked(NamedTuple):
    """What a request asks for."""

    rows: Sequence[object]
    explain: bool = False


class Answering(Protocol):
    """What answers are made with."""

    @property
    def precomputed(self) -> Precomputed: ...


def answer(by: Answering, serving: Serving, asked: Asked) -> list[dict[str, Any]]:
    """One answer per row, in their order. Raises `BadRows`."""
    columns = serving.reader.read(asked.rows)
    stored: dict[int, dict[str, Any]] = {}
    if serving.use_case.online.precomputed_s is not None and not asked.explain:
        stored = by.precomputed.find(serving, row_keys_of(columns, serving.use_case))
        if len(stored) == columns.count:
            return [stored[number] for number in range(columns.count)]
    found = predict_rows(serving.scorer, serving.use_case, columns, asked.explain)
    for number, each in enumerate(found):
        each["source"] = "fallback" if each["fallback"] else "online"
        if number in stored:
            found[number] = stored[number]
    return found
