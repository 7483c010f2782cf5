"""The power goes while the cache fills: what is left is what it says it is, or nothing.

    make powercut N=300 [SEED=...]     so many cuts, evenly over all changes of names and all syncs in cache/, each with a start of its own
    make e2e                           a few

Small and large files are fetched while every change of cache/ is written down in order (tests/lab/powercut.py).  For a cut cache/ is made anew
as a disk may have it that kept only what was synced, or more names than that; the machine has another boot id, and everything is asked for.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any, Callable

from conftest import COUNTS, open_folder
from downloads import GRANULE, MIB, Download, blob, forget, fresh, sha256, whole
from parts import valid, wrong as untrue_granules

from tests.lab.faultdisk import FaultDisk
from tests.lab.hubctl import HubProcess
from tests.lab.powercut import ANY, JOURNAL, LOST, PowerTrace
from tests.lab.world import World

CUTS = int(os.environ.get("N", "4"))
SEED = int(os.environ.get("SEED", "20261125"))


def fetched(world: World, facts: dict[str, Any], role: str = "reader") -> str:
    """What is wrong with a whole GET of it; empty: nothing."""
    client = Download(world, facts["main"], role).done()
    right = client.status == 200 and client.clean and client.sha256 == facts["sha256"]
    return "" if right else f"{facts['size']} bytes: {client.status}, {len(client.body)} came, digest {client.sha256[:12]}"


def age(cache: Path, seconds: int) -> None:
    """A cut is followed by a boot, which takes longer than a test."""
    for path in cache.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_atime - seconds, path.stat().st_mtime - seconds))


def untrue(cache: Path, files: list[dict[str, Any]]) -> list[str]:
    """Blobs whose mode says that they were synced, or any, whose bytes are wrong."""
    known = {facts["sha256"] for facts in files}
    return [path.name for path in (cache / "blobs").glob("??/??/*") if path.name in known and path.stat().st_mode & stat.S_IWUSR == 0
            and sha256(path.read_bytes()) != path.name]


def test_power_cuts_of_the_cache(make_world: Callable[..., World], hub: HubProcess) -> None:
    dice, folder = random.Random(SEED), open_folder("hubgate-e2e-power-")
    print(f"powercut of the cache: seed {SEED}, {CUTS} cuts")
    world = make_world(workers=2, private={})
    world.expect_log(r"\[(alert|warn)\]", min=0)
    world.nginx.stop()
    cache = world.nginx.cache
    trace, disk = PowerTrace(folder / "trace", cache), FaultDisk(folder / "disk")
    trace.begin()
    world.nginx.env = trace.env
    world.nginx.start()
    files = [fresh(hub, size) for size in (1000, 40_000, 300_000, MIB, 2 * MIB + 1, 5 * MIB, 3 * MIB)]
    hub.fault("/", host="cdn", rate_bytes_per_s=8 * MIB)
    for client in [Download(world, facts["main"]) for facts in files]:
        client.done()
    for facts in files:
        whole(world, facts)
    unfinished = fresh(hub, 20 * MIB)
    Download(world, unfinished["main"]).has(3 * MIB)
    world.nginx.kill()
    hub.heal()
    files.append(unfinished)
    model = trace.model()
    model.run_to(trace.now())
    assert model.names() == {str(path.relative_to(cache)) for path in cache.rglob("*")}, "something was not written down"
    wrong, model, cuts = [], trace.model(), trace.cuts()
    for number, cut in enumerate(cuts[(len(cuts) - 1) * (number + 1) // CUTS] for number in range(CUTS)):
        model.run_to(cut)
        shutil.rmtree(cache)
        kind = (LOST, JOURNAL, ANY)[number % 3]
        model.write(cache, kind, dice)
        age(cache, 60)
        bad = [f"synced, and wrong: {name}" for name in untrue(cache, files)]
        disk.boot()
        world.nginx.env = disk.env
        world.nginx.start()
        bad += [complaint for facts in files for complaint in (fetched(world, facts) for _ in range(2)) if complaint]
        for facts in files:
            whole(world, facts)
        world.nginx.stop()
        bad += [f"held, and wrong: {facts['sha256']}" for facts in files if sha256(blob(world, facts["sha256"]).read_bytes()) != facts["sha256"]]
        COUNTS["powercut of the cache: cuts"] += 1
        wrong += [f"{kind} at {cut}: {each}" for each in bad]
    COUNTS["powercut of the cache: lines of the log"] = len(cuts)
    shutil.rmtree(folder)
    for facts in files:
        forget(facts)
    assert not wrong, f"seed {SEED}: {len(wrong)}\n" + "\n".join(wrong[:40])


def test_what_was_synced_outlives_a_boot(make_world: Callable[..., World], hub: HubProcess) -> None:
    """nginx ended properly in mid-fill, and the machine was booted anew: nothing that was there is asked for again."""
    folder = open_folder("hubgate-e2e-power-")
    disk = FaultDisk(folder)
    world = make_world(workers=2, private={}, nginx_env=disk.env)
    large = fresh(hub, 24 * MIB)
    slow = hub.fault(large["sha256"], rate_bytes_per_s=4 * MIB)
    client = Download(world, large["main"]).has(4 * MIB)
    assert world.nginx.stop()
    client.done()
    held = valid(world, large)
    assert held and not untrue_granules(world, large)
    hub.wait_idle()
    hub.heal(slow)
    hub.reset_stats()
    disk.boot()
    world.nginx.start()
    assert not (bad := fetched(world, large)), bad
    whole(world, large)
    hub.wait_idle()
    assert hub.content_bytes() <= large["size"] - len(held) * GRANULE
    forget(large)
    shutil.rmtree(folder)
