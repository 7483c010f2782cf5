"""The other clients that write: datasets, huggingface.js, HfFileSystem, upload_large_folder, the hf command; and Xet, which is not here."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from clients import BUILD, hf, python, run

from tests.lab import procs
from tests.lab.world import World, sample_policy

MIB = 1 << 20
POLICY = sample_policy()
POLICY["rules"].append({"id": "writers-delete", "allow": ["delete"], "to": ["group:writers"], "where": {"hub": "private", "repo": "acme/*"}})
WORLD: dict = {"workers": 2, "policy": POLICY}


def plain(world: World, **more: str) -> dict[str, str]:
    """A writer who has been told that there is no Xet here."""
    return world.env("writer", HF_HUB_DISABLE_XET="1", **more)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def events(world: World, name: str) -> list[str]:
    """What was asked about acme/NAME, in order (of a world with one worker: its records come in order)."""
    mark = f"mark-{name}-{len(world.audit())}"
    world.get("/api/whoami-v2", "reader", headers={"User-Agent": mark})
    procs.wait_until("the audit records", lambda: any(record["agent"] == mark for record in world.audit()))
    return [record["event"] for record in world.audit() if record.get("resource", {}).get("name") == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("content")
    for i in range(60):
        path = top / f"part {i % 3}" / f"{i}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text {i}\n")
    (top / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    for i in range(3):
        (top / f"model-{i}.safetensors").write_bytes(hashlib.sha256(bytes([i])).digest() * (2 * MIB // 32))
    return top


def tree(world: World, name: str, kind: str = "models") -> dict[str, dict[str, Any]]:
    got = world.get(f"/api/{kind}/acme/{name}/tree/main?recursive=true", "reader")
    assert got.status == 200, got.body
    return {entry["path"]: entry for entry in json.loads(got.body) if entry["type"] == "file"}


def holds(world: World, name: str, folder: Path) -> None:
    """The repository is the folder (and .gitattributes), large files as objects."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts}
    entries = tree(world, name)
    assert set(entries) == {*files, ".gitattributes"}
    for path, data in files.items():
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        assert entries[path]["size"] == len(data)
        assert entries[path]["lfs"]["oid"] == sha256(data) if path.endswith(".safetensors") else entries[path]["oid"] == oid


# ---- upload_large_folder, the hf command ----

LARGE = r"""
import json, sys
from huggingface_hub import HfApi
api = HfApi()
api.upload_large_folder(sys.argv[1], sys.argv[2], repo_type="model", private=True, print_report=False, num_workers=1)
print(json.dumps([each.title for each in api.list_repo_commits(sys.argv[1])]))
"""


def test_upload_large_folder(module_world: World, folder: Path) -> None:
    done = python("hf0362", LARGE, plain(module_world), "acme/large-folder", str(folder))
    assert done.status == 0 and done.json[-1] == "initial commit" and len(done.json) >= 2, done.text
    holds(module_world, "large-folder", folder)


def test_hf_upload_large_folder(module_world: World, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"             # it notes in the folder what it has sent
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".cache"))
    done = hf("hf0362", plain(module_world), "upload-large-folder", "acme/large-by-hand", str(copy), "--repo-type=model", "--no-report", "--num-workers=1")
    assert done.status == 0, done.text
    holds(module_world, "large-by-hand", copy)


def test_hf_repos(module_world: World) -> None:
    env = plain(module_world)
    for kind in ("model", "dataset", "space"):
        more = ["--space-sdk", "static"] if kind == "space" else []
        done = hf("hf240", env, "repos", "create", f"acme/cli-{kind}", "--type", kind, *more)
        assert done.status == 0 and f"acme/cli-{kind}" in done.text, done.text
        done = hf("hf240", env, "repos", "create", f"acme/cli-{kind}", "--type", kind, *more)
        assert done.status != 0 and "409" in done.text, done.text
    assert hf("hf240", env, "repos", "branch", "create", "acme/cli-model", "dev").status == 0
    assert hf("hf240", env, "repos", "tag", "create", "acme/cli-model", "v1").status == 0
    assert hf("hf240", env, "repos", "delete", "acme/cli-model", "--yes").status == 0
    assert module_world.get("/api/models/acme/cli-model", "reader").status == 404
    done = hf("hf0362", env, "repo", "create", "acme/cli-old", "--repo-type", "model")
    assert done.status == 0 and module_world.get("/api/models/acme/cli-old", "reader").status == 200, done.text


