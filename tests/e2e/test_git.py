"""Private repositories by git and git-lfs as they come: clone, change, push, and what a push may not bring."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable, Mapping
from urllib.parse import urlsplit

import pytest
from clients import hf

from tests.lab import procs
from tests.lab.world import ORG, World, sample_policy

MIB = 1 << 20
WORLD: dict = {"workers": 2}
HELPER = '!f() { echo username=hf_user; echo "password=$HF_TOKEN"; }; f'


class Git:
    """git of one person, with a home of its own."""

    def __init__(self, world: World, role: str | None = "writer", **more: str) -> None:
        self.world = world
        self.home = Path(subprocess.check_output(["mktemp", "-d", "-p", str(world.folder)], text=True).strip())
        (self.home / ".gitconfig").write_text(
            "[user]\n\tname = Ann\n\temail = ann@example.org\n[init]\n\tdefaultBranch = main\n[protocol]\n\tversion = 2\n[core]\n\tcompression = 0\n"
            + ('[credential]\n\thelper = "' + HELPER.replace("\\", "\\\\").replace('"', '\\"') + '"\n' if role else ""))
        self.env = {**world.env(role, self.home), "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", **more}
        self("lfs", "install", "--skip-repo")

    def run(self, *arguments: str, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=cwd or self.home, env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=timeout)

    def __call__(self, *arguments: str, cwd: Path | None = None) -> str:
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.strip()

    def refused(self, *arguments: str, cwd: Path | None = None) -> str:
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode != 0, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def clone(self, name: str, *arguments: str, to: str = "clone") -> Path:
        folder = self.home / to
        self("clone", *arguments, f"{self.world.url}/{name}", str(folder))
        return folder

    def commit(self, folder: Path, files: Mapping[str, bytes], message: str = "A change") -> str:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        self("add", "-A", cwd=folder)
        self("commit", "-q", "-m", message, cwd=folder)
        return self("rev-parse", "HEAD", cwd=folder)


def create(world: World, name: str, kind: str = "model") -> str:
    body = json.dumps({"name": name, "organization": ORG, "type": kind}).encode()
    got = world.get("/api/repos/create", "writer", "POST", body=body, headers={"Content-Type": "application/json"})
    assert got.status == 200, got.body
    return f"{ORG}/{name}"


def bare(world: World, name: str, kind: str = "model") -> Path:
    return world.folder / "data/repos" / kind / f"{name}.git"


def refs(world: World, name: str) -> str:
    return subprocess.check_output(["git", "-c", "safe.directory=*", "--git-dir", str(bare(world, name)), "for-each-ref"], text=True)


def is_sound(world: World, name: str) -> None:
    done = subprocess.run(["git", "-c", "safe.directory=*", "--git-dir", str(bare(world, name)), "fsck", "--strict", "--full", "--no-dangling"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout + done.stderr == "", done


def audited(world: World, fits: Callable[[dict], bool]) -> dict:
    """The record of a push; records are written once a second."""
    return procs.wait_until("the audit record", lambda: next(         # type: ignore[return-value]
        (each for each in world.audit() if each["event"] == "git-receive-pack" and fits(each)), None))


def children(world: World) -> list[str]:
    """Processes of git that work for this world."""
    mark, found = str(world.folder / "data"), []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word.startswith(mark) for word in words) and "nginx" not in words[0]:
            found.append(" ".join(words))
    return found


def no_children(world: World) -> None:
    procs.wait_until("git to end", lambda: not children(world))


def test_round_trip(module_world: World) -> None:
    name = create(module_world, "round")
    ann, bob = Git(module_world), Git(module_world)
    here = ann.clone(name)
    assert (here / ".gitattributes").exists()
    model = hashlib.sha256(b"m").digest() * (3 * MIB // 32)
    tip = ann.commit(here, {"README.md": b"# Hello\n", "sub/a b.txt": b"a", "model.safetensors": model})
    ann("push", "origin", "main", cwd=here)
    # the API has it at once, by the same ids
    got = module_world.get(f"/api/models/{name}", "reader")
    assert json.loads(got.body)["sha"] == tip
    assert module_world.get(f"/{name}/resolve/main/model.safetensors", "reader").body == model
    done = hf("hf240", {**module_world.env("reader"), "HF_HUB_DISABLE_XET": "1"}, "download", name, "README.md")
    assert done.status == 0 and Path(re.search(r"/\S+README\.md", done.text).group()).read_text() == "# Hello\n", done.text  # type: ignore[union-attr]
    record = audited(module_world, lambda each: each.get("resource", {}).get("commit") == tip)
    assert record["resource"]["revision"] == "main" and record["status"] == 200 and record["subject"]["name"] == "writer", record
    # another clone, by every spelling of the address
    there = bob.clone(name + ".git")
    assert (there / "model.safetensors").read_bytes() == model and bob("rev-parse", "HEAD", cwd=there) == tip
    # conflict: refused, pull, push
    ann.commit(here, {"a.txt": b"ann"})
    ann("push", "origin", "main", cwd=here)
    bob.commit(there, {"b.txt": b"bob"})
    assert "fetch first" in bob.refused("push", "origin", "main", cwd=there)
    bob("pull", "--rebase", cwd=there)
    bob("push", "origin", "main", cwd=there)
    # force push, branches, tags
    ann("commit", "--amend", "-q", "-m", "other", cwd=here)
    before = refs(module_world, name)
    assert "non-fast-forward" in ann.refused("push", "--force", "origin", "main", cwd=here)
    assert refs(module_world, name) == before
    ann("checkout", "-q", "-b", "dev/x", cwd=here)
    ann.commit(here, {"dev.txt": b"dev"})
    ann("tag", "-a", "v1", "-m", "the first", cwd=here)
    ann("push", "origin", "dev/x", "v1", cwd=here)
    listed = json.loads(module_world.get(f"/api/models/{name}/refs", "reader").body)
    assert [sorted(each["name"] for each in listed[kind]) for kind in ("branches", "tags")] == [["dev/x", "main"], ["v1"]]
    assert module_world.get(f"/{name}/resolve/v1/dev.txt", "reader").body == b"dev"
    ann("tag", "-f", "v1", "HEAD~1", cwd=here)
    assert "a tag does not move" in ann.refused("push", "--force", "origin", "v1", cwd=here)
    ann("push", "origin", "--delete", "dev/x", cwd=here)
    assert "dev/x" not in refs(module_world, name)
    assert ann.refused("push", "origin", "--delete", "main", cwd=here)
    # what came by the API is pulled
    module_world.get(f"/api/models/{name}/commit/main", "writer", "POST", body=b'{"key":"header","value":{"summary":"By the API"}}\n'
                     b'{"key":"file","value":{"path":"api.txt","content":"YXBp","encoding":"base64"}}\n')
    bob("pull", "--rebase", cwd=there)
    assert (there / "api.txt").read_text() == "api"
    is_sound(module_world, name)
    no_children(module_world)


def test_types_and_versions(module_world: World) -> None:
    create(module_world, "set", "dataset")
    git = Git(module_world)
    there = git.clone(f"datasets/{ORG}/set")
    git.commit(there, {"data.csv": b"a,b\n1,2\n"})
    git("push", "origin", "main", cwd=there)
    assert module_world.get(f"/datasets/{ORG}/set/resolve/main/data.csv", "reader").body == b"a,b\n1,2\n"
    for version in ("0", "1", "2"):
        again = git.home / f"v{version}"
        git("-c", f"protocol.version={version}", "clone", f"{module_world.url}/datasets/{ORG}/set.git", str(again))
        assert (again / "data.csv").exists()


def test_shallow_partial_mirror(module_world: World) -> None:
    name = create(module_world, "history")
    git = Git(module_world)
    here = git.clone(name)
    blob = os.urandom(2 * MIB)
    for i in range(5):
        git.commit(here, {"n.txt": b"%d" % i, f"noise-{i}.dat": os.urandom(100_000)})
    git.commit(here, {"model.safetensors": blob})
    git("push", "origin", "main", cwd=here)         # more than 1 MiB: chunked, after a probe
    shallow = git.clone(name, "--depth", "1", to="shallow")
    assert git("rev-list", "--count", "HEAD", cwd=shallow) == "1"
    git("fetch", "--unshallow", cwd=shallow)
    assert git("rev-list", "--count", "HEAD", cwd=shallow) == "7"
    partial = git.clone(name, "--filter=blob:none", "--no-checkout", to="partial")
    missing = git("rev-list", "--objects", "--all", "--missing=print", cwd=partial).count("?")
    assert missing >= 6, missing
    git("checkout", "main", cwd=partial)
    assert (partial / "n.txt").read_text() == "4" and (partial / "model.safetensors").read_bytes() == blob
    mirror = git.home / "mirror.git"
    git("clone", "--mirror", f"{module_world.url}/{name}", str(mirror))
    git("lfs", "fetch", "--all", cwd=mirror)
    oid = hashlib.sha256(blob).hexdigest()
    assert (mirror / "lfs/objects" / oid[:2] / oid[2:4] / oid).read_bytes() == blob
    # a fetch whose request is gzip: many haves
    other = git.home / "other"
    git("init", "-q", str(other))
    tree = git("hash-object", "-t", "tree", "-w", "/dev/null", cwd=other)
    parent: list[str] = []
    for i in range(300):
        parent = ["-p", git("commit-tree", tree, *parent, "-m", str(i), cwd=other)]
    git("update-ref", "refs/heads/main", parent[1], cwd=other)
    git("-c", "protocol.version=0", "fetch", f"{module_world.url}/{name}", "main", cwd=other)


def test_lfs_pull(module_world: World) -> None:
    git = Git(module_world)
    here = git.clone(f"{ORG}/llm", to="llm")        # imported, not pushed
    for file in here.rglob("*.safetensors"):
        at = file.relative_to(here).as_posix()
        assert file.read_bytes() == module_world.get(f"/{ORG}/llm/resolve/main/{at}", "reader").body and len(file.read_bytes()) > 1000
    reader = Git(module_world, "reader")
    there = reader.clone(f"{ORG}/llm", to="llm")
    assert "403" in reader.refused("push", "origin", "HEAD:refs/heads/x", cwd=there)


@pytest.mark.parametrize("role, repo, says", [
    (None, "llm", "could not read Username"),
    ("hf_gwp" + "x" * 48, "llm", "Authentication failed"),
    ("stranger", "llm", "not found"),
    ("stranger", "nothing", "not found"),
    ("reader", "nothing", "not found"),
])
def test_who_may_not_clone(module_world: World, role: str | None, repo: str, says: str) -> None:
    assert says in Git(module_world, role).refused("clone", f"{module_world.url}/{ORG}/{repo}")
    no_children(module_world)


def test_statuses(module_world: World) -> None:
    at = f"/{ORG}/llm/info/refs"
    for role, target, status in (
            (None, at + "?service=git-upload-pack", 401), (None, f"/{ORG}/nothing/info/refs?service=git-upload-pack", 401),
            ("stranger", at + "?service=git-upload-pack", 404), ("reader", at + "?service=git-receive-pack", 403),
            ("reader", at, 403), ("reader", at + "?service=git-evil", 403), ("reader", "/public-org/x/info/refs?service=git-upload-pack", 501),
            ("reader", f"/{ORG}/llm/HEAD", 404), ("reader", f"/{ORG}/llm.git/objects/info/packs", 404)):
        got = module_world.get(target, role)
        assert got.status == status, (role, target, got.status, got.body)
        if status not in (404,) or role == "stranger":
            assert got["Content-Type"].startswith("text/plain"), got.headers
        if status == 401:
            assert got["WWW-Authenticate"].startswith("Basic ")
    for verb in ("git-upload-pack", "git-receive-pack"):
        assert module_world.get(f"/{ORG}/llm/{verb}", None, "POST", body=b"0000").status == 401
        assert module_world.get(f"/{ORG}/llm/{verb}", "reader", "GET").status == 405
    got = module_world.get(f"/{ORG}/llm/git-upload-pack", "reader", "POST", body=b"0000", headers={"Content-Encoding": "br"})
    assert got.status == 400
    got = module_world.get(f"/{ORG}/llm/git-upload-pack", "reader", "POST", body=b"not gzip", headers={"Content-Encoding": "gzip"})
    assert got.status == 400
    no_children(module_world)


def bad_pointer(git: Git, here: Path) -> str:
    git.commit(here, {"a.txt": b"version https://git-lfs.github.com/spec/v1\noid sha256:zz\nsize 1\n"})
    return "not a valid git-lfs pointer"


def missing_object(git: Git, here: Path) -> str:
    git.commit(here, {"a.txt": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12\n"})
    return "pointed to a file that does not exist"


def too_big(git: Git, here: Path) -> str:
    git.commit(here, {"deep/er/a.weights": os.urandom(11 * MIB)})
    return "files larger than 10 MiB"


def too_big_and_gone(git: Git, here: Path) -> str:
    git.commit(here, {"a.weights": os.urandom(11 * MIB)})
    (here / "a.weights").unlink()
    git.commit(here, {"b.txt": b"b"})
    return "a.weights (refs/heads/main)"


def bad_name(git: Git, here: Path) -> str:
    git.commit(here, {"a\\b": b"x"})
    return "backslash"


def submodule(git: Git, here: Path) -> str:
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub", cwd=here)
    git("commit", "-q", "-m", "sub", cwd=here)
    return "submodules"


@pytest.mark.parametrize("spoil", [bad_pointer, missing_object, too_big, too_big_and_gone, bad_name, submodule])
def test_push_refused(module_world: World, spoil: Callable[[Git, Path], str]) -> None:
    name = create(module_world, "bad-" + spoil.__name__.replace("_", "-"))
    git = Git(module_world)
    here = git.clone(name)
    before, packs = refs(module_world, name), sorted(bare(module_world, name).rglob("*.pack"))
    says = spoil(git, here)
    git("config", "core.hooksPath", "/nonexistent", cwd=here)       # git-lfs's own look before a push
    got = git.refused("push", "origin", "main", cwd=here)
    assert says in got and "pre-receive hook declined" in got, got
    assert refs(module_world, name) == before and sorted(bare(module_world, name).rglob("*.pack")) == packs
    git("reset", "-q", "--hard", "origin/main", cwd=here)
    git.commit(here, {"good.txt": b"good"})
    git("push", "origin", "main", cwd=here)
    is_sound(module_world, name)
    no_children(module_world)


def test_ref_names(module_world: World) -> None:
    name = create(module_world, "names")
    git = Git(module_world)
    here = git.clone(name)
    before = refs(module_world, name)
    for ref in ("refs/pr/1", "refs/convert/parquet", "refs/hidden/x", "refs/heads/" + "a" * 40, "refs/heads/refs/x", "refs/heads/HEAD",
                "refs/tags/-x"):
        got = git.refused("push", "origin", f"HEAD:{ref}", cwd=here)
        assert "remote:" in got and ("hook declined" in got or "failed" in got), (ref, got)
    blob = git("rev-parse", "HEAD:.gitattributes", cwd=here)
    assert "leads to a commit" in git.refused("push", "origin", f"{blob}:refs/tags/blob", cwd=here)
    assert refs(module_world, name) == before


def test_moved(module_world: World) -> None:
    """The old name goes on working, also for pushes: git that had to log in would not follow a redirect with its next request."""
    name, git = create(module_world, "old-name"), Git(module_world)
    here = git.clone(name)
    body = json.dumps({"fromRepo": name, "toRepo": f"{ORG}/new-name", "type": "model"}).encode()
    assert module_world.get("/api/repos/move", "admin", "POST", body=body, headers={"Content-Type": "application/json"}).status == 200
    tip = git.commit(here, {"a.txt": b"a"})
    git("push", "origin", "main", cwd=here)
    assert json.loads(module_world.get(f"/api/models/{ORG}/new-name", "reader").body)["sha"] == tip
    assert git("rev-parse", "HEAD", cwd=git.clone(name, to="again")) == tip
    assert "not found" in Git(module_world, "stranger").refused("clone", f"{module_world.url}/{name}")


def policy_with(*rules: dict[str, Any]) -> dict:
    policy = sample_policy()
    policy["rules"] += list(rules)
    return policy


def test_path_and_branch_rules(make_world: Callable[..., World]) -> None:
    acme = {"hub": "private", "repo": f"{ORG}/llm"}
    world = make_world(policy=policy_with(
        {"id": "no-weights", "deny": ["read"], "to": ["user:reader"], "where": {**acme, "files": ["*.safetensors"]}, "reason": "Weights are closed."},
        {"id": "no-main", "deny": ["write"], "to": ["user:writer"], "where": {**acme, "revisions": ["main"]}, "reason": "Main is closed."}))
    reader = Git(world, "reader")
    got = reader.refused("clone", f"{world.url}/{ORG}/llm")
    assert "403" in got and "A clone gives every file" in got and "Weights are closed." in got, got
    body = json.dumps({"operation": "download", "objects": [{"oid": "a" * 64, "size": 1}]}).encode()
    assert world.get(f"/{ORG}/llm.git/info/lfs/objects/batch", "reader", "POST", body=body).status == 403
    assert world.get(f"/{ORG}/llm/resolve/main/config.json", "reader").status == 200
    writer = Git(world)
    here = writer.clone(f"{ORG}/llm")
    writer.commit(here, {"a.txt": b"a"})
    before = refs(world, f"{ORG}/llm")
    got = writer.refused("push", "origin", "main", cwd=here)
    assert "you may not push to refs/heads/main. Main is closed." in got, got
    assert refs(world, f"{ORG}/llm") == before
    record = audited(world, lambda each: each.get("refused") == "blocked")
    assert record["policy"] == {"result": "deny", "rule": "no-main"}, record
    writer("push", "origin", "HEAD:refs/heads/dev", cwd=here)
    assert "refs/heads/dev" in refs(world, f"{ORG}/llm")


def big(world: World, git: Git, name: str, count: int = 24) -> str:
    """A repository whose clone takes a while: many files of noise.  Its tip."""
    here = git.clone(create(world, name))
    tip = git.commit(here, {f"noise/{i}": os.urandom(1 * MIB) for i in range(count)})
    git("push", "origin", "main", cwd=here)
    return tip


def pkt(line: str) -> str:
    return f"{len(line) + 4:04x}{line}"


class Fetch:
    """A fetch of everything that stands still after its first bytes."""

    def __init__(self, world: World, tip: str) -> None:
        body = pkt("command=fetch\n") + "0001" + pkt(f"want {tip}\n") + pkt("done\n") + "0000"
        self.connection = http.client.HTTPConnection(urlsplit(world.url).netloc, timeout=60)
        self.connection.request("POST", f"/{ORG}/big/git-upload-pack", body, {
            "Git-Protocol": "version=2", "Content-Type": "application/x-git-upload-pack-request",
            "Authorization": f"Bearer {world.tokens['writer']}"})
        self.answer = self.connection.getresponse()
        self.data = self.answer.read(1000)
        assert self.answer.status == 200 and len(self.data) == 1000

    def leave(self) -> None:
        self.answer.close()
        self.connection.close()

    def is_whole(self) -> bool:
        data, pieces, at = self.data + self.answer.read(), [], 0
        self.leave()
        while at < len(data):
            n = int(data[at:at + 4], 16)
            if n > 4 and data[at + 4] == 1:
                pieces.append(data[at + 5:at + n])
            at += max(n, 4)
        pack = b"".join(pieces)
        return pack[:4] == b"PACK" and hashlib.sha1(pack[:-20]).digest() == pack[-20:]


def test_clients_that_leave_reload_kill(make_world: Callable[..., World]) -> None:
    world = make_world(workers=1, settings={"git.clones": 1})
    git = Git(world)
    tip = big(world, git, "big")
    # a client that leaves in mid-clone
    fetch = Fetch(world, tip)
    assert any("upload-pack" in each for each in children(world)), children(world)
    got = world.get(f"/{ORG}/big/git-upload-pack", "writer", "POST", body=b"0000")
    assert got.status == 429 and b"Too many clones" in got.body      # git.clones
    fetch.leave()
    no_children(world)
    # a reload in mid-clone: the old worker serves it to the end
    fetch = Fetch(world, tip)
    world.nginx.reload()
    assert any("upload-pack" in each for each in children(world)) and world.get(f"/{ORG}/big/git-upload-pack", "writer", "POST",
                                                                              body=b"0000").status == 200
    assert fetch.is_whole()
    no_children(world)
    # a push of which only a part came
    process = subprocess.Popen(["curl", "-sS", "-T", "-", "-X", "POST", "-H", f"Authorization: Bearer {world.tokens['writer']}", "-H",
                                "Content-Type: application/x-git-receive-pack-request", f"{world.url}/{ORG}/big/git-receive-pack"],
                               stdin=subprocess.PIPE, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.stdin
    process.stdin.write(b"x" * 3 * MIB)
    process.stdin.flush()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    no_children(world)
    procs.wait_until("data/tmp to be empty", lambda: not list((world.folder / "data/tmp").iterdir()))
    # a worker that is killed takes its git along
    fetch = Fetch(world, tip)
    world.expect_log("exited on signal 9")
    world.nginx.kill_worker()
    no_children(world)
    fetch.leave()


def test_limits_and_lock(make_world: Callable[..., World]) -> None:
    world = make_world(workers=1, settings={"git.push_bytes": "2MiB"})
    git = Git(world)
    name = create(world, "limits")
    here = git.clone(name)
    before = refs(world, name)
    git.commit(here, {"noise.dat": os.urandom(3 * MIB)})
    assert "413" in git.refused("push", "origin", "main", cwd=here)
    git("reset", "-q", "--hard", "origin/main", cwd=here)
    git("config", "core.compression", "9", cwd=here)
    git.commit(here, {"zeros.dat": bytes(200 * MIB)})                   # compressed: 200 KiB of pack
    assert "files larger than 10 MiB" in git.refused("push", "origin", "main", cwd=here)
    assert refs(world, name) == before and not list(bare(world, name).rglob("tmp_*"))
    git("reset", "-q", "--hard", "origin/main", cwd=here)
    git.commit(here, {"a.txt": b"a"})
    with open(bare(world, name) / ".gw.lock") as lock:                  # another writer
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(["git", "push", "-q", "origin", "main"], cwd=here, env=git.env, stderr=subprocess.DEVNULL)
        procs.wait_until("the hook", lambda: any("pre-receive" in each for each in children(world)))
        assert process.poll() is None and refs(world, name) == before
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert process.wait(60) == 0
        fcntl.flock(lock, fcntl.LOCK_EX)                                # the push has let go of it
    assert git("rev-parse", "HEAD", cwd=here) in refs(world, name)
    is_sound(world, name)
    no_children(world)
