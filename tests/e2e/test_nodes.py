"""One call for everybody: the workers of a node, and several nodes with Redis between them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

from downloads import MIB, fresh, sha256

from tests.lab import procs
from tests.lab.fetch import Response
from tests.lab.hubctl import HubProcess
from tests.lab.redis import Redis
from tests.lab.world import World

CALLERS = 24             # connections of their own: both workers get some


def all_at_once(worlds: list[World], target: str, callers: int = CALLERS, **keys: object) -> list[Response]:
    """So many clients, each on a connection of its own, that ask for the same at the same time."""
    barrier = threading.Barrier(callers)

    def ask(number: int) -> Response:
        barrier.wait(30)
        return worlds[number % len(worlds)].get(target, "reader", **keys)       # type: ignore[arg-type]
    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(ask, range(callers)))


def calls(hub: HubProcess) -> Counter[str]:
    """What was asked of the Hub since the last reset, and how often."""
    return Counter(f"{record['method']} {record['target'].partition('?')[0]}" for record in hub.requests())


def test_one_call_for_a_stale_branch_of_all_workers(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world(workers=2, private={}, settings={"upstream.ttl": "0s", "upstream.stale_max": "1h"})
    facts = fresh(hub, 1000)
    info = f"/api/models/{facts['repo']}"
    assert world.get(info, "reader").status == 200
    hub.wait_idle()
    second = hub.commit(facts["repo"], {"config.json": "{}\n"})
    hub.fault(f"{info}(/revision/main)?(\\?|$)", hang="before")
    hub.reset_stats()
    for answer in all_at_once([world], info):
        assert (answer.status, answer["x-cache"], answer.json()["sha"]) == (200, "STALE", facts["commit"])
    procs.wait_until("the call", lambda: calls(hub))
    assert list(calls(hub).values()) == [1], calls(hub)
    hub.heal()
    procs.wait_until("the new commit", lambda: world.get(info, "reader").json()["sha"] == second)


def test_one_call_for_what_nobody_has_yet(make_world: Callable[..., World], hub: HubProcess) -> None:
    """Metadata, an entry, a small file, and what is not there: cold, by two workers at once."""
    world = make_world(workers=2, private={})
    facts = fresh(hub, 1 * MIB)
    repo, commit = facts["repo"], facts["commit"]
    hub.fault("", latency_ms=300)
    for target, status in ((f"/api/models/{repo}/revision/main", 200), (f"/{repo}/resolve/{commit}/config.json", 200),
                           (f"/api/models/{repo}/tree/{commit}", 200), (f"/{repo}/resolve/{commit}/model.bin", 200),
                           (f"/api/models/{repo}-nope/revision/main", 404)):
        hub.reset_stats()
        answers = all_at_once([world], target)
        assert {answer.status for answer in answers} == {status}
        assert len({answer.body for answer in answers}) == 1
        hub.wait_idle()
        assert set(calls(hub).values()) == {1}, calls(hub)
    assert sha256(answers[0].body) != sha256(b"")


def test_a_failure_is_told_to_all(make_world: Callable[..., World], hub: HubProcess) -> None:
    """A Hub in trouble gets one call of a crowd, not one per worker."""
    world = make_world(workers=2, private={})
    facts = fresh(hub, 1000)
    hub.fault(f"/api/models/{facts['repo']}", latency_ms=500, status=503)
    hub.reset_stats()
    answers = all_at_once([world], f"/api/models/{facts['repo']}")
    assert {answer.status for answer in answers} == {503}
    assert len(hub.requests()) == 1


def test_the_worker_that_calls_dies(make_world: Callable[..., World], hub: HubProcess) -> None:
    """Those of the other one are answered."""
    world = make_world(workers=2, private={})
    facts = fresh(hub, 1000)
    info = f"/api/models/{facts['repo']}"
    hang = hub.fault(info, hang="before", times=1)
    hub.reset_stats()
    with ThreadPoolExecutor(CALLERS) as pool:
        def ask(_: int) -> int:
            try:
                return world.get(info, "reader", timeout=60).status
            except OSError:
                return 0
        first = pool.submit(ask, 0)
        procs.wait_until("its call", lambda: hub.requests(contains=info))
        rest = [pool.submit(ask, number) for number in range(1, CALLERS)]
        owner = procs.wait_until("its worker", lambda: next((pid for pid in world.nginx.workers() if has_call(pid, hub)), 0))
        world.expect_log(r"exited on signal 9")
        world.nginx.kill_worker(owner)
        hub.heal(hang)
        answers = [future.result() for future in rest]
        assert first.result() == 0 and set(answers) <= {0, 200} and 200 in answers


def test_a_rate_limit_is_the_whole_nodes(make_world: Callable[..., World], hub: HubProcess) -> None:
    """After one 429 nobody asks until its time: what is held is served, the rest is told how long."""
    world = make_world(workers=2, private={}, settings={"upstream.ttl": "0s", "upstream.stale_max": "0s"})
    facts, other = fresh(hub, 2 * MIB), fresh(hub, 1000)
    held = f"/api/models/{facts['repo']}"
    before = world.get(held, "reader")
    assert before.status == 200
    hub.wait_idle()
    hub.fault("/api/models/", status=429, retry_after=200, times=1)
    hub.reset_stats()
    assert (world.get(held, "reader").status, len(hub.requests())) == (200, 1)
    for answer in all_at_once([world], f"/api/models/{other['repo']}"):
        assert answer.status == 429 and 190 <= int(str(answer["retry-after"])) <= 200
        assert str(answer["ratelimit"]).startswith('"gateway";r=0;t=') and "upstream's rate limit" in str(answer["x-error-message"])
    for answer in all_at_once([world], held):
        assert (answer.status, answer["x-cache"], answer.body) == (200, "STALE", before.body)
        assert str(answer["x-hf-warning"]).startswith("gateway; ")
    assert len(hub.requests()) == 1


def test_a_used_up_limit_stops_calls_before_a_429(make_world: Callable[..., World], hub: HubProcess) -> None:
    """With little left nothing is fetched ahead; with nothing left nothing is asked. Files have a limit of their own."""
    world = make_world(workers=2, private={}, settings={"upstream.ttl": "0s", "upstream.stale_max": "1h"})
    facts = fresh(hub, 3 * MIB)
    info = f"/api/models/{facts['repo']}"
    hub.fault("/api/models/", headers={"RateLimit": '"api";r=20;t=300'})
    assert world.get(info, "reader").status == 200
    hub.wait_idle()
    hub.reset_stats()
    for _ in range(10):
        assert world.get(info, "reader")["x-cache"] == "STALE"
    assert hub.requests() == []
    hub.heal()
    hub.fault("/api/models/", headers={"RateLimit": '"api";r=0;t=300'})
    assert world.get(facts["target"], "reader").body                # its entry is the last call of the API
    assert calls(hub).keys() >= {f"POST /api/models/{facts['repo']}/paths-info/{facts['commit']}", f"GET {facts['target']}"}
    hub.reset_stats()
    assert world.get(f"{info}/refs", "reader").status == 429
    assert hub.requests() == []


def test_transfers_keep_to_a_limit(make_world: Callable[..., World], hub: HubProcess) -> None:
    """A 429 for one file: no other file's transfer asks before its time."""
    world = make_world(workers=2, private={})
    one, two = fresh(hub, 3 * MIB), fresh(hub, 3 * MIB)
    for facts in (one, two):                                         # the entries are known
        assert world.head(facts["target"], "reader").status == 200
    hub.wait_idle()
    hub.fault("/resolve/", status=429, retry_after=200, times=1)
    hub.reset_stats()
    for facts in (one, two, one):
        answer = world.get(facts["target"], "reader")
        assert answer.status == 429 and int(str(answer["retry-after"])) > 150, answer.headers
    assert [record["status"] for record in hub.requests()] == [429]


