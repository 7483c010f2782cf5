"""Rows of writing: an upload beside nginx's own PUT, commits beside their bare fsyncs, a large repository, others during an upload."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Iterator
from urllib.parse import urlsplit

from tests.lab import procs
from tests.lab.nginx import Nginx, give
from tests.lab.world import ORG

from .measure import Measured, Pairs, cpu_seconds, load, quartiles
from .scene import GIB, MIB, SMALL, Scene
from .table import Table

# What one commit of one small file makes durable, by `strace -f -y -e trace=fsync,fdatasync`: pack, its index, the ref, a record of the index; folders of
# the pack while it is made (twice) and when it is there, and of the ref
COMMIT_SYNCS = {"files": 4, "folders": 4}
MANY = 50_000


class Writer:
    """One connection that goes on, as the clients' are."""

    def __init__(self, scene: Scene) -> None:
        self.world = scene.stage.world
        self.connection = http.client.HTTPConnection(urlsplit(self.world.url).netloc, timeout=120)

    def ask(self, method: str, target: str, body: bytes | Iterator[bytes], kind: str = "application/json") -> dict:
        self.connection.request(method, target, body, {**self.world.headers("writer"), "Content-Type": kind})
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise procs.LabError(f"{method} {target}: {answer.status} {said[:200]!r}")
        return json.loads(said)

    def create(self, name: str) -> str:
        self.ask("POST", "/api/repos/create", json.dumps({"name": name, "organization": ORG}).encode())
        return f"{ORG}/{name}"

    def commit(self, repo: str, files: Iterator[tuple[str, bytes]]) -> None:
        """A body of unknown length: it need not be in memory."""
        def lines() -> Iterator[bytes]:
            yield b'{"key":"header","value":{"summary":"s"}}\n'
            for path, data in files:
                yield json.dumps({"key": "file", "value": {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}}).encode() + b"\n"
        self.ask("POST", f"/api/models/{repo}/commit/main", lines(), "application/x-ndjson")

    def address(self, repo: str, oid: str, size: int) -> str:
        """Where this object goes."""
        asked = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]}
        said = self.ask("POST", f"/{repo}.git/info/lfs/objects/batch", json.dumps(asked).encode(), "application/vnd.git-lfs+json")
        return said["objects"][0]["actions"]["upload"]["href"]


def put(url: str, file: Path) -> float:
    """Seconds until the answer."""
    begin = time.monotonic()
    done = subprocess.run(["curl", "-sS", "-f", "-T", str(file), "-o", "/dev/null", url], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"PUT {url}: {done.stderr}")
    return time.monotonic() - begin


def upload(scene: Scene, table: Table) -> None:
    """A GiB that nobody has sent before, until the answer: hashed, synced and linked here, renamed there."""
    w, writer, size = scene.stage.world, Writer(scene), GIB
    repo, file, dav = writer.create("upload"), scene.folder / "gib", scene.folder / "dav"
    (dav / "files").mkdir(parents=True)
    (dav / "temp").mkdir()
    give(dav)
    nginx = Nginx(scene.folder / "dav-nginx", 2, hubgate=False, server_extra=f"""
        location / {{ root {dav}/files; client_body_temp_path {dav}/temp; client_max_body_size 0; dav_methods PUT; }}""")
    nginx.write_conf()
    nginx.start()
    with open(scene.files / "big", "rb") as source, open(file, "wb") as out:
        shutil.copyfileobj(source, out, 8 * MIB)

    def hubgate() -> Measured:
        with open(file, "r+b") as out:
            out.write(os.urandom(16))
        with open(file, "rb") as data:
            oid = hashlib.file_digest(data, "sha256").hexdigest()
        href, before = writer.address(repo, oid, size), cpu_seconds(w.nginx.workers())
        took = put(href, file)
        cpu = cpu_seconds(w.nginx.workers()) - before
        for top in (w.nginx.data / "lfs", w.nginx.data / f"repos/model/{repo}.git/lfs/objects", w.nginx.cache / "blobs"):
            (top / oid[:2] / oid[2:4] / oid).unlink(missing_ok=True)
        os.sync()
        return {"per_s": size / took, "cpu": cpu}

    def static() -> Measured:
        before = cpu_seconds(nginx.workers())
        took = put(nginx.url + "/x", file)
        cpu = cpu_seconds(nginx.workers()) - before
        (dav / "files" / "x").unlink()
        os.sync()
        return {"per_s": size / took, "cpu": cpu}
    try:
        pairs = Pairs({"hubgate": hubgate, "dav": static}, scene.rounds(11, 3), scene.seconds(180, 25)).run()
        memory = max(int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024 for pid in w.nginx.workers())
        note = ", ".join(f"{name} {pairs.median(name, 'per_s') / MIB:.0f} MiB/s, {pairs.median(name, 'cpu'):.2f} CPU s" for name in pairs.variants)
        table.add("LFS PUT of 1 GiB, sha256 and fsync: throughput", pairs, "per_s", ">= 0.6", against="dav", words="nginx dav PUT", note=note)
        table.put("LFS PUT of 1 GiB: memory of a worker, at most", "-", "MiB", (memory, memory, memory), 1, "<= 128")
    finally:
        nginx.stop()
        shutil.rmtree(dav)
        file.unlink()


