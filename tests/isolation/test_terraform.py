"""Terraform's modules: they parse, fit together, and say what Orchard itself would say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from string import Template
from typing import Any

import hcl2
import pytest

from infra.isolation.aws import Identity
from infra.isolation.policies import (
    key_policy,
    shared_bucket_policy,
    silo_bucket_policy,
    tenant_policy,
    trust_policy,
)
from infra.places import places
from infra.settings import load_settings
from tasks.domain.tenant import Isolation

INFRA = Path(__file__).parents[2] / "infra"
MODULES = [INFRA / "terraform", INFRA / "terraform/tenant", INFRA / "terraform/policies"]
IDENTITY = Identity("123456789012", "aws", "arn:aws:iam::123456789012:role/orchard")
ROLE = IDENTITY.role("orchard-tenant-acme")
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
TERRAFORM = shutil.which("terraform") or shutil.which("tofu")


def blocks(module: Path, kind: str) -> dict[str, Any]:
    """The named blocks of that kind, in all files of a module."""
    found: dict[str, Any] = {}
    for file in sorted(module.glob("*.tf")):
        for block in hcl2.loads(file.read_text()).get(kind, []):
            found |= {name.strip('"'): body for name, body in block.items() if not name.startswith("__")}
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_modules_are_given_what_they_ask_for(module: Path) -> None:
    variables = blocks(module, "variable")
    assert variables
    text = "".join(file.read_text() for file in module.glob("*.tf"))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == set(variables)
    for call in blocks(module, "module").values():
        asked = blocks(module / call["source"].strip('"'), "variable")
        given = {name for name in call if not name.startswith("__")} - {"source", "for_each", "count", "depends_on"}
        assert given <= set(asked)
        assert {name for name, body in asked.items() if "default" not in body} <= given


def test_templates_are_there_and_given_their_values() -> None:
    text = (INFRA / "terraform/policies/main.tf").read_text()
    calls = re.findall(r'templatefile\("\$\{local\.templates\}/([\w-]+\.json)", \{(.*?)\}\)', text, re.DOTALL)
    used = {name for name, _ in calls}
    assert used == {path.name for path in (INFRA / "policies").glob("*.json")} - {
        "operator.json",
        "operator-inbox.json",
    }
    for name, given in calls:
        wanted = set(Template((INFRA / "policies" / name).read_text()).get_identifiers())
        assert wanted == set(re.findall(r"(\w+)\s*=", given)), name


@pytest.mark.skipif(TERRAFORM is None, reason="needs Terraform, to evaluate its expressions")
@pytest.mark.parametrize("isolation", [Isolation.POOL, Isolation.SILO])
def test_both_render_the_same_documents(tmp_path: Path, isolation: Isolation) -> None:
    settings = load_settings(
        home=tmp_path / "home",
        lake_url="s3://lake",
        training_artifacts_url="s3://models/training",
        production_artifacts_url="s3://models/production",
    )
    silo = isolation is Isolation.SILO
    own = places(settings, "acme", isolation)
    names = {"lake": "Lake", "training_artifacts": "TrainingArtifacts", "production_artifacts": "ProductionArtifacts"}
    given = {
        "account": IDENTITY.account,
        "operator": IDENTITY.principal,
        "administrators": ["arn:aws:iam::123456789012:role/terraform"],
        "role": ROLE,
        "folders": {names[name]: {"bucket": at.bucket, "prefix": at.prefix} for name, at in vars(own).items()},
        "keys": [KEY],
        "shared_buckets": ["lake", "models"],
        "shared_key": KEY if silo else None,
        "silo_bucket": own.lake.bucket if silo else None,
        "silo_key": KEY if silo else None,
    }
    shutil.copytree(INFRA / "policies", tmp_path / "policies")
    shutil.copytree(INFRA / "terraform", tmp_path / "terraform")
    (tmp_path / "given.json").write_text(json.dumps(given))
    asked = ", ".join(
        f"{name} = local.{name}" for name in ("trust", "tenant", "shared_buckets", "silo_bucket", "silo_key")
    )
    done = subprocess.run(
        [str(TERRAFORM), "console", f"-var-file={tmp_path}/given.json"],
        cwd=tmp_path / "terraform/policies",
        env={**os.environ, "CHECKPOINT_DISABLE": "1"},
        input=f"jsonencode({{{asked}}})",
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(json.loads(done.stdout))
    by_name = {each["Sid"]: each for each in said["tenant"].pop("Statement")}
    expected = tenant_policy(IDENTITY, [own], [KEY])
    assert by_name == {each["Sid"]: each for each in expected["Statement"]}
    assert said["trust"] == trust_policy(IDENTITY.principal)
    assert said["shared_buckets"] == {
        name: shared_bucket_policy(IDENTITY, name, given["shared_key"]) for name in ("lake", "models")
    }
    assert said["silo_key"] == key_policy(IDENTITY, ROLE)
    admitted = [ROLE, IDENTITY.principal, *given["administrators"]]
    assert said["silo_bucket"] == (silo_bucket_policy(IDENTITY, own.lake.bucket or "", KEY, admitted) if silo else None)


@pytest.mark.skipif(TERRAFORM is None, reason="needs Terraform, to format its files")
def test_modules_are_formatted() -> None:
    done = subprocess.run(
        [str(TERRAFORM), "fmt", "-check", "-recursive", str(INFRA / "terraform")], capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()
