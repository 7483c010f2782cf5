"""Downloads in the background, read as they come, and repositories of their own for tests."""

from __future__ import annotations

import atexit
import hashlib
import itertools
import os
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.lab import procs
from tests.lab.hubctl import HubControl
from tests.lab.repos import made_up
from tests.lab.world import World

MIB = 1 << 20
GRANULE = MIB
SERIAL = itertools.count(1)


def fresh(hub: HubControl, size: int, name: str = "model.bin", lfs: bool = True) -> dict[str, Any]:
    """A repository of its own with one large file whose bytes nobody else has; what is true of it, and `target`."""
    seed = int.from_bytes(os.urandom(6), "big")
    repo = f"fresh/r{next(SERIAL)}-{seed:x}"
    sha = hub.add(repo, {"config.json": f'{{"seed": {seed}}}\n', name: {"size": size, "seed": seed, "lfs": lfs}})
    facts = hub.file(repo, name)
    atexit.register(forget, facts)
    return {**facts, "repo": repo, "seed": seed, "commit": sha, "target": f"/{repo}/resolve/{sha}/{name}", "main": f"/{repo}/resolve/main/{name}"}


def forget(facts: dict[str, Any]) -> None:
    """The file that the Hub made up for `fresh`, when a test is done with it; at the end of all tests at the latest."""
    path = Path(facts["path"]) if facts.get("path") else None
    if path and path.exists():
        stat = path.stat()
        note = hashlib.sha256(f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}".encode()).hexdigest()     # as in tests/lab/repos.py
        path.unlink()
        (path.parent / f"digest-{note}.json").unlink(missing_ok=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def slice_of(facts: dict[str, Any], first: int, end: int) -> bytes:
    if not facts.get("path"):                             # a small one is in the Hub's memory
        return b"".join(made_up(facts["size"], facts["seed"]))[first:end]
    with open(facts["path"], "rb") as file:
        file.seek(first)
        return file.read(end - first)


def blob(world: World, digest: str) -> Path:
    return world.nginx.cache / "blobs" / digest[:2] / digest[2:4] / digest


def whole(world: World, facts: dict[str, Any], seconds: float = 60) -> Path:
    """Wait until the cache holds all of it, verified."""
    path = blob(world, facts["sha256"])
    procs.wait_until(f"{path.name[:12]} in the cache", path.exists, seconds)
    return path


class Download(threading.Thread):
    """One GET, read in a thread: `status`, `headers`, `body`; `clean` when it ended with all that Content-Length promised."""

    def __init__(self, world: World, target: str, role: str | None = "reader", headers: dict[str, str] | None = None, url: str | None = None) -> None:
        super().__init__(daemon=True)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.clean = False
        parts = urlsplit(url or world.url)
        self.sock = socket.create_connection((str(parts.hostname), parts.port or 80), 60)
        lines = {"Host": parts.netloc, "Connection": "close", **world.headers(role), **(headers or {})}
        self.sock.sendall(f"GET {target} HTTP/1.1\r\n".encode() + "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode() + b"\r\n")
        self.start()

    def run(self) -> None:
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                if not (chunk := self.sock.recv(1 << 16)):
                    return
                head += chunk
            text, _, rest = head.partition(b"\r\n\r\n")
            first, *lines = text.decode("latin-1").split("\r\n")
            self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.body += rest
            self.status = int(first.split()[1])
            while chunk := self.sock.recv(1 << 18):
                self.body += chunk
            self.clean = len(self.body) == int(self.headers.get("content-length", "-1"))
        except OSError:
            pass
        finally:
            self.sock.close()

    def has(self, count: int, seconds: float = 60) -> "Download":
        """Wait until so many bytes of the body are here."""
        procs.wait_until(f"{count} bytes of an answer", lambda: len(self.body) >= count or not self.is_alive(), seconds)
        assert len(self.body) >= count, f"ended after {len(self.body)} bytes, status {self.status}"
        return self

    def done(self, seconds: float = 120) -> "Download":
        self.join(seconds)
        assert not self.is_alive(), f"still under way after {seconds} s: {len(self.body)} bytes, status {self.status}"
        return self

    def leave(self) -> None:
        """The client goes away."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.join(10)

    @property
    def sha256(self) -> str:
        return sha256(bytes(self.body))
