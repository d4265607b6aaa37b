"""The OpenAPI description: what FastAPI finds out, made so that other tools make good clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from deployments.api.problems import ProblemDocument
from deployments.api.requests import HEADER

TAGS = {
    "predictions": "Rows predicted at once, what batch scoring predicted, and how good it turned out to be.",
    "use cases": "What is predicted, and what rows must look like.",
    "releases": "Which models serve, and why.",
    "uploads": "Files come in, and are followed.",
    "jobs": "Training and scoring on demand.",
    "runs": "What was done, with receipts.",
    "budgets": "What may be spent on you.",
    "access": "Keys, and who did what.",
    "hooks": "For object stores.",
    "health": "For supervisors and Prometheus.",
}

UNSAID = "Successful Response"
"""What FastAPI says of an answer that nobody has described."""

REQUEST_ID = {
    "description": "Names this request; quote it when you ask for help.",
    "schema": {"type": "string"},
    "example": "0b9f6a1c2d3e4f5061728394a5b6c7d8",
}
RETRY_AFTER = {"description": "Try again after so many seconds.", "schema": {"type": "integer"}, "example": 5}


def operation_id(route: APIRoute) -> str:
    """Names an endpoint in generated clients."""
    return "_".join([*map(str, route.tags[:1]), route.name]).replace(" ", "_")


def describe(app: FastAPI) -> None:
    """Lets the application describe itself like that."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way of extending it


def _described(app: FastAPI) -> dict[str, Any]:
    found: dict[str, Any] = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    document = ProblemDocument.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    found["components"]["schemas"] |= document.pop("$defs") | {ProblemDocument.__name__: document}
    for schema in found["components"]["schemas"].values():
        for field in schema.get("properties", {}).values():
            _name_keys(field)
    for operation in _operations(found):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _never_null(parameter["schema"])
        for status, response in operation["responses"].items():
            headers = {HEADER: REQUEST_ID} | ({"Retry-After": RETRY_AFTER} if status in ("429", "503") else {})
            response["headers"] = headers
            if response["description"] == UNSAID:
                response["description"] = _described_by(response, found["components"]["schemas"])
    return found


def _operations(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in description["paths"].values():
        yield from methods.values()


def _described_by(response: dict[str, Any], schemas: dict[str, Any]) -> str:
    """What the answer's own model says of it."""
    name = response["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    return str(schemas[name]["description"])


def _name_keys(schema: dict[str, Any]) -> None:
    """Says of a mapping what its values are in the words that more tools know; what its keys are, stays said."""
    if len(values := schema.get("patternProperties", {})) == 1:
        del schema["patternProperties"]
        [(pattern, schema["additionalProperties"])] = values.items()
        schema["propertyNames"] = {"pattern": pattern}


def _never_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out; there is no null in a query."""
    given: list[dict[str, Any]] = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(given) != 1:
        return schema
    return {name: value for name, value in schema.items() if name != "anyOf"} | given[0]
