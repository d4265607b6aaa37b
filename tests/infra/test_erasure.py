"""A tenant is removed from the databases, while the others stay; what is planted is found; what was cut off goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import make_url, text

from infra.database.audit import Actor, Audit
from infra.database.cluster import Cluster, tenant_login
from infra.database.connect import _engines, engine, session, transact
from infra.database.erasures import Erasures
from infra.database.leavers import leavers
from infra.database.operator import Operator
from infra.database.records import PostgresRecords
from infra.database.removal import TenantRemoval, tables_of_tenants
from infra.database.search import Hit, search_database
from infra.database.stillness import wait_until_still
from infra.mentions import Leaver, Mentions, mentions_of
from infra.settings import Settings
from tasks.domain.errors import Busy, InvalidDefinition, NotFound
from tasks.domain.names import Purpose
from tasks.domain.tenant import Isolation, TenantState
from tests.conftest import MakeRecords
from tests.infra.test_database_isolation import fill
from tests.samples import sales_use_case, sample_tenant

BY = Actor(who="operator:test", origin="test")


def mentions(settings: Settings, cluster: Cluster, leaver: Leaver) -> Mentions:
    others = [other for name, other in leavers(cluster).items() if name != leaver.tenant]
    return mentions_of(settings, leaver, others)


def counts(cluster: Cluster, tenant: str) -> dict[str, int]:
    return TenantRemoval(cluster, tenant).count_rows()


@pytest.fixture
def other(make_records: MakeRecords, operator: Operator) -> PostgresRecords:
    """A tenant that stays."""
    with suppress(NotFound):
        return operator.records(operator.tenant("stays").id)
    records = make_records("stays")
    fill(records, operator)
    return records


@pytest.mark.parametrize("isolation", [Isolation.POOL, Isolation.SILO])
def test_all_rows_go_and_those_of_others_stay(
    operator: Operator, postgres: Cluster, settings: Settings, other: PostgresRecords, isolation: Isolation
) -> None:
    name = f"goes-{isolation}"
    operator.onboard(sample_tenant(name).model_copy(update={"isolation": isolation}))
    records = operator.records(name)
    fill(records, operator)
    leaver, before = leavers(postgres)[name], counts(postgres, other.tenant)
    removal, what = TenantRemoval(postgres, name), mentions(settings, postgres, leaver)
    found = removal.count_rows()
    assert found.keys() >= {"tenants", "use_cases", "uploads", "runs", "predictions", "verdicts", "jobs", "schedules"}
    assert search_database(postgres.operator_url, "orchard", what)

    for _ in range(2):  # every step may be repeated
        removal.end_jobs("test")
        removal.remove_keys()
        removal.remove_secrets()
        removal.shut_out()
        assert not [key for key in _engines if f"tenant_{name}:" in key[1]]  # who comes back is handed no dead one
        with pytest.raises(InvalidDefinition, match="refuses this login"):
            records.uploads()
        removal.remove_rows()
        removal.remove_login()
        Audit(postgres).forget(name)
        assert removal.count_rows() == {}
        assert search_database(postgres.operator_url, "orchard", what) == []
    assert counts(postgres, other.tenant) == before
    assert other.predictions("sales")["tenant"].unique().tolist() == [other.tenant]


def test_readers_of_predictions_are_neither_cut_off_nor_kept_waiting(
    operator: Operator, make_records: MakeRecords, postgres: Cluster
) -> None:
    """Removing a part of the predictions waits for who reads them now, and lets in who asks meanwhile."""
    fill(make_records("read-from"), operator)
    removal = TenantRemoval(postgres, "read-from")
    url = make_url(postgres.operator_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as reader:
        reader.execute("SELECT count(*) FROM predictions")  # and the transaction stays open
        removing = threading.Thread(target=removal.remove_rows)
        removing.start()
        time.sleep(0.5)
        with psycopg.connect(url) as another:
            another.execute("SET lock_timeout = '2s'")
            another.execute("SELECT count(*) FROM current_predictions")
        assert removing.is_alive()
    removing.join(20)
    assert not removing.is_alive()
    assert removal.count_rows() == {}


def test_who_reads_for_ever_is_not_waited_for_for_ever(
    operator: Operator, make_records: MakeRecords, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.database.removal.READERS_S", 1)  # minutes otherwise
    fill(make_records("waited-for"), operator)
    removal = TenantRemoval(postgres, "waited-for")
    url = make_url(postgres.operator_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as reader:
        reader.execute("SELECT count(*) FROM predictions")
        with pytest.raises(Busy, match="does not end within 1 s"):
            removal.remove_rows()
    removal.remove_rows()
    assert removal.count_rows() == {}


def test_a_removal_that_was_cut_off_in_the_middle_of_a_detachment_goes_on(
    operator: Operator, make_records: MakeRecords, postgres: Cluster
) -> None:
    fill(make_records("cut-off"), operator)
    url = make_url(postgres.operator_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as reader, psycopg.connect(url, autocommit=True) as remover:
        reader.execute("SELECT count(*) FROM predictions")
        remover.execute("SET statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            remover.execute('ALTER TABLE predictions DETACH PARTITION "predictions_cut-off" CONCURRENTLY')
    removal = TenantRemoval(postgres, "cut-off")
    removal.remove_rows()
    assert removal.count_rows() == {}


def test_what_was_granted_by_hand_is_named(make_records: MakeRecords, postgres: Cluster, settings: Settings) -> None:
    make_records("granted")
    admin = make_url(postgres.operator_url).set(username="postgres", password=settings.service_password("postgres"))
    url = admin.set(drivername="postgresql", database="prefect").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'GRANT CREATE ON SCHEMA public TO "{tenant_login("granted")}"')
    removal = TenantRemoval(postgres, "granted")
    removal.remove_rows()
    with pytest.raises(Exception, match="something was granted to it"):
        removal.remove_login()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'REVOKE CREATE ON SCHEMA public FROM "{tenant_login("granted")}"')
    removal.remove_login()


def test_every_table_of_tenants_is_emptied(postgres: Cluster) -> None:
    """A table that is added later, and has a tenant, is either among these or the audit's and the erasures' own."""
    query = text(
        "SELECT DISTINCT c.relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
        " WHERE a.attname = 'tenant' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND c.relnamespace = 'public'::regnamespace"
    )
    with session(postgres.operator_url) as connection:
        assert set(connection.scalars(query)) - {each.name for each in tables_of_tenants()} == {
            "audit_details",
            "erasures",
        }


@pytest.fixture
def planted(postgres: Cluster) -> Iterator[str]:
    """A table that nobody declared, in which a tenant is named in every kind of column."""
    statement = """
        CREATE TABLE planted (
            a text, b json, c jsonb, d text[], e varchar(50), f bytea, g name, h integer
        );
        INSERT INTO planted (a) VALUES ('see tenant:sought'), ('see tenant:sought-more'), (NULL);
        INSERT INTO planted (b) VALUES ('{"tenant": "sought"}'), ('{"tenant": "other"}');
        INSERT INTO planted (c) VALUES ('{"x": ["sought.sales"]}');
        INSERT INTO planted (d) VALUES ('{nothing,tenant_sought}'), ('{nothing}');
        INSERT INTO planted (e) VALUES ('sought/sales/history/a.csv');
        INSERT INTO planted (f) VALUES ('tenant:sought'), ('tenant:soughtful');
        INSERT INTO planted (g) VALUES ('tenant-sought');
        INSERT INTO planted (h) VALUES (1);
        CREATE TABLE planted_tags (key text, value text);
        INSERT INTO planted_tags VALUES ('tenant', 'sought'), ('use_case', 'sought');
    """
    for each in statement.split(";\n"):
        if each.strip():
            transact(postgres.operator_url, lambda c, each=each: c.exec_driver_sql(each.strip().rstrip(";")))
    yield "planted"
    transact(postgres.operator_url, lambda c: c.exec_driver_sql("DROP TABLE planted, planted_tags"))


def test_the_search_finds_what_is_planted_in_columns_of_any_kind(
    planted: str, make_records: MakeRecords, postgres: Cluster, settings: Settings
) -> None:
    make_records("sought-more")
    leaver = Leaver(
        tenant="sought", name="Sought & Sons", tier="free", isolation="pool", use_cases=("sales",)
    )  # it has no rows
    found = search_database(postgres.operator_url, "orchard", mentions(settings, postgres, leaver))
    assert found == [Hit("orchard: table planted", 7), Hit("orchard: table planted_tags", 1)]


def test_the_search_finds_names_of_things(make_records: MakeRecords, postgres: Cluster, settings: Settings) -> None:
    make_records("named")
    removal = TenantRemoval(postgres, "named")
    what = mentions(settings, postgres, leavers(postgres)["named"])
    transact(
        postgres.operator_url,
        lambda c: c.execute(text("DELETE FROM tenants WHERE tenant = 'named'")),
    )
    found = {hit.where for hit in search_database(postgres.operator_url, "orchard", what)}
    assert found == {"orchard: logins", "orchard: relations", "orchard: table audit_details"}
    removal.remove_rows()
    removal.remove_login()


def test_a_name_that_is_a_word_is_not_sought_in_what_others_write(
    make_records: MakeRecords, postgres: Cluster, settings: Settings
) -> None:
    """Else a tenant called Retail could not be erased for as long as another has a team or a file of that name."""
    leaver = Leaver(tenant="gone-retailer", name="Retail", tier="free", isolation="pool", use_cases=("demand",))
    records = make_records(sample_tenant("stays-here", sales_use_case(team="Retail", description="Retail sales")))
    records.add_upload("sales", Purpose.SCORING, "u1", "Retail.csv", 10, "aa")
    assert search_database(postgres.operator_url, "orchard", mentions(settings, postgres, leaver)) == []
    # Nobody's rows, and an id, wherever it stands, are another matter.
    Audit(postgres).record("test", "done", by=BY, of="Retail")
    records.add_upload("sales", Purpose.SCORING, "u2", "tenant=gone-retailer.csv", 10, "bb")
    what = mentions(settings, postgres, leaver)
    found = search_database(postgres.operator_url, "orchard", what)
    assert found == [Hit("orchard: table audit_details", 1), Hit("orchard: table uploads", 1)]


@pytest.mark.parametrize(
    ("table", "column", "owned"),
    [("registered_models", "name", "{}.sales"), ("artifact", "key", "{}--sales-receipt")],
)
def test_whose_a_row_is_is_known_in_other_servers_tables_too(
    postgres: Cluster, make_records: MakeRecords, settings: Settings, table: str, column: str, owned: str
) -> None:
    make_records("stays-too")
    leaver = Leaver(tenant="gone-too", name="Retail", tier="free", isolation="pool", use_cases=("demand",))
    with engine(postgres.operator_url).begin() as connection:
        connection.execute(text(f"CREATE TABLE {table} ({column} text, description text)"))
        values = [{"key": owned.format("stays-too")}, {"key": owned.format("nobody")}]
        connection.execute(text(f"INSERT INTO {table} VALUES (:key, 'Retail sales')"), values)
    try:
        found = search_database(postgres.operator_url, "orchard", mentions(settings, postgres, leaver))
        assert Hit(f"orchard: table {table}", 1) in found  # nobody's
    finally:
        with engine(postgres.operator_url).begin() as connection:
            connection.execute(text(f"DROP TABLE {table}"))


def test_an_erasure_remembers_how_far_it_came(postgres: Cluster, make_records: MakeRecords) -> None:
    make_records("remembered")
    erasures, leaver = Erasures(postgres), leavers(postgres)["remembered"]
    begun = erasures.begin(leaver, "pseudonym-1", "operator:a", "/somewhere")
    assert erasures.begin(leaver, "pseudonym-1", "operator:b") == begun  # it goes on, whoever asks
    assert begun.progress is not None
    assert (begun.progress.leaver, begun.progress.export_to) == (leaver, "/somewhere")
    erasures.found(begun.erasure_id, "files", {"files": 10, "bytes": 100})
    erasures.found(begun.erasure_id, "files", {"files": 4, "bytes": 40})  # the rest of an attempt that was cut off
    erasures.done(begun.erasure_id, "files")
    progress = erasures.erasure(begun.erasure_id).progress
    assert progress is not None
    assert progress.steps["files"].found == {"files": 10, "bytes": 100}
    assert progress.steps["files"].at is not None
    erasures.reopen(begun.erasure_id)
    progress = erasures.erasure(begun.erasure_id).progress
    assert progress is not None
    assert (progress.steps["files"].found["files"], progress.steps["files"].at) == (10, None)

    erasures.finish(begun.erasure_id, {"certificate": 1})
    erasures.finish(begun.erasure_id, {"certificate": 2})
    finished = erasures.erasure(begun.erasure_id)
    assert (finished.tenant, finished.progress, finished.certificate) == (None, None, {"certificate": 1})
    assert erasures.unfinished("remembered") is None
    assert erasures.latest("pseudonym-1") == finished
    again = erasures.begin(leaver, "pseudonym-1", "operator:a")  # who comes back may leave again
    assert again.erasure_id != begun.erasure_id
    erasures.finish(again.erasure_id, {})
    with pytest.raises(NotFound):
        erasures.erasure("0" * 16)


def test_an_erasure_that_was_cut_off_may_be_told_to_export_first(postgres: Cluster, make_records: MakeRecords) -> None:
    make_records("told-later")
    erasures = Erasures(postgres)
    begun = erasures.begin(leavers(postgres)["told-later"], "pseudonym-2", "operator:a")
    for step in ("access", "export"):
        erasures.done(begun.erasure_id, step)
    erasures.export_first(begun.erasure_id, "export", "/somewhere")
    progress = erasures.erasure(begun.erasure_id).progress
    assert progress is not None
    assert (progress.export_to, list(progress.steps)) == ("/somewhere", ["access"])  # the export is to be made
    erasures.finish(begun.erasure_id, {})


def test_two_commands_do_not_erase_the_same_tenant(postgres: Cluster) -> None:
    erasures = Erasures(postgres)
    with erasures.alone("one"), erasures.alone("two"), pytest.raises(Busy, match="another command"):
        erasures.alone("one").__enter__()
    with erasures.alone("one"):
        pass


def test_an_erasure_waits_for_what_is_under_way_and_keeps_out_what_comes_later(
    operator: Operator, make_records: MakeRecords, postgres: Cluster
) -> None:
    records = make_records("busy-one")
    for holding in (records.lock("sales"), records.taking_in()):
        operator.set_state("busy-one", TenantState.ACTIVE)
        with holding:
            operator.set_state("busy-one", TenantState.LEAVING)
            with pytest.raises(Busy, match="busy-one"):
                wait_until_still(postgres.operator_url, "busy-one", ["sales"], 0.5)
        wait_until_still(postgres.operator_url, "busy-one", ["sales"], 0.5)
        for refused in (records.lock("sales"), records.taking_in()):
            with pytest.raises(Busy, match="leaving"), refused:
                pass
        with pytest.raises(Busy, match="leaving"):
            records.add_upload("sales", Purpose.HISTORY, "late", "a.csv", 1, "aa")


def test_many_uploads_of_a_tenant_come_in_at_once(make_records: MakeRecords) -> None:
    records = make_records("many-at-once")
    with records.taking_in(), records.taking_in(), records.lock("sales"):
        assert records.add_upload("sales", Purpose.HISTORY, "u1", "a.csv", 1, "aa")[1]
