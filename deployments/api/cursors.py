"""Where the next page begins, as text that callers hand back.

A cursor is a position in one listing and nothing else: tenant, use case and filters are those of the request. So
whoever makes one up reads nothing that the request without it would not lead to.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import Field, TypeAdapter

from deployments.api.problems import INVALID, Mistake, Problem

Position = TypeVar("Position")

Number = Annotated[int, Field(ge=0, lt=2**63)]

MAX_CURSOR = 20_000


def listing_id(*parts: object) -> str:
    """Names a listing: whose, of what, by which filters."""
    return hashlib.sha256(orjson.dumps([str(part) for part in parts])).hexdigest()[:16]


def sealed(listing: str, position: tuple[Any, ...]) -> str:
    """The position as a cursor of that listing."""
    return base64.urlsafe_b64encode(orjson.dumps([listing, *position])).decode().rstrip("=")


def opened(listing: str, cursor: str, kind: TypeAdapter[Position]) -> Position:
    """The position that a cursor of that listing holds. Raises `Problem`."""
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        content = orjson.loads(base64.b64decode(padded, altchars="-_", validate=True))
        found, position = content[0], kind.validate_python(tuple(content[1:]), strict=True)
    except (ValueError, TypeError, LookupError):  # of the alphabet, of JSON, of the position
        found, position = None, None
    if position is None or found != listing:
        mistake = Mistake(where="query.cursor", message="no answer to this request gave it; begin without a cursor")
        raise Problem(INVALID, "this is no cursor of this listing", errors=(mistake,))
    return position


def named(**filters: object) -> Mapping[str, object]:
    """The filters that were given."""
    return {name: value for name, value in filters.items() if value is not None}
