"""Further real clients, cold and warm, small and large files, public and private: huggingface_hub 1.33, aria2c, hf_transfer, curl's
ranges, many processes that load one model at once.  JavaScript is in test_js.py, the datasets library in test_datasets.py."""

from __future__ import annotations

import json
import re
import subprocess
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from clients import HF, aria2c, curl, hf, python
from downloads import GRANULE, MIB, Download, forget, fresh, sha256, slice_of, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import ORG, REASON, World

PRIVATE = f"{ORG}/big"
LARGE = 24 * MIB + 4321
WORLD = {"workers": 2, "private": {PRIVATE: {"config.json": '{"model_type": "bert"}\n', "model.bin": {"size": LARGE, "seed": 77, "lfs": True}}}}
BOTH = pytest.mark.parametrize("home", ["public", "private"])


def repository(world: World, hub: HubProcess, home: str) -> dict[str, Any]:
    """A public one that nobody has asked for, or the private one; its files as paths by name, what `fresh` says of the large one."""
    if home == "private":
        folder = world.folder / "sources" / PRIVATE
        target = f"/{PRIVATE}/resolve/main/model.bin"
        facts: dict[str, Any] = {"repo": PRIVATE, "main": target, "target": target, "path": str(folder / "model.bin"), "size": LARGE,
                                 "sha256": sha256((folder / "model.bin").read_bytes())}
        config = (folder / "config.json").read_bytes()
    else:
        facts = fresh(hub, LARGE)
        config = f'{{"seed": {facts["seed"]}}}\n'.encode()
    return {**facts, "home": home, "small": sha256(config), "small_size": len(config), "digests": {"config.json": sha256(config), "model.bin": facts["sha256"]}}


def cost_one_download(hub: HubProcess, repo: dict[str, Any], more: int = 0) -> None:
    """Each byte of the public one came once (`more`: bytes of granules that were cut short for somebody who waited)."""
    hub.wait_idle()
    want = 0 if repo["home"] == "private" else repo["size"]
    assert want <= hub.content_bytes() <= want + (repo["small_size"] if want else 0) + more


def cost_nothing(hub: HubProcess, repo: dict[str, Any]) -> None:
    hub.wait_idle()
    assert [(request["method"], request["target"]) for request in hub.requests(contains=repo["repo"])] == [] and hub.content_bytes() == 0


READ = r"""
import hashlib, json, os, sys
from huggingface_hub import HfApi, HfFileSystem, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
repo, ranges, out = sys.argv[1], json.loads(sys.argv[2]), {}
def sha(path):
    with open(path, "rb") as file: return hashlib.file_digest(file, "sha256").hexdigest()
fs = HfFileSystem()
with fs.open(f"{repo}/model.bin", "rb", block_size=1 << 16, cache_type="none") as file:
    out["ranges"] = []
    for first, count in ranges:
        file.seek(first)
        out["ranges"].append(hashlib.sha256(file.read(count)).hexdigest())
out["ls"] = sorted((os.path.basename(each["name"]), each["size"]) for each in fs.ls(repo, detail=True) if each["name"].endswith((".json", ".bin")))
out["one"] = sha(hf_hub_download(repo, "config.json"))
at = snapshot_download(repo)
out["all"] = {name: sha(os.path.join(at, name)) for name in ("config.json", "model.bin")}
meta = get_hf_file_metadata(hf_hub_url(repo, "model.bin"))
out["meta"] = [meta.etag, meta.size, meta.commit_hash == os.path.basename(at), meta.xet_file_data]
info = HfApi().model_info(repo, files_metadata=True)
out["info"] = {each.rfilename: [each.size, each.lfs.sha256 if each.lfs else None] for each in info.siblings if each.rfilename in out["all"]}
out["paths"] = sorted([each.path, each.size] for each in HfApi().get_paths_info(repo, ["config.json", "model.bin", "none"]))
print(json.dumps(out))
"""


@BOTH
def test_huggingface_hub_1_33(module_world: World, hub: HubProcess, home: str) -> None:
    """Ranges of a file that is not held, one file, all of them, and what is said about them."""
    repo = repository(module_world, hub, home)
    ranges = [(LARGE - 1000, 1000), (5 * MIB - 7, 100), (0, 8)]
    for turn in ("cold", "warm"):
        out = python("hf133", READ, module_world.env("reader"), repo["repo"], json.dumps(ranges)).json
        assert out["ranges"] == [sha256(slice_of(repo, first, first + count)) for first, count in ranges]
        assert out["one"] == repo["small"] and out["all"] == repo["digests"]
        assert out["ls"] == out["paths"] == [["config.json", repo["small_size"]], ["model.bin", LARGE]]
        assert out["meta"] == [repo["sha256"], LARGE, True, None]
        assert out["info"] == {"config.json": [repo["small_size"], None], "model.bin": [LARGE, repo["sha256"]]}
        if turn == "cold":
            if home == "public":
                whole(module_world, repo)
            cost_one_download(hub, repo)
            hub.reset_stats()
    cost_nothing(hub, repo)
    forget(repo) if home == "public" else None


