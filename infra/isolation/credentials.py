"""The credentials that open a tenant's place: of a role that the process assumes, short-lived, renewed in time.

A place carries the name of its role and no secret. Which login assumes it is a matter of the process: of the settings
that named the place here, or, where it arrived from elsewhere, of the settings that this process loads.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from time import time

from infra.isolation.aws import aws_errors, client, identity
from infra.settings import LakeOptions, Settings, StorageOptions, load_settings
from tasks.domain.errors import StorageUnavailable

RENEW_S = 600
"""Credentials that last less than ten minutes are renewed: what begins with them has the time to end."""

LAST_S = 60
"""While no new ones can be had, old ones serve as long as they last for so long."""

SESSION = "orchard"
"""What the object store's own log calls whoever has assumed a role."""


@dataclass(frozen=True)
class Credentials:
    """What a request is signed with; all None: what the machine itself has. Its repr hides secrets."""

    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Login:
    """By what a process assumes roles, and for how long."""

    options: LakeOptions
    storage: StorageOptions


class Session:
    """One role as this process has assumed it. Threads share it."""

    def __init__(self, role: str, login: Login) -> None:
        self.login, self._role = login, role
        self._lock = threading.Lock()
        self._current: Credentials | None = None
        self._until = 0.0

    def credentials(self) -> Credentials:
        """Credentials that last. Raises `StorageUnavailable` when there are none to be had."""
        with self._lock:
            left_s = self._until - time()
            if self._current is None or left_s < RENEW_S:
                try:
                    self._current, self._until = _assumed(self._role, self.login)
                except StorageUnavailable:
                    if self._current is None or left_s < LAST_S:
                        raise
            return self._current


_lock = threading.Lock()
_sessions: dict[tuple[str, str | None], Session] = {}


def assume_by(settings: Settings, role: str) -> None:
    """From now on this process assumes the role by the login of these settings."""
    _session(role, settings.lake_options.endpoint_url, Login(settings.lake_options, settings.storage))


def of_role(role: str, endpoint: str | None) -> Credentials:
    """The current credentials of a role at an endpoint. Raises `StorageUnavailable`."""
    return _session(role, endpoint).credentials()


def forget() -> None:
    """Drops all credentials of this process."""
    with _lock:
        _sessions.clear()


def _session(role: str, endpoint: str | None, login: Login | None = None) -> Session:
    with _lock:
        known = _sessions.get((role, endpoint))
        if known is None or login not in (None, known.login):
            if login is None:
                settings = load_settings()
                login = Login(settings.lake_options, settings.storage)
            known = _sessions[role, endpoint] = Session(role, login)
        return known


def _assumed(role: str, login: Login) -> tuple[Credentials, float]:
    """Fresh credentials of the role, and until when they are valid, in Unix seconds."""
    arn = identity(login.options, login.storage).role(role)
    sts = client("sts", login.options, login.storage)
    hint = "does the role exist, and may this login assume it? `orchard tenants add` provides it; OPERATORS.md, On S3"
    with aws_errors("the tenant's role cannot be assumed", arn, hint):
        answer = sts.assume_role(RoleArn=arn, RoleSessionName=SESSION, DurationSeconds=login.storage.session_s)
    given = answer["Credentials"]
    fresh = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    return fresh, given["Expiration"].timestamp()
