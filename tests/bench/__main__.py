"""make bench: one table of ratios, and the same as JSON in build/bench.json.

    python3 -m tests.bench [--rounds N] [--only TEXT] [--json FILE]

Client, gateway and upstream share this machine's cores, all on loopback; the page cache is warm. Every row is a ratio of
paired rounds within this run: its median and quartiles count, absolute numbers are printed to be compared with nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

from tests.lab import procs
from tests.lab.fetch import fetch
from tests.lab.nginx import Nginx, give
from tests.lab.world import World

from .measure import Pairs, cpu_seconds, curl, wrk

MIB = 1 << 20
GIB = 1 << 30
BIG, SMALL, SNAPSHOT = "bench/big", "bench/small", "bench/many"
CLIENT = """
import sys, time
from huggingface_hub import snapshot_download
begin = time.monotonic()
snapshot_download("bench/many", cache_dir=sys.argv[1])
print(time.monotonic() - begin)
"""


class Bench:
    def __init__(self, rounds: int, only: str) -> None:
        self.rounds, self.only, self.rows = rounds, only, []
        self.folder = Path(tempfile.mkdtemp(prefix="hubgate-bench-"))
        self.folder.chmod(0o755)
        log = f"access_log {self.folder}/%s.log combined buffer=64k flush=5s;"
        self.world = World(self.folder / "gateway", workers=2, people="file", tls=True, server_extra=log % "gateway",
                           settings={"upstream.ttl": "1h", "upstream.stale_max": "1d"})

    def start(self) -> None:
        w = self.world.start()
        w.hub.add(BIG, {"config.json": "{}", "model.safetensors": {"size": GIB, "seed": 1}})
        w.hub.add(SMALL, {"config.json": {"size": 4096, "seed": 2}})
        w.hub.add(SNAPSHOT, {f"part-{n:03}.json": {"size": 2000 + n, "seed": n} for n in range(200)})
        self.auth = w.headers("reader")
        self.static = Nginx(self.folder / "static", 2, w.ca.cert("static"), hubgate=False, server_extra=f"""
            access_log {self.folder}/static.log combined buffer=64k flush=5s;
            location / {{ root {self.folder}/files; }}""")
        self.files = self.folder / "files"
        self.files.mkdir()
        (self.files / "small").write_bytes(fetch(w.url, f"/{SMALL}/resolve/main/config.json", headers=self.auth).body)
        curl(w.url + self.big(), headers=self.auth)                       # now it is warm
        procs.wait_until("the big file to be whole", lambda: list((w.nginx.cache / "blobs").rglob(w.hub.file(BIG, "model.safetensors")["sha256"])), 60)
        with open(self.files / "big", "wb") as out, open(next((w.nginx.cache / "blobs").rglob(w.hub.file(BIG, "model.safetensors")["sha256"])), "rb") as blob:
            shutil.copyfileobj(blob, out, 8 * MIB)
        for name, target in (("info.json", f"/api/models/{SMALL}"), ("tree.json", f"/api/models/{SMALL}/tree/main")):
            (self.files / name).write_bytes(fetch(w.url, target, headers=self.auth).body)
        (self.files / "many").mkdir()
        for n in range(200):
            (self.files / "many" / f"part-{n:03}.json").write_bytes(fetch(w.url, f"/{SNAPSHOT}/resolve/main/part-{n:03}.json", headers=self.auth).body)
        give(self.files)
        self.static.write_conf()
        self.static.start()
        cdn = fetch(w.hub.url, self.big(), "HEAD", {"Authorization": f"Bearer {w.hub.token}"})["location"]
        self.cdn_host, self.cdn_target = cdn.split("/", 3)[2], "/" + cdn.split("/", 3)[3]
        cache = f"proxy_cache_path {self.folder}/proxycache keys_zone=c:1m max_size=20g use_temp_path=off;\n" \
                f"proxy_cache_path {self.folder}/slicecache keys_zone=s:1m max_size=20g use_temp_path=off;"
        common = f"proxy_pass http://{self.cdn_host}; proxy_http_version 1.1; proxy_set_header Host {self.cdn_host}; proxy_cache_valid 200 206 1h; " \
                 "proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;"
        for name in ("proxycache", "slicecache"):
            (self.folder / name).mkdir()
            give(self.folder / name)
        self.proxy = Nginx(self.folder / "proxy", 2, hubgate=False, http_extra=cache, server_extra=f"""
            access_log off;
            location = / {{ return 204; }}
            location /xet-bridge-us/ {{ {common} proxy_cache c; proxy_cache_key $uri; }}
            location /slice/ {{ rewrite ^/slice(/.*)$ $1 break; slice 8m; {common} proxy_cache s; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range; }}""")
        self.proxy.write_conf()
        self.proxy.start()

    def stop(self) -> None:
        for each in (getattr(self, "proxy", None), getattr(self, "static", None), self.world):
            if each:
                each.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def big(self) -> str:
        return f"/{BIG}/resolve/main/model.safetensors"

    def row(self, what: str, against: str, ratio: tuple[float, float, float] | float, target: str, met: bool | None, note: str = "") -> None:
        q1, median, q3 = ratio if isinstance(ratio, tuple) else (ratio, ratio, ratio)
        self.rows.append({"what": what, "against": against, "q1": round(q1, 3), "median": round(median, 3), "q3": round(q3, 3), "target": target,
                          "met": met, "note": note})
        verdict = "" if met is None else "ok" if met else "MISSED"
        print(f"| {what} | {against} | {median:.3f} ({q1:.3f}-{q3:.3f}) | {target} | {verdict} | {note} |", flush=True)

    # ---- warm ----

    def warm_big(self, tls: bool) -> None:
        gate, plain = (self.world.tls_url, self.static.tls_url) if tls else (self.world.url, self.static.url)
        ca = self.world.ca.file if tls else None
        cpu: dict[str, list[float]] = {"gateway": [], "static": []}

        def one(name: str, url: str, headers: dict[str, str], nginx: Nginx) -> Callable[[], float]:
            def run() -> float:
                pids = nginx.workers()
                before = cpu_seconds(pids)
                wall = curl(url, headers=headers, ca=ca).wall
                cpu[name].append(cpu_seconds(pids) - before)
                return 1 / wall
            return run
        pairs = Pairs({"gateway": one("gateway", gate + self.big(), self.auth, self.world.nginx),
                       "static": one("static", plain + "/big", {}, self.static)}, self.rounds).run()
        ratio = pairs.quartiles("gateway", "static")
        c = statistics.median(cpu["gateway"]) / max(statistics.median(cpu["static"]), 0.01)
        self.row(f"warm 1 GiB{' TLS' if tls else ''}, throughput", "static", ratio, ">= 0.95", ratio[0] >= 0.95,
                 f"CPU per GiB {statistics.median(cpu['gateway']):.2f} s, {c:.2f} x static")

    def warm_small(self, what: str, target: str, file: str, goal: float) -> None:
        pairs = Pairs({"gateway": lambda: wrk(self.world.url + target, 2, self.auth),
                       "static": lambda: wrk(f"{self.static.url}/{file}", 2)}, max(self.rounds, 11)).run()
        ratio = pairs.quartiles("gateway", "static")
        self.row(what, "static", ratio, f">= {goal}", ratio[0] >= goal, f"{pairs.median('gateway'):.0f} and {pairs.median('static'):.0f} requests/s")

    # ---- cold ----

    def drop(self) -> None:
        """The big file is not held any more: as cold as on the first day, but for its commit."""
        for path in (self.world.nginx.cache / "blobs").rglob(self.world.hub.file(BIG, "model.safetensors")["sha256"]):
            path.unlink()

    def empty(self, name: str) -> None:
        for path in (self.folder / name).rglob("*"):
            if path.is_file():
                path.unlink()

    def cold(self, clients: int) -> None:
        w, first, cpu = self.world, {}, {}
        upstream: list[float] = []

        def measured(name: str, url: str, headers: dict[str, str], nginx: Nginx | None, before: Callable[[], None]) -> Callable[[], float]:
            def run() -> float:
                before()
                w.hub.reset_stats()
                pids = nginx.workers() if nginx else []
                begin = cpu_seconds(pids)
                got = curl(url, clients, headers)
                if name == "gateway":
                    procs.wait_until("the fill to end", lambda: not list((w.nginx.cache / "parts").glob("*.part")), 60, 0.01)
                    upstream.append(w.hub.content_bytes() / GIB)
                first.setdefault(name, []).append(statistics.median(got.first))
                cpu.setdefault(name, []).append(cpu_seconds(pids) - begin)
                return got.wall
            return run
        proxied = self.proxy.url + self.cdn_target
        rounds = self.rounds if clients == 1 else max(3, self.rounds // 2)
        variants = {
            "gateway": measured("gateway", w.url + self.big(), self.auth, w.nginx, self.drop),
            "direct": measured("direct", f"http://{self.cdn_host}{self.cdn_target}", {}, None, lambda: None),
            "proxy_cache": measured("proxy_cache", proxied, {}, self.proxy, lambda: self.empty("proxycache")),
            "slice": measured("slice", f"{self.proxy.url}/slice{self.cdn_target}", {}, self.proxy, lambda: self.empty("slicecache"))}
        pairs = Pairs(variants, rounds).run()
        words = {name: f"{pairs.median(name):.2f} s, first byte {1000 * statistics.median(first[name]):.0f} ms, CPU {statistics.median(cpu[name]):.2f} s"
                 for name in variants}
        note = "; ".join(f"{name} {text}" for name, text in words.items())
        if clients == 1:
            ratio = pairs.quartiles("gateway", "proxy_cache")
            self.row("cold 1 GiB, 1 client, sha256 included, time", "proxy_cache (no hash)", ratio, "<= 0.9", ratio[2] <= 0.9, note)
        else:
            ratio = pairs.quartiles("gateway", "direct")
            self.row(f"cold 1 GiB, {clients} clients, time", f"direct ({clients} downloads)", ratio, "<= 1.15 (later)", None, note)
        exact = all(0.9999 < each < 1.0001 for each in upstream)
        self.row(f"cold 1 GiB, {clients} client{'s' if clients > 1 else ''}, upstream bytes", "1.00", statistics.median(upstream), "= 1.00", exact)

    def cold_limited(self) -> None:
        """Upstream gives each connection 50 MB/s: a gateway with 8 transfers, one with 1, direct, nginx slice."""
        digest, upstream = self.world.hub.file(BIG, "model.safetensors")["sha256"], []
        target = self.big()
        worlds = {n: World(self.folder / f"gateway{n}", workers=2, people="file", hub=self.world.hub,
                           settings={"upstream.transfers": n, "upstream.ttl": "1h"}).start() for n in (8, 1)}
        fault = self.world.hub.fault(digest, host="cdn", rate_bytes_per_s=50_000_000)

        def gateway(n: int) -> Callable[[], float]:
            def run() -> float:
                w = worlds[n]
                for path in (w.nginx.cache / "blobs").rglob(digest):
                    path.unlink()
                self.world.hub.reset_stats()
                wall = curl(w.url + target, headers=w.headers("reader")).wall
                procs.wait_until("the fill to end", lambda: not list((w.nginx.cache / "parts").glob("*.part")), 60, 0.01)
                upstream.append(self.world.hub.content_bytes() / GIB)
                return wall
            return run

        def slices() -> float:
            self.empty("slicecache")
            return curl(f"{self.proxy.url}/slice{self.cdn_target}").wall
        try:
            pairs = Pairs({"8 transfers": gateway(8), "direct": lambda: curl(f"http://{self.cdn_host}{self.cdn_target}").wall,
                           "1 transfer": gateway(1), "slice": slices}, min(self.rounds, 3)).run()
        finally:
            self.world.hub.heal(fault)
            for w in worlds.values():
                w.stop()
        note = "; ".join(f"{name} {pairs.median(name):.2f} s" for name in pairs.variants) + f"; {min(self.rounds, 3)} rounds"
        ratio = pairs.quartiles("8 transfers", "direct")
        self.row("cold 1 GiB, 50 MB/s per connection, 8 transfers, time", "direct", ratio, "<= 0.15", ratio[2] <= 0.15, note)
        exact = all(0.9999 < each < 1.0001 for each in upstream)
        self.row("cold 1 GiB, 50 MB/s per connection, upstream bytes", "1.00", statistics.median(upstream), "= 1.00", exact)

    def tail(self) -> None:
        """The last KiB of a file of which nothing is held, its commit's tree is."""
        w, first, upstream = self.world, {"gateway": [], "direct": []}, []
        last = ("-r", f"{GIB - 1024}-{GIB - 1}")

        def gateway() -> float:
            self.drop()
            for path in (w.nginx.cache / "parts").glob("*"):
                path.unlink()
            w.hub.reset_stats()
            got = curl(w.url + self.big(), headers=self.auth, extra=last)
            w.hub.wait_idle()
            upstream.append(w.hub.content_bytes() / MIB)
            first["gateway"].append(got.first[0])
            return got.first[0]

        def direct() -> float:
            got = curl(w.hub.url + self.big(), headers={"Authorization": f"Bearer {w.hub.token}"}, extra=last)
            first["direct"].append(got.first[0])
            return got.first[0]
        pairs = Pairs({"gateway": gateway, "direct": direct}, max(self.rounds, 11)).run()
        more = sorted(1000 * (a - b) for a, b in zip(pairs.results["gateway"], pairs.results["direct"]))
        q1, median, q3 = statistics.quantiles(more, n=4, method="inclusive")
        self.row("last KiB of a cold 1 GiB, first byte, ms more", "direct (Hub and redirect)", (q1, median, q3), "<= 10", q3 <= 10,
                 f"{1000 * pairs.median('gateway'):.1f} and {1000 * pairs.median('direct'):.1f} ms")
        most = max(upstream)
        self.row("last KiB of a cold 1 GiB, MiB from upstream", "-", most, "<= 2", most <= 2)

    # ---- a snapshot of small files by the newest client ----

    def snapshot(self) -> None:
        python = procs.ROOT / "build" / "venv-hf240-noxet" / "bin" / "python"
        w = self.world
        w.hub.fault(".*", latency_ms=20)

        def run(url: str, token: str, before: Callable[[], None] = lambda: None) -> Callable[[], float]:
            def once() -> float:
                before()
                with tempfile.TemporaryDirectory(dir=self.folder) as home:
                    env = {**w.env(None, Path(home)), "HF_ENDPOINT": url, "HF_TOKEN": token}
                    out = subprocess.run([str(python), "-c", CLIENT, home + "/cache"], env=env, capture_output=True, text=True, check=True).stdout
                return float(out)
            return once

        def forget() -> None:
            w.nginx.stop()
            w.nginx.drop_cache()
            w.nginx.start()
        gate = run(w.url, w.tokens["reader"])
        cold = Pairs({"cold": run(w.url, w.tokens["reader"], forget), "direct": run(w.hub.url, w.hub.token)}, max(3, self.rounds // 2)).run()
        gate()
        warm = Pairs({"warm": gate, "direct": run(w.hub.url, w.hub.token)}, self.rounds).run()
        w.hub.heal()
        ratio = cold.quartiles("cold", "direct")
        self.row("snapshot of 200 small files, cold, time", "direct, upstream answers after 20 ms", ratio, "<= 1.3", ratio[2] <= 1.3,
                 f"{cold.median('cold'):.2f} and {cold.median('direct'):.2f} s")
        ratio = warm.quartiles("warm", "direct")
        self.row("snapshot of 200 small files, warm, time", "direct, upstream answers after 20 ms", ratio, "<= 0.5", ratio[2] <= 0.5,
                 f"{warm.median('warm'):.2f} and {warm.median('direct'):.2f} s")

    def run(self) -> None:
        info, tree = f"/api/models/{SMALL}", f"/api/models/{SMALL}/tree/main"
        small = f"/{SMALL}/resolve/main/config.json"
        steps: list[tuple[str, Callable[[], None]]] = [
            ("warm big", lambda: self.warm_big(False)), ("warm big tls", lambda: self.warm_big(True)),
            ("warm small get", lambda: self.warm_small("warm 4 KiB, token and policy", small, "small", 0.55)),
            ("warm info", lambda: self.warm_small("warm GET /api/models/R", info, "info.json", 0.55)),
            ("warm tree", lambda: self.warm_small("warm tree/main", tree, "tree.json", 0.55)),
            ("cold 1", lambda: self.cold(1)), ("cold 16", lambda: self.cold(16)), ("cold limited", self.cold_limited), ("cold tail", self.tail),
            ("snapshot", self.snapshot)]
        print("| what | against | ratio (quartiles) | target | | seen |\n|---|---|---|---|---|---|")
        for name, step in steps:
            if self.only in name:
                step()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--json", default=str(procs.ROOT / "build" / "bench.json"))
    options = parser.parse_args()
    bench = Bench(options.rounds, options.only)
    try:
        bench.start()
        bench.run()
    finally:
        bench.stop()
    Path(options.json).write_text(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "rounds": options.rounds, "rows": bench.rows}, indent=1))
    missed = [row for row in bench.rows if row["met"] is False]
    print(f"{len(bench.rows) - len(missed)} rows reached or informative, {len(missed)} missed; also in {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
