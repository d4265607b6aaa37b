"""The contract of a use case: which columns a file has, of which type, and which purpose needs which."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.domain.names import ColumnName, Purpose


class Frozen(BaseModel):
    """Base of all domain types: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ColumnType(StrEnum):
    """Types of contract columns. `timestamp` is stored in UTC; text without an offset is taken as UTC."""

    INTEGER = "integer"
    NUMBER = "number"
    STRING = "string"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"


NUMERIC_TYPES = frozenset({ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.BOOLEAN})
KEY_TYPES = frozenset({ColumnType.INTEGER, ColumnType.STRING, ColumnType.BOOLEAN, ColumnType.DATE})


class Column(Frozen):
    """One column: its type and the rules that every row is checked against."""

    type: ColumnType
    nullable: bool = False
    min: float | None = None
    max: float | None = None
    allowed: tuple[str | int | float | bool, ...] | None = None
    pattern: str | None = None
    purposes: tuple[Purpose, ...] | None = Field(
        default=None, description="uploads that must have this column; by default derived from its role"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        if (self.min is not None or self.max is not None) and self.type not in NUMERIC_TYPES:
            raise ValueError(f"min and max need a numeric column, this one is {self.type}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.pattern is not None and self.type is not ColumnType.STRING:
            raise ValueError(f"a pattern needs a string column, this one is {self.type}")
        if self.allowed is not None and not self.allowed:
            raise ValueError("allowed must name at least one value")
        return self


class Contract(Frozen):
    """Columns by name, the row key that identifies a row, and how files are read."""

    columns: dict[ColumnName, Column] = Field(min_length=1)
    row_key: tuple[ColumnName, ...] = Field(min_length=1)
    extra_columns: Literal["refuse", "ignore"] = "refuse"
    encoding: str = Field(default="utf-8", description="of text files without a byte order mark")
    max_bad_rows: float = Field(default=0.1, ge=0, le=1, description="share of bad rows above which a file is rejected")

    @model_validator(mode="after")
    def _row_key_is_declared(self) -> Contract:
        for name in self.row_key:
            if name not in self.columns:
                raise ValueError(f"row_key names the column {name!r}, which the contract does not have")
            if self.columns[name].nullable:
                raise ValueError(f"row_key column {name!r} must not be nullable")
        if len(set(self.row_key)) != len(self.row_key):
            raise ValueError("row_key names a column twice")
        return self
