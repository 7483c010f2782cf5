"""Rows of many small files, of requests while something else goes on or hangs, of large tables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable

from tests.lab import procs
from tests.lab.nginx import give
from tests.lab.redis import Redis
from tests.lab.world import World

from .measure import Measured, Pairs, curl_command, load, program, quartiles
from .scene import FILES, MIDDLE, SMALL, SNAPSHOT, Scene
from .table import Table

CLIENT = """
import sys, time
from huggingface_hub import snapshot_download
begin = time.monotonic()
snapshot_download(sys.argv[1], cache_dir=sys.argv[2])
print(time.monotonic() - begin)
"""


# ---- a snapshot by the newest client ----

def snapshot(scene: Scene, table: Table) -> None:
    """Upstream answers after 20 ms."""
    python = procs.ROOT / "build" / "venv-hf240-noxet" / "bin" / "python"
    stage, w, static = scene.stage, scene.stage.world, scene.static
    assert static and stage.proxy

    def run(url: str, token: str, repo: str = SNAPSHOT) -> Measured:
        with tempfile.TemporaryDirectory(dir=scene.folder) as home:
            env = {**w.env(None, Path(home)), "HF_ENDPOINT": url, "HF_TOKEN": token}
            done = subprocess.run([str(python), "-c", CLIENT, repo, f"{home}/cache"], env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"snapshot_download from {url}: {done.stderr[-1000:]}")
        return {"wall": float(done.stdout)}

    def cold() -> Measured:
        stage.forget()
        return run(w.url, w.tokens["reader"])

    def cold_proxy() -> Measured:
        assert stage.proxy
        stage.empty("proxycache")
        return run(stage.proxy.url, "none")

    def cold_peer() -> Measured:
        scene.fresh_seed += 1
        repo = f"bench/many-{scene.fresh_seed}"
        stage.hub.add(repo, {f"part-{n:03}.json": {"size": 2000 + n, "seed": scene.fresh_seed * 1000 + n} for n in range(FILES)})
        return run(scene.peer, peer_token, repo)
    peer_token = scene.peer_auth.get("Authorization", "Bearer none").partition(" ")[2]
    fault = stage.hub.fault(".*", latency_ms=20)
    try:
        runs: dict[str, Callable[[], Measured]] = {"hubgate": cold, "direct": lambda: run(stage.hub.url, str(stage.hub.token)), "proxy_cache": cold_proxy}
        if scene.peer:
            runs["peer"] = cold_peer
        pairs = Pairs(runs, scene.rounds(5, 1), scene.seconds(90, 1)).run()
        table.add(f"snapshot of {FILES} small files, cold: time, s", pairs, "wall", "<= 1.3", against="direct", words="direct (20 ms)")
        runs = {"hubgate": lambda: run(w.url, w.tokens["reader"]), "direct": lambda: run(stage.hub.url, str(stage.hub.token)),
                "static": lambda: run(static.url, "none"), "proxy_cache": lambda: run(stage.proxy.url, "none")}
        if scene.peer:
            run(scene.peer, peer_token)
            runs["peer"] = lambda: run(scene.peer, peer_token)
        pairs = Pairs(runs, scene.rounds(7, 2), scene.seconds(120, 10)).run()
        table.add(f"snapshot of {FILES} small files, warm: time, s", pairs, "wall", "<= 0.5", against="direct", words="direct (20 ms)")
        table.add(f"snapshot of {FILES} small files, warm: time, s", pairs, "wall", "<= 1.2", against="static")
    finally:
        stage.hub.heal(fault)


# ---- small warm requests while something goes on ----

def beside_fill(scene: Scene, table: Table) -> None:
    """The one worker also fills, from an upstream that gives each connection 50 MB/s."""
    stage, w, proxy = scene.stage, scene.stage.world, scene.stage.proxy
    assert proxy
    seconds, rate = scene.seconds(3, 2), 500

    def measured(url: str, headers: dict[str, str], big: str, forget: Callable[[], None]) -> Measured:
        alone = load(url, seconds / 2, headers, connections=8, rate=rate)["p99_us"]
        forget()
        fault = stage.hub.fault("xet-bridge-us", host="cdn", rate_bytes_per_s=50_000_000)
        client = subprocess.Popen(curl_command(big, headers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            procs.wait_until("the first bytes of the fill", lambda: stage.hub.content_bytes() > 0)
            beside = load(url, seconds, headers, connections=8, rate=rate)["p99_us"]
        finally:
            stage.hub.heal(fault)
            client.terminate()
            client.wait()
        return {"p99": beside, "alone": alone}

    def hubgate() -> Measured:
        stage.hub.reset_stats()
        out = measured(f"{w.url}/{SMALL}/resolve/main/config.json", stage.auth, w.url + stage.big, stage.drop)
        stage.filled()
        return out

    def proxied() -> Measured:
        stage.hub.reset_stats()
        out = measured(proxy.url + stored, {}, proxy.url + middle, lambda: stage.empty("proxycache"))
        stage.hub.wait_idle(60)                                           # nginx goes on for its cache, at 50 MB/s: so a file of 4 s only
        return out
    with scene.workers(1):
        stored, (_, middle) = scene.small(), stage.second_host(MIDDLE)
        pairs = Pairs({"hubgate": hubgate, "proxy_cache": proxied}, scene.rounds(7, 2), scene.seconds(120, 10)).run()
    words = f"warm 4 KiB ({rate}/s) beside a cold fill, 1 worker: p99"
    note = ", ".join(f"{name} without a fill {pairs.median(name, 'alone') / 1000:.2f} ms" for name in pairs.variants)
    table.add(words, pairs, "p99", "<= 1", against="proxy_cache", note=note)
    table.add(words, pairs, "p99", "<= 20", scale=1e-3, unit="ms")


def beside_hung(scene: Scene, table: Table) -> None:
    """Warm requests while a peer takes connections and says nothing, others wait for it, and what is held wants to be refreshed."""
    seconds, rate = scene.seconds(3, 1.5), 500
    redis = Redis(scene.folder / "redis").start()
    w = World(scene.folder / "hung", workers=1, redis=redis, settings={
        "upstream.ttl": "1s", "upstream.stale_max": "1d", "identity.refresh": "1s", "limits.wait": "5s"})

    def waiting(kind: str, n: int) -> list[str]:
        if kind == "LDAP":
            login = f"reader:{w.passwords['reader']}-{n}"
            return ["curl", "-s", "-o", "/dev/null", "-u", login, "-d", "name=x", f"{w.url}/api/gateway/tokens"]
        return curl_command(f"{w.url}/bench/nothing-{n}/resolve/main/config.json", auth)

    def measured(kind: str, pause: Callable[[], None], resume: Callable[[], None]) -> Callable[[], Measured]:
        def run() -> Measured:
            without = load(w.url + target, seconds, auth, connections=8, rate=rate)["p99_us"]
            pause()
            clients = []
            try:
                clients = [subprocess.Popen(waiting(kind, n), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for n in range(20)]
                time.sleep(0.2)
                hung = load(w.url + target, seconds, auth, connections=8, rate=rate)["p99_us"]
            finally:
                resume()
                for client in clients:
                    client.terminate()
                    client.wait()
            return {"without": without, "hung": hung}
        return run
    try:
        w.start()
        assert w.hub and w.slapd
        target, auth = f"/{SMALL}/resolve/main/config.json", w.headers("reader")
        w.hub.add(SMALL, {"config.json": {"size": 4096, "seed": 2}})
        load(w.url + target, 0.2, auth, connections=1)
        for kind, pause, resume in (("LDAP", w.slapd.pause, w.slapd.resume), ("Redis", redis.pause, redis.resume),
                                    ("upstream", w.hub.pause, w.hub.resume)):
            pairs = Pairs({"hubgate": measured(kind, pause, resume)}, scene.rounds(7, 2), scene.seconds(60, 8)).run()
            ratio = quartiles([each["hung"] / each["without"] for each in pairs.results["hubgate"]])
            table.put(f"warm 4 KiB ({rate}/s) while {kind} hangs: p99", "without", "x", ratio, pairs.done, "<= 1.5", raw=pairs.results,
                      note=f"{pairs.median('hubgate', 'hung') / 1000:.2f} and {pairs.median('hubgate', 'without') / 1000:.2f} ms")
    finally:
        w.stop()
        redis.stop()


# ---- tables ----

def policy(scene: Scene, table: Table) -> None:
    def run(rules: int) -> Callable[[], Measured]:
        return lambda: json.loads(subprocess.run([str(program("policy_bench")), str(rules)], capture_output=True, text=True, check=True).stdout)
    pairs = Pairs({"hubgate": run(100_000), "ten": run(10)}, scene.rounds(5, 2), scene.seconds(30, 5)).run()
    table.add("100,000 policy rules: decision, p99", pairs, "p99_us", "<= 10", unit="us", note=f"10 rules: {pairs.median('ten', 'p99_us'):.2f} us")
    table.add("100,000 policy rules: load", pairs, "load_ms", "<= 1", scale=1e-3, unit="s")


def index(scene: Scene, table: Table) -> None:
    """A node whose index holds many records, beside one with few: start, warm requests, memory."""
    records, seconds, rate = scene.rounds(1_000_000, 100_000), scene.seconds(2, 1), 500
    worlds = {name: World(scene.folder / f"index-{name}", workers=1, people="file", hub=scene.stage.hub) for name in ("hubgate", "few")}
    made: dict[str, Measured] = {}

    def measured(w: World) -> Callable[[], Measured]:
        def run() -> Measured:
            w.nginx.stop()
            begin = time.monotonic()
            w.nginx.start()
            start = time.monotonic() - begin
            p99 = load(f"{w.url}/{SMALL}/resolve/main/config.json", seconds, w.headers("reader"), connections=8, rate=rate)["p99_us"]
            status = Path(f"/proc/{w.nginx.workers()[0]}/status").read_text()
            return {"start": start, "p99": p99, "anon": int(status.split("RssAnon:")[1].split()[0]) / 1024}
        return run
    try:
        for name, w in worlds.items():
            os.chown(w.nginx.cache, os.getuid(), os.getgid())
            filled = subprocess.run([str(program("index_bench")), str(w.nginx.cache), str(records if name == "hubgate" else 1000), "256"],
                                    capture_output=True, text=True, check=True)
            made[name] = json.loads(filled.stdout)
            give(w.nginx.cache)
            w.start()
        pairs = Pairs({name: measured(w) for name, w in worlds.items()}, scene.rounds(7, 2), scene.seconds(60, 6)).run()
        what = f"index of {records:,} records"
        table.add(f"{what}: start", pairs, "start", "<= 1", unit="s", note="; ".join(
            f"{name}: a look-up {one['get_ns']:.0f} ns" for name, one in made.items()))
        table.add(f"{what}: warm 4 KiB ({rate}/s), p99", pairs, "p99", "<= 2", against="few", words="1,000 records")
        table.add(f"{what}: memory of a worker, without maps", pairs, "anon", "<= 64", unit="MiB")
    finally:
        for w in worlds.values():
            w.stop()
            shutil.rmtree(w.folder, ignore_errors=True)


def repos(scene: Scene, table: Table) -> None:
    """A node that knows a million repositories with 10 files each, beside one with 1,000: each request asks for a file of another one."""
    many, files, seconds, rate = 1_000_000, 10, 3, 500
    worlds = {name: World(scene.folder / f"repos-{name}", workers=1, people="file", hub=scene.stage.hub,
                          settings={"upstream.ttl": "1d", "upstream.stale_max": "1d"}) for name in ("hubgate", "few")}
    counts = {"hubgate": many, "few": 1000}

    def measured(name: str) -> Callable[[], Measured]:
        w = worlds[name]

        def run() -> Measured:
            w.nginx.stop()
            begin = time.monotonic()
            w.nginx.start()
            start = time.monotonic() - begin
            p99 = load(f"{w.url}/many/r#######/resolve/main/f3", seconds, w.headers("reader"), connections=8, rate=rate, method="HEAD",
                       numbers=counts[name])["p99_us"]
            status = Path(f"/proc/{w.nginx.workers()[0]}/status").read_text()
            return {"start": start, "p99": p99, "anon": int(status.split("RssAnon:")[1].split()[0]) / 1024}
        return run
    made: dict[str, Measured] = {}
    try:
        for name, w in worlds.items():
            os.chown(w.nginx.cache, os.getuid(), os.getgid())
            filled = subprocess.run([str(program("repos_bench")), str(w.nginx.cache), str(counts[name]), str(files)], capture_output=True, text=True, check=True)
            made[name] = json.loads(filled.stdout)
            give(w.nginx.cache)
            w.start()
        size = sum(path.stat().st_blocks * 512 for path in (worlds["hubgate"].nginx.cache / "index").rglob("*") if path.is_file())
        pairs = Pairs({name: measured(name) for name in worlds}, scene.rounds(11, 3), scene.seconds(150, 30)).run()
        what = f"{many:,} repositories, {many * files:,} files"
        table.add(f"{what}: start", pairs, "start", "<= 1", unit="s", note=f"an index of {size / 2**30:.1f} GiB, made in {made['hubgate']['fill_s']:.0f} s")
        table.add(f"{what}: HEAD of one at random ({rate}/s), p99", pairs, "p99", "<= 2", against="few", words="1,000 repositories")
        table.add(f"{what}: memory of a worker, without maps", pairs, "anon", "<= 64", unit="MiB")
    finally:
        for w in worlds.values():
            w.stop()
            shutil.rmtree(w.folder, ignore_errors=True)


def rows(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    return [("snapshot", lambda: snapshot(scene, table)), ("beside fill", lambda: beside_fill(scene, table)),
            ("beside hung", lambda: beside_hung(scene, table)), ("policy", lambda: policy(scene, table))]


def long_rows(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    return [("index", lambda: index(scene, table))]


def asked_rows(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    """Only when named: minutes, and gigabytes of disk."""
    return [("repos", lambda: repos(scene, table))]
