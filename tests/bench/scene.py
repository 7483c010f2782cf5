"""Who is compared: a gateway with its Hub, the same files in a static nginx, nginx's proxy_cache and slice before the same Hub, any other gateway."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator, Mapping

from tests.lab import procs
from tests.lab.fetch import fetch
from tests.lab.nginx import Nginx, give
from tests.lab.world import World

from .measure import curl

MIB = 1 << 20
GIB = 1 << 30
BIG, MIDDLE, SMALL, SNAPSHOT = "bench/big", "bench/middle", "bench/small", "bench/many"
FILES = 200                     # of the snapshot
Asked = tuple[str, dict[str, str]]


class Stage:
    """hubgate (2 workers) and its Hub, and an nginx with proxy_cache and slice before the same Hub."""

    def __init__(self, folder: Path, upstream_tls: bool = False, hub_options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o755)
        log = f"access_log {folder}/gateway.log combined buffer=64k flush=5s;"
        self.world = World(folder / "gateway", workers=2, people="file", tls=True, upstream_tls=upstream_tls, server_extra=log,
                           settings={"upstream.ttl": "1h", "upstream.stale_max": "1d"}, hub_options=hub_options)
        self.proxy: Nginx | None = None

    def start(self) -> "Stage":
        w = self.world.start()
        self.hub, self.auth = w.hub, w.headers("reader")
        self.ca = w.ca.file if self.hub.ca_file else None
        w.hub.add(BIG, {"config.json": "{}", "model.safetensors": {"size": GIB, "seed": 1}})
        w.hub.add(MIDDLE, {"model.safetensors": {"size": 200 * MIB, "seed": 3}})
        w.hub.add(SMALL, {"config.json": {"size": 4096, "seed": 2}})
        w.hub.add(SNAPSHOT, {f"part-{n:03}.json": {"size": 2000 + n, "seed": n} for n in range(FILES)})
        self.digest = w.hub.file(BIG, "model.safetensors")["sha256"]
        self.cdn_url, self.cdn_target = self.second_host(BIG)
        self.proxy = self._proxy()
        return self

    @property
    def big(self) -> str:
        return f"/{BIG}/resolve/main/model.safetensors"

    @property
    def hub_auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.world.hub.token}"}

    def second_host(self, repo: str) -> tuple[str, str]:
        """Where the Hub redirects to for the large file: (scheme and host, signed target)."""
        cdn = fetch(self.hub.url, f"/{repo}/resolve/main/model.safetensors", "HEAD", self.hub_auth, ca_file=self.hub.ca_file)["location"] or ""
        host, _, target = cdn.partition("/xet-bridge-us/")
        return host, "/xet-bridge-us/" + target

    def _proxy(self) -> Nginx:
        """The proxy asks the Hub in its own name and lets everybody in; what is large it gets from the second host at once."""
        caches = ("proxycache", "slicecache")
        for name in caches:
            (self.folder / name).mkdir()
            give(self.folder / name)
        verify = f"proxy_ssl_trusted_certificate {self.ca}; proxy_ssl_verify on; proxy_ssl_name localhost;" if self.ca else ""
        host = self.cdn_url.partition("//")[2]
        common = "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_cache_valid 200 206 301 302 307 1h; proxy_cache_lock on; " \
                 "proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; proxy_ignore_headers Cache-Control Expires Set-Cookie Vary; " + verify
        hub = f"proxy_pass {self.hub.url}; {common} proxy_set_header Authorization 'Bearer {self.hub.token}';"
        cdn = f"proxy_pass {self.cdn_url}; {common} proxy_set_header Host {host};"
        sliced = "proxy_cache s; proxy_cache_key $uri$is_args$args$slice_range; proxy_set_header Range $slice_range;"
        nginx = Nginx(self.folder / "proxy", 2, self.world.ca.cert("proxy"), hubgate=False, http_extra="\n".join(
            f"proxy_cache_path {self.folder}/{name} keys_zone={name[0]}:10m max_size=40g use_temp_path=off;" for name in caches).replace(
                "keys_zone=p", "keys_zone=c"), server_extra=f"""
            access_log {self.folder}/proxy.log combined buffer=64k flush=5s;
            location = / {{ return 204; }}
            location / {{ {hub} proxy_cache c; proxy_cache_key $request_uri; }}
            location /xet-bridge-us/ {{ {cdn} proxy_cache c; proxy_cache_key $uri; }}
            location /slice/xet-bridge-us/ {{ rewrite ^/slice(/.*)$ $1 break; slice 8m; {cdn} {sliced} }}
            location /slice/ {{ rewrite ^/slice(/.*)$ $1 break; slice 8m; {hub} {sliced} }}""")
        nginx.write_conf()
        nginx.conf.chmod(0o600)          # the Hub's token is in it
        return nginx.start()

    def stop(self) -> None:
        for each in (self.proxy, self.world):
            if each:
                each.stop()

    # nothing is held any more

    def drop(self) -> None:
        """The big file: as cold as on the first day, but for its commit."""
        for path in (self.world.nginx.cache / "blobs" / self.digest[:2] / self.digest[2:4] / self.digest, *(self.world.nginx.cache / "parts").glob("[0-9a-f]*.*")):
            path.unlink(missing_ok=True)

    def filled(self) -> None:
        procs.wait_until("the fill to end", lambda: not list((self.world.nginx.cache / "parts").glob("*.part")), 120, 0.01)

    def empty(self, name: str) -> None:
        for path in (self.folder / name).rglob("*"):
            if path.is_file():
                path.unlink()

    def forget(self) -> None:
        """All that hubgate holds or knows."""
        self.world.nginx.stop()
        self.world.nginx.drop_cache()
        self.world.nginx.start()


class Scene:
    def __init__(self, quick: bool, peer: str = "", peer_token: str = "", hub_ports: tuple[int, int] | None = None) -> None:
        self.quick, self.peer = quick, peer.rstrip("/")
        self.peer_auth = {"Authorization": f"Bearer {peer_token}"} if peer_token else {}
        self.folder = Path(tempfile.mkdtemp(prefix="hubgate-bench-"))
        self.folder.chmod(0o755)
        ports = ("--port", str(hub_ports[0]), "--cdn-port", str(hub_ports[1])) if hub_ports else ()
        self.stage = Stage(self.folder / "plain", hub_options=ports)
        self.static: Nginx | None = None
        self.fresh_seed = int.from_bytes(os.urandom(4), "big")

    # how much of it

    def rounds(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def seconds(self, full: float, quick: float) -> float:
        return quick if self.quick else full

    # life

    def start(self) -> "Scene":
        stage, w = self.stage.start(), self.stage.world
        self.files = self.folder / "files"
        self.files.mkdir()
        commit = w.hub.file(SNAPSHOT, "part-000.json")["commit"]
        self.static = Nginx(self.folder / "static", 2, w.ca.cert("static"), hubgate=False, server_extra=f"""
            access_log {self.folder}/static.log combined buffer=64k flush=5s;
            root {self.files};
            location / {{ }}
            location /api/ {{ default_type application/json; }}
            location /{SNAPSHOT}/ {{ add_header X-Repo-Commit {commit}; }}""")
        curl(w.url + stage.big, headers=stage.auth)                       # now it is warm
        stage.filled()
        blob = w.nginx.cache / "blobs" / stage.digest[:2] / stage.digest[2:4] / stage.digest
        with open(self.files / "big", "wb") as out, open(blob, "rb") as data:
            shutil.copyfileobj(data, out, 8 * MIB)
        for name, target in (("small", f"/{SMALL}/resolve/main/config.json"), ("info.json", f"/api/models/{SMALL}"), ("tree.json", f"/api/models/{SMALL}/tree/main")):
            self.keep(name, target)
        self.keep(f"api/models/{SNAPSHOT}/revision/main", f"/api/models/{SNAPSHOT}/revision/main")
        self.keep(f"api/models/{SNAPSHOT}/tree/{commit}", f"/api/models/{SNAPSHOT}/tree/{commit}?recursive=true&expand=false")
        for n in range(FILES):
            self.keep(f"{SNAPSHOT}/resolve/{commit}/part-{n:03}.json", f"/{SNAPSHOT}/resolve/main/part-{n:03}.json")
        give(self.files)
        self.static.write_conf()
        self.static.start()
        if self.peer:
            print(f"The peer {self.peer} must have http://{w.hub.url.partition('//')[2]} as its upstream; files there are at {w.hub.cdn_url}.", flush=True)
            curl(self.peer + stage.big, headers=self.peer_auth, extra=("-r", "0-0"))
        return self

    def keep(self, name: str, target: str) -> None:
        """What hubgate answers, as a static file."""
        answer = fetch(self.stage.world.url, target, headers=self.stage.auth)
        if answer.status != 200:
            raise procs.LabError(f"{target}: {answer.status} {answer.text[:200]}")
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(answer.body)

    def stop(self) -> None:
        for each in (self.static, self.stage):
            if each:
                each.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # the same thing, asked of everybody

    def warm(self, target: str, file: str, proxied: str = "", tls: bool = False) -> dict[str, Asked]:
        """URL and headers for each; `proxied`: what the proxies are asked for, if it is not `target`.  The peer without TLS only."""
        w, proxy = self.stage.world, self.stage.proxy
        assert self.static and proxy
        mine, static, other = (w.tls_url, self.static.tls_url, proxy.tls_url) if tls else (w.url, self.static.url, proxy.url)
        out: dict[str, Asked] = {"hubgate": (f"{mine}{target}", self.stage.auth), "static": (f"{static}/{file}", {}),
                                 "proxy_cache": (f"{other}{proxied or target}", {}), "slice": (f"{other}/slice{proxied or target}", {})}
        if self.peer and not tls:
            out["peer"] = (self.peer + target, self.peer_auth)
        return out

    def small(self) -> str:
        """Where the Hub has the 4 KiB file: what a proxy may hold of it (it holds the redirect before it as well)."""
        hub = self.stage.hub
        return fetch(hub.url, f"/{SMALL}/resolve/main/config.json", "HEAD", self.stage.hub_auth)["location"] or ""

    @contextlib.contextmanager
    def workers(self, count: int) -> Iterator[None]:
        """Everybody with so many workers."""
        def of_all(number: int) -> None:
            for nginx in (self.stage.world.nginx, self.static, self.stage.proxy):
                assert nginx
                nginx.workers_wanted = number
                nginx.write_conf()
                nginx.reload()
        of_all(count)
        try:
            yield
        finally:
            of_all(2)

    @contextlib.contextmanager
    def fresh(self, size: int = GIB) -> Iterator[str]:
        """A file that nobody has seen, for a peer whose cache we cannot empty; the target."""
        self.fresh_seed += 1
        name = f"bench/fresh-{self.fresh_seed}"
        self.stage.hub.add(name, {"config.json": "{}", "model.safetensors": {"size": size, "seed": self.fresh_seed}})
        fetch(self.peer, f"/{name}/resolve/main/config.json", "GET", self.peer_auth)        # as warm as our own commit is
        try:
            yield f"/{name}/resolve/main/model.safetensors"
        finally:
            Path(self.stage.hub.file(name, "model.safetensors")["path"]).unlink(missing_ok=True)

    def another(self, name: str, settings: Mapping[str, Any], **keys: Any) -> World:
        """One more gateway before the same Hub."""
        return World(self.folder / name, hub=self.stage.hub, settings=settings, **keys).start()
