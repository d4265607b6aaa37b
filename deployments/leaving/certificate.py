"""The certificate of an erasure: what was removed, what remains and until when, signed.

It names the tenant by pseudonym alone, so that it can be kept. The copy that the customer gets says beside it who that
was, under a signature of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr

from infra.database.erasures import Erasure, Progress
from infra.settings import Settings
from infra.signing import is_signed, public_key, signature_of
from tasks.domain.contract import Frozen
from tasks.domain.errors import InvalidDefinition, Tampered

KIND = "certificate of erasure"
PARTS = ("orchard", "prefect", "mlflow", "deltalake")

OUTSIDE = (
    "Backups of the database and of the lake, and archives of PostgreSQL's write-ahead log, are the operator's to keep"
    " and to drop: what was in them before the erasure is in them until they expire.",
    "Copies that the tenant or its users have made are theirs.",
)


class Rest(Frozen):
    """Something that is left on purpose: how many, why, and until when (None: as long as its purpose lasts)."""

    what: str
    count: int
    why: str
    until: datetime | None = None


class Removed(Frozen):
    """What a step removed, by kind, and when it was done."""

    step: str
    found: dict[str, int]
    at: datetime


def certificate_of(
    erasure: Erasure, rests: Sequence[Rest], searched: Sequence[str], secret_key: SecretStr
) -> dict[str, Any]:
    """The certificate, signed: `certificate` and `signature`."""
    progress = erasure.progress
    assert progress is not None
    content = {
        "kind": KIND,
        "erasure": erasure.erasure_id,
        "subject": erasure.subject,
        "by": progress.by,
        "started_at": erasure.started_at.astimezone(UTC).isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        "removed": [each.model_dump(mode="json") for each in _removed(progress)],
        "remains": [rest.model_dump(mode="json") for rest in rests],
        "searched": list(searched),
        "outside": list(OUTSIDE),
        "versions": {name: version(name) for name in PARTS},
        "public_key": public_key(secret_key),
    }
    return {"certificate": content, "signature": signature_of(content, secret_key)}


def _removed(progress: Progress) -> list[Removed]:
    """The steps in order, but for those that remove nothing of which there are so many."""
    steps = [Removed(step=name, found=done.found, at=done.at) for name, done in progress.steps.items() if done.at]
    return sorted((each for each in steps if each.found), key=lambda each: each.at)


def made_out_to(document: Mapping[str, Any], tenant: str, secret_key: SecretStr) -> dict[str, Any]:
    """The same certificate as the customer gets it: it says whose it is."""
    whose = {"tenant": tenant, "subject": document["certificate"]["subject"], "signature": document["signature"]}
    return {**document, "made_out_to": whose, "made_out_signature": signature_of(whose, secret_key)}


class Checked(NamedTuple):
    """What a certificate says, once its signatures were found right. `tenant` is None where it names nobody."""

    erasure: str
    subject: str
    finished_at: str
    tenant: str | None


def check(path: Path, key: str) -> Checked:
    """Checks a certificate's signatures against a public key. Raises `InvalidDefinition` for what is none, `Tampered`
    where it is not as it was signed."""
    try:
        document = json.loads(path.read_bytes())
        content, signature = document["certificate"], document["signature"]
        known = Checked(content["erasure"], content["subject"], content["finished_at"], None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDefinition(
            "this is no certificate of an erasure", where=str(path), found=f"{type(error).__name__}: {error}"[:200]
        ) from None
    if not is_signed(content, str(signature), key):
        raise _unsigned(path, key)
    if (whose := document.get("made_out_to")) is None:
        return known
    its = isinstance(whose, dict) and whose.get("signature") == signature and whose.get("subject") == known.subject
    if not its or not is_signed(whose, str(document.get("made_out_signature")), key):
        raise _unsigned(path, key)
    return known._replace(tenant=str(whose["tenant"]))


def _unsigned(path: Path, key: str) -> Tampered:
    return Tampered(
        "the certificate is not as it was signed, or somebody else signed it",
        where=str(path),
        expected=f"a signature by the key {key}",
        hint="ask for another copy: orchard tenants certificate show",
    )


@dataclass(frozen=True)
class Written:
    """Where a certificate was written: for programs, and for people."""

    json: Path
    text: Path


def certificates_folder(settings: Settings) -> Path:
    """Where certificates are kept, beside the database."""
    return settings.home / "certificates"


def write(document: Mapping[str, Any], folder: Path, name: str) -> Written:
    """Writes a certificate as JSON, and as Markdown beside it; each file appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    written = Written(folder / f"{name}.json", folder / f"{name}.md")
    for path, text in (
        (written.json, json.dumps(document, indent=1, ensure_ascii=False)),
        (written.text, page(document)),
    ):
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    return written


def page(document: Mapping[str, Any]) -> str:
    """The certificate for people, in Markdown."""
    content = document["certificate"]
    named = document.get("made_out_to", {}).get("tenant")
    whose = f"the tenant `{named}`" if named else "one tenant"
    lines = [
        "# Certificate of erasure",
        "",
        f"All data of {whose} (pseudonym `{content['subject']}`) was removed.",
        "",
        "| | |",
        "|---|---|",
        f"| erasure | `{content['erasure']}` |",
        f"| by | {content['by']} |",
        f"| begun | {content['started_at']} |",
        f"| complete | {content['finished_at']} |",
        f"| made with | {', '.join(f'{name} {number}' for name, number in content['versions'].items())} |",
        "",
        "## What was removed",
        "",
        "| step | what | done |",
        "|---|---|---|",
        *(f"| {each['step']} | {_counts(each['found'])} | {each['at']} |" for each in content["removed"]),
        "",
        "Afterwards these were searched for the tenant's id and name:",
        "",
        *(f"- {each}" for each in content["searched"]),
        "",
        "## What remains",
        "",
        "| what | how many | until | why |",
        "|---|---:|---|---|",
        *(f"| {r['what']} | {r['count']:,} | {r['until'] or '–'} | {r['why']} |" for r in content["remains"]),
        "",
        *(f"- {each}" for each in content["outside"]),
        "",
        "## Signature",
        "",
        f"Ed25519, public key `{content['public_key']}`, over the member `certificate` of the JSON file beside this",
        "one, written with sorted names and without spaces in UTF-8:",
        "",
        f"`{document['signature']}`",
    ]
    return "\n".join(lines)


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in found.items() if count) or "nothing was there"
