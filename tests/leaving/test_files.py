"""Logs forget a tenant while they are written to; files and folders that name it are found."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from deployments.leaving.files import TenantFiles, redact
from infra.database.search import Hit
from infra.mentions import Leaver, Mentions, mentions_of
from infra.settings import Settings, load_settings


def leaver(tenant: str) -> Leaver:
    return Leaver(tenant=tenant, name=f"{tenant.title()} Ltd", tier="free", isolation="pool", use_cases=("demand",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


@pytest.fixture
def mentions(settings: Settings) -> Mentions:
    return mentions_of(settings, leaver("acme"), [leaver("acme-foods"), leaver("other")])


@pytest.fixture
def files(settings: Settings, mentions: Mentions) -> TenantFiles:
    return TenantFiles(settings, mentions)


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_line_that_names_the_tenant_is_kept_without_the_name(tmp_path: Path, mentions: Mentions) -> None:
    log = write(tmp_path / "a.log", "one\nrun 'acme.demand training' of tenant:acme\nacme-foods.demand\n\xff acme\n")
    assert redact(log, mentions, "0123456789ab") == 2
    assert log.read_text() == "one\nrun '01234567*** training' of 01234567***\nacme-foods.demand\n\xff acme\n"
    assert redact(log, mentions, "0123456789ab") == 0


def test_nothing_is_lost_of_a_log_that_is_written_to(tmp_path: Path, mentions: Mentions) -> None:
    log, lines = write(tmp_path / "busy.log", ""), 5_000
    with log.open("ab", buffering=0) as writer:

        def work() -> None:
            for number in range(lines):
                writer.write(f"{number} of tenant:acme or tenant:other\n".encode())

        writing = threading.Thread(target=work)
        writing.start()
        while writing.is_alive():
            redact(log, mentions, "0123456789ab")
        redact(log, mentions, "0123456789ab")
    assert log.read_text() == "".join(f"{number} of 01234567*** or tenant:other\n" for number in range(lines))


def test_logs_of_all_parts_are_redacted(files: TenantFiles, settings: Settings) -> None:
    logs = [
        write(settings.home / "logs" / name, "INFO tenant:acme\n")
        for name in ("worker-tier-free.log", "worker-tier-free.log.1", "orchard-20260101-000000-000000.log")
    ]
    logs.append(write(settings.home / "reports" / "isolation" / "20260101" / "proof.json", '{"attacker": "acme"}'))
    logs.append(write(settings.home / "postgres" / "server.log", "DETAIL:  Key (tenant)=(acme) already exists.\n"))
    assert files.count_log_lines() == 5
    assert len(files.search()) == 5
    assert files.redact_logs("0123456789ab") == 5
    assert files.search() == []
    assert all("acme" not in log.read_text() for log in logs)


def test_its_folders_of_work_go_and_those_of_others_stay(files: TenantFiles, settings: Settings) -> None:
    home = settings.home
    gone = [
        write(home / "scratch" / "work" / "acme-pull-x1" / "file"),
        write(home / "scratch" / "incoming" / "acme-y2" / "file"),
        write(home / "scratch" / "staging-0123" / "rows"),
        write(home / "demo" / "acme" / "file.csv"),
        write(home / "demo" / "index.html", "<h1>acme.demand</h1>"),
        write(home / "logs" / "worker-tenant-acme.log"),
        write(home / "logs" / "worker-tenant-acme.log.1"),
    ]
    kept = [
        write(home / "scratch" / "work" / "acme-foods-pull-x1" / "file"),
        write(home / "scratch" / "staging-4567" / "rows"),
        write(home / "demo" / "other" / "file.csv", "tenant:acme"),
        write(home / "logs" / "worker-tenant-acme-foods.log"),
    ]
    assert len(files.work(["0123", "89ab"])) == len(gone)
    for _ in range(2):
        files.remove_work(["0123", "89ab"])
        assert not any(path.exists() for path in gone)
        assert all(path.exists() for path in kept)
    assert files.search() == []


@pytest.fixture
def strays(settings: Settings) -> dict[Path, str]:
    home = settings.home
    return {
        home / "lake" / "tenants" / "acme" / "uploads" / "x": "the lake",
        home / "lake" / "acme" / "x": "the lake",
        home / "artifacts" / "training" / "acme" / "x": "training artifacts",
        home / "artifacts" / "production" / "somewhere" / "acme" / "x": "production artifacts",
        home / "inbox" / "acme" / "demand" / "history" / "x.csv": "the inbox",
        home / "inbox" / "rejected" / "acme" / "demand" / "x.csv": "the inbox",
        home / "silos" / "acme" / "lake" / "x": "the silo",
        home / "scratch" / "work" / "acme-x1" / "x": "the home folder",
        home / "certificates" / "acme.json": "the home folder",
        home / "run" / "worker-tenant-acme.conf": "the home folder",
    }


def test_every_stray_file_is_found(files: TenantFiles, strays: dict[Path, str]) -> None:
    assert files.search() == []
    for path, where in strays.items():
        write(path)
        [hit, *more] = files.search() or [Hit("nothing", 0)]
        assert where in hit.where
        assert all(where in each.where for each in more)
        path.unlink()
        for folder in path.parents:
            if any(folder.iterdir()):
                break
            folder.rmdir()


def test_what_is_of_others_is_not_looked_into(files: TenantFiles, settings: Settings) -> None:
    home = settings.home
    for folder in ("lake/tenants", "artifacts/training", "artifacts/production", "inbox", "inbox/rejected", "silos"):
        for tenant in ("other", "acme-foods"):
            write(home / folder / tenant / "acme" / "acme.csv", "tenant:acme")
    write(home / "demo" / "other" / "acme.csv", "tenant:acme")
    assert files.search() == []
