"""Who may write what: rules of the policy about files and branches, for each operation of a commit."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from clients import python

from tests.lab.fetch import Response
from tests.lab.procs import wait_until
from tests.lab.world import World, sample_policy

POLICY = sample_policy("file")
POLICY["rules"] += [
    {"id": "admins-delete", "allow": ["delete", "create"], "to": ["group:admins"], "where": {"hub": "private", "repo": "acme/*"}},
    {"id": "locked", "deny": ["write"], "unless": ["group:admins"], "where": {"hub": "private", "files": ["LICENSE", "locked/**"]}, "reason": "Ask legal first."},
    {"id": "only-weights", "deny": ["write"], "where": {"hub": "private", "repo": "acme/narrow", "files_not": ["**.bin", ".gitattributes"]}},
    {"id": "secrets", "deny": ["read"], "unless": ["group:admins"], "where": {"hub": "private", "repo": "acme/hidden", "files": "secret/**"}},
    {"id": "releases", "deny": ["write"], "unless": ["group:admins"], "where": {"hub": "private", "revisions": ["release-*"]}, "reason": "Releases are made by admins."}]
WORLD: dict = {"workers": 2, "people": "file", "policy": POLICY}
HEADER = {"key": "header", "value": {"summary": "s"}}


def file(path: str, text: str = "x") -> dict:
    return {"key": "file", "value": {"path": path, "content": text, "encoding": "utf-8"}}


def gone(path: str, folder: bool = False) -> dict:
    return {"key": "deletedFolder" if folder else "deletedFile", "value": {"path": path}}


def commit(world: World, repo: str, *operations: dict, who: str = "writer", branch: str = "main", query: str = "") -> Response:
    body = "\n".join(json.dumps(each) for each in (HEADER, *operations))
    return world.get(f"/api/models/{repo}/commit/{branch.replace('/', '%2F')}{query}", who, "POST", body=body.encode())


def post(world: World, route: str, body: Any, who: str | None = "writer", method: str = "POST") -> Response:
    return world.get(route, who, method, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def create(world: World, name: str) -> str:
    assert post(world, "/api/repos/create", {"name": name, "organization": "acme"}, "admin").status == 200
    return f"acme/{name}"


def files(world: World, repo: str, branch: str = "main") -> list[str]:
    got = world.get(f"/api/models/{repo}/tree/{branch}?recursive=true", "reader")
    assert got.status == 200, got.body
    return sorted(entry["path"] for entry in json.loads(got.body) if entry["type"] == "file")


@pytest.fixture(scope="module")
def repo(module_world: World) -> str:
    name = create(module_world, "ruled")
    for path in ("LICENSE", "locked/deep/a.txt", "open/b.txt", "mixed/c.txt"):
        assert commit(module_world, name, file(path), who="admin").status == 200
    return name


def test_each_operation_is_asked_by_its_path(module_world: World, repo: str) -> None:
    tip, before = module_world.get(f"/api/models/{repo}", "reader").json()["sha"], files(module_world, repo)
    oid = hashlib.sha256(b"none").hexdigest()
    lfs = {"key": "lfsFile", "value": {"path": "locked/w.bin", "algo": "sha256", "oid": oid, "size": 4}}
    copy = {"key": "lfsFile", "value": {"path": "locked/w.bin", "algo": "sha256", "oid": oid}}
    fine = [file(f"open/{number}.txt") for number in range(300)]
    for path, operations in (("LICENSE", [file("LICENSE", "mine")]), ("license", [file("license")]), ("locked/w.bin", [lfs]), ("locked/w.bin", [copy]),
                             ("LICENSE", [gone("LICENSE")]), ("locked/deep/a.txt", [gone("locked", True)]), ("locked/deep/a.txt", [gone("locked/", True)]),
                             ("locked/deep/a.txt", [gone("locked/deep", True)]), ("locked/new/x", [*fine, file("locked/new/x"), *fine])):
        got = commit(module_world, repo, *operations)
        assert got.status == 403, (operations[-1], got.status, got.body)
        assert got["X-Error-Message"] == f"{path}: Ask legal first." and got["X-Error-Code"] == "GatedRepo", got["X-Error-Message"]
        got = commit(module_world, repo, *operations, query="?create_pr=1")
        assert got.status == 403 and got["X-Error-Message"] == f"{path}: Ask legal first."
    assert module_world.get(f"/api/models/{repo}", "reader").json()["sha"] == tip and files(module_world, repo) == before
    assert commit(module_world, repo, gone("mixed", True), file("open/new.txt")).status == 200
    assert commit(module_world, repo, gone("locked/deep", True), file("locked/d.txt"), who="admin").status == 200
    assert files(module_world, repo) == sorted((set(before) | {"open/new.txt", "locked/d.txt"}) - {"mixed/c.txt", "locked/deep/a.txt"})


def test_all_but_some_files(module_world: World) -> None:
    """files_not is about files: a folder is judged by what is in it."""
    name = create(module_world, "narrow")
    assert commit(module_world, name, file("a/x.bin"), file("b/y.bin")).status == 200
    got = commit(module_world, name, file("a/x.txt"))
    assert got.status == 403 and str(got["X-Error-Message"]).startswith("a/x.txt: ")
    assert commit(module_world, name, gone("a", True)).status == 200
    assert files(module_world, name) == [".gitattributes", "b/y.bin"]


def test_preupload_says_it_before_the_bytes_come(module_world: World, repo: str) -> None:
    def preupload(*paths: str, who: str = "writer", branch: str = "main") -> Response:
        return post(module_world, f"/api/models/{repo}/preupload/{branch}", {"files": [{"path": path, "size": 1, "sample": "eA=="} for path in paths]}, who)
    assert preupload("open/x", "y").status == 200
    got = preupload("open/x", "locked/y")
    assert got.status == 403 and got["X-Error-Message"] == "locked/y: Ask legal first."
    assert preupload("open/x", "locked/y", who="admin").status == 200
    client = python("hf240", """
