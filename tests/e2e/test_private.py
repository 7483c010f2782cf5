"""Private repositories: made and filled by the command, read by every client as the folder they came from."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest
from clients import HF, python
from downloads import MIB, Download, sha256

from tests.lab import procs
from tests.lab.demo import tiny
from tests.lab.hubctl import HubProcess
from tests.lab.nginx import command_file
from tests.lab.world import World

ODD = {
    "README.md": "---\nlicense: mit\n---\n# Odd\n", "config.json": "{}\n", "dir with space/é+#%.txt": "quoted\n", "a+b.txt": "plus\n", "100%.txt": "per cent\n",
    "no#fragment.txt": "hash\n", "what?.txt": "question\n", "日本語/モデル.json": "{}\n", "semi;colon,comma&amp=.txt": "separators\n",
    "weights of 100%.bin": {"size": 70_000, "seed": 5}, "empty.txt": "", "empty.bin": {"text": ""}, "~tilde!$'()*.txt": "sub-delims\n",
    "deep/er/and/deeper/file.txt": "deep\n", "big.safetensors": {"size": 5 * MIB + 17, "seed": 6}, ".hidden/x.txt": "hidden\n"}
WORLD = {"workers": 2, "private": {"acme/llm": tiny("The company's model", 21), "acme/odd": ODD}}

READ = r"""
import hashlib, json, os
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
api, fs, out = HfApi(), HfFileSystem(), {}
def sha(path): return hashlib.sha256(open(path, "rb").read()).hexdigest()
def folder(path): return {os.path.relpath(os.path.join(at, name), path): sha(os.path.join(at, name)) for at, _, names in os.walk(path) for name in names}
out["snapshot"] = folder(snapshot_download("acme/odd"))
out["one"] = sha(hf_hub_download("acme/odd", "big.safetensors"))
info = api.model_info("acme/odd", files_metadata=True)
out["info"] = [info.id, info.private, info.author]
out["sha"] = info.sha
out["siblings"] = {each.rfilename: [each.size, each.blob_id, each.lfs and each.lfs["sha256"]] for each in info.siblings}
out["tree"] = {each.path: [each.size, each.blob_id, each.lfs and each.lfs["sha256"]] for each in api.list_repo_tree("acme/odd", recursive=True) if hasattr(each, "size")}
out["paths"] = [each.path for each in api.get_paths_info("acme/odd", ["config.json", "nope", "deep"])]
refs = api.list_repo_refs("acme/odd")
out["refs"] = [[each.name for each in refs.branches], [each.name for each in refs.tags]]
out["commits"] = [[each.commit_id, each.title] for each in api.list_repo_commits("acme/odd")]
with fs.open("acme/odd/big.safetensors") as file:
    file.seek(MIB := 1 << 20)
    out["range"] = hashlib.sha256(file.read(3000)).hexdigest()
out["exists"] = [api.file_exists("acme/odd", "config.json"), api.file_exists("acme/odd", "nope"), api.repo_exists("acme/none"), hasattr(api, "revision_exists") and api.revision_exists("acme/odd", "nope")]
out["at sha"] = folder(snapshot_download("acme/llm", revision=api.model_info("acme/llm").sha))
print(json.dumps(out))
"""


def folder(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): sha256(file.read_bytes()) for file in sorted(path.rglob("*")) if file.is_file()}


def source(world: World, name: str) -> Path:
    return world.folder / "sources" / name


def git(world: World, name: str, *arguments: str) -> str:
    """What git itself says of the repository, as it lies in data/."""
    where = world.nginx.data / "repos" / "model" / f"{name}.git"
    return subprocess.run(["git", "-c", "safe.directory=*", "--git-dir", str(where), *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("client", list(HF))
def test_clients_read_the_folder(module_world: World, hub: HubProcess, client: str) -> None:
    """Bytes, sizes, git's ids and the sha256 of LFS; the Hub hears nothing of it."""
    done = python(client, READ, module_world.env("reader"), timeout=180)
    assert done.status == 0, done.text
    out, here = done.json, folder(source(module_world, "acme/odd"))
    got = {path: digest for path, digest in out["snapshot"].items() if path != ".gitattributes"}
    assert got == here and out["one"] == here["big.safetensors"]
    assert out["info"] == ["acme/odd", True, "acme"]
    assert out["sha"] == git(module_world, "acme/odd", "rev-parse", "main").strip()
    ids = dict(reversed(line.split("\t", 1)[0].split()[2:3] + [line.split("\t", 1)[1]]) for line in git(
        module_world, "acme/odd", "-c", "core.quotePath=false", "ls-tree", "-r", "-z", "main").replace("\0", "\n").splitlines())
    for listing in (out["siblings"], out["tree"]):
        listing = {path: row for path, row in listing.items() if path != ".gitattributes"}
        assert set(listing) == set(here)
        for path, (size, oid, lfs) in listing.items():
            assert size == (source(module_world, "acme/odd") / path).stat().st_size and oid == ids[path]
            assert lfs in (None, here[path])
        assert listing["big.safetensors"][2] and listing["weights of 100%.bin"][2] and not listing["config.json"][2]
    assert sorted(out["paths"]) == ["config.json", "deep"] and out["refs"] == [["main"], []]
    assert out["commits"][0] == [out["sha"], "Import"]
    big = (source(module_world, "acme/odd") / "big.safetensors").read_bytes()
    assert out["range"] == sha256(big[MIB:MIB + 3000])
    assert out["exists"] == [True, False, False, False]
    assert {path: digest for path, digest in out["at sha"].items() if path != ".gitattributes"} == {
        path: digest for path, digest in folder(source(module_world, "acme/llm")).items() if path != ".gitattributes"}
    assert [record for record in hub.requests() if "acme" in record["target"].lower()] == []


