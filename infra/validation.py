"""Great Expectations checks uploads against the contract: it says which rows are bad, and keeps a page that shows it.

One ephemeral context and one suite per upload; every chunk is a batch of its own (a fresh asset, dropped afterwards:
validators that share a DataFrame asset validated the wrong frame). Great Expectations is imported on first use (2.4 s).
"""

from __future__ import annotations

import contextlib
import copy
import html
import logging
import math
import threading
import uuid
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.domain.contract import Column, ColumnType
from tasks.domain.names import Purpose
from tasks.domain.run import Upload
from tasks.domain.use_case import UseCase
from tasks.ports import UNPARSED, Files

RESULT_FORMAT = {"result_format": "COMPLETE", "return_unexpected_index_query": False}
"""Without index columns: the index list is then the frame's own index."""

LARGEST = 1.7976931348623157e308
EXAMPLES = 20

_ONE_AT_A_TIME = threading.RLock()
"""Great Expectations keeps its current project in a global, so threads of one process take turns."""


@dataclass(frozen=True)
class Rule:
    """One rule of the contract: what people read, and the expectation that judges it."""

    text: str
    column: str
    expectation: str
    arguments: dict[str, Any]


def rules(use_case: UseCase, purpose: Purpose) -> list[Rule]:
    """The rules that an upload for this purpose is checked against, in contract order."""
    found = [Rule("unreadable", UNPARSED, "ExpectColumnValuesToBeNull", {})]
    for name in use_case.columns_for(purpose):
        found += _rules_of(name, use_case.contract.columns[name])
    return found


def _rules_of(name: str, column: Column) -> list[Rule]:
    found = []
    if not column.nullable:
        found.append(Rule(f"{name} is missing", name, "ExpectColumnValuesToNotBeNull", {}))
    bounded = column.min is not None or column.max is not None
    # An infinite value is outside any range; where it may be null, a number may be infinite (models see it as missing).
    if (bounded or (column.type is ColumnType.NUMBER and not column.nullable)) and (
        column.type is not ColumnType.BOOLEAN
    ):
        low = column.min if column.min is not None else -LARGEST
        high = column.max if column.max is not None else LARGEST
        shown = [_shown(column.min, "-inf"), _shown(column.max, "inf")]
        text = f"{name} is outside {shown[0]} to {shown[1]}" if bounded else f"{name} is not finite"
        arguments = {"min_value": low, "max_value": high}
        found.append(Rule(text, name, "ExpectColumnValuesToBeBetween", arguments))
    if column.allowed is not None:
        values: list[Any] = list(column.allowed)
        if column.type in {ColumnType.DATE, ColumnType.TIMESTAMP}:
            values = [pd.Timestamp(str(value)) for value in values]
            if column.type is ColumnType.TIMESTAMP:
                values = [v.tz_localize("UTC") if v.tz is None else v.tz_convert("UTC") for v in values]
        found.append(
            Rule(f"{name} is not an allowed value", name, "ExpectColumnValuesToBeInSet", {"value_set": values})
        )
    if column.pattern is not None:
        found.append(
            Rule(
                f"{name} does not match {column.pattern}",
                name,
                "ExpectColumnValuesToMatchRegex",
                {"regex": column.pattern},
            )
        )
    return found


def _shown(bound: float | None, without: str) -> str:
    return without if bound is None else f"{bound:g}"