def test_hf_delete_files(module_world: World, folder: Path) -> None:
    """And `hf upload --delete`, which lists, deletes and adds in one commit."""
    env = plain(module_world)
    assert hf("hf240-noxet", env, "upload", "acme/sync", str(folder), ".").status == 0
    done = hf("hf240-noxet", env, "repos", "delete-files", "acme/sync", "part 0/*")
    assert done.status == 0, done.text
    assert not [path for path in tree(module_world, "sync") if path.startswith("part 0/")]
    done = hf("hf240-noxet", env, "upload", "acme/sync", str(folder / "part 0"), "part 1", "--delete", "*.txt")
    assert done.status == 0, done.text
    assert {Path(path).name for path in tree(module_world, "sync") if path.startswith("part 1/")} == {f"{i}.txt" for i in range(0, 60, 3)}


UNCHANGED = r"""
import json, sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(sys.argv[1], exist_ok=True)
for _ in range(2):
    api.upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2])
print(json.dumps(len(api.list_repo_commits(sys.argv[1]))))
"""


def test_unchanged_files_are_not_sent_again(make_world: Callable[..., World], folder: Path) -> None:
    """The second upload of the same folder: no object, no commit."""
    world = make_world(policy=POLICY)
    for client in ("hf0203", "hf0362", "hf240-noxet"):
        name = f"unchanged-{client}"
        done = python(client, UNCHANGED, plain(world), f"acme/{name}", str(folder))
        assert done.status == 0, done.text
        asked = events(world, name)
        assert asked.count("upload") == 3 and asked.count("preupload") == 2, (client, asked)
        # 0.20.3 knows no way to skip a file: its second commit is of the same tree, and so it is none
        assert done.json == 2 and asked.count("commit") == (2 if client == "hf0203" else 1), (client, asked)


# ---- Xet ----

@pytest.mark.parametrize("client", ["hf133", "hf240"])
def test_xet_is_not_here(module_world: World, folder: Path, client: str) -> None:
    """These know no way but Xet for large files unless told: what to set is said before it fails, and then it works."""
    env, name = module_world.env("writer"), f"xet-{client}"
    done = hf(client, env, "upload", f"acme/{name}", str(folder / "model-0.safetensors"), "model.safetensors")
    assert done.status != 0 and "HF_HUB_DISABLE_XET=1" in done.text, done.text
    assert set(tree(module_world, name)) == {".gitattributes"}
    done = hf(client, env, "upload", f"acme/{name}", str(folder / "README.md"), "README.md")
    assert done.status == 0 and "README.md" in tree(module_world, name), done.text
    done = hf(client, {**env, "HF_HUB_DISABLE_XET": "1"}, "upload", f"acme/{name}", str(folder / "model-0.safetensors"), "model.safetensors")
    assert done.status == 0 and tree(module_world, name)["model.safetensors"]["lfs"]["size"] == 2 * MIB, done.text


# ---- fsspec ----

