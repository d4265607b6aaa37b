"""What the API says of itself: valid, complete, and enough for other tools to make a client that works."""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType
from openapi_python_client.parser.errors import ErrorLevel
from openapi_spec_validator import validate

from deployments.api.app import create_app
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.settings import Settings
from tasks.domain.access import Role
from tests.api.filled import fill
from tests.api.served import Api
from tests.api.test_roles import NEEDED
from tests.serving.deployed import onboarded

WITHOUT_EXAMPLE = {"cursor", "Orchard-Tenant"}
"""What only an answer can give, and what no tenant needs."""

OPAQUE = ("application/vnd.apache.arrow.stream", "application/vnd.apache.parquet")
"""Bodies that the generator takes for files only if it is told so."""


@pytest.fixture(scope="module")
def description(settings: Settings) -> dict[str, Any]:
    return create_app(settings).openapi()


@pytest.fixture(scope="module")
def operations(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": facts for path, methods in description["paths"].items() for method, facts in methods.items()
    }


def test_it_is_valid(description: dict[str, Any]) -> None:
    validate(description)
    assert description["openapi"].startswith("3.1")
    assert json.loads(json.dumps(description)) == description


def test_every_endpoint_is_described(description: dict[str, Any], operations: dict[str, dict[str, Any]]) -> None:
    roles = {f"{method.lower()} {path}": role for (method, path), role in NEEDED.items()}
    assert set(operations) == {*roles, "post /hooks/s3", "get /healthz", "get /readyz", "get /metrics"}
    assert len({facts["operationId"] for facts in operations.values()}) == len(operations)
    tags = {tag["name"] for tag in description["tags"]}
    for name, facts in operations.items():
        assert facts["summary"], name
        assert facts["description"], name
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", facts["operationId"]), name
        assert set(facts["tags"]) <= tags, name
        for status, response in facts["responses"].items():
            assert response["description"] not in ("", "Successful Response"), (name, status)
            assert "X-Request-ID" in response["headers"], (name, status)
            if not status.startswith("2"):
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemDocument"}, (name, status)
            if status in ("429", "503"):
                assert "Retry-After" in response["headers"], (name, status)
        if "/v1/" in name:
            assert facts["security"] == [{"ApiKey": [roles[name].value]}], name
            assert {"401", "403", "422", "429", "503"} <= facts["responses"].keys(), name
        if name.startswith("post"):
            assert facts["requestBody"]["required"], name


def test_every_parameter_is_described(operations: dict[str, dict[str, Any]]) -> None:
    for name, facts in operations.items():
        for parameter in facts.get("parameters", ()):
            assert parameter["description"], (name, parameter["name"])
            assert "null" not in str(parameter["schema"].get("anyOf", "")), (name, parameter["name"])
            assert (
                parameter["name"] in WITHOUT_EXAMPLE
                or parameter["schema"].get("examples")
                or parameter["schema"].get("type") == "boolean"
                or "enum" in str(parameter["schema"])
                or "$ref" in parameter["schema"]
            ), (name, parameter["name"])


def test_examples_fit(description: dict[str, Any], operations: dict[str, dict[str, Any]]) -> None:
    def check(schema: dict[str, Any], example: object, where: object) -> None:
        whole = {**schema, "components": description["components"]}
        assert list(Draft202012Validator(whole).iter_errors(example)) == [], where

    seen = 0
    for name, facts in operations.items():
        for parameter in facts.get("parameters", ()):
            for example in parameter["schema"].get("examples", ()):
                check(parameter["schema"], example, (name, parameter["name"]))
                seen += 1
        for content in facts.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                check(content["schema"], content["example"], name)
                seen += 1
    for name, schema in description["components"]["schemas"].items():
        for field, facts in schema.get("properties", {}).items():
            for example in facts.get("examples", ()):
                check(facts, example, (name, field))
                seen += 1
    assert seen > 50


@pytest.fixture(scope="module")
def generated(description: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A client that a generator made of the description, imported."""
    folder = tmp_path_factory.mktemp("generated")
    source = folder / "openapi.json"
    source.write_text(json.dumps(description))
    options = ConfigFile(
        post_hooks=[],
        package_name_override="orchard_client",
        content_type_overrides=dict.fromkeys(OPAQUE, "application/octet-stream"),
    )
    target = folder / "orchard_client"
    config = Config.from_sources(options, MetaType.NONE, source, "utf-8", False, target)
    problems = generate(config=config)
    assert [problem.detail for problem in problems if problem.level is ErrorLevel.ERROR] == []
    assert [problem.detail for problem in problems] == []
    sys.path.insert(0, str(folder))
    yield importlib.import_module("orchard_client")
    sys.path.remove(str(folder))


def part(path: str) -> ModuleType:
    return importlib.import_module(f"orchard_client.{path}")


def test_a_generated_client_works(
    generated: ModuleType, api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    fill(onboarded(api_settings, postgres, "api-generated"), tmp_path)
    url, key = f"http://127.0.0.1:{api.port}", keys.create("api-generated", "test", Role.ADMIN)[1]
    with generated.AuthenticatedClient(base_url=url, token=key, httpx_args={"trust_env": False}) as client:
        [use_case] = part("api.use_cases.use_cases_use_cases").sync(client=client).use_cases
        assert (use_case.id, use_case.release) == ("demand", 2)
        found = part("api.use_cases.use_cases_definition").sync("demand", client=client)
        assert found.contract.columns["store"].type_ == "integer"
        page = part("api.predictions.predictions_predictions").sync("demand", client=client, limit=3)
        rest = part("api.predictions.predictions_predictions").sync("demand", client=client, cursor=page.next_)
        assert [len(page.predictions), len(rest.predictions)] == [3, 22]
        assert page.predictions[0].scored_at.tzinfo is not None
        models = part("models")
        body = models.PredictionsPredictJsonPredictRequest.from_dict(
            {"rows": [{"store": 0, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"}]}
        )
        answer = part("api.predictions.predictions_predict").sync("demand", client=client, body=body)
        assert answer.rows[0].prediction is not None
        body = models.PredictionsPredictJsonPredictRequest.from_dict({"rows": [{"store": "x"}]})
        refused = part("api.predictions.predictions_predict").sync("demand", client=client, body=body)
        assert isinstance(refused, models.ProblemDocument)
        assert {each.where for each in refused.errors} >= {"rows.0.store", "rows.0.day"}
        file = part("types").File(payload=io.BytesIO(b"store,day\n1,2\n"))
        stored = part("api.uploads.uploads_receive").sync_detailed(
            "demand", models.Purpose.SCORING, client=client, body=file, filename="rows.csv"
        )
        assert stored.status_code == 202, stored.content
        assert stored.parsed.filename == "rows.csv"
    with generated.AuthenticatedClient(base_url=url, token="orc_wrong", httpx_args={"trust_env": False}) as client:
        refused = part("api.access.access_key").sync(client=client)
        assert refused.type_ == "urn:orchard:problem:unauthenticated"
