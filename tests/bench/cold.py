"""Rows of what is not held yet: one client, many, a slow upstream, the end of a file."""

from __future__ import annotations

import statistics
from typing import Callable

from tests.lab import procs

from .measure import Measured, Pairs, cpu_seconds, curl
from .scene import GIB, MIB, Scene, Stage
from .table import Table


def got(stage: Stage, url: str, clients: int, headers: dict[str, str], pids: list[int], filled: bool = False) -> Measured:
    stage.hub.reset_stats()
    before = cpu_seconds(pids)
    answer = curl(url, clients, headers, stage.ca)
    if filled:
        stage.filled()
    out = {"wall": answer.wall, "first": statistics.median(answer.first), "upstream": stage.hub.content_bytes() / (answer.bytes / clients)}
    return {**out, "cpu": cpu_seconds(pids) - before} if pids else out


def variants(scene: Scene, stage: Stage, clients: int) -> dict[str, Callable[[], Measured]]:
    w, proxy = stage.world, stage.proxy
    assert proxy

    def hubgate() -> Measured:
        stage.drop()
        return got(stage, w.url + stage.big, clients, stage.auth, w.nginx.workers(), True)

    def proxied(cache: str, prefix: str) -> Callable[[], Measured]:
        def run() -> Measured:
            stage.empty(cache)
            return got(stage, proxy.url + prefix + stage.cdn_target, clients, {}, proxy.workers())
        return run

    def peer() -> Measured:
        with scene.fresh() as target:
            return got(stage, scene.peer + target, clients, scene.peer_auth, [])
    out = {"hubgate": hubgate, "direct": lambda: got(stage, stage.hub.url + stage.big, clients, stage.hub_auth, []),
           "proxy_cache": proxied("proxycache", ""), "slice": proxied("slicecache", "/slice")}
    return {**out, "peer": peer} if scene.peer and not stage.ca else out


def one(scene: Scene, table: Table, stage: Stage) -> None:
    words = "HTTPS upstream" if stage.ca else "HTTP upstream"
    pairs = Pairs(variants(scene, stage, 1), scene.rounds(11, 3), scene.seconds(150, 25)).run()
    table.add(f"cold 1 GiB, 1 client, {words}: time, s", pairs, "wall", "<= 0.75", against="proxy_cache", words="proxy_cache (no hash)",
              note="sha256 included")
    table.add(f"cold 1 GiB, 1 client, {words}: CPU of the gateway", pairs, "cpu", "<= 3" if stage.ca else "<= 1.8", unit="s")
    table.add(f"cold 1 GiB, 1 client, {words}: first byte", pairs, "first", "<= 10", against="direct", more=True, scale=1000, unit="ms")
    table.add(f"cold 1 GiB, 1 client, {words}: from upstream", pairs, "upstream", "<= 1.0001", unit="x size")


def many(scene: Scene, table: Table) -> None:
    pairs = Pairs(variants(scene, scene.stage, 16), scene.rounds(5, 1), scene.seconds(160, 1)).run()
    table.add("cold 1 GiB, 16 clients, 2 workers: time, s", pairs, "wall", "<= 1.15", against="direct", words="16 direct downloads")
    table.add("cold 1 GiB, 16 clients, 2 workers: first byte, median", pairs, "first", "<= 60", scale=1000, unit="ms")
    table.add("cold 1 GiB, 16 clients, 2 workers: from upstream", pairs, "upstream", "<= 1.0001", unit="x size")


