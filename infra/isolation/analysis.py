"""What policy documents decide, computed from their text: for what the store at hand cannot show.

A small evaluator of IAM's language: as much of it as our templates use, by the rules of AWS (an explicit denial wins,
and what nothing allows is denied). What it does not know it refuses to judge, so that no finding rests on a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from infra.isolation.policies import Document
from infra.lake.location import Location
from tasks.domain.errors import InvalidDefinition


class Decision(StrEnum):
    """What a document says about a request."""

    ALLOWED = "allowed"
    DENIED = "denied"
    SILENT = "silent"


@dataclass(frozen=True)
class Request:
    """One call: `s3:GetObject` on an ARN. `context` holds condition keys such as `s3:prefix`; those that a request does
    not have are not in it."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def object_request(action: str, bucket: str, key: str, **context: str) -> Request:
    """A request for an object. In the names of condition keys `__` stands for `:` and `_` for `-`."""
    return Request(f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}", _keys(context))


def list_request(bucket: str, prefix: str | None, **context: str) -> Request:
    """A listing, of a prefix or of all."""
    return Request(
        "s3:ListBucket", f"arn:aws:s3:::{bucket}", _keys(context) | ({} if prefix is None else {"s3:prefix": prefix})
    )


def permitted(request: Request, identity: Sequence[Document], resource: Sequence[Document] = ()) -> bool:
    """Whether a principal may do it: by the policies of its own and by those of what it asks for, in one account."""
    decisions = {decide(document, request) for document in (*identity, *resource)}
    return Decision.DENIED not in decisions and Decision.ALLOWED in decisions


def decide(document: Document, request: Request) -> Decision:
    """What one document says. Raises `InvalidDefinition` for a part of the language that is not understood here."""
    effects = {each["Effect"] for each in _statements(document) if _applies(each, request)}
    if "Deny" in effects:
        return Decision.DENIED
    return Decision.ALLOWED if "Allow" in effects else Decision.SILENT


def beyond(document: Document, folders: Sequence[Location]) -> list[str]:
    """What a tenant's policy allows beyond its folders, a line each: actions by pattern, objects elsewhere, listings of
    more than the folder. None: whatever it allows on S3 is inside."""
    found = []
    for each in _statements(document):
        if each["Effect"] != "Allow":
            continue
        name = each.get("Sid", "a statement")
        actions, resources = _list(each["Action"]), _list(each["Resource"])
        found += [f"{name} allows actions by pattern: {action}" for action in actions if "*" in action or "?" in action]
        if all(action.startswith("kms:") for action in actions):
            found += [f"{name} allows every key" for resource in resources if "*" in resource]
            continue
        for resource in resources:
            if any(_inside(resource, folder) for folder in folders):
                continue
            if actions != ["s3:ListBucket"] or not _lists_inside(each, resource, folders):
                found.append(f"{name} allows {', '.join(actions)} on {resource}")
    return found


def _inside(resource: str, folder: Location) -> bool:
    return re.fullmatch(rf"arn:[a-z-]+:s3:::{re.escape(f'{folder.bucket}/{folder.prefix}/')}.*", resource) is not None


def _lists_inside(statement: Mapping[str, Any], resource: str, folders: Sequence[Location]) -> bool:
    condition = statement.get("Condition", {})
    prefixes = [*_list(condition.get("StringLike", {}).get("s3:prefix", [])),
                *_list(condition.get("StringEquals", {}).get("s3:prefix", []))]  # fmt: skip
    mine = [f"{each.prefix}/" for each in folders if resource.endswith(f":s3:::{each.bucket}")]
    return bool(prefixes) and all(any(prefix.startswith(own) for own in mine) for prefix in prefixes)


def _statements(document: Document) -> Iterator[Mapping[str, Any]]:
    for each in _list(document["Statement"]):
        unknown = each.keys() - {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
        if unknown:
            raise _not_understood(", ".join(sorted(unknown)))
        yield each


def _applies(statement: Mapping[str, Any], request: Request) -> bool:
    principal = statement.get("Principal", "*")
    caller = request.context.get("aws:PrincipalArn", "")
    return (
        (principal == "*" or any(who in ("*", caller) for who in _list(principal["AWS"])))
        and any(_like(request.action.lower(), pattern.lower()) for pattern in _list(statement["Action"]))
        and any(_like(request.resource, pattern) for pattern in _list(statement.get("Resource", "*")))
        and all(
            _holds(operator, key, _list(wanted), request.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _holds(operator: str, key: str, wanted: list[str], context: Mapping[str, str]) -> bool:
    found = {name.lower(): value for name, value in context.items()}.get(key.lower())
    if operator == "Null":
        return (found is None) is (wanted == ["true"])
    base, negated = operator.removesuffix("IfExists"), "Not" in operator
    if found is None:  # a negated condition holds for what is not there, every other one does not
        return negated or operator.endswith("IfExists")
    match base:
        case "StringEquals" | "StringNotEquals" | "Bool":
            return (found in wanted) is not negated
        case "StringLike" | "StringNotLike" | "ArnLike" | "ArnNotLike" | "ArnEquals" | "ArnNotEquals":
            return any(_like(found, pattern) for pattern in wanted) is not negated
        case "NumericLessThan":
            return any(float(found) < float(limit) for limit in wanted)
    raise _not_understood(operator)


def _like(text: str, pattern: str) -> bool:
    """Whether a text fits a pattern of `*` and `?`. Variables are not for this evaluator."""
    if "${" in pattern:
        raise _not_understood(pattern)
    expression = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _keys(context: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("__", ":").replace("_", "-"): value for name, value in context.items()}


def _not_understood(what: str) -> InvalidDefinition:
    return InvalidDefinition("a policy says what this analysis does not understand", found=what)
