"""What belongs to nobody is added once, however often it is read."""

from __future__ import annotations

from sqlalchemy import text

from deployments.overhead import readings
from infra import postgres as embedded
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.overhead import Reading, record_overhead
from infra.settings import Settings


def stored(postgres: Cluster, process: str) -> tuple[float, float]:
    query = text("SELECT sum(cpu_s), sum(wall_s) FROM overhead WHERE process = :process")
    return transact(
        postgres.operator_url, lambda connection: tuple(connection.execute(query, {"process": process}).one())
    )


def test_readings_of_a_process_add_up_to_the_last(postgres: Cluster) -> None:
    for cpu_s in (1.0, 1.0, 2.5):
        record_overhead(postgres, [Reading("prefect 1.00", "prefect", cpu_s, 10 * cpu_s, 200.0)])
    record_overhead(postgres, [Reading("prefect 2.00", "prefect", 0.5, 5.0, 200.0)])  # it was started anew
    assert stored(postgres, "prefect 1.00") == (2.5, 25.0)
    assert stored(postgres, "prefect 2.00") == (0.5, 5.0)


def test_hours_that_have_passed_stay_as_they_are(postgres: Cluster) -> None:
    record_overhead(postgres, [Reading("api 1.00", "api", 1.0, 1.0, 1.0)])
    earlier = text("UPDATE overhead SET at = at - interval '1 hour' WHERE process = 'api 1.00'")
    transact(postgres.operator_url, lambda connection: connection.execute(earlier))
    record_overhead(postgres, [Reading("api 1.00", "api", 1.75, 2.0, 1.0)])
    query = text("SELECT cpu_s FROM overhead WHERE process = 'api 1.00' ORDER BY at")
    assert transact(postgres.operator_url, lambda connection: connection.scalars(query).all()) == [1.0, 0.75]


def test_the_database_server_is_read_with_all_its_processes(postgres: Cluster, settings: Settings) -> None:
    assert embedded.address(settings.home) is not None
    before = {reading.part: reading for reading in readings(settings)}["postgresql"]
    work = text("SELECT count(*) FROM generate_series(1, 3000000)")
    transact(postgres.operator_url, lambda connection: connection.scalar(work))
    after = {reading.part: reading for reading in readings(settings)}["postgresql"]
    assert after.process == before.process
    assert 0.1 < after.cpu_s - before.cpu_s < 10
    assert after.peak_mb > 10
