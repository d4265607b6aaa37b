"""Row-level security holds alone: with the records' own conditions switched off, each login still gets its own rows."""

from __future__ import annotations

import pytest
from sqlalchemy import true

from flows.attacks import api, events
from infra.attacks.attempt import Outcome
from infra.database.tenant_rows import TenantRows
from tasks.domain.errors import NotFound
from tests.attacks.conftest import MakeScene, attempts_of


@pytest.fixture
def without_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement of the records says whose rows are meant."""
    monkeypatch.setattr(TenantRows, "_own", lambda *_: true())


def test_the_records_find_and_change_nothing_of_others(scene: MakeScene, without_conditions: None) -> None:
    with scene() as prepared_scene:
        mine, theirs = prepared_scene.attacker.records, prepared_scene.prey_rows
        assert {upload.upload_id for upload in mine.uploads()} == {prepared_scene.mine.token}
        assert {job.job_id for job in mine.jobs()} == {prepared_scene.my_rows["jobs"]["job_id"]}
        assert {run.run_id for run in mine.runs()} == {prepared_scene.my_rows["runs"]["run_id"]}
        with pytest.raises(NotFound):
            mine.upload(theirs["uploads"]["upload_id"])
        with pytest.raises(NotFound):
            mine.update_upload(theirs["uploads"]["upload_id"], error="mine")
        mine.end_job(theirs["jobs"]["job_id"], theirs["jobs"]["attempts"], "mine")
        assert prepared_scene.victim.records.job(theirs["jobs"]["job_id"]).error is None


def test_no_id_of_another_leads_anywhere(scene: MakeScene, without_conditions: None) -> None:
    with scene(api=True) as prepared_scene:
        attempts = attempts_of(prepared_scene, events.GROUP, api.GROUP)
    assert [each for each in attempts if each.got_through] == []
    assert sum(each.outcome is Outcome.DENIED for each in attempts) > 120
