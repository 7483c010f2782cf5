"""Private repositories written by the real clients: made, filled, changed, read back. Large files by LFS (no Xet here)."""

from __future__ import annotations

import hashlib
import json
import select
import socket
import subprocess
from pathlib import Path
from typing import Callable
from urllib.parse import urlsplit

import pytest
from clients import hf, python

from tests.lab import procs
from tests.lab.world import World, sample_policy

MIB = 1 << 20
POLICY = sample_policy()
POLICY["rules"].append({"id": "writers-delete", "allow": ["delete"], "to": ["group:writers"], "where": {"hub": "private", "repo": "acme/*"}})
WORLD: dict = {"workers": 2, "policy": POLICY}

WRITE = r"""
import hashlib, io, json, os, sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
api, out, folder, name = HfApi(), {}, sys.argv[1], sys.argv[2]
url = api.create_repo(name, private=True)
out["url"] = str(url)
out["again"] = str(api.create_repo(name, private=True, exist_ok=True))
try:
    api.create_repo(name, private=True)
except Exception as error:
    out["conflict"] = getattr(error.response, "status_code", None)
api.upload_folder(repo_id=name, folder_path=folder, commit_message="All of it")
first = api.model_info(name).sha
again = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Again")
out["same"] = api.model_info(name).sha == first
api.upload_file(path_or_fileobj=b"one line\n", path_in_repo="notes/one file.txt", repo_id=name)
api.upload_file(path_or_fileobj=io.BytesIO(os.urandom(300000)), path_in_repo="from memory.bin", repo_id=name)
api.create_commit(name, [CommitOperationAdd("a.txt", b"a"), CommitOperationDelete("config.json"), CommitOperationDelete("sub/", is_folder=True)],
                  commit_message="Title", commit_description="More", parent_commit=api.model_info(name).sha)
try:
    api.create_commit(name, [CommitOperationAdd("b.txt", b"b")], commit_message="Late", parent_commit=first)
except Exception as error:
    out["moved"] = error.response.status_code
try:
    api.delete_file("not there.txt", name)
except Exception as error:
    out["absent"] = type(error).__name__
api.create_branch(name, branch="dev/x")
api.upload_file(path_or_fileobj=b"on dev", path_in_repo="dev.txt", repo_id=name, revision="dev/x")
api.create_tag(name, tag="v1", tag_message="the first")
api.create_tag(name, tag="light", revision=first)
refs = api.list_repo_refs(name)
out["refs"] = [sorted(each.name for each in refs.branches), sorted(each.name for each in refs.tags)]
api.delete_branch(name, branch="dev/x")
api.delete_tag(name, tag="light")
refs = api.list_repo_refs(name)
out["refs after"] = [sorted(each.name for each in refs.branches), sorted(each.name for each in refs.tags)]
out["files"] = sorted(api.list_repo_files(name))
out["commits"] = [each.title for each in api.list_repo_commits(name)]
at = snapshot_download(name)
api.create_repo(name + "-gone", repo_type="dataset", private=True)
api.delete_repo(name + "-gone", repo_type="dataset")
api.delete_repo(name + "-gone", repo_type="dataset", missing_ok=True)
try:
    api.repo_info(name + "-gone", repo_type="dataset")
except Exception as error:
    out["gone"] = type(error).__name__
out["snapshot"] = {os.path.relpath(os.path.join(d, f), at): hashlib.sha256(open(os.path.join(d, f), "rb").read()).hexdigest() for d, _, fs in os.walk(at) for f in fs}
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("content")
    (folder / "sub").mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "sub" / "x.txt").write_text("x")
    (folder / "empty.txt").write_text("")
    (folder / "empty.bin").write_bytes(b"")
    (folder / "odd é #+%.txt").write_text("odd")
    (folder / "model.safetensors").write_bytes(hashlib.sha256(b"1").digest() * (5 * MIB // 32) + b"end")
    (folder / "large.weights").write_bytes(hashlib.sha256(b"2").digest() * (11 * MIB // 32))
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("client", ["hf0203", "hf0302", "hf0362", "hf101", "hf133", "hf240", "hf240-noxet"])
def test_made_filled_changed_read(module_world: World, content: Path, client: str) -> None:
    env = {**module_world.env("writer"), "HF_HUB_DISABLE_XET": "1"}
    name = f"acme/new-{client}"
    got = python(client, WRITE, env, str(content), name)
    assert got.status == 0, got.text
    out = got.json
    assert out["url"].endswith(name) and out["again"] == out["url"] and out["conflict"] == 409
    assert out["same"] and out["moved"] == 412 and out["absent"] in ("EntryNotFoundError", "RemoteEntryNotFoundError"), out
    assert out["refs"] == [["dev/x", "main"], ["light", "v1"]] and out["refs after"] == [["main"], ["v1"]]
    assert out["gone"] == "RepositoryNotFoundError"
    want = digests(content)
    assert {path: out["snapshot"][path] for path in want if path not in ("config.json", "sub/x.txt")} \
        == {path: value for path, value in want.items() if path not in ("config.json", "sub/x.txt")}
    assert sorted(out["snapshot"]) == out["files"] and "config.json" not in out["files"] and "sub/x.txt" not in out["files"]
    assert out["snapshot"]["notes/one file.txt"] == hashlib.sha256(b"one line\n").hexdigest()
    assert out["commits"][0] == "Title" and out["commits"][-1] == "initial commit"
    git = module_world.folder / "data/repos/model" / (name + ".git")
    done = subprocess.run(["git", "--git-dir", str(git), "fsck", "--strict", "--full", "--no-dangling"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout + done.stderr == ""


def test_hf_upload(module_world: World, content: Path) -> None:
    env = {**module_world.env("writer"), "HF_HUB_DISABLE_XET": "1"}
    done = hf("hf240", env, "upload", "acme/by-hand", str(content), ".")
    assert done.status == 0, done.text
    got = module_world.get("/acme/by-hand/resolve/main/model.safetensors", "reader")
    assert got.status == 200 and got.body == (content / "model.safetensors").read_bytes()


def test_who_may_not(module_world: World, content: Path) -> None:
    for who, status in (("reader", 403), ("stranger", 404)):
        body = json.dumps({"name": "x", "organization": "acme", "type": "model"}).encode()
        got = module_world.get("/api/repos/create", who, "POST", body=body, headers={"Content-Type": "application/json"})
        assert got.status == status, (who, got.status, got.body)
        got = module_world.get("/api/models/acme/llm/commit/main", who, "POST", body=b'{"key":"header","value":{"summary":"s"}}\n')
        assert got.status == status, (who, got.status, got.body)
    got = module_world.get("/api/repos/create", "writer", "POST", body=b'{"name":"y","organization":"public-org"}',
                             headers={"Content-Type": "application/json"})
    assert got.status in (403, 404)


def batch(world: World, repo: str, oid: str, size: int, who: str = "writer") -> dict:
    body = json.dumps({"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]}).encode()
    got = world.get(f"/{repo}.git/info/lfs/objects/batch", who, "POST", body=body, headers={"Content-Type": "application/vnd.git-lfs+json"})
    assert got.status == 200, got.body
    return json.loads(got.body)["objects"][0]


def create(world: World, name: str) -> None:
    body = json.dumps({"name": name, "organization": "acme"}).encode()
    assert world.get("/api/repos/create", "writer", "POST", body=body, headers={"Content-Type": "application/json"}).status == 200


def address(href: str) -> str:
    return href[href.index("/-/"):]


def test_objects_that_lie(module_world: World) -> None:
    """The address is the credential: it takes these bytes, for this repository, and nothing else; who lies leaves nothing."""
    create(module_world, "lies")
    data = b"the bytes that were announced" * 1000
    oid = hashlib.sha256(data).hexdigest()
    actions = batch(module_world, "acme/lies", oid, len(data))["actions"]
    href = address(actions["upload"]["href"])
    assert module_world.get(address(actions["verify"]["href"]).replace("/lfs-verify/", "/lfs/"), None, "PUT", body=data).status == 403
    for body, status in ((data[:-1], 422), (data[:-1] + b"x", 422), (data + b"x", 413), (b"", 422)):
        got = module_world.get(href, None, "PUT", body=body)
        assert got.status == status, (status, got.status, got.body)
    assert "actions" in batch(module_world, "acme/lies", oid, len(data))
    for forged in (href[:-1] + ("0" if href[-1] != "0" else "1"), href.replace("/acme/lies/", "/acme/llm/"), href.replace(oid, "0" * 64), "/-/lfs/a/b"):
        assert module_world.get(forged, None, "PUT", body=data).status == 403
    assert module_world.get(href, None, "PUT", body=data).status == 200
    assert "actions" not in batch(module_world, "acme/lies", oid, len(data))
    assert module_world.get(href, None, "PUT", body=data).status == 200
    # knowing a hash gives nothing: another repository has to be sent the bytes, and a commit cannot name what it was not sent
    create(module_world, "other")
    assert "actions" in batch(module_world, "acme/other", oid, len(data))
    commit = (b'{"key":"header","value":{"summary":"s"}}\n'
              + json.dumps({"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": oid, "size": len(data)}}).encode())
    got = module_world.get("/api/models/acme/other/commit/main", "writer", "POST", body=commit)
    assert got.status == 400 and b"does not exist" in got.body
    procs.wait_until("nothing is left in data/tmp", lambda: not list((module_world.folder / "data/tmp").iterdir()))


def test_bad_commits(module_world: World) -> None:
    create(module_world, "bad")
    head = b'{"key":"header","value":{"summary":"s"}}\n'
    url = "/api/models/acme/bad/commit/main"
    rows = [(b"", 400), (b"[]", 400), (head + b'{"key":"copyFile","value":{"path":"x"}}', 400),
            (head + b'{"key":"file","value":{"path":"../x","content":"","encoding":"base64"}}', 400),
            (head + b'{"key":"file","value":{"path":".git/config","content":"","encoding":"base64"}}', 400),
            (head + b'{"key":"file","value":{"path":"big","content":"' + b"A" * (16 << 20) + b'","encoding":"base64"}}', 413),
            (head + b'{"key":"deletedFile","value":{"path":"nope"}}', 404)]
    for body, status in rows:
        got = module_world.get(url, "writer", "POST", body=body)
        assert got.status == status, (body[:80], got.status, got.body)
        assert got["X-Error-Message"]
    got = module_world.get("/api/models/acme/bad/commit/nowhere", "writer", "POST", body=head)
    assert got.status == 404 and got["X-Error-Code"] == "RevisionNotFound"
    got = module_world.get(url, "writer", "POST", body=head)
    assert got.status == 200                # nothing to do: the tip
    procs.wait_until("nothing is left in data/tmp", lambda: not list((module_world.folder / "data/tmp").iterdir()))


def test_deleted_and_back(make_world: Callable[..., World]) -> None:
    """Only who may delete does; nothing of it is read any more, also by its commit; `hubgate repo undelete` brings it back."""
    policy = sample_policy("file")
    policy["rules"].append({"id": "admins-delete", "allow": ["delete"], "to": ["group:admins"], "where": {"hub": "private", "repo": "acme/*"}})
    world = make_world(people="file", policy=policy)
    body, json_type = json.dumps({"name": "llm", "organization": "acme"}).encode(), {"Content-Type": "application/json"}
    info = json.loads(world.get("/api/models/acme/llm", "reader").body)
    for who, status in (("writer", 403), ("stranger", 404)):
        assert world.get("/api/repos/delete", who, "DELETE", body=body, headers=json_type).status == status
    assert world.get("/api/repos/delete", "admin", "DELETE", body=body, headers=json_type).status == 200
    for route in ("/api/models/acme/llm", f"/api/models/acme/llm/revision/{info['sha']}", "/acme/llm/resolve/main/config.json"):
        procs.wait_until("it is gone", lambda: world.get(route, "reader").status == 404)
    assert world.get("/api/repos/delete", "admin", "DELETE", body=body, headers=json_type)["x-error-code"] == "RepoNotFound"
    assert world.cli("repo", "undelete", "acme/llm").returncode == 0
    procs.wait_until("it is back", lambda: world.get("/api/models/acme/llm", "reader").status == 200)
    assert json.loads(world.get("/api/models/acme/llm", "reader").body)["sha"] == info["sha"]
    assert world.cli("repo", "undelete", "acme/llm", check=False).returncode == 1


def test_who_goes_on_sending_is_answered(module_world: World) -> None:
    """After a failure 64 MiB more are read, for clients that look for the answer when they have sent all; then it comes, whatever they do."""
    create(module_world, "endless")
    href = address(batch(module_world, "acme/endless", "0" * 64, 10)["actions"]["upload"]["href"])
    parts = urlsplit(module_world.url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 80)), 60) as sock:
        sock.sendall(f"PUT {href} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {1 << 40}\r\n\r\n".encode())
        sent, piece = 0, bytes(MIB)
        while not select.select([sock], [], [], 0)[0]:
            assert sent < 1 << 30, "a GiB was read"
            sock.sendall(piece)
            sent += len(piece)
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
