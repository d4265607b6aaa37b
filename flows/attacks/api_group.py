"""The group of attacks on the HTTP API: one request each, and what answers are refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import NamedTuple

from flows.attacks.wire import Response, exchange, request
from infra.attacks.attempt import Finding, Group, Run, denied, succeeded, unproven
from infra.attacks.scene import Door, Scene

GROUP = Group("api")

REFUSALS = frozenset({400, 401, 403, 404, 405, 411, 413, 414, 415, 422, 431})
"""Statuses that say no. 429 is none: who is asked to wait has not been refused; neither are 5xx."""

PROBLEM = "application/problem+json"
NO_API = "no API answers here: orchard up"

Act = Callable[[Scene, Door], Finding]


def attack(what: str, *, quick: bool = False) -> Callable[[Act], Act]:
    """Makes a function an attack on the API, named like it."""

    def register(act: Act) -> Act:
        add(act.__name__.strip("_").replace("_", "-"), what, act, quick=quick)
        return act

    return register


def add(name: str, what: str, act: Act, *, quick: bool = False) -> None:
    """Adds an attack that needs the API."""
    GROUP.add(name, what, _with_door(act), quick=quick)


def _with_door(act: Act) -> Run:
    @wraps(act)
    def run(scene: Scene) -> Finding:
        return unproven(NO_API) if scene.door is None else act(scene, scene.door)

    return run


@dataclass(frozen=True)
class Call:
    """One request with the attacker's key, unless its headers say otherwise."""

    method: str
    path: str | bytes
    headers: Mapping[str, str | bytes] = field(default_factory=dict)
    body: bytes = b""

    def sent(self, door: Door, origin: str | None = None) -> list[Response]:
        """All that is answered. `origin` is the address that it is sent from."""
        target = self.path if isinstance(self.path, bytes) else self.path.encode()
        headers = {"Authorization": f"Bearer {door.key}", **self.headers}
        host = door.url.split("//", 1)[1]
        return exchange(door.url, request(self.method.encode(), target, host, headers, self.body), origin)


def refuses(
    scene: Scene, door: Door, call: Call, statuses: Iterable[int] = REFUSALS, origin: str | None = None
) -> Finding:
    """Denied when the API answers with one of the statuses and tells nothing of the victim."""
    answer = call.sent(door, origin)[0]
    shown = f"{answer.status}: {answer.body}"
    if tells(scene, call, answer) is not None:
        return succeeded(f"the answer tells of the victim, with status {answer.status}")
    if answer.status in statuses:
        return denied(shown)
    if 0 < answer.status < 500 and answer.status != 429:
        return succeeded(f"it was answered with status {answer.status}")
    raise LookupError(f"that is no refusal: {shown}")


def tells(scene: Scene, call: Call, answer: Response) -> str | None:
    """What an answer holds of the victim that the request did not say itself."""
    said = f"{call.path!r} {call.headers!r} {call.body!r}"
    text = f"{answer.body} {answer.headers!r}"
    known = [scene.prey.marker, scene.prey.token, f'"{scene.victim.tenant.id}"']
    for table, column in (("uploads", "upload_id"), ("uploads", "content_sha256"), ("runs", "key")):
        value = str(scene.prey_rows.get(table, {}).get(column, ""))
        known += [value] if len(value) >= 16 else []
    return next((value for value in known if value in text and value not in said), None)


class Prey(NamedTuple):
    """What an attacker may know of the victim: its name, and ids that were overheard."""

    tenant: str
    use_case: str
    upload: str
    job: str
    marker: str
    mine: str  # a use case of the attacker's own


def prey_of(scene: Scene) -> Prey:
    """The ids are of the victim's own rows, or of planted ones."""
    return Prey(
        tenant=scene.victim.tenant.id,
        use_case=scene.prey.use_case,
        upload=str(scene.prey_rows.get("uploads", {}).get("upload_id", scene.prey.token)),
        job=str(scene.prey_rows.get("jobs", {}).get("job_id", 1)),
        marker=scene.prey.marker,
        mine=scene.mine.use_case,
    )


def alive(scene: Scene, door: Door) -> None:
    """Raises `LookupError` unless the attacker's own key opens its own uploads: who is refused everything proves
    nothing."""
    answer = Call("GET", "/v1/uploads").sent(door)[0]
    if answer.status != 200:
        raise LookupError(f"the attacker's own key is answered with {answer.status}: {answer.body}")
    own = str(scene.my_rows.get("uploads", {}).get("upload_id", ""))
    if own not in answer.body:
        raise LookupError("the attacker does not see its own upload")
