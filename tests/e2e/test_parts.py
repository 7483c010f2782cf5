"""A part of a file is what its map says, or nothing: after kill -9 of everything, and after a power cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import open_folder
from downloads import GRANULE, MIB, Download, blob, forget, fresh, sha256, whole
from parts import part, valid, wrong

from tests.lab.faultdisk import FaultDisk
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

FULL = 24 * MIB + 77
UNDER_WAY = 5 * (GRANULE + 4 * MIB)


def stopped_in_the_middle(world: World, hub: HubProcess) -> dict[str, Any]:
    """Some granules are valid, some under way, some nobody asked for; and nobody is alive."""
    facts = fresh(hub, FULL)
    hub.reset_stats()
    slow = hub.fault(facts["sha256"], rate_bytes_per_s=2 * MIB)
    clients = [Download(world, facts["main"]), Download(world, facts["main"], headers={"Range": f"bytes={20 * MIB}-{21 * MIB}"})]
    for client in clients:
        client.has(MIB)
    world.nginx.kill()
    hub.wait_idle()
    hub.heal(slow)
    return facts


def test_killed(make_world: Callable[..., World], hub: HubProcess) -> None:
    """Every valid granule is right, and none of them is fetched again."""
    world = make_world(workers=2, private={})
    facts = stopped_in_the_middle(world, hub)
    there = valid(world, facts)
    assert 1 <= len(there) < FULL // GRANULE and not wrong(world, facts)
    world.nginx.start()
    before = hub.content_bytes()
    assert Download(world, facts["main"]).done().sha256 == facts["sha256"]
    assert hub.content_bytes() - before <= FULL - len(there) * GRANULE          # less: what was there of the granules under way
    assert sha256(whole(world, facts).read_bytes()) == facts["sha256"]
    forget(facts)


def lose(path: Path, granules: list[int]) -> None:
    with path.open("r+b") as file:
        for number in granules:
            file.seek(number * GRANULE)
            file.write(bytes(GRANULE))
        os.fsync(file.fileno())


@pytest.mark.parametrize("boot", ["another boot", "no clean end"])
def test_power_cut(make_world: Callable[..., World], hub: HubProcess, boot: str) -> None:
    """Bytes that the map calls valid are lost: after another boot nothing of the part is believed. Within a boot nothing can be lost but by damage: that
    comes out when the digest is wrong, and all is fetched anew."""
    disk = FaultDisk(open_folder("hubgate-e2e-boot-"))
    world = make_world(workers=2, private={}, nginx_env=disk.env)
    facts = stopped_in_the_middle(world, hub)
    lose(part(world, facts)[0], valid(world, facts)[:2])
    if boot == "another boot":
        disk.boot()
    else:
        world.expect_log(r"do not have this digest", min=1)
    world.nginx.start()
    before = hub.content_bytes()
    reader = Download(world, facts["main"]).done()
    if boot == "another boot":
        assert reader.sha256 == facts["sha256"]
        assert hub.content_bytes() - before == FULL
    else:
        assert not reader.clean or reader.sha256 == facts["sha256"]
        assert Download(world, facts["main"]).done().sha256 == facts["sha256"]
    assert sha256(whole(world, facts).read_bytes()) == facts["sha256"]
    forget(facts)


@pytest.mark.parametrize("left", ["zeros", "nothing", "half"])
def test_a_small_blob_that_was_not_synced(make_world: Callable[..., World], hub: HubProcess, left: str) -> None:
    """Small blobs are linked without a sync: after another boot each is hashed before it is served, and what is damaged is fetched anew."""
    disk = FaultDisk(open_folder("hubgate-e2e-boot-"))
    world = make_world(private={}, nginx_env=disk.env)
    facts = fresh(hub, MIB // 2)
    assert sha256(world.get(facts["main"], "reader").body) == facts["sha256"]
    world.nginx.kill()
    path = blob(world, facts["sha256"])
    data = path.read_bytes()
    keep = {"zeros": bytes(len(data)), "nothing": b"", "half": data[:len(data) // 2]}[left]
    path.chmod(0o644)
    path.write_bytes(keep)
    disk.boot()
    world.nginx.start()
    answers = [world.get(facts["main"], "reader") for _ in range(2)]
    assert [(each.status, sha256(each.body)) for each in answers] == [(200, facts["sha256"])] * 2
    assert path.read_bytes() == data
    forget(facts)
