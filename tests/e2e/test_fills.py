"""Large files on their way: many readers, leaving clients, reload, kill -9; and proof of what is delivered."""

from __future__ import annotations

import random
import threading
from typing import Callable

import pytest
from downloads import GRANULE, MIB, Download, blob, forget, fresh, sha256, slice_of, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

WORLD = {"workers": 2, "private": {}, "settings": {"upstream.stall_timeout": "1s"}}
ALERT = r"\[alert\].*exited on signal 9"


def test_sixteen_clients_at_once_cost_one_download(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 24 * MIB + 4321)
    hub.fault(facts["sha256"], rate_bytes_per_s=32 * MIB)
    clients = [Download(module_world, facts["main"]) for _ in range(16)]
    assert [client.done().sha256 for client in clients] == [facts["sha256"]] * 16
    assert all(client.clean and client.status == 200 for client in clients)
    whole(module_world, facts)
    hub.wait_idle()
    assert hub.content_bytes() == facts["size"]
    forget(facts)


def test_readers_at_many_places_cost_one_download(module_world: World, hub: HubProcess) -> None:
    """Ranges of a file that is on its way: each gets its bytes, upstream sends each byte once."""
    facts = fresh(hub, 16 * MIB)
    hub.fault(facts["sha256"], rate_bytes_per_s=16 * MIB)
    first = Download(module_world, facts["main"]).has(1)
    ranges = [(0, 100), (5 * MIB, 5 * MIB + 7), (3 * MIB - 5, 9 * MIB + 3), (15 * MIB, 16 * MIB), (16 * MIB - 1, 16 * MIB)]
    parts = [Download(module_world, facts["main"], headers={"Range": f"bytes={start}-{end - 1}"}) for start, end in ranges]
    tail = Download(module_world, facts["main"], headers={"Range": "bytes=-1000"})
    for (start, end), part in zip(ranges, parts):
        part.done()
        assert part.status == 206 and part.headers["content-range"] == f"bytes {start}-{end - 1}/{facts['size']}"
        assert bytes(part.body) == slice_of(facts, start, end)
    assert bytes(tail.done().body) == slice_of(facts, facts["size"] - 1000, facts["size"]) and tail.status == 206
    assert first.done().sha256 == facts["sha256"]
    whole(module_world, facts)
    hub.wait_idle()
    assert facts["size"] <= hub.content_bytes() <= facts["size"] + 2 * GRANULE
    forget(facts)


def test_a_client_that_leaves_does_not_stop_the_fill(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 12 * MIB)
    hub.fault(facts["sha256"], rate_bytes_per_s=16 * MIB)
    Download(module_world, facts["main"]).has(2 * MIB).leave()
    whole(module_world, facts)
    hub.wait_idle()
    assert hub.content_bytes() == facts["size"]
    answer = module_world.get(facts["main"], "reader")
    assert answer["x-cache"] == "HIT" and sha256(answer.body) == facts["sha256"] and hub.content_bytes() == facts["size"]
    forget(facts)


def test_reload_in_the_middle_of_a_fill(module_world: World, hub: HubProcess) -> None:
    """Clients of the old workers get all of it, new ones join, upstream sends it once."""
    facts = fresh(hub, 24 * MIB)
    hub.fault(facts["sha256"], rate_bytes_per_s=12 * MIB)
    before = [Download(module_world, facts["main"]) for _ in range(4)]
    before[0].has(3 * MIB)
    module_world.nginx.reload()
    after = [Download(module_world, facts["main"]) for _ in range(4)]
    for client in [*before, *after]:
        assert client.done().sha256 == facts["sha256"] and client.clean
    whole(module_world, facts)
    hub.wait_idle()
    assert hub.content_bytes() <= facts["size"] + 4 * GRANULE
    procs.wait_until("the end of the old workers", lambda: not module_world.nginx.workers(leaving=True), 60)
    forget(facts)