def test_hf_command_1_33_and_what_it_says(module_world: World, hub: HubProcess, tmp_path: Path) -> None:
    repo = repository(module_world, hub, "public")
    done = hf("hf133", module_world.env("reader"), "download", repo["repo"], "--local-dir", str(tmp_path))
    assert done.status == 0, done.text
    assert {name: sha256((tmp_path / name).read_bytes()) for name in repo["digests"]} == repo["digests"]
    for role, name, text in [("reader", "evil/pickles", REASON), ("stranger", f"{ORG}/big", "Repository Not Found"), (None, PRIVATE, "Log in: hf auth login"),
                             ("hf_gwp" + "x" * 48, "demo/tiny-llm", "Invalid credentials in Authorization header")]:
        done = hf("hf133", module_world.env(role), "download", name, "config.json")
        assert done.status != 0 and text.lower() in re.sub(r"\s+", " ", done.text).lower(), (name, done.text)
    forget(repo)


@BOTH
def test_aria2_with_sixteen_connections(module_world: World, hub: HubProcess, tmp_path: Path, home: str) -> None:
    """Sixteen ranges at once of a file that is not held cost one download; small files, and the second time, too."""
    repo, env = repository(module_world, hub, home), module_world.env("reader")
    for turn in ("cold", "warm"):
        for name in ("config.json", "model.bin"):
            out = tmp_path / turn / name
            done = aria2c(env, f"{module_world.url}/{repo['repo']}/resolve/main/{name}", out, "-x16", "-s16", "-k1M")
            assert done.status == 0 and sha256(out.read_bytes()) == repo["digests"][name], done.text
            assert name == "config.json" or "Verification finished successfully" in done.text             # by our Digest
        if turn == "cold":
            cost_one_download(hub, repo, 4 * GRANULE)
            if home == "public":
                Download(module_world, repo["main"]).done()
                whole(module_world, repo)
            hub.wait_idle()
            hub.reset_stats()
    cost_nothing(hub, repo)
    forget(repo) if home == "public" else None


TRANSFER = r"""
import hashlib, json, sys
from huggingface_hub import constants, hf_hub_download
assert constants.HF_HUB_ENABLE_HF_TRANSFER
out = {}
for name in ("config.json", "model.bin"):
    with open(hf_hub_download(sys.argv[1], name), "rb") as file: out[name] = hashlib.file_digest(file, "sha256").hexdigest()
print(json.dumps(out))
"""


@BOTH
def test_hf_transfer(module_world: World, hub: HubProcess, home: str) -> None:
    """huggingface_hub 0.36.2 with HF_HUB_ENABLE_HF_TRANSFER: parallel ranges of 10 MB."""
    repo = repository(module_world, hub, home)
    for turn in ("cold", "warm"):
        done = python("hf0362", TRANSFER, module_world.env("reader", HF_HUB_ENABLE_HF_TRANSFER="1"), repo["repo"])
        assert done.status == 0 and done.json == repo["digests"], done.text
        if turn == "cold":
            cost_one_download(hub, repo, 4 * GRANULE)
            if home == "public":
                Download(module_world, repo["main"]).done()
                whole(module_world, repo)
            hub.wait_idle()
            hub.reset_stats()
    cost_nothing(hub, repo)
    forget(repo) if home == "public" else None


# several ranges, If-Range

def pieces(head: bytes, body: bytes) -> list[tuple[str, bytes]]:
    """Content-Range and bytes of each part of a multipart/byteranges answer."""
    kind = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-type:"))
    parts = message_from_bytes(kind + b"\r\n\r\n" + body).get_payload()
    raw = body.split(b"--" + kind.partition(b"boundary=")[2].strip())[1:-1]
    assert isinstance(parts, list) and len(parts) == len(raw)
    return [(str(part["content-range"]), piece.partition(b"\r\n\r\n")[2][:-2]) for part, piece in zip(parts, raw)]      # type: ignore[union-attr]


def ask(world: World, repo: dict[str, Any], folder: Path, *arguments: str) -> tuple[int, bytes, bytes]:
    """curl's answer: status, head, body."""
    done = curl("-D", str(folder / "head"), "-o", str(folder / "body"), "-w", "%{http_code}", "-H", f"Authorization: Bearer {world.tokens['reader']}",
                *arguments, world.url + repo["main"])
    assert done.status == 0, done.text
    return int(done.out), (folder / "head").read_bytes(), (folder / "body").read_bytes()