class ExpectationsValidator:
    """Implements `tasks.ports.Validator` for one upload. Made and used in one process; it does not pickle."""

    def __init__(self, use_case: UseCase, upload: Upload, files: Files) -> None:
        self._use_case, self._upload, self._files = use_case, upload, files
        self._rules = rules(use_case, upload.purpose)
        self._personal = use_case.contract.personal
        self._source: Any = None
        self._suite: Any = None
        self._totals: list[Any] = []
        self._rows = 0

    def check(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One row per broken rule and row: `row` (label of the frame's index), `rule` (text for people)."""
        with _ONE_AT_A_TIME, _quietly():
            self._open()
            name = f"chunk-{uuid.uuid4().hex}"
            asset = self._source.add_dataframe_asset(name)
            columns = list(dict.fromkeys(rule.column for rule in self._rules))
            try:
                batch = asset.add_batch_definition_whole_dataframe(name).get_batch(
                    batch_parameters={"dataframe": frame[columns]}
                )
                outcome = batch.validate(self._suite, result_format=RESULT_FORMAT)
            finally:
                self._source.delete_asset(name)
                # The engine would keep every chunk that it has seen: the whole upload.
                kept = self._source.get_execution_engine().batch_manager
                kept.batch_data_cache.clear()
                kept.reset_batch_cache()
        # Results need not come in the order of the suite: the number in `meta` says whose they are.
        results = sorted(outcome.results, key=lambda result: result.expectation_config.meta["rule"])
        self._rows += len(frame)
        self._add(results)
        return self._broken(frame, results)

    def _open(self) -> None:
        if self._suite is not None:
            return
        import great_expectations as gx
        import great_expectations.expectations as gxe

        # This module sets its own logger to INFO, past the level of the package: it announces its temporary folder.
        logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
        context = gx.get_context(mode="ephemeral")
        context.enable_analytics(False)
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        self._source = context.data_sources.add_pandas("upload")
        expectations = [
            getattr(gxe, rule.expectation)(column=rule.column, meta={"rule": number}, **rule.arguments)
            for number, rule in enumerate(self._rules)
        ]
        # An expectation object cannot serve two suites, so these are made for this one alone.
        self._suite = context.suites.add(gx.ExpectationSuite(name=self._use_case.id, expectations=expectations))

    def _broken(self, frame: pd.DataFrame, results: list[Any]) -> pd.DataFrame:
        parts = []
        unreadable: dict[str, set[Any]] = {}
        for rule, result in zip(self._rules, results, strict=True):
            info = result.exception_info or {}
            if info.get("raised_exception") or "unexpected_index_list" not in result.result:
                if not result.success and len(frame):
                    raise RuntimeError(f"the rule {rule.text!r} could not be evaluated: {info}")
                continue
            labels = result.result["unexpected_index_list"] or []
            if rule.column == UNPARSED:
                texts = frame.loc[labels, UNPARSED].str.split("\n").explode()
                parts.append(pd.DataFrame({"row": texts.index, "rule": texts.to_numpy()}))
                for text, rows in texts.groupby(texts):
                    unreadable.setdefault(str(text).split(" ", 1)[0], set()).update(rows.index)
                continue
            if labels and rule.expectation == "ExpectColumnValuesToNotBeNull":
                # A cell that could not be read is null in the frame, but it is not missing.
                labels = [label for label in labels if label not in unreadable.get(rule.column, ())]
            parts.append(pd.DataFrame({"row": labels, "rule": rule.text}))
        parts = [part for part in parts if len(part)]
        if not parts:
            return pd.DataFrame({"row": pd.Series(dtype="int64"), "rule": pd.Series(dtype="str")})
        return pd.concat(parts, ignore_index=True)

    def _add(self, results: list[Any]) -> None:
        """Adds a chunk's figures to those of the report; index lists stay behind, the page shows examples, but for
        personal columns."""
        for number, result in enumerate(results):
            figures = {key: result.result.get(key, 0) for key in ("element_count", "unexpected_count", "missing_count")}
            shown = self._rules[number].column not in self._personal
            examples = list(result.result.get("partial_unexpected_list", [])) if shown else []
            if number < len(self._totals):
                total = self._totals[number]
                figures = {key: value + total.result.get(key, 0) for key, value in figures.items()}
                examples = [*total.result["partial_unexpected_list"], *examples]
            else:
                total = copy.copy(result)
                self._totals.append(total)
            present = figures["element_count"] - figures["missing_count"]
            bad = figures["unexpected_count"]
            total.result = {
                **figures,
                "partial_unexpected_list": [_plain(example) for example in examples[:EXAMPLES]],
                "unexpected_percent": 100.0 * bad / figures["element_count"] if figures["element_count"] else 0.0,
                "unexpected_percent_nonmissing": 100.0 * bad / present if present else 0.0,
            }
            total.success = bad == 0

    def report(self) -> str:
        """Renders the Data Docs page over all chunks; returns its path under the tenant's root."""
        path = f"reports/{self._use_case.id}/{self._upload.upload_id}/index.html"
        with _ONE_AT_A_TIME, _quietly():
            self._files.write(path, self._page().encode())
        return path

    def _page(self) -> str:
        self._open()
        import great_expectations as gx
        from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
        from great_expectations.render.renderer import ValidationResultsPageRenderer
        from great_expectations.render.view import DefaultJinjaPageView

        good = sum(bool(total.success) for total in self._totals)
        result = ExpectationSuiteValidationResult(
            results=self._totals,
            success=good == len(self._totals),
            suite_name=self._use_case.id,
            statistics={
                "evaluated_expectations": len(self._totals),
                "successful_expectations": good,
                "unsuccessful_expectations": len(self._totals) - good,
                "success_percent": 100.0 * good / len(self._totals) if self._totals else None,
            },
            meta={
                "great_expectations_version": gx.__version__,
                "run_id": {"run_name": self._upload.upload_id, "run_time": self._upload.received_at},
                "batch_kwargs": {"upload": self._upload.filename},
            },
        )
        page = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=True).render(result))
        title = f"{self._use_case.id} · {self._upload.purpose} · {self._upload.filename} · {self._rows:,} rows"
        return str(page).replace("<title>", f"<title>{html.escape(title)} · ", 1)


def _plain(value: Any) -> Any:
    if value is pd.NA or value is pd.NaT:  # whose truth the page would ask for
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return html.escape(value)  # the page would take a cell's text for a part of itself
    return value.isoformat() if hasattr(value, "isoformat") else value


@contextlib.contextmanager
def _quietly() -> Any:
    """Keeps Great Expectations' notices (one per asset and per context) out of the run's log."""
    logger = logging.getLogger("great_expectations")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
