"""The tenant's guide is true: every block of it is run, against an API that serves."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.definitions import parse
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.tenant import Tenant, Tier
from tests.api.filled import fill
from tests.api.guide import GUIDE, Reader, blocks
from tests.api.served import Api
from tests.promotion import bundles
from tests.serving.deployed import onboarded


@pytest.fixture
def reader(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Reader:
    """Somebody with a key of a tenant whose models serve already."""
    fill(onboarded(api_settings, postgres, "api-guided"), tmp_path / "made")
    key = keys.create("api-guided", "shop", Role.UPLOADER)[1]
    monkeypatch.chdir(tmp_path)
    url = f"http://127.0.0.1:{api.port}"
    for name, value in {"API": url, "KEY": key, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    return Reader(url, key, tmp_path)


def test_every_block_but_uploads_works_where_a_release_serves(reader: Reader) -> None:
    for block in blocks():
        if not block.uploads:
            reader.follow(block)
    assert (reader.folder / "predictions.csv").read_text().startswith('"partition"')
    assert len(list(reader.names["read"]("/v1/demand/predictions", "predictions", limit=2))) == 25
    total = sum(reader.names["explained"]["contributions"].values())
    assert total == pytest.approx(reader.names["explained"]["prediction"])


def test_who_waits_as_the_guide_says_is_never_refused(
    reader: Reader, api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    fill(onboarded(api_settings, postgres, "api-patient", Tier.FREE), tmp_path / "more")
    reader.key = keys.create("api-patient", "shop", Role.READER)[1]
    for block in blocks():
        if block.language == "python" and ("import httpx" in block.text or "def patiently" in block.text):
            reader.follow(block)
    client = reader.names["client"]
    client.headers["Authorization"] = f"Bearer {reader.key}"
    answers = [reader.names["patiently"]("GET", "/v1/use-cases").status_code for _ in range(25)]
    assert answers == [200] * 25


def test_the_operators_guide_has_the_use_case_that_it_is_about() -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```$", (GUIDE.parent / "OPERATORS.md").read_text(), re.MULTILINE | re.DOTALL)
    [use_case] = parse(Tenant, text.encode(), "OPERATORS.md").use_cases
    followed = bundles.USE_CASE
    for field in ("id", "kind", "contract", "partition_by", "target", "time"):
        assert getattr(use_case, field) == getattr(followed, field)
    assert {*use_case.features.numeric, *use_case.features.categorical} == {
        *followed.features.numeric, *followed.features.categorical,
    }  # fmt: skip


def test_what_it_names_exists(api: Api) -> None:
    """Paths, problems and fields that the text speaks of."""
    with api.client() as client:
        description = client.get("/openapi.json").json()
    text = GUIDE.read_text()
    templates = [re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(path)) for path in description["paths"]]
    named = set(re.findall(r"`(?:GET )?(/v1/[^`?\s]*)", text)) | set(re.findall(r"\$API(/v1/[\w/-]+)(?!\$)", text))
    assert len(named) > 10
    for path in named:
        assert any(re.fullmatch(template, path) for template in templates), path
    schemas = description["components"]["schemas"]
    fields = set(itertools.chain(*(schema.get("properties", {}) for schema in schemas.values())))
    assert {"stale_s", "scored_at", "contributions", "release", "source", "request_id"} <= fields
