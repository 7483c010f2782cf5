"""What a hostile client tries, and what must not come of it."""

from __future__ import annotations

import json
import socket
from typing import Any, Callable
from urllib.parse import urlsplit

import pytest

from tests.lab.procs import wait_until
from tests.lab.world import ORG, World

WORLD = {"people": "file"}
FILE = f"/{ORG}/llm/resolve/main/model.safetensors"
FORM = "Content-Type: application/x-www-form-urlencoded"


def raw(world: World, head: str, *pieces: bytes, role: str | None = "reader") -> tuple[int, str]:
    """One request as bytes: the status and all that came.  The server may answer and close before it has read all."""
    parts = urlsplit(world.url)
    lines = [head, f"Host: {parts.netloc}", "Connection: close"] + ([f"Authorization: Bearer {world.tokens[role]}"] if role else [])
    answer = b""
    with socket.create_connection((str(parts.hostname), parts.port or 80), 20) as sock:
        try:
            for piece in ("\r\n".join(lines).encode() + b"\r\n\r\n", *pieces):
                sock.sendall(piece)
        except OSError:
            pass
        try:
            while chunk := sock.recv(1 << 16):
                answer += chunk
        except OSError:
            pass
    return int(answer.split()[1]), answer.decode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


@pytest.mark.parametrize("role", ["reader", None])
def test_body_of_unknown_length_fills_no_disk(module_world: World, role: str | None) -> None:
    head = f"POST /api/models/{ORG}/llm/paths-info/main HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{FORM}"
    status, _ = raw(module_world, head, *[chunk(b"x" * (1 << 20))] * 12, role=role)
    assert status == 413
    assert not [path for path in (module_world.folder / "temp").rglob("*") if path.is_file()]


def test_body_in_pieces(module_world: World) -> None:
    body = b"paths=config.json&" + b"x=1&" * 5000
    head = f"POST /api/models/{ORG}/llm/paths-info/main HTTP/1.1\r\n{FORM}\r\n"
    for how, pieces in (("Transfer-Encoding: chunked", [chunk(bytes([byte])) for byte in body] + [b"0\r\n\r\n"]),
                        (f"Content-Length: {len(body)}", [body[at:at + 997] for at in range(0, len(body), 997)])):
        status, answer = raw(module_world, head + how, *pieces)
        assert status == 200 and [entry["path"] for entry in json.loads(answer.partition("\r\n\r\n")[2])] == ["config.json"], answer[-300:]


def test_who_is_asked_by_an_absolute_target(module_world: World) -> None:
    assert raw(module_world, f"HEAD http://evil.example{FILE} HTTP/1.1")[0] == 421
    assert raw(module_world, f"HEAD {module_world.url}{FILE} HTTP/1.1")[0] == 200


def test_ranges_that_are_none(module_world: World) -> None:
    """Whole or one range, and a refusal in JSON; held or not, the same."""
    size = len(module_world.get(FILE, "reader").body)

    def several() -> Any:
        """206 once the file is whole; until its digest is right the answer is all of it."""
        answer = module_world.get(FILE, "reader", headers={"Range": "bytes=0-0,2-2"})
        return answer if answer.status == 206 else None
    answer = wait_until("several ranges", several)
    assert str(answer["content-type"]).startswith("multipart/byteranges")
    for value in ("bytes=5-2", "bytes=a-b", "bytes=,", "items=0-1"):
        answer = module_world.get(FILE, "reader", headers={"Range": value})
        assert (answer.status, len(answer.body)) == (200, size), value
    for value in (f"bytes={size}-", "bytes=-0"):
        answer = module_world.get(FILE, "reader", headers={"Range": value})
        assert (answer.status, answer["content-range"]) == (416, f"bytes */{size}") and answer.json()["error"]
        assert module_world.get(FILE, "stranger", headers={"Range": value})["content-range"] is None


def test_a_cursor_is_no_way_to_another_commit(make_world: Callable[..., World]) -> None:
    """Who may read main only does not read a commit by naming it in a cursor."""
    world = make_world(people="file", workers=1, policy={
        "version": 1, "private_namespaces": [ORG],
        "rules": [{"id": "main", "allow": ["read"], "to": ["user:reader"], "where": {"hub": "private", "repo": f"{ORG}/*", "revisions": ["main"]}}]})
    tree = f"/api/models/{ORG}/llm/tree/main"
    old = str(world.get(tree, "reader")["x-repo-commit"])
    world.import_repo(f"{ORG}/llm", {"config.json": "{}"})
    assert wait_until("the new commit", lambda: world.get(tree, "reader")["x-repo-commit"] != old)
    assert world.get(f"/api/models/{ORG}/llm/tree/{old}", "reader").status == 404
    assert world.get(f"{tree}?cursor={old}.0.", "reader").status == 404
