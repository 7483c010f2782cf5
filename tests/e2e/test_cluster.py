"""Large files on several nodes: one of them fetches from the Hub, the others from it; each proves the digest for itself."""

from __future__ import annotations

import os
import signal
from typing import Callable, Iterator

import pytest
from downloads import MIB, Download, fresh, sha256, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.redis import Redis
from tests.lab.world import World

SIZE = 24 * MIB
IN_FLIGHT = 16 * MIB             # granules and socket buffers of a holder that dies


@pytest.fixture
def nodes(make_world: Callable[..., World], redis: Redis) -> Iterator[list[World]]:
    first = make_world(workers=2, private={}, redis=redis)
    yield [first, make_world(workers=2, node_of=first), make_world(workers=2, node_of=first)]


def from_nodes(worlds: list[World]) -> int:
    """Bytes that came from other nodes."""
    total = 0
    for world in worlds:
        text = world.get("/-/metrics").body.decode()
        total += sum(int(float(line.split()[1])) for line in text.splitlines() if line.startswith("hubgate_node_received_bytes_total"))
    return total


def everywhere(nodes: list[World], facts: dict, each: int) -> list[Download]:
    return [Download(node, facts["main"]) for node in nodes for _ in range(each)]


def check(clients: list[Download], facts: dict) -> None:
    for client in clients:
        client.done(120)
        assert (client.status, client.clean, client.sha256) == (200, True, facts["sha256"]), (client.status, len(client.body))


def test_thirty_cold_clients_on_three_nodes(nodes: list[World], hub: HubProcess) -> None:
    facts = fresh(hub, SIZE)
    hub.fault(facts["sha256"], rate_bytes_per_s=8 * MIB)
    check(everywhere(nodes, facts, 10), facts)
    for node in nodes:
        whole(node, facts)
    hub.wait_idle()
    assert hub.content_bytes() == facts["size"]
    assert from_nodes(nodes) >= 2 * facts["size"]


def holder(nodes: list[World], facts: dict, hub: HubProcess) -> tuple[World, list[World]]:
    """One node fetches, the others follow it."""
    slow = hub.fault(facts["sha256"], rate_bytes_per_s=2 * MIB)
    first = Download(nodes[0], facts["main"]).has(2 * MIB)
    rest = [Download(node, facts["main"]).has(1 * MIB) for node in nodes[1:]]
    facts["clients"], facts["slow"] = [first, *rest], slow
    return nodes[0], nodes[1:]


def test_the_holder_dies(nodes: list[World], hub: HubProcess) -> None:
    facts = fresh(hub, SIZE)
    held, followers = holder(nodes, facts, hub)
    held.expect_log(r"\[alert\].*exited on signal 9", min=1, max=4)
    os.kill(held.nginx.pid, signal.SIGSTOP)               # no new workers: the node is gone
    for pid in held.nginx.workers():
        os.kill(pid, signal.SIGKILL)
    hub.heal(facts["slow"])
    check(facts["clients"][1:], facts)
    os.kill(held.nginx.pid, signal.SIGCONT)
    hub.wait_idle()
    assert hub.content_bytes() <= facts["size"] + IN_FLIGHT, hub.content_bytes() / MIB
    print(f"{hub.content_bytes() / MIB:.1f} MiB for {facts['size'] / MIB:.0f}")


def test_redis_dies_in_mid_fill(nodes: list[World], redis: Redis, hub: HubProcess) -> None:
    facts = fresh(hub, SIZE)
    holder(nodes, facts, hub)
    redis.kill()
    for node in nodes:
        node.expect_log(r"redis", min=0, max=20)
    hub.heal(facts["slow"])
    check(facts["clients"], facts)
    hub.wait_idle()
    assert hub.content_bytes() <= facts["size"] + IN_FLIGHT


def test_only_for_nodes(nodes: list[World], hub: HubProcess) -> None:
    """Without the credential there is no such route, whoever asks; what it gives is the blob."""
    facts = fresh(hub, 2 * MIB)
    assert nodes[0].get(facts["main"], "reader").status == 200
    target = f"/-/blob/{facts['sha256']}"
    missing = nodes[0].get("/-/nothing", "reader")
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "HubgateNode 1.00"}):
        for role in (None, "reader") if not headers else (None,):
            answer = nodes[0].get(target, role, headers=headers)
            assert (answer.status, answer.body) == (missing.status, missing.body)
    assert nodes[1].get(facts["main"], "reader").status == 200
    whole(nodes[1], facts)
    hub.wait_idle()
    assert hub.content_bytes() == facts["size"]
    assert sha256(nodes[2].get(facts["main"], "reader").body) == facts["sha256"]
    procs.wait_until("an audit record of the node", lambda: [each for each in nodes[0].audit() if each["event"] == "node-blob" and each["subject"]["kind"] == "node"])
