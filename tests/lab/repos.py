"""Repositories as the lab's Hub holds them: blobs, trees and commits with true git ids.

A repository is described by plain data (all of it may come as JSON):

    {"type": "model", "id": "demo/tiny", "card": {"license": "mit"},
     "commits": [{"message": "first", "files": {"config.json": "{}", "model.safetensors": {"tensors": {"w": [4, 4]}}}},
                 {"message": "second", "files": {"config.json": "{ }"}, "delete": [], "branch": "main"}],
     "tags": {"v1": 0}, "aliases": ["tiny"], "gated": "manual", "disabled": False, "dir": "/a/folder"}

A file is a text, or one of {"text"}, {"base64"}, {"file": PATH}, {"size", "seed"} (made up, the same bytes each time),
{"tensors": {name: shape}, "seed"} (a real safetensors file); `"lfs": true|false` overrules the rule by name and size.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Iterable

MIB = 1 << 20
IN_MEMORY = 4 * MIB         # what is larger lives in a file and leaves by sendfile
LFS_ABOVE = 10 * MIB        # the Hub wants LFS above this, whatever the name
LFS_SUFFIXES = (
    ".7z .arrow .bin .bz2 .ckpt .ftz .gguf .gz .h5 .joblib .lfs .mlmodel .model .msgpack .npy .npz .onnx .ot .parquet .pb "
    ".pickle .pkl .pt .pth .rar .safetensors .tar .tflite .tgz .wasm .xz .zip .zst").split()
EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


class BadSpec(ValueError):
    """A description of a repository that makes no sense; says which part."""


def git_id(kind: str, data: bytes) -> str:
    """The object id git gives to these bytes."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest()


