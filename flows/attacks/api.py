"""Attacks on the HTTP API with the attacker's own key. None of them leaves an upload or a job behind, even where it
works: bodies are empty, and what would be asked for is refused before it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from urllib.parse import quote

from flows.attacks import api_headers, api_keys
from flows.attacks.api_group import GROUP, Call, Prey, add, alive, attack, prey_of, refuses, tells
from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.scene import Door, Scene
from tasks.domain.names import Purpose, upload_id

__all__ = ["GROUP", "api_headers", "api_keys"]

UPLOADS = "/v1/uploads"


Target = Callable[[Prey], str | bytes]

WIDE = {48 + digit: 0xFF10 + digit for digit in range(10)}

PATHS: dict[str, tuple[str, Target]] = {
    "upload": ("follows an upload of the victim", lambda prey: f"{UPLOADS}/{prey.upload}"),
    "job": ("follows a job of the victim", lambda prey: f"/v1/jobs/{prey.job}"),
    "tenant-upload": (
        "puts the victim's name before an upload",
        lambda prey: f"/v1/{prey.tenant}/uploads/{prey.upload}",
    ),
    "tenant-list": ("puts the victim's name before the list", lambda prey: f"/v1/{prey.tenant}/uploads"),
    "parent": ("goes up in the path", lambda prey: f"/v1/../{prey.tenant}/uploads"),
    "parent-coded": ("goes up in percent codes", lambda prey: f"{UPLOADS}/..%2f..%2f{prey.tenant}"),
    "parent-twice": ("goes up in codes of codes", lambda prey: f"{UPLOADS}/..%252f{prey.tenant}"),
    "dots-coded": ("goes up by coded dots", lambda prey: f"/v1/%2e%2e/{prey.tenant}/uploads"),
    "backslash": ("goes up by backslashes", lambda prey: f"/v1/uploads/..\\{prey.tenant}"),
    "overlong": ("goes up by bytes that are no UTF-8", lambda _: b"/v1/uploads/%c0%ae%c0%ae%c0%af"),
    "fullwidth": ("goes up by full-width dots", lambda prey: f"{UPLOADS}/{quote('．．／')}{prey.tenant}"),
    "nul": ("ends the path by a NUL", lambda prey: f"{UPLOADS}/{prey.upload}%00"),
    "raw-nul": ("ends the path by a bare NUL", lambda prey: f"{UPLOADS}/x\0{prey.tenant}".encode()),
    "semicolon": ("hides a parameter in the path", lambda prey: f"{UPLOADS}/{'0' * 32};tenant={prey.tenant}"),
    "capitals": ("writes an upload's id in capitals", lambda prey: f"{UPLOADS}/{prey.upload.upper()}"),
    "slash": ("ends the path with a slash", lambda prey: f"{UPLOADS}/{prey.upload}/"),
    "wildcard": ("has a pattern for an id", lambda _: f"{UPLOADS}/*"),
    "quote": ("ends a text in SQL by an id", lambda _: f"{UPLOADS}/{quote(chr(39))}%20OR%201=1%20--"),
    "job-quote": ("ends a number in SQL by a job's", lambda _: "/v1/jobs/1%20OR%201=1"),
    "job-zero": ("asks for the job before the first", lambda _: "/v1/jobs/0"),
    "job-huge": ("asks for a job beyond all numbers", lambda _: f"/v1/jobs/{2**64}"),
    "job-digits": ("writes a job's number in other digits", lambda prey: f"/v1/jobs/{quote(prey.job.translate(WIDE))}"),
    "absolute": ("asks for the victim's host", lambda prey: f"http://{prey.tenant}{UPLOADS}/{prey.upload}"),
    "file": ("asks for a file of the machine", lambda prey: f"/lake/tenants/{prey.tenant}/{prey.marker}"),
}

METHODS = {
    "delete": "deletes an upload of the victim",
    "put": "replaces an upload of the victim",
    "patch": "changes an upload of the victim",
    "trace": "has a request for an upload echoed",
    "steal": "uses a method that there is not",
}

POSTS: dict[str, tuple[str, Target]] = {
    "purpose": (
        "uploads for a purpose that is a path",
        lambda prey: f"/v1/{prey.mine}/uploads/..%2f..%2f{prey.tenant}",
    ),
    "use-case-path": ("uploads into a use case that is a path", lambda prey: f"/v1/..%2f{prey.tenant}/uploads/history"),
    "use-case-name": (
        "uploads into the victim's use case by its registered name",
        lambda prey: f"/v1/{prey.tenant}.{prey.use_case}/uploads/history",
    ),
    "job-name": (
        "has the victim's use case trained by its registered name",
        lambda prey: f"/v1/{prey.tenant}.{prey.use_case}/jobs",
    ),
}


def _targeted(method: str, target: Target, scene: Scene, door: Door) -> Finding:
    return refuses(scene, door, Call(method, target(prey_of(scene))))


for _name, (_what, _target) in PATHS.items():
    add(_name, _what, partial(_targeted, "GET", _target), quick=_name in ("upload", "job"))
for _name, _what in METHODS.items():
    add(_name, _what, partial(_targeted, _name.upper(), PATHS["upload"][1]))
for _name, (_what, _target) in POSTS.items():
    add(_name, _what, partial(_targeted, "POST", _target))


@attack("lists its uploads, and looks for the victim's among them", quick=True)
def list_own(scene: Scene, door: Door) -> Finding:
    alive(scene, door)
    call = Call("GET", f"{UPLOADS}?limit=200")
    answer = call.sent(door)[0]
    told = tells(scene, call, answer)
    return (
        succeeded("it finds one of the victim's")
        if told
        else denied(f"{answer.body.count('upload_id')} uploads, all its own")
    )


def _only_theirs(scene: Scene) -> str | None:
    """A use case that the victim has and the attacker has not."""
    own = {use_case.id for use_case in scene.attacker.tenant.use_cases}
    return next((each.id for each in scene.victim.tenant.use_cases if each.id not in own), None)


SAME = "both tenants have the same use cases"

INTO: dict[str, tuple[str, str, str, bytes]] = {
    "upload-into": ("uploads into a use case of the victim", "POST", "/v1/{}/uploads/history", b""),
    "job-into": ("has a use case of the victim trained", "POST", "/v1/{}/jobs", b'{"kind": "refresh"}'),
    "list-of": ("lists the uploads of a use case of the victim", "GET", f"{UPLOADS}?use_case={{}}", b""),
}


def _into(method: str, path: str, body: bytes, scene: Scene, door: Door) -> Finding:
    use_case = _only_theirs(scene)
    return unproven(SAME) if use_case is None else refuses(scene, door, Call(method, path.format(use_case), {}, body))


for _name, (_what, _method, _path, _body) in INTO.items():
    add(_name, _what, partial(_into, _method, _path, _body))


@attack("finds out whether the victim has a file by the id that its own copy would have", quick=True)
def same_content(scene: Scene, door: Door) -> Finding:
    theirs = scene.prey_rows.get("uploads")
    if theirs is None:
        return unproven("the victim has no upload")
    purpose = Purpose(str(theirs["purpose"]))
    mine = upload_id(scene.attacker.tenant.id, str(theirs["use_case"]), purpose, str(theirs["content_sha256"]))
    if mine == theirs["upload_id"]:
        return succeeded("the same content has the same id for both tenants")
    return refuses(scene, door, Call("GET", f"{UPLOADS}/{mine}"), (404,))


def _oracle(path: str, table: str, column: str, nobody: str, scene: Scene, door: Door) -> Finding:
    """What is the victim's and what is nobody's must be answered alike."""
    if table not in scene.prey_rows:
        return unproven(f"the victim has no row of {table}")
    answers = []
    for value in (str(scene.prey_rows[table][column]), nobody):
        answer = Call("GET", path.format(value), {"X-Request-ID": "isolation-canary"}).sent(door)[0]
        names = sorted(name for name in answer.headers if name != "date")
        body = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "…", answer.body)  # job 4 is not in status 404
        answers.append((answer.status, body, names))
    if answers[0] != answers[1]:
        return succeeded(f"the answers differ: status {answers[0][0]} and {answers[1][0]}")
    return denied(f"both are answered alike, with status {answers[0][0]}")


add(
    "oracle-upload",
    "compares the answers for an upload of the victim and for one of nobody",
    partial(_oracle, f"{UPLOADS}/{{}}", "uploads", "upload_id", "f" * 32),
)
add(
    "oracle-job",
    "compares the answers for a job of the victim and for one of nobody",
    partial(_oracle, "/v1/jobs/{}", "jobs", "job_id", str(2**62)),
)


@attack("looks for tenants in what the API says of itself")
def description(scene: Scene, door: Door) -> Finding:
    found = []
    for path in ("/openapi.json", "/docs", "/metrics", "/healthz", "/readyz", "/"):
        answer = Call("GET", path).sent(door)[0]
        if scene.names_victim(answer.body) or scene.leaked(answer.body):
            found.append(path)
    return succeeded(f"{', '.join(found)} name the victim") if found else denied("no page names a tenant")