# --- several nodes


def cluster(make_world: Callable[..., World], redis: Redis, nodes: int, **keys: object) -> list[World]:
    first = make_world(redis=redis, **{"private": {}, **keys})
    return [first, *(make_world(node_of=first, **keys) for _ in range(nodes - 1))]


def reads(world: World, facts: dict) -> list[tuple[int, bytes]]:
    """What a client asks of a repository; the large file apart."""
    repo, rev = facts["repo"], facts["commit"]
    out = []
    for target in (f"/api/models/{repo}/revision/main", f"/api/models/{repo}/tree/{rev}?recursive=true", f"/{repo}/resolve/{rev}/config.json",
                   f"/{repo}/resolve/main/config.json", f"/api/models/{repo}/refs", f"/{repo}/resolve/{rev}/nope.json"):
        answer = world.get(target, "reader")
        out.append((answer.status, answer.body))
    head = world.head(f"/{repo}/resolve/{rev}/model.bin", "reader")
    return [*out, (head.status, str(head["x-linked-size"]).encode())]


def test_the_second_node_asks_nobody(make_world: Callable[..., World], hub: HubProcess, redis: Redis) -> None:
    """Metadata, entries, small files and absences: what one node fetched, the other takes from Redis."""
    one, two = cluster(make_world, redis, 2)
    facts = fresh(hub, 3 * MIB)
    first = reads(one, facts)
    assert [status for status, _ in first] == [200, 200, 200, 200, 200, 404, 200]
    hub.wait_idle()
    procs.wait_until("the end of all leases", lambda: not redis.keys("gw:l:*"))
    hub.reset_stats()
    assert reads(two, facts) == first
    assert hub.requests() == [], calls(hub)
    assert reads(two, facts) == first and reads(one, facts) == first
    assert metric(two, "hubgate_upstream_requests_total") == 0


