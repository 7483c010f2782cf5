"""/-/metrics: Prometheus's own parser takes it, the numbers are those of what was done, no one else gets it, nothing secret is in it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.lab import procs
from tests.lab.fetch import Response, basic
from tests.lab.hubctl import HubControl
from tests.lab.world import World

from clients import BUILD, run
from downloads import MIB, Download, fresh, whole

WORLD = {"workers": 2, "settings": {"upstream.stall_timeout": "1s"}}

PARSE = """
import json, sys
from prometheus_client.parser import text_string_to_metric_families
print(json.dumps([[f.name, f.type, f.documentation, [[s.name, s.labels, s.value] for s in f.samples]]
                  for f in text_string_to_metric_families(open(sys.argv[1]).read())]))
"""


class Scrape(dict[str, float]):
    """Every sample by name{label="value",...} with sorted labels; what the format forbids is refused."""

    def __init__(self, world: World, path: Path) -> None:
        super().__init__()
        answer = world.get("/-/metrics")
        assert (answer.status, answer["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        path.write_bytes(answer.body)
        self.text = answer.text
        self.families: dict[str, str] = {}
        for name, kind, documentation, samples in run([str(BUILD / "venv-metrics/bin/python"), "-c", PARSE, str(path)]).json:
            assert kind in ("counter", "gauge", "histogram") and documentation and samples, name
            assert name not in self.families and name.startswith("hubgate_"), name
            self.families[name] = kind
            for sample, labels, value in samples:
                key = sample + ("{" + ",".join(f'{label}="{labels[label]}"' for label in sorted(labels)) + "}" if labels else "")
                assert key not in self, key
                assert sample.endswith("_total") == (kind == "counter"), key
                self[key] = value


@pytest.fixture
def scrape(module_world: World, tmp_path: Path) -> Callable[[], Scrape]:
    return lambda: Scrape(module_world, tmp_path / "metrics.txt")


def moved(scrape: Callable[[], Scrape], before: Scrape, expected: dict[str, float]) -> None:
    """What a request counts, it counts when nginx is done with it: that may be after the client is."""
    def as_expected() -> bool:
        after = scrape()
        return all(after[key] - before[key] == by for key, by in expected.items())
    try:
        procs.wait_until("the numbers", as_expected, 10)
    except procs.LabError:
        after = scrape()
        assert {key: after[key] - before[key] for key in expected} == expected


def test_the_format(scrape: Callable[[], Scrape]) -> None:
    one = scrape()
    assert one["hubgate_workers"] == 2 and one.families["hubgate_first_byte_seconds"] == "histogram"
    assert sum(key.startswith("hubgate_build_info{version=") for key in one) == 1
    assert not any(key.split("{")[0].endswith("_total") and value < 0 for key, value in one.items())


def test_a_cold_and_a_warm_file(module_world: World, hub: HubControl, scrape: Callable[[], Scrape]) -> None:
    facts = fresh(hub, 24 * MIB)
    before = scrape()
    assert Download(module_world, facts["target"]).done().sha256 == facts["sha256"]
    whole(module_world, facts)
    moved(scrape, before, {
        'hubgate_answers_total{cache="fill"}': 1, 'hubgate_answers_total{cache="hit"}': 0, 'hubgate_sent_bytes_total{cache="fill"}': 24 * MIB,
        'hubgate_requests_total{route="file",status="2xx"}': 1, 'hubgate_first_byte_seconds_count{cache="fill"}': 1,
        "hubgate_fills_total": 1, "hubgate_filled_bytes_total": 24 * MIB, "hubgate_fills_in_flight": 0,
        "hubgate_readers": 0, "hubgate_readers_waiting": 0, "hubgate_requests_parked": 0, "hubgate_integrity_failures_total": 0})
    cold = scrape()
    assert cold["hubgate_upstream_received_bytes_total"] - before["hubgate_upstream_received_bytes_total"] >= 24 * MIB
    assert cold["hubgate_upstream_requests_total"] > before["hubgate_upstream_requests_total"]
    assert Download(module_world, facts["target"]).done().sha256 == facts["sha256"]
    assert module_world.get(facts["target"], "reader", headers={"Range": "bytes=0-99"}).status == 206
    moved(scrape, cold, {
        'hubgate_answers_total{cache="fill"}': 0, 'hubgate_answers_total{cache="hit"}': 2, 'hubgate_sent_bytes_total{cache="hit"}': 24 * MIB + 100,
        'hubgate_first_byte_seconds_count{cache="hit"}': 2, "hubgate_fills_total": 0, "hubgate_upstream_received_bytes_total": 0})


def test_what_is_so_now(module_world: World, hub: HubControl, scrape: Callable[[], Scrape]) -> None:
    facts = fresh(hub, 32 * MIB)
    hub.fault(facts["sha256"], hang="before")
    before = scrape()
    reader = Download(module_world, facts["target"])
    procs.wait_until("a reader that waits", lambda: scrape()["hubgate_readers_waiting"] == 1)
    now = scrape()
    assert (now["hubgate_readers"], now["hubgate_fills_in_flight"], now["hubgate_requests_parked"]) == (1, 1, 0)
    hub.heal()
    assert reader.done().sha256 == facts["sha256"]
    whole(module_world, facts)
    moved(scrape, before, {"hubgate_readers": 0, "hubgate_readers_waiting": 0, 'hubgate_answers_total{cache="fill"}': 1, "hubgate_fills_in_flight": 0})


def test_people_and_refusals(module_world: World, scrape: Callable[[], Scrape]) -> None:
    def password(user: str, word: str) -> Response:
        return module_world.get("/api/gateway/tokens", method="POST", headers={"Authorization": basic(user, word), "Content-Type": "application/json"},
                                body=json.dumps({"name": "x"}).encode())
    before = scrape()
    assert password("reader", "wrong").status == 401
    minted = password("reader", module_world.passwords["reader"])
    assert minted.status in (200, 201)
    module_world.secrets.append(minted.json()["token"])
    assert module_world.get("/acme/llm/resolve/main/config.json").status == 401
    assert module_world.get("/acme/llm/resolve/main/config.json", "stranger").status == 404
    assert module_world.get("/no/such/page").status == 404
    moved(scrape, before, {
        'hubgate_logins_total{result="ok"}': 1, 'hubgate_logins_total{result="failed"}': 1, "hubgate_policy_denies_total": 2,
        'hubgate_requests_total{route="file",status="4xx"}': 2, 'hubgate_requests_total{route="unknown",status="4xx"}': 1,
        'hubgate_requests_total{route="identity",status="4xx"}': 1})


def test_upstream_fails(module_world: World, hub: HubControl, scrape: Callable[[], Scrape]) -> None:
    facts = fresh(hub, 2 * MIB)
    hub.fault(facts["repo"], status=503)
    before = scrape()
    assert module_world.get(facts["main"], "reader").status == 503
    procs.wait_until("a failure that is counted", lambda: scrape()["hubgate_upstream_failures_total"] > before["hubgate_upstream_failures_total"])


def test_workers_count_together_and_none_is_lost(module_world: World, scrape: Callable[[], Scrape]) -> None:
    before = scrape()
    clients = [threading.Thread(target=lambda: [module_world.get("/api/whoami-v2", "reader") for _ in range(25)]) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    moved(scrape, before, {'hubgate_requests_total{route="identity",status="2xx"}': 200})
    module_world.nginx.reload()
    assert scrape()['hubgate_requests_total{route="identity",status="2xx"}'] >= before['hubgate_requests_total{route="identity",status="2xx"}'] + 200
    procs.wait_until("the old workers are gone", lambda: scrape()["hubgate_workers"] == 2)


def test_others_see_no_such_page(make_world: Callable[..., World]) -> None:
    world = make_world(settings={"metrics_allow": ["192.0.2.0/24"]}, people="file", private={})
    unknown: Any = world.get("/-/nothing")
    for target in ("/-/metrics", "/metrics"):
        answer = world.get(target, "admin")
        assert (answer.status, answer.body) == (404, unknown.body)
        assert {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id")} == \
               {k: v for k, v in unknown.headers.items() if k not in ("date", "x-request-id")}


def test_nothing_secret_is_in_it(module_world: World, scrape: Callable[[], Scrape]) -> None:
    text = scrape().text
    assert not [secret for secret in module_world.secrets if secret in text]
    assert "acme" not in text and "reader" not in text.replace("hubgate_readers", "")
