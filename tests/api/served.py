"""An API that is served in a thread, and what it was seen to do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvicorn

from deployments.api.app import create_app
from deployments.api.lockouts import Lockouts
from infra.settings import Settings


@dataclass
class Api:
    """Where it answers, the paths that it announced, and how often it called for a dispatch."""

    settings: Settings
    port: int
    announced: list[str] = field(default_factory=list)
    dispatches: list[float] = field(default_factory=list)

    @property
    def incoming(self) -> Path:
        """Where uploads lie while they come in."""
        return self.settings.home / "scratch" / "incoming"

    def client(self, bearer: str | None = None) -> httpx.Client:
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=30, trust_env=False)

    def hook(self) -> httpx.Client:
        """A client that knows the hook secret."""
        return self.client(self.settings.hook_secret())


@contextmanager
def serve(
    settings: Settings, announce: Callable[[str], None] | None = None, lockouts: Lockouts | None = None
) -> Iterator[Api]:
    """The API on a free port, until the block ends. It notes what it announces, unless told otherwise; nobody is locked
    out of it, because tests fail to authenticate more often than people."""
    listener = socket.socket(
        socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # named, or asyncio leaves Nagle on
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    api = Api(settings, listener.getsockname()[1])

    def dispatch(_: Settings) -> None:
        api.dispatches.append(time.monotonic())
        raise ConnectionError("no Prefect here")

    app = create_app(
        settings,
        announce=announce or api.announced.append,
        dispatch=dispatch,
        lockouts=lockouts or Lockouts(failures=10**9),
    )
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, server_header=False, proxy_headers=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield api
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def problem(answer: httpx.Response, status: int, name: str) -> str:
    """Checks that the answer is that problem document; returns its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["type"] == f"urn:orchard:problem:{name}"
    assert document["title"]
    assert document["request_id"] == answer.headers["X-Request-ID"]
    return str(document.get("detail", ""))
