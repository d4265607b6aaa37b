"""Requests that are made up, and what every answer to one is checked for."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deployments.serving.tables import ARROW, PARQUET

MINE, THEIRS = "api-fuzzed", "api-hidden"
MARKER = "zqx-their-own-words"
ROW = {"store": 0, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"}

LEAKS = re.compile(
    rf"{MARKER}|{THEIRS}|Traceback|psycopg|sqlalchemy|site-packages|postgresql|SELECT |"
    r"/tmp/|/srv/|/root|/home|0x[0-9a-f]{8}"
)
"""What is another tenant's, and how insides of the platform look."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

OF_ROUTING = (404, 405)
"""What a made-up path is answered with that leads to no endpoint, or to another one; without a detail."""

NOT_HTTP = b"Invalid HTTP request received."
"""What the server below says of headers that are none."""

HEADERS = ("orchard-tenant", "x-filename", "content-type")
"""The others that are made up are noise."""


@dataclass
class Target:
    """The API, as one tenant's admin reaches it, and ids of its own and of another's."""

    url: str
    session: requests.Session
    bearer: str
    hook: str
    paths: dict[str, list[Any]]
    cursors: list[str]

    def send(self, case: Any, bearer: str | None = None) -> requests.Response:
        """Sends a request that was made up; checks the answer."""
        secret = self.hook if case.path == "/hooks/s3" else self.bearer
        case.headers["Authorization"] = f"Bearer {bearer or secret}"
        answer = case.call(base_url=self.url, session=self.session)
        astray = answer.status_code in OF_ROUTING and "detail" not in answer.json()
        if answer.content != NOT_HTTP and not astray:
            case.validate_response(answer, checks=CHECKS)
        check(answer.status_code, answer.content, str(answer.headers))
        return answer

    def post(self, path: str, content: bytes, kind: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.bearer}", "Content-Type": kind}
        answer = self.session.post(f"{self.url}{path}", data=content, headers=headers)
        check(answer.status_code, answer.content, str(answer.headers))
        return answer


def check(status: int, content: bytes, headers: str) -> None:
    assert status < 500, content
    found = LEAKS.search(headers + content.decode(errors="replace"))
    assert found is None, f"{found} in {content[:2000]!r}"


def bounded(examples: int, **others: Any) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        **others,
    )


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the API took for its own fault."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TEXTS = st.sampled_from(
    ["", "NaN", "1e400", "-0", "١", "2013-02-30", "9999-12-31T23:59:59.999999+14:00", "\x00", "1" * 5000]
)
DAYS = st.datetimes().map(str) | st.dates().map(str) | st.floats().map(str)
ROWS = st.lists(
    st.fixed_dictionaries(
        {}, optional={name: JSON | TEXTS | DAYS | st.just(value) for name, value in ROW.items()} | {"odd": JSON}
    ),
    max_size=4,
)

TYPES = (
    pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(),
    pa.string_view(), pa.binary(), pa.binary(3), pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns"),
    pa.timestamp("s"), pa.timestamp("ns"), 
    pa.duration("ns"), pa.decimal128(38, 10), pa.decimal256(76, 0), pa.null(), pa.list_(pa.int64()),
    pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int64()), pa.dictionary(pa.int8(), pa.string()),
    pa.month_day_nano_interval(),
)  # fmt: skip


@st.composite
def columns(draw: st.DrawFn) -> pa.Array:
    """Three values of any type that Arrow has, one of them null perhaps."""
    kind = draw(st.sampled_from(TYPES))
    bits = draw(st.lists(st.integers(-(2**31), 2**31), min_size=3, max_size=3))
    if draw(st.booleans()):
        bits[0] = None
    for base in (pa.int64(), pa.string()):
        try:
            return pa.array(
                [None if bit is None else (bit if base == pa.int64() else str(bit)) for bit in bits], base
            ).cast(kind)
        except (pa.ArrowException, ValueError):
            continue
    return pa.nulls(3, kind)


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, str]:
    """A table of odd columns, as Arrow or as Parquet, sometimes damaged."""
    names = draw(st.lists(st.sampled_from([*ROW, "odd"]), min_size=1, max_size=5))
    table = pa.Table.from_arrays([draw(columns()) for _ in names], names)
    sink, kind = io.BytesIO(), draw(st.sampled_from([ARROW, PARQUET]))
    try:
        if kind == PARQUET:
            pq.write_table(table, sink)
        else:
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
    except (pa.ArrowException, ValueError):  # not every type can be a file
        return b"PAR1", PARQUET
    content = bytearray(sink.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.sampled_from([None, len(content) // 2]))]), kind
