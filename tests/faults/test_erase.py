"""`kill -9` in the middle of an erasure: the same call goes on; in the end nothing is left, and all is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from deployments.leaving.certificate import certificates_folder, check
from infra.database.audit import Audit
from infra.database.erasures import Erasures
from infra.signing import public_key
from infra.space import TenantSpace
from tests.faults.conftest import Stage
from tests.faults.remains import differences, remains
from tests.leaving.everywhere import STAYING, places_of

MOMENTS = [
    "erasure: begin",
    "erasure: shut_out",
    "erasure: delete flow runs",
    "erasure: mlflow delete_registered_model",
    "erasure: ALTER TABLE predictions DETACH PARTITION {partition} CONCURRENTLY",
    "erasure: remove_rows",
    "erasure: certificate is written",
]
"""Between two effects that must go together."""


VARYING = ("bytes", "artifacts")


def removed(document: dict[str, Any]) -> dict[str, dict[str, int]]:
    """What a certificate says of every step, but for what no two tenants have the same of: lines of logs, bytes, and
    progress bars of whatever took long."""
    steps = {each["step"]: each["found"] for each in document["certificate"]["removed"] if each["step"] != "logs"}
    return {
        step: {name: count for name, count in found.items() if name not in VARYING} for step, found in steps.items()
    }


def grown(stage: Stage, name: str) -> TenantSpace:
    """A tenant with something of everything."""
    space = stage.new_tenant(name)
    stage.complete(space, stage.until("actuals"))
    return space


def erase(stage: Stage, space: TenantSpace, moments: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Erases a tenant, killed after each of these effects in turn; its certificate, and what the last call did."""
    for moment in moments:
        child = stage.start(space, [], stop_at=moment, erase=True)
        assert child.wait() == -9, f"{moment!r} was never reached\n{stage.zygote.last_words()}"
    child = stage.start(space, [], erase=True)
    assert child.wait() == 0, stage.zygote.last_words()
    cluster = stage.platform.cluster
    erasure = Erasures(cluster).latest(Audit(cluster).subject(space.tenant.id))
    assert erasure is not None
    assert erasure.certificate is not None
    return erasure.certificate, child.effects()


@pytest.fixture(scope="module")
def course(stage: Stage) -> tuple[dict[str, Any], list[str]]:
    """The certificate of an erasure that nobody disturbs, and its effects."""
    return erase(stage, grown(stage, "blackcap"))


def assert_erased(stage: Stage, space: TenantSpace, document: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    """Nothing is left, and the certificate says what one of an undisturbed erasure says."""
    settings = stage.platform.settings
    assert places_of(settings, space.tenant.id) <= STAYING
    path = certificates_folder(settings) / f"{document['certificate']['erasure']}.json"
    assert json.loads(path.read_text()) == document
    assert check(path, public_key(settings.secret_key)).subject == document["certificate"]["subject"]
    assert removed(document) == removed(undisturbed)
    assert Audit(stage.platform.cluster).verify().wrong is None


def test_an_erasure_killed_at_its_most_delicate_moments(stage: Stage, course: tuple[dict[str, Any], list[str]]) -> None:
    neighbour = grown(stage, "garden-warbler")
    before = remains(neighbour)
    space = grown(stage, "blackcap-2")
    document, _ = erase(stage, space, MOMENTS)
    assert_erased(stage, space, document, course[0])
    assert differences(remains(neighbour), before) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_erasure_killed_after_every_effect(stage: Stage, course: tuple[dict[str, Any], list[str]]) -> None:
    undisturbed, effects = course
    space = grown(stage, "blackcap-3")
    document, _ = erase(stage, space, list(dict.fromkeys(effects)))
    print(f"killed after each of {len(set(effects))} effects")
    assert_erased(stage, space, document, undisturbed)
