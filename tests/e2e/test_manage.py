"""Managing private repositories by the real clients, and uploads in parts."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

import pytest
from clients import BUILD, HF, python, run

from test_git import Git

from tests.lab import procs
from tests.lab.world import ORG, World, sample_policy

MIB = 1 << 20
SIZE = 3 * MIB + 4321
WORLD: dict = {"workers": 2, "settings": {"multipart.above": "1MiB", "multipart.part": "512KiB"}}
LFS = {"Content-Type": "application/vnd.git-lfs+json"}


def data_of(seed: str, size: int = SIZE) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def post(world: World, path: str, body: Any, who: str | None = "writer", method: str = "POST", kind: str = "application/json") -> Any:
    return world.get(path, who, method, body=json.dumps(body).encode(), headers={"Content-Type": kind})


def create(world: World, name: str, who: str = "writer") -> None:
    got = post(world, "/api/repos/create", {"name": name, "organization": "acme"}, who)
    assert got.status == 200, got.body


def batch(world: World, repo: str, data: bytes, transfers: tuple[str, ...] = ("basic", "multipart")) -> dict:
    body = {"operation": "upload", "transfers": transfers, "objects": [{"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}]}
    got = post(world, f"/{repo}.git/info/lfs/objects/batch", body, kind=LFS["Content-Type"])
    assert got.status == 200, got.body
    return json.loads(got.body)


def local(href: str) -> str:
    return urlsplit(href).path


def nothing_left(world: World) -> None:
    procs.wait_until("nothing is left in data/tmp", lambda: not list((world.folder / "data/tmp").iterdir()))


# ---- uploads in parts ----

UPLOAD = r"""
import json, sys
from huggingface_hub import HfApi, hf_hub_download
import huggingface_hub.lfs as lfs
api, out, name = HfApi(), {"parts": 0}, sys.argv[1]
def counted(real):
    def call(*args, **kwargs):
        out["parts"] += len(kwargs["sorted_parts_urls"])
        return real(*args, **kwargs)
    return call
lfs._upload_parts_iteratively = counted(lfs._upload_parts_iteratively)
api.create_repo(name)
api.upload_folder(repo_id=name, folder_path=sys.argv[2])
out["path"] = hf_hub_download(name, "model.safetensors")
print(json.dumps(out))
"""


@pytest.mark.parametrize("client", ["hf0362", "hf240"])
def test_upload_in_parts(module_world: World, tmp_path: Path, client: str) -> None:
    data = data_of(client)
    (tmp_path / "model.safetensors").write_bytes(data)
    (tmp_path / "small.safetensors").write_bytes(data[:1000])
    got = python(client, UPLOAD, {**module_world.env("writer"), "HF_HUB_DISABLE_XET": "1"}, f"acme/parts-{client}", str(tmp_path))
    assert got.status == 0, got.text
    assert got.json["parts"] == 7 + 1 and Path(got.json["path"]).read_bytes() == data
    nothing_left(module_world)


def test_upload_in_parts_by_javascript(module_world: World) -> None:
    """Five parts at once, in any order; no verify."""
    code = r"""
