"""`hubgate repo gc` again and again while writers upload and commit, through two nodes: nothing that was acknowledged goes.

    make gcrace N=60      so many uploads and commits of each of the 4 writers
    make e2e              a few
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Callable

import pytest
from conftest import COUNTS, open_folder

from tests.lab import procs
from tests.lab.nginx import give
from tests.lab.world import World

pytestmark = pytest.mark.timeout(3600 if os.environ.get("N") else 300)
TURNS = int(os.environ.get("N", "8"))
JSON = {"Content-Type": "application/json"}


def put_object(world: World, repo: str, data: bytes) -> None:
    oid = hashlib.sha256(data).hexdigest()
    ask = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": len(data)}]}
    got = world.get(f"/{repo}.git/info/lfs/objects/batch", "writer", "POST", body=json.dumps(ask).encode(), headers=JSON)
    assert got.status == 200, got.text
    if actions := got.json()["objects"][0].get("actions"):
        href = actions["upload"]["href"]
        got = world.get(href[href.index("/-/"):], None, "PUT", body=data)
        assert got.status == 200, got.text


def commit(world: World, repo: str, path: str, data: bytes) -> tuple[int, str]:
    value = {"path": path, "algo": "sha256", "oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    body = b'{"key":"header","value":{"summary":"s"}}\n' + json.dumps({"key": "lfsFile", "value": value}).encode()
    got = world.get(f"/api/models/{repo}/commit/main", "writer", "POST", body=body)
    return got.status, got.text


class Writer(threading.Thread):
    def __init__(self, world: World, number: int) -> None:
        super().__init__()
        self.world, self.number, self.dice = world, number, random.Random(number)
        self.files: dict[tuple[str, str], bytes] = {}
        self.unused: list[str] = []
        self.again, self.failure = 0, ""

    def run(self) -> None:
        try:
            for turn in range(TURNS):
                self.turn(turn)
        except Exception as error:
            self.failure = repr(error)

    def turn(self, turn: int) -> None:
        repo = f"acme/gc-{self.number % 2}"
        # every third object is the one that another writer's repository may have, or had, too
        data = f"shared {turn}".encode() * 50 if turn % 3 == 0 else self.dice.randbytes(self.dice.randrange(1000, 60000))
        for _ in range(50):
            put_object(self.world, repo, data)
            if turn % 4 == 3:
                self.unused.append(hashlib.sha256(data).hexdigest())
                return
            status, text = commit(self.world, repo, f"w{self.number}/{turn}.bin", data)
            if status == 200:
                self.files[(repo, f"w{self.number}/{turn}.bin")] = data
                return
            assert status == 409 or (status == 400 and "upload it first" in text), (status, text)    # it went before it was named
            self.again += 1
        raise AssertionError("never in time")


def test_beside_writers(make_world: Callable[..., World]) -> None:
    first = make_world(people="file", workers=2, private={})
    second = make_world(node_of=first, workers=1)
    for number in range(2):
        first.cli("repo", "create", f"acme/gc-{number}")
    writers = [Writer((first, second)[number % 2], number) for number in range(4)]
    for each in writers:
        each.start()
    rounds, gone = 0, 0
    while any(each.is_alive() for each in writers):
        done = json.loads(first.cli("repo", "gc", "--grace", "1s", "--json").stdout)
        assert done["failed"] == 0 and not done["objects_kept"], done
        rounds, gone = rounds + 1, gone + done["objects"] + done["links"]
    for each in writers:
        each.join()
    assert not [each.failure for each in writers if each.failure], [each.failure for each in writers]
    named = {hashlib.sha256(data).hexdigest() for each in writers for data in each.files.values()}
    unused = {oid for each in writers for oid in each.unused} - named

    def left() -> set[str]:
        first.cli("repo", "gc", "--grace", "1s")
        return {path.name for path in (first.nginx.data / "lfs").glob("??/??/*")}
    procs.wait_until("the end of all that is not used", lambda: left() == named)
    assert unused and not unused & left()
    check = first.cli("repo", "fsck", "--deep")
    assert check.stdout == "2 repositories, 0 findings\n", check.stdout
    for each in writers:
        for (repo, path), data in each.files.items():
            procs.wait_until(path, lambda: each.world.get(f"/{repo}/resolve/main/{path}", "reader").body == data)
    COUNTS["gcrace: rounds of gc"] += rounds
    COUNTS["gcrace: objects and links that went meanwhile"] += gone
    COUNTS["gcrace: commits"] += sum(len(each.files) for each in writers)
    COUNTS["gcrace: refused, and uploaded again"] += sum(each.again for each in writers)


def test_backup_beside_writers(make_world: Callable[..., World]) -> None:
    """The copy of docs/operations.md, taken while writers write, is whole: what was acknowledged before it began is in it."""
    world = make_world(people="file", workers=2, private={})
    for number in range(2):
        world.cli("repo", "create", f"acme/gc-{number}")
    writers = [Writer(world, number) for number in range(4)]
    writers[0].run()
    assert not writers[0].failure, writers[0].failure
    before = dict(writers[0].files)
    for each in writers[1:]:
        each.start()
    data, copy = world.nginx.data, open_folder("hubgate-e2e-backup-") / "data"
    copy.mkdir()
    for step in backup_steps(data, copy):                # as the page has it
        run = subprocess.run(["bash", "-c", step], capture_output=True, text=True)
        assert run.returncode in (0, 24), (step, run.stderr)        # 24: files that vanished meanwhile
    writing = sum(each.is_alive() for each in writers[1:])
    for each in writers[1:]:
        each.join()
    assert not [each.failure for each in writers if each.failure], [each.failure for each in writers]
    world.nginx.stop()
    shutil.rmtree(data)
    shutil.copytree(copy, data, symlinks=True, copy_function=shutil.copy2)          # without hard links: the worst that a restore does
    give(data)
    world.nginx.drop_cache()
    check = world.cli("repo", "fsck", "--deep", check=False)
    assert all("is a copy, no link" in line for line in check.stdout.splitlines()[:-1]), check.stdout
    shutil.rmtree(data)
    subprocess.run(["cp", "-a", str(copy), str(data)], check=True)
    give(data)
    check = world.cli("repo", "fsck", "--deep")
    assert check.stdout == "2 repositories, 0 findings\n", check.stdout
    world.nginx.start()
    for (repo, path), content in before.items():
        assert world.get(f"/{repo}/resolve/main/{path}", "reader").body == content
    assert world.get("/api/whoami-v2", "writer").status == 200
    shutil.rmtree(copy.parent)
    COUNTS["backup: writers that were still at it"] += writing


def backup_steps(data: Path, copy: Path) -> list[str]:
    """The commands of docs/operations.md, for other folders."""
    page = (procs.ROOT / "docs/operations.md").read_text().split("## Backup")[1].split("\n## ")[0]
    steps = [line[4:].split("   #")[0] for line in page.splitlines() if line.startswith("    rsync ")]
    assert len(steps) == 2
    return [step.replace("/var/lib/hubgate/", f"{data}/").replace("/backup/", f"{copy}/") for step in steps]
