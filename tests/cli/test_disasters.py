"""A full disk, a database that is down, a bundle that was tampered with: a clear message, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from infra import postgres
from infra.settings import Settings, load_settings
from infra.space import open_space
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import ORCHARD, Terminal


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of two megabytes."""
    with tempfile.TemporaryDirectory(prefix="orchard-small-") as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
        if mounted.returncode:
            pytest.skip("no right to mount a file system; the limit on file sizes is tested beside this")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Makes the file as large as its file system lets it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(file, bytes(4096))
    os.close(file)


def status_of(orchard: Terminal, tenant: str) -> list[str]:
    rows = orchard("receipts", tenant, "--json").worked().json
    return [row["status"] for row in rows if " upload " in row["what"]]


def test_a_full_disk(orchard: Terminal, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHARD_LAKE_URL", small_disk.as_uri())
    orchard("tenants", "add", tenant_file(Path(), "crammed")).worked()
    Path("january.csv").write_text(history())
    ballast = small_disk / "ballast"
    upload = ("upload", "crammed", "sales", "history", "january.csv")

    # no room for the file itself: it is not recorded
    fill(ballast)
    orchard(*upload).failed(1, "disk full", "free some space")
    assert status_of(orchard, "crammed") == []

    # room for the file, none for the table
    os.truncate(ballast, ballast.stat().st_size - 3 * 4096 - len(history()))
    answer = orchard(*upload).failed(1, "disk full", "is stored as upload", "`orchard run crammed sales`")
    assert status_of(orchard, "crammed") == ["received"]
    assert any("disk full" in (row["error"] or "") for row in orchard("receipts", "crammed", "--json").json), answer.err

    ballast.unlink()
    [done] = orchard("run", "crammed", "--json").worked().json
    assert (done["status"], done["rows_accepted"], done["error"]) == ("done", 240, None)
    assert len(orchard("models", "crammed", "sales", "--json").json) == 6


def test_a_limit_on_file_sizes(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "limited")).worked()
    Path("january.csv").write_text(history())
    command = f"ulimit -f 8; exec {ORCHARD} upload limited sales history january.csv"  # 8 blocks of 1,024 bytes
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "disk full" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert status_of(orchard, "limited") == []
    orchard("upload", "limited", "sales", "history", "january.csv").worked()
    assert status_of(orchard, "limited") == ["done"]


