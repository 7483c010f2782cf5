"""What a power cut leaves of a folder: powertrace.c writes down what nginx and the command do, this makes the folder anew for a moment.

    trace = PowerTrace(folder, data)             # World(nginx_env=trace.env); data/ as it is when trace.begin() is called is on the disk
    ...; at = trace.now()                        # "by now this was acknowledged"
    cuts = trace.cuts()                          # the moments after each line of the log
    model = trace.model(); model.run_to(cut); model.write(target, LOST | JOURNAL | ANY, dice)

A name is on the disk once its folder was synced, bytes once their file was; a rename is one thing. What was not synced
    LOST      is not there,
    JOURNAL   is there up to some moment, as file systems with an ordered journal have it,
    ANY       is there or not, each name for itself, as POSIX allows.
Bytes that were not synced are never what was written: nothing, or zeros.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from .nginx import give
from .preload import preload

LOST, JOURNAL, ANY = "lost", "journal", "any"


@dataclass(eq=False)
class Node:
    folder: bool
    mode: int
    kept: Path | None = None                                        # what a file held when it was synced last
    now: dict[str, "Node"] = field(default_factory=dict)            # names in a folder
    durable: dict[str, "Node"] = field(default_factory=dict)
    pending: list["Change"] = field(default_factory=list)
    inode: int = 0
    links: int = 0                                                  # names now; at 0 the inode's number is free for others


@dataclass(eq=False)
class Change:
    edits: list[tuple[Node, str, Node | None]]                      # folder, name, what it names; two of them: a rename
    number: int
    done: bool = False


class PowerTrace:
    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root, self.first = Path(folder), Path(root), Path(folder) / "first"
        self.folder.mkdir(parents=True)
        self.log = self.folder / "log"
        self.log.touch()
        give(self.folder)
        self.env = preload("powertrace", {"POWERTRACE": str(self.folder), "POWERTRACE_ROOT": str(self.root)})

    def begin(self) -> None:
        """What is there now is on the disk; before anything is traced."""
        shutil.copytree(self.root, self.first, symlinks=True)
        self.inodes = {path.relative_to(self.root): path.lstat().st_ino for path in [self.root, *self.root.rglob("*")]}

    def now(self) -> int:
        return self.log.stat().st_size

    def lines(self) -> list[tuple[int, list[str]]]:
        out, end = [], 0
        for line in self.log.read_bytes().splitlines(keepends=True):
            end += len(line)
            out.append((end, line.decode().rstrip("\n").split("\t")))
        return out

    def cuts(self) -> list[int]:
        return [0, *(end for end, _ in self.lines())]

    def model(self) -> "Model":
        return Model(self)


class Model:
    """The folder at one moment: as it is, and as it is on the disk."""

    def __init__(self, trace: PowerTrace) -> None:
        self.trace, self.left = trace, trace.lines()[::-1]
        self.by_inode: dict[int, Node] = {}
        self.nameless: dict[int, tuple[Path, int]] = {}     # synced, of a name that a child gave it, or libc for itself
        self.changes = 0
        self.root = self._load(Path("."))

    def _load(self, path: Path) -> Node:
        real, inode = self.trace.first / path, self.trace.inodes[path]
        node = self.by_inode.get(inode)
        if node is None:
            node = self.by_inode[inode] = Node(real.is_dir(), real.stat().st_mode & 0o7777, None if real.is_dir() else real, inode=inode)
            if node.folder:
                node.now = {each.name: self._load(path / each.name) for each in sorted(real.iterdir())}
                node.durable = dict(node.now)
        node.links += 1
        return node

    def run_to(self, cut: int) -> None:
        while self.left and self.left[-1][0] <= cut:
            getattr(self, "_" + self.left[-1][1][0])(*self.left.pop()[1][1:])

    # the lines of the log

    def _place(self, path: str) -> tuple[Node, str]:
        *way, name = path.split("/")
        node = self.root
        for each in way:
            node = node.now[each]
        return node, name

    def _change(self, *edits: tuple[Node, str, Node | None]) -> None:
        self.changes += 1
        change = Change(list(edits), self.changes)
        for folder, name, node in edits:
            folder.pending.append(change)
            gone = folder.now.get(name)
            put(folder.now, name, node)
            if node is not None:
                node.links += 1
            if gone is not None:
                gone.links -= 1
                if not gone.links and self.by_inode.get(gone.inode) is gone:
                    del self.by_inode[gone.inode]

    def _new(self, inode: str, folder: bool, mode: int) -> Node:
        node = self.by_inode[int(inode)] = Node(folder, mode, inode=int(inode))
        return node

    def _create(self, path: str, inode: str) -> None:
        folder, name = self._place(path)
        if name not in folder.now:
            self._change((folder, name, self._new(inode, False, 0o600)))

    def _mkdir(self, path: str, inode: str) -> None:
        folder, name = self._place(path)
        self._change((folder, name, self._new(inode, True, 0o750)))

    def _link(self, old: str, new: str, inode: str) -> None:
        self._change((*self._place(new), self._named(old, inode)))

    def _rename(self, old: str, new: str, inode: str) -> None:
        edits = [(*self._place(new), self._named(old, inode))]
        if old:
            edits.append((*self._place(old), None))
        self._change(*edits)

    def _named(self, path: str, inode: str) -> Node:
        if path:
            folder, name = self._place(path)
            if name in folder.now:
                return folder.now[name]
        node = self._new(inode, False, 0o600)
        if int(inode) in self.nameless:
            node.kept, node.mode = self.nameless.pop(int(inode))
        return node

    def _unlink(self, path: str) -> None:
        folder, name = self._place(path)
        if name in folder.now:
            self._change((folder, name, None))

    def _sync(self, inode: str, mode: str, copy: str) -> None:
        node = self.by_inode.get(int(inode))
        if node is None:
            self.nameless[int(inode)] = (self.trace.folder / copy, int(mode, 8))
        else:
            node.kept, node.mode = self.trace.folder / copy, int(mode, 8)

    def _syncdir(self, inode: str) -> None:
        folder = self.by_inode[int(inode)]
        for change in list(folder.pending):
            self._make_durable(change)

    def _make_durable(self, change: Change) -> None:
        if change.done:
            return
        change.done = True
        for folder, name, node in change.edits:
            for earlier in folder.pending[:folder.pending.index(change)]:
                if any(each[0] is folder and each[1] == name for each in earlier.edits):
                    self._make_durable(earlier)
            folder.pending.remove(change)
            put(folder.durable, name, node)

    # what is left

    def names(self) -> set[str]:
        """All paths, as things are now."""
        out: set[str] = set()

        def walk(node: Node, path: str) -> None:
            for name, each in node.now.items():
                out.add(path + name)
                if each.folder:
                    walk(each, f"{path}{name}/")
        walk(self.root, "")
        return out

    def write(self, target: Path, what: str, dice: random.Random) -> None:
        """Makes `target`, which is not there."""
        names, seen = self._chosen(what, dice), dict[Node, Path]()

        def walk(node: Node, path: Path) -> None:
            path.mkdir()
            for name, each in names.get(node, node.durable).items():
                if each.folder:
                    walk(each, path / name)
                elif each in seen:
                    os.link(seen[each], path / name)
                else:
                    if each.kept is None:
                        (path / name).write_bytes(b"" if what == LOST else bytes(dice.choice((0, 1, 4096))))
                    else:
                        shutil.copyfile(each.kept, path / name)
                    (path / name).chmod(each.mode)
                    seen[each] = path / name
            path.chmod(node.mode)
        walk(self.root, target)
        give(target)

    def _chosen(self, what: str, dice: random.Random) -> dict[Node, dict[str, Node]]:
        """The names in folders that have others than the durable ones."""
        names: dict[Node, dict[str, Node]] = {}
        changes = sorted({change for folder in self._folders() for change in folder.pending}, key=lambda each: each.number)
        if what == JOURNAL:
            changes = changes[:dice.randrange(len(changes) + 1)]
        elif what == ANY:
            changes = [each for each in changes if dice.random() < 0.5]
        for change in changes if what != LOST else ():
            for folder, name, node in change.edits:
                put(names.setdefault(folder, dict(folder.durable)), name, node)
        return names

    def _folders(self) -> set[Node]:
        found, left = {self.root}, [self.root]
        while left:
            here = left.pop()
            below = {each for names in (here.now, here.durable) for each in names.values() if each.folder} - found
            found |= below
            left += below
        return found


def put(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node