const hub = await import("@huggingface/hub");
const keys = { hubUrl: process.env.HF_ENDPOINT, accessToken: process.env.HF_TOKEN, repo: { type: "model", name: "acme/parts-js" } };
const data = new Uint8Array(SIZE).map((_, i) => i * 7 + (i >> 10));
await hub.createRepo(keys);
await hub.uploadFiles({ ...keys, useXet: false, files: [{ path: "model.safetensors", content: new Blob([data]) }] });
""".replace("SIZE", str(SIZE))
    got = run([str(BUILD / "js" / "node"), "--input-type=module", "-e", code], module_world.env("writer"), cwd=BUILD / "js")
    assert got.status == 0, got.text
    got = module_world.get("/acme/parts-js/resolve/main/model.safetensors", "writer")
    assert got.status == 200 and got.body == bytes((i * 7 + (i >> 10)) & 255 for i in range(SIZE))
    nothing_left(module_world)


def test_agent_of_git_lfs(module_world: World, tmp_path: Path) -> None:
    """`hf lfs-enable-largefiles` makes git-lfs call this program: it takes every header but chunk_size as a part's address, in order."""
    create(module_world, "agent")
    data = data_of("agent")
    (tmp_path / "object").write_bytes(data)
    answer = batch(module_world, "acme/agent", data, ("lfs-standalone-file", "basic", "multipart"))
    oid = answer["objects"][0]["oid"]
    assert answer["transfer"] == "multipart"
    lines = [{"event": "init", "operation": "upload", "concurrent": False},
             {"event": "upload", "oid": oid, "path": str(tmp_path / "object"), "action": answer["objects"][0]["actions"]["upload"]},
             {"event": "terminate"}]
    (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
    got = run(["sh", "-c", 'exec "$0" lfs-multipart-upload < "$1"', str(HF["hf0362"] / "bin" / "hf"), str(tmp_path / "lines")],
              module_world.env("writer"))
    assert got.status == 0, got.text
    assert got.json == {"event": "complete", "oid": oid}
    assert "actions" not in batch(module_world, "acme/agent", data)["objects"][0]


def test_parts_that_lie(module_world: World) -> None:
    """An address is for one part of one upload; what is completed is what the sha256 says, whatever was sent, late or twice."""
    create(module_world, "lies")
    data = data_of("lies")
    assert batch(module_world, "acme/lies", data, ("basic",))["transfer"] == "basic"
    assert batch(module_world, "acme/lies", data[:MIB])["transfer"] == "basic"
    actions = batch(module_world, "acme/lies", data)["objects"][0]["actions"]
    chunk, end = int(actions["upload"]["header"].pop("chunk_size")), local(actions["upload"]["href"])
    parts = [local(href) for href in actions["upload"]["header"].values()]
    pieces = [data[at:at + chunk] for at in range(0, len(data), chunk)]
    whole = {"oid": hashlib.sha256(data).hexdigest(), "parts": [{"partNumber": i + 1, "etag": "x"} for i in range(len(parts))]}
    assert chunk == MIB // 2 and len(parts) == len(pieces) == 7
    for forged, status in ((parts[0].replace("/1/", "/2/"), 403), (parts[0].replace("/lfs-part/", "/lfs/"), 403),
                           (end.replace("/lfs-complete/", "/lfs-part/"), 403), (parts[0].replace("/acme/lies/", "/acme/llm/"), 403)):
        assert module_world.get(forged, None, "PUT", body=pieces[0]).status == status, forged
    assert post(module_world, parts[0].replace("/lfs-part/", "/lfs-complete/"), whole, None).status == 403
    got = post(module_world, end, whole, None)
    assert got.status == 400 and "begin" in got["X-Error-Message"], (got.status, got.body)
    for body, status in ((pieces[0][:-1], 422), (pieces[0] + b"x", 413), (b"", 422)):
        assert module_world.get(parts[0], None, "PUT", body=body).status == status
    for i in reversed(range(1, 7)):
        got = module_world.get(parts[i], None, "PUT", body=pieces[i])
        assert got.status == 200 and got["ETag"] == f'"{i + 1}"'
    got = post(module_world, end, whole, None)
    assert got.status == 400 and "part 1 has not been sent" in got["X-Error-Message"]
    assert module_world.get(parts[0], None, "PUT", body=pieces[1]).status == 200
    assert module_world.get(parts[0], None, "PUT", body=pieces[0]).status == 200          # sent again: the last one counts
    assert post(module_world, end, {**whole, "parts": whole["parts"][1:]}, None).status == 400
    assert post(module_world, end, {**whole, "oid": "0" * 64}, None).status == 400
    assert post(module_world, end, whole, None).status == 200
    assert post(module_world, end, whole, None).status == 200                             # the answer was lost
    assert "actions" not in batch(module_world, "acme/lies", data)["objects"][0]
    other = data_of("other")
    actions = batch(module_world, "acme/lies", other)["objects"][0]["actions"]
    for i, (name, href) in enumerate(sorted((name, href) for name, href in actions["upload"]["header"].items() if name != "chunk_size")):
        assert module_world.get(local(href), None, "PUT", body=pieces[i]).status == 200   # the right sizes, other bytes
    whole["oid"] = hashlib.sha256(other).hexdigest()
    got = post(module_world, local(actions["upload"]["href"]), whole, None)
    assert got.status == 422 and "sha256" in got["X-Error-Message"]
    assert "actions" in batch(module_world, "acme/lies", other)["objects"][0]
    nothing_left(module_world)


# ---- another name ----

MOVE = r"""
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
api, out, old, new = HfApi(), {}, sys.argv[1], sys.argv[2]
api.create_repo(old)
api.upload_file(path_or_fileobj=b"one", path_in_repo="a b.txt", repo_id=old)
sha = api.model_info(old).sha
api.move_repo(from_id=old, to_id=new)
out["id"] = [api.model_info(old).id, api.model_info(new).id]
out["same"] = api.model_info(old, revision=sha).sha == api.model_info(new).sha == sha
out["read"] = open(hf_hub_download(old, "a b.txt")).read()
out["files"] = sorted(each.rfilename for each in api.model_info(old).siblings)
out["tree"] = [each.path for each in api.list_repo_tree(old, recursive=True, expand=True)]
api.upload_file(path_or_fileobj=b"two", path_in_repo="b.txt", repo_id=old)
api.upload_file(path_or_fileobj=bytes(range(256)) * 50000, path_in_repo="c.bin", repo_id=old)
api.create_branch(old, branch="dev")
out["written"] = sorted(api.list_repo_files(new))
for how, to in (("there", new), ("here", new.upper()), ("bad", "acme/a--b")):
    try:
        api.move_repo(from_id="acme/llm", to_id=to)
    except Exception as error:
        out[how] = [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None), str(error)]
api.create_repo(old)
out["taken"] = [api.model_info(old).id, sorted(api.list_repo_files(old))]
print(json.dumps(out))
"""


@pytest.mark.parametrize("client", ["hf0362", "hf240"])
def test_another_name(module_world: World, client: str) -> None:
    old, new = f"acme/old-{client}", f"acme/New-{client}"
    got = python(client, MOVE, {**module_world.env("admin"), "HF_HUB_DISABLE_XET": "1"}, old, new)
    assert got.status == 0, got.text
    out = got.json
    assert out["id"] == [new, new] and out["same"] and out["read"] == "one", out
    assert out["files"] == out["tree"] == [".gitattributes", "a b.txt"]
    assert out["written"] == [".gitattributes", "a b.txt", "b.txt", "c.bin"]
    assert out["there"][1] == out["here"][1] == 409 and "exists already" in out["there"][2], out
    assert out["taken"] == [old, [".gitattributes"]]


def test_moved_by_hand_and_read_by_javascript(module_world: World) -> None:
    create(module_world, "by-hand")
    assert module_world.get("/api/models/acme/by-hand/commit/main", "writer", "POST", body=b'{"key":"header","value":{"summary":"s"}}\n'
                            b'{"key":"file","value":{"path":"a.txt","content":"text","encoding":"utf-8"}}').status == 200
    assert module_world.cli("repo", "move", "acme/by-hand", "acme/hand").returncode == 0
    assert module_world.cli("repo", "move", "acme/by-hand", "acme/hand", check=False).returncode == 1
    assert module_world.cli("repo", "move", "acme/hand", "google/hand", check=False).returncode == 2
    code = r"""
const hub = await import("@huggingface/hub");
const keys = { hubUrl: process.env.HF_ENDPOINT, accessToken: process.env.HF_TOKEN, repo: "acme/by-hand" };
const text = async () => (await hub.downloadFile({ ...keys, path: "a.txt" })).text();
const before = await text();
await hub.uploadFiles({ ...keys, useXet: false, files: [{ path: "a.txt", content: new Blob(["more"]) }, { path: "m.bin", content: new Blob([new Uint8Array(3000)]) }] });
const names = [];
for await (const each of hub.listFiles({ ...keys, repo: "acme/hand" })) names.push(each.path);
console.log(JSON.stringify([before, await text(), names]));
"""
    procs.wait_until("the new name is known", lambda: module_world.get("/api/models/acme/by-hand", "writer").status == 307)
    got = run([str(BUILD / "js" / "node"), "--input-type=module", "-e", code], module_world.env("writer"), cwd=BUILD / "js")
    assert got.status == 0, got.text
    assert got.json == ["text", "more", [".gitattributes", "a.txt", "m.bin"]]


def test_who_may_move(module_world: World) -> None:
    create(module_world, "ours")
    before = module_world.get("/api/models/acme/ours", "reader").body
    for who, names, status in (("writer", ("acme/ours", "acme/theirs"), 403), ("stranger", ("acme/ours", "acme/theirs"), 404),
                               (None, ("acme/ours", "acme/theirs"), 401), ("admin", ("acme/ours", "google/ours"), 404),
                               ("admin", ("google-bert/bert-base-uncased", "acme/theirs"), 403), ("admin", ("acme/none", "acme/theirs"), 404),
                               ("admin", ("acme/ours", "acme/ours"), 409), ("admin", ("acme/ours", "ours"), 400), ("admin", ("", ""), 400),
                               ("admin", ("acme/ours", "acme/x.git"), 400), ("admin", ("acme/ours", "acme/../x"), 400)):
        got = post(module_world, "/api/repos/move", {"fromRepo": names[0], "toRepo": names[1], "type": "model"}, who)
        assert got.status in (status, 403 if status == 404 and names[1] == "google/ours" else status), (who, names, got.status, got.body)
    assert module_world.get("/api/models/acme/ours", "reader").body == before
    assert post(module_world, "/api/repos/move", {"fromRepo": "acme/ours", "toRepo": "acme/theirs", "type": "model"}, "admin").status == 200
    got = module_world.get("/api/models/acme/ours/tree/main?recursive=true", "reader")
    assert got.status == 307 and got["Location"] == "/api/models/acme/theirs/tree/main?recursive=true"
    got = module_world.get("/acme/ours/resolve/main/a%20b%2Fc.txt?download=true", "reader")
    assert got.status == 307 and got["Location"] == "/acme/theirs/resolve/main/a%20b/c.txt?download=true"
    assert module_world.get("/api/models/acme/ours", "stranger").body == module_world.get("/api/models/acme/none", "stranger").body
    # a link to nowhere: the repository that it led to is deleted
    body = {"name": "theirs", "organization": "acme"}
    assert post(module_world, "/api/repos/delete", body, "admin", "DELETE").status == 200
    procs.wait_until("it is gone", lambda: module_world.get("/api/models/acme/ours", "reader").status == 404)


def test_a_move_takes_every_file(make_world: Callable[..., World]) -> None:
    """Whoever may not read some file could else take it to a name where he may."""
    policy = sample_policy("file")
    policy["rules"].append({"id": "no-keys", "deny": ["read"], "to": ["group:admins"], "reason": "Keys are not for everybody.",
                            "where": {"hub": "private", "repo": f"{ORG}/llm", "files": ["keys/*"]}})
    world = make_world(people="file", policy=policy)
    got = post(world, "/api/repos/move", {"fromRepo": f"{ORG}/llm", "toRepo": f"{ORG}/mine", "type": "model"}, "admin")
    assert got.status == 403 and "Keys are not for everybody." in got["X-Error-Message"], got.body
    assert world.get(f"/api/models/{ORG}/llm", "reader").status == 200


# ---- settings, history ----

SETTINGS = r"""
import json, sys
from huggingface_hub import HfApi
api, out, name = HfApi(), {}, sys.argv[1]
api.create_repo(name)
def tried(call):
    try:
        call()
        return "done"
    except Exception as error:
        return [getattr(getattr(error, "response", None), "status_code", None), str(error)]
def change(**kwargs):
    if hasattr(api, "update_repo_settings"):
        return api.update_repo_settings(name, **kwargs)
    return api.update_repo_visibility(name, **kwargs)
for key, kwargs in (("same", {"private": True}), ("open", {"private": False}), ("gated", {"gated": "auto"}), ("not gated", {"gated": False})):
    out[key] = tried(lambda: change(**kwargs))
for i in range(3):
    api.upload_file(path_or_fileobj=b"%d" % i, path_in_repo="a.txt", repo_id=name)
out["before"] = len(api.list_repo_commits(name))
out["squash"] = tried(lambda: api.super_squash_history(name))
out["after"] = [each.title for each in api.list_repo_commits(name)]
out["nowhere"] = tried(lambda: api.super_squash_history(name, branch="nowhere"))
out["check"] = tried(lambda: api.auth_check(name))
out["files"] = api.list_repo_files(name)
print(json.dumps(out))
"""


@pytest.mark.parametrize("client", ["hf0362", "hf240"])
def test_settings_and_history(module_world: World, client: str) -> None:
    got = python(client, SETTINGS, module_world.env("admin"), f"acme/set-{client}")
    assert got.status == 0, got.text
    out = got.json
    assert out["same"] == out["not gated"] == out["squash"] == out["check"] == "done", out
    assert out["open"][0] == 403 and "policy files" in out["open"][1]
    assert out["gated"][0] == 501 and "policy files" in out["gated"][1]
    assert out["before"] == 4 and len(out["after"]) == 1 and "squash" in out["after"][0].lower()
    assert out["nowhere"][0] == 404 and out["files"] == [".gitattributes", "a.txt"]


def test_public_is_said_to_be_private(module_world: World) -> None:
    for name, body, said in (("v1", {"private": False}, True), ("v2", {"visibility": "public"}, True), ("v3", {}, False), ("v4", {"private": True}, False)):
        got = post(module_world, "/api/repos/create", {"name": name, "organization": "acme", **body})
        assert got.status == 200 and ("private to the organization" in (got["X-HF-Warning"] or "")) == said, name


def test_who_may_set_and_squash(module_world: World) -> None:
    """Settings need `admin`; a squash takes history away, so it needs `delete`."""
    create(module_world, "kept")
    for route, method, body in (("settings", "PUT", {"private": True}), ("super-squash/main", "POST", {"message": "x"})):
        for who, status in (("writer", 403), ("reader", 403), ("stranger", 404), (None, 401), ("admin", 200)):
            got = post(module_world, f"/api/models/acme/kept/{route}", body, who, method)
            assert got.status == status, (route, who, got.status, got.body)
    assert post(module_world, "/api/models/acme/none/settings", {"private": True}, "admin", "PUT").status == 404
    assert post(module_world, "/api/models/google-bert/bert-base-uncased/settings", {"private": True}, "admin", "PUT").status == 403
    assert module_world.get("/api/models/acme/kept/settings", "admin", "PUT", body=b"[]").status == 400


def test_pages_of_commits(module_world: World) -> None:
    create(module_world, "long")
    for i in range(60):
        line = json.dumps({"key": "file", "value": {"path": "a", "content": str(i), "encoding": "utf-8"}})
        got = module_world.get("/api/models/acme/long/commit/main", "writer", "POST",
                               body=b'{"key":"header","value":{"summary":"number %d"}}\n' % i + line.encode())
        assert got.status == 200, got.body
    got = python("hf240", "import json\nfrom huggingface_hub import HfApi\nprint(json.dumps([each.title for each in HfApi().list_repo_commits('acme/long')]))",
                 module_world.env("reader"))
    assert got.status == 0, got.text
    assert got.json == [f"number {i}" for i in reversed(range(60))] + ["initial commit"]


# ---- before an upload ----

FOLDER = r"""
import json, sys, warnings
from huggingface_hub import HfApi
api, out, name, folder = HfApi(), {}, sys.argv[1], sys.argv[2]
api.create_repo(name)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    api.upload_folder(repo_id=name, folder_path=folder)
out["said"] = [str(each.message) for each in said]
out["files"] = sorted(api.list_repo_files(name))
api.upload_file(path_or_fileobj=b"x", path_in_repo="more.log", repo_id=name)
api.upload_file(path_or_fileobj=b"x", path_in_repo="kept.txt", repo_id=name)
out["after"] = sorted(api.list_repo_files(name))
for key, text in (("bad", "---\ntags: [\n---\n"), ("wrong", "---\ntags: one\n---\n")):
    try:
        api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=name)
        out[key] = "done"
    except ValueError as error:
        out[key] = str(error)
print(json.dumps(out))
"""


@pytest.mark.parametrize("client", ["hf0362", "hf240"])
def test_what_is_ignored_and_said(module_world: World, tmp_path: Path, client: str) -> None:
    """The .gitignore that is sent, then the one in the repository; a README's head."""
    for name, text in {".gitignore": "*.log\ncheckpoint-*/\n", "a.log": "x", "checkpoint-1/m.txt": "x", "kept.txt": "x", "README.md": "# Hi\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    got = python(client, FOLDER, module_world.env("writer"), f"acme/ignore-{client}", str(tmp_path))
    assert got.status == 0, got.text
    out = got.json
    assert out["files"] == out["after"] == [".gitattributes", ".gitignore", "README.md", "kept.txt"], out
    assert any("missing yaml metadata" in text for text in out["said"])
    assert "README.md:" in out["bad"] and 'README.md:2:1: "tags" must be a list' in out["wrong"]


# ---- pull requests, as far as uploads go ----

PROPOSE = r"""
import json, sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
api, out, name = HfApi(), {}, sys.argv[1]
api.create_repo(name)
api.upload_file(path_or_fileobj=b"one", path_in_repo="a.txt", repo_id=name)
before = api.model_info(name).sha
first = api.create_commit(name, [CommitOperationAdd("a.txt", b"two"), CommitOperationAdd("m.bin", b"\0\1" * 1000)], commit_message="Proposed", create_pr=True,
                          parent_commit=before)
out["first"] = [first.pr_url, first.pr_revision, first.pr_num]
second = api.upload_file(path_or_fileobj=b"x", path_in_repo="b.txt", repo_id=name, create_pr=True)
api.upload_file(path_or_fileobj=b"y", path_in_repo="c.txt", repo_id=name, revision="refs/pr/1")
out["main"] = [api.model_info(name).sha == before, sorted(api.list_repo_files(name))]
out["pr"] = sorted(api.list_repo_files(name, revision="refs/pr/1"))
out["read"] = open(hf_hub_download(name, "a.txt", revision="refs/pr/1")).read()
out["refs"] = [[each.name, each.ref] for each in api.list_repo_refs(name, include_pull_requests=True).pull_requests]
out["hidden"] = [each.name for each in api.list_repo_refs(name).branches]
for key, operations, parent in (("late", [CommitOperationAdd("z", b"z")], first.oid), ("absent", [CommitOperationDelete("nope")], None)):
    try:
        api.create_commit(name, operations, commit_message="x", create_pr=True, parent_commit=parent)
    except Exception as error:
        out[key] = error.response.status_code
out["left"] = len(api.list_repo_refs(name, include_pull_requests=True).pull_requests)
print(json.dumps(out))
"""


@pytest.mark.parametrize("client", ["hf0362", "hf240"])
def test_proposals(module_world: World, client: str) -> None:
    name = f"acme/propose-{client}"
    got = python(client, PROPOSE, {**module_world.env("writer"), "HF_HUB_DISABLE_XET": "1"}, name)
    assert got.status == 0, got.text
    out = got.json
    assert out["first"] == [f"{module_world.url}/{name}/discussions/1", "refs/pr/1", 1], out
    assert out["main"] == [True, [".gitattributes", "a.txt"]]
    assert out["pr"] == [".gitattributes", "a.txt", "c.txt", "m.bin"] and out["read"] == "two"
    assert out["refs"] == [["1", "refs/pr/1"], ["2", "refs/pr/2"]] and out["hidden"] == ["main"]
    assert out["late"] == 412 and out["absent"] == 404 and out["left"] == 2


def test_who_only_proposes(make_world: Callable[..., World]) -> None:
    """A rule for refs/pr/* is a right to propose, large files included, and to nothing else."""
    policy = sample_policy("file")
    policy["rules"].append({"id": "staff-propose", "allow": ["write"], "to": ["group:staff"],
                            "where": {"hub": "private", "repo": f"{ORG}/*", "revisions": ["refs/pr/*"]}})
    world = make_world(people="file", policy=policy)
    code = """
import io, json, os
from huggingface_hub import CommitOperationAdd, HfApi
api, out = HfApi(), {}
add = [CommitOperationAdd("a.txt", b"a"), CommitOperationAdd("m.bin", os.urandom(5000))]
out["pr"] = api.create_commit("acme/llm", add, commit_message="x", create_pr=True).pr_revision
out["files"] = sorted(api.list_repo_files("acme/llm", revision=out["pr"]))
api.upload_file(path_or_fileobj=b"more", path_in_repo="b.txt", repo_id="acme/llm", revision=out["pr"])
for key, call in (("commit", lambda: api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id="acme/llm")),
                  ("branch", lambda: api.create_branch("acme/llm", branch="mine"))):
    try:
        call()
        out[key] = "done"
    except Exception as error:
        out[key] = error.response.status_code
print(json.dumps(out))
"""
    got = python("hf0362", code, {**world.env("reader"), "HF_TOKEN": world.mint("reader", "write")})
    assert got.status == 0, got.text
    assert got.json["pr"] == "refs/pr/1" and {"a.txt", "m.bin"} <= set(got.json["files"]), got.json
    assert got.json["commit"] == got.json["branch"] == 403


# ---- quotas ----

QUOTA = r"""
import json, os, sys
from huggingface_hub import CommitOperationDelete, HfApi
api, out, name = HfApi(), {}, sys.argv[1]
api.create_repo(name)
api.upload_file(path_or_fileobj=os.urandom(600000), path_in_repo="fits.bin", repo_id=name)
for key, size, path in (("large", 600000, "too.bin"), ("regular", 600000, "too.txt")):
    try:
        api.upload_file(path_or_fileobj=os.urandom(size), path_in_repo=path, repo_id=name)
        out[key] = "done"
    except Exception as error:
        out[key] = [getattr(getattr(error, "response", None), "status_code", None), str(error)]
out["files"] = sorted(api.list_repo_files(name))
api.create_commit(name, [CommitOperationDelete("fits.bin")], commit_message="Deleting is always possible")
api.upload_file(path_or_fileobj=b"little", path_in_repo="a.txt", repo_id=name)
print(json.dumps(out))
"""


def test_quota(make_world: Callable[..., World]) -> None:
    """Refused before anything is sent, with all numbers; whoever sends all the same is refused too."""
    world = make_world(people="file", settings={"quotas": ["other=1GiB", "acme=1000KiB"], "multipart.above": "300KiB", "multipart.part": "128KiB"},
                       private={})
    got = python("hf0362", QUOTA, {**world.env("writer"), "HF_HUB_DISABLE_XET": "1"}, "acme/full")
    assert got.status == 0, got.text
    out = got.json
    for key in ("large", "regular"):
        assert out[key][0] == 507 and "may hold 1000.0 KiB and holds 58" in out[key][1], out
    assert out["files"] == [".gitattributes", "fits.bin"]
    data = data_of("quota", 600000)
    answer = batch(world, "acme/full", data)["objects"][0]
    assert answer["error"]["code"] == 507 and "do not fit" in answer["error"]["message"]
    line = json.dumps({"key": "file", "value": {"path": "b.txt", "content": "x" * 600000, "encoding": "utf-8"}})
    got = world.get("/api/models/acme/full/commit/main", "writer", "POST", body=b'{"key":"header","value":{"summary":"s"}}\n' + line.encode())
    assert got.status == 507 and "do not fit" in got["X-Error-Message"]
    # both addresses are made while there is room; the second one has none any more when its bytes come
    first, second = data_of("first", 200000), data_of("second", 250000)
    hrefs = [local(batch(world, "acme/full", each, ("basic",))["objects"][0]["actions"]["upload"]["href"]) for each in (first, second)]
    assert world.get(hrefs[0], None, "PUT", body=first).status == 200
    got = world.get(hrefs[1], None, "PUT", body=second)
    assert got.status == 507 and "do not fit" in got["X-Error-Message"]
    shown = world.cli("repo", "usage").stdout
    assert "of 1000.0 KiB  acme" in shown, shown
    rows = json.loads(world.cli("repo", "usage", "acme", "--json").stdout)
    assert [row["id"] for row in rows] == ["model:acme/full"] and rows[0]["bytes"] > 800000


def test_what_is_not_here(module_world: World) -> None:
    """Parts of the Hub's API that are not here: 501 with a sentence, the same for everybody; addresses that are none: 404."""
    for method, path in (("GET", "/api/collections"), ("POST", "/api/models/acme/llm/like"), ("GET", "/api/jobs/acme"), ("GET", "/api/nothing"),
                         ("POST", "/api/models/acme/none/duplicate"), ("GET", "/api/models/acme/llm/lfs-files"), ("POST", "/api/repos/nothing"),
                         ("POST", "/api/models/acme/llm/discussions"), ("GET", "/api/models/acme/llm/discussions/1")):
        got = module_world.get(path, "writer", method, body=b"{}" if method == "POST" else None)
        assert got.status == 501 and got["X-Error-Code"] == "NotImplemented" and got["X-Error-Message"], (path, got.status, got.body)
    for path in ("/nothing", "/acme", "/api/models/a--b/c", "/-/nothing"):
        assert module_world.get(path, "writer").status == 404, path


def test_parts_by_two_nodes_and_a_killed_worker(make_world: Callable[..., World]) -> None:
    """Parts go to two nodes in turn; a worker dies with a part under way, and another one takes what follows."""
    settings = {**WORLD["settings"], "multipart.part": "4MiB"}
    first = make_world(people="file", settings=settings, workers=1)
    second = make_world(node_of=first, people="file", settings=settings, workers=1)
    first.expect_log(r"\[alert\].*exited on signal 9", min=1, max=2)
    data = data_of("nodes", 13 * MIB)
    create(first, "nodes")
    upload = batch(first, "acme/nodes", data)["objects"][0]["actions"]["upload"]
    chunk, hrefs = int(upload["header"].pop("chunk_size")), [local(href) for href in upload["header"].values()]
    parts = urlsplit(first.url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 80)), 60) as sock:
        sock.sendall(f"PUT {hrefs[2]} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {chunk}\r\n\r\n".encode() + bytes(3 * MIB))
        procs.wait_until("the part is begun", lambda: any(path.name.startswith("parts-") for path in (first.folder / "data/tmp").iterdir()))
        first.nginx.kill_worker()
        assert sock.recv(100) == b""
    for number, href in enumerate(hrefs):
        procs.wait_until("a worker takes it", lambda: first.get("/-/healthz").status == 200)
        got = (first, second)[number % 2].get(href, None, "PUT", body=data[number * chunk:(number + 1) * chunk])
        assert got.status == 200, got.body
    body = {"oid": hashlib.sha256(data).hexdigest(), "parts": [{"partNumber": number + 1, "etag": "x"} for number in range(len(hrefs))]}
    assert post(second, local(upload["href"]), body, None).status == 200
    assert "actions" not in batch(first, "acme/nodes", data)["objects"][0]
    nothing_left(first)


