"""What hubgate leans on fails: Redis in every way, the directory and upstream that hang.

    make depfaults             all of it
    make e2e                   the ways that differ most

A scenario is a cluster of two nodes, one fault, requests of both nodes, and the end of the fault.  For each: what is held is
served as before; what Redis would have brought is fetched; no answer changes, none is a 5xx because of Redis, none waits for
longer than its deadline; the log says it in one line a minute and node, not in one per request; and afterwards everything is
used again.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterator

import pytest
from downloads import fresh

from tests.lab import procs
from tests.lab.fetch import Response, basic
from tests.lab.hubctl import HubProcess
from tests.lab.redis import Redis, RedisError
from tests.lab.slapd import Slapd
from tests.lab.world import World

ALL = os.environ.get("FAULTS") == "all"
SETTINGS = {"limits.wait": "4s", "redis.timeout": "200ms", "upstream.stall_timeout": "30s"}
PATIENCE = 20.0                  # of a client here: far over limits.wait, so that a loaded machine fails nothing
CROWD = 12

# --- ways in which Redis fails


class Liar:
    """Listens in place of Redis and answers each command with the same bytes (or with nothing, or closes)."""

    def __init__(self, port: int, answer: bytes | None, close: bool = False) -> None:
        self.answer, self.close = answer, close
        self.open: list[socket.socket] = []
        self.listener: socket.socket
        procs.wait_until("the port", lambda: self.listen(port))
        threading.Thread(target=self.serve, daemon=True).start()

    def listen(self, port: int) -> bool:
        try:
            self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        except OSError:                                # what the killed one had open is not closed yet
            return False
        return True

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                self.open.append(connection)
                threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                if self.answer:
                    connection.sendall(self.answer * max(1, len(re.findall(rb"\*\d+\r\n\$", data))))
                if self.close:
                    connection.close()
                    return

    def stop(self) -> None:
        for each in (self.listener, *self.open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextlib.contextmanager
def lying(redis: Redis, answer: bytes | None, close: bool = False) -> Iterator[None]:
    redis.kill()
    liar = Liar(redis.port, answer, close)
    try:
        yield
    finally:
        liar.stop()
        redis.start()


@contextlib.contextmanager
def killed(redis: Redis) -> Iterator[None]:
    redis.kill()
    try:
        yield
    finally:
        redis.start()


@contextlib.contextmanager
def hung(redis: Redis) -> Iterator[None]:
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


@contextlib.contextmanager
def restarted(redis: Redis) -> Iterator[None]:
    redis.restart()
    yield


@contextlib.contextmanager
def flushed(redis: Redis) -> Iterator[None]:
    redis.flush()
    yield


@contextlib.contextmanager
def full(redis: Redis) -> Iterator[None]:
    redis.full()
    yield
    redis.full(False)


@contextlib.contextmanager
def evicting(redis: Redis) -> Iterator[None]:
    redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    redis.command("CONFIG", "SET", "maxmemory", 1_100_000)
    yield
    redis.command("CONFIG", "SET", "maxmemory", 0)


@contextlib.contextmanager
def read_only(redis: Redis) -> Iterator[None]:
    with Redis(ca=redis.ca) as master:
        redis.follow(master)
        yield
        redis.follow(None)


@contextlib.contextmanager
def no_rights(redis: Redis) -> Iterator[None]:
    redis.command("ACL", "SETUSER", "hubgate", "-@all")
    yield
    redis.restart()                                    # as its file says


@contextlib.contextmanager
def other_password(redis: Redis) -> Iterator[None]:
    redis.command("ACL", "SETUSER", "hubgate", "resetpass", ">" + secrets.token_urlsafe(18))
    redis.command("CLIENT", "KILL", "USER", "hubgate")
    yield
    redis.restart()


def values(redis: Redis) -> list[bytes]:
    return [key for key in redis.keys("gw:*") if redis.command("TYPE", key) == "string"]


def spoiled(change: Callable[[Redis, bytes, bytes], None]) -> Callable[[Redis], contextlib.AbstractContextManager[None]]:
    """Every value is changed, again and again while the requests run."""
    @contextlib.contextmanager
    def fault(redis: Redis) -> Iterator[None]:
        over = threading.Event()

        def spoil() -> None:
            while not over.wait(0.02):
                for key in values(redis):
                    with contextlib.suppress(RedisError):      # it is a list by now
                        if value := redis.command("GET", key):
                            change(redis, key, value)
        thread = threading.Thread(target=spoil)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        redis.flush()
    return fault


def random_bytes(redis: Redis, key: bytes, value: bytes) -> None:
    redis.command("SET", key, secrets.token_bytes(len(value)), "KEEPTTL")


def one_bit(redis: Redis, key: bytes, value: bytes) -> None:
    at = secrets.randbelow(len(value))
    redis.command("SET", key, value[:at] + bytes([value[at] ^ 1 << secrets.randbelow(8)]) + value[at + 1:], "KEEPTTL")


def truncated(redis: Redis, key: bytes, value: bytes) -> None:
    redis.command("SET", key, value[:secrets.randbelow(len(value))], "KEEPTTL")


def wrong_type(redis: Redis, key: bytes, value: bytes) -> None:
    redis.command("DEL", key)
    redis.command("RPUSH", key, value)


def of_another_name(redis: Redis, key: bytes, value: bytes) -> None:
    """A tenant's poison: a frame that is right, under a name that it is not for."""
    redis.command("SET", key, redis.command("GET", secrets.choice(values(redis))) or b"x", "KEEPTTL")


