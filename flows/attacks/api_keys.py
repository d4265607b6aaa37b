"""Keys: guessed, altered, taken back; and doors that a tenant's key does not open."""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

from flows.attacks.api_group import REFUSALS, Call, add, alive, attack, refuses, tells
from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.scene import Door, Scene
from infra.database.keys import Keys
from tasks.domain.access import Role

UPLOADS = "/v1/uploads"
UNKNOWN = (401, 429)
"""A caller who is not known, or is not listened to any more because it guessed too often."""

OUT_WITHIN_S = 5.0
LIFE = timedelta(hours=1)

Headers = Callable[[Scene, Door], dict[str, str | bytes]]

BEARERS: dict[str, tuple[str, Headers]] = {
    "none": ("no key", lambda *_: {"Authorization": b""}),
    "victims-name": (
        "the victim's name for a key",
        lambda scene, _: {"Authorization": f"Bearer {scene.victim.tenant.id}"},
    ),
    "key-id": ("the id of a key, which is no secret", lambda _, door: {"Authorization": f"Bearer orc_{door.key_id}"}),
    "lower": ("its key in small letters", lambda _, door: {"Authorization": f"Bearer {door.key.lower()}"}),
    "longer": ("its key and more", lambda scene, door: {"Authorization": f"Bearer {door.key}{scene.victim.tenant.id}"}),
    "shorter": ("the beginning of its key", lambda _, door: {"Authorization": f"Bearer {door.key[:-1]}"}),
    "basic": (
        "its key as the victim's password",
        lambda scene, door: {
            "Authorization": b"Basic " + base64.b64encode(f"{scene.victim.tenant.id}:{door.key}".encode())
        },
    ),
    "operator": (
        "its key as if it were an operator's",
        lambda _, door: {"Authorization": f"Bearer orc_op_{door.key.removeprefix('orc_')}"},
    ),
    "pattern": ("a pattern", lambda *_: {"Authorization": f"Bearer orc_{'%' * 43}"}),
}


def origin_of(door: Door) -> str | None:
    """An address of this machine's for wrong keys: whoever presents many is locked out, and that must hit nobody who
    calls from here in earnest. None where the API is on another machine, which sees one address only."""
    if not (urlsplit(door.url).hostname or "").startswith("127.") or sys.platform != "linux":
        return None
    return f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}.{secrets.randbelow(250) + 2}"


def _presented(headers: Headers, scene: Scene, door: Door) -> Finding:
    return refuses(scene, door, Call("GET", UPLOADS, headers(scene, door)), UNKNOWN, origin_of(door))


for _name, (_what, _headers) in BEARERS.items():
    add(f"key-{_name}", f"presents {_what}", partial(_presented, _headers), quick=_name == "none")


@attack("presents its key in the query, where logs would keep it")
def key_in_query(scene: Scene, door: Door) -> Finding:
    return refuses(
        scene, door, Call("GET", f"{UPLOADS}?api_key={door.key}&key={door.key}", {"Authorization": b""}), UNKNOWN
    )


@attack("presents two keys, one of them the victim's name")
def two_keys(scene: Scene, door: Door) -> Finding:
    call = Call(
        "GET", UPLOADS, {"authorization": f"Bearer {door.key}", "AUTHORIZATION": f"Bearer {scene.victim.tenant.id}"}
    )
    answer = call.sent(door)[0]
    own = str(scene.my_rows.get("uploads", {}).get("upload_id", ""))
    if answer.status in REFUSALS or (answer.status == 200 and own in answer.body and not scene.leaked(answer.body)):
        return denied(f"{answer.status}: refused, or answered as its own")
    return succeeded(f"it is answered for somebody else, with status {answer.status}")


def _outlived(scene: Scene, door: Door, key_id: str, key: str, ended: Callable[[], object]) -> Finding:
    """A key that opened is out soon after it has ended."""
    mine, origin = Door(door.url, key, key_id), origin_of(door)
    try:
        alive(scene, mine)
    finally:
        ended()
    since = time.monotonic()
    while (answer := Call("GET", UPLOADS).sent(mine, origin)[0]).status == 200:
        if time.monotonic() - since > OUT_WITHIN_S:
            return succeeded(f"{OUT_WITHIN_S:.0f} seconds later it still opens")
        time.sleep(0.2)
    if answer.status not in UNKNOWN:
        raise LookupError(f"that is no refusal: {answer.status}: {answer.body}")
    return denied(f"{answer.status}, {time.monotonic() - since:.1f} s later")


@attack("goes on with a key that was revoked")
def revoked_key(scene: Scene, door: Door) -> Finding:
    keys, tenant = Keys(scene.cluster), scene.attacker.tenant.id
    key_id, key = keys.create(tenant, "verify-isolation, to be revoked", Role.READER, LIFE)
    return _outlived(scene, door, key_id, key, lambda: keys.revoke(tenant, key_id))


@attack("goes on with a key that has expired")
def expired_key(scene: Scene, door: Door) -> Finding:
    life = timedelta(seconds=1)
    key_id, key = Keys(scene.cluster).create(scene.attacker.tenant.id, "verify-isolation, to expire", Role.READER, life)
    return _outlived(scene, door, key_id, key, lambda: time.sleep(life.total_seconds()))