def test_time_of_an_address(module_world: World) -> None:
    """An address ends; that it is over is said, and nothing is written."""
    create(module_world, "late")
    key = (module_world.folder / "data/key").read_bytes()
    data = data_of("late")
    upload = batch(module_world, "acme/late", data)["objects"][0]["actions"]["upload"]
    for href, label, method in ((upload["header"]["00001"], b"lfs part", "PUT"), (upload["href"], b"lfs complete", "POST")):
        prefix, text = local(href).split("/acme/late/", 1)
        fields = ("model/acme/late/" + text).split("/")[:-1]
        for until, words in ((str(int(fields[5]) - 10 * 86400), "time of this address is over"), (fields[5], "")):
            fields[5] = until
            mac = hmac.new(hmac.new(key, label, "sha256").digest(), "/".join(fields).encode(), "sha256").hexdigest()
            got = module_world.get(f"{prefix.rsplit('/', 1)[0]}/{'/'.join(fields)}/{mac}", None, method, body=data[:524288] if method == "PUT" else b"{}")
            assert (got.status == 403 and words in got["X-Error-Message"]) if words else got.status in (200, 400), (label, got.status, got.body)


# ---- and git ----

def test_git_in_parts_under_an_old_name(module_world: World) -> None:
    """git-lfs with the agent of `hf lfs-enable-largefiles`, in a clone whose remote has the old name of a repository."""
    git = Git(module_world)
    create(module_world, "old-git")
    folder = git.clone("acme/old-git")
    assert post(module_world, "/api/repos/move", {"fromRepo": "acme/old-git", "toRepo": "acme/new-git"}, "admin").status == 200
    assert run([str(HF["hf0362"] / "bin" / "huggingface-cli"), "lfs-enable-largefiles", str(folder)], git.env).status == 0
    git("config", "lfs.customtransfer.multipart.path", str(HF["hf0362"] / "bin" / "huggingface-cli"), cwd=folder)
    data = data_of("git")
    git.commit(folder, {"model.safetensors": data, "small.bin": b"small"})
    done = git.run("push", cwd=folder)
    assert done.returncode == 0, done.stderr
    got = module_world.get("/acme/new-git/resolve/main/model.safetensors", "reader")
    assert got.status == 200 and got.body == data
    procs.wait_until("they are recorded", lambda: {"upload-part", "upload-complete"} <= {each["event"] for each in module_world.audit()})
    for each in module_world.audit():            # an address is a credential: of it the digest is recorded
        if each["event"].startswith("upload-") and "resource" in each:
            assert "path" not in each["resource"] and len(each["resource"]["digest"]) == 64, each
    again = git.clone("acme/old-git", to="again")
    assert (again / "model.safetensors").read_bytes() == data


def test_quota_of_a_push(make_world: Callable[..., World]) -> None:
    world = make_world(people="file", settings={"quotas": ["acme=300KiB"]}, private={})
    git = Git(world)
    create(world, "full")
    folder = git.clone("acme/full")
    git.commit(folder, {"fits.txt": data_of("a", 100000)})
    git("push", cwd=folder)
    git.commit(folder, {"too.txt": data_of("b", 250000)})
    said = git.refused("push", cwd=folder)
    assert "may hold 300.0 KiB" in said and "do not fit" in said, said
    git("reset", "-q", "--hard", "HEAD~1", cwd=folder)
    git.commit(folder, {"too.bin": data_of("c", 250000)})
    said = git.refused("push", cwd=folder)
    assert "do not fit" in said, said