def hub_date(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + "%03dZ" % (when.microsecond // 1000)


@dataclass(frozen=True)
class Blob:
    """The bytes of one file, in memory or in a file on disk."""
    size: int
    oid: str                      # what the tree names: of the bytes, or of the LFS pointer
    sha256: str
    lfs: bool
    data: bytes | None = None
    path: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    @property
    def pointer(self) -> bytes:
        return pointer(self.sha256, self.size)

    @property
    def xet_hash(self) -> str:
        """The lab has no Xet store: any 64 hex digits that depend on the content will do."""
        return hashlib.sha256(b"xet:" + self.sha256.encode()).hexdigest()

    def read(self) -> bytes:
        if self.data is not None:
            return self.data
        return Path(str(self.path)).read_bytes()


def pointer(sha256: str, size: int) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256.encode(), size)


def memory_blob(data: bytes, lfs: bool) -> Blob:
    sha256 = hashlib.sha256(data).hexdigest()
    oid = git_id("blob", pointer(sha256, len(data)) if lfs else data)
    return Blob(len(data), oid, sha256, lfs, data=data)


class Maker:
    """Makes blobs from file descriptions.  `cache` keeps made-up large files and the digests of files on disk."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.lock = threading.Lock()

    def blob(self, name: str, spec: Any) -> Blob:
        if isinstance(spec, Blob):
            return spec
        if isinstance(spec, bytes):
            return memory_blob(spec, wants_lfs(name, len(spec), {}))
        if isinstance(spec, str):
            spec = {"text": spec}
        if not isinstance(spec, dict):
            raise BadSpec(f"{name}: a file is a text or an object, not {type(spec).__name__}")
        if "text" in spec:
            data = spec["text"].encode()
        elif "base64" in spec:
            data = base64.b64decode(spec["base64"])
        elif "tensors" in spec:
            data = safetensors(spec["tensors"], int(spec.get("seed", 0)))
        elif "file" in spec:
            return self._of_file(name, Path(spec["file"]), spec)
        elif "size" in spec:
            size, seed = int(spec["size"]), int(spec.get("seed", 0))
            if size > IN_MEMORY:
                return self._of_file(name, self._made_up(size, seed), spec)
            data = b"".join(made_up(size, seed))
        else:
            raise BadSpec(f"{name}: none of text, base64, file, size, tensors is given")
        return memory_blob(data, wants_lfs(name, len(data), spec))

    def _of_file(self, name: str, path: Path, spec: dict) -> Blob:
        size = path.stat().st_size
        lfs = wants_lfs(name, size, spec)
        if size <= IN_MEMORY:
            return memory_blob(path.read_bytes(), lfs)
        sha1, sha256 = self._digests(path)
        oid = git_id("blob", pointer(sha256, size)) if lfs else sha1
        return Blob(size, oid, sha256, lfs, path=str(path.absolute()))

    def _made_up(self, size: int, seed: int) -> Path:
        """A file of made-up bytes, written once for all runs."""
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / f"made-up-{size}-{seed}.bin"
        with self.lock:
            if not path.exists():
                part = path.with_suffix(f".{os.getpid()}.part")
                with open(part, "wb") as out:
                    out.writelines(made_up(size, seed))
                os.rename(part, path)
        return path

    def _digests(self, path: Path) -> tuple[str, str]:
        """sha1 (as git names it) and sha256 of a file; kept beside the made-up files, so computed once."""
        stat = path.stat()
        key = hashlib.sha256(f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}".encode()).hexdigest()
        note = self.cache / f"digest-{key}.json"
        with self.lock:
            if note.exists():
                known = json.loads(note.read_text())
                return known["sha1"], known["sha256"]
            sha1, sha256 = hashlib.sha1(b"blob %d\0" % stat.st_size), hashlib.sha256()
            with open(path, "rb") as file:
                while chunk := file.read(4 * MIB):
                    sha1.update(chunk)
                    sha256.update(chunk)
            self.cache.mkdir(parents=True, exist_ok=True)
            part = note.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps({"sha1": sha1.hexdigest(), "sha256": sha256.hexdigest()}))
            os.rename(part, note)
            return sha1.hexdigest(), sha256.hexdigest()


def wants_lfs(name: str, size: int, spec: dict) -> bool:
    if "lfs" in spec:
        return bool(spec["lfs"])
    return size > LFS_ABOVE or name.endswith(tuple(LFS_SUFFIXES))


def made_up(size: int, seed: int) -> Iterable[bytes]:
    """`size` bytes that depend on `seed` only, in pieces; no two MiB of them are alike."""
    block = random.Random(seed).randbytes(MIB)
    for number in range((size + MIB - 1) // MIB):
        turn = number * 4099 % MIB
        piece = number.to_bytes(8, "big") + block[turn + 8:] + block[:turn]
        yield piece[:size - number * MIB]


def safetensors(tensors: dict[str, list[int]], seed: int) -> bytes:
    """A real safetensors file of F32 tensors with made-up (small) values."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors.items():
        count = 1
        for side in shape:
            count *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * count]}
        offset += 4 * count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = bytearray(random.Random(seed).randbytes(offset))
    data[3::4] = b"\x3c" * (offset // 4)        # the exponent: values near 0.01, never NaN
    return len(text).to_bytes(8, "little") + text + bytes(data)


@dataclass
class Commit:
    sha: str
    tree: str
    parent: str | None
    message: str
    date: datetime
    files: dict[str, Blob]
    dirs: dict[str, str]          # path -> tree id
    _listing: list[tuple[str, str]] | None = field(default=None, repr=False)
    _children: dict[str, list[tuple[str, str]]] | None = field(default=None, repr=False)

    def listing(self) -> list[tuple[str, str]]:
        """Everything as (path, "file"|"directory"), in the order of paths."""
        if self._listing is None:
            entries = [(path, "file") for path in self.files] + [(path, "directory") for path in self.dirs if path]
            self._listing = sorted(entries)
        return self._listing

    def children(self, folder: str) -> list[tuple[str, str]]:
        if self._children is None:
            children: dict[str, list[tuple[str, str]]] = {}
            for path, kind in self.listing():
                children.setdefault(path.rpartition("/")[0], []).append((path, kind))
            self._children = children
        return self._children.get(folder, [])


def hash_trees(files: dict[str, Blob]) -> dict[str, str]:
    """The git tree id of every folder; "" is the root."""
    folders: dict[str, list[tuple[bytes, bytes, str]]] = {"": []}
    for path, blob in files.items():
        parent, _, name = path.rpartition("/")
        folders.setdefault(parent, []).append((b"100644", name.encode(), blob.oid))
        while parent:
            parent = parent.rpartition("/")[0]
            folders.setdefault(parent, [])
    ids: dict[str, str] = {}
    for folder in sorted(folders, key=lambda path: (path.count("/") + bool(path), path), reverse=True):
        rows = sorted(folders[folder], key=lambda row: row[1] + (b"/" if row[0] == b"40000" else b""))
        data = b"".join(b"%s %s\0" % (mode, name) + bytes.fromhex(oid) for mode, name, oid in rows)
        ids[folder] = git_id("tree", data)
        if folder:
            parent, _, name = folder.rpartition("/")
            folders[parent].append((b"40000", name.encode(), ids[folder]))
    return ids


class Repo:
    """One repository: commits, branches, tags.  Built from its description at first use."""

    def __init__(self, spec: dict, maker: Maker) -> None:
        self.type: str = spec.get("type", "model")
        if self.type not in ("model", "dataset", "space"):
            raise BadSpec(f"{spec.get('id')}: type is model, dataset or space, not {self.type}")
        self.id: str = spec["id"]
        self.aliases: list[str] = spec.get("aliases", [])
        self.gated: str | bool = spec.get("gated", False)
        self.granted: bool = bool(spec.get("granted", False))      # with a token that the Hub knows
        self.disabled: bool = bool(spec.get("disabled", False))
        self.card: dict = spec.get("card", {})
        self.extra: dict = spec.get("info", {})                    # further keys of the info answer
        self.tags_of_card: list[str] = spec.get("tags_of_card", [])
        self.downloads: int = int(spec.get("downloads", 0))
        self.spec = spec
        self.maker = maker
        self.lock = threading.RLock()
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.converts: dict[str, str] = {}
        self.prs: dict[int, str] = {}
        self._built = False

    def built(self) -> "Repo":
        with self.lock:
            if not self._built:
                self._built = True
                self._build()
        return self

    def _build(self) -> None:
        spec, order = self.spec, []
        if "dir" in spec:
            order.append(self.commit(files_of_dir(Path(spec["dir"])), message="Import"))
        for number, step in enumerate(spec.get("commits", [])):
            order.append(self.commit(step.get("files", {}), delete=step.get("delete", []), branch=step.get("branch", "main"),
                                     message=step.get("message", f"Commit {number + 1}")))
        if not order:
            order.append(self.commit({}, message="initial commit"))
        for name, number in spec.get("tags", {}).items():
            self.tags[name] = order[number]

    def commit(self, files: dict[str, Any], delete: Iterable[str] = (), branch: str = "main", message: str = "Update") -> str:
        """Add a commit to a branch (`refs/pr/1`, `refs/convert/x` and new names begin at main); returns its id."""
        with self.lock:
            self.built()
            parent = self.tip(branch) or self.branches.get("main")
            tree = dict(self.commits[parent].files) if parent else {}
            for path in delete:
                tree.pop(path, None)
            for path, spec in files.items():
                tree[path] = self.maker.blob(path, spec)
            dirs = hash_trees(tree)
            date = EPOCH + timedelta(hours=len(self.commits))
            stamp = f"{int(date.timestamp())} +0000"
            text = f"tree {dirs['']}\n" + (f"parent {parent}\n" if parent else "") + \
                f"author lab <lab@example.org> {stamp}\ncommitter lab <lab@example.org> {stamp}\n\n{message}\n"
            sha = git_id("commit", text.encode())
            self.commits[sha] = Commit(sha, dirs[""], parent, message, date, tree, dirs)
            self.move(branch, sha)
            return sha

    def move(self, ref: str, sha: str) -> None:
        with self.lock:
            if sha not in self.commits:
                raise BadSpec(f"{self.id}: no commit {sha}")
            if ref.startswith("refs/pr/"):
                self.prs[int(ref[8:])] = sha
            elif ref.startswith("refs/convert/"):
                self.converts[ref[13:]] = sha
            else:
                self.branches[ref] = sha

    def tip(self, ref: str) -> str | None:
        if ref.startswith("refs/pr/") and ref[8:].isdigit():
            return self.prs.get(int(ref[8:]))
        if ref.startswith("refs/convert/"):
            return self.converts.get(ref[13:])
        return self.branches.get(ref)

    def resolve(self, revision: str) -> Commit | None:
        """Branch, tag, `HEAD`, refs/pr/N, refs/convert/x, or a commit id (full, or its first digits)."""
        with self.lock:
            self.built()
            if revision == "HEAD":
                revision = "main"
            if revision.startswith("refs/heads/"):
                revision = revision[11:]
            sha = self.tip(revision) or self.tags.get(revision)
            if sha is None and len(revision) >= 7:
                found = [known for known in self.commits if known.startswith(revision)]
                sha = found[0] if len(found) == 1 else None
            return self.commits[sha] if sha else None

    def history(self, commit: Commit) -> list[Commit]:
        out = [commit]
        while out[-1].parent:
            out.append(self.commits[out[-1].parent])
        return out


def files_of_dir(folder: Path) -> dict[str, dict]:
    """Every file below `folder` as a description, leaving out .git and .cache."""
    out = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and relative.parts[0] not in (".git", ".cache"):
            out[relative.as_posix()] = {"file": str(path)}
    return out


def specs_of_dir(folder: Path) -> list[dict]:
    """Descriptions of the repositories in folder/{models,datasets,spaces}/NAMESPACE/NAME."""
    out = []
    for kind in ("model", "dataset", "space"):
        for path in sorted((folder / f"{kind}s").glob("*/*")):
            if path.is_dir():
                out.append({"type": kind, "id": f"{path.parent.name}/{path.name}", "dir": str(path)})
    return out
