"""HTTP byte by byte: a client of a library would mend, or refuse to send, most of what an attacker sends."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT_S = 20
READ_BYTES = 1 << 16


class Response(NamedTuple):
    """What came back; status 0 when the other side closed the connection without a word."""

    status: int
    headers: Mapping[str, str]
    body: str


def request(
    method: bytes,
    target: bytes,
    host: str,
    headers: Mapping[str, str | bytes],
    body: bytes = b"",
    *,
    length: bool = True,
) -> bytes:
    """A request as it goes over the wire; nothing in it is checked or encoded."""
    lines = [b" ".join((method, target, b"HTTP/1.1")), b"Host: " + host.encode(), b"Connection: close"]
    lines += [name.encode() + b": " + _bytes(value) for name, value in headers.items()]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def exchange(url: str, sent: bytes, origin: str | None = None) -> list[Response]:
    """Sends the bytes on a connection of its own, from that address; all responses that come before it closes."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    source = (origin, 0) if origin is not None else None
    with socket.create_connection((parts.hostname or "", port), TIMEOUT_S, source) as plain:
        if parts.scheme == "https":
            with ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) as secure:
                return _responses(_talk(secure, sent))
        return _responses(_talk(plain, sent))


def _talk(connection: socket.socket, sent: bytes) -> bytes:
    received = b""
    with suppress(BrokenPipeError, ConnectionResetError):  # it has answered before it read all
        connection.sendall(sent)
    with suppress(ConnectionResetError):
        while piece := connection.recv(READ_BYTES):
            received += piece
    return received


def _responses(received: bytes) -> list[Response]:
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else len(received)
        body, received = received[:size], received[size:]
        number = status.split(" ")[1] if status.count(" ") else ""
        found.append(Response(int(number) if number.isdecimal() else 0, headers, body.decode(errors="replace")))
    return found or [Response(0, {}, "")]


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