def test_git_agrees(module_world: World) -> None:
    assert git(module_world, "acme/odd", "fsck", "--full", "--strict") == ""
    packs = list((module_world.nginx.data / "repos" / "model" / "acme" / "odd.git" / "objects" / "pack").glob("*.pack"))
    assert packs
    digest = folder(source(module_world, "acme/odd"))["big.safetensors"]
    stored = module_world.nginx.data / "lfs" / digest[:2] / digest[2:4] / digest
    assert sha256(stored.read_bytes()) == digest


def test_resolve_gives_bytes_and_raw_the_pointer(module_world: World) -> None:
    path = source(module_world, "acme/odd") / "big.safetensors"
    data = path.read_bytes()
    whole = module_world.get("/acme/odd/resolve/main/big.safetensors", "reader")
    assert whole.body == data and whole["etag"] == f'"{sha256(data)}"' == whole["x-linked-etag"] and whole["x-linked-size"] == str(len(data))
    part = module_world.get("/acme/odd/resolve/main/big.safetensors", "reader", headers={"Range": "bytes=1048576-1048580"})
    assert part.status == 206 and part.body == data[1048576:1048581] and part["content-range"] == f"bytes 1048576-1048580/{len(data)}"
    raw = module_world.get("/acme/odd/raw/main/big.safetensors", "reader")
    assert raw.body == b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256(data).encode(), len(data))
    assert raw["etag"] == '"' + hashlib.sha1(b"blob %d\0" % len(raw.body) + raw.body).hexdigest() + '"'
    small = module_world.get("/acme/odd/resolve/main/config.json", "reader")
    assert small["etag"] == '"' + hashlib.sha1(b"blob 3\0{}\n").hexdigest() + '"' and small["x-linked-etag"] is None
    assert module_world.get("/acme/odd/raw/main/config.json", "reader").body == small.body == b"{}\n"
    empty = module_world.get("/acme/odd/resolve/main/empty.txt", "reader")
    assert empty.status == 200 and empty.body == b"" and empty["content-length"] == "0"


def test_what_is_not_there(module_world: World) -> None:
    for target, code in (("/acme/odd/resolve/main/nope", "EntryNotFound"), ("/acme/odd/resolve/nope/config.json", "RevisionNotFound"),
                         ("/acme/none/resolve/main/config.json", "RepoNotFound"), ("/api/models/acme/odd/tree/main/nope", "EntryNotFound"),
                         ("/api/models/acme/odd/revision/refs%2Fpr%2F7", "RevisionNotFound"), (f"/acme/odd/resolve/{'0' * 40}/config.json", "RevisionNotFound"),
                         ("/datasets/acme/odd/resolve/main/config.json", "RepoNotFound"), ("/acme/odd/resolve/main/deep", "EntryNotFound")):
        answer = module_world.get(target, "reader")
        assert (answer.status, answer["x-error-code"]) == (404, code), target


def test_names_differ_by_more_than_case(module_world: World) -> None:
    """ACME/Odd is acme/odd; a second spelling cannot be made."""
    for name in ("ACME/odd", "Acme/ODD"):
        answer = module_world.get(f"/{name}/resolve/main/config.json", "reader")
        assert answer.status == 200 and answer.body == b"{}\n"
        assert module_world.get(f"/api/models/{name}", "reader").json()["id"] == "acme/odd"
    run = module_world.cli("repo", "create", "acme/ODD", check=False)
    assert run.returncode == 1 and "acme/odd" in run.stderr.lower()


