"""The cache's disk fails: kinds of failure, and what goes on meanwhile.

    make diskfaults            all of it
    make e2e                   a short form

For each kind there is a world with one file held, one in mid-fill, and the failure begins.  Then: what is held is served; the
fill ends right or as a clean cut; what is new comes right, or is refused with 503 and Retry-After, never wrong, never 404.
When the disk is well again everything works in the same processes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from conftest import COUNTS, open_folder
from downloads import GRANULE, MIB, Download, blob, forget, fresh, sha256, slice_of, whole

from tests.lab import procs
from tests.lab.faultdisk import FaultDisk
from tests.lab.hubctl import HubProcess
from tests.lab.nginx import give
from tests.lab.world import World

ALL = os.environ.get("FAULTS") == "all"
SETTINGS = {"upstream.stall_timeout": "2s"}
EIO, ENOSPC, EROFS, EDQUOT, EMFILE = errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EMFILE


# --- disks

@contextlib.contextmanager
def mounted(options: str) -> Iterator[Path]:
    """A tmpfs of its own; where mounting is refused the test is skipped, and says so."""
    folder = open_folder("hubgate-e2e-disk-")
    run = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hubgate-e2e", str(folder)], capture_output=True, text=True)
    if run.returncode:
        folder.rmdir()
        pytest.skip(f"NOT RUN: no tmpfs can be mounted here: {run.stderr.strip()}")
    try:
        give(folder)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)       # its nginx ends after the test
        folder.rmdir()


class Disk:
    """What fails, from `begin` to `end`."""

    def __init__(self, cache: Path | None, faults: FaultDisk | None, begin: Callable[[World], None], end: Callable[[World], None]) -> None:
        self.cache, self.faults, self.begin, self.end = cache, faults, begin, end


def ballast(world: World) -> None:
    """Takes all the room that is left."""
    fd = os.open(world.nginx.cache / "ballast", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(fd, b"\0" * 65536):
            pass
    os.close(fd)


@contextlib.contextmanager
def full() -> Iterator[Disk]:
    with mounted("size=160m,mode=0750") as folder:
        yield Disk(folder, None, ballast, lambda world: (world.nginx.cache / "ballast").unlink())


@contextlib.contextmanager
def no_inodes() -> Iterator[Disk]:
    def begin(world: World) -> None:
        (world.nginx.cache / "many").mkdir()
        with contextlib.suppress(OSError):
            for number in range(1000):
                (world.nginx.cache / "many" / str(number)).touch()
    with mounted("size=160m,mode=0750,nr_inodes=200") as folder:
        yield Disk(folder, None, begin, lambda world: shutil.rmtree(world.nginx.cache / "many"))


def failing(*rules: tuple[str, str, int]) -> Callable[[], contextlib.AbstractContextManager[Disk]]:
    @contextlib.contextmanager
    def make() -> Iterator[Disk]:
        folder = open_folder("hubgate-e2e-faultdisk-")
        faults = FaultDisk(folder)
        try:
            yield Disk(None, faults, lambda world: faults.fail(*rules), lambda world: faults.heal())
        finally:
            shutil.rmtree(folder)
    return make


def removed(*names: str) -> Callable[[], contextlib.AbstractContextManager[Disk]]:
    """Somebody removes folders of the cache; nobody puts them back."""
    @contextlib.contextmanager
    def make() -> Iterator[Disk]:
        def begin(world: World) -> None:
            for name in names:
                for path in [world.nginx.cache / name] if name else list(world.nginx.cache.iterdir()):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield Disk(None, None, begin, lambda world: None)
    return make


def all_writes(error: int) -> list[tuple[str, str, int]]:
    return [(call, "/cache/", error) for call in ("create", "write", "pwrite", "fallocate", "ftruncate", "link", "unlink", "mkdir", "rename")]


PARTS, BLOBS, TMP, INDEX = "/cache/parts/", "/cache/blobs/", "/cache/tmp/", "/cache/index/"
KINDS: dict[str, Callable[[], contextlib.AbstractContextManager[Disk]]] = {
    "a full disk": full,
    "no inodes": no_inodes,
    "EIO of all writes": failing(*all_writes(EIO)),
    "read-only": failing(*all_writes(EROFS)),
    "a quota": failing(("pwrite", PARTS, EDQUOT), ("write", TMP, EDQUOT)),
    "EIO: pwrite of a part": failing(("pwrite", PARTS, EIO)),
    "EIO: fdatasync of a part": failing(("fdatasync", PARTS, EIO)),
    "EIO: link of a blob": failing(("link", BLOBS, EIO)),
    "EIO: fsync of a folder": failing(("fdatasync", "/cache/blobs", EIO)),
    "EIO: a part read back": failing(("pread", PARTS, EIO)),
    "EIO: a part sent": failing(("sendfile", PARTS, EIO)),
    "EIO: making a part": failing(("create", PARTS, EIO)),
    "ENOSPC: fallocate of a map": failing(("fallocate", PARTS, ENOSPC)),
    "ENOSPC: mkdir": failing(("mkdir", BLOBS, ENOSPC)),
    "EIO: small files written": failing(("write", TMP, EIO), ("create", TMP, EIO)),
    "EMFILE: open": failing(("open", PARTS, EMFILE), ("open", TMP, EMFILE)),
    "EIO: statvfs": failing(("statvfs", "/cache", EIO)),
    "ENOSPC: the index": failing(("pwrite", INDEX, ENOSPC), ("write", INDEX, ENOSPC)),
    "EIO: the index": failing(("pwrite", INDEX, EIO), ("write", INDEX, EIO)),
    "EIO: fdatasync of the index": failing(("fdatasync", INDEX, EIO)),
    "parts/ removed": removed("parts"),
    "blobs/ removed": removed("blobs"),
    "tmp/ removed": removed("tmp"),
    "index/ removed": removed("index"),
    "all of the cache removed": removed(""),
}
SHORT = ("a full disk", "no inodes", "read-only", "EIO: pwrite of a part", "EIO: fdatasync of a part", "ENOSPC: the index", "all of the cache removed")


# --- what goes on meanwhile

def fine(client: Download, facts: dict, what: str) -> None:
    """Right, a clean cut, or an outage that says so; never wrong, never a refusal that a client takes as final."""
    COUNTS["disk faults: kinds x operations"] += 1
    body = bytes(client.body)
    if client.status in (200, 206):
        start = int(client.headers.get("content-range", "bytes 0-").split()[1].split("-")[0])
        assert body == slice_of(facts, start, start + len(body)), f"{what}: wrong bytes"
    else:
        assert client.status == 503 and int(client.headers["retry-after"]) >= 1, (what, client.status, body[:300])
        assert "error" in json.loads(body) and "x-error-code" not in client.headers, (what, body[:300])


def right(world: World, target: str, facts: dict) -> bool:
    client = Download(world, target).done()
    assert client.status in (200, 503), (target, client.status, bytes(client.body[:300]))
    assert client.status != 200 or not client.clean or client.sha256 == facts["sha256"]
    return client.status == 200 and client.clean


@pytest.mark.parametrize("kind", list(KINDS) if ALL else SHORT)
def test_the_disk_fails(make_world: Callable[..., World], hub: HubProcess, kind: str) -> None:
    with KINDS[kind]() as disk:
        world = make_world(private={}, settings=SETTINGS, cache=disk.cache, nginx_env=disk.faults.env if disk.faults else None)
        world.expect_log(r"\[(alert|crit)\].*(sendfile|pread|open)\(\)? ?.*failed", min=0)
        held, large, small = fresh(hub, 2 * MIB), fresh(hub, 24 * MIB), fresh(hub, 300_000)
        new = [fresh(hub, 3 * MIB + 5), fresh(hub, 200_000), fresh(hub, 6 * MIB)]
        for facts in (held, small):
            assert world.get(facts["main"], "reader").status == 200
        whole(world, held)
        hub.wait_idle()
        hub.fault(large["sha256"], host="cdn", rate_bytes_per_s=6 * MIB)
        filling = Download(world, large["main"]).has(3 * MIB)
        workers = world.nginx.workers()

        disk.begin(world)
        for facts, what in ((held, "a held large file"), (small, "a held small file")):
            client = Download(world, facts["main"]).done()
            fine(client, facts, what)
            assert client.clean and client.status == 200 or "removed" in kind, what
        fine(Download(world, new[0]["main"]).done(), new[0], "a new large file")
        fine(Download(world, new[1]["main"]).done(), new[1], "a new small file")
        fine(Download(world, new[2]["main"], headers={"Range": f"bytes={4 * MIB}-{4 * MIB + 99}"}).done(), new[2], "a range of a new file")
        for target in (f"/api/models/{new[0]['repo']}", f"/api/models/{new[0]['repo']}/tree/main"):
            answer = world.get(target, "reader")
            COUNTS["disk faults: kinds x operations"] += 1
            assert answer.status == 200 or (answer.status == 503 and int(answer["retry-after"]) >= 1), (target, answer.status, answer.text)
        assert world.get("/api/whoami-v2", "reader").status == 200
        assert world.mint("stranger")                         # data/ is another disk
        fine(filling.done(), large, "a fill under way")
        COUNTS["disk faults: kinds"] += 1

        hub.heal()
        disk.end(world)
        for facts in (held, small, large, *new):
            procs.wait_until(f"{facts['size']} bytes, once the disk is well", lambda: right(world, facts["main"], facts), 90, every=0.3)
        for facts in (held, large, *new):
            path = whole(world, facts)
            assert sha256(path.read_bytes()) == facts["sha256"]
            forget(facts)
        assert world.nginx.workers() == workers, "a worker was lost"
        procs.wait_until("no part is left", lambda: not list((world.nginx.cache / "parts").glob("*.part")), 60)
        hub.reset_stats()
        assert right(world, large["main"], large) and hub.content_bytes() == 0


# --- a start on a full disk

def started_full(world: World, lose: Callable[[Path], None]) -> tuple[dict, Path]:
    """Stop it, lose something of its cache, fill the disk and start it again; one file is held."""
    held = fresh(world.hub, 2 * MIB)
    assert world.get(held["main"], "reader").status == 200
    whole(world, held)
    assert world.nginx.stop()
    lose(world.nginx.cache)
    ballast(world)
    world.nginx.start()
    return held, world.nginx.cache / "ballast"


def new_lock(cache: Path) -> None:
    (cache / "index" / "lock.mdb").unlink()


def no_index(cache: Path) -> None:
    shutil.rmtree(cache / "index")


def a_boot(cache: Path) -> None:
    (cache / "boot").unlink()
    (cache / "index" / "lock.mdb").unlink()


@pytest.mark.parametrize("lose", (new_lock, no_index, a_boot) if ALL else (new_lock, a_boot))
def test_start_on_a_full_disk(make_world: Callable[..., World], hub: HubProcess, lose: Callable[[Path], None]) -> None:
    """LMDB maps a lock file that it made with a hole: without room its first write there would be a SIGBUS."""
    with mounted("size=64m,mode=0750") as folder:
        world = make_world(private={}, workers=2, cache=folder)
        held, filler = started_full(world, lose)
        workers = world.nginx.workers()
        world.expect_log(r"index: .*no space", min=0)
        client = Download(world, held["main"]).done()
        fine(client, held, "a held file")
        new = fresh(hub, 3 * MIB)
        fine(Download(world, new["main"]).done(), new, "a new file")
        filler.unlink()
        for facts in (held, new):
            procs.wait_until("what is asked, once there is room", lambda: right(world, facts["main"], facts), 60, every=0.3)
            whole(world, facts)
        assert world.nginx.workers() == workers, "a worker was lost"
        forget(held)
        forget(new)
