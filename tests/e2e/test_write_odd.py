"""What is odd or large in a repository: names, modes, links, empty objects, line ends, many files, one very large object.

    make largewrites        also an object of 6 GiB
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import time
import unicodedata
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote

import pytest
from clients import curl, python
from downloads import MIB, sha256
from test_write import address, batch, create

from tests.lab.world import World

WORLD: dict = {"workers": 2}
LONG = os.environ.get("LARGE") == "all"
NFC, NFD = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
NAMES = ["a b.txt", "#hash.txt", "100%.txt", "%41.txt", "%2F.txt", "a+b.txt", "what?.txt", "a&b=c;d.txt", f"{NFC}.txt", f"{NFD}.txt", "日本/模型.txt", "😀.txt",
         "-dash.txt", ".hidden", '"quoted".txt', "it's.txt", "at 10:30.txt", "~tilde^.txt", "[x]*.txt", "$HOME.txt", " blanks ", "sub dir+/#?/%20/x.txt",
         "x" * 200 + ".txt"]
LARGE = ["big [1] *é.weights", "#weights", "!weights", '"w".weights']       # over 10 MiB: each gets its line in .gitattributes

ODD = r"""
import hashlib, json, os, sys
from huggingface_hub import HfApi, snapshot_download
api, (folder, name) = HfApi(), sys.argv[1:]
api.create_repo(name, private=True)
api.upload_folder(repo_id=name, folder_path=folder)
at = snapshot_download(name)
print(json.dumps({"listed": sorted(api.list_repo_files(name)), "held": {os.path.relpath(os.path.join(d, f), at):
    hashlib.sha256(open(os.path.join(d, f), "rb").read()).hexdigest() for d, _, fs in os.walk(at) for f in fs}}))
