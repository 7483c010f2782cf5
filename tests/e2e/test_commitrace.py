"""Many writers commit to one branch at once, through several workers of two nodes with one data/: nothing is lost.

    make commitrace N=200     so many commits of each of the 8 writers
    make e2e                  a few
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

import pytest
from conftest import COUNTS

from tests.lab import procs
from tests.lab.fetch import connect, send
from tests.lab.world import World

pytestmark = pytest.mark.timeout(3600 if os.environ.get("N") else 300)
COMMITS = int(os.environ.get("N", "6"))
WRITERS = 8
REPO = "acme/race"


class Writer(threading.Thread):
    def __init__(self, world: World, number: int) -> None:
        super().__init__()
        self.world, self.number = world, number
        self.repo = world.nginx.data / "repos/model" / f"{REPO}.git"
        self.commits: dict[str, dict[str, bytes]] = {}      # id, and what it wrote
        self.again = 0
        self.failure = ""

    def run(self) -> None:
        try:
            for turn in range(COMMITS):
                self.commit(turn)
        except Exception as error:
            self.failure = repr(error)

    def commit(self, turn: int) -> None:
        """Some name the parent that they saw; who is too late looks again."""
        files = {f"w{self.number}/{turn:03}.txt": f"{self.number} {turn}".encode(), "same.txt": f"{self.number} {turn}".encode()}
        if turn % 5 == 0:
            files[f"w{self.number}/{turn:03}.bin"] = os.urandom(500)        # a large object by the attributes
        for _ in range(1000):
            header = {"summary": f"{self.number} {turn}"}
            if turn % 20 == 3:
                seen = self.world.get(f"/api/models/{REPO}/revision/main", "writer")
                assert seen.status == 200, (seen.status, seen.text)
                header["parentCommit"] = git(self.repo, "rev-parse", "main").strip()            # the other node's are seen here within 2 s
            lines: list[dict] = [{"key": "header", "value": header}]
            lines += [{"key": "file", "value": {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}}
                      for path, data in files.items()]
            connection = connect(self.world.url, 90)                        # anew each time: another worker may take it
            got = send(connection, f"/api/models/{REPO}/commit/main", "POST", self.world.headers("writer"),
                       b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            connection.close()
            if got.status == 200:
                self.commits[got.json()["commitOid"]] = files
                return
            assert got.status in (409, 412), (got.status, got.text)
            self.again += 1
        raise AssertionError("never in time")


def git(repo: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-c", "safe.directory=*", "--git-dir", str(repo), *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_writers(make_world: Callable[..., World]) -> None:
    first = make_world(people="file", workers=2, private={})
    second = make_world(node_of=first, workers=2)
    first.cli("repo", "create", REPO)
    writers = [Writer((first, second)[number % 2], number) for number in range(WRITERS)]
    began = time.monotonic()
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    took = time.monotonic() - began
    assert not [each.failure for each in writers if each.failure], [each.failure for each in writers]
    repo = first.nginx.data / "repos/model" / f"{REPO}.git"
    assert git(repo, "fsck", "--strict", "--full", "--no-dangling") == ""
    history = [line.split() for line in git(repo, "rev-list", "--parents", "main").splitlines()]
    acknowledged = {commit for each in writers for commit in each.commits}
    assert len(acknowledged) == WRITERS * COMMITS and len(history) == WRITERS * COMMITS + 1
    assert all(len(line) == 2 for line in history[:-1]) and len(history[-1]) == 1, "not one line of commits"
    assert acknowledged == {line[0] for line in history[:-1]}
    files = set(git(repo, "ls-tree", "-r", "--name-only", "main").splitlines())
    wanted = {path: data for each in writers for files in each.commits.values() for path, data in files.items() if path != "same.txt"}
    assert files == {*wanted, "same.txt", ".gitattributes"}
    for world in (first, second):
        for path in list(wanted)[:: max(1, len(wanted) // 20)]:
            procs.wait_until(f"{path}", lambda: world.get(f"/{REPO}/resolve/main/{path}", "reader").body == wanted[path])   # 2 s by the docs
    COUNTS["commitrace: commits"] += len(acknowledged)
    COUNTS["commitrace: tried again"] += sum(each.again for each in writers)
    print(f"commitrace: {len(acknowledged)} commits of {WRITERS} writers by 2 nodes of 2 workers in {took:.1f} s, "
          f"{len(list((repo / 'objects/pack').glob('*.pack')))} packs")
