"""How a tenant is written down: its forms are found, by Python and by PostgreSQL alike, and nobody else's are."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.mentions import Leaver, Mentions, mentions_of
from infra.settings import Settings
from tasks.domain.tenant import Isolation, Tier


def leaver(tenant: str, name: str, *use_cases: str, secrets: tuple[str, ...] = ()) -> Leaver:
    return Leaver(
        tenant=tenant, name=name, tier=Tier.FREE, isolation=Isolation.POOL, use_cases=use_cases, secrets=secrets
    )


OTHERS = [
    leaver("acme-foods", "Acme Foods Europe", "demand", "acme"),
    leaver("us-east", "US", "as", "demand"),
    leaver("big", "Big Acme Foods", "demand"),
]


@pytest.fixture(scope="module")
def acme(settings: Settings) -> Mentions:
    return mentions_of(settings, leaver("acme", "Acme Foods", "demand", "late-risk", secrets=("acme-wh",)), OTHERS)


@pytest.fixture(scope="module")
def a_word(settings: Settings) -> Mentions:
    """A tenant whose id is a word, and whose name is short."""
    return mentions_of(settings, leaver("as", "Ace", "demand"), OTHERS)


NAMED = [
    "tenant:acme",
    "prefect.tag.tenant:acme",
    "orchard.tenant.acme.demand",
    '{"tenant": "acme", "job_id": 3}',
    json.dumps({"text": json.dumps({"tenant": "acme"})}),
    "there is no tenant 'acme'",
    "tenant_id='acme'",
    "tenant_acme",
    "worker-tenant-acme",
    "pipeline-tenant-acme",
    "predictions_acme",
    "Flow run 'acme pipeline 0123abcd' - started",
    "acme demand pipeline 12",
    "acme.late-risk training",
    "models:/acme.demand@champion",
    "acme/demand/history/sales.csv",
    "admission acme/late-risk/scoring/x.csv",
    "acme--demand-receipt",
    "acme-demand-partitions",
    "acme-wh",
    "runs of tenant acme alone",
    "`orchard receipts acme demand`",
    "/opt/bin/orchard tenants show acme",
    "Key (tenant, use_case)=(acme, demand) already exists.",
    "## Acme Foods: demand, history",
    json.dumps("von Acme Foods"),
]

NOT_NAMED = [
    "acme",  # a word by itself says nothing
    "tenant:acme-foods",
    "tenant_acme-foods",
    "acme-foods.demand",
    "acme-foods--demand-receipt",
    "acme-foods-wh",
    "my-acme.demand",
    "big acme-foods demand pipeline 3",
    "acme-foods/demand/history/sales.csv",
    "acme-foods.acme",
    '{"id": "acme"}',  # it is also a use case of another tenant
    "## Acme Foods Europe: demand, history",
    "## Big Acme Foods: demand",
    "Acme Foodstuffs",
]


@pytest.mark.parametrize("found", NAMED)
def test_a_form_is_found(acme: Mentions, found: str) -> None:
    assert acme.found_in(found)
    assert acme.found_in(f"before, {found}, and after")


@pytest.mark.parametrize("other", NOT_NAMED)
def test_what_others_are_called_is_no_mention(acme: Mentions, other: str) -> None:
    assert not acme.found_in(other)


def test_its_folders_are_found_and_those_of_others_are_not(acme: Mentions, settings: Settings) -> None:
    for root in (
        settings.lake_url + "/tenants",
        settings.training_artifacts_url,
        settings.inbox_url,
        settings.silo_url,
    ):
        assert acme.found_in(f"see {root}/acme")
        assert acme.found_in(f"{root.removeprefix('file://')}/acme/demand/file.parquet")
        assert not acme.found_in(f"see {root}/acme-foods")


def test_an_id_that_is_a_word_is_found_in_its_forms_alone(a_word: Mentions) -> None:
    for plain in ("such as demand, as ever", "as a whole", "the tenant as such", "orchard is as good", "as", "Ace"):
        assert not a_word.found_in(plain)
        assert a_word.in_logs.search(plain.encode()) is None
    for report in ('{"attacker": "as"}', "<td>as</td>", "as → acme", "acme → as"):
        assert a_word.in_logs.search(report.encode()) is not None
    for named in ("tenant:as", "as.demand", "as demand pipeline 3", "## Ace: demand", "tenants show as", "tenant_as"):
        assert a_word.found_in(f"orchard {named}")


def test_logs_are_searched_for_a_distinct_id_by_itself(settings: Settings) -> None:
    distinct = mentions_of(settings, leaver("quetzal-7", "Quetzal", "demand"), OTHERS)
    assert distinct.in_logs.search(b"whatever a library says of quetzal-7, it says") is not None
    assert distinct.in_logs.search(b"but not of quetzal-70 or my-quetzal-7") is None


def test_postgresql_reads_the_pattern_as_python_does(acme: Mentions, a_word: Mentions, postgres: Cluster) -> None:
    texts = [*NAMED, *NOT_NAMED, *(f"({each})" for each in NAMED), "as.demand", "such as demand", "tenant as", "Ace"]
    query = text("SELECT t ~ :pattern FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS u (t, n) ORDER BY n")
    for mentions in (acme, a_word):
        values = {"pattern": mentions.pattern, "texts": texts}
        theirs = transact(postgres.operator_url, lambda c, values=values: c.scalars(query, values).all())
        assert theirs == [mentions.found_in(each) for each in texts]


def test_names_that_begin_with_an_id_are_the_longest_ones(acme: Mentions) -> None:
    for name in ("acme", "acme-pull-x1y2", "acme-wh"):
        assert acme.owns(name)
    for name in ("acme-foods", "acme-foods-pull-x1y2", "acmes", "big-acme", "pull-acme"):
        assert not acme.owns(name)


def test_names_in_other_alphabets_are_found_where_json_escapes_them(settings: Settings) -> None:
    mentions = mentions_of(settings, leaver("muenchen", "Münchner Löwenbräu", "demand"), OTHERS)
    assert mentions.found_in(json.dumps({"text": "## Münchner Löwenbräu: demand"}))
    assert mentions.found_in("## Münchner Löwenbräu: demand")
