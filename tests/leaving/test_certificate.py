"""A certificate says what was done, names nobody, and cannot be changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import SecretStr

from deployments.leaving.certificate import Rest, certificate_of, check, made_out_to, page, write
from infra.database.erasures import Done, Erasure, Progress
from infra.mentions import Leaver
from infra.signing import is_signed, public_key, signature_of
from tasks.domain.errors import InvalidDefinition, Tampered

SECRET, OTHER = SecretStr("a" * 64), SecretStr("b" * 64)
BEGUN = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def document() -> dict[str, Any]:
    leaver = Leaver(tenant="acme", name="Acme Foods", tier="free", isolation="pool", use_cases=("demand",))
    steps = {
        "rows": Done(found={"uploads": 3, "predictions": 12000}, at=BEGUN + timedelta(seconds=9)),
        "files": Done(found={"files": 7, "bytes": 100}, at=BEGUN + timedelta(seconds=5)),
        "export": Done(at=BEGUN),
    }
    erasure = Erasure(
        erasure_id="0123",
        tenant="acme",
        subject="f" * 32,
        started_at=BEGUN,
        progress=Progress(leaver=leaver, by="operator:root", steps=steps),
    )
    rests = [Rest(what="server events of Prefect", count=172, why="retention", until=BEGUN + timedelta(days=7))]
    return certificate_of(erasure, rests, ["database orchard"], SECRET)


def stored(document: object, folder: Path) -> Path:
    path = folder / "certificate.json"
    path.write_text(json.dumps(document))
    return path


def test_it_names_nobody(document: dict[str, Any]) -> None:
    assert "acme" not in json.dumps(document).lower()
    assert "acme" not in page(document).lower()


def test_it_lists_steps_in_the_order_in_which_they_were_done(document: dict[str, Any]) -> None:
    assert [step["step"] for step in document["certificate"]["removed"]] == ["files", "rows"]
    text = page(document)
    assert "3 uploads, 12,000 predictions" in text
    assert "| server events of Prefect | 172 | 2026-11-08" in text


def test_anyone_can_check_it_without_orchard(document: dict[str, Any]) -> None:
    content = document["certificate"]
    signed = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(content["public_key"]))
    key.verify(bytes.fromhex(document["signature"]), signed)


def test_what_is_written_is_found_genuine(document: dict[str, Any], tmp_path: Path) -> None:
    written = write(document, tmp_path / "certificates", "0123")
    checked = check(written.json, public_key(SECRET))
    assert (checked.erasure, checked.subject, checked.tenant) == ("0123", "f" * 32, None)
    assert written.text.read_text().startswith("# Certificate of erasure")


def test_the_copy_of_the_customer_says_whose_it_is(document: dict[str, Any], tmp_path: Path) -> None:
    made_out = made_out_to(document, "acme", SECRET)
    assert check(stored(made_out, tmp_path), public_key(SECRET)).tenant == "acme"
    assert "tenant `acme`" in page(made_out)


Forgery = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    "forge",
    [
        lambda d: d["certificate"]["removed"][0]["found"].update(files=8),
        lambda d: d["certificate"].update(finished_at="2020-01-01T00:00:00+00:00"),
        lambda d: d["certificate"]["remains"].clear(),
        lambda d: d["certificate"].update(more=1),
        lambda d: d.update(signature="00" * 64),
        lambda d: d.update(signature="no hex"),
        lambda d: d.update(signature=3),
        lambda d: d["made_out_to"].update(tenant="other"),
        lambda d: d["made_out_to"].update(subject="e" * 32),
        lambda d: d.update(made_out_to="acme"),
        lambda d: d.update(made_out_to={}),
        lambda d: d.pop("made_out_signature"),
    ],
)
def test_a_changed_certificate_is_refused(document: dict[str, Any], tmp_path: Path, forge: Forgery) -> None:
    made_out = json.loads(json.dumps(made_out_to(document, "acme", SECRET)))
    forge(made_out)
    with pytest.raises(Tampered, match="not as it was signed"):
        check(stored(made_out, tmp_path), public_key(SECRET))


def test_a_made_out_part_of_another_certificate_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    other = {**document["certificate"], "subject": "e" * 32}
    another = {"certificate": other, "signature": signature_of(other, SECRET)}
    mixed = {**made_out_to(document, "acme", SECRET), **another}
    with pytest.raises(Tampered):
        check(stored(mixed, tmp_path), public_key(SECRET))


def test_a_certificate_of_another_orchard_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    path = stored(document, tmp_path)
    for key in (public_key(OTHER), "no key", ""):
        with pytest.raises(Tampered):
            check(path, key)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b'{"certificate": {}}', b"\xff\xfe", b'{"certificate": 1}'])
def test_what_is_no_certificate_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(content)
    with pytest.raises(InvalidDefinition, match="no certificate"):
        check(path, public_key(SECRET))


def test_signatures_depend_on_content_and_key_alone() -> None:
    one, same = {"b": [1, {"ü": None}], "a": "x"}, {"a": "x", "b": [1, {"ü": None}]}
    assert signature_of(one, SECRET) == signature_of(same, SECRET) != signature_of(one, OTHER)
    assert is_signed(same, signature_of(one, SECRET), public_key(SECRET))
    assert not is_signed(same, signature_of(one, OTHER), public_key(SECRET))
