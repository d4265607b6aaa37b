"""A tenant's traces in Prefect, found and removed through its API, so that it does not matter where Prefect is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import UUID

from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling

from deployments.leaving.recorder import await_recorder
from flows.reconcile import crash
from infra.mentions import Mentions
from tasks.domain.errors import Retryable
from tasks.domain.tenant import own_pool

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PAGE = 200
AT_ONCE = 50
"""Runs that Prefect removes in one request, at most."""

LOOK_S = 0.5
LOGS_GONE_S = 60
"""Prefect removes the logs of a removed run a moment later."""

ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]

EVENT_TABLES = (
    "events", "event_resources", "automation_bucket", "automation_event_follower", "composite_trigger_child_firing",
)  # fmt: skip
"""Tables of Prefect's database that hold what happened, until the retention of its events ends."""

Thing = dict[str, Any]


class Kind(NamedTuple):
    """A kind of thing: its name for people, its path in the API, and whether one of them is the tenant's."""

    name: str
    path: str
    is_its: Callable[[Thing], bool]


@dataclass(frozen=True)
class Orchestration:
    """What Prefect knows of one tenant. Every method may be repeated."""

    client: SyncPrefectClient
    mentions: Mentions

    @property
    def tag(self) -> str:
        """What its runs and deployments are tagged with."""
        return f"tenant:{self.mentions.leaver.tenant}"

    def stop_runs(self, grace_s: float) -> None:
        """Asks its runs to end, and waits; those that have not ended by then are set to Crashed, which frees their
        slots: their process is gone, or will find that it may do nothing."""
        running = self._flow_runs(open_only=True)
        for run in running:
            waits = run["state_type"] in ("SCHEDULED", "PAUSED")
            if run["parent_task_run_id"] is None:
                state: Any = Cancelled() if waits else Cancelling()
                self.client.set_flow_run_state(UUID(run["id"]), state)
        deadline = time.monotonic() + grace_s
        while running and time.monotonic() < deadline:
            time.sleep(LOOK_S)  # Prefect tells nobody who does not listen to all of its events
            running = self._flow_runs(open_only=True)
        for run in running:
            crash(self.client, run["id"], "its tenant has left")

    def counts(self) -> dict[str, int]:
        """How many things of each kind there are; kinds without any are left out."""
        runs = self._flow_runs()
        found = {
            "flow runs": len(runs),
            "artifacts": len(self._artifacts(runs)),
            **{kind.name: len(self._things(kind)) for kind in self._kinds()},
        }
        return {name: count for name, count in found.items() if count}

    def remove(self) -> None:
        """Removes all of them. Raises `Retryable` when Prefect does not come to it."""
        runs = self._flow_runs()
        if runs:
            await_recorder(self.client)
        for artifact in self._artifacts(runs):
            self._delete("/artifacts", artifact["id"])
        for ids in _chunks([run["id"] for run in runs], AT_ONCE):
            wanted = {"flow_runs": {"id": {"any_": ids}}, "limit": AT_ONCE}
            self._call("POST", "/flow_runs/bulk_delete", json=wanted)
            self._await_logs(ids)
        for kind in self._kinds():
            for thing in self._things(kind):
                self._delete(kind.path, thing["id"] if kind.path != "/work_pools" else thing["name"])

    def events_kept(self) -> timedelta | None:
        """How long the server keeps events; None where it does not say."""
        answer = self._call("GET", "/admin/settings")
        try:
            return timedelta(seconds=_seconds(answer["server"]["events"]["retention_period"]))
        except (KeyError, ValueError, TypeError):
            return None

    def _kinds(self) -> Iterator[Kind]:
        """Pools come last: deployments point at them."""
        pool = own_pool(self.mentions.leaver.tenant)
        yield Kind("deployments", "/deployments", self._is_tagged)
        yield Kind("blocks", "/block_documents", self._is_owned)
        yield Kind("variables", "/variables", self._is_owned)
        yield Kind("concurrency limits", "/concurrency_limits", lambda thing: thing["tag"] == self.tag)
        yield Kind("global concurrency limits", "/v2/concurrency_limits", self._is_owned)
        yield Kind("automations", "/automations", self._is_about_it_alone)
        yield Kind("saved searches", "/saved_searches", self._is_about_it_alone)
        yield Kind("work pools", "/work_pools", lambda thing: thing["name"] == pool)

    def _is_tagged(self, thing: Thing) -> bool:
        return self.tag in (thing.get("tags") or ())

    def _is_owned(self, thing: Thing) -> bool:
        """Whether it is tagged as the tenant's, or its name is that of one of its secrets, or begins with its id."""
        name = thing["name"]
        if self._is_tagged(thing) or not name:  # blocks without a name are parts of others
            return self._is_tagged(thing)
        spelled = name.replace("_", "-")  # a variable's name has no hyphens
        return name in self.mentions.leaver.secrets or self.mentions.owns(spelled)

    def _is_about_it_alone(self, thing: Thing) -> bool:
        text = json.dumps(thing, ensure_ascii=False)
        others = any(f"tenant:{other}" in text for other in self.mentions.other_ids)
        return self.mentions.found_in(text) and not others

    def _flow_runs(self, *, open_only: bool = False) -> list[Thing]:
        """Its runs: those with its tag, and those that got a parameter of it (runs of a command have no tag)."""
        tenant = self.mentions.leaver.tenant
        states: Thing = {"state": {"type": {"not_any_": ENDED}}} if open_only else {}
        tagged = self._all("/flow_runs", flow_runs={"tags": {"all_": [self.tag]}, **states})
        named = self._all("/flow_runs", flow_runs={"name": {"like_": tenant}, **states})
        its = [run for run in named if self._is_parameter(run["parameters"] or {})]
        return list({run["id"]: run for run in (*tagged, *its)}.values())

    def _is_parameter(self, parameters: Thing) -> bool:
        tenant = self.mentions.leaver.tenant
        return parameters.get("tenant") == tenant or str(parameters.get("path", "")).startswith(f"{tenant}/")

    def _artifacts(self, runs: Sequence[Thing]) -> list[Thing]:
        """Those of its runs, and those whose key names it."""
        keyed = self._all("/artifacts", artifacts={"key": {"like_": f"{self.mentions.leaver.tenant}-%"}})
        found = [each for each in keyed if self.mentions.found_in(each["key"])]
        for ids in _chunks([run["id"] for run in runs], AT_ONCE):
            found += self._all("/artifacts", artifacts={"flow_run_id": {"any_": ids}})
        return list({artifact["id"]: artifact for artifact in found}.values())

    def _things(self, kind: Kind) -> list[Thing]:
        return [thing for thing in self._all(kind.path) if kind.is_its(thing)]

    def _all(self, path: str, **wanted: Any) -> list[Thing]:
        found: list[Thing] = []
        while True:
            body = {**wanted, "limit": PAGE, "offset": len(found)}
            page = self._call("POST", f"{path}/filter", json=body)
            found += page
            if len(page) < PAGE:
                return found

    def _delete(self, path: str, thing_id: str) -> None:
        try:
            self._call("DELETE", f"{path}/{thing_id}")
        except ObjectNotFound:
            return
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 404:  # another has removed it, or what it hung on
                raise

    def _call(self, method: str, path: str, **content: Any) -> Any:
        """The answer to a request. The client's own methods know only some of the things, and few filters."""
        answer = cast(Any, self.client).request(method, path, **content)
        return answer.json() if answer.content else None

    def _await_logs(self, runs: Sequence[str]) -> None:
        deadline = time.monotonic() + LOGS_GONE_S
        wanted = {"logs": {"flow_run_id": {"any_": list(runs)}}, "limit": 1}
        while self._call("POST", "/logs/filter", json=wanted):
            if time.monotonic() > deadline:
                raise Retryable(
                    "Prefect has not removed the logs of removed runs",
                    expected=f"that it does within {LOGS_GONE_S} s",
                    hint="see `orchard logs prefect`, and call again",
                )
            time.sleep(LOOK_S)


def _chunks(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _seconds(value: Any) -> float:
    """A time span as pydantic writes it: a number of seconds, or ISO 8601."""
    from pydantic import TypeAdapter

    return TypeAdapter(timedelta).validate_python(value).total_seconds()
