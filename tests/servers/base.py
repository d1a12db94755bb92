"""What the stand-in CRM servers share: real HTTP on the loopback, a small router, and faults on demand.

A stand-in subclasses `Server`, gives `routes`, and the vendor's form of each refusal. It answers from an `Organisation` and knows
which canonical values its CRM can express, so that a test can hold the lake against it row for row.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from tests.servers.organisation import Organisation

# What the base sends by itself, before or in place of an answer. The rest (`do`, `duplicated`) touches data.
TRANSPORT = ("unauthorized", "limit", "too_many", "too_many_bare", "server_error", "bad_gateway", "hang", "reset", "truncated", "html", "drip", "spent")


@dataclass
class Fault:
    """kind: one of TRANSPORT, `do` (run `action(server)` before the request is answered) or `duplicated` (a page repeats the one before).

    From the `at`-th request on whose path matches `path` (a regular expression, searched), `times` times (0 = until cleared).
    """

    kind: str
    at: int = 1
    times: int = 1
    path: str = ""
    action: Callable[[Any], None] | None = None
    value: float = 0  # seconds of a hang or a drip
    seen: int = 0
    done: int = 0


class Faults:
    """What shall go wrong, and when; asked before every answer."""

    def __init__(self) -> None:
        self.planned: list[Fault] = []
        self.lock = threading.Lock()

    def add(self, kind: str, at: int = 1, *, times: int = 1, path: str = "", action: Callable[[Any], None] | None = None, value: float = 0) -> Fault:
        """Plan a fault (see Fault)."""
        assert kind in (*TRANSPORT, "do", "duplicated"), kind
        self.planned.append(Fault(kind, at, times, path, action, value))
        return self.planned[-1]

    def clear(self) -> None:
        """Everything works again."""
        with self.lock:
            self.planned = []

    def due(self, path: str, kinds: tuple[str, ...]) -> list[Fault]:
        """The faults of these kinds that are due at a request for `path`; counts the request."""
        found = []
        with self.lock:
            for fault in self.planned:
                if fault.kind in kinds and re.search(fault.path, path):
                    fault.seen += 1
                    if fault.seen >= fault.at and (not fault.times or fault.done < fault.times):
                        fault.done += 1
                        found.append(fault)
        return found


@dataclass
class Request:
    """One request: path without the query, query as name -> last value (`queries`: all values), headers by lower-case name."""

    method: str
    path: str
    query: dict[str, str]
    queries: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None when empty."""
        return json.loads(self.body) if self.body else None

    def form(self) -> dict[str, str]:
        """The body as a form."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass
class Reply:
    """One answer; `body` is text, bytes, or anything that becomes JSON (None = empty)."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def raw(self) -> tuple[bytes, dict[str, str]]:
        """(bytes, headers with a content type)."""
        if self.body is None:
            return b"", self.headers
        if isinstance(self.body, bytes):
            return self.body, {"Content-Type": "application/octet-stream", **self.headers}
        if isinstance(self.body, str):
            return self.body.encode(), {"Content-Type": "text/html;charset=UTF-8", **self.headers}
        return json.dumps(self.body).encode(), {"Content-Type": "application/json;charset=UTF-8", **self.headers}


class Refusal(Exception):
    """Raised in a route to answer with an error."""

    def __init__(self, reply: Reply):
        super().__init__(f"{reply.status} {reply.body}")
        self.reply = reply


Route = tuple[str, str, Callable[..., Reply]]  # method, regular expression of the whole path, function(request, *groups)


