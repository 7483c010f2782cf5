"""What is held: calls that are not made, answers while the Hub is away, a restart of everything."""

from __future__ import annotations

import json
import shutil
from typing import Callable

import pytest
from downloads import MIB, Download, forget, fresh, sha256, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

WORLD = {"workers": 2, "private": {}}
READS = ("/{repo}/resolve/{rev}/config.json", "/{repo}/resolve/{rev}/model.bin", "/api/models/{repo}/revision/{rev}",
         "/api/models/{repo}/tree/{rev}?recursive=true", "/{repo}/resolve/{rev}/nope.json")


def everything(world: World, repo: str, rev: str) -> list[tuple[int, str]]:
    """Each read of a repository, by HEAD (of files) and GET: status and digest of the body."""
    out = []
    for target in READS:
        target = target.format(repo=repo, rev=rev)
        if "resolve" in target:
            out.append((world.head(target, "reader").status, ""))
        answer = world.get(target, "reader")
        out.append((answer.status, sha256(answer.body)))
    paths = world.get(f"/api/models/{repo}/paths-info/{rev}", "reader", "POST", {"Content-Type": "application/json"},
                      json.dumps({"paths": ["config.json", "model.bin", "nope"]}).encode())
    return [*out, (paths.status, sha256(paths.body))]


@pytest.mark.parametrize("named", ["commit", "branch"])
def test_a_warm_answer_makes_no_call(module_world: World, hub: HubProcess, named: str) -> None:
    """Whatever is asked of a commit, and of a branch within `ttl` (60 s here), by every worker."""
    facts = fresh(hub, 3 * MIB)
    rev = facts["commit"] if named == "commit" else "main"
    first = everything(module_world, facts["repo"], rev)
    assert [status for status, _ in first] == [200] * 6 + [404, 404, 200] and first[3][1] == facts["sha256"]
    whole(module_world, facts)
    hub.wait_idle()
    everything(module_world, facts["repo"], rev)          # the tree, fetched behind the first answer, is here now
    hub.wait_idle()
    hub.reset_stats()
    for _ in range(8):
        assert everything(module_world, facts["repo"], rev) == first
    assert hub.requests() == []
    answer = module_world.get(facts["target"], "reader")
    assert answer["x-cache"] == "HIT" and int(answer["age"] or -1) >= 0


def test_the_first_answer_says_that_it_was_fetched(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 3 * MIB)
    hub.fault(facts["sha256"], rate_bytes_per_s=8 * MIB)
    assert module_world.get(facts["target"], "reader")["x-cache"] == "FILL"
    small = module_world.get(facts["target"].replace("model.bin", "config.json"), "reader")
    assert small.status == 200 and small["x-cache"] in ("MISS", "FILL")
    whole(module_world, facts)
    assert module_world.get(facts["target"], "reader")["x-cache"] == "HIT"


def test_a_moved_branch_between_ttl_and_stale_max(make_world: Callable[..., World], hub: HubProcess) -> None:
    """The old answer at once, one call behind it however many ask, then the new commit."""
    world = make_world(private={}, settings={"upstream.ttl": "0s", "upstream.stale_max": "1h"})
    facts = fresh(hub, 1000)
    info = f"/api/models/{facts['repo']}"
    assert world.get(info, "reader").json()["sha"] == facts["commit"]
    second = hub.commit(facts["repo"], {"config.json": "{}\n"})
    hub.fault(f"{info}(/revision/main)?(\\?|$)", hang="before")
    hub.reset_stats()
    for _ in range(20):
        answer = world.get(info, "reader")
        assert (answer.status, answer["x-cache"], answer.json()["sha"]) == (200, "STALE", facts["commit"])
        assert world.head(facts["main"], "reader")["x-repo-commit"] == facts["commit"]
    calls = [record["target"] for record in hub.requests() if info in record["target"]]
    assert 1 <= len(calls) == len(set(calls)), calls
    hub.heal()
    procs.wait_until("the new commit", lambda: world.get(info, "reader").json()["sha"] == second)
    procs.wait_until("the new commit of a file", lambda: world.head(facts["main"], "reader")["x-repo-commit"] == second)