"""


def commit(world: World, repo: str, *lines: tuple[str, dict], status: int = 200) -> Any:
    body = b"\n".join(json.dumps({"key": key, "value": value}).encode() for key, value in (("header", {"summary": "s"}), *lines))
    got = world.get(f"/api/models/acme/{repo}/commit/main", "writer", "POST", body=body, timeout=120)
    assert got.status == status, got.body[:500]
    return json.loads(got.body)


def text(path: str, data: bytes) -> tuple[str, dict]:
    return "file", {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}


def git(world: World, repo: str, *arguments: str) -> bytes:
    folder = world.nginx.data / "repos/model/acme" / f"{repo}.git"
    done = subprocess.run(["git", "-c", "safe.directory=*", "--git-dir", str(folder), *arguments], capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_git(world: World, repo: str) -> dict[str, tuple[str, str]]:
    """path -> (mode, blob id), as git says it."""
    rows = [row.split(b"\t", 1) for row in git(world, repo, "ls-tree", "-rz", "main").split(b"\0") if row]
    return {path.decode(): (head.split()[0].decode(), head.split()[2].decode()) for head, path in rows}


@pytest.mark.parametrize("client", ["hf0203", "hf240-noxet"])
def test_names(module_world: World, tmp_path: Path, client: str) -> None:
    """Files of any name go in and come out, with both normal forms of a letter as two files; what is large gets a line that git understands."""
    for name in [*NAMES, *LARGE]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if name in NAMES else hashlib.sha256(name.encode()).digest() * (11 * MIB // 32))
    want = {name: sha256((tmp_path / name).read_bytes()) for name in [*NAMES, *LARGE]}
    done = python(client, ODD, module_world.env("writer", HF_HUB_DISABLE_XET="1"), str(tmp_path), f"acme/odd-{client}")
    assert done.status == 0, done.text
    listed, held = done.json["listed"], done.json["held"]
    assert listed == sorted([*want, ".gitattributes"])
    assert {name: held[name] for name in want} == want
    assert set(in_git(module_world, f"odd-{client}")) == set(listed)
    for name in want:
        got = module_world.head(f"/acme/odd-{client}/resolve/main/{quote(name)}", "reader")
        assert got.status == 200, name
    attributes = tmp_path.parent / f"{tmp_path.name}-clone"
    subprocess.run(["git", "init", "-q", str(attributes)], check=True)
    (attributes / ".gitattributes").write_bytes(git(module_world, f"odd-{client}", "show", "main:.gitattributes"))
    said = subprocess.run(["git", "-C", str(attributes), "check-attr", "-z", "filter", "--", *LARGE, NAMES[0], "plain.weights"], capture_output=True, check=True)
    words = said.stdout.decode().split("\0")
    assert dict(zip(words[0::3], words[2::3])) == {**dict.fromkeys(LARGE, "lfs"), NAMES[0]: "unspecified", "plain.weights": "unspecified"}


def test_refused_names(module_world: World) -> None:
    create(module_world, "refused")
    for name in ("", "/x", "x/", "a//b", ".", "..", "a/../b", "a/./b", ".git/config", "a/.GIT/x", "a\\b", "nul\0", "line\nend", "x" * 256, "a/" * 200 + "x"):
        commit(module_world, "refused", text(name, b"x"), status=400)
    assert set(in_git(module_world, "refused")) == {".gitattributes"}


def test_line_ends_and_empty_files(module_world: World) -> None:
    """Bytes are kept as they are, also in .gitattributes; an empty file is one, and so is an empty object."""
    create(module_world, "ends")
    windows = b"# with CRLF\r\n*.dat filter=lfs diff=lfs merge=lfs -text\r\n"
    commit(module_world, "ends", text(".gitattributes", windows), text("notes.txt", b"one\r\ntwo\rthree\n\r\n"), text("empty.txt", b""))
    body = json.dumps({"files": [{"path": "x.dat", "size": 5, "sample": ""}, {"path": "y.txt", "size": 5, "sample": ""}, {"path": "empty.dat", "size": 0, "sample": ""}]})
    got = module_world.get("/api/models/acme/ends/preupload/main", "writer", "POST", body=body.encode(), headers={"Content-Type": "application/json"})
    assert [each["uploadMode"] for each in json.loads(got.body)["files"]] == ["lfs", "regular", "regular"]
    oid = sha256(b"")
    href = batch(module_world, "acme/ends", oid, 0)["actions"]["upload"]["href"]          # huggingface.js may do this
    assert module_world.get(address(href), None, "PUT", body=b"").status == 200
    commit(module_world, "ends", ("lfsFile", {"path": "empty.dat", "algo": "sha256", "oid": oid, "size": 0}))
    for path, data in (("notes.txt", b"one\r\ntwo\rthree\n\r\n"), (".gitattributes", windows), ("empty.txt", b""), ("empty.dat", b"")):
        got = module_world.get(f"/acme/ends/resolve/main/{path}", "reader")
        assert got.status == 200 and got.body == data and got["content-length"] == str(len(data)), path


def test_again_is_the_same(module_world: World) -> None:
    """The same commit sent twice, as after a lost answer, is one; a commit of nothing is the tip."""
    create(module_world, "again")
    first = commit(module_world, "again", text("x.txt", b"x"))["commitOid"]
    assert commit(module_world, "again", text("x.txt", b"x"))["commitOid"] == first == commit(module_world, "again")["commitOid"]
    assert git(module_world, "again", "rev-list", "--count", "main").strip() == b"2"


def test_modes_and_links(make_world: Callable[..., World], tmp_path: Path) -> None:
    """Executables and symbolic links made by git stay what they are when others commit; a link is never followed, in or out."""
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "plain.txt").write_text("plain")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("a")
    for name, target in (("link.txt", "plain.txt"), ("docs-link", "docs"), ("out", "/etc/passwd"), ("up", "../../../../key"), ("gone", "nowhere"), ("other.sh", "run.sh")):
        (tmp_path / name).symlink_to(target)
    world = make_world(people="file", private={"acme/modes": tmp_path})
    links = {"link.txt": "plain.txt", "docs-link": "docs", "out": "/etc/passwd", "up": "../../../../key", "gone": "nowhere", "other.sh": "run.sh"}
    before = in_git(world, "modes")
    assert before["run.sh"][0] == "100755" and {path: before[path][0] for path in links} == dict.fromkeys(links, "120000")
    commit(world, "modes", text("run.sh", b"#!/bin/sh\nexit 1\n"), text("docs/b.txt", b"b"), text("other.sh", b"a file now"))
    after = in_git(world, "modes")
    assert after["run.sh"][0] == "100755" and after["run.sh"] != before["run.sh"] and after["other.sh"][0] == "100644"
    assert {path: after[path] for path in links if path != "other.sh"} == {path: before[path] for path in links if path != "other.sh"}
    assert after["docs/a.txt"] == before["docs/a.txt"]
    for path, target in links.items():
        got = world.get(f"/acme/modes/resolve/main/{path}", "reader")
        assert got.status == 200 and got.body == (b"a file now" if path == "other.sh" else target.encode()), path
    assert world.get("/acme/modes/resolve/main/docs-link/a.txt", "reader").status == 404
    for path in ("docs-link/new.txt", "out/x", "link.txt/x"):             # below a link is nowhere
        commit(world, "modes", text(path, b"x"), status=400)
    assert in_git(world, "modes") == after


def many(world: World, repo: str, count: int) -> float:
    """A commit of so many files in one folder; seconds until the answer."""
    began = time.monotonic()
    commit(world, repo, *(text(f"many/{number:06}.txt", b"%d\n" % number) for number in range(count)))
    return time.monotonic() - began


PAGES = r"""
import json, sys
from huggingface_hub import HfApi
rows = [each.path for each in HfApi().list_repo_tree(sys.argv[1], path_in_repo="many")]
print(json.dumps([len(rows), rows == sorted(rows), rows[0], rows[-1]]))
"""


@pytest.mark.parametrize("count", [10_000, 50_000])
def test_many_files_in_one_folder(module_world: World, count: int) -> None:
    """One commit, listed page by page; another commit of one file beside them costs what it costs."""
    create(module_world, f"many-{count}")
    took = many(module_world, f"many-{count}", count)
    for client in ("hf0203", "hf240"):
        done = python(client, PAGES, module_world.env("reader"), f"acme/many-{count}")
        assert done.status == 0 and done.json == [count, True, "many/000000.txt", f"many/{count - 1:06}.txt"], done.text
    began = time.monotonic()
    commit(module_world, f"many-{count}", text("many/one-more.txt", b"x"), ("deletedFile", {"path": "many/000007.txt"}))
    print(f"\n{count} files in one commit: {took:.1f} s; one more and one less: {time.monotonic() - began:.2f} s")
    got = module_world.get(f"/acme/many-{count}/resolve/main/many/{count // 2:06}.txt", "reader")
    assert got.body == b"%d\n" % (count // 2)
    assert len(in_git(module_world, f"many-{count}")) == count + 1                    # and .gitattributes


def peak(world: World) -> float:
    """MiB of memory that any worker has had that is no file."""
    return max(int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024 for pid in world.nginx.workers())


@pytest.mark.skipif(not LONG, reason="make largewrites")
def test_one_very_large_object(make_world: Callable[..., World], tmp_path: Path) -> None:
    """6 GiB and a little, mostly holes here: constant memory, and any of it read back."""
    world, size = make_world(people="file"), (6 << 30) + 12345
    path = tmp_path / "large"
    with open(path, "wb") as file:
        for at in range(0, size, 512 * MIB):
            file.seek(at)
            file.write(b"%020d" % at)
        file.truncate(size)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(8 * MIB):
            digest.update(piece)
    oid = digest.hexdigest()
    create(world, "large")
    href = batch(world, "acme/large", oid, size)["actions"]["upload"]["href"]
    done = curl("-f", "-T", str(path), "-o", "/dev/null", world.url + address(href), timeout=280)
    assert done.status == 0, done.text
    memory = peak(world)
    print(f"\n{size} bytes: worker's peak memory {memory:.0f} MiB")
    assert memory < 128
    commit(world, "large", ("lfsFile", {"path": "large.bin", "algo": "sha256", "oid": oid, "size": size}))
    got = world.head("/acme/large/resolve/main/large.bin", "reader")
    assert got["content-length"] == str(size) and (got["etag"] or "").strip('"') == oid
    got = world.get("/acme/large/resolve/main/large.bin", "reader", headers={"Range": f"bytes={5 << 30}-{(5 << 30) + 19}"})
    assert got.status == 206 and got.body == b"%020d" % (5 << 30)
