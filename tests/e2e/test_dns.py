"""upstream.dns and upstream.resolve: upstream's names are asked of a name server of its own, which may fail in every way (D8)."""

from __future__ import annotations

import re
from typing import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from downloads import MIB, Download, fresh, sha256

from tests.lab import procs
from tests.lab.dns import A, AAAA, Dns
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

NAME = "hub.example"


@pytest.fixture
def dns() -> Iterator[Dns]:
    server = Dns({NAME: ["127.0.0.1"]})
    yield server
    server.close()


def port(hub: HubProcess) -> int:
    return int(urlsplit(hub.url).port or 0)


def named(make_world: Callable[..., World], hub: HubProcess, dns: Dns) -> World:
    return make_world(private={}, settings={"upstream.url": f"http://{NAME}:{port(hub)}", "upstream.dns": dns.address})


def test_it_is_asked_there(make_world: Callable[..., World], hub: HubProcess, dns: Dns) -> None:
    world = named(make_world, hub, dns)
    small, large = fresh(hub, 5000, lfs=False), fresh(hub, 3 * MIB)
    assert sha256(world.get(small["main"], "reader").body) == small["sha256"]
    assert Download(world, large["main"]).done().sha256 == large["sha256"]
    assert (NAME, A) in dns.asked and (NAME, AAAA) not in dns.asked


@pytest.mark.parametrize("mode", ["servfail", "nxdomain", "empty", "silent"])
def test_it_fails(make_world: Callable[..., World], hub: HubProcess, dns: Dns, mode: str) -> None:
    """Never had an address: 503 with a sentence, within the deadline; once it answers, all is well without a restart."""
    dns.mode = mode
    world = named(make_world, hub, dns)
    facts = fresh(hub, 5000, lfs=False)
    got = world.get(facts["main"], "reader")
    assert got.status == 503 and int(got["retry-after"] or 0) > 0 and NAME in got.text, got.text
    dns.mode = "answer"
    procs.wait_until("the file", lambda: world.get(facts["main"], "reader").status == 200, 60, 0.2)


def test_the_last_good_address_stays(make_world: Callable[..., World], hub: HubProcess, dns: Dns) -> None:
    world = named(make_world, hub, dns)
    assert world.get(fresh(hub, 5000, lfs=False)["main"], "reader").status == 200
    dns.mode = "servfail"
    for _ in range(3):
        assert world.get(fresh(hub, 5000, lfs=False)["main"], "reader").status == 200


def test_the_host_moves(make_world: Callable[..., World], hub: HubProcess, dns: Dns) -> None:
    """Where nobody is any more the name is asked for again; a name server that fails then takes nothing away."""
    dns.names[NAME] = ["127.0.0.77"]
    world = named(make_world, hub, dns)
    facts = fresh(hub, 3 * MIB)
    assert world.get(facts["main"], "reader").status == 503
    dns.mode, before = "servfail", len(dns.asked)

    def asked() -> bool:
        assert world.get(f"/api/models/{facts['repo']}", "reader").status == 503
        return len(dns.asked) > before
    procs.wait_until("that the name is asked for again", asked, 60, 0.2)
    dns.mode = "answer"
    dns.names[NAME] = ["127.0.0.1"]
    procs.wait_until("the file", lambda: Download(world, facts["main"]).done().sha256 == facts["sha256"], 60, 0.2)


def test_only_ipv6(make_world: Callable[..., World], hub: HubProcess, dns: Dns) -> None:
    dns.names[NAME] = ["::1"]
    world = named(make_world, hub, dns)
    assert world.get(fresh(hub, 5000, lfs=False)["main"], "reader").status == 503       # the Hub is not there
    assert (NAME, AAAA) in dns.asked


def test_pinned(make_world: Callable[..., World], hub: HubProcess, dns: Dns) -> None:
    world = make_world(private={}, settings={"upstream.url": f"http://{NAME}:{port(hub)}", "upstream.dns": dns.address,
                                             "upstream.resolve": [f"{NAME}:127.0.0.1"]})
    facts = fresh(hub, 5000, lfs=False)
    assert sha256(world.get(facts["main"], "reader").body) == facts["sha256"]
    assert not [each for each, _ in dns.asked if each == NAME]


@pytest.mark.parametrize("key, value, says", [("upstream.dns", "name.example", "an IPv4 address"), ("upstream.dns", "127.0.0.1:0", "an IPv4 address"),
                                              ("upstream.resolve", ["huggingface.co"], "HOST:ADDRESS"), ("upstream.resolve", ["a:b"], "HOST:ADDRESS")])
def test_refused(make_world: Callable[..., World], hub: HubProcess, key: str, value: object, says: str) -> None:
    world = make_world(private={}, roles=())
    world.expect_log(r"\[emerg\].*hubgate\.yaml:\d+:\d+: upstream\.", min=1)
    world.settings[key] = value
    world.nginx.write_config(world.config())
    test = world.nginx.test()
    assert test.returncode == 1 and re.search(rf"hubgate\.yaml:\d+:\d+: .*{says}", test.stderr), test.stderr
