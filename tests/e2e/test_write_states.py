"""Random sequences of what writers and administrators do to one private repository, against a model of it.

Commits (small files, large objects, deletions, stale parents), several at once, branches, tags, deletion and undelete, moves,
gc, reloads, and workers that are killed while a commit or an object is on its way.  After every step:

    lost commits    none: what was answered 200 is there; what was not answered is there as a whole, or not at all
    wrong bytes     none: each file of the branch reads as it was written, by its listing at once, by its bytes now and then
    refusals        those of the model, and no others; and none is a 5xx but where a worker was killed

`make writestates N=500` draws new sequences and prints one that fails; without N the same few run each time.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.lab import procs
from tests.lab.fetch import Response
from tests.lab.world import World

SEQUENCES = int(os.environ.get("STATES") or 0)
NAMES = itertools.count()
PATHS = ["a.txt", "b c.txt", "d/x", "d/y", "d/e/z", "d/e/\u00e9", "w.bin", "big/v.bin"]
Tree = dict[str, bytes]


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class WriteStates(RuleBasedStateMachine):
    world: World
    sequences = steps = kills = acknowledged = 0

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.name = ""
        self.branches: dict[str, Tree] = {}
        self.tags: dict[str, Tree] = {}
        self.tips: dict[str, str] = {}                   # of a branch: the commit of the last acknowledged change
        self.there = False
        self.count = itertools.count()

    # --- asking

    def note(self, text: str) -> None:
        self.log.append(text)
        type(self).steps += 1

    def check(self, true: object, text: str) -> None:
        if not true:
            raise AssertionError(text + "\n    " + "\n    ".join([self.name, *self.log]))

    def ask(self, method: str, route: str, body: Any = None, who: str = "admin") -> Response:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        return self.world.get(route, who, method, body=data, headers={"Content-Type": "application/json"}, timeout=60)

    def api(self, rest: str = "") -> str:
        return f"/api/models/{self.name}{rest}"

    def done(self, got: Response, status: int = 200) -> None:
        self.check(got.status == status, f"{got.status}, not {status}: {got.text[:300]}")

    # --- what a commit is made of

    def bytes_of(self, kind: str) -> bytes:
        number = next(self.count)
        return {"text": b"line %d\n" % number, "empty": b"", "large": (b"%d " % number) * 3000}[kind]

    def put(self, path: str, data: bytes) -> dict:
        """A .bin is an object: its bytes go first."""
        if not path.endswith(".bin") or not data:
            return {"key": "file", "value": {"path": path, "content": data.decode(), "encoding": "utf-8"}}
        oid = hashlib.sha256(data).hexdigest()
        got = self.ask("POST", f"/{self.name}.git/info/lfs/objects/batch", {"operation": "upload", "objects": [{"oid": oid, "size": len(data)}]})
        self.done(got)
        actions = got.json()["objects"][0].get("actions")
        if actions:
            self.done(self.world.get(actions["upload"]["href"][len(self.world.url):], None, "PUT", body=data))
        return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, "size": len(data)}}

    def operations(self, tree: Tree, changes: list[tuple[str, str, str]]) -> tuple[list[dict], Tree]:
        after, lines = dict(tree), []
        for what, path, kind in changes:
            if what == "put":
                after[path] = self.bytes_of(kind)
                lines.append(self.put(path, after[path]))
            elif what == "remove" and path in after:
                del after[path]
                lines.append({"key": "deletedFile", "value": {"path": path}})
            elif what == "folder" and any(each.startswith("d/") for each in after):
                after = {each: data for each, data in after.items() if not each.startswith("d/")}
                lines.append({"key": "deletedFolder", "value": {"path": "d"}})
        return lines, after

    def body(self, lines: list[dict], **header: str) -> bytes:
        return "\n".join(json.dumps(each) for each in [{"key": "header", "value": {"summary": f"number {next(self.count)}", **header}}, *lines]).encode()

    # --- steps

    @initialize()
    def begin(self) -> None:
        type(self).sequences += 1
        self.name = f"acme/states-{next(NAMES)}"
        self.done(self.ask("POST", "/api/repos/create", {"name": self.name.partition("/")[2], "organization": "acme"}))
        self.branches, self.there = {"main": {}}, True
        self.tips["main"] = self.ask("GET", self.api()).json()["sha"]

    present = precondition(lambda self: self.there)
    some_changes = st.lists(st.tuples(st.sampled_from(["put", "put", "put", "remove", "folder"]), st.sampled_from(PATHS), st.sampled_from(["text", "large", "empty"])),
                            min_size=1, max_size=5)

    def pick(self, which: int) -> str:
        return sorted(self.branches)[which % len(self.branches)]

    @present
    @rule(which=st.integers(0, 3), several=st.lists(some_changes, min_size=1, max_size=4), parent=st.booleans())
    def commit(self, which: int, several: list, parent: bool) -> None:
        branch = self.pick(which)
        for changes in several:
            self.note(f"commit to {branch}: {changes}{' with its parent' if parent else ''}")
            lines, after = self.operations(self.branches[branch], changes)
            got = self.ask("POST", self.api(f"/commit/{quote(branch, safe='')}"), self.body(lines, **({"parentCommit": self.tips[branch]} if parent else {})))
            self.done(got)
            self.acknowledge(branch, after, got)

    def acknowledge(self, branch: str, after: Tree, got: Response) -> None:
        type(self).acknowledged += 1
        self.branches[branch], self.tips[branch] = after, got.json()["commitOid"]
        self.same(branch)

    @present
    @rule(which=st.integers(0, 3), how=st.sampled_from(["absent file", "stale parent", "object nobody sent", "bad path", "file and folder"]))
    def commit_refused(self, which: int, how: str) -> None:
        branch = self.pick(which)
        self.note(f"a commit to {branch} that is refused: {how}")
        line, status, header = {
            "absent file": ({"key": "deletedFile", "value": {"path": "never"}}, 404, {}),
            "stale parent": ({"key": "file", "value": {"path": "s", "content": "s", "encoding": "utf-8"}}, 412, {"parentCommit": "0" * 40}),
            "object nobody sent": ({"key": "lfsFile", "value": {"path": "n.bin", "algo": "sha256", "oid": "1" * 64, "size": 1}}, 400, {}),
            "bad path": ({"key": "file", "value": {"path": "x/../y", "content": "", "encoding": "utf-8"}}, 400, {}),
            "file and folder": ({"key": "file", "value": {"path": ".gitattributes/x", "content": "", "encoding": "utf-8"}}, 400, {})}[how]
        first = {"key": "file", "value": {"path": "first", "content": "must not stay", "encoding": "utf-8"}}
        self.done(self.ask("POST", self.api(f"/commit/{quote(branch, safe='')}"), self.body([first, line], **header)), status)
        self.same(branch)

    @present
    @rule(which=st.integers(0, 3), writers=st.integers(2, 4))
    def race(self, which: int, writers: int) -> None:
        """Several at once on one branch, each with a file of its own: all of them are there."""
        branch = self.pick(which)
        self.note(f"{writers} commits to {branch} at once")
        files = {f"race/{next(self.count)}": b"by one of several" for _ in range(writers)}
        answers: dict[str, Response] = {}

        def one(path: str, data: bytes) -> None:
            answers[path] = self.ask("POST", self.api(f"/commit/{quote(branch, safe='')}"), self.body([self.put(path, data)]))
        threads = [threading.Thread(target=one, args=item) for item in files.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.check(len(answers) == writers and {each.status for each in answers.values()} == {200}, f"{[(each.status, each.text[:200]) for each in answers.values()]}")
        type(self).acknowledged += writers
        self.branches[branch] = {**self.branches[branch], **files}
        self.tips[branch] = self.listing(branch)[1]
        self.same(branch)

    @present
    @rule(which=st.integers(0, 3), changes=some_changes, share=st.sampled_from([0.0, 0.5, 0.99, 1.0, 1.0, 1.0]), both=st.booleans())
    def killed(self, which: int, changes: list, share: float, both: bool) -> None:
        """kill -9 while a commit is on its way: what was not answered is there as a whole or not at all, and what was is there."""
        branch = self.pick(which)
        self.note(f"kill -9 during a commit to {branch}, {share:.0%} of it sent: {changes}")
        before = self.branches[branch]
        lines, after = self.operations(before, [*changes, ("put", "b c.txt", "text")])
        payload, parts = self.body(lines), urlsplit(self.world.url)
        with socket.create_connection((str(parts.hostname), parts.port or 80), 60) as sock:
            fields = {"Host": parts.netloc, "Connection": "close", "Content-Length": str(len(payload)), **self.world.headers("admin")}
            sock.sendall((f"POST {self.api('/commit/' + quote(branch, safe=''))} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode())
            sock.sendall(payload[:int(len(payload) * share)])
            for pid in self.world.nginx.workers()[:2 if both else 1]:
                self.world.nginx.kill_worker(pid)
                type(self).kills += 1
            if share < 1:
                sock.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := sock.recv(1 << 16):
                    answer += piece
            except ConnectionError:
                pass
        said = answer.split(b" ", 2)[1:2] == [b"200"]
        git = ["git", "--git-dir", str(self.world.folder / "data/repos/model" / (self.name + ".git"))]
        tip = subprocess.run([*git, "rev-parse", f"refs/heads/{branch}"], capture_output=True, text=True, check=True).stdout.strip()
        # what nobody was told of may be read as it was for 2 s more
        procs.wait_until("what is in data/", lambda: self.listing(branch)[1] == tip)
        held, commit = self.listing(branch)
        self.check(not said or held == self.shown(after), "an acknowledged commit is lost")
        self.check(held in (self.shown(before), self.shown(after)), f"neither before nor after: {held}")
        self.branches[branch] = after if held == self.shown(after) else before
        self.tips[branch] = commit

    @precondition(lambda self: self.there and len(self.branches) < 4)
    @rule(which=st.integers(0, 3), name=st.sampled_from(["dev", "a/b", "Dev", "\u00e9"]))
    def branch(self, which: int, name: str) -> None:
        start = self.pick(which)
        self.note(f"branch {name} at {start}")
        got = self.ask("POST", self.api(f"/branch/{quote(name, safe='')}"), {"startingPoint": start})
        if name in self.branches:
            return self.done(got, 409)
        self.done(got)
        self.branches[name], self.tips[name] = dict(self.branches[start]), self.tips[start]
        self.same(name)

    @precondition(lambda self: self.there and len(self.branches) > 1)
    @rule(which=st.integers(0, 2))
    def drop_branch(self, which: int) -> None:
        name = sorted(set(self.branches) - {"main"})[which % (len(self.branches) - 1)]
        self.note(f"delete branch {name}")
        self.done(self.ask("DELETE", self.api(f"/branch/{quote(name, safe='')}")))
        del self.branches[name], self.tips[name]
        self.refs()

    @present
    @rule(which=st.integers(0, 3), name=st.sampled_from(["v1", "v2"]), message=st.sampled_from(["", "the one"]))
    def tag(self, which: int, name: str, message: str) -> None:
        at = self.pick(which)
        self.note(f"tag {name} at {at}")
        got = self.ask("POST", self.api(f"/tag/{quote(at, safe='')}"), {"tag": name, "message": message})
        if name in self.tags:
            return self.done(got, 409)
        self.done(got)
        self.tags[name] = dict(self.branches[at])
        self.refs()

    @precondition(lambda self: self.there and self.tags)
    @rule()
    def drop_tag(self) -> None:
        name = sorted(self.tags)[0]
        self.note(f"delete tag {name}")
        self.done(self.ask("DELETE", self.api(f"/tag/{name}")))
        del self.tags[name]
        self.refs()

    @present
    @rule()
    def delete(self) -> None:
        self.note("delete the repository")
        self.done(self.ask("DELETE", "/api/repos/delete", {"name": self.name.partition("/")[2], "organization": "acme"}))
        self.there = False
        self.done(self.ask("POST", self.api("/commit/main"), self.body([])), 404)

    @precondition(lambda self: not self.there)
    @rule()
    def undelete(self) -> None:
        self.note("hubgate repo undelete")
        done = self.world.cli("repo", "undelete", self.name, check=False)
        self.check(done.returncode == 0, done.stderr)
        self.there = True
        procs.wait_until("it is back", lambda: self.ask("GET", self.api()).status == 200)      # the command tells no worker: 2 s
        for name in self.branches:
            procs.wait_until("its branches", lambda name=name: self.ask("GET", self.api(f"/tree/{quote(name, safe='')}")).status == 200)     # type: ignore[misc]
            self.same(name)

    @present
    @rule()
    def move(self) -> None:
        new = f"acme/states-{next(NAMES)}"
        self.note(f"move to {new}")
        self.done(self.ask("POST", "/api/repos/move", {"fromRepo": self.name, "toRepo": new, "type": "model"}))
        old, self.name = self.api(), new
        self.check(self.ask("GET", old).status == 307, "the old name leads nowhere")
        for name in self.branches:
            self.same(name)

    @rule(grace=st.sampled_from(["1s", "7d"]))
    def gc(self, grace: str) -> None:
        """With a grace of a second what is deleted is gone: not while it has to come back."""
        self.note(f"hubgate repo gc --grace {grace if self.there else '7d'}")
        done = self.world.cli("repo", "gc", "--grace", grace if self.there else "7d", check=False)
        self.check(done.returncode == 0, done.stdout + done.stderr)

    @rule()
    def reload(self) -> None:
        self.note("reload")
        self.world.nginx.reload()

    # --- what must hold

    @staticmethod
    def shown(tree: Tree) -> dict[str, str]:
        """A file by what the listing says of it: sha256 of an object, git's name of the rest."""
        return {path: hashlib.sha256(data).hexdigest() if path.endswith(".bin") and data else git_oid(data) for path, data in tree.items()}

    def listing(self, revision: str) -> tuple[dict[str, str], str]:
        got = self.ask("GET", self.api(f"/tree/{quote(revision, safe='')}?recursive=true"))
        self.done(got)
        found = {each["path"]: each["lfs"]["oid"] if "lfs" in each else each["oid"] for each in got.json() if each["type"] == "file"}
        found.pop(".gitattributes", None)
        return found, str(got["X-Repo-Commit"] or self.ask("GET", self.api(f"/revision/{quote(revision, safe='')}")).json()["sha"])

    def same(self, revision: str) -> None:
        held, want = self.listing(revision)[0], self.shown(self.branches[revision])
        self.check(held == want, f"{revision} is {held}\n    and should be {want}")

    def refs(self) -> None:
        got = self.ask("GET", self.api("/refs"))
        self.done(got)
        found = got.json()
        self.check({each["name"] for each in found["branches"]} == set(self.branches), f"branches: {found['branches']}")
        self.check({each["name"] for each in found["tags"]} == set(self.tags), f"tags: {found['tags']}")

    @present
    @rule(which=st.integers(0, 3))
    def read(self, which: int) -> None:
        self.note("read all of a branch")
        self.bytes_are(self.pick(which), self.branches[self.pick(which)])

    def bytes_are(self, revision: str, tree: Tree) -> None:
        for path, data in tree.items():
            got = self.ask("GET", f"/{self.name}/resolve/{quote(revision, safe='')}/{quote(path)}")
            self.check(got.status == 200 and got.body == data, f"{revision}//{path}: {got.status}, {len(got.body)} bytes for {len(data)}")

    def teardown(self) -> None:
        if not self.branches:
            return
        if not self.there:
            self.undelete()
        self.refs()
        self.done(self.ask("POST", self.api("/commit/main"), self.body([])))         # whoever writes next sweeps what the dead left
        for name, tree in self.branches.items():
            self.same(name)
            self.bytes_are(name, tree)
        for name, tree in self.tags.items():
            self.bytes_are(name, tree)
        git = self.world.folder / "data/repos/model" / (self.name + ".git")
        done = subprocess.run(["git", "--git-dir", str(git), "fsck", "--strict", "--full", "--no-dangling"], capture_output=True, text=True)
        self.check(done.returncode == 0 and done.stdout + done.stderr == "", done.stdout + done.stderr)
        procs.wait_until("nothing is left in data/tmp", lambda: not list((self.world.folder / "data/tmp").iterdir()), 30)


@pytest.mark.timeout(0 if SEQUENCES else 300)
def test_write_states(make_world: Callable[..., World], capsys: pytest.CaptureFixture[str]) -> None:
    world = make_world(workers=2, people="file", private={})
    world.expect_log(r"\[alert\].*exited on signal 9", min=0)
    machine = type("TheseStates", (WriteStates,), {"world": world})
    kept = Path(__file__).resolve().parents[2] / "build" / "hypothesis"
    run_state_machine_as_test(machine, settings=settings(
        max_examples=SEQUENCES or 8, stateful_step_count=14, derandomize=not SEQUENCES, deadline=None, print_blob=False,
        database=DirectoryBasedExampleDatabase(kept) if SEQUENCES else None, suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate]))
    with capsys.disabled():
        print(f"\n{machine.sequences} sequences, {machine.steps} steps, {machine.acknowledged} commits acknowledged, {machine.kills} kills: none lost, no wrong byte")
