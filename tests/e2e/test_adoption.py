"""A fill outlives its worker: stopped and continued, reloaded, upgraded. Nobody who reads notices, and upstream sends each byte once,
but for what was on its way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Callable
from urllib.parse import urlsplit

import pytest
from downloads import GRANULE, MIB, Download, fresh, forget, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

# What one change of hands may cost: of each transfer the granule that was under way, and what the kernel took in for it meanwhile
# (a stopped process's sockets fill up: Linux lets each have some MiB).
UNDER_WAY = 5 * (GRANULE + 4 * MIB)


def connected(pid: int, port: int) -> bool:
    """Has this process a connection to that port?"""
    inodes = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and fields[3] == "01":
            inodes.add(f"socket:[{fields[9]}]")
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(entry) in inodes:
                return True
        except OSError:
            continue
    return False


def owner(world: World, hub: HubProcess, but: int = 0) -> int:
    """The worker that has transfers."""
    port = int(urlsplit(hub.cdn_url).port or 0)
    return int(str(procs.wait_until("a worker with a transfer", lambda: next(
        (pid for pid in world.nginx.workers() if pid != but and connected(pid, port)), None), 40)))


def check(world: World, hub: HubProcess, facts: dict, clients: list[Download], changes: int) -> None:
    for client in clients:
        client.done()
        assert client.clean and client.sha256 == facts["sha256"], (client.status, len(client.body))
    whole(world, facts)
    hub.wait_idle()
    more = hub.content_bytes() - facts["size"]
    print(f"{more / MIB:.1f} MiB fetched twice")
    assert 0 <= more <= changes * UNDER_WAY
    forget(facts)


@pytest.mark.parametrize("late", [False, True], ids=["in mid-fill", "when it is whole"])
def test_a_stopped_worker_loses_its_fill(make_world: Callable[..., World], hub: HubProcess, late: bool) -> None:
    """SIGSTOP: after a while the other worker goes on. SIGCONT: the first one notices, and its own clients get everything too."""
    world = make_world(workers=2, private={}, settings={"upstream.stall_timeout": "60s"})
    facts = fresh(hub, 96 * MIB + 99)
    slow = hub.fault(facts["sha256"], rate_bytes_per_s=2 * MIB)        # of each connection
    clients = [Download(world, facts["main"]) for _ in range(12)]     # so many that both workers have some
    for client in clients:
        client.has(MIB)
    stopped = owner(world, hub)
    os.kill(stopped, signal.SIGSTOP)
    try:
        owner(world, hub, but=stopped)
        if late:
            hub.heal(slow)
            whole(world, facts)
    finally:
        os.kill(stopped, signal.SIGCONT)
    if not late:
        world.nginx.wait_log("was taken over by another process")
        hub.heal(slow)
    check(world, hub, facts, clients, 1)


def test_reload_while_the_client_leaves(make_world: Callable[..., World], hub: HubProcess) -> None:
    """The old worker has nobody to serve any more and ends; the new ones go on with what it has."""
    world = make_world(workers=2, private={})
    facts = fresh(hub, 48 * MIB)
    slow = hub.fault(facts["sha256"], rate_bytes_per_s=2 * MIB)
    first = Download(world, facts["main"]).has(6 * MIB)
    old = world.nginx.workers()
    world.nginx.reload()
    after = [Download(world, facts["main"]) for _ in range(4)]
    first.leave()
    procs.wait_until("the end of the old workers", lambda: not world.nginx.workers(leaving=True), 60)
    assert owner(world, hub) not in old
    hub.heal(slow)
    check(world, hub, facts, after, 1)


def test_upgrade_in_the_middle_of_a_fill(make_world: Callable[..., World], hub: HubProcess) -> None:
    """USR2, WINCH, QUIT: two masters, each with shared memory of its own, over one cache."""
    world = make_world(workers=2, private={}, daemon=True)
    facts = fresh(hub, 96 * MIB)
    slow = hub.fault(facts["sha256"], rate_bytes_per_s=2 * MIB)
    before = [Download(world, facts["main"]) for _ in range(4)]
    before[0].has(4 * MIB)
    old_workers = world.nginx.workers()
    old, began = world.nginx.upgrade()
    os.kill(old, signal.SIGWINCH)
    procs.wait_until("old workers that leave", lambda: not any("shutting" not in procs.command_line(pid) for pid in procs.children(old)
                                                               if pid in old_workers))
    after = [Download(world, facts["main"]) for _ in range(4)]
    for client in after:
        client.has(5 * MIB)                                          # of what the old ones fetch
    for client in before:
        client.leave()
    procs.wait_until("the end of the old workers", lambda: not set(procs.children(old)) & set(old_workers), 60)
    assert owner(world, hub) not in old_workers
    hub.heal(slow)
    check(world, hub, facts, after, 1)
    assert procs.end(old, began, signal.SIGQUIT, 30)
    assert world.get(facts["main"], "reader")["x-cache"] == "HIT"


def test_upgrade_and_the_owner_is_killed(make_world: Callable[..., World], hub: HubProcess) -> None:
    """A worker of the old master dies with its fill: the new master's workers cannot see its slot, and take it over all the same."""
    world = make_world(workers=1, private={}, daemon=True)
    world.expect_log(r"\[alert\].*exited on signal 9", min=0, max=2)
    facts = fresh(hub, 48 * MIB)
    slow = hub.fault(facts["sha256"], rate_bytes_per_s=2 * MIB)
    lost = Download(world, facts["main"]).has(4 * MIB)                # its worker stays for it, and takes it along
    dying = owner(world, hub)
    old, began = world.nginx.upgrade()
    os.kill(old, signal.SIGWINCH)                                     # it starts no worker again
    procs.wait_until("the old worker takes no client any more", lambda: b"shutting down" in Path(f"/proc/{dying}/cmdline").read_bytes())
    reader = Download(world, facts["main"]).has(4 * MIB)
    os.kill(dying, signal.SIGKILL)
    owner(world, hub, but=dying)
    assert not lost.done().clean
    hub.heal(slow)
    check(world, hub, facts, [reader], 2)
    assert procs.end(old, began, signal.SIGQUIT, 30)
