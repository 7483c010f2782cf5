"""The write lane under clients that lie, stall, leave, and under workers that die: refused at bounded cost with a sentence, nothing
changed, nothing left behind, and the same right request works afterwards.  HOSTILE=1 (`make hostile`): the sizes nobody waits for."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Iterable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.lab import procs
from tests.lab.fetch import Response
from tests.lab.world import World, sample_policy

MIB = 1 << 20
# as docs/operations.md says it
LOG = str(re.search(r"```nginx\n(map .*?)\n```", (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text(), re.S)[1])       # type: ignore[index]
LONG = bool(os.environ.get("HOSTILE"))
WORLD: dict = {"workers": 2, "people": "file", "policy": sample_policy("file"), "private": {"acme/hostile": {"a.txt": "a", "dir/b.txt": "b"}}, "tls": True,
               "http_extra": f"client_body_timeout 3s;\n{LOG.replace('/var/log/nginx/', 'logs/')}"}
REPO = "acme/hostile"
COMMIT = f"/api/models/{REPO}/commit/main"
HEAD = '{"key":"header","value":{"summary":"s"}}'


def line(key: str, **value: object) -> str:
    return json.dumps({"key": key, "value": value})


def file(path: str, content: str = "eA==", encoding: str = "base64") -> str:
    return line("file", path=path, content=content, encoding=encoding)


def commit(world: World, *lines: str, **keys: object) -> Response:
    return world.get(COMMIT, "writer", "POST", body="\n".join(lines).encode(), **keys)         # type: ignore[arg-type]


def state(world: World) -> tuple[str, list[str]]:
    git = ["git", "--git-dir", str(world.folder / f"data/repos/model/{REPO}.git")]
    refs = subprocess.run([*git, "for-each-ref"], capture_output=True, text=True, check=True).stdout
    return refs, sorted(str(path) for path in (world.folder / f"data/repos/model/{REPO}.git/lfs/objects").rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def nothing_left(module_world: World) -> Iterator[None]:
    """Whatever a test did: no temporary file stays, the repository is sound, workers are small."""
    yield
    tmp = module_world.folder / "data/tmp"
    procs.wait_until("nothing is left in data/tmp", lambda: not list(tmp.iterdir()), 30)
    done = subprocess.run(["git", "--git-dir", str(module_world.folder / f"data/repos/model/{REPO}.git"), "fsck", "--strict", "--full", "--no-dangling"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout + done.stderr == ""
    assert max(memory(module_world)) < 128, memory(module_world)


def memory(world: World) -> list[int]:
    """MiB of each worker that no file stands for; a sanitizer keeps what is freed."""
    sizes = [0]
    if "ASAN_OPTIONS" in os.environ:
        return sizes
    for pid in world.nginx.workers():
        with open(f"/proc/{pid}/status") as status:
            sizes += [int(row.split()[1]) >> 10 for row in status if row.startswith("RssAnon")]
    return sizes


def fresh(size: int) -> tuple[bytes, str]:
    data = random.randbytes(size)
    return data, hashlib.sha256(data).hexdigest()


def address(world: World, oid: str, size: int) -> str | None:
    body = json.dumps({"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]}).encode()
    got = world.get(f"/{REPO}.git/info/lfs/objects/batch", "writer", "POST", body=body, headers={"Content-Type": "application/vnd.git-lfs+json"})
    assert got.status == 200, got.body
    actions = got.json()["objects"][0].get("actions")
    return actions and actions["upload"]["href"][len(world.url):]


class Sender:
    """A request in pieces."""

    def __init__(self, world: World, method: str, target: str, *headers: str, who: str | None = None, port: int = 0) -> None:
        parts = urlsplit(world.url)
        self.sock = socket.create_connection((str(parts.hostname), port or int(parts.port or 80)), 60)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", *headers, *(f"{k}: {v}" for k, v in world.headers(who).items())]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")

    def send(self, data: bytes) -> bool:
        """False: an answer came, or the end, and not all was taken."""
        view = memoryview(data)
        while view:
            ready, writable, _ = select.select([self.sock], [self.sock], [], 60)
            if ready or not writable:
                return False
            try:
                view = view[self.sock.send(view[:1 << 18]):]
            except OSError:
                return False
        return True

    def answer(self) -> tuple[int, str]:
        got = b""
        try:
            while chunk := self.sock.recv(1 << 16):
                got += chunk
                head, found, body = got.partition(b"\r\n\r\n")
                if found and f"content-length: {len(body)}" in head.decode("latin-1").lower():
                    break
        except OSError:
            pass
        self.sock.close()
        return int(got.split()[1]) if got else 0, got.decode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


# ---- objects ----

CUTS = (0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB + 4, 2 * MIB + 5)


def test_objects_that_end_early_or_late(module_world: World) -> None:
    data, oid = fresh(2 * MIB + 5)
    href = str(address(module_world, oid, len(data)))
    before = state(module_world)
    for cut in CUTS[:-1]:
        got = module_world.get(href, None, "PUT", body=data[:cut])             # it says how long it is: too short
        assert got.status == 422 and "announced" in str(got["X-Error-Message"]), (cut, got.status, got.body)
        sender = Sender(module_world, "PUT", href, f"Content-Length: {len(data)}")  # it does not come, and the client is gone
        sender.send(data[:cut])
        sender.sock.close()
        sender = Sender(module_world, "PUT", href, "Transfer-Encoding: chunked")
        assert sender.send((chunk(data[:cut]) if cut else b"") + b"0\r\n\r\n")
        status, text = sender.answer()
        assert status == 422, (cut, text)
    for body in (data + b"x", data + data):
        got = module_world.get(href, None, "PUT", body=body)
        assert got.status == 413, got.body
        sender = Sender(module_world, "PUT", href, "Transfer-Encoding: chunked")
        sender.send(chunk(body) + b"0\r\n\r\n")
        assert sender.answer()[0] == 413
    for at in (0, MIB - 1, MIB, len(data) - 1):
        wrong = bytearray(data)
        wrong[at] ^= 1
        got = module_world.get(href, None, "PUT", body=bytes(wrong))
        assert got.status == 422 and "sha256" in str(got["X-Error-Message"]), got.body
    for broken in (b"zz\r\n" + data, b"-1\r\n", b"ffffffffffffffffff\r\n", chunk(data[:9])[:-2] + b"xx"):
        sender = Sender(module_world, "PUT", href, "Transfer-Encoding: chunked")
        sender.send(broken)
        assert sender.answer()[0] in (400, 422), broken[:20]
    assert state(module_world) == before and address(module_world, oid, len(data))
    sender = Sender(module_world, "PUT", href, "Transfer-Encoding: chunked")
    assert sender.send(b"".join(chunk(data[at:at + 100_001]) for at in range(0, len(data), 100_001)) + b"0\r\n\r\n")
    assert sender.answer()[0] == 200
    assert address(module_world, oid, len(data)) is None and len(state(module_world)[1]) == len(before[1]) + 1


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1])
def test_objects_of_every_class_of_size(module_world: World, size: int) -> None:
    data, oid = fresh(size)
    assert module_world.get(str(address(module_world, oid, size)), None, "PUT", body=data).status == 200
    path = f"sizes/{size}.bin"
    assert commit(module_world, HEAD, line("lfsFile", path=path, algo="sha256", oid=oid, size=size)).status == 200
    assert module_world.get(f"/{REPO}/resolve/main/{path}", "writer").body == data


def test_refused_before_the_body_is_sent(module_world: World) -> None:
    data, oid = fresh(MIB)
    href = str(address(module_world, oid, len(data)))
    for target, who, status in ((href[:-1] + ("0" if href[-1] != "0" else "1"), None, 403), (COMMIT, "reader", 403), (COMMIT, "stranger", 404), (COMMIT, None, 401)):
        sender = Sender(module_world, "PUT" if "lfs" in target else "POST", target, "Content-Length: 1000000", "Expect: 100-continue", who=who)
        got, text = sender.answer()
        assert got == status and "100 Continue" not in text, text
    sender = Sender(module_world, "PUT", href, f"Content-Length: {len(data)}", "Expect: 100-continue")
    assert sender.sock.recv(100).startswith(b"HTTP/1.1 100 ")
    assert sender.send(data) and sender.answer()[0] == 200


def test_addresses_are_no_credentials_in_the_log(module_world: World) -> None:
    data, oid = fresh(10)
    href = str(address(module_world, oid, len(data)))
    assert module_world.get(href, None, "PUT", body=data).status == 200
    log = next(module_world.folder.rglob("hubgate.log"))
    procs.wait_until("the line", lambda: f'"PUT /-/lfs/model/{REPO}/{oid}/... HTTP/1.1" 200 ' in log.read_text())
    assert href[-64:] not in log.read_text() and f'"POST /{REPO}.git/info/lfs/objects/batch HTTP/1.1" 200 ' in log.read_text()


@pytest.fixture(scope="module")
def http2(module_world: World) -> World:
    module_world.nginx.conf.write_text(module_world.nginx.conf.read_text().replace(" ssl reuseport;", " ssl http2 reuseport;"))
    module_world.nginx.reload()
    return module_world


def curl(world: World, target: str, data: bytes, *more: str) -> tuple[str, str]:
    done = subprocess.run(["curl", "-sS", "--http2", "--cacert", str(world.ca.file), "-w", "\n%{http_version} %{http_code}", "--data-binary", "@-", *more,
                           f"{world.tls_url}{target}"], input=data, capture_output=True, timeout=60)
    text, _, last = done.stdout.decode().rpartition("\n")
    return last, text + done.stderr.decode()


def test_over_http2(http2: World) -> None:
    data, oid = fresh(3 * MIB + 7)
    href = str(address(http2, oid, len(data)))
    for body, status in ((data[:-1], "422"), (data[:-1] + b"?", "422"), (data + b"?", "413"), (b"", "422"), (data, "200")):
        for length in ([], ["-H", "Transfer-Encoding: chunked"]) if status != "200" else ([],):      # without a length
            last, text = curl(http2, href, body, "-X", "PUT", *length)
            assert last == f"2 {status}" or (last, status) == ("2 422", "413"), (last, text)      # one byte more shows only at the end
    token = ["-H", f"Authorization: Bearer {http2.tokens['writer']}"]
    last, text = curl(http2, COMMIT, f"{HEAD}\n{file('h2.txt')}".encode(), *token)
    assert last == "2 200", text
    last, text = curl(http2, COMMIT, f"{HEAD}\n{file('../h2.txt')}".encode(), *token)
    assert last == "2 400", text


# ---- commits ----

NAMES = ["../x", "a/../x", "..", ".", "./x", "a/./x", "/x", "a//x", "x/", "", ".git/config", ".GIT/config", "a/.git/x", ".Git", ".git ", ".git.", ".git. .", "git~1", "GIT~1/x",
         ".g\u200cit/x", ".git::$INDEX_ALLOCATION/x", "a\0b", "a\nb", "a\rb", "a\x1bb", "a\x7fb", "\t", "x" * 256, "/".join(["x" * 200] * 21), "/".join(["d"] * 200)]


def test_paths_that_no_repository_may_hold(module_world: World) -> None:
    before = state(module_world)
    _, oid = fresh(1)
    for name in NAMES:
        for operation in (file(name), line("lfsFile", path=name, algo="sha256", oid=oid, size=1), line("deletedFile", path=name),
                          *([line("deletedFolder", path=name)] if name != "x/" else [])):
            got = commit(module_world, HEAD, file("fine.txt"), operation)
            assert got.status in (400, 413), (name, operation, got.status, got.body)
            assert len(str(got["X-Error-Message"])) > 20 and "\n" not in str(got["X-Error-Message"])
    assert state(module_world) == before
    for name in ("trailing.", "sp ace ", "#%+?&=", "\u00e9", "e\u0301", "-rf", "con", "A.txt"):
        assert commit(module_world, HEAD, file(f"odd/{name}")).status == 200, name


BAD_BODIES = [
    ("", 400), ("\n\n", 400), ("null", 400), ("[]", 400), ("1", 400), ('"x"', 400), ("{}", 400), ("{", 400), ("{]", 400), ("\0", 400), ("\ufeff" + HEAD, 400),
    ('{"key":"header"}\n' + file("../x"), 400), (file("x"), 400), (file("x") + "\n" + HEAD, 400), (HEAD + "\n" + HEAD, 400), (HEAD + HEAD, 400),
    (HEAD + "\n" + file("x") + "\n" + HEAD, 400), (HEAD + "\n{", 400), (HEAD + "\n" + file("x")[:-3], 400), (HEAD + "\n" + line("renamed", path="x"), 400),
    (HEAD + "\n" + line("file", path="x"), 400), (HEAD + "\n" + line("file", content="eA=="), 400), (HEAD + "\n" + file("x", "e"), 400), (HEAD + "\n" + file("x", "eA=!"), 400),
    (HEAD + "\n" + file("x", "eA==eA=="), 400), (HEAD + "\n" + file("x", "x", "latin-1"), 400), (HEAD + "\n" + '{"key":"file","key":"file","value":{"path":"x","content":""}}', 400),
    (HEAD + "\n" + '{"key":"file","value":{"path":"x","path":"y","content":""}}', 400), (HEAD + "\n" + '{"key":"file","value":{"path":"x","content":"\\ud800"}}x', 400),
    (HEAD + "\n" + line("lfsFile", path="x", algo="md5", oid="0" * 64, size=1), 400), (HEAD + "\n" + line("lfsFile", path="x", algo="sha256", oid="0" * 64, size=-1), 400),
    (HEAD + "\n" + line("lfsFile", path="x", algo="sha256", oid="../" * 21 + "x", size=1), 400), (HEAD + "\n" + line("lfsFile", path="x", algo="sha256", oid="A" * 64, size=1), 400),
    (HEAD + "\n" + line("lfsFile", path="x", algo="sha256", oid="0" * 64, size=10 ** 30), 400), (HEAD + "\n" + line("lfsFile", path="x", algo="sha256", oid="0" * 64), 400),
    (HEAD + "\n" + file("n") + "\n" + file("n/m"), 400), (HEAD + "\n" + file("dir"), 400), (HEAD + "\n" + file("a.txt/x"), 400), (HEAD + "\n" + line("deletedFile", path="dir"), 404),
    (HEAD + "\n" + line("deletedFolder", path="a.txt"), 404), (HEAD + "\n" + line("deletedFile", path="a.txt") + "\n" + line("deletedFile", path="a.txt"), 404),
    (line("header", summary="s", parentCommit="zz"), 400), (line("header", summary="s", parentCommit="0" * 40), 412), (line("header", summary="s", parentCommit="HEAD^"), 400),
    ("[" * 100_000, 400), ('{"key":' * 1000, 400), (" " * 200_000 + HEAD + "\n" + file("../x"), 400),
]


def test_bodies_that_are_no_commit(module_world: World) -> None:
    before = state(module_world)
    for body, status in BAD_BODIES:
        got = commit(module_world, body)
        assert got.status in (status, 413 if len(body) > 1000 else status), (body[:90], got.status, got.body)
        assert len(str(got["X-Error-Message"])) > 10, body[:90]
    assert state(module_world) == before
    assert commit(module_world, HEAD, file("well.txt")).status == 200


def test_names_of_branches(module_world: World) -> None:
    before = state(module_world)
    names = ["..", "../x", "a..b", "x.lock", "a/x.lock", "x.", "/x", "x/", "a//b", "a@{b", "a b", "a~b", "a^b", "a:b", "a?b", "a*b", "a[b", "a\\b", "a\x01b", "a\x7fb", "-x", ".x", "a/.x", "x" * 300,
             "refs/x", "refs/tags/x", "refs/heads/../x", "HEAD"]
    for name in names:
        encoded = "".join(f"%{byte:02X}" for byte in name.encode())
        for route, body in ((f"branch/{encoded}", b"{}"), ("tag/main", json.dumps({"tag": name}).encode())):
            if (route, name) in (("tag/main", "HEAD"), ("tag/main", "refs/x"), ("tag/main", "refs/tags/x"), (f"branch/{encoded}", "HEAD")):
                continue                # git allows them below refs/tags/ and refs/heads/
            got = module_world.get(f"/api/models/{REPO}/{route}", "writer", "POST", body=body, headers={"Content-Type": "application/json"})
            assert got.status in (400, 404, 413), (name, route, got.status, got.body)
        got = module_world.get(f"/api/models/{REPO}/commit/{encoded}", "writer", "POST", body=f"{HEAD}\n{file('x')}".encode())
        assert got.status in (400, 404, 413), (name, got.status, got.body)
    assert state(module_world) == before


def flood(world: World, pieces: Iterable[bytes], most: int) -> tuple[int, str, int, int]:
    """Sends until an answer comes: status, its text, bytes that were sent, MiB of the largest worker meanwhile."""
    sender, sent, peak = Sender(world, "POST", COMMIT, "Transfer-Encoding: chunked", who="writer"), 0, 0
    for piece in pieces:
        if not sender.send(chunk(piece)):
            break
        sent += len(piece)
        if sent % (8 * MIB) < len(piece):
            peak = max(peak, *memory(world))
        assert sent < most, "nothing stops it"
    else:
        sender.send(b"0\r\n\r\n")
    status, text = sender.answer()
    return status, text, sent, peak


def test_a_line_without_an_end(module_world: World) -> None:
    """What comes after a failure is read up to 64 MiB, then the answer comes whatever the client does."""
    before = state(module_world)
    for start in (b"", b'{"key":"file","value":{"path":"x","content":"', b'{"key":"', b'{"key":"file","value":{"other":"', b'{"a":1,' * 3):
        status, text, sent, peak = flood(module_world, (HEAD.encode() + b"\n" + start if at == 0 else b"A" * MIB for at in range(1024)), 200 * MIB)
        assert status in (400, 413) and "X-Error-Message" in text and peak < 128, (start, status, sent, peak)
    assert state(module_world) == before


def test_a_million_operations(module_world: World) -> None:
    count = 1_000_001 if LONG else 20_000
    def lines() -> Iterator[bytes]:
        yield HEAD.encode() + b"\n"
        for at in range(0, count, 1000):
            yield "".join(f'{{"key":"file","value":{{"path":"m/{n // 1000}/{n}","content":"{n % 7}"}}}}\n' for n in range(at, min(at + 1000, count))).encode()
    before, begun = state(module_world), time.monotonic()
    status, text, sent, peak = flood(module_world, lines(), 200 * MIB)
    print(f"{count} operations, {sent / MIB:.0f} MiB: status {status} after {time.monotonic() - begun:.1f} s, a worker had {peak} MiB")
    if LONG:
        assert status == 413 and "1000000" in text and state(module_world) == before, text
    else:
        assert status == 200, text
        assert commit(module_world, HEAD, line("deletedFolder", path="m")).status == 200


# ---- who leaves, who stalls, who dies ----

def test_who_leaves(module_world: World) -> None:
    before = state(module_world)
    data, oid = fresh(3 * MIB)
    href = str(address(module_world, oid, len(data)))
    body = f"{HEAD}\n{file('left.txt', 'A' * (6 * MIB))}".encode()
    for cut in (0, 1, MIB, len(data) - 1):
        for sender, payload in ((Sender(module_world, "PUT", href, f"Content-Length: {len(data)}"), data),
                                (Sender(module_world, "POST", COMMIT, f"Content-Length: {len(body)}", who="writer"), body)):
            sender.send(payload[:cut])
            sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")        # by RST
            sender.sock.close()
    assert state(module_world) == before
    assert module_world.get(href, None, "PUT", body=data).status == 200


def test_who_stalls_is_ended_and_holds_up_nobody(module_world: World) -> None:
    """60 senders of a byte now and then, and 60 of half an object: others write meanwhile, memory stays, and nginx's client_body_timeout ends them."""
    data, oid = fresh(MIB)
    href = str(address(module_world, oid, len(data)))
    slow = [Sender(module_world, "PUT", href, f"Content-Length: {len(data)}") for _ in range(60)]
    slow += [Sender(module_world, "POST", COMMIT, "Content-Length: 100000", who="writer") for _ in range(60)]
    for number, sender in enumerate(slow):
        sender.send(data[:MIB // 2] if number % 2 else b"{")
    procs.wait_until("they are all at it", lambda: list((module_world.folder / "data/tmp").iterdir()))
    assert commit(module_world, HEAD, file("meanwhile.txt")).status == 200
    assert max(memory(module_world)) < 128, memory(module_world)
    for _ in range(3):                       # a byte keeps one alive, and is all it gets
        for sender in slow[::2]:
            sender.send(b" ")
    assert module_world.get(href, None, "PUT", body=data).status == 200
    for sender in slow:
        sender.sock.settimeout(60)
        status, _ = sender.answer()
        assert status in (0, 400, 408), status


def test_more_uploads_than_are_taken(module_world: World) -> None:
    module_world.configure({"limits.uploads": 4})
    try:
        data, oid = fresh(100)
        href = str(address(module_world, oid, len(data)))
        held = [Sender(module_world, "PUT", href, f"Content-Length: {len(data)}") for _ in range(40)]
        for sender in held:
            sender.send(b"x")
        refused = [sender for sender in held if select.select([sender.sock], [], [], 1 if sender is held[0] else 0.05)[0]]
        assert 40 - 2 * 4 <= len(refused) < 40, len(refused)
        status, text = refused[0].answer()
        assert status == 503 and "too many uploads" in text and "Retry-After: 5" in text, text
        for sender in held:
            sender.sock.close()
        procs.wait_until("there is room again", lambda: module_world.get(href, None, "PUT", body=data).status == 200)
    finally:
        module_world.configure({"limits.uploads": 256})


@pytest.mark.parametrize("what", ["object", "commit"])
def test_a_worker_dies_in_the_middle(module_world: World, what: str) -> None:
    module_world.expect_log(r"\[alert\].*exited on signal 9", min=1)
    before = state(module_world)
    data, oid = fresh(4 * MIB)
    href = str(address(module_world, oid, len(data)))
    body = f"{HEAD}\n{file('killed.txt', 'QUJD' * 20_000)}\n".encode() * 1 + b"".join(f"{file(f'killed/{n}')}\n".encode() for n in range(3000))
    for part in (1, len(data) // 2, len(data) - 1):
        sender = Sender(module_world, "PUT", href, f"Content-Length: {len(data)}") if what == "object" else \
            Sender(module_world, "POST", COMMIT, f"Content-Length: {len(body)}", who="writer")
        payload = data if what == "object" else body
        sender.send(payload[:part * len(payload) // len(data)])
        for pid in module_world.nginx.workers():
            module_world.nginx.kill_worker(pid)
        assert sender.answer()[0] == 0
    assert state(module_world) == before
    if what == "object":
        assert module_world.get(href, None, "PUT", body=data).status == 200
    else:
        assert module_world.get(COMMIT, "writer", "POST", body=body, timeout=60).status == 200
