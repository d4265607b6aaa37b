"""Headers that claim to be somebody else, or that break a request in two; names of files that lead elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from flows.attacks.api_group import REFUSALS, Call, Prey, add, alive, attack, prey_of, refuses, tells
from flows.attacks.wire import exchange, request
from infra.attacks.attempt import Finding, denied, succeeded
from infra.attacks.scene import Door, Scene

UPLOADS = "/v1/uploads"
FIELDS = (
    "Orchard-Tenant", "X-Orchard-Tenant", "X-Tenant", "X-Tenant-Id", "Tenant", "X-Organization", "X-Remote-User",
    "X-Forwarded-User", "X-User", "From", "X-Original-User", "X-Api-Tenant",
)  # fmt: skip


Headers = Callable[[Prey], dict[str, str | bytes]]


def _claimed(headers: Headers, query: str, scene: Scene, door: Door) -> Finding:
    """Denied when it is refused, or answered as if nothing had been claimed."""
    alive(scene, door)
    prey = prey_of(scene)
    call = Call("GET", f"{UPLOADS}{query.format(victim=prey.tenant, mine=prey.mine)}", headers(prey))
    answer = call.sent(door)[0]
    if answer.status in REFUSALS:
        return denied(f"{answer.status}: {answer.body}")
    own = str(scene.my_rows.get("uploads", {}).get("upload_id", ""))
    if prey.upload in answer.body or own not in answer.body or tells(scene, call, answer):
        return succeeded(f"it is answered for somebody else, with status {answer.status}")
    return denied("it is answered with its own uploads")


def _field(name: str, prey: Prey) -> dict[str, str | bytes]:
    return {name: prey.tenant}


def _no_headers(_: Prey) -> dict[str, str | bytes]:
    return {}


for _name in FIELDS:
    add(
        f"header-{_name.lower()}",
        f"says in the header {_name} that it is the victim",
        partial(_claimed, partial(_field, _name), ""),
        quick=_name in ("Orchard-Tenant", "X-Tenant"),
    )
for _name, _what, _query in (
    ("tenant", "says in the query that it is the victim", "?tenant={victim}"),
    ("tenants", "says in the query that it is both", "?tenant={victim}&Tenant={victim}&tenant[]={victim}"),
    ("quote", "ends a text in SQL by the query", "?use_case={mine}%27%20OR%201=1"),
    ("limit", "asks for more than there may be", "?limit=999999999"),
):
    add(f"query-{_name}", _what, partial(_claimed, _no_headers, _query))

CLAIMS: dict[str, tuple[str, Headers]] = {
    "cookie": ("says in a cookie that it is the victim", lambda prey: {"Cookie": f"tenant={prey.tenant}"}),
    "host": ("comes by a host of the victim's", lambda prey: {"X-Forwarded-Host": f"{prey.tenant}.example"}),
    "original-url": ("says that it asked for another path", lambda prey: {"X-Original-URL": f"/v1/jobs/{prey.job}"}),
    "rewrite-url": ("says that its path was rewritten", lambda prey: {"X-Rewrite-URL": f"/v1/jobs/{prey.job}"}),
    "prefix": ("says that its path began by the victim", lambda prey: {"X-Forwarded-Prefix": f"/{prey.tenant}"}),
    "forwarded": ("says that it is the machine itself", lambda _: {"Forwarded": "for=127.0.0.1"}),
    "method": ("has its method overridden", lambda _: {"X-HTTP-Method-Override": "DELETE"}),
    "accept": ("asks for the victim's kind of answer", lambda prey: {"Accept": f"application/{prey.tenant}+json"}),
}
for _name, (_what, _headers) in CLAIMS.items():
    add(f"header-{_name}", _what, partial(_claimed, _headers, ""))


@attack("sends headers larger than anybody needs")
def huge_headers(scene: Scene, door: Door) -> Finding:
    call = Call("GET", UPLOADS, {"X-Padding": "x" * 1_000_000})
    answer = call.sent(door)[0]
    if answer.status in REFUSALS or answer.status == 0:
        alive(scene, door)
        return denied(f"{answer.status}: {answer.body}")
    return succeeded(f"a megabyte of headers is answered with {answer.status}")


@attack("sends more headers than anybody needs")
def many_headers(scene: Scene, door: Door) -> Finding:
    call = Call("GET", UPLOADS, {f"X-{number}": "x" for number in range(20_000)})
    answer = call.sent(door)[0]
    alive(scene, door)
    if answer.status in REFUSALS or answer.status == 0 or (answer.status == 200 and not tells(scene, call, answer)):
        return denied(f"{answer.status}: it is refused, or answered as its own")
    return succeeded(f"it is answered with status {answer.status}")


@attack("writes a header of the answer by a line's end in one of its own")
def split_answer(scene: Scene, door: Door) -> Finding:
    call = Call("GET", UPLOADS, {"X-Request-ID": b"a%0d%0aX-Canary: 1", "X-Filename": b"a\rX-Canary: 1"})
    answer = call.sent(door)[0]
    if "x-canary" in answer.headers:
        return succeeded("the answer has a header that the attacker wrote")
    alive(scene, door)
    return denied(f"{answer.status}: the answer has only headers of its own")


def _smuggled(headers: dict[str, str | bytes], scene: Scene, door: Door) -> Finding:
    """Two lengths in one request: who believes the other one than a proxy does sees a second request in the body."""
    host = door.url.split("//", 1)[1]
    inner = request(b"GET", f"{UPLOADS}/{scene.prey.token}".encode(), host, {"X-Request-ID": "isolation-smuggled"})
    body = b"0\r\n\r\n" + inner
    sent = request(b"POST", b"/v1/nothing/jobs", host, {"Authorization": f"Bearer {door.key}", **headers}, body)
    answers = exchange(door.url, sent.replace(b"Connection: close", b"Connection: keep-alive", 1))
    if any(answer.headers.get("x-request-id") == "isolation-smuggled" for answer in answers):
        return succeeded("a request inside another's body was answered")
    return denied(f"answered with {[answer.status for answer in answers]}, and never the one inside")


for _name, _what, _values in (
    ("chunked", "hides a request behind two lengths", {"Transfer-Encoding": "chunked"}),
    ("chunked-odd", "hides a request behind a length that is written oddly", {"Transfer-Encoding": "xchunked"}),
    ("second-length", "hides a request behind a second length", {"content-length": "5"}),
):
    add(f"smuggle-{_name}", _what, partial(_smuggled, dict(_values)))

FILENAMES: dict[str, tuple[str, Callable[[Scene], bytes]]] = {
    "parent": ("that goes up to the victim's folder", lambda scene: f"../../../../../..{_target(scene)}".encode()),
    "absolute": ("that is the victim's path", lambda scene: _target(scene).encode()),
    "backslash": ("with backslashes", lambda scene: _target(scene).replace("/", "\\").encode()),
    "nul": ("that is ended by a NUL", lambda scene: f"{_target(scene)}\0.csv".encode()),
    "coded": ("in percent codes", lambda scene: _target(scene).replace("/", "%2f").encode()),
    "dots": ("that is ..", lambda _: b".."),
    "long": ("longer than file systems take", lambda _: b"x" * 3000),
    "fullwidth": ("with full-width slashes", lambda scene: _target(scene).replace("/", "／").encode()),
    "control": ("with control characters", lambda _: b"\x1b[2Jcanary.csv"),
    "latin": ("that is no UTF-8", lambda _: b"\xff\xfe..\xff/canary.csv"),
}


def _target(scene: Scene) -> str:
    """Where a file would appear if its name were believed."""
    root = scene.prey_places.lake.local or Path("/") / scene.prey_places.lake.root
    return str(root / "isolation-canary" / f"{scene.prey.marker}.sent")


def _named(name: Callable[[Scene], bytes], scene: Scene, door: Door) -> Finding:
    """The body is empty, so no name is ever an upload's; but a file of that name was opened by then."""
    call = Call("POST", f"/v1/{scene.mine.use_case}/uploads/history", {"X-Filename": name(scene)})
    finding = refuses(scene, door, call, (*REFUSALS, 0))
    if Path(_target(scene)).exists():
        Path(_target(scene)).unlink()
        return succeeded("a file was written at the victim's")
    return finding


for _name, (_what, _filename) in FILENAMES.items():
    add(f"filename-{_name}", f"uploads a file with a name {_what}", partial(_named, _filename))
