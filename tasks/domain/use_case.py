"""A use case: one ML problem of one tenant, as its YAML file declares it."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from tasks.domain.contract import KEY_TYPES, NUMERIC_TYPES, ColumnType, Contract, Frozen, Personal
from tasks.domain.derived import Derived, Lookup, Threshold
from tasks.domain.names import ColumnName, Purpose, UseCaseId
from tasks.domain.schedule import Pull, Schedule


class Kind(StrEnum):
    """What is predicted. `forecast` will join as a third kind."""

    REGRESSION = "regression"
    CLASSIFICATION = "classification"


class Estimator(StrEnum):
    """What can serve a partition, from the simplest to the most complex; the naive baseline is always admitted."""

    NAIVE = "naive"
    TENANT_WIDE = "tenant_wide"
    LINEAR = "linear"
    LIGHTGBM = "lightgbm"


class Metric(StrEnum):
    """Error metrics, lower is better; each is a mean over rows (rmse its root), so that partitions add up."""

    RMSE = "rmse"
    MAE = "mae"
    LOG_LOSS = "log_loss"
    BRIER = "brier"


METRICS_BY_KIND = {
    Kind.REGRESSION: (Metric.RMSE, Metric.MAE),
    Kind.CLASSIFICATION: (Metric.LOG_LOSS, Metric.BRIER),
}


class Features(Frozen):
    """Columns (or derived features) that models see."""

    numeric: tuple[ColumnName, ...] = ()
    categorical: tuple[ColumnName, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return self.numeric + self.categorical


class Gate(Frozen):
    """Business rules that a candidate must pass, per partition.

    Attributes:
        metric: error metric of the holdout; by default rmse or log_loss.
        max_error: absolute limit of that metric.
        min_gain: share by which a fitted model must beat the naive baseline (0.02 is 2 %).
        max_regression: share by which a candidate may be worse than the champion on the same new rows.
        min_holdout_rows: holdout rows below which nothing is promoted.
        approval: with `manual`, a release waits as `challenger`.
    """

    metric: Metric | None = None
    max_error: float | None = Field(default=None, gt=0)
    min_gain: float = Field(default=0.0, ge=-1, lt=1)
    max_regression: float = Field(default=0.05, ge=0)
    min_holdout_rows: int = Field(default=5, ge=1)
    approval: Literal["auto", "manual"] = "auto"


class LightGBMOptions(Frozen):
    """LightGBM's own parameter names; whatever is left out has LightGBM's default."""

    num_iterations: int = Field(default=100, ge=1, le=10_000)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    num_leaves: int = Field(default=31, ge=2, le=4096)
    max_depth: int = Field(default=-1, ge=-1, le=64)
    min_data_in_leaf: int = Field(default=20, ge=1)
    lambda_l2: float = Field(default=0.0, ge=0)
    feature_fraction: float = Field(default=1.0, gt=0, le=1)
    bagging_fraction: float = Field(default=1.0, gt=0, le=1)
    bagging_freq: int = Field(default=0, ge=0)
    max_bin: int = Field(default=255, ge=2, le=255)


class TenantWide(Frozen):
    """The one model over all partitions: sample size, when it is refitted, and its LightGBM options."""

    max_rows: int = Field(default=100_000, ge=100)
    refresh_growth: float = Field(
        default=0.1, ge=0, description="share of new labelled rows since its last fit that refits it"
    )
    lightgbm: LightGBMOptions = LightGBMOptions()


class Training(Frozen):
    """How partitions are trained. Raise `version` to have every partition trained anew."""

    version: int = Field(default=1, ge=1)
    min_rows: int = Field(default=40, ge=10)
    validation: float = Field(default=0.2, gt=0, lt=0.5)
    holdout: float = Field(default=0.2, gt=0, lt=0.5)
    refit: bool = Field(default=True, description="what serves is the winner refitted on all rows")
    timeout_s: float = Field(default=60.0, gt=0, description="per partition; a longer fit is given up")
    max_failed: float = Field(default=0.2, ge=0, le=1, description="share of failed partitions that stops a run")
    ridge_alpha: float = Field(default=1.0, ge=0)
    lightgbm: LightGBMOptions = LightGBMOptions()
    tenant_wide: TenantWide = TenantWide()


class Online(Frozen):
    """How single rows are answered.

    Attributes:
        precomputed_s: a row that batch scoring has answered within so many seconds gets that answer; None: each is
            predicted anew.
    """

    precomputed_s: float | None = Field(default=None, gt=0)


UNSHAPING = {"description", "team", "gate", "schedule", "pull", "online", "training"}
"""Fields of a use case that its models do not depend on; of `training`, some."""


class UseCase(Frozen):
    """One ML problem of one tenant.

    Raises a `ValueError` (through pydantic) that names the contradiction when fields do not fit together.
    """

    id: UseCaseId
    description: str = ""
    team: str = Field(default="", max_length=100, description="whom its costs are reported under")
    kind: Kind
    contract: Contract
    derived: dict[ColumnName, Derived] = Field(default={})
    partition_by: tuple[ColumnName, ...] = Field(min_length=1, max_length=5)
    target: ColumnName
    time: ColumnName | None = None
    features: Features
    baseline: ColumnName | None = Field(
        default=None, description="numeric column that is the natural guess; models fit what it misses"
    )
    estimators: tuple[Estimator, ...] = (Estimator.LIGHTGBM, Estimator.LINEAR, Estimator.TENANT_WIDE)
    gate: Gate = Gate()
    training: Training = Training()
    schedule: Schedule | None = Field(default=None, description="when it is refreshed, in UTC")
    pull: Pull | None = None
    online: Online = Online()

    @model_validator(mode="after")
    def _fits_together(self) -> UseCase:
        columns, derived = self.contract.columns, self.derived
        for name, feature in derived.items():
            if name in columns:
                raise ValueError(f"derived feature {name!r} has the name of a column")
            for source in feature.sources:
                self._must_exist(source, f"derived feature {name!r}", earlier_than=name)
        for name in self.partition_by:
            if name not in columns:
                raise ValueError(f"partition_by names {name!r}, which the contract does not have")
            if columns[name].type not in KEY_TYPES or columns[name].nullable:
                raise ValueError(
                    f"partition_by column {name!r} must be a non-nullable integer, string, boolean or date"
                )
        for name in self.features.all:
            self._must_exist(name, "features")
            if name == self.target or self.target in self._ancestors(name):
                raise ValueError(f"feature {name!r} is made of the target {self.target!r}")
        if len(set(self.features.all)) != len(self.features.all):
            raise ValueError("a feature is listed twice")
        if not self.features.all:
            raise ValueError("features must name at least one column")
        for name in self.features.numeric:
            if name in columns and columns[name].type not in NUMERIC_TYPES:
                raise ValueError(f"numeric feature {name!r} is a {columns[name].type} column")
            if self._is_text(name):
                raise ValueError(f"numeric feature {name!r} has texts in its table; it can be a categorical one")
        self._must_exist(self.target, "target")
        if self.time is not None and (
            self.time not in columns
            or columns[self.time].type not in {ColumnType.DATE, ColumnType.TIMESTAMP, ColumnType.INTEGER}
        ):
            raise ValueError(f"time must name a date, timestamp or integer column, not {self.time!r}")
        if self.baseline is not None:
            self._must_exist(self.baseline, "baseline")
            if self.kind is not Kind.REGRESSION:
                raise ValueError("baseline is for regression; a class has its base rates")
        if self.gate.metric is not None and self.gate.metric not in METRICS_BY_KIND[self.kind]:
            raise ValueError(f"gate.metric {self.gate.metric} does not fit {self.kind}")
        if self.kind is Kind.CLASSIFICATION and len(self.classes) < 2:
            raise ValueError(
                f"classification needs a target with classes: a threshold, or a column with allowed values; "
                f"{self.target!r} has neither"
            )
        numeric = self.target not in columns or columns[self.target].type in NUMERIC_TYPES
        numeric = numeric and not self._is_text(self.target)
        if self.kind is Kind.REGRESSION and not numeric:
            raise ValueError(f"regression needs a numeric target, {self.target!r} is not")
        if self.training.validation + self.training.holdout >= 0.8:
            raise ValueError("validation and holdout leave less than 20 % of the rows for training")
        for name in self.target_columns:
            if name in self.contract.row_key or name in self.partition_by:
                raise ValueError(f"{name!r} makes the target and cannot be a key")
        for name in (*self.partition_by, *self.features.all, *((self.baseline,) if self.baseline else ())):
            self._must_come_with(name, Purpose.HISTORY, Purpose.SCORING)
        for name in self.contract.row_key:
            self._must_come_with(name, *Purpose)
        self._must_come_with(self.target, Purpose.HISTORY)
        return self

    @model_validator(mode="after")
    def _personal_columns_are_not_needed(self) -> UseCase:
        """What is dropped can serve nothing; of what is hashed, only that two values are equal."""
        identifying = {"partition_by": self.partition_by, "features.categorical": self.features.categorical}
        valued = {
            "features.numeric": self.features.numeric,
            "target": (self.target,),
            "time": (self.time,),
            "baseline": (self.baseline,),
            **{f"derived feature {name!r}": feature.sources for name, feature in self.derived.items()},
        }
        for name in self.contract.personal:
            hashed = self.contract.columns[name].personal is Personal.HASH
            for role, names in (valued if hashed else valued | identifying).items():
                if name in names:
                    kept = "of which only a hash is kept" if hashed else "which is personal and dropped"
                    raise ValueError(f"{role} names the column {name!r}, {kept}")
            if self.pull is not None and self.pull.watermark == name:
                raise ValueError(f"pull.watermark is kept as it is, and the column {name!r} is personal")
        return self

    def _must_come_with(self, name: str, *purposes: Purpose) -> None:
        needed = {name} | self._ancestors(name)
        for column in self.contract.columns:
            for purpose in purposes:
                if column in needed and purpose not in self._purposes(column):
                    raise ValueError(f"{name!r} needs the column {column!r}, which {purpose} uploads do not have")

    def _must_exist(self, name: str, who: str, earlier_than: str | None = None) -> None:
        known = list(self.derived)
        if earlier_than is not None:
            known = known[: known.index(earlier_than)]
        if name not in self.contract.columns and name not in known:
            raise ValueError(f"{who} names {name!r}, which is neither a column nor a derived feature above")

    def _is_text(self, name: str) -> bool:
        """Whether it is derived from a table of texts."""
        spec = self.derived.get(name)
        return isinstance(spec, Lookup) and any(isinstance(value, str) for value in spec.table.values())

    def _ancestors(self, name: str) -> set[str]:
        if name not in self.derived:
            return set()
        sources = set(self.derived[name].sources)
        return sources.union(*(self._ancestors(source) for source in sources))

    @property
    def target_columns(self) -> tuple[str, ...]:
        """Contract columns that the target is, or is derived from."""
        names = {self.target} | self._ancestors(self.target)
        return tuple(name for name in self.contract.columns if name in names)

    @property
    def predictors(self) -> tuple[str, ...]:
        """Contract columns that features and the baseline are, or are derived from."""
        known = (*self.features.all, *((self.baseline,) if self.baseline else ()))
        names = set(known).union(*(self._ancestors(name) for name in known))
        return tuple(name for name in self.contract.columns if name in names)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class labels as text, in the order of the probabilities; empty for regression."""
        if self.kind is not Kind.CLASSIFICATION:
            return ()
        if isinstance(self.derived.get(self.target), Threshold):
            return ("0", "1")
        column = self.contract.columns.get(self.target)
        if column is not None and column.type is ColumnType.BOOLEAN:
            return ("False", "True")
        return tuple(str(value) for value in (column.allowed or ())) if column else ()

    @property
    def metric(self) -> Metric:
        """The metric that estimators are chosen and judged by."""
        return self.gate.metric or METRICS_BY_KIND[self.kind][0]

    def columns_for(self, purpose: Purpose) -> tuple[str, ...]:
        """Contract columns that an upload for this purpose must have, in contract order."""
        return tuple(name for name in self.contract.columns if purpose in self._purposes(name))

    def _purposes(self, name: str) -> tuple[Purpose, ...]:
        declared = self.contract.columns[name].purposes
        if declared is not None:
            return declared
        if name in self.contract.row_key:
            return (Purpose.HISTORY, Purpose.SCORING, Purpose.ACTUALS)
        if name in self.target_columns:
            return (Purpose.HISTORY, Purpose.ACTUALS)
        return (Purpose.HISTORY, Purpose.SCORING)

    def contract_hash(self) -> str:
        """Digest of everything that shapes a model; schedule, gate, team and description do not."""
        shape = self.model_dump(mode="json", exclude=UNSHAPING)
        for column in shape["contract"]["columns"].values():
            if column["personal"] is None:
                del column["personal"]  # as in contracts that were written before there was such a thing
        shape["metric"] = self.metric.value
        shape["training"] = self.training.model_dump(mode="json", exclude={"version", "timeout_s", "max_failed"})
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
