"""The power goes at any moment of writing: what was acknowledged is there, byte for byte, and everything goes on.

    make powercut N=300 [SEED=...]     so many cuts, each with a start of its own
    make e2e                           a few

Writers work at once while every change of data/ is written down in order (tests/lab/powercut.py).  For a cut data/ is made anew
as a disk may have it that kept only what was synced, or more.  Then: git fsck --strict is silent, whoever got his answer finds what he wrote,
nginx starts, and whoever got none tries again and gets it.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import COUNTS, open_folder

from tests.lab import procs
from tests.lab.nginx import give
from tests.lab.powercut import ANY, JOURNAL, LOST, PowerTrace
from tests.lab.world import World, sample_policy

pytestmark = pytest.mark.timeout(3600 if os.environ.get("N") else 300)
CUTS, STARTS = int(os.environ.get("N", "42")), bool(os.environ.get("N"))
SEED = int(os.environ.get("SEED", "20261125"))
JSON = {"Content-Type": "application/json"}
SHARED = "acme/shared"


# --- what is done

@dataclass
class Op:
    """One request that changes something, begun and answered at places in the log."""
    kind: str
    repo: str
    branch: str = "main"
    files: dict[str, bytes] = field(default_factory=dict)
    objects: tuple[str, ...] = ()                # those of the files that go as large objects
    name: str = ""                               # of a branch, a tag, a token
    commit: str = ""
    token: str = ""
    env: dict[str, str] | None = None            # of the command
    begun: int = 0
    acked: int = 1 << 62


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def commit_body(op: Op) -> bytes:
    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": f"{op.repo} {op.name or op.branch}"}}]
    for path, data in op.files.items():
        if path in op.objects:
            lines.append({"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha(data), "size": len(data)}})
        else:
            lines.append({"key": "file", "value": {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def put_parts(world: World, repo: str, data: bytes) -> int:
    """An object in parts, the last one first; the first one twice."""
    ask = {"operation": "upload", "transfers": ["multipart"], "objects": [{"oid": sha(data), "size": len(data)}]}
    got = world.get(f"/{repo}.git/info/lfs/objects/batch", "writer", "POST", body=json.dumps(ask).encode(), headers=JSON)
    assert got.status == 200, got.text
    upload = got.json()["objects"][0].get("actions", {}).get("upload")
    if upload is None:
        return 200
    chunk, hrefs = int(upload["header"].pop("chunk_size")), list(upload["header"].values())
    for number in [*reversed(range(len(hrefs))), 0]:
        href = hrefs[number]
        got = world.get(href[href.index("/-/"):], None, "PUT", body=data[number * chunk:(number + 1) * chunk])
        if got.status != 200:
            return got.status
    body = {"oid": sha(data), "parts": [{"partNumber": number + 1, "etag": "x"} for number in range(len(hrefs))]}
    return world.get(upload["href"][upload["href"].index("/-/"):], None, "POST", body=json.dumps(body).encode(), headers=JSON).status


def put_object(world: World, repo: str, data: bytes) -> int:
    ask = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": sha(data), "size": len(data)}]}
    got = world.get(f"/{repo}.git/info/lfs/objects/batch", "writer", "POST", body=json.dumps(ask).encode(), headers=JSON)
    assert got.status == 200, got.text
    actions = got.json()["objects"][0].get("actions")
    href = actions["upload"]["href"] if actions else ""
    return world.get(href[href.index("/-/"):], None, "PUT", body=data).status if href else 200


def do(world: World, op: Op) -> int:
    """The request; its status."""
    org, name = op.repo.split("/")
    if op.kind == "create":
        got = world.get("/api/repos/create", "writer", "POST", body=json.dumps({"name": name, "organization": org}).encode(), headers=JSON)
    elif op.kind == "object":
        return put_object(world, op.repo, next(iter(op.files.values())))
    elif op.kind == "parts":
        return put_parts(world, op.repo, next(iter(op.files.values())))
    elif op.kind == "move":
        got = world.get("/api/repos/move", "admin", "POST", body=json.dumps({"fromRepo": op.repo, "toRepo": op.name}).encode(), headers=JSON)
    elif op.kind == "squash":
        got = world.get(f"/api/models/{op.repo}/super-squash/{op.branch.replace('/', '%2F')}", "admin", "POST", body=b'{"message":"in one"}', headers=JSON)
    elif op.kind == "propose":
        got = world.get(f"/api/models/{op.repo}/commit/main?create_pr=1", "writer", "POST", body=commit_body(op))
        op.commit, op.name = (got.json()["commitOid"], got.json()["pullRequestUrl"].rsplit("/", 1)[1]) if got.status == 200 else ("", "")
    elif op.kind == "commit":
        got = world.get(f"/api/models/{op.repo}/commit/{op.branch.replace('/', '%2F')}", "writer", "POST", body=commit_body(op))
        op.commit = got.json()["commitOid"] if got.status == 200 else ""
    elif op.kind in ("branch", "tag"):
        body = {"startingPoint": "main"} if op.kind == "branch" else {"tag": op.name, "message": "a message"}
        where = f"branch/{op.name.replace('/', '%2F')}" if op.kind == "branch" else "tag/main"
        got = world.get(f"/api/models/{op.repo}/{where}", "writer", "POST", body=json.dumps(body).encode(), headers=JSON)
    elif op.kind == "drop":
        got = world.get(f"/api/models/{op.repo}/branch/{op.name.replace('/', '%2F')}", "writer", "DELETE")
    elif op.kind == "gc":
        return 200 if world.cli("repo", "gc", "--grace", "1h", env=op.env, check=False).returncode in (0, 1) else 500
    elif op.kind == "import":
        folder = open_folder("hubgate-e2e-import-")
        world.write_files(folder, {path: data for path, data in op.files.items()})
        op.commit = world.cli("repo", "import", op.repo, str(folder), env=op.env).stdout.split()[-1]
        shutil.rmtree(folder)
        return 200
    elif op.kind == "delete":
        got = world.get("/api/repos/delete", "admin", "DELETE", body=json.dumps({"name": name, "organization": org}).encode(), headers=JSON)
    else:
        assert op.kind == "mint"
        op.token = world.mint("reader")
        return 200
    return got.status


AGAIN = {"move": (200, 404), "create": (200, 409), "branch": (200, 409), "tag": (200, 409), "drop": (200, 404), "delete": (200, 404)}


class Writer(threading.Thread):
    """Some requests, one after the other, on repositories of its own and on the shared one."""

    def __init__(self, world: World, trace: "PowerTrace | NoTrace", number: int, ops: list[Op]) -> None:
        super().__init__()
        self.world, self.trace, self.number, self.ops = world, trace, number, ops
        self.dice, self.failure = random.Random(SEED + number), ""

    def run(self) -> None:
        try:
            for op in self.plan():
                op.begun = self.trace.now()
                self.ops.append(op)
                status = do(self.world, op)
                assert status in (200, 201), (op.kind, op.repo, status)
                op.acked = self.trace.now()
        except Exception as error:
            self.failure = str(error)

    def plan(self) -> list[Op]:
        repo, spare, moving, n = f"acme/own-{self.number}", f"acme/spare-{self.number}", f"acme/moving-{self.number}", self.number
        env = self.trace.env
        ops = [Op("create", repo), Op("create", spare), Op("mint", repo)]
        for turn in range(3):
            data = self.dice.randbytes(self.dice.randrange(5000, 30000))
            ops.append(Op("object", repo, files={"": data}))
            files = {f"w{turn}.safetensors": data, f"folder/{turn}/a.txt": f"{n} {turn}".encode(), "same.txt": f"turn {turn}".encode(),
                     f"inline{turn}.bin": self.dice.randbytes(3000)}
            ops.append(Op("commit", repo, files=files, objects=(f"w{turn}.safetensors",)))
            ops.append(Op("commit", SHARED, files={f"from-{n}/{turn}.txt": self.dice.randbytes(40), f"from-{n}/{turn}.bin": self.dice.randbytes(400)}))
        ops += [Op("branch", repo, name="dev/x"), Op("commit", repo, "dev/x", {"dev.txt": b"on dev"}), Op("tag", repo, name="v1"),
                Op("branch", repo, name="gone"), Op("drop", repo, name="gone"), Op("commit", spare, files={"a.txt": b"a", "b.bin": b"b" * 200}),
                Op("import", f"acme/imported-{n}", files={"a/b.txt": b"b", "w.safetensors": self.dice.randbytes(5000)}, env=env),
                Op("delete", spare), Op("parts", repo, files={"": self.dice.randbytes(200000)}), Op("propose", repo, files={"p.txt": b"proposed"}),
                Op("branch", repo, name="short"), Op("squash", repo, "short"), Op("create", moving), Op("move", moving, name=f"acme/moved-{n}"),
                Op("parts", repo, files={"": self.dice.randbytes(150000)})]
        for place in (7, 12, len(ops)) if n % 3 == 0 else ():
            ops.insert(place, Op("gc", repo, env=env))
        return ops


class NoTrace:
    """Of a real disk: what was answered was answered before the cut."""
    env: dict[str, str] = {}

    def now(self) -> int:
        return 0


# --- what has to be there

def git(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-c", "safe.directory=*", "--git-dir", str(path), *arguments], capture_output=True, text=True)


def content(data: Path, repo: Path, revision: str, path: str) -> bytes | None:
    run = subprocess.run(["git", "-c", "safe.directory=*", "--git-dir", str(repo), "cat-file", "blob", f"{revision}:{path}"], capture_output=True)
    if run.returncode:
        return None
    if not run.stdout.startswith(b"version https://git-lfs"):
        return run.stdout
    oid = run.stdout.split(b"sha256:")[1][:64].decode()
    held, whole = repo / "lfs/objects" / oid[:2] / oid[2:4] / oid, data / "lfs" / oid[:2] / oid[2:4] / oid
    return whole.read_bytes() if whole.exists() and held.exists() and held.stat().st_ino == whole.stat().st_ino else None


def damage(data: Path) -> list[str]:
    """What is wrong with data/, whoever was answered."""
    out = []
    for repo in [*(data / "repos").glob("*/*/*.git"), *(data / "trash").glob("*/*/*.git.*")]:
        run = git(repo, "fsck", "--strict", "--full", "--no-dangling")
        if run.returncode or run.stdout + run.stderr:
            out.append(f"{repo.name}: git fsck: {run.stdout}{run.stderr}"[:400])
    for each in (data / "lfs").glob("??/??/*"):
        if sha(each.read_bytes()) != each.name:
            out.append(f"lfs: {each.name}")
    return out


def losses(data: Path, ops: list[Op], cut: int) -> list[str]:
    out, known = [], [op for op in ops if op.begun <= cut]
    for op in known:
        repo = data / "repos/model" / f"{op.repo}.git"
        deleted = next((each for each in known if each.kind == "delete" and each.repo == op.repo), None)
        dropped = next((each for each in known if each.kind == "drop" and each.repo == op.repo and each.name == op.name and op.name), None)
        if op.acked > cut or op.kind in ("mint", "gc"):
            continue
        what = f"{op.kind} {op.repo} {op.name or op.branch} (at {op.acked}, cut {cut})"
        moved = next((each for each in known if each.kind == "move" and each.repo == op.repo), None)
        if moved is not None:                    # under one of its names; under the new one, once that was answered
            at = [path for path in (repo, data / "repos/model" / f"{moved.name}.git") if (path / "HEAD").exists()]
            if len(at) != 1 or (moved.acked <= cut and (at[0] == repo or not repo.with_suffix(".moved").exists())):
                out.append(f"{what}: at {at}")
            continue
        if op.kind == "delete":
            there, name = repo.exists(), op.repo.split("/")[1]
            if there or not list((data / "trash/model/acme").glob(f"{name}.git.*")):
                out.append(f"{what}: it is there, or lost")
        elif deleted is not None:
            continue
        elif op.kind == "create" and not (repo / "HEAD").exists():
            out.append(what)
        elif op.kind in ("object", "parts"):
            oid = sha(op.files[""])
            if not (repo / "lfs/objects" / oid[:2] / oid[2:4] / oid).exists():
                out.append(what)
        elif op.kind == "drop" and git(repo, "rev-parse", "--verify", "-q", f"refs/heads/{op.name}").returncode == 0:
            out.append(f"{what}: it is back")
        elif op.kind in ("branch", "tag") and dropped is None:
            if git(repo, "rev-parse", "--verify", "-q", f"refs/{'heads' if op.kind == 'branch' else 'tags'}/{op.name}").returncode:
                out.append(what)
        elif op.kind == "squash":
            if git(repo, "rev-list", "--count", f"refs/heads/{op.branch}").stdout.strip() != "1":
                out.append(what)
        elif op.kind == "propose":
            if git(repo, "rev-parse", f"refs/pr/{op.name}").stdout.strip() != op.commit or content(data, repo, op.commit, "p.txt") != b"proposed":
                out.append(what)
        elif op.kind in ("commit", "import"):
            if git(repo, "merge-base", "--is-ancestor", op.commit, f"refs/heads/{op.branch}").returncode:
                out.append(f"{what}: {op.commit} is not in the branch")
            out += [f"{what}: {path}" for path, want in op.files.items() if content(data, repo, op.commit, path) != want]
    return out


def goes_on(world: World, ops: list[Op], cut: int) -> list[str]:
    """nginx was started again on what is left."""
    out, dead = [], set()
    for op in [each for each in ops if each.begun <= cut]:
        if op.kind == "mint" and op.acked <= cut:
            if world.get("/api/whoami-v2", op.token).status != 200:
                out.append(f"token at {op.acked}")
        elif op.acked > cut:
            mine, wanted = Op(op.kind, op.repo, op.branch, op.files, op.objects, op.name), AGAIN.get(op.kind, (200,))
            if (status := do(world, mine)) not in wanted:
                out.append(f"trying again: {op.kind} {op.repo} {op.name or op.branch}: {status}")
        if op.kind == "delete":
            dead.add(op.repo)
    newest = {op.repo: op for op in ops if op.kind in ("commit", "import") and op.acked <= cut and op.branch == "main" and op.repo not in dead}
    for repo, op in newest.items():
        for path, want in op.files.items():
            got = world.get(f"/{repo}/resolve/{op.commit}/{path}", "reader")
            if got.status != 200 or got.body != want:
                out.append(f"{repo} {path}: {got.status}")
        new = Op("commit", repo, files={"after.txt": b"after the cut", "after.bin": os.urandom(2000)}, name="after")
        status = do(world, new)
        for path, want in new.files.items():
            if status != 200 or world.get(f"/{repo}/resolve/main/{path}", "reader").body != want:
                out.append(f"{repo}: a new commit: {status} {path}")
    return out


# --- the test

def test_power_cuts(make_world: Callable[..., World]) -> None:
    dice, folder = random.Random(SEED), open_folder("hubgate-e2e-power-")
    print(f"powercut: seed {SEED}, {CUTS} cuts")
    policy = sample_policy("file")
    policy["rules"].append({"id": "admins-delete", "allow": ["delete"], "to": ["group:admins"], "where": {"hub": "private", "repo": "acme/*"}})
    world = make_world(people="file", policy=policy, workers=2, private={}, settings={"multipart.above": "50KiB", "multipart.part": "64KiB"})
    assert world.mint("reader")                                     # their files are there
    world.cli("repo", "create", SHARED)
    world.nginx.stop()
    data = world.nginx.data
    trace = PowerTrace(folder / "trace", data)
    trace.begin()
    world.nginx.env = trace.env
    world.nginx.start()
    ops: list[Op] = []
    writers = [Writer(world, trace, number, ops) for number in range(3)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert not [each.failure for each in writers if each.failure], [each.failure for each in writers]
    world.nginx.stop()
    world.nginx.env = {}
    model, cuts = trace.model(), trace.cuts()
    for cut in cuts:
        model.run_to(cut)
    assert model.names() == {str(path.relative_to(data)) for path in data.rglob("*")}, "something was not written down"

    lost, model = [], trace.model()
    for number, cut in enumerate(cuts[len(cuts) * number // CUTS] for number in range(CUTS)):
        model.run_to(cut)
        shutil.rmtree(data)
        kind = (LOST, JOURNAL, ANY)[number % 3]
        model.write(data, kind, dice)
        bad = damage(data) + losses(data, ops, cut)
        if not bad and (STARTS or number % 9 == 4):
            world.nginx.drop_cache()
            world.nginx.start()
            bad = goes_on(world, ops, cut)
            world.nginx.stop()
            bad += damage(data)
            COUNTS["powercut: starts"] += 1
        COUNTS["powercut: cuts"] += 1
        lost += [f"{kind}: {each}" for each in bad]
    COUNTS["powercut: losses"] += len(lost)
    COUNTS["powercut: lines of the log"] = len(cuts)
    shutil.rmtree(folder)
    assert not lost, f"seed {SEED}: {len(lost)}\n" + "\n".join(lost[:40])


# --- a real disk

GOING_DOWN, NO_LOG_FLUSH = 0x8004587D, 2         # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN: nothing is written any more, not even the journal


class LoopDisk:
    """A file system in a file, at `place`; the test is skipped, and says so, where that is not allowed."""

    def __init__(self, kind: str, image: Path, place: Path) -> None:
        self.image, self.place = image, place
        with open(image, "wb") as file:
            file.truncate(400 << 20)
        self.run("mkfs." + kind, "-q", str(image))
        self.mount()

    def run(self, *command: str) -> None:
        try:
            run = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip(f"NOT RUN: there is no {command[0]}")
        if run.returncode:
            pytest.skip(f"NOT RUN: {' '.join(command)}: {run.stderr.strip()}")

    def mount(self) -> None:
        self.run("mount", "-o", "loop", str(self.image), str(self.place))

    def cut(self) -> None:
        fd = os.open(self.place, os.O_RDONLY)
        fcntl.ioctl(fd, GOING_DOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(fd)

    def umount(self, *more: str) -> None:
        subprocess.run(["umount", *more, str(self.place)], check=True)


@pytest.mark.skipif(not STARTS, reason="make powercut")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_real_disks(make_world: Callable[..., World], kind: str) -> None:
    """The file system itself is cut off at any moment, and mounted again."""
    dice, folder, rounds = random.Random(SEED), open_folder("hubgate-e2e-disk-"), max(3, CUTS // 15)
    policy = sample_policy("file")
    policy["rules"].append({"id": "admins-delete", "allow": ["delete"], "to": ["group:admins"], "where": {"hub": "private", "repo": "acme/*"}})
    world = make_world(people="file", policy=policy, workers=2, private={})
    world.expect_log(r"\[(alert|crit)\]", min=0)
    world.cli("repo", "create", SHARED)
    world.nginx.stop()
    data, ops, lost = world.nginx.data, [], []
    data.rename(folder / "first")
    data.mkdir()
    disk = LoopDisk(kind, folder / "image", data)
    try:
        shutil.copytree(folder / "first", data, symlinks=True, dirs_exist_ok=True)
        data.chmod(0o700)
        give(data)
        os.sync()
        for number in range(rounds):
            world.nginx.drop_cache()
            world.nginx.start()
            writers = [Writer(world, NoTrace(), 3 * number + each, ops) for each in range(3)]
            for each in writers:
                each.start()
            wanted = len(ops) + dice.randrange(1, 60)
            procs.wait_until("some writing", lambda: len(ops) >= wanted or not any(each.is_alive() for each in writers), 120)
            disk.cut()
            for each in writers:
                each.join()
            world.nginx.stop()
            disk.umount()
            disk.mount()
            bad = damage(data) + losses(data, ops, 0)
            lost += [f"round {number}: {each}" for each in bad]
            COUNTS[f"powercut: cuts of {kind}"] += 1
        COUNTS[f"powercut: answered on {kind}"] = sum(op.acked == 0 for op in ops)
    finally:
        world.nginx.stop()
        disk.umount("--lazy")
    shutil.rmtree(folder)
    assert not lost, f"seed {SEED}: {len(lost)}\n" + "\n".join(lost[:40])
