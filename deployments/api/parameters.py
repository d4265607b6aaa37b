"""Parameters that several endpoints share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import StringConstraints

from tasks.domain.names import UseCaseId

Text = Annotated[str, StringConstraints(max_length=5_000, pattern=r"^[^\x00]*$")]
"""Text that may be compared with what the database holds; it has no NUL."""

UseCaseInPath = Annotated[
    UseCaseId, Path(description="One of yours: `GET /v1/use-cases` lists them.", examples=["demand"])
]
