"""The byte budget: the oldest files go, in order, and nobody is harmed; `hubgate cache ...`; damage on the disk is found."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

import clients
from downloads import MIB, Download, blob, fresh, sha256, whole
from test_damage import flip

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.nginx import command_file
from tests.lab.world import World

BUDGET = 24 * MIB


LOAD = """
import json, pathlib, sys
from huggingface_hub import snapshot_download
folder = pathlib.Path(snapshot_download(sys.argv[1]))
print(json.dumps({path.name: path.stat().st_size for path in folder.iterdir()}))
"""


def cached(world: World, facts: dict[str, Any]) -> bool:
    return blob(world, facts["sha256"]).exists()


def use(world: World, facts: dict[str, Any]) -> None:
    answer = world.get(facts["main"], "reader")
    assert answer.status == 200 and sha256(answer.body) == facts["sha256"]


def fetched(world: World, facts: dict[str, Any]) -> None:
    use(world, facts)
    whole(world, facts)


def files(folder: Path) -> dict[str, int]:
    """Sizes by name of all blobs (or parts) of a folder, those that data/ does not hold as well."""
    found = {}
    for path in folder.rglob("*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file() and stat.st_nlink == 1:
            found[path.name] = stat.st_size
    return found


def stat(world: World) -> dict[str, Any]:
    return json.loads(world.cli("cache", "stat", "--json").stdout)


def truth(world: World) -> int:
    return sum(files(world.nginx.cache / "blobs").values())


def accounted(world: World, most: int = 1 << 50, seconds: float = 30) -> dict[str, Any]:
    """Wait until what the index says is what the disk holds, within 1 %, and no more than so much."""
    said: dict[str, Any] = {}

    def same() -> bool:
        said.update(stat(world))
        return abs(said["blob_bytes"] - truth(world)) * 100 <= truth(world) and said["used_bytes"] <= most
    procs.wait_until("accounting that is right", same, seconds, every=0.2)
    return said


def test_the_oldest_go(make_world: Callable[..., World], hub: HubProcess) -> None:
    """Over the budget: those that were used longest ago, down to 90 %; what was used since stays, in both workers."""
    world = make_world(workers=2, settings={"cache.max_bytes": "24MiB"})
    first = [fresh(hub, 4 * MIB + i) for i in range(5)]
    for facts in first:
        fetched(world, facts)
        accounted(world)                                    # so that the order is this one
    use(world, first[0])
    more = fresh(hub, 7 * MIB)
    fetched(world, more)
    said = accounted(world, BUDGET)
    assert said["max_bytes"] == BUDGET and said["used_bytes"] <= BUDGET * 0.9 + MIB
    assert cached(world, first[0]) and cached(world, more) and not cached(world, first[1])
    assert cached(world, first[4])
    use(world, first[1])                                    # comes back, as it was


def test_a_file_larger_than_the_budget(make_world: Callable[..., World], hub: HubProcess) -> None:
    """It is fetched once for all who read it now, proved, and not kept; nothing goes because of it."""
    world = make_world(workers=2, settings={"cache.max_bytes": "24MiB"})
    small, large = fresh(hub, 5 * MIB), fresh(hub, 40 * MIB + 7)
    fetched(world, small)
    hub.wait_idle()
    before = hub.content_bytes()
    clients = [Download(world, large["main"]) for _ in range(4)]
    assert [(client.done().status, client.clean, client.sha256) for client in clients] == [(200, True, large["sha256"])] * 4
    hub.wait_idle()
    assert hub.content_bytes() - before == large["size"]
    assert accounted(world, BUDGET)["used_bytes"] < 6 * MIB
    assert cached(world, small) and not cached(world, large)
    refused = world.cli("cache", "prefetch", f"model:{large['repo']}", check=False)
    assert refused.returncode and "larger than cache.max_bytes" in refused.stderr


def test_a_slow_reader_and_data_are_not_harmed(make_world: Callable[..., World], hub: HubProcess) -> None:
    """Names go, bytes that somebody reads do not; what data/ holds is served whatever the budget."""
    world = make_world(settings={"cache.max_bytes": "24MiB"}, private={"acme/big": {"w.bin": {"size": 9 * MIB, "seed": 5, "lfs": True}}})
    private = world.get("/acme/big/resolve/main/w.bin", "reader")
    assert private.status == 200 and len(private.body) == 9 * MIB
    slow = fresh(hub, 12 * MIB)
    fetched(world, slow)
    reader = SlowReader(world, slow["main"])
    while cached(world, slow):
        other = fresh(hub, 6 * MIB)
        fetched(world, other)
        accounted(world, BUDGET)
    assert sha256(reader.rest()) == slow["sha256"]
    again = world.get("/acme/big/resolve/main/w.bin", "reader")
    assert again.body == private.body
    accounted(world, BUDGET)


class SlowReader:
    """A download that takes nothing before rest()."""

    def __init__(self, world: World, target: str) -> None:
        parts = urlsplit(world.url)
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.sock.connect((parts.hostname, parts.port))
        lines = {"Host": parts.netloc, "Connection": "close", **world.headers("reader")}
        self.sock.sendall(f"GET {target} HTTP/1.1\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in lines.items()).encode() + b"\r\n")
        self.data = self.sock.recv(1000)

    def rest(self) -> bytes:
        while chunk := self.sock.recv(1 << 18):
            self.data += chunk
        self.sock.close()
        return self.data.partition(b"\r\n\r\n")[2]


def test_pins(make_world: Callable[..., World], hub: HubProcess) -> None:
    """What is pinned stays, also when the index has begun anew; unpinned it goes like all others. No reload."""
    world = make_world(settings={"cache.max_bytes": "24MiB"})
    kept = fresh(hub, 10 * MIB)
    fetched(world, kept)
    tree = f"/api/models/{kept['repo']}/tree/main?recursive=true"
    assert world.get(tree, "reader").status == 200
    hub.wait_idle()
    assert "2 files" in world.cli("cache", "pin", kept["repo"]).stdout
    assert world.cli("cache", "pin", f"model:{kept['repo']}", check=False).returncode == 1
    assert json.loads(world.cli("cache", "pin", "--list", "--json").stdout) == [f"model:{kept['repo']}"]
    for _ in range(3):
        press(world, hub)
    assert cached(world, kept)
    refused = world.cli("cache", "evict", kept["repo"], check=False)
    assert refused.returncode == 1 and "pinned" in refused.stdout and cached(world, kept)
    assert any(row["repo"] == f"model:{kept['repo']}" and row["pinned"] for row in json.loads(world.cli("cache", "ls", "--json").stdout))
    world.nginx.stop()
    (world.nginx.cache / "index" / "data.mdb").unlink()
    world.nginx.start()
    for _ in range(3):
        press(world, hub)
    assert cached(world, kept)
    # a pin follows its branch, once the files of the new commit are known
    new = hub.commit(kept["repo"], {"model.bin": {"size": 8 * MIB, "seed": kept["seed"] + 1, "lfs": True}})
    facts = hub.file(kept["repo"], "model.bin")
    next_one = {**facts, "main": f"/{kept['repo']}/resolve/{new}/model.bin"}
    fetched(world, next_one)
    world.cli("cache", "prefetch", kept["repo"])            # asks what main is, and for its tree
    os.utime(world.nginx.data / "pins")                     # read again now, not within a minute
    for _ in range(3):
        press(world, hub)
    assert cached(world, next_one) and not cached(world, kept)
    kept = next_one | {"repo": kept["repo"]}
    world.cli("cache", "unpin", kept["repo"])
    assert world.cli("cache", "unpin", kept["repo"], check=False).returncode == 1
    for _ in range(3):
        press(world, hub)
    assert not cached(world, kept)
    assert world.cli("cache", "pin", "acme/llm", check=False).returncode == 2      # private: data/ has it


def press(world: World, hub: HubProcess) -> None:
    """One more file than fits."""
    facts = fresh(hub, 9 * MIB)
    fetched(world, facts)
    accounted(world, BUDGET)


def test_accounting_after_kill(make_world: Callable[..., World], hub: HubProcess) -> None:
    """kill -9 of workers and of everything between a link and its entry, files put and removed by hand: the walk finds all."""
    world = make_world(workers=2)
    world.expect_log(r"\[alert\].*exited on signal 9", min=0)
    facts = [fresh(hub, 3 * MIB) for _ in range(4)]
    for each in facts:
        fetched(world, each)
        for pid in world.nginx.workers():                   # at once: nothing was written down yet
            os.kill(pid, signal.SIGKILL)
        procs.wait_until("new workers", lambda: world.get("/-/healthz").status == 200, 20)
    assert accounted(world)["blobs"] >= 4
    use(world, facts[0])
    world.nginx.kill()
    blob(world, facts[1]["sha256"]).unlink()
    world.nginx.start()
    accounted(world)
    assert stat(world)["blob_bytes"] == truth(world)


def test_verify_finds_damage(make_world: Callable[..., World], hub: HubProcess) -> None:
    """A flipped byte, a file cut short, two that are swapped: found, removed, fetched anew; the others stay."""
    world = make_world(private={"acme/w": {"w.bin": {"size": 3 * MIB, "seed": 8, "lfs": True}}})
    assert world.get("/acme/w/resolve/main/w.bin", "reader").status == 200
    facts = [fresh(hub, size) for size in (3 * MIB, 2 * MIB + 5, 4 * MIB, 4 * MIB, 3 * MIB)]
    for each in facts:
        fetched(world, each)
    accounted(world)
    run = world.cli("cache", "verify")
    assert run.returncode == 0 and ": 0 damaged" in run.stdout
    paths = [blob(world, each["sha256"]) for each in facts]
    for path in paths:
        path.chmod(0o640)
    flip(paths[0], 2 * MIB + 77)
    os.truncate(paths[1], 2 * MIB)
    aside = paths[2].with_suffix(".aside")
    paths[2].rename(aside)
    paths[3].rename(paths[2])
    aside.rename(paths[3])
    run = world.cli("cache", "verify", "--json", check=False)
    assert run.returncode == 1, run.stderr
    said = json.loads(run.stdout)
    assert {row["digest"] for row in said["damaged"]} == {each["sha256"] for each in facts[:4]} and said["complete"]
    assert not any(path.exists() for path in paths[:4]) and paths[4].exists()
    for each in facts:
        fetched(world, each)
    run = world.cli("cache", "verify", "--rate", "1GiB")
    assert ": 0 damaged" in run.stdout
    accounted(world)


def test_scrub_in_the_background(make_world: Callable[..., World], hub: HubProcess) -> None:
    """The same without a command, and it goes on after a restart."""
    world = make_world(settings={"cache.scrub": "2s"})
    world.expect_log(r"\[warn\].*blob [0-9a-f]{64} was damaged on the disk", min=2)
    for _ in range(2):
        facts = fresh(hub, 3 * MIB)
        use(world, facts)
        path = whole(world, facts)
        accounted(world)
        path.chmod(0o640)
        flip(path, 1234567)
        procs.wait_until("the damage to be found", lambda: not path.exists(), 30)
        use(world, facts)
        world.nginx.stop()
        world.nginx.start()


def test_evict_and_ls(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world()
    one, two = fresh(hub, 3 * MIB), fresh(hub, 5 * MIB)
    for facts in (one, two):
        use(world, facts)
        assert world.get(f"/{facts['repo']}/resolve/main/config.json", "reader").status == 200
        whole(world, facts)
    accounted(world)
    rows = {row["repo"]: row for row in json.loads(world.cli("cache", "ls", "--json").stdout)}
    assert set(rows) == {f"model:{one['repo']}", f"model:{two['repo']}"}
    row = rows[f"model:{one['repo']}"]
    assert row["files"] == 2 and 0 < row["bytes"] - 3 * MIB < 1000 and row["last_use"].startswith(time.strftime("%Y-", time.gmtime()))
    assert one["repo"] in world.cli("cache", "ls").stdout
    assert "evicted 1 files" in world.cli("cache", "evict", f"model:{one['repo']}@main//model.bin").stdout
    assert not cached(world, one) and cached(world, two)
    assert world.cli("cache", "evict", "model:no/such", check=False).returncode == 1
    part = fresh(hub, 6 * MIB)                            # what is there of a file goes as well, once nobody fetches it
    assert world.get(part["main"], "reader", headers={"Range": "bytes=0-99"}).status == 206
    path = world.nginx.cache / "parts" / f"{part['sha256']}.part"
    assert path.exists()
    procs.wait_until("a part that goes", lambda: world.cli("cache", "evict", f"model:{part['repo']}", check=False).returncode == 0)
    assert not path.exists()
    assert world.cli("cache", "evict", "--to", "1MiB").returncode == 0
    assert not cached(world, two) and stat(world)["used_bytes"] <= MIB
    for arguments in (["cache", "evict"], ["cache", "ls", "x"], ["cache", "pin"], ["cache", "verify", "x"], ["cache", "prefetch"]):
        run = world.cli(*arguments, check=False)
        assert run.returncode == 2 and "usage: hubgate" in run.stderr
    use(world, one)


def test_prefetch_then_offline(make_world: Callable[..., World], hub: HubProcess) -> None:
    """Prefetched while nginx runs and while it does not; then everything is there for the real client, without upstream."""
    world = make_world(settings={"upstream.ttl": "1s", "upstream.stale_max": "1h"})
    one, two = fresh(hub, 20 * MIB), fresh(hub, 9 * MIB)
    lines = world.folder / "models.txt"
    lines.write_text(f"# the models of the week\n{two['repo']}@main\n\n")
    run = world.cli("cache", "prefetch", one["repo"], "-f", str(lines))
    assert run.returncode == 0 and "2 files, 2 of them to be fetched" in run.stdout, run.stdout + run.stderr
    assert cached(world, one) and cached(world, two)
    assert "0 of them" in world.cli("cache", "prefetch", one["repo"]).stdout
    assert hub.content_bytes() < 30 * MIB
    three = fresh(hub, 6 * MIB)
    world.nginx.stop()
    world.cli("cache", "prefetch", f"model:{three['repo']}")
    assert cached(world, three)
    world.nginx.start()
    accounted(world)
    missing = world.cli("cache", "prefetch", "no/such-model", check=False)
    assert missing.returncode == 1 and "no such repository" in missing.stderr
    assert world.cli("cache", "prefetch", "acme/llm", check=False).returncode == 1      # private
    hub.fault("", status=503)
    for facts in (one, two, three):
        load = clients.python("hf240", LOAD, world.env("reader"), facts["repo"])
        assert load.status == 0 and load.json == {"config.json": load.json["config.json"], "model.bin": facts["size"]}, load.text


def start_prefetch(world: World, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([str(command_file()), "-c", str(world.nginx.config_file), "cache", "prefetch", *arguments],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def part_size(world: World, facts: dict[str, Any]) -> int:
    path = world.nginx.cache / "parts" / f"{facts['sha256']}.part"
    return path.stat().st_blocks * 512 if path.exists() else 0


def test_prefetch_beside_workers(make_world: Callable[..., World], hub: HubProcess) -> None:
    """A file that command and workers want at once is fetched once; a command that is killed leaves it to a worker."""
    world = make_world(workers=2)
    for kill in (False, True):
        facts = fresh(hub, 24 * MIB)
        before = hub.content_bytes()
        slow = hub.fault(facts["sha256"], rate_bytes_per_s=2 * MIB)
        command = start_prefetch(world, facts["repo"])
        procs.wait_until("the fill", lambda: part_size(world, facts) > 2 * MIB, 30)
        client = Download(world, facts["main"]).has(1 * MIB)
        if kill:
            command.kill()
        hub.heal(slow)
        assert client.done().clean and client.sha256 == facts["sha256"]
        assert command.wait(60) == (-signal.SIGKILL if kill else 0)
        whole(world, facts)
        assert hub.content_bytes() - before <= facts["size"] + (10 if kill else 1) * MIB
    accounted(world)


def test_bars(make_world: Callable[..., World], hub: HubProcess) -> None:
    """On a terminal there are bars, elsewhere there are none."""
    world = make_world()
    facts = fresh(hub, 5 * MIB)
    for arguments in (["prefetch", facts["repo"]], ["verify"]):
        ours, its = pty.openpty()
        command = subprocess.Popen([str(command_file()), "-c", str(world.nginx.config_file), "cache", *arguments],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=its)
        os.close(its)
        assert command.communicate(timeout=60)[0] and command.returncode == 0
        shown = os.read(ours, 65536).decode()
        os.close(ours)
        assert "[##############################] 100%  5.0 MiB of 5.0 MiB" in shown, shown
        assert world.cli("cache", *arguments).stderr == ""