@attack("goes on with a key that was rotated, when its time is over")
def rotated_key(scene: Scene, door: Door) -> Finding:
    keys, tenant = Keys(scene.cluster), scene.attacker.tenant.id
    key_id, key = keys.create(tenant, "verify-isolation, to be rotated", Role.READER, LIFE)

    def rotate() -> None:
        successor, _ = keys.rotate(tenant, key_id, timedelta(0))
        keys.revoke(tenant, successor)

    return _outlived(scene, door, key_id, key, rotate)


ROLES: dict[str, tuple[str, Role, str, str]] = {
    "upload": ("uploads with a key that may only read", Role.READER, "POST", "/v1/{}/uploads/history"),
    "job": ("has a use case trained with a key that may only read", Role.READER, "POST", "/v1/{}/jobs"),
    "audit": ("reads its audit with a key that may only upload", Role.UPLOADER, "GET", "/v1/audit"),
}


def _beyond(role: Role, method: str, path: str, scene: Scene, door: Door) -> Finding:
    keys, tenant = Keys(scene.cluster), scene.attacker.tenant.id
    key_id, key = keys.create(tenant, "verify-isolation, for too little", role, LIFE)
    try:
        mine = Door(door.url, key, key_id)
        alive(scene, mine)
        return refuses(scene, mine, Call(method, path.format(scene.mine.use_case)), (403,))
    finally:
        keys.revoke(tenant, key_id)


for _name, (_what, _role, _method, _path) in ROLES.items():
    add(f"role-{_name}", _what, partial(_beyond, _role, _method, _path))


@attack("reads the victim's audit, or finds it in its own")
def audit(scene: Scene, door: Door) -> Finding:
    call = Call("GET", f"/v1/audit?tenant={scene.victim.tenant.id}&limit=200")
    answer = call.sent(door)[0]
    if answer.status in REFUSALS:
        return denied(f"{answer.status}: {answer.body}")
    known = [key.key_id for key in Keys(scene.cluster).list(scene.victim.tenant.id)]
    told = tells(scene, call, answer) or next((key_id for key_id in known if key_id in answer.body), None)
    return succeeded("it tells of the victim's") if told else denied("the audit that it reads is its own")


@attack("guesses keys without end")
def guesses(scene: Scene, door: Door) -> Finding:
    origin = origin_of(door)
    if origin is None:
        return unproven("it would lock the address of this machine out")
    for tried in range(1, 61):
        key = f"orc_{secrets.token_urlsafe(32)}"
        answer = Call("GET", UPLOADS, {"Authorization": f"Bearer {key}"}).sent(door, origin)[0]
        if answer.status == 429:
            alive(scene, door)
            return denied(f"after {tried} guesses nothing from that address is looked at; others are served")
        if answer.status != 401:
            raise LookupError(f"that is no refusal: {answer.status}: {answer.body}")
    return succeeded("sixty wrong keys in a row were looked at")


def _announcement(scene: Scene) -> bytes:
    key = f"{scene.victim.tenant.id}/{scene.prey.use_case}/history/isolation-canary.csv"
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "inbox"}, "object": {"key": key}}}
    return json.dumps({"Records": [record]}).encode()


@attack("tells the storage hook of a file in the victim's inbox")
def hook(scene: Scene, door: Door) -> Finding:
    return refuses(scene, door, Call("POST", "/hooks/s3", {}, _announcement(scene)), (*UNKNOWN, 403), origin_of(door))


@attack("asks a tenant's way for what is the operator's")
def operators_paths(scene: Scene, door: Door) -> Finding:
    for path in (
        "/v1/tenants",
        "/v1/keys",
        f"/v1/tenants/{scene.victim.tenant.id}",
        "/admin",
        "/v1/admin",
    ):
        finding = refuses(scene, door, Call("GET", path))
        if finding.outcome != "denied":
            return finding
    return denied("there is no such path")


@attack("sends JSON so deep that parsers fall over")
def deep_json(scene: Scene, door: Door) -> Finding:
    body = b'{"kind": ' + b"[" * 4_900 + b"]" * 4_900 + b"}"
    finding = refuses(
        scene, door, Call("POST", f"/v1/{scene.mine.use_case}/jobs", {"Content-Type": "application/json"}, body)
    )
    alive(scene, door)
    return finding


@attack("names the victim in the body of a request for work")
def tenant_in_body(scene: Scene, door: Door) -> Finding:
    body = json.dumps({"kind": "isolation-canary", "tenant": scene.victim.tenant.id}).encode()
    return refuses(
        scene, door, Call("POST", f"/v1/{scene.mine.use_case}/jobs", {"Content-Type": "application/json"}, body)
    )


@attack("says that its body is longer than it may be")
def announced_length(scene: Scene, door: Door) -> Finding:
    from flows.attacks.wire import exchange, request

    host = door.url.split("//", 1)[1]
    headers = {"Authorization": f"Bearer {door.key}", "Content-Length": str(10**15)}
    target = f"/v1/{scene.mine.use_case}/uploads/history".encode()
    answer = exchange(door.url, request(b"POST", target, host, headers, length=False))[0]
    if answer.status not in (413, 400, 403):
        return succeeded(f"it is answered with status {answer.status}")
    return denied(f"{answer.status}: {answer.body}")
