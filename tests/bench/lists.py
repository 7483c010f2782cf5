"""Lists of private repositories: a page out of 100,000 beside one out of 1,000, and what it costs to put a card there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Callable

from tests.lab.nginx import give
from tests.lab.world import World

from .measure import Measured, Pairs, load, program
from .scene import Scene
from .table import Table

PAGE = "/api/models?author=acme&filter=part-1&limit=100"


def lists(scene: Scene, table: Table) -> None:
    many, seconds, rate = scene.rounds(100_000, 20_000), 3, 100
    counts = {"hubgate": many, "few": 1000}
    worlds = {name: World(scene.folder / f"lists-{name}", workers=1, people="file", hub=scene.stage.hub) for name in counts}
    made: dict[str, Measured] = {}

    def measured(w: World) -> Callable[[], Measured]:
        return lambda: {"p99": load(f"{w.url}{PAGE}", seconds, w.headers("reader"), connections=4, rate=rate)["p99_us"]}
    try:
        for name, w in worlds.items():
            os.chown(w.nginx.cache, os.getuid(), os.getgid())
            filled = subprocess.run([str(program("list_bench")), str(w.nginx.cache), str(counts[name])], capture_output=True, text=True, check=True)
            made[name] = json.loads(filled.stdout)
            give(w.nginx.cache)
            w.start()
            got = json.loads(w.get(PAGE, "reader").body)
            assert len(got) == 100, f"{name}: a page of {len(got)}"
        pairs = Pairs({name: measured(w) for name, w in worlds.items()}, scene.rounds(11, 3), scene.seconds(90, 20)).run()
        cost = "; ".join(f"{name}: a durable put {one['put_us']:.0f} us" for name, one in made.items())
        table.add(f"list page of 100 out of {many:,} private repositories ({rate}/s), p99", pairs, "p99", "<= 5", scale=1e-3, unit="ms", note=cost)
        table.add(f"list page out of {many:,}, p99", pairs, "p99", "<= 2", against="few", words="1,000")
    finally:
        for w in worlds.values():
            w.stop()
            shutil.rmtree(w.folder, ignore_errors=True)


def rows(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    """Only when named: minutes of durable puts."""
    return [("list", lambda: lists(scene, table))]
