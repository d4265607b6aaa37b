"""Which release answers for a use case, opened and ready; a new one takes over once it is ready too.

Every other second the database is asked what serves. While it is away, what is open goes on answering, and says so. A
request never waits for a release to be replaced: it is opened and checked beside the one that serves.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from deployments.serving.breaker import Breaker
from deployments.serving.cache import ModelCache, TenantModels
from deployments.serving.limits import RateLimits
from infra.database.cluster import connected_cluster
from infra.database.deadline import within
from infra.database.serving import Deployed, ServingView
from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tasks.domain.errors import DatabaseUnavailable, NotFound, OrchardError, StorageUnavailable
from tasks.domain.use_case import UseCase
from tasks.ingestion.columns import convert
from tasks.online.rows import RowReader
from tasks.scorer import Scorer

logger = logging.getLogger(__name__)

REFRESH_S = 2.0
"""So often the database is asked what serves."""

STALE_S = 10.0
"""Answers say so when the database has not been heard of for longer."""

IDLE_S = 1_800.0
"""A release that nobody asked for so long is closed."""

PAUSE_S = 2.0
"""After a release could not be opened, so long nobody tries again: requests do not wait for what is away."""

OPENERS = 4
"""So many releases are opened at a time."""

WAIT_S = 10.0
"""So long a request waits for a release that is being opened; the next one may find it open."""

OPEN_WITHIN_S = 30.0
"""So long what it asks of the databases to be opened may take."""

KEPT_OPEN_S = 30.0
"""So long a release that serves no more stays open for the requests that it is answering."""

OPENINGS_PER_S = 10.0
"""Of what one tenant asks for and there is not: who guesses use cases would keep openers and database from others."""

KEPT_GROUPS = 2
"""Row groups of a release's files that stay in memory beside the cache of models."""

Name = tuple[str, str]


@dataclass
class Serving:
    """An open release of one use case. Requests hold on to it until they are answered."""

    space: TenantSpace
    use_case: UseCase
    version: int
    scorer: Scorer
    models: TenantModels
    reader: RowReader
    mark: str
    used_at: float
    files: ExitStack = field(repr=False)


