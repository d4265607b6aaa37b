"""A tenant's own database, as a source of rows: what is new since a watermark, as a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import NullPool

from tasks.domain.errors import ContractBroken, InvalidDefinition, Retryable

CHUNK_ROWS = 100_000


class Fetched(NamedTuple):
    """What a fetch found; `watermark` is where the next one begins."""

    rows: int
    watermark: object


def fetch(url: str, query: str, column: str, since: Any, into: Path, *, quotable: bool = True) -> Fetched:
    """Runs a query with the parameter `:watermark` and writes its rows to a Parquet file, in bounded memory.

    Nothing is written where there is no row. Raises `InvalidDefinition` for a URL or query that cannot be used,
    `ContractBroken` when the result lacks the watermark's column, `Retryable` when the database does not answer; no
    message holds the URL's password nor, unless they are `quotable`, the database's own words.
    """
    try:
        where = make_url(url).render_as_string(hide_password=True)
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise InvalidDefinition(
            "the source's database cannot be reached with this URL",
            expected="an SQLAlchemy URL whose driver is installed",
            found=type(error).__name__,
        ) from None
    rows, parts = 0, list[Path]()
    greatest: list[Any] = []
    try:
        with engine.connect().execution_options(stream_results=True) as connection:
            for frame in pd.read_sql_query(text(query), connection, params={"watermark": since}, chunksize=CHUNK_ROWS):
                if column not in frame:
                    raise ContractBroken("the pull's result lacks its watermark", expected=column, where=where)
                if frame.empty:
                    continue
                parts.append(into.with_name(f"{into.name}.{len(parts)}"))
                table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
                pq.write_table(table, parts[-1], compression="zstd")
                rows += len(frame)
                if frame[column].notna().any():
                    greatest.append(frame[column].max())
    except (DBAPIError, pd.errors.DatabaseError) as error:
        cause = error if isinstance(error, DBAPIError) else error.__cause__  # pandas wraps some of them
        passing = isinstance(cause, OperationalError) or bool(getattr(cause, "connection_invalidated", False))
        kind = Retryable if passing else InvalidDefinition
        origin = getattr(cause, "orig", cause)
        found = str(origin).splitlines()[0][:300] if quotable else type(origin).__name__
        raise kind("the pull did not work", where=where, found=found, hint="try the query by hand") from None
    finally:
        engine.dispose()
    _join(parts, into)
    return Fetched(rows, _plain(max(greatest)) if greatest else since)


def _join(parts: Sequence[Path], into: Path) -> None:
    """One file of all parts, which are removed. What type a column has, not every part can tell: one may have no value
    in it."""
    if not parts:
        return
    schema = pa.unify_schemas([pq.read_schema(part) for part in parts], promote_options="permissive")
    with pq.ParquetWriter(into, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pq.read_table(part).cast(schema))
            part.unlink()


def _plain(value: Any) -> object:
    """A cell of pandas as Python has it."""
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value
