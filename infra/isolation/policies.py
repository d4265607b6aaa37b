"""The policy documents of a tenant's storage, from the templates in `infra/policies`, which Terraform reads too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import urlsplit

from infra.isolation.aws import Identity
from infra.lake.location import Location
from infra.places import Places
from infra.settings import Settings
from tasks.domain.errors import InvalidDefinition

Document = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9!_.'()=-]+)*")
"""Of buckets and prefixes: what a policy would read as a pattern or a variable is not among it."""


@cache
def template(name: str) -> str:
    """The text of a template."""
    return files("infra").joinpath("policies", f"{name}.json").read_text()


def rendered(name: str, values: Mapping[str, str]) -> Document:
    """A template with all its values, each plain text or JSON by itself."""
    document: Document = json.loads(Template(template(name)).substitute(values))
    return document


def merged(*documents: Document) -> Document:
    """One document with the statements of all, in their order."""
    return {**documents[0], "Statement": [each for document in documents for each in document["Statement"]]}


def trust_policy(operator: str) -> Document:
    """Who may assume a tenant's role."""
    return rendered("tenant-trust", {"operator": operator})


def tenant_policy(identity: Identity, places: Sequence[Places], keys: Sequence[str]) -> Document:
    """What a tenant's role may do: its folders, and the keys that they are encrypted with, and nothing else."""
    documents = []
    for number, each in enumerate(places):
        for name, location in vars(each).items():
            values = {
                "partition": identity.partition,
                "bucket": plain(location.bucket or ""),
                "prefix": plain(location.prefix),
                "name": "".join(word.title() for word in name.split("_")) + (str(number) if number else ""),
            }
            if location.bucket is not None:
                documents.append(rendered("tenant-folder", values))
    if keys:
        documents.append(rendered("tenant-key", {"keys": json.dumps(sorted(keys))}))
    return merged(*documents)


def shared_bucket_policy(identity: Identity, bucket: str, kms_key: str | None) -> Document:
    """What a shared bucket refuses to everyone: plain transport, and other encryption than its own."""
    values = {"partition": identity.partition, "bucket": plain(bucket), "key": kms_key or ""}
    encryption = "bucket-encryption-kms" if kms_key else "bucket-encryption"
    return merged(rendered("bucket-transport", values), rendered(encryption, values))


def silo_bucket_policy(identity: Identity, bucket: str, kms_key: str | None, principals: Sequence[str]) -> Document:
    """The same for the bucket of a silo, which refuses everyone but these besides."""
    values = {"partition": identity.partition, "bucket": plain(bucket), "principals": json.dumps(list(principals))}
    return merged(shared_bucket_policy(identity, bucket, kms_key), rendered("bucket-silo", values))


def key_policy(identity: Identity, role: str) -> Document:
    """Who may use the key of a silo, and who may administer it."""
    values = {"partition": identity.partition, "account": identity.account, "role": role}
    return rendered("silo-key", values)


def operator_policy(settings: Settings, identity: Identity) -> Document:
    """What the login needs that onboards tenants, runs the platform and erases."""
    buckets = sorted({bucket for bucket in map(_bucket, shared_urls(settings)) if bucket})
    arns = [f"arn:{identity.partition}:s3:::{bucket}" for bucket in buckets]
    values = {
        "partition": identity.partition,
        "account": identity.account,
        "role_prefix": settings.storage.role_prefix,
        "silo_prefix": _bucket(settings.silo_url) or "none",
        "shared_buckets": json.dumps(arns),
        "shared_resources": json.dumps([*arns, *(f"{arn}/*" for arn in arns)]),
    }
    documents = [rendered("operator", values)]
    inbox = Location.of(settings.inbox_url, settings.lake_options)
    if inbox.bucket is not None:
        keys = f"{inbox.prefix}/*" if inbox.prefix else "*"
        documents.append(
            rendered("operator-inbox", {"partition": identity.partition, "bucket": inbox.bucket, "keys": keys})
        )
    return merged(*documents)


def shared_urls(settings: Settings) -> tuple[str, str, str]:
    """Roots of what tenants without a silo share."""
    return settings.lake_url, settings.training_artifacts_url, settings.production_artifacts_url


def plain(name: str) -> str:
    """The name of a bucket or a prefix as it may stand in a policy. Raises `InvalidDefinition`."""
    if not _NAME.fullmatch(name):
        raise InvalidDefinition(
            "a bucket or a folder has a name that a policy would read as a pattern",
            expected="letters, digits and !_.'()=- between slashes",
            found=name,
            hint="see ORCHARD_LAKE_URL and the other addresses",
        )
    return name


def canonical(document: Any) -> Any:
    """A document as it compares: stores keep lists in an order of their own, and a list of one as its item."""
    if isinstance(document, Mapping):
        return {name: canonical(value) for name, value in document.items()}
    if isinstance(document, list):
        items = [canonical(each) for each in document]
        return items[0] if len(items) == 1 else sorted(items, key=lambda each: json.dumps(each, sort_keys=True))
    return document


def _bucket(url: str) -> str | None:
    parts = urlsplit(url)
    return parts.netloc if parts.scheme == "s3" else None