def test_create_and_import_again(make_world: Callable[..., World]) -> None:
    """A made repository is there at once; each import is one commit more, and the branch is seen to move."""
    world = make_world(workers=2, private={})
    assert "made model:acme/new" in world.cli("repo", "create", "acme/new").stdout
    assert world.get("/api/models/acme/new", "reader").json()["id"] == "acme/new"
    assert world.cli("repo", "create", "acme/new", check=False).returncode == 1
    for type_ in ("dataset", "space"):
        world.import_repo(f"{type_}:acme/data", world.write_files(world.folder / type_, {"README.md": f"{type_}\n"}))
        assert world.get(f"/{type_}s/acme/data/resolve/main/README.md", "reader").body == f"{type_}\n".encode()
    assert world.get("/acme/data/resolve/main/README.md", "reader").status == 404
    shas = []
    for number in range(3):
        world.import_repo("acme/new", world.write_files(world.folder / "in", {"config.json": f"{{\"n\": {number}}}\n", f"file{number}.bin": {"size": 1000, "seed": number}}),
                          "--message", f"Number {number}")
        procs.wait_until("the new tip", lambda: world.get("/acme/new/resolve/main/config.json", "reader").body == f"{{\"n\": {number}}}\n".encode())
        shas.append(world.get("/api/models/acme/new", "reader").json()["sha"])
    assert len(set(shas)) == 3
    titles = [each["title"] for each in world.get("/api/models/acme/new/commits/main", "reader").json()]
    assert titles[:3] == ["Number 2", "Number 1", "Number 0"]
    assert world.get(f"/acme/new/resolve/{shas[0]}/config.json", "reader").body == b"{\"n\": 0}\n"
    assert world.get(f"/acme/new/resolve/{shas[0]}/file2.bin", "reader").status == 404
    assert "model:acme/new" in world.cli("repo", "list").stdout and {"type": "model", "id": "acme/new"} in json.loads(world.cli("repo", "list", "--json").stdout)


@pytest.mark.parametrize("name, word", [
    ("public/x", "private namespace"), ("acme", "acme/llm"), ("acme/a/b", ""), ("acme/-x", ""), ("acme/x.git", ""), ("acme/a..b", ""), ("boat:acme/x", "type"),
    ("acme/resolve", ""), ("acme/..", ""), ("acme/x y", "")])
def test_names_that_are_refused(module_world: World, name: str, word: str) -> None:
    for verb in (("repo", "create", name), ("repo", "import", name, str(source(module_world, "acme/llm")))):
        run = module_world.cli(*verb, check=False)
        assert run.returncode == 2 and word in run.stderr and len(run.stderr) > 15, run
    assert name not in module_world.cli("repo", "list").stdout.split()