def test_kill_of_workers_twenty_times(make_world: Callable[..., World], hub: HubProcess) -> None:
    """kill -9 at random points of a fill: its clients see a cut, never a clean end; the other worker goes on with what is there."""
    world = make_world(workers=2, private={})
    world.expect_log(ALERT, min=20, max=20)
    facts = fresh(hub, 96 * MIB)
    slow, dice = hub.fault(facts["sha256"], rate_bytes_per_s=6 * MIB), random.Random(7)
    clients = []
    path = blob(world, facts["sha256"])
    for round in range(20):
        clients += [Download(world, facts["main"]) for _ in range(2)]
        target = min(hub.content_bytes() + dice.randrange(MIB // 10, 2 * MIB), facts["size"] - 3 * MIB)
        procs.wait_until("some bytes", lambda: hub.content_bytes() >= target or path.exists(), 60)
        assert not path.exists(), f"whole before round {round}"
        world.nginx.kill_worker(world.nginx.workers()[round % 2])
    hub.heal(slow)
    last = Download(world, facts["main"]).done()
    assert last.clean and last.sha256 == facts["sha256"]
    for client in clients:
        client.done()
        assert client.sha256 == facts["sha256"] if client.clean else bytes(client.body) == slice_of(facts, 0, len(client.body))
    whole(world, facts)
    hub.wait_idle()
    assert hub.content_bytes() <= facts["size"] + 20 * 2 * GRANULE, f"{hub.content_bytes() / MIB:.1f} MiB for {facts['size'] / MIB:.0f}"
    forget(facts)


def test_nobody_waits_for_the_killed_owner(make_world: Callable[..., World], hub: HubProcess) -> None:
    """With no client at all, a fill whose worker was killed is taken over and ended."""
    world = make_world(workers=2, private={})
    world.expect_log(ALERT, min=2, max=2)
    facts = fresh(hub, 16 * MIB)
    hub.fault(facts["sha256"], rate_bytes_per_s=8 * MIB)
    Download(world, facts["main"]).has(2 * MIB).leave()
    for pid in world.nginx.workers():
        world.nginx.kill_worker(pid)
    whole(world, facts, 90)
    assert sha256(world.get(facts["main"], "reader").body) == facts["sha256"]
    forget(facts)


# ranges of a file that is not held

def test_the_last_kilobyte_of_a_cold_file(module_world: World, hub: HubProcess) -> None:
    """It costs two MiB at most, also when asked for by its offsets, and nobody goes on with the rest."""
    for ask in ("-1024", "{}-"):
        facts = fresh(hub, 64 * MIB + 100)
        hub.fault(facts["sha256"], rate_bytes_per_s=8 * MIB)
        tail = Download(module_world, facts["main"], headers={"Range": "bytes=" + ask.format(facts["size"] - 1024)}).done()
        assert tail.status == 206 and bytes(tail.body) == slice_of(facts, facts["size"] - 1024, facts["size"])
        hub.wait_idle()
        assert 1024 <= hub.content_bytes() <= 2 * GRANULE
        hub.reset_stats()
        assert not blob(module_world, facts["sha256"]).exists()
        forget(facts)


def test_a_bounded_range_is_fetched_alone(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 48 * MIB)
    first, end = 10 * MIB + 5, 31 * MIB - 7
    part = Download(module_world, facts["main"], headers={"Range": f"bytes={first}-{end - 1}"}).done()
    assert part.status == 206 and part.clean and bytes(part.body) == slice_of(facts, first, end)
    hub.wait_idle()
    assert hub.content_bytes() == 21 * MIB
    again = Download(module_world, facts["main"], headers={"Range": f"bytes={first}-{end - 1}"}).done()
    assert bytes(again.body) == bytes(part.body) and hub.content_bytes() == 21 * MIB
    assert Download(module_world, facts["main"]).done().sha256 == facts["sha256"]        # now all of it
    whole(module_world, facts)
    hub.wait_idle()
    assert hub.content_bytes() == facts["size"]
    forget(facts)


def test_a_range_does_not_wait_for_what_is_before_it(module_world: World, hub: HubProcess) -> None:
    """The front hardly moves; ranges in the middle and at the end are there long before it."""
    facts = fresh(hub, 48 * MIB)
    hub.fault(facts["sha256"], host="cdn", range="bytes=0-", rate_bytes_per_s=64 << 10)
    front = Download(module_world, facts["main"]).has(1)
    for first in (MIB * 3, MIB * 7 + 11, MIB * 24, facts["size"] - 2000):
        part = Download(module_world, facts["main"], headers={"Range": f"bytes={first}-{first + 1999}"}).done(20)
        assert part.status == 206 and bytes(part.body) == slice_of(facts, first, first + 2000)
    assert len(front.body) < 3 * MIB
    hub.heal()
    front.leave()
    assert Download(module_world, facts["main"]).done().sha256 == facts["sha256"]
    whole(module_world, facts)
    forget(facts)


def test_eight_readers_at_random_places(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 40 * MIB + 4321)
    hub.fault(facts["sha256"], rate_bytes_per_s=24 * MIB)
    dice, problems = random.Random(facts["seed"]), []

    def reader(number: int) -> None:
        own = random.Random(facts["seed"] + number)
        for _ in range(8):
            first = own.randrange(facts["size"])
            end = min(first + own.choice([1, 1000, MIB, 5 * MIB]), facts["size"])
            part = Download(module_world, facts["main"], headers={"Range": f"bytes={first}-{end - 1}"}).done()
            if part.status != 206 or bytes(part.body) != slice_of(facts, first, end):
                problems.append((first, end, part.status, len(part.body)))
    threads = [threading.Thread(target=reader, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    everything = Download(module_world, facts["main"]) if dice.random() < 0.5 else None
    for thread in threads:
        thread.join(120)
    assert not problems
    assert everything is None or everything.done().sha256 == facts["sha256"]
    hub.wait_idle()
    assert hub.content_bytes() <= facts["size"] + 16 * GRANULE       # where a share was cut, something was on its way
    forget(facts)


def test_a_second_file_gets_its_share(make_world: Callable[..., World], hub: HubProcess) -> None:
    """With few places, a long fill does not keep them from a later one."""
    world = make_world(private={}, settings={"upstream.max_transfers": 4})
    long, short = fresh(hub, 128 * MIB), fresh(hub, 10 * MIB)
    for facts in (long, short):
        hub.fault(facts["sha256"], host="cdn", rate_bytes_per_s=2 * MIB)
    first = Download(world, long["main"]).has(MIB)
    second = Download(world, short["main"]).done(30)
    assert second.clean and second.sha256 == short["sha256"] and first.is_alive()
    hub.heal()
    assert first.done().sha256 == long["sha256"]
    forget(long)
    forget(short)


def test_several_ranges_of_an_unfinished_file_are_the_whole(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 4 * MIB)
    answer = Download(module_world, facts["main"], headers={"Range": "bytes=0-9,100-109"}).done()
    assert answer.status == 200 and answer.clean and answer.sha256 == facts["sha256"]
    forget(facts)


def test_kill_of_both_workers_between_ranges(make_world: Callable[..., World], hub: HubProcess) -> None:
    """What is there of a sparse file outlives its workers, and is not fetched again."""
    world = make_world(workers=2, private={})
    world.expect_log(ALERT, min=2, max=2)
    facts = fresh(hub, 32 * MIB)
    part = Download(world, facts["main"], headers={"Range": f"bytes={8 * MIB}-{12 * MIB - 1}"}).done()
    assert bytes(part.body) == slice_of(facts, 8 * MIB, 12 * MIB)
    for pid in world.nginx.workers():
        world.nginx.kill_worker(pid)
    hub.wait_idle()
    hub.reset_stats()
    part = Download(world, facts["main"], headers={"Range": f"bytes={7 * MIB}-{13 * MIB - 1}"}).done()
    assert bytes(part.body) == slice_of(facts, 7 * MIB, 13 * MIB)
    hub.wait_idle()
    assert hub.content_bytes() == 2 * MIB
    forget(facts)


# proof

@pytest.mark.parametrize("size", [2 * MIB + 5, 20 * MIB])
def test_wrong_bytes_of_a_large_file(module_world: World, hub: HubProcess, size: int) -> None:
    """One bit is wrong once: no client gets a complete body that is wrong, the log says so, and the second fetch is right."""
    facts = fresh(hub, size)
    hub.fault(facts["sha256"], wrong_bytes=[MIB + 7], times=1)
    clients = [Download(module_world, facts["main"]) for _ in range(3)]
    for client in clients:
        assert not client.done().clean or client.sha256 == facts["sha256"]
    module_world.nginx.wait_log(f"{facts['sha256'][:12]}.*do not have this digest")
    again = Download(module_world, facts["main"]).done()
    assert again.clean and again.sha256 == facts["sha256"]
    assert whole(module_world, facts).stat().st_size == facts["size"]
    forget(facts)


def test_wrong_bytes_every_time(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 18 * MIB)
    hub.fault(facts["sha256"], wrong_bytes=True)
    for _ in range(3):
        client = Download(module_world, facts["main"]).done()
        assert client.status in (502, 503) or client.status == 200 and not client.clean, client.status
        assert len(client.body) < facts["size"]
    assert not blob(module_world, facts["sha256"]).exists()
    forget(facts)


def test_a_resumed_download_never_joins_two_generations(module_world: World, hub: HubProcess) -> None:
    """After a mismatch an open range is the whole for clients that start anew on it, and 416 with what to do for others."""
    facts = fresh(hub, 20 * MIB)
    hub.fault(facts["sha256"], wrong_bytes=[3 * MIB], times=1)
    Download(module_world, facts["main"]).done()
    module_world.nginx.wait_log(f"{facts['sha256'][:12]}.*do not have this digest")
    resumed = {"Range": f"bytes={10 * MIB}-"}
    hub.fault(facts["sha256"], rate_bytes_per_s=12 * MIB)
    for agent, status in (("unknown/None; hf_hub/0.36.2; python/3.11", 200), ("unknown/None; hf_hub/2.4.0; python/3.11", 200), ("curl/8.0", 416),
                          ("unknown/None; hf_hub/1.4.0; python/3.11", 416)):
        client = Download(module_world, facts["main"], headers={**resumed, "User-Agent": agent})
        client.done()
        assert client.status == status, (agent, client.status)
        if status == 200:
            assert client.clean and client.sha256 == facts["sha256"]
        else:
            assert client.headers["content-range"] == f"bytes */{facts['size']}" and b"delete the partial file" in client.body
    whole(module_world, facts)
    forget(facts)


def test_wrong_bytes_of_a_small_file(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 200_000)
    hub.fault(facts["sha256"], wrong_bytes=True, times=1)
    answer = module_world.get(facts["main"], "reader")                 # fetched again by itself
    assert answer.status == 200 and sha256(answer.body) == facts["sha256"]
    other = fresh(hub, 200_000)
    wrong = hub.fault(other["sha256"], wrong_bytes=True)
    refused = module_world.get(other["main"], "reader")
    assert refused.status == 502 and refused["x-error-message"]
    hub.heal(wrong)
    procs.wait_until("the right bytes", lambda: sha256(module_world.get(other["main"], "reader").body) == other["sha256"])


def test_verify_before_sends_nothing_unverified(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world(private={}, settings={"cache.verify": "before", "upstream.stall_timeout": "60s", "upstream.transfers": 1})
    facts = fresh(hub, 8 * MIB)
    stuck = hub.fault(facts["sha256"], hang="body", cut_after=8 * MIB - 100)
    client = Download(world, facts["main"])
    procs.wait_until("nearly all of it upstream", lambda: hub.content_bytes() >= 8 * MIB - 100)
    assert client.status == 0 and not client.body
    hub.heal(stuck)
    client.done()
    assert client.clean and client.sha256 == facts["sha256"]
    wrong = fresh(hub, 8 * MIB)
    hub.fault(wrong["sha256"], wrong_bytes=True)
    client = Download(world, wrong["main"]).done()
    assert client.status in (502, 503) and len(client.body) < 1000
    forget(facts)
    forget(wrong)


# an upstream that misbehaves

PASSING = {
    "cut": {"cut_after": 3 * MIB, "times": 2}, "reset": {"cut_after": 3 * MIB, "times": 2, "reset": True}, "short": {"wrong_length": -5000, "times": 1},
    "503": {"status": 503, "times": 2}, "429": {"status": 429, "retry_after": 1, "times": 1}, "403, as of an old signature": {"status": 403, "times": 1},
    "silent": {"hang": "before", "times": 1}, "silent in the headers": {"hang": "headers", "times": 1}, "silent in the body": {"hang": "body", "times": 1},
    "no ranges": {"ignore_range": True}, "no ranges, and cut": {"cut_after": 5 * MIB, "times": 1, "ignore_range": True},
    "headers without end": {"header_bytes": 1_000_000, "times": 1}}
LASTING = {
    "503": {"status": 503}, "404": {"status": 404}, "429": {"status": 429, "retry_after": 3}, "redirect to another host": {"redirect_to": "http://127.0.0.9:9/x"},
    "redirect to a file": {"redirect_to": "file:///etc/passwd"}, "redirects without end": {"redirect_to": "{path}"},
    "compressed": {"headers": {"Content-Encoding": "gzip"}}, "another size": {"wrong_length": 5000}}


def test_passing_faults_are_mended(module_world: World, hub: HubProcess) -> None:
    """Cut, reset, short, refused, silent, no ranges: each client gets all of it in one answer."""
    files = {name: fresh(hub, 10 * MIB + 77) for name in PASSING}
    for name, fault in PASSING.items():
        hub.fault(files[name]["sha256"], host="cdn", **fault)
    clients = {name: Download(module_world, files[name]["main"]) for name in PASSING}
    for name, client in clients.items():
        client.done()
        assert client.status == 200 and client.clean and client.sha256 == files[name]["sha256"], name
        whole(module_world, files[name])
        forget(files[name])
    assert all(fault["applied"] for fault in hub.faults())


def test_lasting_faults_are_an_outage(module_world: World, hub: HubProcess) -> None:
    """503 or 502, never 401 or 404, never a wrong body; and it works again when the fault is gone."""
    files = {name: fresh(hub, 10 * MIB) for name in LASTING}
    for name, fault in LASTING.items():
        hub.fault(files[name]["sha256"], host="cdn", **fault)
    changed = fresh(hub, 10 * MIB)
    hub.fault(f"{changed['repo']}/resolve", host="hub", etag_change=True)
    files["another ETag"] = changed
    clients = {name: Download(module_world, facts["main"]) for name, facts in files.items()}
    for name, client in clients.items():
        client.done()
        if client.status == 200:                          # cut, in place of a wrong end
            assert name == "another size" and (not client.clean or client.sha256 == files[name]["sha256"]), name
        else:
            assert client.status in (502, 503) or (name, client.status) == ("429", 429), (name, client.status)
            assert client.status == 502 or int(client.headers["retry-after"]) >= 1
            assert b"error" in client.body and "x-error-message" in client.headers
    assert all(fault["applied"] for fault in hub.faults())
    hub.heal()
    for facts in files.values():
        procs.wait_until("the file", lambda: Download(module_world, facts["main"]).done().sha256 == facts["sha256"], 90, every=0.3)
        forget(facts)


def test_what_the_hub_refuses_is_refused(module_world: World, hub: HubProcess) -> None:
    """Gated for this gateway's account: said so to the person, for small and for large files."""
    for size in (1000, 3 * MIB):
        facts = fresh(hub, size)
        hub.fault(f"{facts['repo']}/resolve", host="hub", status=403, error_code="GatedRepo", message="not in the authorized list")
        answer = module_world.get(facts["main"], "reader")
        assert (answer.status, answer["x-error-code"]) == (403, "GatedRepo") and "no access" in str(answer["x-error-message"])


@pytest.mark.parametrize("size", [300_000, 6 * MIB])
def test_what_is_refused_of_one_repository_is_fetched_from_another(module_world: World, hub: HubProcess, size: int) -> None:
    """Two repositories have the same bytes, and the Hub refuses one: who came through the other one gets them, and waits for nobody's refusal."""
    facts = fresh(hub, size)
    other = facts["repo"] + "-copy"
    hub.add(other, {"model.bin": {"size": size, "seed": facts["seed"], "lfs": True}})
    assert hub.file(other, "model.bin")["sha256"] == facts["sha256"]
    fault = hub.fault(f"^/{facts['repo']}/resolve/", status=403, error_code="GatedRepo", latency_ms=500)
    refused = Download(module_world, facts["main"])
    procs.wait_until("the refused request", lambda: any(one["id"] == fault and one["seen"] for one in hub.faults()))
    served = [Download(module_world, f"/{other}/resolve/main/model.bin") for _ in range(4)]
    assert [(one.done().status, one.sha256) for one in served] == [(200, facts["sha256"])] * 4
    assert refused.done().status in (403, 200)      # 200: it asked again when the other one's bytes were there
    hub.wait_idle()
    assert hub.content_bytes() == size
    forget(facts)


def test_a_hanging_upstream_disturbs_nobody_else(module_world: World, hub: HubProcess) -> None:
    """While many requests wait for a silent Hub, warm ones are answered by both workers."""
    warm, cold = fresh(hub, 2 * MIB), [fresh(hub, 3 * MIB) for _ in range(20)]
    assert module_world.get(warm["main"], "reader").status == 200
    whole(module_world, warm)
    module_world.get(f"/api/models/{warm['repo']}", "reader")
    hub.wait_idle()
    hub.fault("^/", host="hub", hang="before")
    hub.fault("^/", host="cdn", hang="before")
    waiting = [Download(module_world, facts["main"]) for facts in cold]
    procs.wait_until("calls that hang", lambda: len([each for each in hub.stats()["recent"] if not each["done"]]) >= 4)
    for _ in range(40):
        answer = module_world.get(warm["main"], "reader", timeout=5)
        assert answer.status == 200 and answer["x-cache"] == "HIT"
        assert module_world.get(f"/api/models/{warm['repo']}", "reader", timeout=5).status == 200
        assert module_world.get("/api/whoami-v2", "reader", timeout=5).status == 200
    assert all(client.is_alive() for client in waiting[:4])
    hub.heal()
    for client in waiting:
        client.done()
        assert client.status in (200, 503) and (client.status == 503 or client.clean)
