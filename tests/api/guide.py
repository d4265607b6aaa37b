"""The tenant's guide as something to run: its blocks, in their order, as a reader would type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[2] / "deployments" / "TENANTS.md"
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"^export \w+=.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of the guide: `sh`, `python`, or the `json` that the one before answers with. `uploads`: it needs a
    platform that takes up what is handed in."""

    language: str
    uploads: bool
    text: str


def blocks() -> list[Block]:
    return [Block(language, mark == "uploads", text) for language, mark, text in BLOCK.findall(GUIDE.read_text())]


@dataclass
class Reader:
    """Somebody who types what the guide says, in a folder of their own."""

    url: str
    key: str
    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    told: str = ""

    def follow(self, block: Block) -> None:
        """Runs a block; raises when it fails. Of JSON, compares its shape with what the block before has printed."""
        if block.language == "sh":
            script = SETTING.sub("", block.text)  # they are set, to what is the reader's
            environment = os.environ | {"API": self.url, "KEY": self.key, "NO_PROXY": "127.0.0.1"}
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                env=environment, cwd=self.folder, capture_output=True, text=True, timeout=240, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
            self.told = done.stdout
        elif block.language == "python":
            exec(compile(block.text, str(GUIDE), "exec"), self.names)
        else:
            assert shape_of(json.loads(self.told)) == shape_of(json.loads(block.text))


def shape_of(value: Any) -> Any:
    """The names in a document, without what they stand for."""
    if isinstance(value, dict):
        return {name: shape_of(inner) for name, inner in value.items()}
    return [shape_of(value[0])] if isinstance(value, list) and value else None