def test_folders_that_are_refused(module_world: World, tmp_path: Path) -> None:
    """Nothing is made of an empty folder, a missing one, one with a socket or with pointers in place of files."""
    base = module_world.folder / "refused"
    for name, fill in (("empty", lambda path: None), ("fifo", lambda path: os.mkfifo(path / "x")),
                       ("pointer", lambda path: (path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n"))):
        path = base / name
        path.mkdir(parents=True)
        fill(path)
        run = module_world.cli("repo", "import", "acme/refused", str(path), check=False)
        assert run.returncode == 2 and run.stderr.strip(), name
    assert module_world.cli("repo", "import", "acme/refused", "/nonexistent/x", check=False).returncode == 2
    assert module_world.get("/api/models/acme/refused", "reader").status == 404


def test_kill_of_an_import_leaves_nothing_half(make_world: Callable[..., World]) -> None:
    """kill -9 at random points: the repository is absent or whole, never partly there, and the next import works."""
    world = make_world(private={})
    files = {f"part-{number:02d}.bin": {"size": 3 * MIB + number, "seed": 100 + number} for number in range(8)}
    files["config.json"] = "{}\n"                                                         # type: ignore[assignment]
    path = world.write_files(world.folder / "in", files)
    here, dice = folder(path), random.Random(11)
    command = [str(command_file()), "-c", str(world.nginx.config_file), "repo", "import", "acme/killed", str(path)]
    began = time.monotonic()
    subprocess.run([*command[:-2], "acme/measured", command[-1]], check=True, capture_output=True)
    took = time.monotonic() - began
    whole = 0
    for round in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(dice.uniform(0.0, took * 1.1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait(10)
        info = world.get("/api/models/acme/killed?blobs=true", "reader")
        assert info.status in (200, 404), info.text
        if info.status == 200:
            listed = {each["rfilename"] for each in info.json()["siblings"]} - {".gitattributes"}
            assert listed in (set(here), set()), round
            for name in sorted(listed)[:3]:
                assert sha256(world.get(f"/acme/killed/resolve/main/{name}", "reader").body) == here[name]
            whole += listed == set(here)
            git(world, "acme/killed", "fsck", "--full", "--strict")
    world.import_repo("acme/killed", path)
    procs.wait_until("the repository", lambda: world.get("/api/models/acme/killed", "reader").status == 200)
    for name, digest in here.items():
        assert sha256(world.get(f"/acme/killed/resolve/main/{name}", "reader").body) == digest
    world.nginx.stop()
    world.cli("repo", "import", "acme/killed", str(path))
    rest = [file for file in (world.nginx.data / "tmp").rglob("*") if file.is_file()]
    assert len(rest) <= 20, rest


def test_large_private_files_and_many_readers(make_world: Callable[..., World]) -> None:
    """Sixteen clients of a file that is not in the cache yet; removing the cache loses nothing."""
    world = make_world(workers=2, private={"acme/big": {"model.safetensors": {"size": 20 * MIB + 3, "seed": 31}}})
    digest = folder(source(world, "acme/big"))["model.safetensors"]
    clients = [Download(world, "/acme/big/resolve/main/model.safetensors") for _ in range(16)]
    for client in clients:
        assert client.done().clean and client.sha256 == digest
    world.nginx.stop()
    world.nginx.drop_cache()
    world.nginx.start()
    assert Download(world, "/acme/big/resolve/main/model.safetensors").done().sha256 == digest


def test_a_damaged_private_object_is_not_served(make_world: Callable[..., World]) -> None:
    """Bytes of data/ that changed: an error that names it in the log, nobody gets them, other files go on."""
    world = make_world(private={"acme/hurt": {"model.safetensors": {"size": 300_000, "seed": 41}, "config.json": "{}\n"}})
    digest = folder(source(world, "acme/hurt"))["model.safetensors"]
    stored = world.nginx.data / "lfs" / digest[:2] / digest[2:4] / digest
    data = bytearray(stored.read_bytes())
    data[1000] ^= 1
    stored.chmod(0o600)
    stored.write_bytes(bytes(data))
    answer = world.get("/acme/hurt/resolve/main/model.safetensors", "reader")
    assert answer.status in (500, 502, 503) and answer.body != bytes(data), answer.status
    world.nginx.wait_log(digest[:12])
    assert world.get("/acme/hurt/resolve/main/config.json", "reader").status == 200


def test_a_damaged_large_private_object_is_never_complete(make_world: Callable[..., World]) -> None:
    """Its first bytes leave before it is hashed, its last ones do not; a range of it is what is there, as of any file that is not proved."""
    world = make_world(private={"acme/hurt": {"model.safetensors": {"size": 5 * MIB + 9, "seed": 43}}})
    digest = folder(source(world, "acme/hurt"))["model.safetensors"]
    stored = world.nginx.data / "lfs" / digest[:2] / digest[2:4] / digest
    data = bytearray(stored.read_bytes())
    data[-3] ^= 1
    stored.chmod(0o600)
    stored.write_bytes(bytes(data))
    for _ in range(2):
        got = Download(world, "/acme/hurt/resolve/main/model.safetensors").done()
        assert not got.clean and len(got.body) <= 5 * MIB
    world.nginx.wait_log(f"{digest}: damaged, its bytes do not have its digest")
    assert not (world.nginx.cache / "blobs" / digest[:2] / digest[2:4] / digest).exists() and stored.read_bytes() == bytes(data)


def test_a_private_name_never_reaches_the_hub(module_world: World, hub: HubProcess) -> None:
    """A repository of that name up there is never asked for, whether it exists here or not."""
    hub.add("acme/only-there", {"config.json": "{\"from\": \"the hub\"}\n"})
    hub.add("acme/odd", {"config.json": "{\"from\": \"the hub\"}\n"})
    hub.reset_stats()
    for role in ("reader", "admin", "stranger", None):
        for name in ("acme/only-there", "acme/odd", "ACME/only-there", "acme/missing"):
            for target in (f"/{name}/resolve/main/config.json", f"/api/models/{name}", f"/api/models/{name}/tree/main", f"/api/models/{name}/refs",
                           f"/api/models/{name}/revision/main", f"/{name}/raw/main/config.json"):
                answer = module_world.get(target, role)
                assert b"the hub" not in answer.body and answer.status in (200, 401, 404), (target, answer.status)
    assert hub.requests() == []


def test_a_public_name_never_reaches_the_private_store(module_world: World) -> None:
    """A repository under data/ whose namespace is not private is not looked at."""
    repos = module_world.nginx.data / "repos" / "model"
    link = repos / "demo"
    os.symlink(repos / "acme", link)
    try:
        assert module_world.get("/api/models/demo/odd", "admin").status == 404
    finally:
        link.unlink()
