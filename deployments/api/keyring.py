"""Whose key it is, without asking the database each time."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple

from deployments.serving.breaker import Breaker
from infra.database.cluster import connected_cluster
from infra.database.keys import ApiKey, Keys, digest_of, is_key
from infra.settings import Settings
from tasks.domain.errors import DatabaseUnavailable, OrchardError

logger = logging.getLogger(__name__)

KEPT_S = 2.0
"""So long a key that was good is taken for good: a revoked one must be out within five seconds."""

TRUSTED_S = 600.0
"""So long it is taken for good while the database does not answer."""

AHEAD_S, MOMENT_S = 0.6, 0.1
"""So long before that it is asked about anew, beside the requests, none of which waits for it; unless it takes so long
that only a moment is left."""

MAX_KEPT = 10_000


class _Kept(NamedTuple):
    """A key that was good when the database last said so, and until when it is not asked again."""

    key: ApiKey
    confirmed_at: float
    fresh_until: float


class Keyring:
    """Looks keys up and remembers the good ones, by digest. Bad ones are looked up each time."""

    def __init__(
        self,
        settings: Settings,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._clock, self._now = settings, clock, now
        self._breaker = breaker or Breaker()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._renewing: set[str] = set()
        self._renewer = ThreadPoolExecutor(1, thread_name_prefix="keyring")
        self._lock = threading.Lock()

    def remembers(self, key: str) -> bool:
        """Whether the key was good within the last ten minutes. Asks nobody."""
        if not is_key(key):
            return False
        with self._lock:
            kept = self._kept.get(digest_of(key))
        return kept is not None and self._clock() < kept.confirmed_at + TRUSTED_S

    def known(self, key: str) -> ApiKey | None:
        """Whose key it is, if `holder` would say so and ask nobody, neither now nor in a moment."""
        digest, now = digest_of(key), self._clock()
        kept = self._kept.get(digest)
        if kept is None or now >= kept.fresh_until - MOMENT_S or self._expired(kept.key):
            return None
        if now >= kept.fresh_until - AHEAD_S and digest not in self._renewing:
            self._renewing.add(digest)
            self._renewer.submit(self._renew, key, digest)
        return kept.key

    def holder(self, key: str) -> ApiKey | None:
        """Whose key it is, or None. While the database is away, a key that was good within the last ten minutes is
        good. Raises `DatabaseUnavailable` for every other that has the form of one."""
        if not is_key(key):
            return None  # and the database is not asked
        digest, asked_at = digest_of(key), self._clock()
        with self._lock:
            kept = self._kept.get(digest)
        if kept is None or asked_at >= kept.fresh_until - AHEAD_S:
            kept = self._asked(key, kept, asked_at)
            with self._lock:
                self._keep(digest, kept)
        if kept is None or self._expired(kept.key):
            return None
        return kept.key

    def _renew(self, key: str, digest: str) -> None:
        try:
            self.holder(key)
        except OrchardError as error:  # whoever presents it next asks for itself, and is told
            logger.debug("a key was not renewed: %s", error)
        finally:
            self._renewing.discard(digest)

    def _expired(self, key: ApiKey) -> bool:
        return key.expires_at is not None and key.expires_at <= self._now()

    def _asked(self, key: str, kept: _Kept | None, asked_at: float) -> _Kept | None:
        # From when it was asked: what was revoked while the answer was under way does not live longer for it.
        until = asked_at + KEPT_S
        try:
            found = self._breaker.ask(lambda: Keys(connected_cluster(self._settings)).holder(key))
        except DatabaseUnavailable:
            if kept is None or asked_at >= kept.confirmed_at + TRUSTED_S:
                raise
            return kept._replace(fresh_until=self._clock() + KEPT_S)
        return None if found is None else _Kept(found, asked_at, until)

    def _keep(self, digest: str, kept: _Kept | None) -> None:
        self._kept.pop(digest, None)
        if kept is not None:
            self._kept[digest] = kept
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
