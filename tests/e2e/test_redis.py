"""Redis as nodes share it: the lab's server does what its faults are called, and the user of the gateway may do what is documented."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Callable

import pytest

from tests.lab import procs
from tests.lab.redis import ACL, USER, Redis, RedisError, read_reply
from tests.lab.world import World


def as_gateway(redis: Redis, *words: str, timeout: float = 10) -> object:
    with socket.create_connection(("127.0.0.1", redis.port), timeout=timeout) as sock, sock.makefile("rb") as replies:
        for command in (("AUTH", USER, redis.password), words):
            sock.sendall(f"*{len(command)}\r\n".encode() + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in command))
            reply = read_reply(replies)
        return reply


def test_the_servers_faults(redis: Redis) -> None:
    assert as_gateway(redis, "SET", "gw:r:1", "x") == "OK" and as_gateway(redis, "GET", "gw:r:1") == b"x"
    assert redis.keys() == [b"gw:r:1"]
    for words in (("GET", "other"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("EVAL", "return 1", "0")):
        with pytest.raises(RedisError, match="NOPERM"):
            as_gateway(redis, *words)
    redis.full()
    with pytest.raises(RedisError, match="OOM"):
        as_gateway(redis, "SET", "gw:r:2", "x")
    redis.full(False)
    redis.pause()
    with pytest.raises(TimeoutError):
        as_gateway(redis, "GET", "gw:r:1", timeout=0.5)
    redis.resume()
    assert as_gateway(redis, "GET", "gw:r:1") == b"x"
    with Redis(ca=redis.ca) as master:
        redis.follow(master)
        with pytest.raises(RedisError, match="READONLY"):
            as_gateway(redis, "SET", "gw:r:2", "x")
        redis.follow(None)
    redis.flush()
    assert redis.keys() == []
    redis.kill()
    with pytest.raises(ConnectionError):
        as_gateway(redis, "GET", "gw:r:1")
    redis.start()
    assert as_gateway(redis, "GET", "gw:r:1") is None


def test_the_documented_rights_are_these() -> None:
    assert ACL in (procs.ROOT / "docs" / "operations.md").read_text()


def test_nodes_have_people_and_private_models_in_common(make_world: Callable[..., World], redis: Redis) -> None:
    first = make_world(redis=redis)
    second = make_world(node_of=first, redis_tls=True)
    tokens = set(first.tokens.values())
    for node in (first, second):
        assert node.get("/acme/llm/resolve/main/config.json", "reader").status == 200
        assert node.get("/acme/llm/resolve/main/config.json", "stranger").status == 404
    assert second.url != first.url and set(second.tokens.values()) == tokens and Path(second.nginx.cache) != Path(first.nginx.cache)
    for node, url in ((first, redis.url), (second, redis.tls_url)):
        assert f"redis         {url}\n" in node.cli("check").stdout
    redis.kill()
    for node in (first, second):
        check = node.cli("check", check=False)
        assert check.returncode == 1 and re.search(r"^FAILED redis .*Connection refused$", check.stdout, re.M), check.stdout
        assert node.cli("check", "--offline").returncode == 0
    assert re.search(r"rediss://127", second.nginx.config_file.read_text()) and not re.search(r"rediss://", first.nginx.config_file.read_text())
