"""What nobody foresaw: a person gets one line, and the traceback goes to a file for whoever mends it."""

from __future__ import annotations

import shlex
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from infra.settings import load_settings
from tasks.domain.errors import OrchardError


def unexpected(error: Exception) -> OrchardError:
    """The message for an error that is no `OrchardError`; its traceback is written below `home/logs`."""
    kind = type(error).__name__
    text = f"{kind}: {error}".strip().splitlines()
    return OrchardError(
        f"this should not have happened: {text[0].rstrip(': ')[:500] if text else kind}",
        where=_written("".join(traceback.format_exception(error))),
        hint="the command can be repeated; if it fails again, report it with that file",
    )


def _written(text: str) -> str:
    """Path of the new log file; where the disk takes no file, the last lines themselves."""
    now = datetime.now(UTC)
    text = f"{now.isoformat()}  {shlex.join(sys.argv)}\n{text}"
    for folder in (_logs, tempfile.gettempdir):
        try:
            path = Path(folder()) / f"orchard-{now:%Y%m%d-%H%M%S-%f}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except (OSError, OrchardError):
            continue
        return str(path)
    return f"no log file could be written; the last lines: {' | '.join(text.strip().splitlines()[-3:])}"


def _logs() -> str:
    return str(load_settings().home / "logs")
