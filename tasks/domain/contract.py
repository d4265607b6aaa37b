"""The contract of a use case: which columns a file has, of which type, and which purpose needs which."""

from __future__ import annotations

import codecs
import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

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


class Personal(StrEnum):
    """What becomes of a column that tells who somebody is; its raw values are never kept."""

    DROP = "drop"  # it is checked, and never stored
    HASH = "hash"  # a hash under the tenant's own key takes its place


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
    personal: Personal | None = Field(default=None, description="rules are checked on what the file says, all the same")
    purposes: tuple[Purpose, ...] | None = Field(
        default=None, description="uploads that must have this column; by default derived from its role"
    )

    @field_validator("allowed")
    @classmethod
    def _as_the_column_has_them(
        cls, allowed: tuple[str | int | float | bool, ...] | None, info: ValidationInfo
    ) -> tuple[str | int | float | bool, ...] | None:
        """YAML makes a number of `1` where the column has text; no cell would ever equal it."""
        if allowed is None or info.data.get("type") is not ColumnType.STRING:
            return allowed
        if any(isinstance(value, bool) for value in allowed):
            raise ValueError("allowed has true or false, which unquoted yes, no, on and off are too: write 'yes'")
        return tuple(str(value) for value in allowed)

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        if (self.min is not None or self.max is not None) and self.type not in NUMERIC_TYPES:
            raise ValueError(f"min and max need a numeric column, this one is {self.type}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.pattern is not None and self.type is not ColumnType.STRING:
            raise ValueError(f"a pattern needs a string column, this one is {self.type}")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"{self.pattern!r} is no regular expression: {error}") from None
        if self.allowed is not None and not self.allowed:
            raise ValueError("allowed must name at least one value")
        if self.personal is Personal.HASH and self.type is not ColumnType.STRING:
            raise ValueError(f"personal: hash needs a string column, this one is {self.type}; text may hold numbers")
        return self


NOT_OF_FILES = {"undefined", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7"}
"""Names that Python, too, calls encodings: what they decode is no text as files have it, or looks like another."""


def _is_encoding(name: str) -> str:
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        raise ValueError("there is no such encoding") from None
    # Others unpack archives or turn letters round.
    if not found._is_text_encoding or found.name.replace("_", "-") in NOT_OF_FILES:
        raise ValueError("not an encoding of text files")
    return name


Encoding = Annotated[str, StringConstraints(max_length=40), AfterValidator(_is_encoding)]


class Contract(Frozen):
    """Columns by name, the row key that identifies a row, and how files are read."""

    columns: dict[ColumnName, Column] = Field(min_length=1)
    row_key: tuple[ColumnName, ...] = Field(min_length=1)
    extra_columns: Literal["refuse", "ignore"] = "refuse"
    encoding: Encoding = Field(default="utf-8", description="of text files without a byte order mark")
    max_bad_rows: float = Field(default=0.1, ge=0, le=1, description="share of bad rows above which a file is rejected")

    @model_validator(mode="after")
    def _row_key_is_declared(self) -> Contract:
        for name in self.row_key:
            if name not in self.columns:
                raise ValueError(f"row_key names the column {name!r}, which the contract does not have")
            if self.columns[name].nullable:
                raise ValueError(f"row_key column {name!r} must not be nullable")
            if self.columns[name].personal is Personal.DROP:
                raise ValueError(f"row_key names the column {name!r}, which is personal and dropped; it can be hashed")
        if len(set(self.row_key)) != len(self.row_key):
            raise ValueError("row_key names a column twice")
        return self

    @property
    def stored(self) -> dict[str, Column]:
        """Columns that the use case's table has: all but the dropped ones."""
        return {name: column for name, column in self.columns.items() if column.personal is not Personal.DROP}

    @property
    def personal(self) -> frozenset[str]:
        """Columns whose raw values must not be kept."""
        return frozenset(name for name, column in self.columns.items() if column.personal is not None)
