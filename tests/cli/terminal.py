"""A terminal for tests: runs `orchard` commands in this process, as `main` would, or in one of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

ORCHARD = Path(sys.executable).with_name("orchard")


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as strict JSON."""
        return json.loads(self.out, parse_constant=_refuse)

    def failed(self, code: int, *says: str) -> Answer:
        """Checks that the command failed in a way that a person can use."""
        shown = f"{self.out}\n{self.err}"
        assert self.code == code, shown
        assert "Traceback" not in shown, shown
        assert 'File "' not in shown, shown
        for text in says:
            assert text in self.err, f"{text!r} is not in:\n{shown}"
        return self

    def worked(self) -> Answer:
        """Checks that the command succeeded."""
        assert self.code == 0, f"{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err, self.err
        return self


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


class Terminal:
    """Both streams are files that stay open: handlers of libraries keep the stream that they first saw."""

    def __enter__(self) -> Terminal:
        self._out = tempfile.TemporaryFile("w+")
        self._err = tempfile.TemporaryFile("w+")
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the streams open, see above."""

    def __call__(self, *words: object, answers: str = "") -> Answer:
        """Runs `orchard WORDS` here; `answers` is what the person types when asked."""
        from deployments.cli import main

        starts = [self._end(stream) for stream in (self._out, self._err)]
        code = 0
        # The arguments and the keyboard are the process's own, and there is no other way to hand them in.
        with (
            patch.object(sys, "argv", ["orchard", *map(str, words)]),
            patch.object(sys, "stdin", io.StringIO(answers)),
            redirect_stdout(self._out),
            redirect_stderr(self._err),
        ):
            try:
                main()
            except SystemExit as exit_:
                code = int(exit_.code or 0)
        out, err = (self._since(stream, start) for stream, start in zip((self._out, self._err), starts, strict=True))
        return Answer(code, out, err)

    def process(self, *words: object, **environment: str) -> Answer:
        """Runs `orchard WORDS` as a process of its own."""
        done = subprocess.run(
            [ORCHARD, *map(str, words)], capture_output=True, text=True, timeout=120, env=os.environ | environment
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    @staticmethod
    def _end(stream: Any) -> int:
        return int(stream.seek(0, io.SEEK_END))

    @staticmethod
    def _since(stream: Any, start: int) -> str:
        stream.flush()
        stream.seek(start)
        return str(stream.read())
