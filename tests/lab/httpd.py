"""A small threaded HTTP/1.1 server that can misbehave: one thread per connection, files leave by sendfile.

The application is a function Request -> Answer.  Faults (see Fault) are applied here, around and below it, so that the
application only ever says the right thing.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Callable
from urllib.parse import unquote

from .repos import Blob

REASONS = {200: "OK", 204: "No Content", 206: "Partial Content", 301: "Moved Permanently", 302: "Found", 304: "Not Modified",
           307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
           404: "Not Found", 405: "Method Not Allowed", 412: "Precondition Failed", 416: "Range Not Satisfiable",
           429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}
MAX_HEAD = 64 << 10
MAX_BODY = 64 << 20
PIECE = 8 << 20
KEPT = 5000                   # requests remembered


@dataclass
class Request:
    host: str                             # which listener: "hub" or "cdn"
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    peer: str = ""
    route: str = "other"                  # for counting, as far as the application got

    def __post_init__(self) -> None:
        self.path, _, self.query = self.target.partition("?")
        self.fields = {name.lower(): value for name, value in self.headers}

    def header(self, name: str) -> str | None:
        return self.fields.get(name.lower())


@dataclass
class Answer:
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    blob: Blob | None = None              # in place of body; Range is applied to it by `ranged`
    start: int = 0
    length: int = 0
    route: str = "other"

    def set(self, name: str, value: str | None) -> None:
        """Replace a header; None takes it away."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def json_answer(value: Any, status: int = 200, headers: list[tuple[str, str]] | None = None, route: str = "other") -> Answer:
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Answer(status, [("Content-Type", "application/json; charset=utf-8"), *(headers or [])], body, route=route)


def ranged(request: Request, answer: Answer) -> Answer:
    """Apply Range, If-Range, If-Match and If-None-Match to an answer that holds a blob."""
    blob, etag = answer.blob, answer.get("ETag")
    assert blob is not None
    answer.start, answer.length = 0, blob.size
    match = request.header("If-Match")
    if match and match != "*" and etag not in [tag.strip() for tag in match.split(",")]:
        return Answer(412, [("ETag", etag or "")], route=answer.route)
    match = request.header("If-None-Match")
    if match and (match == "*" or etag in [tag.strip().removeprefix("W/") for tag in match.split(",")]):
        return Answer(304, answer.headers, route=answer.route)
    wanted = request.header("Range")
    condition = request.header("If-Range")
    if not wanted or (condition and condition != etag):
        return answer
    parsed = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted.strip())
    if not parsed or parsed.groups() == ("", ""):
        return answer                     # several ranges, or nonsense: the whole, as S3 does
    first, last = parsed.groups()
    if first == "":
        start, end = max(0, blob.size - int(last)), blob.size - 1
    else:
        start, end = int(first), min(int(last) if last else blob.size - 1, blob.size - 1)
    if start >= blob.size or end < start:
        return Answer(416, [("Content-Range", f"bytes */{blob.size}"), ("Content-Type", "text/plain")], b"Range Not Satisfiable\n",
                      route=answer.route)
    answer.status, answer.start, answer.length = 206, start, end - start + 1
    answer.set("Content-Range", f"bytes {start}-{end}/{blob.size}")
    return answer


