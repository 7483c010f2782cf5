"""Workers, the master, or all of nginx, are killed at random while 16 clients read ranges and wholes of files that are being fetched.

    make killtest N=200 [SEED=...]      so many rounds
    make e2e                            a few

Each round: a new file, 16 clients at random offsets, kill -9 of a worker, of both, of the master (another nginx starts
beside its orphans, which are killed then), or of everything with a start after it, at a random moment, once or twice. No byte that comes is wrong, what is complete is right, nobody is stuck, upstream sends the file once but for what was under way, and after each kill every
granule that the map calls valid holds the file's bytes.
"""

from __future__ import annotations

import os
import random
import signal
from typing import Callable

import pytest
from conftest import COUNTS
from downloads import MIB, Download, forget, fresh, slice_of, whole
from parts import valid, wrong

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

ROUNDS = int(os.environ.get("N", "6"))
SEED = int(os.environ.get("SEED", "20261125"))
CLIENTS = 16
ONE_KILL = 5 * (MIB + 4 * MIB)       # of each transfer the granule under way, and what the kernel took in meanwhile


def spread(dice: random.Random, world: World, facts: dict) -> list[tuple[int, int, Download]]:
    clients = []
    for number in range(CLIENTS):
        first, end = 0, facts["size"]
        headers = {}
        if number % 2:
            first = dice.randrange(facts["size"])
            end = facts["size"] if dice.random() < 0.3 else min(facts["size"], first + dice.randrange(1, 4 * MIB))
            headers = {"Range": f"bytes={first}-{end - 1 if end < facts['size'] else ''}"}
        clients.append((first, end, Download(world, facts["main"], headers=headers)))
    return clients


def kill_master(world: World) -> int:
    """Its workers go on without it, beside another nginx, until they are killed too."""
    orphans = [(pid, procs.start_time(pid) or 0) for pid in world.nginx.workers()]
    procs.end(world.nginx.pid, world.nginx.began, signal.SIGKILL)
    world.nginx.start()
    for pid, began in orphans:
        procs.end(pid, began, signal.SIGKILL)
    procs.wait_until("the end of their last threads", lambda: all(procs.dead(pid) for pid, _ in orphans))
    COUNTS["killtest: of the master"] += 1
    return 1 + len(orphans)


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_kills(make_world: Callable[..., World], hub: HubProcess) -> None:
    dice = random.Random(SEED)
    print(f"killtest: seed {SEED}, {ROUNDS} rounds")
    world = make_world(workers=2, private={})
    world.expect_log(r"\[alert\].*exited on signal 9", min=1, max=4 * ROUNDS)
    for number in range(ROUNDS):
        facts = fresh(hub, 12 * MIB + dice.randrange(8 * MIB))
        hub.reset_stats()
        slow = hub.fault(facts["sha256"], rate_bytes_per_s=dice.choice((2, 4, 8)) * MIB)
        clients, kills = spread(dice, world, facts), 0
        for _ in range(dice.randrange(1, 3)):
            before = hub.content_bytes()
            target = min(before + dice.randrange(MIB // 10, 4 * MIB), facts["size"] - 1)
            procs.wait_until("some bytes", lambda: hub.content_bytes() >= target or not any(each.is_alive() for _, _, each in clients), 60)
            if number % 3 == 2:
                world.nginx.kill()
                COUNTS["killtest: of everything"] += 1
            elif number % 6 == 1:
                kills += kill_master(world)
            else:
                for pid in dice.sample(world.nginx.workers(), dice.randrange(1, 3)):
                    world.nginx.kill_worker(pid)
                    kills += 1
            assert not wrong(world, facts), f"round {number}, seed {SEED}: granules are not what the map says"
            COUNTS["killtest: granules compared"] += len(valid(world, facts))
            if number % 3 == 2:
                kills += 1
                world.nginx.start()
        hub.heal(slow)
        last = Download(world, facts["main"]).done()
        assert (last.status, last.clean, last.sha256) == (200, True, facts["sha256"]), f"round {number}, seed {SEED}"
        for first, end, client in clients:
            client.done()
            assert bytes(client.body) == slice_of(facts, first, first + len(client.body)), f"round {number}, seed {SEED}: wrong bytes"
            assert not client.clean or len(client.body) == end - first, f"round {number}, seed {SEED}"
        path = whole(world, facts)
        hub.wait_idle()
        assert hub.content_bytes() <= facts["size"] + kills * ONE_KILL, f"round {number}, seed {SEED}: {hub.content_bytes()} for {facts['size']}"
        COUNTS["killtest: kills"] += kills
        path.unlink()
        forget(facts)