FILES = r"""
import json, os, sys
from huggingface_hub import HfApi, HfFileSystem
name, out = sys.argv[1], {}
api = HfApi()
api.create_repo(name, private=True)
fs = HfFileSystem()
with fs.open(f"{name}/notes/one.txt", "wb") as file:
    file.write(b"one line\n")
fs.pipe(f"{name}/weights.bin", b"\1\2\3\4" * 300000)
with open(os.environ["HOME"] + "/local.txt", "w") as file:
    file.write("put")
fs.put(os.environ["HOME"] + "/local.txt", f"{name}/put.txt")
fs.cp_file(f"{name}/weights.bin", f"{name}/copies/weights.bin")
fs.cp_file(f"{name}/put.txt", f"{name}/copies/put.txt")
fs.mv(f"{name}/put.txt", f"{name}/moved.txt")
fs.invalidate_cache()
out["notes"] = fs.cat(f"{name}/notes/one.txt").decode()
out["files"] = sorted(path.removeprefix(name + "/") for path in fs.find(name))
out["copy"] = fs.cat(f"{name}/copies/weights.bin") == fs.cat(f"{name}/weights.bin") == b"\1\2\3\4" * 300000
fs.rm(f"{name}/copies", recursive=True)
fs.rm(f"{name}/moved.txt")
fs.invalidate_cache()
out["left"] = sorted(path.removeprefix(name + "/") for path in fs.find(name))
print(json.dumps(out))
"""


@pytest.mark.parametrize("client", ["hf0203", "hf0362", "hf240"])
def test_file_system(module_world: World, client: str) -> None:
    done = python(client, FILES, plain(module_world), f"acme/fs-{client}")
    assert done.status == 0, done.text
    out = done.json
    assert out["notes"] == "one line\n" and out["copy"]
    assert out["files"] == [".gitattributes", "copies/put.txt", "copies/weights.bin", "moved.txt", "notes/one.txt", "weights.bin"]
    assert out["left"] == [".gitattributes", "notes/one.txt", "weights.bin"]
    assert tree(module_world, f"fs-{client}")["weights.bin"]["lfs"]["oid"] == sha256(b"\1\2\3\4" * 300000)


# ---- datasets ----

DATASET = r"""
import json, sys
from datasets import Dataset, DatasetDict, load_dataset
name = sys.argv[1]
rows = [{"id": at, "text": f"row {at}, \u00e9", "label": at % 3} for at in range(500)]
whole = Dataset.from_list(rows)
DatasetDict({"train": whole.select(range(400)), "test": whole.select(range(400, 500))}).push_to_hub(name, private=True)
out = {split: load_dataset(name, split=split).to_list() for split in ("train", "test")}
assert out["train"] + out["test"] == rows
whole.select(range(50)).push_to_hub(name, "small", private=True, num_shards=2)          # another configuration, two files
assert load_dataset(name, "small", split="train").to_list() == rows[:50]
whole.select(range(40)).push_to_hub(name, "small", private=True)                        # and over it again
assert load_dataset(name, "small", split="train", download_mode="force_redownload").to_list() == rows[:40]
assert sum(row["id"] for row in load_dataset(name, split="test", streaming=True)) == sum(range(400, 500))
print(json.dumps("pushed"))
"""


def test_datasets_push_to_hub(module_world: World) -> None:
    done = python("datasets", DATASET, plain(module_world, HF_DATASETS_DISABLE_PROGRESS_BARS="1"), "acme/rows")
    assert done.status == 0 and done.json == "pushed", done.text
    entries = tree(module_world, "rows", "datasets")
    tables = [path for path in entries if path.endswith(".parquet")]
    assert len(tables) == 3 and all("lfs" in entries[path] for path in tables), list(entries)


# ---- huggingface.js ----