@dataclass
class Fault:
    """One way to misbehave.  All faults that match a request are applied together, later ones winning."""
    match: str = ".*"                     # regular expression, searched in the request target (path and query, as sent)
    host: str | None = None               # only at "hub" or "cdn"
    method: str | None = None
    range: str | None = None              # regular expression, searched in the Range header
    times: int | None = None              # applied so often, then no more
    skip: int = 0                         # not applied to the first so many that match
    latency_ms: int = 0                   # wait, then go on
    rate_bytes_per_s: int = 0             # of the body, per connection
    cut_after: int | None = None          # so many bytes of the body, then the connection is closed
    reset: bool = False                   # ... by RST
    wrong_bytes: bool | int | list[int] = False    # one bit flipped: at these offsets of the file, or (true) in its middle
    wrong_length: int = 0                 # added to Content-Length (less: the rest is not sent; more: closed at the end)
    status: int | None = None             # answer this instead
    error_code: str | None = None         # ... with X-Error-Code
    message: str | None = None            # ... and X-Error-Message, and JSON body
    retry_after: str | int | None = None  # ... and Retry-After
    hang: str | None = None               # "before" any byte, within the "headers", within the "body" (after cut_after bytes, or half)
    etag_change: bool | str = False       # another ETag and X-Linked-ETag: this one, or (true) a new one each time
    redirect_to: str | None = None        # 302 to this; {target}, {path} and {n} (count) are filled in
    ignore_range: bool = False            # 200 and everything
    headers: dict[str, str | None] = field(default_factory=dict)    # set, or (null) left out, in whatever is answered
    also: dict[str, str] = field(default_factory=dict)              # header lines besides those of the same name
    header_bytes: int = 0                 # so many bytes of further headers
    header_bytes_per_s: int = 0           # the head comes at this rate
    body: str | None = None               # this body in place of the true one
    body_base64: str | None = None        # ... when it is no text
    gzip: bool = False                    # the body compressed, and saying so
    endless: str | None = None            # behind `body` this again and again, without a Content-Length, until the client goes (1 GiB at most)
    raw: str | None = None                # these bytes (latin-1) in place of a whole answer, then the connection is closed
    id: int = 0
    seen: int = 0
    applied: int = 0

    def __post_init__(self) -> None:
        self._target, self._range = re.compile(self.match), re.compile(self.range or "")
        self.released = threading.Event()
        if self.hang not in (None, "before", "headers", "body"):
            raise ValueError(f"hang is before, headers or body, not {self.hang!r}")

    def fits(self, request: Request) -> bool:
        return ((self.host is None or self.host == request.host) and (self.method is None or self.method == request.method)
                and bool(self._target.search(request.target) or self._target.search(unquote(request.target)))
                and (self.range is None or bool(self._range.search(request.header("Range") or ""))))


class Faults:
    """The list of faults, and what all of them together do to one request."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.list: list[Fault] = []
        self.ids = itertools.count(1)

    def add(self, **spec: Any) -> Fault:
        known = Fault.__dataclass_fields__
        unknown = [key for key in spec if key not in known or key in ("id", "seen", "applied")]
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r} of a fault; known: {', '.join(known)}")
        fault = Fault(**spec)
        with self.lock:
            fault.id = next(self.ids)
            self.list.append(fault)
        return fault

    def clear(self, fault_id: int | None = None) -> None:
        with self.lock:
            gone = [fault for fault in self.list if fault_id in (None, fault.id)]
            self.list = [fault for fault in self.list if fault not in gone]
        for fault in gone:
            fault.released.set()

    def pick(self, request: Request) -> list[Fault]:
        if not self.list:
            return []
        with self.lock:
            out = []
            for fault in self.list:
                if not fault.fits(request):
                    continue
                fault.seen += 1
                if fault.seen <= fault.skip or (fault.times is not None and fault.applied >= fault.times):
                    continue
                fault.applied += 1
                out.append(fault)
            return out

    def describe(self) -> list[dict]:
        with self.lock:
            return [{key: getattr(fault, key) for key in Fault.__dataclass_fields__} for fault in self.list]


class Stats:
    """Counters, and the last requests with their headers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self.lock:
            self.routes: Counter[str] = Counter()
            self.hosts: Counter[str] = Counter()
            self.statuses: Counter[str] = Counter()
            self.bytes: Counter[str] = Counter()             # of bodies, by host
            self.content = 0                                 # of those, the bytes of files
            self.connections: Counter[str] = Counter()
            self.recent: deque[dict] = deque(maxlen=KEPT)

    def begin(self, request: Request, route: str, status: int) -> dict:
        record = {"host": request.host, "method": request.method, "target": request.target, "route": route, "status": status,
                  "headers": dict(request.headers), "time": time.time(), "bytes": 0, "done": False}
        with self.lock:
            self.routes[route] += 1
            self.hosts[request.host] += 1
            self.statuses[str(status)] += 1
            self.recent.append(record)
        return record

    def sent(self, record: dict, count: int, content: bool = True) -> None:
        with self.lock:
            record["bytes"] += count
            self.content += count if content else 0
            self.bytes[record["host"]] += count

    def describe(self, recent: bool = True) -> dict:
        with self.lock:
            out = {"requests": sum(self.hosts.values()), "routes": dict(self.routes), "hosts": dict(self.hosts),
                   "statuses": dict(self.statuses), "bytes": {"hub": 0, "cdn": 0, **self.bytes}, "content": self.content,
                   "connections": dict(self.connections)}
            if recent:
                out["recent"] = [dict(record) for record in self.recent]
            return out


