"""Tenant and tier files: YAML in, validated types out, and every complaint with its line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tasks.domain.errors import InvalidDefinition
from tasks.domain.prices import PriceBook
from tasks.domain.tenant import Tenant, Tier, TierPolicy

MAX_BYTES = 5_000_000
DEFAULT_PRICES = "deployments/prices.yaml"
Model = TypeVar("Model", bound=BaseModel)


def load_tenant(path: Path) -> Tenant:
    """The tenant that a file declares. Raises `InvalidDefinition` with line and reason of each mistake."""
    if not path.is_file():
        raise InvalidDefinition("there is no such tenant file", where=str(path))
    if path.stat().st_size > MAX_BYTES:
        raise InvalidDefinition(
            "the tenant file is too large", where=str(path), expected=f"at most {MAX_BYTES:,} bytes"
        )
    return parse(Tenant, path.read_bytes(), str(path))


@cache
def load_tiers(path: Path | None = None) -> dict[Tier, TierPolicy]:
    """The policy of every tier, from a file or from `deployments/tiers.yaml`. Raises `InvalidDefinition`."""
    source = files("deployments").joinpath("tiers.yaml") if path is None else path
    if path is not None and not path.is_file():
        raise InvalidDefinition("there is no such tiers file", where=str(path), hint="see ORCHARD_TIERS_FILE")

    class Tiers(BaseModel):
        free: TierPolicy
        standard: TierPolicy
        premium: TierPolicy

    tiers = parse(Tiers, source.read_bytes(), str(path or "deployments/tiers.yaml"))
    return {Tier.FREE: tiers.free, Tier.STANDARD: tiers.standard, Tier.PREMIUM: tiers.premium}


def load_prices(path: Path | None = None) -> PriceBook:
    """The price book of a file, or the default one. Raises `InvalidDefinition`."""
    if path is None:
        return parse(PriceBook, files("deployments").joinpath("prices.yaml").read_bytes(), DEFAULT_PRICES)
    if not path.is_file():
        raise InvalidDefinition("there is no such price book file", where=str(path))
    return parse(PriceBook, path.read_bytes(), str(path))


def parse(kind: type[Model], text: bytes, where: str) -> Model:
    """Parses one YAML document of that kind; aliases and custom tags are refused, duplicate keys too."""
    try:
        node = yaml.compose(text, Loader=_Strict)
        data = _Strict(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidDefinition("this is not valid YAML", where=f"{where}:{line}", found=str(error.problem)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidDefinition("this is not valid YAML", where=where, found=str(error)[:300]) from None
    if not isinstance(data, dict):
        raise InvalidDefinition("a definition is a mapping of fields", where=where, found=type(data).__name__)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems = [_complaint(node, problem, where) for problem in _causes(error)]
        raise InvalidDefinition(
            f"{len(problems)} mistake{'s' if len(problems) > 1 else ''} in the definition",
            found="\n  " + "\n  ".join(problems),
            hint="correct the lines named; README.md explains every field",
        ) from None


class _Strict(yaml.SafeLoader):
    """SafeLoader that refuses aliases (a few of them can describe gigabytes) and keys that come twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it untyped
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a field's name must be text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} comes twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _causes(error: ValidationError) -> list[Any]:
    """The mistakes without those that follow from one further inside: a list is too short when its item is wrong."""
    found = error.errors()
    places = [problem["loc"] for problem in found]
    return [
        problem
        for problem in found
        if not any(
            len(place) > len(problem["loc"]) and place[: len(problem["loc"])] == problem["loc"] for place in places
        )
    ]


def _complaint(root: Any, problem: Any, where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    reason = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        reason = "there is no such field"
    shown = ".".join(path) or "the whole"
    given = problem.get("input")
    if isinstance(given, str | int | float | bool) and problem["type"] not in {"extra_forbidden", "missing"}:
        reason += f" (found {given!r})"
    return f"{where}:{_line(root, problem['loc'])}: {shown}: {reason}"


def _line(node: Any, path: Sequence[str | int]) -> int:
    """Line of the deepest node that the path leads to; parts that name a type in a union are skipped."""
    line = int(node.start_mark.line) + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if found:
                key, node = found[0]
                line = int(key.start_mark.line) + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = int(node.start_mark.line) + 1
    return line
