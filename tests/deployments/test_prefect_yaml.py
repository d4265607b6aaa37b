"""`prefect.yaml`, the one list of shared deployments. Prefect ignores unknown keys, so a typo would pass silently."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.provision import pool_limits
from infra.definitions import load_tiers
from infra.settings import Settings
from tasks.domain.events import UPLOAD_RECEIVED
from tasks.domain.job import JobKind
from tasks.domain.names import Stage
from tasks.domain.tenant import Tier

CONTENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = CONTENT["deployments"]
NAMES = [deployment["name"] for deployment in DEPLOYMENTS]


def unknown(content: dict[str, Any], model: Any) -> set[str]:
    fields = model.model_fields
    return set(content) - set(fields) - {field.alias for field in fields.values()}


def test_prefect_knows_every_key() -> None:
    from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, WorkPoolConfig

    assert PrefectYamlModel.model_validate(CONTENT)
    assert unknown(CONTENT, PrefectYamlModel) == {"definitions"}  # a place for anchors
    for deployment in DEPLOYMENTS:
        assert unknown(deployment, DeploymentConfig) == set(), deployment["name"]
        assert unknown(deployment["work_pool"], WorkPoolConfig) == set(), deployment["name"]
    assert unknown({"entry_point": "x"}, DeploymentConfig) == {"entry_point"}, "this test can fail"


def test_the_prefect_that_it_is_for_is_installed() -> None:
    assert CONTENT["prefect-version"] == version("prefect")


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=NAMES)
def test_the_entry_point_is_a_flow(deployment: dict[str, Any]) -> None:
    from prefect import Flow

    assert re.fullmatch(r"flows(\.\w+){2}", deployment["entrypoint"]), "a module path"
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    parameters = inspect.signature(flow.fn).parameters
    assert set(deployment.get("parameters", {})) <= set(parameters)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=NAMES)
def test_name_tags_pool_and_flow_say_the_same(deployment: dict[str, Any]) -> None:
    stage, _, tier = deployment["name"].rpartition("-")
    if tier not in set(Tier):
        stage = deployment["name"]
        assert not any(tag.startswith("tier:") for tag in deployment["tags"])
    else:
        assert f"tier:{tier}" in deployment["tags"]
        assert deployment["work_pool"]["name"] == f"tier-{tier}"
    assert f"stage:{stage}" in deployment["tags"]
    assert deployment["entrypoint"].startswith(f"flows.{stage}.")
    assert deployment["description"].strip()


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=NAMES)
def test_its_form_in_the_ui_explains_every_parameter(deployment: dict[str, Any]) -> None:
    from prefect.utilities.callables import parameter_schema

    module, _, name = deployment["entrypoint"].rpartition(".")
    for parameter, field in parameter_schema(getattr(import_module(module), name)).properties.items():
        assert field.get("description"), f"{name}: {parameter} has no line under Args"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=NAMES)
def test_its_pool_is_provisioned_and_its_triggers_wait_for_events_that_exist(deployment: dict[str, Any]) -> None:
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

    assert deployment["work_pool"]["name"] in pool_limits(Settings())
    module, _, name = deployment["entrypoint"].rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name).fn).parameters
    for trigger in deployment.get("triggers", []):
        assert unknown(trigger, DeploymentEventTrigger) == set()
        for event in trigger["expect"]:
            assert event == UPLOAD_RECEIVED or re.fullmatch(r"prefect\.flow-run\.(Crashed|Failed)", event), event
        assert set(trigger.get("parameters", {})) <= set(parameters)


def test_every_job_kind_can_run_in_every_tier() -> None:
    assert {f"{kind}-{tier}" for kind in JobKind for tier in Tier} <= set(NAMES)


def test_every_tier_has_its_pool_and_the_same_deployments() -> None:
    assert len(set(NAMES)) == len(NAMES)
    stages = {name.rpartition("-")[0] for name in NAMES if name.endswith("-free")}
    assert stages >= {"pipeline", Stage.TRAINING, Stage.SCORING}
    for tier in load_tiers():
        assert {f"{stage}-{tier}" for stage in stages} <= set(NAMES)