class Closed(Exception):
    """The connection ends here."""


class Listener:
    """One listening socket and its connections."""

    def __init__(self, name: str, address: str, port: int, app: Callable[[Request], Answer], faults: Faults, stats: Stats,
                 tls: ssl.SSLContext | None = None, control: Callable[[Request], Answer] | None = None) -> None:
        self.name, self.app, self.faults, self.stats, self.tls, self.control = name, app, faults, stats, tls, control
        self.socket = socket.create_server((address, port), backlog=1024)
        self.address, self.port = self.socket.getsockname()[:2]
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}:{self.port}"

    def start(self) -> None:
        threading.Thread(target=self._accept, name=f"{self.name}-accept", daemon=True).start()

    def stop(self) -> None:
        self.stopping.set()
        for sock in [self.socket, *self.open]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.socket.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, peer = self.socket.accept()
            except OSError:
                return
            self.stats.connections[self.name] += 1
            threading.Thread(target=self._serve, args=(sock, peer), daemon=True).start()

    def _serve(self, sock: socket.socket, peer: tuple) -> None:
        with self.lock:
            self.open.add(sock)
        raw = sock
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            connection = Connection(self, sock, str(peer[0]))
            while connection.one():
                pass
        except (OSError, ssl.SSLError, Closed, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(raw)
            for each in {raw, sock}:
                each.close()


class Connection:
    def __init__(self, listener: Listener, sock: socket.socket, peer: str) -> None:
        self.listener, self.sock, self.peer = listener, sock, peer
        self.buffer = b""

    # reading

    def _more(self) -> bool:
        data = self.sock.recv(64 << 10)
        self.buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self._more():
                raise Closed
        out, self.buffer = self.buffer[:count], self.buffer[count:]
        return out

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if len(self.buffer) > MAX_HEAD or not self._more():
                raise Closed
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _read(self) -> Request | None:
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > MAX_HEAD or not self._more():
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        if target.startswith(("http://", "https://")):         # asked as a proxy would be
            target = "/" + target.split("://", 1)[1].partition("/")[2]
        request = Request(self.listener.name, method, target, headers, peer=self.peer)
        if (request.header("Expect") or "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (request.header("Transfer-Encoding") or "").lower() == "chunked":
            parts = []
            while size := int(self._line().split(b";")[0], 16):
                parts.append(self._take(size))
                self._line()
                if sum(map(len, parts)) > MAX_BODY:
                    raise Closed
            while self._line():
                pass
            request.body = b"".join(parts)
        elif length := int(request.header("Content-Length") or 0):
            if length > MAX_BODY:
                raise Closed
            request.body = self._take(length)
        return request

    # answering

    def one(self) -> bool:
        """One request and its answer; False when the connection is to be closed."""
        request = self._read()
        if request is None:
            return False
        if self.listener.control and request.path.startswith("/-/lab/"):
            self._send(request, self.listener.control(request), [], None)
            return True
        faults = self.listener.faults.pick(request)
        fault = merged(faults)
        if fault.hang == "before":
            record = self.listener.stats.begin(request, "hung", 0)
            try:
                self._hang(faults)
            finally:
                record["done"] = True
        if fault.latency_ms:
            self.listener.stopping.wait(fault.latency_ms / 1000)
        if fault.ignore_range:
            request.fields.pop("range", None)
        try:
            answer = self.listener.app(request)
        except Exception as error:        # a bug of the lab: say so to the one who asked
            answer = json_answer({"error": f"the lab failed: {error!r}"}, 500)
        spoil(request, answer, fault)
        record = self.listener.stats.begin(request, answer.route, answer.status)
        try:
            if fault.raw is not None:
                self.sock.sendall(fault.raw.encode("latin-1"))
                return False
            keep = self._send(request, answer, faults, record)
        finally:
            record["done"] = True            # also when the client has gone
        return keep and (request.header("Connection") or "").lower() != "close"

    def _send(self, request: Request, answer: Answer, faults: list[Fault], record: dict | None) -> bool:
        fault = merged(faults)
        blob = answer.blob
        length = answer.length if blob else len(answer.body)
        bare = request.method == "HEAD" or answer.status in (204, 304)
        headers = [("Date", formatdate(usegmt=True)), *answer.headers]
        if answer.status not in (204, 304) and fault.endless is None and not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(max(0, length + fault.wrong_length))))
        for number in range(fault.header_bytes // 1000):
            headers.append((f"X-Padding-{number}", "p" * 984))
        headers += fault.also.items()
        head = f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}\r\n" + \
            "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        data = head.encode("utf-8", "surrogateescape")
        if fault.hang == "headers":
            self.sock.sendall(data[:len(data) // 2])
            self._hang(faults)
        if fault.header_bytes_per_s:
            self._paced(data, fault.header_bytes_per_s, None, False)
            data = b""
        if fault.endless is not None and not bare:
            self._endless(data + (fault.body or "").encode(), fault.endless.encode(), record)
            return False
        end = length + min(0, fault.wrong_length)
        stop = end if fault.cut_after is None else min(end, fault.cut_after)
        if fault.hang == "body" and fault.cut_after is None:
            stop = end // 2
        if bare:
            self.sock.sendall(data)
        elif blob is None or blob.data is not None:
            body = answer.body if blob is None else blob.read()[answer.start:answer.start + answer.length]
            body = flipped(body, answer.start, flips(fault, blob.size if blob else len(body)))[:stop]
            if fault.rate_bytes_per_s:
                self.sock.sendall(data)
                self._paced(body, fault.rate_bytes_per_s, record, blob is not None)
            else:
                self.sock.sendall(data + body)
                if record:
                    self.listener.stats.sent(record, len(body), blob is not None)
        else:
            self.sock.sendall(data)
            self._send_file(str(blob.path), answer.start, stop, fault, flips(fault, blob.size), record)
        if bare:
            return True
        if fault.hang == "body":
            self._hang(faults)
        if stop < end or fault.wrong_length > 0:
            if fault.reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        return fault.wrong_length == 0

    def _send_file(self, path: str, start: int, count: int, fault: Fault, flip: list[int], record: dict | None) -> None:
        """`count` bytes of a file from `start`: by sendfile, except around flipped bytes and over TLS."""
        rate, began, sent = fault.rate_bytes_per_s, time.monotonic(), 0
        by_hand = isinstance(self.sock, ssl.SSLSocket)
        fd = os.open(path, os.O_RDONLY)
        try:
            while sent < count:
                position = start + sent
                piece = min(count - sent, step(rate) if rate else (1 << 20 if by_hand else PIECE))
                due = [offset for offset in flip if position <= offset < position + piece]
                if due and due[0] > position:
                    piece, due = due[0] - position, []
                elif due:
                    piece = 1
                if due or by_hand:
                    self.sock.sendall(flipped(os.pread(fd, piece, position), position, due))
                    done = piece
                else:
                    done = os.sendfile(self.sock.fileno(), fd, position, piece)
                    if done == 0:
                        raise Closed      # the file became shorter
                sent += done
                if record:
                    self.listener.stats.sent(record, done)
                if rate:
                    self._wait_until(began + sent / rate)
        finally:
            os.close(fd)

    def _paced(self, body: bytes, rate: int, record: dict | None, content: bool) -> None:
        began, sent = time.monotonic(), 0
        while sent < len(body):
            piece = body[sent:sent + step(rate)]
            self.sock.sendall(piece)
            sent += len(piece)
            if record:
                self.listener.stats.sent(record, len(piece), content)
            self._wait_until(began + sent / rate)

    def _endless(self, head: bytes, piece: bytes, record: dict | None) -> None:
        self.sock.sendall(head)
        piece *= max(1, (64 << 10) // len(piece))
        for _ in range((1 << 30) // len(piece)):
            self.sock.sendall(piece)
            if record:
                self.listener.stats.sent(record, len(piece), False)

    def _wait_until(self, when: float) -> None:
        rest = when - time.monotonic()
        if rest > 0 and self.listener.stopping.wait(rest):
            raise Closed

    def _hang(self, faults: list[Fault]) -> None:
        """Say nothing more until the fault is taken away, the client goes, or the lab stops; then close."""
        released = next(fault.released for fault in faults if fault.hang)
        while not released.wait(0.05) and not self.listener.stopping.is_set():
            if select.select([self.sock], [], [], 0)[0] and not self.sock.recv(64 << 10):
                break
        raise Closed


def step(rate: int) -> int:
    """Bytes sent at once at a limited rate: about a hundredth of a second's."""
    return max(1, min(256 << 10, rate // 100))


NO_FAULT = Fault()


def merged(faults: list[Fault]) -> Fault:
    """One fault that does what all of these do."""
    if not faults:
        return NO_FAULT
    out = Fault()
    for fault in faults:
        for key, default in vars(NO_FAULT).items():
            value = getattr(fault, key)
            if not key.startswith("_") and key not in ("id", "seen", "applied", "released", "match") and value != default:
                setattr(out, key, {**getattr(out, key), **value} if isinstance(value, dict) else value)
        out.applied = max(out.applied, fault.applied)
    return out


def spoil(request: Request, answer: Answer, fault: Fault) -> None:
    """Change the answer itself as the fault says."""
    if fault.redirect_to is not None:
        where = fault.redirect_to.replace("{target}", request.target).replace("{path}", request.path).replace("{n}", str(fault.applied))
        answer.status, answer.blob, answer.body, answer.headers = 302, None, b"", [("Location", where)]
    if fault.status is not None:
        text = fault.message or f"The lab was told to answer {fault.status}"
        replacement = json_answer({"error": text}, fault.status)
        answer.status, answer.headers, answer.body, answer.blob = fault.status, replacement.headers, replacement.body, None
        answer.set("X-Error-Code", fault.error_code)
        answer.set("X-Error-Message", text)
    if fault.retry_after is not None:
        answer.set("Retry-After", str(fault.retry_after))
    if fault.etag_change:
        for name in ("ETag", "X-Linked-ETag"):
            if (old := answer.get(name)) is not None:
                digits = old.strip('"')
                new = f"{fault.applied:x}".rjust(len(digits), "e")[:len(digits)] if fault.etag_change is True else fault.etag_change
                answer.set(name, f'"{new}"')
    if fault.body is not None:
        answer.body, answer.blob = fault.body.encode(), None
    if fault.body_base64 is not None:
        answer.body, answer.blob = base64.b64decode(fault.body_base64), None
    if fault.gzip:
        body = answer.body if answer.blob is None else answer.blob.read()[answer.start:answer.start + answer.length]
        answer.body, answer.blob = gzip.compress(body, 1), None
        answer.set("Content-Encoding", "gzip")
    for name, value in fault.headers.items():
        answer.set(name, value)


def flips(fault: Fault, size: int) -> list[int]:
    if fault.wrong_bytes is False:
        return []
    if fault.wrong_bytes is True:
        return [size // 2]
    return sorted(fault.wrong_bytes) if isinstance(fault.wrong_bytes, list) else [fault.wrong_bytes]


def flipped(data: bytes, start: int, offsets: list[int]) -> bytes:
    """`data`, which begins at `start` of the file, with the lowest bit of the bytes at these offsets flipped."""
    due = [offset - start for offset in offsets if start <= offset < start + len(data)]
    if not due:
        return data
    out = bytearray(data)
    for offset in due:
        out[offset] ^= 1
    return bytes(out)
