"""Rows of what is held: large and small files, HEAD, the documents every client asks for."""

from __future__ import annotations

from typing import Callable

from .measure import Measured, Pairs, cpu_seconds, curl, load
from .scene import SMALL, Asked, Scene
from .table import Table


def nginx_of(scene: Scene, name: str) -> list[int]:
    """Workers of whoever has this name; none of a peer."""
    nginx = {"hubgate": scene.stage.world.nginx, "static": scene.static, "proxy_cache": scene.stage.proxy, "slice": scene.stage.proxy}.get(name)
    return nginx.workers() if nginx else []


def big(scene: Scene, table: Table, tls: bool) -> None:
    asked = scene.warm(scene.stage.big, "big", scene.stage.cdn_target, tls)
    ca = scene.stage.world.ca.file if tls else None

    def run(name: str, url: str, headers: dict[str, str]) -> Callable[[], Measured]:
        def once() -> Measured:
            pids = nginx_of(scene, name)
            before = cpu_seconds(pids)
            wall = curl(url, headers=headers, ca=ca).wall
            return {"speed": 1 / wall, **({"cpu": cpu_seconds(pids) - before} if pids else {})}
        once()                                                            # whoever does not hold it yet does now
        return once
    pairs = Pairs({name: run(name, *each) for name, each in asked.items()}, scene.rounds(11, 5), scene.seconds(90, 12)).run()
    words = "TLS" if tls else "HTTP"
    table.add(f"warm 1 GiB, {words}: throughput, GiB/s", pairs, "speed", ">= 0.97", against="static")
    table.add(f"warm 1 GiB, {words}: CPU s", pairs, "cpu", "<= 1.05", against="static")


def small(scene: Scene, table: Table, what: str, asked: dict[str, Asked], target: str, method: str = "GET", tls: bool = False, more_cpu: str = "") -> None:
    ca = scene.stage.world.ca.file if tls else None

    def run(name: str, url: str, headers: dict[str, str]) -> Callable[[], Measured]:
        def once() -> Measured:
            pids = nginx_of(scene, name)
            before = cpu_seconds(pids)
            got = load(url, scene.seconds(1.5, 0.5), headers, method=method, ca=ca)
            return {**got, **({"cpu": (cpu_seconds(pids) - before) / got["requests"]} if pids else {})}
        load(url, 0.05, headers, method=method, ca=ca)
        return once
    pairs = Pairs({name: run(name, *each) for name, each in asked.items()}, scene.rounds(11, 5), scene.seconds(100, 12)).run()
    table.add(f"{what}: requests/s", pairs, "per_s", target, against="static")
    if more_cpu:
        table.add(f"{what}: CPU us a request", pairs, "cpu", more_cpu, against="static", more=True, scale=1e6, unit="us")


def rows(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    target, info, tree = f"/{SMALL}/resolve/main/config.json", f"/api/models/{SMALL}", f"/api/models/{SMALL}/tree/main"

    def all_small() -> None:
        with scene.workers(1):
            stored = scene.small()
            small(scene, table, "warm 4 KiB GET", scene.warm(target, "small", stored), ">= 0.65", more_cpu="<= 6")
            small(scene, table, "warm 4 KiB HEAD", scene.warm(target, "small", stored), ">= 0.65", "HEAD", more_cpu="<= 6")
            small(scene, table, "warm 4 KiB GET, TLS", scene.warm(target, "small", stored, tls=True), ">= 0.65", tls=True)
            small(scene, table, "warm GET /api/models/R", scene.warm(info, "info.json"), ">= 0.6")
            small(scene, table, "warm GET tree/main", scene.warm(tree, "tree.json"), ">= 0.6")
    return [("warm big", lambda: big(scene, table, False)), ("warm big tls", lambda: big(scene, table, True)), ("warm small", all_small)]
