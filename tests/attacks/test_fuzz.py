"""Whatever a tenant, a use case, a key, a file or a place in the inbox is called: it is refused or stays where it
belongs, and nothing falls over. Ten thousand names in all."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from deployments.api.problems import Problem
from deployments.api.uploads import MAX_FILENAME_BYTES, UNNAMED, _decoded, _name_of
from deployments.verification import api_of
from infra.database.cluster import silo_database, tenant_login
from infra.database.keys import Keys, is_key
from infra.database.operator import Operator
from infra.database.tables import predictions_of
from infra.inbox import REJECTED, Inbox, place_of
from infra.isolation.policies import plain
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.registry.artifacts import Artifacts
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.errors import InvalidDefinition, NotFound, Permanent, StorageUnavailable
from tasks.domain.names import Purpose, TenantId, UseCaseId, registered_model_name
from tests.attacks.conftest import tenant_of

TRICKY = [
    "..", ".", "/", "\\", "\0", "\n", "\r", " ", "~", "%2e%2e", "%2f", "%00", "'", '"', ";", "--", "*", "?", "$HOME",
    "{}", "\u2025", "\u2215", "\uff0e", "\uff0f", "\u200b", "\u202e", "\u0301", "\ud800", "acme", "ACME", "tenant_acme",
    "-", "_", "file:///", "s3://", "orc_", "orc_op_", "tenants", "rejected", "NUL", "con", "${x}", "\x1b[2J", "x" * 300,
]  # fmt: skip
"""Pieces that one system or another reads as something else."""

NAMES = st.one_of(
    st.text(max_size=60),
    st.text(string.ascii_letters + string.digits + "-_./\\ ", max_size=50),
    st.lists(st.sampled_from(TRICKY), max_size=8).map("".join),
    st.lists(st.sampled_from(TRICKY), max_size=6).map("/".join),
    st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True),
)


pytestmark = pytest.mark.slow
"""Minutes: twelve thousand names."""


def names(count: int) -> Any:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[LakeFiles, Path]:
    """The folder of acme, beside that of globex, whose file must stay what it is."""
    root = tmp_path_factory.mktemp("fuzzed")
    (root / "tenants" / "globex").mkdir(parents=True)
    (root / "tenants" / "globex" / "secret").write_text("of globex")
    return LakeFiles(Location(root.as_uri()).child("tenants", "acme")), root


def intact(root: Path) -> bool:
    """Whether nothing but acme's folder was touched."""
    return (
        sorted(path.name for path in (root / "tenants").iterdir() if path.name != "acme") == ["globex"]
        and [path.name for path in (root / "tenants" / "globex").iterdir()] == ["secret"]
        and (root / "tenants" / "globex" / "secret").read_text() == "of globex"
        and [path.name for path in root.iterdir()] == ["tenants"]
    )


@contextmanager
def refusals() -> Iterator[None]:
    """What a file that cannot be had is answered with; a folder where a file should be is the storage's to tell."""
    try:
        yield
    except (Permanent, NotFound):
        pass
    except StorageUnavailable as error:
        if not any(word in str(error) for word in ("Is a directory", "Not a directory", "File exists")):
            raise


@names(2000)
@given(NAMES)
@example("acme\n")
@example("a" * 41)
def test_a_tenants_id_is_a_folder_a_login_and_a_bucket_or_nothing(tmp_path_factory: Any, name: str) -> None:
    try:
        TypeAdapter(TenantId).validate_python(name)
    except ValidationError:
        return
    assert name == name.strip().lower()
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")
    assert max(map(len, (tenant_login(name), predictions_of(name), silo_database(name)))) <= 63
    assert plain(f"silo-{name}") == f"silo-{name}"
    at = Location("file:///lake").child("tenants", name)
    assert at.local == Path("/lake/tenants") / name
    assert at.local.resolve() == at.local


@names(300)
@given(NAMES)
def test_a_tenant_that_is_not_there_is_not_found(operator: Operator, name: str) -> None:
    if name.startswith(("anna-", "bert-")):
        return
    with pytest.raises(NotFound):
        operator.tenant(f"{name}-of-nobody" if name in {tenant.id for tenant in operator.tenants()} else name)


@names(1500)
@given(NAMES)
@example("x.y")
def test_a_use_case_is_one_name_of_the_registry_or_nothing(name: str) -> None:
    try:
        TypeAdapter(UseCaseId).validate_python(name)
    except ValidationError:
        return
    full = registered_model_name("acme", name)
    assert full.split(".") == ["acme", name]
    assert not set(full) & set("'\"/\\%:@ \n\0")


@names(2000)
@given(path=NAMES, data=st.binary(max_size=10))
@example(path="../globex/secret", data=b"")
@example(path="a/../../globex/secret", data=b"")
def test_a_file_is_written_inside_or_not_at_all(lake: tuple[LakeFiles, Path], path: str, data: bytes) -> None:
    files, root = lake
    with refusals():
        files.write(path, data)
        assert files.read(path) == data
        files.delete(path)
    assert intact(root)


@names(1000)
@given(NAMES)
@example("../globex/secret")
def test_nothing_is_read_from_outside(lake: tuple[LakeFiles, Path], path: str) -> None:
    files, root = lake
    for act in (files.read, files.list, files.stamp, files.url):
        with refusals():
            assert "of globex" not in str(act(path))
    assert intact(root)