def metric(world: World, name: str) -> float:
    for line in world.get("/-/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def test_thirty_clients_of_three_nodes(make_world: Callable[..., World], hub: HubProcess, redis: Redis) -> None:
    """Cold, all at once: one call each for metadata, an entry and a small file."""
    worlds = cluster(make_world, redis, 3, workers=2)
    facts = fresh(hub, 1 * MIB)
    repo, commit = facts["repo"], facts["commit"]
    hub.fault("", latency_ms=300)
    for target, status in ((f"/api/models/{repo}/revision/main", 200), (f"/{repo}/resolve/{commit}/config.json", 200),
                           (f"/api/models/{repo}/tree/{commit}", 200), (f"/{repo}/resolve/{commit}/model.bin", 200),
                           (f"/api/models/{repo}-nope/revision/main", 404)):
        hub.reset_stats()
        answers = all_at_once(worlds, target, 30)
        assert {answer.status for answer in answers} == {status}, target
        assert len({answer.body for answer in answers}) == 1
        hub.wait_idle()
        assert set(calls(hub).values()) == {1}, calls(hub)


def test_one_call_for_a_stale_branch_of_all_nodes(make_world: Callable[..., World], hub: HubProcess, redis: Redis) -> None:
    worlds = cluster(make_world, redis, 2, workers=2, settings={"upstream.ttl": "2s", "upstream.stale_max": "1h"})
    facts = fresh(hub, 1000)
    info = f"/api/models/{facts['repo']}"
    for world in worlds:
        assert world.get(info, "reader").status == 200
    hub.wait_idle()
    second = hub.commit(facts["repo"], {"config.json": "{}\n"})
    hang = hub.fault(f"{info}(/revision/main)?(\\?|$)", hang="before")
    hub.reset_stats()
    procs.wait_until("an old answer", lambda: all(int(str(world.get(info, "reader")["age"])) > 2 for world in worlds))
    for answer in all_at_once(worlds, info):
        assert (answer.status, answer["x-cache"], answer.json()["sha"]) == (200, "STALE", facts["commit"])
    procs.wait_until("the call", lambda: calls(hub))
    hub.heal(hang)
    procs.wait_until("the new commit", lambda: all(world.get(info, "reader").json()["sha"] == second for world in worlds))
    assert calls(hub)[f"GET {info}/revision/main"] <= 2 and sum(calls(hub).values()) <= 2, calls(hub)


def test_a_token_revoked_on_one_node(make_world: Callable[..., World], hub: HubProcess, redis: Redis) -> None:
    """The other one refuses it at the next second, not after 30."""
    one, two = cluster(make_world, redis, 2)
    for world in (one, two):
        assert world.get("/api/whoami-v2", "reader").status == 200
    # both have listened once: before that a node does not know where the stream ends
    procs.wait_until("listeners", lambda: sum(b"user=hubgate" in line and b"cmd=get" in line
                                              for line in redis.command("CLIENT", "LIST").splitlines()) >= 2)
    identity = one.tokens["reader"][6:16]
    assert one.cli("token", "revoke", identity).stderr == ""
    assert one.get("/api/whoami-v2", "reader").status == 401
    procs.wait_until("the other node's no", lambda: two.get("/api/whoami-v2", "reader").status == 401, 15)


def test_a_rate_limit_is_the_whole_companys(make_world: Callable[..., World], hub: HubProcess, redis: Redis) -> None:
    one, two = cluster(make_world, redis, 2)
    facts = fresh(hub, 1000)
    hub.fault("/api/models/", status=429, retry_after=250, times=1)
    assert one.get(f"/api/models/{facts['repo']}", "reader").status == 429
    procs.wait_until("the other node's limit", lambda: metric(two, 'hubgate_upstream_limit_wait_seconds{limit="api"}') > 200)
    hub.reset_stats()
    answer = two.get(f"/api/models/{facts['repo']}", "reader")
    assert answer.status == 429 and int(str(answer["retry-after"])) > 200
    assert hub.requests() == []


def test_a_call_that_takes_longer_than_its_lease(make_world: Callable[..., World], hub: HubProcess, redis: Redis) -> None:
    """The lease is renewed while the call runs: the other node waits for it, and asks nobody."""
    one, two = cluster(make_world, redis, 2, settings={"limits.wait": "30s"})
    facts = fresh(hub, 1000)
    info = f"/api/models/{facts['repo']}"
    hub.fault(info, latency_ms=7000)                      # a lease is 4 s
    hub.reset_stats()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.get, info, "reader", timeout=60)
        procs.wait_until("its call", lambda: hub.requests(contains=info))
        second = pool.submit(two.get, info, "reader", timeout=60)
        assert (first.result().status, second.result().status) == (200, 200)
    assert sum(calls(hub).values()) == 1, calls(hub)


def test_the_node_that_calls_dies(make_world: Callable[..., World], hub: HubProcess, redis: Redis) -> None:
    """Its lease runs out, the others go on."""
    one, two = cluster(make_world, redis, 2)
    facts = fresh(hub, 1000)
    info = f"/api/models/{facts['repo']}"
    hang = hub.fault(info, hang="before", times=1)
    hub.reset_stats()
    with ThreadPoolExecutor(2) as pool:
        def ask(world: World) -> int:
            try:
                return world.get(info, "reader", timeout=60).status
            except OSError:
                return 0
        first = pool.submit(ask, one)
        procs.wait_until("its call", lambda: hub.requests(contains=info))
        second = pool.submit(ask, two)
        one.nginx.kill()
        hub.heal(hang)
        assert (first.result(), second.result()) == (0, 200)


def has_call(pid: int, hub: HubProcess) -> bool:
    """Has this process a connection to the Hub?"""
    port = f":{int(hub.url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port) and row[3] == "01"}
    return any(os.readlink(f"/proc/{pid}/fd/{fd}") in sockets for fd in os.listdir(f"/proc/{pid}/fd") if os.path.lexists(f"/proc/{pid}/fd/{fd}"))