def too_large(redis: Redis, key: bytes, value: bytes) -> None:
    redis.command("SET", key, value + bytes(3 << 20), "PX", 2000)


REDIS: dict[str, Callable[[Redis], contextlib.AbstractContextManager[None]]] = {
    "B1 killed": killed,
    "B1 restarted": restarted,
    "B1 refuses": lambda redis: lying(redis, b"", close=True),
    "B2 hung": hung,
    "B2 accepts and says nothing": lambda redis: lying(redis, None),
    "B2 half a reply": lambda redis: lying(redis, b"$100\r\nabc"),
    "B3 flushed": flushed,
    "B3 evicting": evicting,
    "B4 random bytes": spoiled(random_bytes),
    "B4 one bit": spoiled(one_bit),
    "B4 truncated": spoiled(truncated),
    "B4 wrong type": spoiled(wrong_type),
    "B4 too large": spoiled(too_large),
    "B4 no Redis at all": lambda redis: lying(redis, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "B5 of another name": spoiled(of_another_name),
    "B6 read-only": read_only,
    "B6 full": full,
    "B6 loading": lambda redis: lying(redis, b"-LOADING Redis is loading the dataset in memory\r\n"),
    "B6 no rights": no_rights,
    "B6 other password": other_password,
}
SHORT = ("B1 killed", "B2 hung", "B4 one bit", "B6 full")
STRANGE = re.compile(r"\[(warn|error)\].*redis", re.IGNORECASE)

# --- what runs meanwhile


def crowd(worlds: list[World], targets: list[str]) -> list[Response]:
    """Many clients of all nodes at once."""
    asked = [(world, target) for target in targets for world in worlds] * (CROWD // (len(worlds) * len(targets)) + 1)
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda pair: pair[0].get(pair[1], "reader", timeout=PATIENCE), asked))


def of_repo(facts: dict) -> list[str]:
    return [f"/api/models/{facts['repo']}/revision/main", f"/{facts['repo']}/resolve/{facts['commit']}/config.json"]


def log_lines(world: World) -> int:
    return len(STRANGE.findall(world.nginx.error_log.read_text(errors="replace")))


def metric(world: World, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in world.get("/-/metrics").text.splitlines() if line.startswith(name + " "))


def met(name: str) -> str | None:
    """What goes up by this fault."""
    if REDIS[name].__name__ == "fault":
        return "hubgate_shared_rejected_total"
    return None if REDIS[name] in (restarted, flushed, evicting) else "hubgate_redis_failures_total"


def shares_again(worlds: list[World], hub: HubProcess) -> bool:
    """Does the second node ask nobody for what the first one fetched?"""
    facts = fresh(hub, 1000)
    info = of_repo(facts)[0]
    assert worlds[0].get(info, "reader", timeout=PATIENCE).status == 200
    hub.reset_stats()
    return worlds[1].get(info, "reader", timeout=PATIENCE).status == 200 and not hub.requests(contains=info)