@names(1000)
@given(NAMES, NAMES)
@example(before="A://\uff0f", after="x")
def test_an_address_in_the_registry_is_inside_or_refused(tmp_path_factory: Any, before: str, after: str) -> None:
    artifacts = Artifacts(Location("file:///artifacts/production/acme"))
    for url in (f"file:///artifacts/production/acme/{after}", f"{before}/artifacts/production/acme/{after}", before):
        try:
            found = artifacts.names(url)
        except Permanent:
            continue
        place = Path("/artifacts/production/acme").joinpath(*found)
        assert ".." not in place.parts
        assert place.is_relative_to("/artifacts/production/acme")
        assert place != Path("/artifacts/production/acme")


@names(1000)
@given(st.one_of(NAMES, st.lists(NAMES, min_size=4, max_size=4).map("/".join)))
@example("acme/demand/history/../../globex/x")
@example("acme/demand/history/..")
def test_a_place_in_the_inbox_is_one_file_of_one_tenant(path: str) -> None:
    try:
        place = place_of(path)
    except InvalidDefinition:
        return
    tenant, use_case, purpose, name = path.split("/")
    assert (place.tenant, place.use_case, place.purpose) == (tenant, use_case, Purpose(purpose))
    assert name not in {"", ".", ".."}
    assert "\\" not in name


@names(500)
@given(st.lists(st.one_of(st.sampled_from(["acme", "demand", "history"]), NAMES), min_size=1, max_size=5).map("/".join))
def test_admission_reads_no_file_from_outside_the_inbox(tmp_path_factory: Any, path: str) -> None:
    root = tmp_path_factory.getbasetemp() / "inbox"
    if not root.exists():
        root.mkdir()
        (root.parent / "secret").write_text("of globex")
        (root / "link").symlink_to(root.parent)
    inbox = Inbox(LakeFiles(Location(root.as_uri())))
    try:
        with inbox.local(path) as (_, file, _):
            assert file is None or "of globex" not in file.read_text()
    except Permanent:
        return
    assert path != REJECTED


@names(1500)
@given(NAMES)
@example("../../etc/passwd")
@example("C:\\temp\\x.csv")
def test_a_file_name_is_its_last_part_or_refused(name: str) -> None:
    sent = _decoded(name.encode("utf-8", "surrogatepass").decode("latin-1"))
    try:
        kept = _name_of(sent)
    except Problem:
        return
    assert kept == UNNAMED or kept in sent
    assert not set(kept) & set("/\\\0\n\r")
    assert kept not in {"", ".", ".."}
    assert len(kept.encode(errors="replace")) <= MAX_FILENAME_BYTES
    assert Path("/scratch/x").joinpath(kept).parent == Path("/scratch/x")


@names(500)
@given(NAMES)
@example("orc_" + "x" * 43)
@example("orc_op_" + "x" * 43)
def test_a_key_that_nobody_made_opens_nothing(operator: Operator, key: str) -> None:
    assert Keys(operator.cluster).holder(key) is None
    if is_key(key):
        assert re.fullmatch(r"orc_(op_)?[A-Za-z0-9_-]{43}", key)


@names(200)
@given(NAMES)
def test_a_keys_name_is_a_line_or_refused(operator: Operator, name: str) -> None:
    keys = Keys(operator.cluster)
    operator.onboard(tenant_of("fuzzed"))
    try:
        key_id, _ = keys.create("fuzzed", name, Role.READER)
    except InvalidDefinition:
        return
    assert next(key.name for key in keys.list("fuzzed") if key.key_id == key_id).isprintable()
    keys.revoke("fuzzed", key_id)


@pytest.fixture(scope="module")
def client(settings: Settings, operator: Operator) -> Any:
    operator.onboard(tenant_of("fuzzer"))
    key_id, key = Keys(operator.cluster).create("fuzzer", "fuzz", Role.ADMIN)
    with api_of(settings) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as found:
        yield found
    Keys(operator.cluster).revoke("fuzzer", key_id)


@names(250)
@given(first=NAMES, second=NAMES)
@example(first="..", second="globex")
def test_no_path_of_the_api_falls_over_or_leads_to_another(client: httpx.Client, first: str, second: str) -> None:
    for method, path in (
        ("GET", f"/v1/uploads/{_quoted(first)}"),
        ("GET", f"/v1/jobs/{_quoted(first)}"),
        ("POST", f"/v1/{_quoted(first)}/uploads/{_quoted(second)}"),
        ("POST", f"/v1/{_quoted(first)}/jobs"),
    ):
        answer = client.request(method, path)
        assert answer.status_code in {200, 400, 403, 404, 405, 413, 422}, (path, answer.text)
        assert answer.status_code != 200 or method == "GET"
        assert "bert-" not in answer.text


@names(200)
@given(NAMES)
def test_no_file_name_makes_the_api_fall_over(client: httpx.Client, name: str) -> None:
    header = re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", name.encode("utf-8", "replace")).strip()
    answer = client.post("/v1/sales/uploads/history", headers=[(b"X-Filename", header)], content=b"")
    assert answer.status_code in {400, 422}, answer.text


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def test_so_many_names_are_tried() -> None:
    tried = [test for name, test in globals().items() if name.startswith("test_") and hasattr(test, "hypothesis")]
    assert sum(test._hypothesis_internal_use_settings.max_examples for test in tried) >= 10_000
