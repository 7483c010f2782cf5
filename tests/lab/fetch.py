"""One HTTP request, exactly as written: nothing is followed, decoded, retried or quoted."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping
from urllib.parse import urlsplit


@dataclass
class Response:
    status: int
    headers: dict[str, str]          # names in lower case; repeated ones joined by ", "
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        return self.headers.get(name.lower())

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def connect(url: str, timeout: float = 30, ca_file: Path | None = None) -> http.client.HTTPConnection:
    """A connection to the host of `url`, for several requests on it."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout)


def send(connection: http.client.HTTPConnection, target: str, method: str = "GET", headers: Mapping[str, str] | None = None,
         body: bytes | None = None) -> Response:
    connection.putrequest(method, target, skip_accept_encoding=True, skip_host=bool(headers and "Host" in headers))
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    if body is not None and not (headers and "Content-Length" in headers):
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    got: dict[str, str] = {}
    for name, value in answer.getheaders():
        name = name.lower()
        got[name] = f"{got[name]}, {value}" if name in got else value
    return Response(answer.status, got, answer.read())


def fetch(url: str, target: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None,
          timeout: float = 30, ca_file: Path | None = None) -> Response:
    connection = connect(url, timeout, ca_file)
    try:
        return send(connection, target, method, {"Connection": "close", **(headers or {})}, body)
    finally:
        connection.close()


def raw(url: str, data: bytes, timeout: float = 30) -> bytes:
    """Send these bytes (a hostile request, say) and return everything that comes back until the end."""
    parts = urlsplit(url)
    with socket.create_connection((str(parts.hostname), parts.port or 80), timeout) as sock:
        sock.sendall(data)
        out = b""
        try:
            while chunk := sock.recv(64 << 10):
                out += chunk
        except ConnectionResetError:
            pass
        return out