import sys
from huggingface_hub import HfApi
try:
    HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="locked/z", repo_id=sys.argv[1])
except Exception as error:
    print(error)
""", module_world.env("writer"), repo)
    assert "locked/z: Ask legal first." in client.out, client.text


def test_branches_have_one_name(module_world: World, repo: str) -> None:
    """refs/heads/x is x for a rule; a tag is asked for by its own name, not only by where it points."""
    text = "Releases are made by admins."
    assert post(module_world, f"/api/models/{repo}/branch/release-1", {}, "admin").status == 200
    for branch in ("release-1", "refs/heads/release-1", "RELEASE-1"):
        got = commit(module_world, repo, file("open/r.txt"), branch=branch)
        assert got.status == 403 and got["X-Error-Message"] == text, (branch, got.status, got.body)
    for method, route, body in (("POST", "branch/release-2", {}), ("DELETE", "branch/release-1", {}), ("DELETE", "branch/refs%2Fheads%2Frelease-1", {}),
                                ("POST", "tag/main", {"tag": "release-1.0"}), ("DELETE", "tag/release-1.0", {})):
        got = post(module_world, f"/api/models/{repo}/{route}", body, method=method)
        assert got.status == 403 and got["X-Error-Message"] == text, (method, route, got.status, got.body)
    assert post(module_world, f"/api/models/{repo}/tag/main", {"tag": "v1"}).status == 200
    assert commit(module_world, repo, file("open/r.txt"), who="admin", branch="release-1").status == 200


def test_the_record_names_the_file_and_its_rule(module_world: World, repo: str) -> None:
    assert commit(module_world, repo, file("open/ok"), file("locked/audited")).status == 403
    line = wait_until("the record", lambda: [each for each in module_world.audit() if each.get("resource", {}).get("path") == "locked/audited"])[0]
    assert line["event"] == "commit" and line["status"] == 403 and line["policy"] == {"result": "deny", "rule": "locked"} and line["subject"]["name"] == "writer"


# ---- objects ----

def batch(world: World, repo: str, data: bytes, who: str = "writer") -> dict:
    body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}]}
    got = post(world, f"/{repo}.git/info/lfs/objects/batch", body, who)
    assert got.status == 200, got.body
    return got.json()["objects"][0]


def send(world: World, repo: str, data: bytes, who: str = "writer") -> str:
    href = batch(world, repo, data, who)["actions"]["upload"]["href"]
    assert world.get(href[href.index("/-/"):], None, "PUT", body=data).status == 200
    return hashlib.sha256(data).hexdigest()


def pointer(oid: str, size: int) -> str:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


def lfs(path: str, oid: str, **size: int) -> dict:
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, **size}}


def test_a_digest_gives_nothing(module_world: World) -> None:
    """Who may write, but not read every file: an object that only such a file has is, for him, one that is not there, until he sends its bytes."""
    name = create(module_world, "hidden")
    secret, shared, absent = b"what nobody else reads" * 50, b"what everybody reads" * 50, b"what nobody has sent" * 50
    for path, data in (("secret/w.bin", secret), ("open/w.bin", shared)):
        assert commit(module_world, name, lfs(path, send(module_world, name, data, "admin")), who="admin").status == 200
    assert module_world.get(f"/{name}/resolve/main/secret/w.bin", "writer").status == 403
    answers = []
    for data in (secret, absent):
        oid, item = hashlib.sha256(data).hexdigest(), batch(module_world, name, data)
        assert sorted(item["actions"]) == ["upload", "verify"], item
        refused = [commit(module_world, name, operation) for operation in
                   (lfs("mine.bin", oid, size=len(data)), lfs("mine.bin", oid, size=1), lfs("mine.bin", oid), file("mine.bin", pointer(oid, len(data))))]
        assert {got.status for got in refused} == {400} and all(b"does not exist" in got.body for got in refused), [got.body for got in refused]
        answers.append([got.body for got in refused])
    assert answers[0] == answers[1], "the same words whether the repository holds it or not"
    assert "actions" not in batch(module_world, name, secret, "admin")
    assert "mine.bin" not in files(module_world, name)
    assert commit(module_world, name, lfs("copy.bin", hashlib.sha256(shared).hexdigest())).status == 200, "a copy of a file that he may read"
    assert commit(module_world, name, lfs("mine.bin", send(module_world, name, secret), size=len(secret))).status == 200
    assert "actions" not in batch(module_world, name, secret)
    assert module_world.get(f"/{name}/resolve/main/mine.bin", "writer").body == secret
    # another repository: each has its own objects, whoever may read the other one
    other = create(module_world, "hidden-2")
    assert "actions" in batch(module_world, other, shared, "admin")
    assert commit(module_world, other, lfs("x.bin", hashlib.sha256(shared).hexdigest()), who="admin").status == 400