class TooManyOpenings(Exception):
    """The tenant asks for too many releases that do not open; in `wait_s` whole seconds it may ask again."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"wait for {wait_s} s")
        self.wait_s = wait_s


class Releases:
    """The open releases of this process."""

    def __init__(
        self,
        settings: Settings,
        cache: ModelCache,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._cache, self._clock = settings, cache, clock
        self._breaker = breaker or Breaker()
        self._openers = ThreadPoolExecutor(OPENERS, thread_name_prefix="open-release")
        self._opening: dict[Name, tuple[float, Future[Serving]]] = {}
        self._open: dict[Name, Serving] = {}
        self._failed: dict[Name, tuple[float, OrchardError]] = {}
        self._limits = RateLimits(clock=clock)
        self._closing: list[tuple[float, Serving]] = []
        self._silent: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._heard_at = clock()
        self._thread = threading.Thread(target=self._keep_up, daemon=True, name="releases")

    def start(self) -> None:
        """Begins to keep up with what serves."""
        self._thread.start()

    def close(self) -> None:
        """Stops keeping up, and closes what is open."""
        self._stop.set()
        self._openers.shutdown(wait=False, cancel_futures=True)
        for each in [*self._open.values(), *(closing for _, closing in self._closing)]:
            each.files.close()

    def opened(self) -> int:
        """How many releases are open."""
        return len(self._open)

    def stale_s(self, tenant: str | None = None) -> float:
        """For how long nobody could say what serves, or what serves the tenant; 0 while that is known."""
        heard_at = self._heard_at if tenant is None else min(self._heard_at, self._silent.get(tenant, math.inf))
        silent = self._clock() - heard_at
        return silent if silent > STALE_S else 0.0

    def open_already(self, tenant: str, use_case: str) -> Serving | None:
        """The open release of a use case, if it is open. Waits for nothing."""
        found = self._open.get((tenant, use_case))
        if found is not None:
            found.used_at = self._clock()
        return found

    def serving(self, tenant: str, use_case: str) -> Serving:
        """The open release of a use case; opened, if this is its first request. Raises `NotFound` without one,
        `DatabaseUnavailable` or `StorageUnavailable` where it cannot be opened now, `Tampered`, `TooManyOpenings`."""
        return self.open_already(tenant, use_case) or self._opened((tenant, use_case))

    def _opened(self, name: Name) -> Serving:
        """Opens it in a thread of its own, however many ask; whoever asks waits so long and no longer."""
        with self._lock:
            if (found := self._open.get(name)) is not None:
                return found
            failed_at, error = self._failed.get(name, (0.0, None))
            if error is not None and self._clock() - failed_at < PAUSE_S:
                raise error
            since, opening = self._opening.get(name, (0.0, None))
            if opening is None:
                if wait_s := self._limits.wait_s(name[0], OPENINGS_PER_S):
                    raise TooManyOpenings(wait_s)
                since, opening = self._clock(), self._openers.submit(self._open_first, name)
                self._opening[name] = since, opening
        try:
            return opening.result(timeout=max(0.0, since + WAIT_S - self._clock()))
        except TimeoutError:
            raise StorageUnavailable(
                "the release is not open yet", where=".".join(name), hint="try again in some seconds"
            ) from None

    def _open_first(self, name: Name) -> Serving:
        try:
            # The deadline of the first question would be that of all: a release may take longer to fetch.
            deployed = self._breaker.ask(self._deployed)
            with within(OPEN_WITHIN_S):
                found = self._open[name] = self._open_release(name, deployed)
        except (DatabaseUnavailable, StorageUnavailable) as problem:
            self._failed[name] = (self._clock(), problem)
            self._limits.give_back(name[0])  # that is not the tenant's doing
            raise
        else:
            self._failed.pop(name, None)
            self._limits.give_back(name[0])
            return found
        finally:
            with self._lock:
                self._opening.pop(name, None)

    def _deployed(self) -> Deployed:
        asked_at = self._clock()
        found = ServingView(connected_cluster(self._settings)).deployed()
        self._silent = {tenant: self._silent.get(tenant, self._heard_at) for tenant in found.silent}
        self._heard_at = asked_at
        return found

    def _open_release(self, name: Name, deployed: Deployed) -> Serving:
        tenant, use_case_id = name
        space = open_space(self._settings, tenant)
        use_case = space.tenant.use_case(use_case_id)
        version = deployed.champions.get(name)
        if version is None and tenant in deployed.silent:
            raise DatabaseUnavailable("the tenant's database does not answer", hint="try again in some seconds")
        if version is None:
            raise NotFound(f"no release of {use_case_id!r} serves yet", hint="train it: upload history first")
        with ExitStack() as stack:
            folder = stack.enter_context(space.registry.open_release(use_case_id, version))
            models = TenantModels(self._cache, space.tenant.tier.value, tenant, (use_case_id, str(version)))
            scorer = Scorer.open(folder, models, KEPT_GROUPS)
            return Serving(
                space=space,
                use_case=use_case,
                version=version,
                scorer=scorer,
                models=models,
                reader=RowReader(use_case, convert, space.pseudonyms),
                mark=deployed.marks.get(tenant, ""),
                used_at=self._clock(),
                files=stack.pop_all(),
            )

    def _keep_up(self) -> None:
        while not self._stop.wait(REFRESH_S):
            try:
                self.refresh()
            except Exception as error:  # whatever it is, what is open goes on answering
                logger.warning("what serves is not known: %s: %s", type(error).__name__, error)

    def refresh(self) -> None:
        """Replaces what serves no more, and closes what nobody asks for."""
        self._tidy()
        deployed, now = self._breaker.ask(self._deployed, anyway=True), self._clock()
        for name, serving in list(self._open.items()):
            tenant, _ = name
            if tenant in deployed.silent and tenant in deployed.marks:
                continue
            if tenant not in deployed.marks or name not in deployed.champions or now - serving.used_at > IDLE_S:
                self._drop(name, serving)
            elif (deployed.champions[name], deployed.marks[tenant]) != (serving.version, serving.mark):
                try:
                    with within(OPEN_WITHIN_S):
                        self._open[name] = self._open_release(name, deployed)
                except Exception as error:  # whatever is wrong with it, others are replaced
                    logger.warning("release %d of %s.%s cannot be opened: %s", deployed.champions[name], *name, error)
                    continue
                self._forget(serving)

    def _drop(self, name: Name, serving: Serving) -> None:
        self._open.pop(name, None)
        self._forget(serving)

    def _forget(self, serving: Serving) -> None:
        """Frees what a release takes, when the requests that it is answering are done."""
        tenant = serving.space.tenant
        current = self._open.get((tenant.id, serving.use_case.id))
        if current is None or current.version != serving.version or current.space.tenant.tier is not tenant.tier:
            self._cache.forget(tenant.tier.value, tenant.id, (serving.use_case.id, str(serving.version)))
        self._closing.append((self._clock() + KEPT_OPEN_S, serving))

    def _tidy(self) -> None:
        """Closes what was kept open long enough, and forgets failures that keep nobody from trying again."""
        now = self._clock()
        while self._closing and self._closing[0][0] <= now:
            self._closing.pop(0)[1].files.close()
        for name, (failed_at, _) in list(self._failed.items()):
            if now - failed_at >= PAUSE_S:
                self._failed.pop(name, None)
