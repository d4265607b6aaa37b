"""Signatures of documents that leave the platform: Ed25519, under a key that derives from the secret key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from infra.settings import derived_password

Document = Mapping[str, Any]


def signature_of(document: Document, secret_key: SecretStr) -> str:
    """The signature, in hex, of a document's canonical form."""
    return _private(secret_key).sign(canonical(document)).hex()


def public_key(secret_key: SecretStr) -> str:
    """The key, in hex, by which anyone can check signatures."""
    return _private(secret_key).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def is_signed(document: Document, signature: str, key: str) -> bool:
    """Whether the signature is that of this document by the owner of this public key."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), canonical(document))
    except (InvalidSignature, ValueError):
        return False
    return True


def canonical(document: Document) -> bytes:
    """What is signed: JSON in UTF-8 with sorted names and without spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _private(secret_key: SecretStr) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(derived_password(secret_key, "certificates")))
