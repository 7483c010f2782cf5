"""The gateway in front of a hub that is not the lab's and knows less: what every client needs has to be enough."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Iterator
from urllib.parse import unquote, urlsplit

import pytest

from tests.lab.world import World

MIB = 1 << 20


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def files(kind: str) -> dict[str, bytes]:
    """Other bytes for each kind of hub: nothing is held already."""
    return {"config.json": json.dumps({"hub": kind}).encode(), "dir/a b.txt": kind.encode(), "empty": b"",
            "model.bin": hashlib.sha256(kind.encode()).digest() * (3 * MIB // 32) + b"end"}


class Plain(BaseHTTPRequestHandler):
    """A hub whose repositories are KIND/m: the kind says what it does not have.  No redirects, no Link, no X-Linked-*."""

    protocol_version = "HTTP/1.1"
    calls: list[str] = []

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def entry(self, kind: str, path: str, data: bytes) -> dict[str, Any]:
        digest, oid = hashlib.sha256(data).hexdigest(), git_sha1(data)
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid.upper() if kind == "upper" else oid}
        if path == "model.bin" and kind != "no-lfs":
            entry["lfs"] = {"sha256" if kind == "lfs-as-in-info" else "oid": digest.upper() if kind == "upper" else digest, "size": len(data)}
        if kind == "no-oid":
            del entry["oid"]
        return entry

    def do_GET(self) -> None:
        words = [unquote(word) for word in urlsplit(self.path).path.split("/")[1:]]
        self.calls.append(f"{self.command} {self.path}")
        api = words[:2] == ["api", "models"]
        kind, rest = (words[2], words[4:]) if api else (words[0], words[2:])
        have, commit = files(kind), hashlib.sha1(kind.encode()).hexdigest()
        if api and rest[:1] in ([], ["revision"]) and not (kind == "no-revision" and rest):
            self.answer(200, json.dumps({"sha": commit}).encode() + (b" behind" if kind == "behind" else b""))
        elif api and rest[:1] == ["tree"] and kind != "no-tree":
            self.answer(200, json.dumps([self.entry(kind, path, data) for path, data in have.items()]).encode())
        elif not api and rest[0] == "resolve" and "/".join(rest[2:]) in have:
            path = "/".join(rest[2:])
            data, etag = have[path], hashlib.sha256(have[path]).hexdigest() if path == "model.bin" and kind != "no-lfs" else git_sha1(have[path])
            self.answer(200, data, {"ETag": f'W/"{etag}"' if kind == "weak" else f'"{etag.upper()}"' if kind == "upper" else f'"{etag}"'})
        else:
            self.answer(404, b"no")

    do_HEAD = do_GET            # and no do_POST: it says 501


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Plain)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_hubs_that_know_less(plain: str, make_world: Callable[..., World]) -> None:
    world = make_world(upstream=plain, people="file", workers=2, private={})
    for kind in ("plain", "no-revision", "no-tree", "no-lfs", "no-oid", "lfs-as-in-info", "upper", "weak"):
        for path, data in files(kind).items():
            etag = hashlib.sha256(data).hexdigest() if path == "model.bin" and kind != "no-lfs" else git_sha1(data)
            target = f"/{kind}/m/resolve/main/{path.replace(' ', '%20')}"
            for method in ("HEAD", "GET"):
                answer = world.get(target, "reader", method)
                assert (answer.status, answer["etag"], answer["content-length"]) == (200, f'"{etag}"', str(len(data))), (kind, path, answer.text[:300])
            assert answer.body == data, (kind, path)
        before = len(Plain.calls)
        for path, data in files(kind).items():
            assert world.get(f"/{kind}/m/resolve/{answer['x-repo-commit']}/{path.replace(' ', '%20')}", "reader").body == data
        assert [call for call in Plain.calls[before:] if "/tree/" not in call] == [], kind   # the tree comes in the background


def test_what_cannot_be_read_is_named(plain: str, make_world: Callable[..., World]) -> None:
    world = make_world(upstream=plain, people="file", private={})
    answer = world.get("/behind/m/resolve/main/config.json", "reader")
    assert answer.status == 502 and "text behind the document" in answer.text
    answer = world.get("/api/models/no-oid/m/tree/main", "reader")
    assert answer.status == 502 and "without type, path or oid" in answer.text