@pytest.mark.parametrize("held", ["cold", "held", "private"])
def test_curl_ranges(module_world: World, hub: HubProcess, tmp_path: Path, held: str) -> None:
    """RFC 9110 14 and 13.1.5: several ranges of a held file are a multipart 206; while it is not held, 200 with all of it."""
    repo = repository(module_world, hub, "private" if held == "private" else "public")
    if held != "cold":
        Download(module_world, repo["main"]).done()
    if held == "held":
        whole(module_world, repo)
    etag, all_of_it = f'"{repo["sha256"]}"', [(0, LARGE)]
    rows: list[tuple[list[str], int, list[tuple[int, int]]]] = [
        (["-r", "0-9,100-199,-7"], 206, [(0, 10), (100, 200), (LARGE - 7, LARGE)]),
        (["-r", f"5-9,{LARGE}-"], 206, [(5, 10)]),                                         # what is not there is left out
        (["-r", f"{LARGE}-,-0"], 416, []),
        (["-r", f"{LARGE}-"], 416, []),
        (["-r", "0-9,8-4"], 200, all_of_it),                                               # nonsense is no Range at all
        (["-r", ",".join(f"{at}-{at}" for at in range(0, 200, 2))], 200, all_of_it),       # nor are a hundred of them
        (["-r", "7-11", "-H", f"If-Range: {etag}"], 206, [(7, 12)]),
        (["-r", "7-11", "-H", f"If-Range: W/{etag}"], 200, all_of_it),                     # a weak tag never matches
        (["-r", "7-11", "-H", 'If-Range: "other"'], 200, all_of_it),
        (["-r", "7-11", "-H", "If-Range: Wed, 25 Nov 2026 04:00:00 GMT"], 200, all_of_it), # there is no Last-Modified
        (["-r", f"{LARGE}-", "-H", 'If-Range: "other"'], 200, all_of_it),
        (["-r", "0-9,20-29", "-H", 'If-Range: "other"'], 200, all_of_it),
        (["-r", "0-9,20-29", "-H", f"If-Range: {etag}"], 206, [(0, 10), (20, 30)]),
        (["-H", f"If-Range: {etag}"], 200, all_of_it)]
    for arguments, status, spans in rows:
        if held == "cold":
            forget(repo)
            repo = repository(module_world, hub, "public")
            arguments = [word.replace(etag, f'"{repo["sha256"]}"') for word in arguments]
            if status == 206 and "," in arguments[1]:
                status, spans = 200, all_of_it
        got, head, body = ask(module_world, repo, tmp_path, *arguments)
        assert got == status, (arguments, got)
        if status == 416:
            assert f"content-range: bytes */{LARGE}".encode() in head.lower() and b"<html" not in body
        elif b"multipart/byteranges" in head:
            assert status == 206 and len(spans) > 1
            assert pieces(head, body) == [(f"bytes {first}-{end - 1}/{LARGE}", slice_of(repo, first, end)) for first, end in spans]
        else:
            assert len(spans) == 1 and body == slice_of(repo, *spans[0]), arguments
            assert (status == 206) == (f"content-range: bytes {spans[0][0]}-{spans[0][1] - 1}/{LARGE}".encode() in head.lower())
    forget(repo) if held != "private" else None


# many processes, one model

LOAD = """
import hashlib, json, os, sys
from huggingface_hub import snapshot_download
at = snapshot_download(sys.argv[1])
print(json.dumps({name: hashlib.sha256(open(os.path.join(at, name), "rb").read()).hexdigest() for name in sorted(os.listdir(at))}))
"""


@BOTH
def test_eight_processes_load_one_model(module_world: World, hub: HubProcess, home: str) -> None:
    """At once, of three versions: each gets it right, upstream sends each file once."""
    repo = repository(module_world, hub, home)
    hub.fault(repo["sha256"], host="cdn", rate_bytes_per_s=16 * MIB)               # so that they do meet
    versions = ["hf240", "hf133", "hf0362", "hf240-noxet"] * 2
    programs = [subprocess.Popen([str(HF[version] / "bin" / "python"), "-c", LOAD, repo["repo"]], env=module_world.env("reader"),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for version in versions]
    try:
        for version, program in zip(versions, programs):
            out, err = program.communicate(timeout=180)
            assert program.returncode == 0, (version, err)
            got = json.loads(out.splitlines()[-1])
            assert {name: got[name] for name in repo["digests"]} == repo["digests"], version
    finally:
        for program in programs:
            program.kill()
            program.wait()
    if home == "public":
        whole(module_world, repo)
        hub.wait_idle()
        digits = [request["target"] for request in hub.requests() if request["status"] == 200 and request["method"] == "GET"]
        assert repo["size"] <= hub.content_bytes() <= repo["size"] + repo["small_size"] + 2000      # and .gitattributes
        assert sum(f"/resolve/{repo['commit']}/config.json" in target or "config.json?" in target for target in digits) <= 1
        forget(repo)
    else:
        assert hub.requests(contains=PRIVATE) == []
