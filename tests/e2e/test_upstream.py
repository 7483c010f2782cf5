"""The way to upstream: TLS with a CA bundle of its own, an outbound proxy, and whose token goes where."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import threading
from typing import Callable, Iterator
from urllib.parse import urlsplit

from downloads import MIB, fresh

from tests.lab.ca import CA
from tests.lab.hubctl import HubProcess
from tests.lab.world import World


class Proxy:
    """A forward proxy for http (absolute form) and https (CONNECT) that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (chunk := client.recv(65536)):
                    return
                head += chunk
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.asked.append(f"{method} {target}")
            host, port = (target.split(":") if method == "CONNECT" else (urlsplit(target).hostname, urlsplit(target).port))
            with socket.create_connection((str(host), int(port or 80))) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = urlsplit(target)
                    line = f"{method} {path.path}{'?' + path.query if path.query else ''} HTTP/1.1".encode()
                    server.sendall(line + b"\r\nConnection: close\r\n" + head.split(b"\r\n", 1)[1])
                self.pump(client, server)

    @staticmethod
    def pump(a: socket.socket, b: socket.socket) -> None:
        while True:
            for ready in select.select([a, b], [], [], 60)[0]:
                data = ready.recv(1 << 18)
                if not data:
                    return
                (b if ready is a else a).sendall(data)

    def close(self) -> None:
        self.listener.close()


@contextlib.contextmanager
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    try:
        yield made
    finally:
        made.close()


def big(world: World) -> tuple[int, str]:
    facts = fresh(world.hub, 3 * MIB)
    answer = world.get(facts["target"], "reader")
    assert hashlib.sha256(answer.body).hexdigest() == facts["sha256"]
    return answer.status, facts["repo"]


def test_over_tls_with_a_ca_bundle(make_world: Callable[..., World]) -> None:
    world = make_world(upstream_tls=True)
    assert big(world)[0] == 200
    assert world.hub.url.startswith("https://") and world.hub.cdn_url.startswith("https://")


def test_a_hub_that_another_ca_signed_is_an_outage(make_world: Callable[..., World], tmp_path_factory) -> None:
    other = CA(tmp_path_factory.mktemp("other-ca"))
    other.file.chmod(0o644)
    world = make_world(upstream_tls=True)
    wrong = world.folder / "wrong-ca.pem"
    wrong.write_bytes(other.file.read_bytes())
    world.configure(settings={"upstream.ca_file": str(wrong)})
    answer = world.get("/demo/tiny-llm/resolve/main/config.json", "reader")
    assert answer.status == 503 and answer["retry-after"] and not answer["x-error-code"]
    assert "certificate" in answer.text
    assert not world.hub.requests("resolve")


def test_through_an_outbound_proxy(make_world: Callable[..., World]) -> None:
    with proxy() as out:
        world = make_world(hub=None, settings={"upstream.proxy": out.url})
        assert big(world)[0] == 200
        assert any(line.startswith(f"GET {world.hub.url}/api/models/") for line in out.asked)
        assert any(line.startswith(f"GET {world.hub.cdn_url}/") for line in out.asked)
        called = len(world.hub.requests())
        assert called and called <= len(out.asked)              # nothing went another way


def test_tls_through_an_outbound_proxy(make_world: Callable[..., World]) -> None:
    with proxy() as out:
        world = make_world(upstream_tls=True, settings={"upstream.proxy": out.url})
        assert big(world)[0] == 200
        assert out.asked and all(line.startswith("CONNECT ") for line in out.asked)


def test_a_proxy_that_is_gone_is_an_outage(make_world: Callable[..., World]) -> None:
    with proxy() as out:
        world = make_world(hub=None, settings={"upstream.proxy": out.url, "upstream.connect_timeout": "1s"})
    answer = world.get("/demo/tiny-llm/resolve/main/config.json", "reader")
    assert answer.status == 503 and answer["retry-after"]


def test_whose_token_goes_where(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world()
    facts = fresh(hub, 3 * MIB)
    hub.reset_stats()
    assert world.get(facts["target"], "reader", headers={"Cookie": "a=b", "X-Forwarded-For": "1.2.3.4"}).status == 200
    assert world.get(f"/api/models/{facts['repo']}/tree/main", "reader").status == 200
    seen = hub.requests()
    assert {request["host"] for request in seen} == {"hub", "cdn"}
    for request in seen:
        headers = {name.lower(): value for name, value in request["headers"].items()}
        assert headers.get("authorization") == (f"Bearer {hub.token}" if request["host"] == "hub" else None)
        assert not {"cookie", "x-forwarded-for", "x-real-ip"} & set(headers)
        assert world.tokens["reader"] not in str(request)