def commits(scene: Scene, table: Table) -> None:
    """One writer, one small file a commit; and the fsyncs of that, on files of the same size, by themselves."""
    writer, seconds, number = Writer(scene), scene.seconds(5, 2), 0
    repo, place = writer.create("series"), scene.folder / "syncs"
    place.mkdir()

    def rate(once: Callable[[], None]) -> Measured:
        begin, done = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            once()
            done += 1
        return {"per_s": done / (time.monotonic() - begin)}

    def commit() -> None:
        nonlocal number
        number += 1
        writer.commit(repo, iter([(f"dir-{number % 10}/notes.txt", b"commit %d\n" % number)]))

    def syncs() -> None:
        nonlocal number
        number += 1
        for each in range(COMMIT_SYNCS["files"]):
            fd = os.open(place / f"{number}-{each}", os.O_WRONLY | os.O_CREAT)
            os.write(fd, bytes(1024))
            os.fsync(fd)
            os.close(fd)
        for each in range(COMMIT_SYNCS["folders"]):
            os.link(place / f"{number}-0", place / f"{number}-link-{each}")          # something to be made durable
            fd = os.open(place, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
    pairs = Pairs({"hubgate": lambda: rate(commit), "fsyncs": lambda: rate(syncs)}, scene.rounds(11, 3), scene.seconds(150, 20)).run()
    table.add("durable commits, one writer: per second", pairs, "per_s", ">= 0.5", against="fsyncs", words="its bare fsyncs",
              note=f"a commit syncs {COMMIT_SYNCS['files']} files and {COMMIT_SYNCS['folders']} folders")
    shutil.rmtree(place)


def large_repository(scene: Scene, table: Table) -> None:
    """One file more in 50,000."""
    writer, number = Writer(scene), 0
    repo = writer.create("large")
    writer.commit(repo, ((f"folder-{at % 50}/{at:06}.txt", b"%d\n" % at) for at in range(MANY)))

    def one() -> Measured:
        nonlocal number
        number += 1
        begin = time.monotonic()
        writer.commit(repo, iter([(f"folder-{number % 50}/more-{number}.txt", b"more\n")]))
        return {"wall": time.monotonic() - begin}
    pairs = Pairs({"hubgate": one}, scene.rounds(11, 5), scene.seconds(60, 10)).run()
    table.add(f"commit of one file into {MANY:,}: time", pairs, "wall", "<= 1", unit="s")


class HttpBackend(threading.Thread):
    """git http-backend for nginx's scgi_pass: a connection is its stdin and stdout, so nothing is copied on the way."""

    def __init__(self, path: Path, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.listener = root, socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        give(path)
        self.listener.listen(16)
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:                          # closed: the end
                return
            with connection:
                subprocess.Popen(["git", "http-backend"], stdin=connection, stdout=connection, stderr=subprocess.DEVNULL,
                                 env=self.variables(connection)).wait()

    def variables(self, connection: socket.socket) -> dict[str, str]:
        """The head of an SCGI request, and not a byte more."""
        digits = b""
        while not digits.endswith(b":"):
            digits += connection.recv(1)
        head = b""
        while len(head) < int(digits[:-1]) + 1:
            head += connection.recv(int(digits[:-1]) + 1 - len(head))
        words = head[:-1].decode().split("\0")
        given = dict(zip(words[0::2], words[1::2]))
        return {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "HOME": str(self.root),
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*", **given}


def clone(scene: Scene, table: Table) -> None:
    """What is in git itself (no large objects): files of 8 MiB that do not compress."""
    w, writer, size = scene.stage.world, Writer(scene), scene.rounds(GIB, 256 * MIB)
    repo, sock = writer.create("clone"), scene.folder / "scgi"
    writer.commit(repo, ((f"part-{at:03}.txt", os.urandom(8 * MIB)) for at in range(size // (8 * MIB))))
    backend = HttpBackend(sock, w.nginx.data / "repos/model")
    names = {"PATH_INFO": "$uri", "QUERY_STRING": "$args", "REQUEST_METHOD": "$request_method", "CONTENT_TYPE": "$content_type",
             "CONTENT_LENGTH": "$content_length", "GIT_PROTOCOL": "$http_git_protocol", "HTTP_CONTENT_ENCODING": "$http_content_encoding"}
    nginx = Nginx(scene.folder / "backend", 2, hubgate=False, server_extra=f"""
        location / {{ scgi_pass unix:{sock}; scgi_max_temp_file_size 0; client_max_body_size 0;
            {" ".join(f"scgi_param {name} {value};" for name, value in names.items())} }}""")
    nginx.write_conf()
    nginx.start()

    def run(url: str) -> Measured:
        with tempfile.TemporaryDirectory(dir=scene.folder) as home:
            login = base64.b64encode(f"writer:{w.tokens['writer']}".encode()).decode()
            env = {"PATH": os.environ["PATH"], "HOME": home, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_COUNT": "1",
                   "GIT_CONFIG_KEY_0": "http.extraHeader", "GIT_CONFIG_VALUE_0": f"Authorization: Basic {login}"}
            begin = time.monotonic()
            done = subprocess.run(["git", "clone", "-q", "--bare", url, f"{home}/to"], env=env, capture_output=True, text=True)
            took = time.monotonic() - begin
        if done.returncode:
            raise RuntimeError(f"git clone {url}: {done.stderr[-500:]}")
        return {"per_s": size / took}
    try:
        pairs = Pairs({"hubgate": lambda: run(f"{w.url}/{repo}"), "http-backend": lambda: run(f"{nginx.url}/{repo}.git")},
                      scene.rounds(11, 2), scene.seconds(240, 30)).run()
        note = ", ".join(f"{name} {pairs.median(name, 'per_s') / MIB:.0f} MiB/s" for name in pairs.variants)
        table.add(f"clone of {size // MIB} MiB: throughput", pairs, "per_s", ">= 0.95", against="http-backend", words="git http-backend behind nginx", note=note)
    finally:
        nginx.stop()
        backend.listener.close()


def beside_upload(scene: Scene, table: Table) -> None:
    """The one worker also takes an upload as fast as it comes; it is broken off at the end of a round."""
    w, writer, seconds, rate, size = scene.stage.world, Writer(scene), scene.seconds(4, 2), 500, 10 * GIB
    repo, file, auth = writer.create("beside"), scene.folder / "sparse", scene.stage.auth
    with open(file, "wb") as out:
        out.truncate(size)
    target, tmp = f"{w.url}/{SMALL}/resolve/main/config.json", w.nginx.data / "tmp"

    def under_way() -> int:
        return sum(path.stat().st_size for path in tmp.rglob("*") if path.is_file())

    def run() -> Measured:
        without = load(target, seconds / 2, auth, connections=8, rate=rate)["p99_us"]
        client = subprocess.Popen(["curl", "-sS", "-T", str(file), "-o", "/dev/null", Writer(scene).address(repo, hashlib.sha256(os.urandom(8)).hexdigest(), size)],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            procs.wait_until("the first bytes of the upload", lambda: under_way() > 0)
            begin, had = time.monotonic(), under_way()
            beside = load(target, seconds, auth, connections=8, rate=rate)["p99_us"]
            per_s = (under_way() - had) / (time.monotonic() - begin)
        finally:
            client.terminate()
            client.wait()
        procs.wait_until("the end of the upload", lambda: under_way() == 0, 30)
        return {"without": without, "beside": beside, "per_s": per_s}
    with scene.workers(1):
        pairs = Pairs({"hubgate": run}, scene.rounds(11, 3), scene.seconds(120, 15)).run()
    ratio = quartiles([each["beside"] / each["without"] for each in pairs.results["hubgate"]])
    table.put(f"warm 4 KiB ({rate}/s) beside an upload, 1 worker: p99", "without", "x", ratio, pairs.done, "<= 1.5", raw=pairs.results,
              note=f"{pairs.median('hubgate', 'beside') / 1000:.2f} and {pairs.median('hubgate', 'without') / 1000:.2f} ms; "
                   f"the upload {pairs.median('hubgate', 'per_s') / MIB:.0f} MiB/s")
    file.unlink()


def rows(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    return [("write upload", lambda: upload(scene, table)), ("write commits", lambda: commits(scene, table)),
            ("write clone", lambda: clone(scene, table)),
            ("write large repository", lambda: large_repository(scene, table)), ("write beside upload", lambda: beside_upload(scene, table))]
