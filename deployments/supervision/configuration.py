"""supervisord's configuration file, written anew by every `orchard up`. It holds no secret."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from configparser import RawConfigParser
from pathlib import Path

from deployments.supervision.parts import Part
from infra.servers import SUPERVISOR, socket_folder

START_S = 3
"""A program that lives so long has started; what is wrong with its settings shows sooner than that."""

START_RETRIES = 20
"""Each waits a second longer than the one before: three and a half minutes, within which a database recovers."""


def socket_path(home: Path) -> Path:
    """Where supervisord listens. It binds a name with its process id behind it first."""
    name = f"{SUPERVISOR}.sock"
    return socket_folder(home / "run", f"{name}.{2**22}") / name


def configuration_path(home: Path) -> Path:
    """The configuration file, for `supervisorctl -c` too."""
    return home / "run" / f"{SUPERVISOR}.conf"


def log_path(home: Path, part: str) -> Path:
    """Where a part's output goes; older output is beside it, in files with a number behind the name."""
    return home / "logs" / f"{part}.log"


def write_configuration(home: Path, parts: Iterable[Part]) -> Path:
    """Writes the file, readable by its owner only, and makes the folders that it names."""
    return _write(home, sections_of(home, parts), RawConfigParser())


def change_configuration(home: Path, added: Iterable[Part], removed: Iterable[str]) -> None:
    """Adds programs to the file, and takes others out; the rest stays as it was written."""
    parser = RawConfigParser()
    parser.read(configuration_path(home))
    for name in removed:
        parser.remove_section(f"program:{name}")
    _write(home, {f"program:{part.name}": _program(home, part) for part in added}, parser)


def _write(home: Path, sections: Mapping[str, Mapping[str, object]], parser: RawConfigParser) -> Path:
    path = configuration_path(home)
    for folder in (path.parent, home / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    for section, options in sections.items():
        # supervisord expands %(name)s, and knows no other way to write a percent sign.
        parser[section] = {name: str(value).replace("%", "%%") for name, value in options.items()}
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(handle, 0o600)
    with os.fdopen(handle, "w") as file:
        parser.write(file)
    return path


def sections_of(home: Path, parts: Iterable[Part]) -> dict[str, Mapping[str, object]]:
    """The file's sections. Nothing starts by itself: `up` starts the parts in their order."""
    socket = socket_path(home)
    daemon: dict[str, object] = {
        "logfile": log_path(home, SUPERVISOR),
        "logfile_maxbytes": "10MB",
        "logfile_backups": 3,
        "pidfile": home / "run" / f"{SUPERVISOR}.pid",
        "childlogdir": home / "logs",
        "directory": Path.cwd(),
        "umask": f"{_umask():03o}",
    }
    if os.geteuid() == 0:
        daemon["user"] = "root"  # it is root's Orchard then, and supervisord wants that said
    return {
        "supervisord": daemon,
        "unix_http_server": {"file": socket, "chmod": "0600"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{socket}"},
        **{f"program:{part.name}": _program(home, part) for part in parts},
    }


def _program(home: Path, part: Part) -> dict[str, object]:
    group = str(part.whole_group).lower()
    return {
        "command": shlex.join(part.command),
        "priority": int(part.stage),
        "autostart": "false",
        "autorestart": "true",
        "startsecs": START_S,
        "startretries": START_RETRIES,
        "stopsignal": part.stop_signal,
        "stopwaitsecs": part.stop_wait_s,
        "stopasgroup": group,
        "killasgroup": group,
        "redirect_stderr": "true",
        "stdout_logfile": log_path(home, part.name),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": 5,
    }


def _umask() -> int:
    """The umask of this process, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