@pytest.mark.parametrize("name", list(REDIS) if ALL else SHORT)
def test_redis(make_world: Callable[..., World], hub: HubProcess, redis: Redis, name: str) -> None:
    first = make_world(redis=redis, private={}, workers=2, settings=SETTINGS)
    worlds = [first, make_world(node_of=first, workers=2, settings=SETTINGS)]
    held = fresh(hub, 1000)
    before = {target: first.get(target, "reader").body for target in of_repo(held)}
    assert all(answer.status == 200 for answer in crowd(worlds, of_repo(held)))
    with REDIS[name](redis):
        logged = [log_lines(world) for world in worlds]
        for _ in range(4):
            cold = fresh(hub, 1000)
            for answer in crowd(worlds, of_repo(held)):
                assert answer.status == 200 and answer.body in before.values() and answer["x-cache"] == "HIT"
            for answer in crowd(worlds, [*of_repo(cold), "/api/whoami-v2"]):
                assert answer.status == 200
            for answer in crowd(worlds, [f"/api/models/{cold['repo']}-nope"]):
                assert (answer.status, answer["x-error-code"]) == (404, "RepoNotFound")
        if counter := met(name):                       # the fault was met, and counted
            assert sum(metric(world, counter) for world in worlds) > 0
        for world, lines in zip(worlds, logged):
            assert log_lines(world) - lines <= 3, world.nginx.error_log.read_text()[-3000:]
    procs.wait_until("Redis is used again", lambda: shares_again(worlds, hub), 60)


def test_redis_was_never_there(make_world: Callable[..., World], hub: HubProcess, redis: Redis) -> None:
    redis.kill()
    first = make_world(redis=redis, private={}, workers=2, settings=SETTINGS)
    worlds = [first, make_world(node_of=first, workers=2, settings=SETTINGS)]
    facts = fresh(hub, 1000)
    for answer in crowd(worlds, of_repo(facts)):
        assert answer.status == 200
    assert first.cli("token", "revoke", first.tokens["stranger"][6:16], check=False).returncode == 0
    redis.start()
    procs.wait_until("Redis is used", lambda: shares_again(worlds, hub), 60)


# --- the directory and upstream


def test_the_directory_hangs(make_world: Callable[..., World], hub: HubProcess, slapd: Slapd) -> None:
    """Logins wait for their deadline and are told so; who has a token notices nothing."""
    world = make_world(private={}, workers=2, settings={**SETTINGS, "identity.refresh": "1s"})
    held = fresh(hub, 1000)
    assert world.get(of_repo(held)[0], "reader").status == 200
    slapd.pause()
    try:
        def login(_: int) -> int:
            return world.get("/api/gateway/tokens", method="POST", timeout=PATIENCE, body=b"",
                             headers={"Authorization": basic("writer", world.passwords["writer"])}).status
        with ThreadPoolExecutor(24) as pool:
            logins = pool.map(login, range(24))
            for _ in range(5):
                for answer in crowd([world], [*of_repo(held), "/api/whoami-v2"]):
                    assert answer.status == 200
                for answer in crowd([world], of_repo(fresh(hub, 1000))):
                    assert answer.status == 200
            assert set(logins) == {503}
        assert login(0) == 503
        lines = re.findall(r"the directory fails", world.nginx.error_log.read_text())
        assert len(lines) <= 1
    finally:
        slapd.resume()
    procs.wait_until("a login", lambda: login(0) == 200, 60)


def test_upstream_hangs(make_world: Callable[..., World], hub: HubProcess) -> None:
    """What is held is served, names that are too old too; what is not is 503 within the deadline."""
    world = make_world(private={}, workers=2, settings={**SETTINGS, "upstream.ttl": "0s", "upstream.stale_max": "0s"})
    held, other = fresh(hub, 1000), fresh(hub, 1000)
    before = {target: world.get(target, "reader").body for target in of_repo(held)}
    hang = hub.fault("", hang="before")
    for _ in range(3):
        for answer in crowd([world], of_repo(held)):
            assert answer.status == 200 and answer.body in before.values()
        for answer in crowd([world], [of_repo(other)[0], "/api/whoami-v2"]):
            assert answer.status in (200, 503) and (answer.status == 200 or int(str(answer["retry-after"])) > 0)
            assert answer.status == 503 or b"reader" in answer.body
    assert len(re.findall(r"upstream fails", world.nginx.error_log.read_text())) <= 1
    hub.heal(hang)
    procs.wait_until("an answer", lambda: world.get(of_repo(other)[0], "reader", timeout=PATIENCE).status == 200, 60)
