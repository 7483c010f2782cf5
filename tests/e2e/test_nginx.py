"""The lab's nginx with the module: reload, kill, logs; and that the checks after each test can fail."""

from __future__ import annotations

import os
from typing import Callable

import pytest

from tests.lab import procs
from tests.lab.world import World

WORLD = {"workers": 2, "private": {}}


def test_people_have_tokens(module_world: World) -> None:
    for role in ("reader", "writer", "admin", "stranger"):
        assert module_world.get("/api/whoami-v2", role).json()["name"] == role


def test_reload_brings_new_workers_and_keeps_tokens(module_world: World) -> None:
    before = module_world.nginx.workers()
    module_world.nginx.reload()
    assert not set(before) & set(module_world.nginx.workers())
    assert module_world.get("/api/whoami-v2", "reader").status == 200


def test_a_refused_reload_leaves_the_old_cycle(module_world: World) -> None:
    before = module_world.nginx.workers()
    module_world.expect_log(r"\[emerg\].*publicc_urls", min=1)
    module_world.nginx.write_config({"publicc_urls": ["http://x"]})
    with pytest.raises(procs.LabError, match="publicc_urls"):
        module_world.nginx.reload()
    module_world.nginx.write_config(module_world.config())
    assert module_world.nginx.workers() == before and module_world.get("/api/whoami-v2", "reader").status == 200


def test_a_killed_worker_is_replaced(module_world: World) -> None:
    module_world.expect_log(r"\[alert\].*exited on signal 9", min=1, max=1)
    gone = module_world.nginx.kill_worker()
    assert gone not in module_world.nginx.workers()
    for _ in range(8):
        assert module_world.get("/api/whoami-v2", "reader").status == 200


def test_the_checks_see_what_they_are_for(make_world: Callable[..., World]) -> None:
    world = make_world(private={})
    log = world.nginx.error_log
    world.logs.reset()
    world.expect_log("never written")
    with open(log, "a") as out:
        out.write("2026/01/01 00:00:00 [crit] 1#1: something\n==1==ERROR: AddressSanitizer: heap-use-after-free\n")
        out.write(f"{world.tokens['reader']} and {world.passwords['writer']}\n")
    found = "\n".join(world.logs.problems())
    assert "found 0" in found and "[crit]" in found and "AddressSanitizer" in found and found.count("holds a secret") == 2
    assert world.tokens["reader"] not in found
    os.truncate(log, 0)
    world.logs.reset()
    assert (world.nginx.pid, procs.command_line(world.nginx.pid)) in procs.living_in(world.folder)
