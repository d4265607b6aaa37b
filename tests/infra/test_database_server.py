"""The embedded server, and the settings that lead to it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from infra import postgres
from infra.database.cluster import check_reachable, connected_cluster, started_cluster
from infra.settings import load_settings
from tasks.domain.errors import DatabaseUnavailable, InvalidDefinition

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="orchard-server-") as folder:
        path = Path(folder) / "home"
        yield path
        postgres.stop(path)


def connect(url: str, **changes: str) -> psycopg.Connection:
    plain = make_url(url).set(drivername="postgresql", **changes)
    return psycopg.connect(plain.render_as_string(hide_password=False), connect_timeout=5)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_server_survives_kill_and_restarts_with_its_data(home: Path) -> None:
    url = postgres.start(home, "secret")
    with connect(url) as connection:
        connection.execute("CREATE TABLE kept (id integer)")
    assert postgres.start(home, "secret", port=5433) == url  # what runs is left as it is
    with pytest.raises(psycopg.OperationalError, match="authentication"):
        connect(url, password="wrong")
    busy = connect(url)
    busy.execute("SELECT 1")
    server = postgres.address(home)
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until_gone(server.pid)
    busy.close()
    assert not postgres.is_running(home)
    assert postgres.start(home, "secret") == url
    with connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    postgres.stop(home)
    assert not postgres.is_running(home)
    postgres.stop(home)


def test_a_pid_that_another_program_has_by_now_is_no_server(home: Path) -> None:
    postgres.start(home, "secret")
    postgres.stop(home)
    lines = [str(os.getpid()), str(home / "postgres"), "1", "5432", str(home / "postgres"), "", "0 0", "ready"]
    (home / "postgres" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    assert not postgres.is_running(home)
    with connect(postgres.start(home, "secret")):
        pass


def test_of_two_starts_at_once_one_makes_the_server(home: Path) -> None:
    script = f"from pathlib import Path; from infra import postgres; print(postgres.start(Path({str(home)!r}), 'x'))"
    both = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    urls = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(urls) == 1
    with connect(urls.pop().strip()):
        pass


def test_a_deep_folder_and_a_busy_port(home: Path) -> None:
    deep = home / ("deep-" * 20) / "it's"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        try:
            url = postgres.start(deep, "secret", port)
            server = postgres.address(deep)
            assert server is not None
            assert server.host == "127.0.0.1"
            assert server.port > port
            with connect(url) as connection:
                folder = connection.execute("SHOW unix_socket_directories").fetchone()
            assert folder is not None
            assert len(folder[0]) < 90
            assert stat.S_IMODE(Path(folder[0]).stat().st_mode) == 0o700
        finally:
            postgres.stop(deep)
            if "folder" in locals() and folder:
                Path(folder[0]).rmdir()


def test_a_cluster_is_started_once_and_then_connected_to(home: Path) -> None:
    settings = load_settings(home=home)
    with pytest.raises(DatabaseUnavailable, match="does not run"):
        connected_cluster(settings)
    cluster = started_cluster(settings)
    assert started_cluster(settings) == cluster == connected_cluster(settings)
    assert check_reachable(cluster).startswith("18")
    with connect(cluster.training_registry_url) as registry:
        registry.execute("CREATE TABLE theirs (id integer)")
    with connect(cluster.prefect_url.replace("+asyncpg", "+psycopg")) as prefect:
        assert prefect.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'").fetchone() == (1,)
    (home / "secret.key").write_text("another key")
    with pytest.raises(InvalidDefinition, match="secret key"):
        started_cluster(load_settings(home=home))


def test_the_operators_own_database_may_be_anywhere(home: Path) -> None:
    local = started_cluster(load_settings(home=home))
    registries = {"training_registry_uri": "sqlite:///t", "production_registry_uri": "sqlite:///p"}
    remote = {"database_url": local.operator_url.replace("+psycopg", ""), "prefect_api_url": "http://prefect/api"}
    elsewhere = load_settings(home=home / "other", **remote, **registries)
    assert started_cluster(elsewhere).operator_url == local.operator_url
    assert not postgres.is_running(home / "other")
    with pytest.raises(InvalidDefinition, match="PostgreSQL"):
        started_cluster(load_settings(home=home / "other", database_url="mysql://a:b@c/d"))


def test_a_broken_server_says_why(home: Path) -> None:
    postgres.start(home, "secret")
    postgres.stop(home)
    with (home / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(DatabaseUnavailable, match="no_such_setting"):
        postgres.start(home, "secret")


def test_settings_come_from_arguments_then_variables_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml, dotenv = tmp_path / "orchard.toml", tmp_path / "orchard.env"
    toml.write_text('home = "from-file"\nmlflow_port = 1\nprefect_port = 2\n[lake_options]\nkey = "k"\n')
    dotenv.write_text("ORCHARD_MLFLOW_PORT=7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHARD_SETTINGS_FILE", str(toml))
    monkeypatch.setenv("ORCHARD_PREFECT_PORT", "3")
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect/api")
    settings = load_settings(postgres_port=4)
    assert (settings.mlflow_port, settings.prefect_port, settings.postgres_port) == (1, 3, 4)
    assert settings.home == tmp_path / "from-file"
    assert settings.lake_url == f"file://{tmp_path}/from-file/lake"
    assert settings.lake_options.key is not None
    assert settings.prefect_api_url == "http://prefect/api"
    monkeypatch.setenv("ORCHARD_SETTINGS_FILE", str(dotenv))
    assert load_settings().mlflow_port == 7
    toml.write_text("hom = 1")
    monkeypatch.setenv("ORCHARD_SETTINGS_FILE", str(toml))
    with pytest.raises(InvalidDefinition, match="hom"):
        load_settings()
    monkeypatch.setenv("ORCHARD_SETTINGS_FILE", "missing.toml")
    with pytest.raises(InvalidDefinition, match=r"missing\.toml"):
        load_settings()


def test_the_secret_key_is_made_once_and_passwords_differ(tmp_path: Path) -> None:
    first, second = load_settings(home=tmp_path), load_settings(home=tmp_path)
    assert first.secret_key == second.secret_key
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    passwords = {first.tenant_password("a"), first.tenant_password("orchard"), first.service_password("orchard")}
    assert len(passwords) == 3
    assert first.secret_key.get_secret_value() not in repr(first)
    assert load_settings(home=tmp_path / "other").tenant_password("a") != first.tenant_password("a")