def limited(scene: Scene, table: Table) -> None:
    """Upstream gives each connection 50 MB/s."""
    stage = scene.stage
    w = scene.another("eight", {"upstream.transfers": 8, "upstream.ttl": "1h"}, workers=2, people="file")
    blobs = w.nginx.cache / "blobs" / stage.digest[:2] / stage.digest[2:4] / stage.digest
    curl(w.url + f"{stage.big.rpartition('/')[0]}/config.json", headers=w.headers("reader"))
    fault = stage.hub.fault("xet-bridge-us", host="cdn", rate_bytes_per_s=50_000_000)

    def hubgate() -> Measured:
        for path in (blobs, *(w.nginx.cache / "parts").glob("[0-9a-f]*.*")):
            path.unlink(missing_ok=True)
        wall = curl(w.url + stage.big, headers=w.headers("reader")).wall
        procs.wait_until("the fill to end", lambda: not list((w.nginx.cache / "parts").glob("*.part")), 120, 0.01)
        return {"wall": wall}

    def proxied(cache: str, prefix: str) -> Callable[[], Measured]:
        def run() -> Measured:
            stage.empty(cache)
            assert stage.proxy
            return {"wall": curl(stage.proxy.url + prefix + stage.cdn_target).wall}
        return run

    def peer() -> Measured:
        with scene.fresh() as target:
            return {"wall": curl(scene.peer + target, headers=scene.peer_auth).wall}
    runs: dict[str, Callable[[], Measured]] = {
        "hubgate": hubgate, "direct": lambda: {"wall": curl(stage.cdn_url + stage.cdn_target).wall}}
    if not scene.quick:                                        # 20 s each
        runs |= {"slice": proxied("slicecache", "/slice"), "proxy_cache": proxied("proxycache", "")}
    if scene.peer:
        runs["peer"] = peer
    try:
        pairs = Pairs(runs, scene.rounds(3, 1), scene.seconds(200, 1)).run()
    finally:
        stage.hub.heal(fault)
        w.stop()
    table.add("cold 1 GiB, 50 MB/s per connection, 8 transfers: time, s", pairs, "wall", "<= 0.15", against="direct")


def tail(scene: Scene, table: Table) -> None:
    """The last KiB of a file of which nothing is held; its commit's tree is."""
    stage, w = scene.stage, scene.stage.world
    last = ("-r", f"{GIB - 1024}-{GIB - 1}")

    def asked(url: str, headers: dict[str, str]) -> Measured:
        stage.hub.reset_stats()
        answer = curl(url, headers=headers, extra=last)
        stage.hub.wait_idle()
        return {"first": answer.first[0], "upstream": stage.hub.content_bytes() / MIB}

    def hubgate() -> Measured:
        stage.drop()
        return asked(w.url + stage.big, stage.auth)

    def sliced() -> Measured:
        stage.empty("slicecache")
        assert stage.proxy
        return asked(stage.proxy.url + "/slice" + stage.cdn_target, {})

    def peer() -> Measured:
        with scene.fresh() as target:
            return asked(scene.peer + target, scene.peer_auth)
    runs: dict[str, Callable[[], Measured]] = {"hubgate": hubgate, "direct": lambda: asked(stage.hub.url + stage.big, stage.hub_auth), "slice": sliced}
    if scene.peer:
        runs["peer"] = peer
    pairs = Pairs(runs, scene.rounds(11, 5), scene.seconds(60, 10)).run()
    table.add("last KiB of a cold 1 GiB: first byte", pairs, "first", "<= 10", against="direct", words="direct (Hub and redirect)", more=True, scale=1000,
              unit="ms", note="slice is asked without the Hub before it; proxy_cache would fetch all")
    table.add("last KiB of a cold 1 GiB: from upstream", pairs, "upstream", "<= 2", unit="MiB")


def secure(scene: Scene, table: Table) -> None:
    stage = Stage(scene.folder / "secure", upstream_tls=True)
    try:
        stage.start()
        curl(stage.world.url + f"{stage.big.rpartition('/')[0]}/config.json", headers=stage.auth)
        one(scene, table, stage)
    finally:
        stage.stop()


def rows(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    return [("cold 1", lambda: one(scene, table, scene.stage)), ("cold 1 https", lambda: secure(scene, table)), ("cold tail", lambda: tail(scene, table))]


def long_rows(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    return [("cold 16", lambda: many(scene, table)), ("cold limited", lambda: limited(scene, table))]
