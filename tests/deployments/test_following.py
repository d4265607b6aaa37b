"""A command that waits for the platform tells how the work ended."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import typer
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import text

from deployments.cli.work import _finish, _through_the_queue
from deployments.platform import Platform
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.settings import Settings
from tasks.domain.names import Purpose
from tests.conftest import MakeRecords

FAIL = text(
    "UPDATE jobs SET status = 'failed', error = 'cancelled by the operator' WHERE tenant = 'let-down' RETURNING job_id"
)


def test_a_job_that_failed_is_a_command_that_failed(
    postgres: Cluster,
    make_records: MakeRecords,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever crashed, or was cancelled, left no word at its upload."""
    make_records("let-down")
    platform = Platform(settings, postgres)
    file, over = tmp_path / "a.csv", threading.Event()
    file.write_text("store,day,price,sales\n1,2026-01-01,1,1\n")

    def cancel() -> None:
        while not transact(postgres.operator_url, lambda connection: connection.execute(FAIL).all()):
            over.wait(0.1)

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        operator = threading.Thread(target=cancel)
        operator.start()
        space = platform.open_space("let-down")
        upload = _through_the_queue(platform, space, "sales", Purpose.HISTORY, file, wait=True)
        operator.join()
    with pytest.raises(typer.Exit) as ended:
        _finish("let-down", [upload], as_json=True)
    assert ended.value.exit_code == 1
    assert "did not come through (received): cancelled by the operator" in capsys.readouterr().err
