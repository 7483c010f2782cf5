"""Files that are held, but on disk and not in memory: reading them holds up nobody else; one reader never owns a worker.

The worker runs with tests/lab/slow_disk.c in LD_PRELOAD, a disk that hangs or fails as a test says."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.lab import procs
from tests.lab.fetch import fetch
from tests.lab.hubctl import HubProcess
from tests.lab.nginx import give
from tests.lab.preload import preload
from tests.lab.slapd import Slapd
from tests.lab.world import World

from clients import run
from downloads import MIB, Download, blob, fresh, sha256, slice_of, whole

SMALL = "/demo/tiny-llm/resolve/main/config.json"
PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)


def pages_in_memory(path: Path) -> list[bool]:
    """Of each page of a file."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * (size // PAGE + 1))()
    LIBC.mmap.restype = ctypes.c_void_p
    with open(path, "rb") as file:
        at = LIBC.mmap(None, ctypes.c_size_t(size), 1, 1, file.fileno(), ctypes.c_long(0))
        assert at not in (None, ctypes.c_void_p(-1).value)
        try:
            assert LIBC.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), pages) == 0
        finally:
            LIBC.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    return [bool(pages[i] & 1) for i in range((size + PAGE - 1) // PAGE)]


def flush_sockets() -> None:
    """Pages that were sent stay pinned until the network code of the processor that freed them runs again."""
    mine = os.sched_getaffinity(0)
    try:
        for processor in mine:
            os.sched_setaffinity(0, {processor})
            with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one, server.accept()[0] as other:
                one.sendall(b"x")
                assert other.recv(1) == b"x"
    finally:
        os.sched_setaffinity(0, mine)


def evict(path: Path, first: int = 0) -> None:
    """Take the pages of a file, from an offset on, out of memory."""
    def gone() -> bool:
        flush_sockets()
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), first, 0, os.POSIX_FADV_DONTNEED)
        return not any(pages_in_memory(path)[first // PAGE:])
    for _ in range(3):
        try:
            procs.wait_until("the pages to go", gone, 4)
            return
        except procs.LabError:                               # somebody (a socket, another CPU's list) still holds a page of this inode
            stat, copy = path.stat(), path.with_suffix(".copy")
            shutil.copyfile(path, copy)
            os.chown(copy, stat.st_uid, stat.st_gid)
            copy.chmod(stat.st_mode & 0o7777)
            copy.rename(path)
    procs.wait_until("the pages to go", gone)


class Disk:
    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder

    def hang(self) -> None:
        (self.folder / "hang").touch()

    def fail(self) -> None:
        (self.folder / "fail").touch()

    def heal(self) -> None:
        for name in ("hang", "fail"):
            (self.folder / name).unlink(missing_ok=True)

    def most_in_a_turn(self) -> int:
        return int((self.folder / "turn").read_text())


@pytest.fixture
def disk(make_world: Callable[..., World], hub: HubProcess, slapd: Slapd) -> Iterator[Disk]:
    """A world of one worker on such a disk."""
    folder = Path(tempfile.mkdtemp(prefix="slow-disk-"))
    folder.chmod(0o755)
    give(folder)
    world = make_world(tls=True, roles=["reader"], private={}, nginx_env=preload("slow_disk", {"SLOW_DISK": str(folder)}))
    found = Disk(world, folder)
    yield found
    found.heal()


def held(world: World, hub: HubProcess, size: int) -> tuple[dict[str, Any], Path]:
    facts = fresh(hub, size)
    assert Download(world, facts["target"]).done().sha256 == facts["sha256"]
    return facts, whole(world, facts)


def others_are_served(world: World, warm: dict[str, Any]) -> None:
    """A small file, a large one, a document: over each protocol."""
    assert world.get(SMALL, "reader").status == 200
    assert world.get("/api/models/demo/tiny-llm", "reader").status == 200
    assert sha256(world.get(warm["target"], "reader").body) == warm["sha256"]
    assert sha256(fetch(str(world.tls_url), warm["target"], headers=world.headers("reader"), ca_file=world.ca.file).body) == warm["sha256"]


def metric(world: World, name: str) -> int:
    return next(int(line.split()[1]) for line in world.get("/-/metrics").text.splitlines() if line.startswith(name + " "))


@pytest.mark.parametrize("from_byte", [0, 9 * MIB])
def test_a_hanging_disk_holds_up_who_needs_it(disk: Disk, hub: HubProcess, from_byte: int) -> None:
    world = disk.world
    warm, _ = held(world, hub, 3 * MIB)
    cold, path = held(world, hub, 16 * MIB + 77)
    world.get(SMALL, "reader"), world.get("/api/models/demo/tiny-llm", "reader")
    evict(path, from_byte)
    disk.hang()
    reader = Download(world, cold["target"])
    ranged = Download(world, cold["target"], headers={"Range": f"bytes={10 * MIB}-{10 * MIB + 9}"})
    procs.wait_until("two that wait", lambda: metric(world, "hubgate_requests_parked") == 2)
    reader.has(from_byte // (2 * MIB) * 2 * MIB)         # the windows that were there (tcp_nopush keeps a last segment for 200 ms)
    for _ in range(3):
        others_are_served(world, warm)
    assert reader.is_alive() and ranged.is_alive() and not ranged.body and len(reader.body) <= from_byte
    disk.heal()
    assert reader.done().sha256 == cold["sha256"] and reader.clean
    assert ranged.done().status == 206 and bytes(ranged.body) == slice_of(cold, 10 * MIB, 10 * MIB + 10)
    assert metric(world, "hubgate_cold_reads_total") >= 2
    assert all(pages_in_memory(path)[from_byte // PAGE:])


def test_a_small_file_on_a_hanging_disk(disk: Disk, hub: HubProcess) -> None:
    world = disk.world
    warm, _ = held(world, hub, 3 * MIB)
    small = hub.file("demo/tiny-llm", "config.json")
    body = world.get(SMALL, "reader").body
    evict(blob(world, small["oid"]))
    disk.hang()
    reader = Download(world, SMALL)
    procs.wait_until("one that waits", lambda: metric(world, "hubgate_requests_parked") == 1)
    assert sha256(world.get(warm["target"], "reader").body) == warm["sha256"]
    assert not reader.body
    disk.heal()
    assert bytes(reader.done().body) == body and reader.clean


@pytest.mark.parametrize("protocol", ["https", "http2"])
def test_over_tls_and_http2(disk: Disk, hub: HubProcess, tmp_path: Path, protocol: str) -> None:
    world = disk.world
    if protocol == "http2":
        world.nginx.conf.write_text(world.nginx.conf.read_text().replace(" ssl reuseport;", " ssl http2 reuseport;"))
        world.nginx.reload()
    warm, _ = held(world, hub, 3 * MIB)
    cold, path = held(world, hub, 12 * MIB)
    world.get(SMALL, "reader"), world.get("/api/models/demo/tiny-llm", "reader")
    evict(path, 5 * MIB)
    disk.hang()
    curl = subprocess.Popen(["curl", "-sf", "--cacert", str(world.ca.file), "-H", f"Authorization: Bearer {world.tokens['reader']}", "-o", str(tmp_path / "cold"),
                             "--http2" if protocol == "http2" else "--http1.1", f"{world.tls_url}{cold['target']}"])
    procs.wait_until("one that waits", lambda: metric(world, "hubgate_requests_parked") == 1)
    others_are_served(world, warm)
    assert curl.poll() is None
    disk.heal()
    assert curl.wait(60) == 0 and sha256((tmp_path / "cold").read_bytes()) == cold["sha256"]


def test_several_ranges_of_a_cold_file(disk: Disk, hub: HubProcess) -> None:
    world = disk.world
    warm, _ = held(world, hub, 3 * MIB)
    cold, path = held(world, hub, 16 * MIB)
    world.get(SMALL, "reader"), world.get("/api/models/demo/tiny-llm", "reader")
    evict(path)
    disk.hang()
    reader = Download(world, cold["target"], headers={"Range": f"bytes=5-9,{9 * MIB}-{9 * MIB + 3},-7"})
    procs.wait_until("one that waits", lambda: metric(world, "hubgate_requests_parked") == 1)
    others_are_served(world, warm)
    assert not reader.status
    disk.heal()
    body = bytes(reader.done().body)
    assert reader.status == 206 and reader.clean and "multipart/byteranges" in reader.headers["content-type"]
    for first, end in ((5, 10), (9 * MIB, 9 * MIB + 4), (16 * MIB - 7, 16 * MIB)):
        assert f"bytes {first}-{end - 1}/{16 * MIB}\r\n\r\n".encode() + slice_of(cold, first, end) in body


def test_a_client_that_leaves_while_it_waits(disk: Disk, hub: HubProcess) -> None:
    world = disk.world
    cold, path = held(world, hub, 6 * MIB)
    evict(path)
    disk.hang()
    reader = Download(world, cold["target"])
    procs.wait_until("one that waits", lambda: metric(world, "hubgate_requests_parked") == 1)
    reader.leave()
    procs.wait_until("none", lambda: metric(world, "hubgate_requests_parked") == 0)
    disk.heal()
    assert Download(world, cold["target"]).done().sha256 == cold["sha256"]


def test_a_disk_that_fails(disk: Disk, hub: HubProcess) -> None:
    """503 before the first byte, else the connection is cut; never wrong bytes. Read again when the disk is well."""
    world = disk.world
    world.expect_log(r"\[warn\].*(the answer is cut|job bring): file .*read: Input/output error", min=1)
    cold, path = held(world, hub, 8 * MIB)
    evict(path, 4 * MIB)
    disk.fail()
    assert world.get(cold["target"], "reader", headers={"Range": f"bytes={6 * MIB}-"}).status == 503
    reader = Download(world, cold["target"]).done()
    assert reader.status == 200 and not reader.clean and bytes(reader.body) == slice_of(cold, 0, len(reader.body))
    disk.heal()
    assert Download(world, cold["target"]).done().sha256 == cold["sha256"]


def test_one_fast_reader_never_owns_a_worker(disk: Disk, hub: HubProcess) -> None:
    """However fast the client takes it: at most a window between two looks at all the others."""
    world = disk.world
    facts, _ = held(world, hub, 200 * MIB)
    for _ in range(2):
        done = run(["curl", "-sf", "-H", f"Authorization: Bearer {world.tokens['reader']}", "-o", "/dev/null", "-w", "%{size_download}", world.url + facts["target"]])
        assert done.out == str(200 * MIB)
    assert 0 < disk.most_in_a_turn() <= 2 * MIB
