"""Large files on several nodes: one of them fetches from the Hub, the others from it; each proves the digest for itself."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import time
from typing import Callable, Iterator

import pytest
from downloads import MIB, Download, fresh, sha256, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.redis import Redis
from tests.lab.world import World

SIZE = 24 * MIB
# What a change of hands may cost beside what the node had that is gone: of each of its transfers what was under way while the test looked.
IN_FLIGHT = 5 * MIB
SOCKETS = 4 * 4 * MIB            # a stopped process's sockets fill up meanwhile: Linux lets each of its transfers have some MiB


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


def going_on(nodes: list[World], facts: dict, hub: HubProcess, end: Callable[[World], None], more: int = 0) -> None:
    """The holder ends in mid-fill. What it had is lost, and is the only thing that is fetched again: once, not by each of the others."""
    held, followers = holder(nodes, facts, hub)
    assert from_nodes(followers) >= 2 * MIB
    end(held)
    before = hub.content_bytes()
    hub.heal(facts["slow"])
    check(facts["clients"][1:], facts)
    hub.wait_idle()
    again = hub.content_bytes() - before
    print(f"{before / MIB:.1f} MiB, then {again / MIB:.1f} of {facts['size'] / MIB:.0f}")
    assert again <= facts["size"] - MIB + IN_FLIGHT + more


def test_the_holder_dies(nodes: list[World], hub: HubProcess) -> None:
    going_on(nodes, fresh(hub, SIZE), hub, lambda held: held.nginx.kill())


def test_the_holder_is_stopped(nodes: list[World], hub: HubProcess) -> None:
    """SIGSTOP: its sockets still take what comes, and it says nothing. SIGCONT: it goes on, as a follower of who has the fill now."""
    facts = fresh(hub, SIZE)
    pids: list[int] = []

    def stop(held: World) -> None:
        pids.extend([held.nginx.pid, *held.nginx.workers()])
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    try:
        going_on(nodes, facts, hub, stop, SOCKETS)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    check(facts["clients"], facts)
    for node in nodes:
        whole(node, facts)


def test_a_node_that_lies(nodes: list[World], hub: HubProcess) -> None:
    """What another node sends is proved here: wrong bytes are counted, nobody gets all of them, and the Hub is asked."""
    facts = fresh(hub, SIZE)
    assert Download(nodes[0], facts["main"]).done().sha256 == facts["sha256"]
    path = whole(nodes[0], facts)
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(facts["size"] - 1000)
        file.write(b"not what it was")
    hub.wait_idle()
    hub.reset_stats()
    first = Download(nodes[1], facts["main"]).done()
    assert first.sha256 == facts["sha256"] or not first.clean
    whole(nodes[1], facts)
    assert Download(nodes[1], facts["main"]).done().sha256 == facts["sha256"]
    hub.wait_idle()
    assert from_nodes(nodes[1:2]) == facts["size"] and hub.content_bytes() == facts["size"]
    assert "hubgate_integrity_failures_total 1" in nodes[1].get("/-/metrics").text.splitlines()


def test_redis_dies_in_mid_fill(nodes: list[World], redis: Redis, hub: HubProcess) -> None:
    facts = fresh(hub, SIZE)
    holder(nodes, facts, hub)
    before = hub.content_bytes()
    redis.kill()
    for node in nodes:
        node.expect_log(r"redis", min=0, max=20)
    hub.heal(facts["slow"])
    check(facts["clients"], facts)
    hub.wait_idle()
    print(f"{before / MIB:.1f} MiB, then {(hub.content_bytes() - before) / MIB:.1f}")
    assert hub.content_bytes() <= facts["size"] + IN_FLIGHT


def credential(key: str, digest: str, when: int) -> str:
    text = f"hubgate-node 1\nGET\n{digest}\n{when}"
    return f"Hubgate-Node {when}.{hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def test_another_cluster_key(nodes: list[World], hub: HubProcess) -> None:
    """A node that was set up with another key, or whose clock is wrong, is told so, and counted; nobody else learns that there is such a route."""
    facts = fresh(hub, 2 * MIB)
    assert nodes[0].get(facts["main"], "reader").status == 200
    target, now = f"/-/blob/{facts['sha256']}", int(time.time())
    whole(nodes[0], facts)
    right = nodes[0].get(target, headers={"Authorization": credential(nodes[0].cluster_key, facts["sha256"], now)})
    assert right.status == 200 and sha256(right.body) == facts["sha256"]
    for value in (credential("another key of at least 32 characters", facts["sha256"], now),
                  credential(nodes[0].cluster_key, facts["sha256"], now - 3600), credential(nodes[0].cluster_key, "0" * 64, now)):
        wrong = nodes[0].get(target, headers={"Authorization": value})
        assert wrong.status == 403 and "cluster key" in str(wrong["x-error-message"])
    assert "hubgate_node_refused_total 3" in nodes[0].get("/-/metrics").text.splitlines()


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
