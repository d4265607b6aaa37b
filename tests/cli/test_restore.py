"""A backup as the operator's guide makes it, and what is there after it was restored."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal
from tests.ports import own_port

GUIDE = Path(__file__).parents[2] / "deployments" / "OPERATORS.md"
BACKUP = "tar --exclude=./scratch --exclude=./logs -C .orchard -czf orchard-backup.tgz ."


@pytest.fixture
def site() -> Iterator[Path]:
    """A folder with a home of its own, which commands find there."""
    with tempfile.TemporaryDirectory(prefix="orchard-restore-") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_restored_backup_goes_on_where_it_was(site: Path, terminal: Terminal) -> None:
    assert BACKUP in GUIDE.read_text()
    # Commands by themselves: each starts what it needs and stops it again, as where no platform is up.
    own = {"ORCHARD_HOME": str(site / ".orchard"), "ORCHARD_PREFECT_PORT": str(own_port(5400)), "PREFECT_API_URL": ""}
    tenant = tenant_file(site, "kept")
    terminal.process("tenants", "add", tenant, **own).worked()
    for number, text in enumerate((history(), history(20, first="2026-03-01", seed=3))):
        (site / f"{number}.csv").write_text(text)
        terminal.process("upload", "kept", "sales", "history", site / f"{number}.csv", **own).worked()
    (site / "open.csv").write_text(scoring())
    terminal.process("upload", "kept", "sales", "scoring", site / "open.csv", **own).worked()
    before = what_is_there(terminal, own)

    subprocess.run(BACKUP, shell=True, check=True, cwd=site)
    shutil.rmtree(site / ".orchard")
    assert terminal.process("results", "kept", "sales", **own).code == 2  # a new, empty Orchard
    shutil.rmtree(site / ".orchard")
    (site / ".orchard").mkdir()
    subprocess.run(["tar", "-C", str(site / ".orchard"), "-xzf", str(site / "orchard-backup.tgz")], check=True)

    assert what_is_there(terminal, own) == before
    terminal.process("releases", "rollback", "kept", "sales", **own).worked()
    (site / "more.csv").write_text(scoring(first="2026-07-01", seed=8))
    terminal.process("upload", "kept", "sales", "scoring", site / "more.csv", **own).worked()


def what_is_there(terminal: Terminal, own: dict[str, str]) -> object:
    words = (
        ("results", "kept", "sales", "--limit", "100"),
        ("releases", "list", "kept", "sales"),
        ("receipts", "kept"),
    )
    return [terminal.process(*each, "--json", **own).worked().json for each in words]
