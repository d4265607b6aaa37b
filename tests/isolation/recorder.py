"""moto's server with a record of who asked for what: `python -m tests.isolation.recorder PORT FILE`; and what a record
says in the words of policies."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from infra.isolation.analysis import Request, list_request, object_request

HEADERS = {
    "HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION": "s3:x-amz-server-side-encryption",
    "HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION_AWS_KMS_KEY_ID": "s3:x-amz-server-side-encryption-aws-kms-key-id",
}
OBJECT_ACTIONS = {
    "GET": "GetObject",
    "HEAD": "GetObject",
    "PUT": "PutObject",
    "POST": "PutObject",
    "DELETE": "DeleteObject",
}


@dataclass(frozen=True)
class Asked:
    """One request: by whose key, and what it needs to be allowed."""

    key: str
    service: str
    requests: tuple[Request, ...]


def asked(file: Path) -> Iterator[Asked]:
    """What was asked of the store, in order."""
    for line in file.read_text().splitlines():
        entry = json.loads(line)
        bucket, _, key = entry["path"].lstrip("/").partition("/")
        requests = tuple(_needed(entry, bucket, unquote(key))) if entry["service"] == "s3" else ()
        yield Asked(entry["key"], entry["service"], requests)


def _needed(entry: dict[str, Any], bucket: str, key: str) -> Iterator[Request]:
    query, method = parse_qs(entry["query"], keep_blank_values=True), entry["method"]
    if not key:
        if method == "GET" and not query.keys() - {"list-type", "prefix", "delimiter", "max-keys", "encoding-type",
                                                   "continuation-token", "fetch-owner", "start-after"}:  # fmt: skip
            yield list_request(bucket, query.get("prefix", [None])[0])
        else:
            yield Request(f"s3:Bucket{method}{sorted(query)}", f"arn:aws:s3:::{bucket}")
        return
    action = OBJECT_ACTIONS[method]
    if "uploadId" in query and method in ("GET", "DELETE"):
        action = {"GET": "ListMultipartUploadParts", "DELETE": "AbortMultipartUpload"}[method]
    yield Request(f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}", entry["context"])
    if entry["tagged"]:
        yield Request("s3:PutObjectTagging", f"arn:aws:s3:::{bucket}/{key}")
    if source := entry["source"]:
        yield object_request("GetObject", *unquote(source).lstrip("/").split("/", 1))


def recording(app: Any, file: Path) -> Callable[..., Iterable[bytes]]:
    """The application, which writes a line for each signed request."""

    def recorded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        login = environ.get("HTTP_AUTHORIZATION", "")
        if "Credential=" in login:
            key, _, _, service, *_ = login.split("Credential=")[1].split(",")[0].split("/")
            entry = {
                "key": key,
                "service": service,
                "method": environ["REQUEST_METHOD"],
                "path": environ.get("RAW_URI", environ["PATH_INFO"]).split("?")[0],
                "query": environ.get("QUERY_STRING", ""),
                "source": environ.get("HTTP_X_AMZ_COPY_SOURCE", ""),
                "tagged": "HTTP_X_AMZ_TAGGING" in environ,
                "context": {name: environ[header] for header, name in HEADERS.items() if header in environ},
            }
            with file.open("a") as out:
                out.write(json.dumps(entry) + "\n")
        answer: Iterable[bytes] = app(environ, start_response)
        return answer

    return recorded


def main() -> None:
    """Serves until it is terminated."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple

    app = recording(DomainDispatcherApplication(create_backend_app), Path(sys.argv[2]))
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
