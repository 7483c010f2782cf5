"""The disk of data/ fails while somebody writes: at each step of a creation, an upload, a commit, a branch.

    make writefaults      all calls x errors
    make e2e              some of them

For each call of each step that touches data/ and each error: the request is refused with 507 (no room) or 503 and a sentence, the repository
is as it was, reading goes on, and once the disk is well the same request works, in the same processes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
from typing import Callable

import pytest
from conftest import COUNTS, open_folder
from test_gc import JSON, commit

from tests.lab import procs
from tests.lab.fetch import Response
from tests.lab.faultdisk import FaultDisk
from tests.lab.world import World

pytestmark = pytest.mark.timeout(3600 if os.environ.get("FAULTS") else 300)
ALL = os.environ.get("FAULTS") == "all"
ERRORS = {errno.ENOSPC: 507, errno.EDQUOT: 507, errno.EIO: 503, errno.EROFS: 503}
CALLS = {"create": 6, "write": 4, "pwrite": 4, "fdatasync": 8, "link": 3, "rename": 4, "mkdir": 5}      # and how many of each are tried, at most
KINDS = [(call, error) for call in CALLS for error in ERRORS] if ALL else [*((call, errno.ENOSPC) for call in CALLS), ("fdatasync", errno.EIO)]
REPO = "acme/faulty"


class Steps:
    """A creation, an upload, a commit of it and of small files, a branch; each is done anew under another name."""

    def __init__(self, world: World) -> None:
        self.world, self.number = world, 0
        assert self.create("faulty").status == 200

    def create(self, name: str) -> Response:
        return self.world.get("/api/repos/create", "writer", "POST", body=json.dumps({"name": name, "organization": "acme"}).encode(), headers=JSON)

    def next(self) -> dict[str, Callable[[], tuple[int, str]]]:
        self.number += 1
        name, data = f"n{self.number}", os.urandom(3000)
        oid = hashlib.sha256(data).hexdigest()
        ask = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": len(data)}]}

        def upload() -> tuple[int, str]:
            got = self.world.get(f"/{REPO}.git/info/lfs/objects/batch", "writer", "POST", body=json.dumps(ask).encode(), headers=JSON)
            actions = got.json()["objects"][0].get("actions") if got.status == 200 else None
            if actions:
                href = actions["upload"]["href"]
                got = self.world.get(href[href.index("/-/"):], None, "PUT", body=data)
            return got.status, got.text

        def made() -> tuple[int, str]:
            got = self.create(name)
            return (200 if got.status == 409 else got.status), got.text     # the folder of it may not have been synced when it failed

        def small() -> tuple[int, str]:
            body = (b'{"key":"header","value":{"summary":"s"}}\n' + json.dumps({"key": "file", "value": {
                "path": f"{name}/inline.bin", "content": "AAAA" * 200, "encoding": "base64"}}).encode() + b"\n" + json.dumps({"key": "file", "value": {
                    "path": f"{name}.txt", "content": "AAAA", "encoding": "base64"}}).encode())
            got = self.world.get(f"/api/models/{REPO}/commit/main", "writer", "POST", body=body)
            return got.status, got.text

        def branch() -> tuple[int, str]:
            got = self.world.get(f"/api/models/{REPO}/branch/{name}%2Fx", "writer", "POST", body=b"{}", headers=JSON)
            return (200 if got.status in (201, 409) else got.status), got.text
        return {"create": made, "upload": upload, "commit": lambda: commit(self.world, REPO, f"{name}.weights", data), "small": small, "branch": branch}


def git(world: World, *arguments: str) -> str:
    run = subprocess.run(["git", "-c", "safe.directory=*", "--git-dir", str(world.nginx.data / "repos/model" / f"{REPO}.git"), *arguments],
                         capture_output=True, text=True)
    assert run.returncode == 0, (arguments, run.stdout, run.stderr)
    return run.stdout + run.stderr


def test_disk_of_data(make_world: Callable[..., World]) -> None:
    disk = FaultDisk(open_folder("hubgate-e2e-faultdisk-"))
    world = make_world(people="file", workers=1, private={}, nginx_env=disk.env)
    world.expect_log(r"\[(alert|crit)\]", min=0)
    steps, workers, wrong = Steps(world), world.nginx.workers(), []
    tip = git(world, "rev-parse", "main").strip()
    assert world.get(f"/{REPO}/resolve/main/.gitattributes", "reader").status == 200
    for call, error in KINDS:
        hit = {}
        for skip in range(0, CALLS[call], 1 if ALL else 2):
            todo = steps.next()
            for name, step in todo.items():
                before = git(world, "rev-parse", "main")
                disk.fail((call, "/data/", error, skip, 1))
                status, text = step()
                disk.heal()
                if status != 200:
                    hit[name] = skip
                    COUNTS["write faults: steps that failed"] += 1
                    if status != ERRORS[error]:
                        wrong.append(f"{name}: {call} {errno.errorcode[error]} +{skip}: {status} {text[:150]}")
                    if name in ("create", "upload", "branch") and git(world, "rev-parse", "main") != before:
                        wrong.append(f"{name}: {call}: main moved")
                    if str(world.nginx.data) in text:
                        wrong.append(f"{name}: {call}: shows a path of the server: {text[:150]}")
                    if world.get(f"/{REPO}/resolve/main/.gitattributes", "reader").status != 200:
                        wrong.append(f"{name}: {call}: no reading")
                    status, text = step()
                if status != 200:
                    wrong.append(f"again: {name}: {call} {errno.errorcode[error]} +{skip}: {status} {text[:150]}")
        COUNTS["write faults: calls x errors"] += 1
        if not hit:
            wrong.append(f"{call} {errno.errorcode[error]}: nothing failed")
    assert git(world, "fsck", "--strict", "--full", "--no-dangling") == ""
    git(world, "merge-base", "--is-ancestor", tip, "main")
    assert world.nginx.workers() == workers
    check = world.cli("repo", "fsck", "--deep", check=False)
    assert check.returncode == 0, check.stdout
    procs.wait_until("nothing is left in data/tmp", lambda: not list((world.nginx.data / "tmp").iterdir()))
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong[:40])