class TestDatabase:
    """With a PostgreSQL of their own that the tests stop and start: Orchard knows it only by its URL."""

    @pytest.fixture
    def home(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="orchard-db-") as folder:
            home = Path(folder) / "home"
            yield home
            postgres.stop(home)

    @pytest.fixture
    def password(self, home: Path, monkeypatch: pytest.MonkeyPatch, orchard: Terminal) -> str:
        """Password of the operator's login; the environment names the database from now on."""
        password = "correct-horse"
        admin = make_url(postgres.start(home, password))
        plain = admin.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE boss LOGIN CREATEROLE CREATEDB PASSWORD '{password}'")
            connection.execute("CREATE DATABASE boss OWNER boss")
        url = admin.set(username="boss", database="boss").render_as_string(hide_password=False)
        monkeypatch.setenv("ORCHARD_DATABASE_URL", url)
        monkeypatch.setenv("ORCHARD_SECRET_KEY", "of this test")
        monkeypatch.setenv("ORCHARD_HOME", str(home.parent / "other"))
        return password

    def test_that_is_down_and_comes_back(self, orchard: Terminal, home: Path, password: str) -> None:
        orchard("tenants", "add", tenant_file(Path(), "patient")).worked()
        Path("january.csv").write_text(history())
        words = ("upload", "patient", "sales", "history", "january.csv", "--json")

        postgres.stop(home)
        answer = orchard(*words).failed(1, "the database does not answer", "database boss", "login boss")
        assert password not in answer.err
        assert orchard("status", "--json").worked().json["lake_url"]

        # it comes back while a command waits for it
        timer = threading.Timer(3, postgres.start, (home, password))
        timer.start()
        [stored] = orchard(*words, "--no-run").worked().json
        timer.join()
        assert stored["status"] == "received"

    def test_that_goes_away_in_the_middle(self, orchard: Terminal, home: Path, password: str) -> None:
        orchard("tenants", "add", tenant_file(Path(), "cut")).worked()
        Path("january.csv").write_text(history())
        space = open_space(load_settings(), "cut")

        def stop_once_it_runs() -> None:
            while not space.records.runs():
                time.sleep(0.01)
            postgres.stop(home)

        thread = threading.Thread(target=stop_once_it_runs)
        thread.start()
        answer = orchard("upload", "cut", "sales", "history", "january.csv").failed(1, "does not answer")
        thread.join()
        assert password not in answer.err

        postgres.start(home, password)
        [upload] = orchard("run", "cut", "--json").worked().json
        assert (upload["status"], upload["rows_accepted"], upload["error"]) == ("done", 240, None)
        assert len(orchard("models", "cut", "sales", "--json").json) == 6

    def test_that_refuses_the_login(self, orchard: Terminal, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
        url = os.environ["ORCHARD_DATABASE_URL"]
        monkeypatch.setenv("ORCHARD_DATABASE_URL", url.replace(password, "staple"))
        answer = orchard("tenants", "list").failed(2, "the database refuses this login", "ORCHARD_DATABASE_URL")
        assert "staple" not in answer.err


def test_an_interrupted_upload_stops_at_once_and_is_taken_up_again(orchard: Terminal, settings: Settings) -> None:
    orchard("tenants", "add", tenant_file(Path(), "impatient")).worked()
    Path("long.csv").write_text(history(2000))
    space = open_space(settings, "impatient")
    command = [ORCHARD, "upload", "impatient", "sales", "history", "long.csv"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background may ignore it
    ) as process:
        deadline = time.monotonic() + 60
        while not space.records.runs() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=200)  # it takes a moment, on a busy machine a long one
    assert process.returncode == 130
    assert "goes on from here" in err
    assert "Traceback" not in err
    assert status_of(orchard, "impatient") != ["done"]
    [upload] = orchard("run", "impatient", "--json").worked().json
    assert (upload["status"], upload["rows_accepted"]) == ("done", 12_000)


def test_a_tampered_bundle_is_not_used(orchard: Terminal, settings: Settings) -> None:
    orchard("tenants", "add", tenant_file(Path(), "robbed")).worked()
    for number, text in enumerate((history(), history(20, first="2026-03-01", seed=3))):
        Path(f"{number}.csv").write_text(text)
        orchard("upload", "robbed", "sales", "history", f"{number}.csv").worked()
    [champion, earlier] = orchard("releases", "list", "robbed", "sales", "--json").json
    assert (champion["status"], earlier["status"]) == ("champion", "retired")

    space = open_space(settings, "robbed")
    for version in (champion["version"], earlier["version"]):
        with space.registry.open_release("sales", version) as folder:
            [part, *_] = sorted(folder.rglob("*.parquet"))
        sound = part.read_bytes()
        part.chmod(0o600)
        part.write_bytes(sound[:40] + bytes([sound[40] ^ 1]) + sound[41:])
        if version == champion["version"]:
            Path("june.csv").write_text(scoring())
            orchard("upload", "robbed", "sales", "scoring", "june.csv").failed(1, part.name, "is stored as upload")
            assert orchard("results", "robbed", "sales", "--json").json == []
            assert status_of(orchard, "robbed") == ["done", "done", "ingested"]
        else:
            orchard("releases", "rollback", "robbed", "sales").failed(1, part.name)
        part.write_bytes(sound)

    assert orchard("releases", "list", "robbed", "sales", "--json").json == [champion, earlier]
    [scored] = orchard("run", "robbed", "--json").worked().json
    assert len(scored["scoring"]) == 1
    assert status_of(orchard, "robbed") == ["done"] * 3
    assert len(orchard("results", "robbed", "sales", "--limit", 100, "--json").json) == 18
