"""A model hub on a real socket: as much of its routes as a download of one file needs, with faults on demand."""

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

REPOSITORY = "owner/tiny-GGUF"
REVISION = "0123456789abcdef0123456789abcdef01234567"
FILE = "tiny.gguf"
ROUTE = re.compile(r"/(?P<repository>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[\w.-]+)/(?P<file>[\w./-]+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived, and how many bytes of the file went out with the answer."""

    method: str
    range: str | None
    sent: int


@dataclass
class Hub:
    """Serves `content` as one file; `cuts` are the numbers of bytes after which the next downloads are cut off."""

    content: bytes
    cuts: list[int] = field(default_factory=list)
    status: int | None = None
    seen: list[Seen] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def downloads(self) -> list[Seen]:
        return [request for request in self.seen if request.method == "GET"]

    def name(
        self, *, repository: str = REPOSITORY, revision: str = REVISION, file: str = FILE, sha256: str = ""
    ) -> str:
        return f"hub:{repository}@{revision}/{file}#{sha256 or self.sha256}"

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            def do_HEAD(self) -> None:
                hub._answer(self)

            def do_GET(self) -> None:
                hub._answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: "_Handler") -> None:
        wanted = request.headers.get("Range")
        sent = 0
        refusal = self._refusal(request.path)
        if refusal is not None:
            request.refuse(*refusal)
        else:
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            body = self.content[start:]
            request.begin(self, body, start=start if wanted else None)
            if request.command == "GET":
                cut = self.cuts.pop(0) if self.cuts else len(body)
                sent = len(body[:cut])
                request.wfile.write(body[:cut])
                request.close_connection = True
        self.seen.append(Seen(request.command, wanted, sent))

    def _refusal(self, path: str) -> tuple[int, str | None] | None:
        if self.status is not None:
            return self.status, None
        route = ROUTE.fullmatch(path)
        if route is None or route["repository"] != REPOSITORY:
            return 401, "RepoNotFound"
        if route["revision"] != REVISION:
            return 404, "RevisionNotFound"
        return None if route["file"] == FILE else (404, "EntryNotFound")


class _Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1, silently."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name in the library)
        """Says nothing."""

    def begin(self, hub: Hub, body: bytes, *, start: int | None) -> None:
        self.send_response(200 if start is None else 206)
        self.send_header("ETag", f'"{hub.sha256}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
        self.end_headers()

    def refuse(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