def test_an_answer_older_than_stale_max_waits(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world(private={}, settings={"upstream.ttl": "0s", "upstream.stale_max": "0s"})
    facts = fresh(hub, 1000)
    info = f"/api/models/{facts['repo']}"
    assert world.get(info, "reader").json()["sha"] == facts["commit"]
    second = hub.commit(facts["repo"], {"config.json": "{}\n"})
    assert world.head(facts["main"], "reader")["x-repo-commit"] == second
    answer = world.get(info, "reader")
    assert answer.json()["sha"] == second and answer["x-cache"] != "STALE"


def test_upstream_is_gone(make_world: Callable[..., World]) -> None:
    """What is held is served and says how old it is; what is not is 503 with Retry-After, never 401 or 404."""
    world = make_world(hub=None, private={}, settings={"upstream.ttl": "0s", "upstream.stale_max": "0s", "upstream.connect_timeout": "1s"})
    assert isinstance(world.hub, HubProcess)
    facts = fresh(world.hub, 2 * MIB)
    held = {target: world.get(target, "reader") for target in (facts["main"], f"/api/models/{facts['repo']}", f"/api/models/{facts['repo']}/tree/main")}
    whole(world, facts)
    world.hub.kill()
    for _ in range(8):                                   # also with an open breaker
        for target, before in held.items():
            answer = world.get(target, "reader")
            assert (answer.status, answer.body, answer["x-cache"]) == (200, before.body, "STALE")
            assert str(answer["x-hf-warning"]).startswith("gateway; ") and "cached copy" in str(answer["x-hf-warning"])
        by_commit = world.get(facts["target"], "reader")
        assert (by_commit.status, by_commit["x-cache"], sha256(by_commit.body)) == (200, "HIT", facts["sha256"])
    for target in ("/demo/second-llm/resolve/main/config.json", "/api/models/demo/second-llm", "/api/models/demo/second-llm/tree/main",
                   f"/{facts['repo']}/resolve/{facts['commit']}/other.bin", "/api/datasets/demo/tiny-data/refs"):
        for method in ("GET", "HEAD"):
            answer = world.get(target, "reader", method)
            if "other.bin" in target and answer.status == 404:       # the whole tree is held: it is known not to be there
                assert answer["x-error-code"] == "EntryNotFound"
                continue
            assert answer.status == 503 and 1 <= int(str(answer["retry-after"])) <= 300, (target, answer.status)
            assert answer["x-error-message"] and answer["x-error-code"] is None
    world.hub.restart()
    procs.wait_until("an answer again", lambda: world.get("/demo/second-llm/resolve/main/config.json", "reader").status == 200, 40)


def test_a_restart_of_everything_keeps_what_is_held(make_world: Callable[..., World], hub: HubProcess) -> None:
    """kill -9 of all of nginx: what was whole is served without a call, what was partly there is not fetched again."""
    world = make_world(workers=2, private={})
    done, half = fresh(hub, 5 * MIB), fresh(hub, 24 * MIB)
    everything(world, done["repo"], "main")
    whole(world, done)
    slow = hub.fault(half["sha256"], rate_bytes_per_s=16 * MIB)
    client = Download(world, half["main"]).has(8 * MIB)
    world.nginx.kill()
    hub.heal(slow)
    client.done()
    assert not client.clean
    world.nginx.start()
    before = hub.content_bytes()
    hub.wait_idle()
    hub.reset_stats()
    assert everything(world, done["repo"], done["commit"])[3] == (200, done["sha256"])
    assert world.get(done["main"], "reader")["x-repo-commit"] == done["commit"]
    assert not [record for record in hub.requests() if done["repo"] in record["target"]]
    again = Download(world, half["main"]).done()
    assert again.clean and again.sha256 == half["sha256"]
    hub.wait_idle()
    assert before + hub.content_bytes() < half["size"] + done["size"] + 9 * MIB and hub.content_bytes() < 20 * MIB
    assert world.get("/api/whoami-v2", "reader").status == 200
    forget(half)


def test_without_its_cache_a_gateway_is_only_slower(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world()
    facts = fresh(hub, 3 * MIB)
    first = everything(world, facts["repo"], "main")
    private = world.get("/acme/llm/resolve/main/model.safetensors", "reader")
    assert private.status == 200
    whole(world, facts)
    world.nginx.stop()
    world.nginx.drop_cache()
    world.nginx.start()
    assert everything(world, facts["repo"], "main") == first
    assert world.get("/acme/llm/resolve/main/model.safetensors", "reader").body == private.body
    assert world.get("/api/whoami-v2", "writer").json()["name"] == "writer"


def test_the_same_bytes_in_two_repositories_are_fetched_once(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 3 * MIB)
    twin = f"{facts['repo']}-twin"
    hub.add(twin, {"other-name.bin": {"size": facts["size"], "seed": facts["seed"], "lfs": True}})
    assert hub.file(twin, "other-name.bin")["sha256"] == facts["sha256"]
    assert sha256(module_world.get(facts["target"], "reader").body) == facts["sha256"]
    whole(module_world, facts)
    hub.wait_idle()
    hub.reset_stats()
    answer = module_world.get(f"/{twin}/resolve/main/other-name.bin", "reader")
    hub.wait_idle()
    assert sha256(answer.body) == facts["sha256"] and hub.content_bytes() == 0


def test_a_missing_repository_is_remembered_for_a_while(module_world: World, hub: HubProcess) -> None:
    assert module_world.get("/api/models/fresh/never-was", "reader").status == 404
    hub.reset_stats()
    for _ in range(5):
        assert module_world.get("/api/models/fresh/never-was", "reader")["x-error-code"] == "RepoNotFound"
    assert hub.requests() == []


def test_removed_blobs_come_back(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world(private={})
    facts = fresh(hub, 3 * MIB)
    first = everything(world, facts["repo"], facts["commit"])
    whole(world, facts)
    shutil.rmtree(world.nginx.cache / "blobs")
    assert everything(world, facts["repo"], facts["commit"]) == first
    whole(world, facts)
