"""Rows of a request in, answers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.domain.names import partition_name
from tasks.domain.use_case import UseCase
from tasks.online.explain import contributions
from tasks.online.rows import RowColumns
from tasks.scorer import Answers, Integers, Scorer, encoded, value_text


def partitions_of(columns: RowColumns, use_case: UseCase) -> list[str]:
    """The partition name of each row; equal to `tasks.scorer.partition_names`."""
    types = [use_case.contract.columns[name].type.value for name in use_case.partition_by]
    keys = zip(*(columns[name] for name in use_case.partition_by), strict=True)
    return [
        partition_name(
            {name: value_text(value, kind) for name, value, kind in zip(use_case.partition_by, row, types, strict=True)}
        )
        for row in keys
    ]


def row_keys_of(columns: RowColumns, use_case: UseCase) -> list[str]:
    """The row key of each row as text; equal to `tasks.scorer.row_keys`."""
    types = [use_case.contract.columns[name].type.value for name in use_case.contract.row_key]
    keys = zip(*(columns[name] for name in use_case.contract.row_key), strict=True)
    return [
        ",".join(
            "" if value is None else encoded(value_text(value, kind)) for value, kind in zip(row, types, strict=True)
        )
        for row in keys
    ]


def predict_rows(
    scorer: Scorer, names: Sequence[str], columns: RowColumns, explain: bool = False
) -> list[dict[str, Any]]:
    """One answer per row: partition, prediction (or label and probabilities), baseline, answer, fallback, model_run.

    `names` are the rows' partitions. With `explain`, also what each feature contributes: see `tasks.online.explain`.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    codes = np.array([places[name] for name in names], dtype=np.int64)
    partitions = list(places)
    answers = scorer.answer(columns, codes, partitions)
    found = [_answer(scorer, answers, name, places[name], row) for row, name in enumerate(names)]
    if explain:
        for answer, explanation in zip(found, _explained(scorer, answers, partitions, codes), strict=True):
            answer["contributions"] = explanation
    return found


def _answer(scorer: Scorer, answers: Answers, partition: str, code: int, row: int) -> dict[str, Any]:
    entry, values = answers.entries[code], answers.values[row].tolist()
    found: dict[str, Any] = {"partition": partition}
    if scorer.classes:
        found["label"] = scorer.classes[int(answers.values[row].argmax())]
        found["probabilities"] = dict(zip(scorer.classes, values, strict=True))
    else:
        found["prediction"] = None if values[0] != values[0] else values[0]
    found["answer"], found["fallback"], found["model_run"] = entry.answer, entry.fallback, answers.runs[code]
    return found


def _explained(
    scorer: Scorer, answers: Answers, partitions: Sequence[str], codes: Integers
) -> list[Mapping[str, Any] | None]:
    found: list[Mapping[str, Any] | None] = [None] * len(codes)
    for place in range(len(partitions)):
        rows = np.flatnonzero(codes == place)
        entry = answers.entries[place]
        model = scorer.model_of(partitions[place], entry)
        if model is None:
            continue
        numeric = scorer.about["features"]["numeric"]
        explained = contributions(model, answers.features.rows(rows), numeric, scorer.classes)
        for row, each in zip(rows.tolist(), explained, strict=True):
            found[row] = each
    return found