WRITE = r"""
const { createHash } = await import("node:crypto");
const hub = await import("@huggingface/hub");
const real = globalThis.fetch;
globalThis.fetch = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    if (url.protocol.startsWith("http") && url.origin !== new URL(process.env.HF_ENDPOINT).origin) throw new Error(`asked ${url.href}`);
    return real(input, init);
};
const [name, useXet] = process.argv.slice(1);
const keys = { hubUrl: process.env.HF_ENDPOINT, accessToken: process.env.HF_TOKEN, repo: { type: "model", name } }, out = {};
if (useXet) keys.useXet = useXet === "true";
const list = async () => { const found = {}; for await (const row of hub.listFiles({ ...keys, recursive: true }))
    if (row.type === "file") found[row.path] = [row.size, row.lfs?.oid ?? null]; return found; };
const failed = async (call) => { try { await call(); return null; } catch (error) { return [error.statusCode ?? null, error.message]; } };
out.url = (await hub.createRepo({ ...keys, private: true })).repoUrl;
out.again = await failed(() => hub.createRepo({ ...keys, private: true }));
const large = new Uint8Array(3_000_000).map((_, at) => at % 251);
const files = [{ path: "config.json", content: new Blob(["{}"]) }, { path: "model.safetensors", content: new Blob([large]) },
    { path: "empty.safetensors", content: new Blob([]) }, { path: "empty.txt", content: new Blob([]) }, { path: "odd \u00e9 #+%.txt", content: new Blob(["odd"]) },
    ...Array.from({ length: 150 }, (_, at) => ({ path: `many/${at}.txt`, content: new Blob([`${at}`]) }))];
const first = await hub.uploadFiles({ ...keys, files, commitTitle: "All of it" });
out.first = first.commit;
out.files = await list();
out.same = (await hub.uploadFiles({ ...keys, files, commitTitle: "Again" })).commit.oid === first.commit.oid;
await hub.commit({ ...keys, title: "Both", operations: [{ operation: "addOrUpdate", path: "new.txt", content: new Blob(["new"]) },
    { operation: "delete", path: "config.json" }], parentCommit: first.commit.oid });
out.late = await failed(() => hub.commit({ ...keys, title: "Late", operations: [{ operation: "delete", path: "new.txt" }], parentCommit: first.commit.oid }));
await hub.deleteFiles({ ...keys, paths: Array.from({ length: 150 }, (_, at) => `many/${at}.txt`) });
await hub.createBranch({ ...keys, branch: "dev/x" });
await hub.uploadFile({ ...keys, branch: "dev/x", file: { path: "dev.txt", content: new Blob(["dev"]) } });
out.left = await list();
const got = await hub.downloadFile({ ...keys, path: "model.safetensors" });
out.read = createHash("sha256").update(Buffer.from(await got.arrayBuffer())).digest("hex");
out.commits = []; for await (const each of hub.listCommits({ ...keys })) out.commits.push(each.title);
await hub.deleteBranch({ ...keys, branch: "dev/x" });
await hub.deleteRepo(keys);
out.exists = await hub.repoExists(keys);
console.log(JSON.stringify(out));
"""


@pytest.mark.parametrize("xet", ["", "false"], ids=["as-it-is", "without-xet"])
def test_huggingface_js(module_world: World, xet: str) -> None:
    name = f"acme/js{xet}"
    done = run([str(BUILD / "js" / "node"), "--input-type=module", "-e", WRITE, "--", name, xet], plain(module_world), 120, BUILD / "js")
    assert done.status == 0, done.text
    out = done.json
    large = sha256(bytes(at % 251 for at in range(3_000_000)))
    assert out["url"].endswith(name) and out["again"][0] == 409 and len(out["first"]["oid"]) == 40 and out["first"]["oid"] in out["first"]["url"]
    assert out["files"]["model.safetensors"] == [3_000_000, large] and out["files"]["config.json"] == [2, None]
    assert out["files"]["empty.safetensors"] == [0, None] and out["files"]["empty.txt"] == [0, None] and out["files"]["odd é #+%.txt"] == [3, None]
    assert len(out["files"]) == 156 and out["same"] and out["late"][0] == 412 and out["read"] == large
    assert set(out["left"]) == {".gitattributes", "model.safetensors", "empty.safetensors", "empty.txt", "odd é #+%.txt", "new.txt"}
    assert out["commits"][1:3] == ["Both", "All of it"] and out["commits"][-1] == "initial commit" and out["exists"] is False
