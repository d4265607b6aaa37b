"""What buckets are told to refuse, at an endpoint that speaks TLS.

(moto's server would then refuse every object, since it knows no conditions: what they mean is in `test_policies`.)
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.isolation.aws import identity
from infra.isolation.policies import shared_bucket_policy, silo_bucket_policy
from infra.isolation.roles import provide, remove
from infra.places import places
from tasks.domain.tenant import Isolation
from tests.isolation.store import Store, isolated, running_store


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store behind a certificate that this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
    made = made.add_extension(alternative, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate, private = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with running_store("-s", "-c", str(certificate), "-k", str(private)) as running:
        yield running


def test_buckets_are_told_what_to_refuse(secure: Store, tmp_path: Path) -> None:
    key = secure.client("kms").create_key()["KeyMetadata"]["Arn"]
    settings = secure.settings(tmp_path, "lake", storage={"kms_key": key, "administrators": ["arn:aws:iam::1:role/tf"]})
    s3, who = secure.client("s3"), identity(settings.lake_options, settings.storage)
    theirs = {"Sid": "Theirs", "Effect": "Allow", "Principal": "*", "Action": "s3:GetBucketLocation",
              "Resource": "arn:aws:s3:::lake"}  # fmt: skip
    s3.put_bucket_policy(Bucket="lake", Policy=json.dumps({"Version": "2012-10-17", "Statement": [theirs]}))
    assert "bucket lake: what it refuses" in provide(settings, isolated("acme", Isolation.POOL))
    policy = json.loads(s3.get_bucket_policy(Bucket="lake")["Policy"])
    assert policy["Statement"] == [*shared_bucket_policy(who, "lake", key)["Statement"], theirs]
    rule = s3.get_bucket_encryption(Bucket="lake")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    place = places(settings, "acme", Isolation.POOL).lake
    assert place.kms_key == key
    assert place.delta_options()["AWS_SSE_KMS_KEY_ID"] == key
    assert place.filesystem().s3_additional_kwargs == {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}

    silo = isolated("globex", Isolation.SILO)
    provide(settings, silo)
    own = places(settings, "globex", Isolation.SILO).lake
    key = secure.client("kms").describe_key(KeyId=f"alias/{own.role}")["KeyMetadata"]["Arn"]
    admitted = [who.role(own.role or ""), who.principal, "arn:aws:iam::1:role/tf"]
    policy = json.loads(s3.get_bucket_policy(Bucket=own.bucket)["Policy"])
    assert policy["Statement"] == silo_bucket_policy(who, own.bucket or "", key, admitted)["Statement"]
    for tenant in (silo, isolated("acme", Isolation.POOL)):
        assert provide(settings, tenant) == []
    assert remove(settings, "globex", Isolation.SILO)
