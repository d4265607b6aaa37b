"""What a run says of itself."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.domain.names import Stage
from tasks.domain.run import Run, RunStatus


def test_an_account_has_what_a_person_reads_and_no_bookkeeping() -> None:
    receipt = {"trained": 12_345, "left": 0, "tenant_wide_rows": 289, "look_back": False, "bundle_run": 3, "why": "x"}
    run = Run(
        run_id=3, key="k", use_case="demand", stage=Stage.TRAINING, status=RunStatus.FINISHED,
        started_at=datetime(2026, 11, 29, tzinfo=UTC), receipt=receipt,
    )  # fmt: skip
    assert run.account == "trained 12,345, left 0, tenant wide rows 289"