class Server:
    """A stand-in CRM on 127.0.0.1; `with Server(org) as server: server.url`.

    Subclasses give `crm`, `routes()`, the vendor's refusals, `expresses` and `native_id`. Routes run under `self.lock`, so that an edit and a
    page never interleave. `clock` is what the CRM takes for now (tests move it); `skew` is how far its stamps are ahead of it.
    """

    crm: ClassVar[str] = ""
    expresses: ClassVar[dict[str, tuple[str, ...]]] = {}  # entity of the lake -> canonical fields that this CRM can tell

    def __init__(self, org: Organisation, *, port: int = 0, page: int = 0, **more: Any):
        self.org, self.page, self.more = org, page, more
        self.faults, self.lock = Faults(), threading.RLock()
        self.skew = timedelta(0)
        self.requests: list[tuple[str, str]] = []  # (method, path with query) of everything asked
        self.bytes_sent = 0
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    # ---- what a stand-in says of itself
    def routes(self) -> list[Route]:
        """(method, regular expression, function(request, *groups)); the first that matches answers."""
        raise NotImplementedError

    def unknown(self, request: Request) -> Reply:
        """No such path."""
        return Reply(404, {"error": "not found"})

    def unauthorized(self) -> Reply:
        """401 as this vendor puts it. Override `expire` so that tokens given so far end, and renewing is needed."""
        return Reply(401, {"error": "unauthorized"})

    def expire(self) -> None:
        """End every access token given so far (where the vendor has any)."""

    def limited(self) -> Reply:
        """The vendor's word for too much asked just now, where it is not a 429 (Salesforce: 403 REQUEST_LIMIT_EXCEEDED, concurrent)."""
        return self.too_many(True)

    def too_many(self, told: bool) -> Reply:
        """429, with the vendor's headers about when to come back (a second or less in tests), or without any."""
        return Reply(429, {"error": "too many requests"}, {"Retry-After": "0"} if told else {})

    def spent(self) -> Reply:
        """The daily budget is used up."""
        return self.too_many(True)

    def native_id(self, entity: str, key: int) -> str:
        """The id of an organisation's record as the lake knows it behind "<source>:" (with the prefix of its stream)."""
        raise NotImplementedError

    def expected(self, entity: str) -> dict[str, dict[str, Any]]:
        """Lake id behind "<source>:" -> canonical values of every record that stands now, for the fields that this CRM can tell.

        Key fields hold ids in the same form. Override where a CRM tells it otherwise.
        """
        from workbench import schema

        told, out = schema.entity(entity).fields, {}
        with self.lock:
            for key, record in self.org.standing(entity).items():
                row = {}
                for name in self.expresses[entity]:
                    value, to = record.get(name), told[name].references
                    row[name] = self.native_id(to, value) if to and value is not None else value
                out[self.native_id(entity, key)] = row
        return out

    # ---- for routes
    @property
    def now(self) -> datetime:
        """The CRM's clock: the organisation's, and the skew."""
        return self.org.now + self.skew

    def clock_seconds(self) -> float:
        """The CRM's clock in seconds since 1970; the machine's where no organisation is shown."""
        return self.now.replace(tzinfo=UTC).timestamp() if self.org is not None else time.time()

    def repeated(self, request: Request, rows: list, before: list) -> list:
        """A page's rows; where `duplicated` is due, those of the page `before` come again in front of them."""
        return [*before, *rows] if before and self.faults.due(request.path, ("duplicated",)) else rows

    # ---- running
    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.clear()
        self._http.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request: Request) -> Reply:
        """What the routes say."""
        for method, pattern, function in self._routes:
            if method == request.method and (found := re.fullmatch(pattern, request.path)):
                with self.lock:
                    try:
                        return function(request, *(unquote(g) if g is not None else None for g in found.groups()))
                    except Refusal as refusal:
                        return refusal.reply
        return self.unknown(request)

    @property
    def _routes(self) -> list[Route]:
        if not hasattr(self, "_known_routes"):
            self._known_routes = self.routes()
        return self._known_routes

    def refusal(self, kind: str) -> Reply | None:
        """The reply in place of an answer for the faults that are replies."""
        if kind == "unauthorized":
            self.expire()
            return self.unauthorized()
        return {"limit": self.limited, "too_many": lambda: self.too_many(True), "too_many_bare": lambda: self.too_many(False), "spent": self.spent,
                "server_error": lambda: Reply(500, "Internal Server Error"),
                "bad_gateway": lambda: Reply(502, "<html><body><h1>502 Bad Gateway</h1></body></html>"),
                "html": lambda: Reply(200, "<!doctype html><html><title>Down for maintenance</title><body>We'll be back.</body></html>")}.get(kind, lambda: None)()


class _Http(ThreadingHTTPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 64
    owner: Server

    def __init__(self, *args: Any):
        self.stopping = threading.Event()
        super().__init__(*args)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; anything else is shown."""
        import sys
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version, timeout = "HTTP/1.1", 30
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Http

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The header Date: by the CRM's clock, not the machine's."""
        return super().date_time_string(self.server.owner.clock_seconds() if timestamp is None else timestamp)

    def log_message(self, *_: object) -> None:
        """Stand-ins are quiet."""

    def _body(self) -> bytes:
        """The request's body, by its length or in chunks (Node's clients send those)."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _serve(self) -> None:
        owner, parts = self.server.owner, urlsplit(self.path)
        body = self._body()
        queries = parse_qs(parts.query, keep_blank_values=True)
        request = Request(self.command, parts.path, {k: v[-1] for k, v in queries.items()}, queries, {k.lower(): v for k, v in self.headers.items()}, body)
        owner.requests.append((self.command, self.path))
        due = owner.faults.due(parts.path, (*TRANSPORT, "do"))
        for fault in due:
            if fault.kind == "do" and fault.action:
                with owner.lock:
                    fault.action(owner)
        sent = next((f for f in due if f.kind != "do"), None)
        if sent is None:
            self._send(owner.answer(request))
        elif sent.kind == "hang":
            self.server.stopping.wait(sent.value or 5)
            self.close_connection = True
        elif sent.kind == "reset":
            self._reset()
        elif sent.kind in ("truncated", "drip"):
            self._send_badly(owner.answer(request), sent)
        else:
            with owner.lock:
                reply = owner.refusal(sent.kind)
            assert reply is not None, sent.kind
            self._send(reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

    def _head(self, reply: Reply) -> bytes:
        raw, headers = reply.raw()
        if "gzip" in self.headers.get("Accept-Encoding", "") and len(raw) > 1000:
            raw, headers = gzip.compress(raw, 1), {**headers, "Content-Encoding": "gzip"}
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.server.owner.bytes_sent += len(raw)
        return raw

    def _send(self, reply: Reply) -> None:
        raw = self._head(reply)
        if self.command != "HEAD":
            self.wfile.write(raw)
        self.wfile.flush()

    def _send_badly(self, reply: Reply, fault: Fault) -> None:
        """Half of the body and then an end (the length said more; with `value` it said the half), or all of it in drops over `value` seconds."""
        if fault.kind == "truncated":
            raw, headers = reply.raw()
            if fault.value:
                return self._send(Reply(reply.status, raw[:len(raw) // 2], headers))
            raw = self._head(reply)
            self.wfile.write(raw[:len(raw) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        raw, n = self._head(reply), 25
        for part in range(n):
            self.wfile.write(raw[len(raw) * part // n:len(raw) * (part + 1) // n])
            self.wfile.flush()
            time.sleep((fault.value or 1) / n)

    def _reset(self) -> None:
        """End the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


def serve(server: Server) -> None:
    """Run a stand-in until Ctrl-C (`python -m tests.servers.salesforce --port 8101`)."""
    with server:
        print(f"{server.crm} stand-in at {server.url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


def pages(rows: list, size: int) -> Iterator[list]:
    """`rows` in pages of `size`."""
    for start in range(0, len(rows), size):
        yield rows[start:start + size]
