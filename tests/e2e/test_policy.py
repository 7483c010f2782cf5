"""Who may do what: the same answer on every route, nothing told to whom it is not for, and a reload all or nothing."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from tests.lab import procs
from tests.lab.fetch import Response
from tests.lab.hubctl import HubProcess
from tests.lab.world import REASON, World, private_model, sample_policy

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VOLATILE = ("date", "x-request-id", "connection")


def policy() -> dict[str, Any]:
    """The lab's rules, and one each for the cases below."""
    it = sample_policy()
    it["private_namespaces"].append("Vault*")
    it["rules"] += [
        {"id": "see-plans", "allow": ["discover"], "to": ["authenticated"], "where": {"repo": "acme/plans"}},
        {"id": "no-bin", "deny": ["read"], "where": {"hub": "public", "repo": "demo/sharded", "files": ["*-00002-of-*"]}, "reason": "Shard 2 is not for us (SEC-2)"},
        {"id": "old-revision", "deny": ["read"], "where": {"hub": "public", "repo": "demo/tiny-llm", "revisions": ["v1.0"]}, "reason": "v1.0 is withdrawn"},
        {"id": "open-data", "allow": ["read"], "to": ["everyone"], "where": {"hub": "public", "type": "dataset", "repo": "demo/tiny-data"}},
        {"id": "canonical", "deny": ["read"], "where": {"hub": "public", "repo": "demo/renamed"}, "reason": "demo/renamed is blocked under every name"}]
    return it


WORLD = {"workers": 2, "policy": policy(), "private": {"acme/llm": private_model(), "acme/plans": {"config.json": "{}\n", "plan.bin": {"size": 50_000, "seed": 77}}}}


def routes(repo: str, kind: str = "models", rev: str = "main", file: str = "config.json") -> list[tuple[str, str, bytes | None]]:
    """Every way to ask for something of a repository."""
    prefix = "" if kind == "models" else f"{kind}/"
    api = f"/api/{kind}/{repo}"
    return [(method, target, None) for target in (
        f"/{prefix}{repo}/resolve/{rev}/{file}", f"/{prefix}{repo}/raw/{rev}/{file}", api, f"{api}?blobs=true", f"{api}/revision/{rev}", f"{api}/tree/{rev}",
        f"{api}/tree/{rev}?recursive=true", f"{api}/refs", f"{api}/commits/{rev}", f"{api}/auth-check", f"{api}/treesize/{rev}/", f"{api}/discussions",
        f"/api/resolve-cache/{kind}/{repo}/{'0' * 40}/{file}", f"{api}/raw/{rev}/{file}", f"{api}/xet-read-token/{rev}")
        for method in ("GET", "HEAD")] + [("POST", f"{api}/paths-info/{rev}", f"paths={file}".encode())]


def ask(world: World, role: str | None, method: str, target: str, body: bytes | None, **headers: str) -> Response:
    return world.get(target, role, method, {**(FORM if body else {}), **headers}, body)


def seen(answer: Response) -> tuple:
    return answer.status, {name: value for name, value in answer.headers.items() if name not in VOLATILE}, answer.body


@pytest.mark.parametrize("name", ["acme/llm", "acme/nothing-here", "ACME/LLM", "Acme/llm", "vault-7/x", "VAULT/secret"])
def test_who_may_not_discover_sees_what_is_missing(module_world: World, hub: HubProcess, name: str) -> None:
    """Byte for byte what a repository that never was is answered, on every route; and the Hub is not asked."""
    if name.startswith("acme"):
        length = len(name)
        missing = ("demo/" + "z" * 90)[:length]
        for (method, target, body), (_, other, _) in zip(routes(name), routes(missing)):
            denied, gone = ask(module_world, "stranger", method, target, body), ask(module_world, "stranger", method, other, body)
            if "resolve-cache" in target or "xet-read-token" in target:
                assert denied.status == 404
                continue
            assert seen(denied) == seen(gone), (method, target)
            assert (denied.status, denied["x-error-code"]) == (404, "RepoNotFound"), (method, target)
        hub.reset_stats()
    for method, target, body in routes(name):
        answer = ask(module_world, "stranger", method, target, body)
        assert answer.status == 404 and b"acme" not in answer.body.lower(), (method, target, answer.status)
    assert [record["target"] for record in hub.requests()] == []


@pytest.mark.parametrize("name", ["acme/llm", "acme/nothing-here", "demo/tiny-llm", "demo/none", "evil/pickles"])
def test_who_is_not_logged_in_gets_the_same_for_all(module_world: World, hub: HubProcess, name: str) -> None:
    """401 GatedRepo with how to log in, whether it exists or not; the Hub is not asked."""
    hub.reset_stats()
    for method, target, body in routes(name):
        if "xet-read-token" in target:
            continue
        answer = ask(module_world, None, method, target, body)
        if name == "evil/pickles" and answer.status == 403:          # a rule denies it to everybody: that may be said
            continue
        assert (answer.status, answer["x-error-code"]) == (401, "GatedRepo"), (method, target, answer.status)
        assert str(answer["x-error-message"]).startswith("Log in: hf auth login, or set HF_TOKEN")
        assert str(answer["www-authenticate"]).startswith("Bearer")
    assert hub.requests() == []
    one, other = (module_world.get(f"/{repo}/resolve/main/config.json") for repo in ("acme/llm", "demo/none"))
    assert seen(one) == seen(other)


def test_a_deny_says_its_reason_on_every_route(module_world: World, hub: HubProcess) -> None:
    """403 GatedRepo and the rule's reason, HEAD and GET, bytes and documents; not a byte of it, not a call for it."""
    hub.reset_stats()
    for role in ("stranger", "admin"):
        for method, target, body in routes("evil/pickles"):
            if "xet-read-token" in target:
                continue
            answer = ask(module_world, role, method, target, body, Range="bytes=0-3")
            assert (answer.status, answer["x-error-code"], answer["x-error-message"]) == (403, "GatedRepo", REASON), (method, target, answer.status)
            assert answer["content-range"] is None and answer["etag"] is None
            assert method == "HEAD" or answer.json()["error"] == REASON
    assert hub.requests() == []


def test_who_may_discover_but_not_read(module_world: World) -> None:
    answer = module_world.get("/acme/plans/resolve/main/plan.bin", "stranger")
    assert (answer.status, answer["x-error-code"]) == (403, "GatedRepo") and "ask its owner" in str(answer["x-error-message"])
    assert module_world.get("/acme/plans/resolve/main/plan.bin", "reader").status == 200
    assert module_world.get("/acme/plans/resolve/main/plan.bin").status == 401


def test_a_rule_about_files(module_world: World) -> None:
    for method in ("GET", "HEAD"):
        blocked = module_world.get("/demo/sharded/resolve/main/model-00002-of-00002.safetensors", "reader", method)
        assert (blocked.status, blocked["x-error-message"]) == (403, "Shard 2 is not for us (SEC-2)")
        assert module_world.get("/demo/sharded/resolve/main/model-00001-of-00002.safetensors", "reader", method).status == 200
    raw = module_world.get("/demo/sharded/raw/main/model-00002-of-00002.safetensors", "reader")
    assert raw.status == 403


def test_a_rule_about_a_revision_holds_for_its_commit(module_world: World, hub: HubProcess) -> None:
    sha = hub.repo("demo/tiny-llm")["tags"]["v1.0"]
    assert module_world.get("/demo/tiny-llm/resolve/v1.0/config.json", "reader").status == 403
    assert module_world.get("/demo/tiny-llm/resolve/main/config.json", "reader").status == 200
    assert sha != hub.repo("demo/tiny-llm")["branches"]["main"]


def test_a_rule_holds_under_every_name(module_world: World) -> None:
    """Old names and other letter case lead to the same repository, and to the same refusal."""
    for name in ("demo/renamed", "old-org/old-name", "Demo/Renamed", "DEMO/renamed", "Old-Org/OLD-name"):
        for target in (f"/{name}/resolve/main/config.json", f"/api/models/{name}", f"/api/models/{name}/tree/main"):
            answer = module_world.get(target, "reader")
            assert (answer.status, answer["x-error-message"]) == (403, "demo/renamed is blocked under every name"), target


def test_a_rule_about_a_type_does_not_open_another(module_world: World) -> None:
    assert module_world.get("/datasets/demo/tiny-data/resolve/main/README.md").status == 200        # open-data: everyone
    for target in ("/demo/tiny-data/resolve/main/README.md", "/spaces/demo/tiny-data/resolve/main/README.md", "/api/models/demo/tiny-data"):
        assert module_world.get(target).status == 401, target


def test_what_one_person_warmed_another_does_not_get(module_world: World) -> None:
    for target in ("/acme/llm/resolve/main/model.safetensors", "/acme/llm/resolve/main/config.json", "/api/models/acme/llm", "/api/models/acme/llm/tree/main"):
        warm = module_world.get(target, "reader")
        etag = str(warm["etag"])
        assert warm.status == 200 and "Authorization" in str(warm["vary"]) and "private" in str(warm["cache-control"])
        for headers in ({}, {"If-None-Match": etag}, {"Range": "bytes=0-0"}, {"If-Range": etag, "Range": "bytes=0-0"}):
            answer = module_world.get(target, "stranger", headers=headers)
            assert answer.status == 404 and answer["etag"] is None and answer["content-range"] is None


def test_the_hub_renames_into_a_private_namespace(make_world: Callable[..., World], hub: HubProcess) -> None:
    """502: neither the Hub's bytes nor ours are served under that name."""
    world = make_world()
    hub.add("acme/llm", {"config.json": "{\"from\": \"the hub\"}\n"}, aliases=["friendly/llm"])
    for target in ("/friendly/llm/resolve/main/config.json", "/api/models/friendly/llm", "/api/models/friendly/llm/tree/main"):
        answer = world.get(target, "reader")
        assert answer.status == 502 and "private" in str(answer["x-error-message"]) and b"from" not in answer.body, (target, answer.status)
    assert b"from" not in world.get("/acme/llm/resolve/main/config.json", "reader").body


# the command

@pytest.mark.parametrize("who, action, resource, status, words", [
    ("user:reader", "read", "model:acme/llm", 0, ["allow: read model:acme/llm (private) for user:reader", "rule: staff-read", "lab.yaml:"]),
    ("user:reader", "write", "model:acme/llm", 1, ["deny: write", "(default)", "writers-write", "needs group:writers"]),
    ("user:stranger", "read", "model:evil/pickles", 1, ["deny: read", "rule: no-evil", "lab.yaml:"]),
    ("anonymous", "read", "dataset:demo/tiny-data", 0, ["rule: open-data"]),
    ("anonymous", "read", "model:demo/tiny-llm", 1, ["public-read"]),
    ("user:writer", "read", "model:demo/tiny-llm@v1.0//config.json", 1, ["rule: old-revision"]),
    ("user:writer", "read", "model:demo/sharded//model-00002-of-00002.safetensors", 1, ["rule: no-bin"])])
def test_explain(module_world: World, who: str, action: str, resource: str, status: int, words: list[str]) -> None:
    run = module_world.cli("explain", who, action, resource, check=False)
    assert run.returncode == status and all(word in run.stdout for word in words), run
    data = json.loads(module_world.cli("explain", "--json", who, action, resource, check=False).stdout)
    assert data["decision"] == ("allow" if status == 0 else "deny") and f"rule: {data['rule']['id'] if data['rule'] else '(default)'}" in run.stdout


@pytest.mark.parametrize("arguments", [
    ("user:reader", "fly", "model:acme/llm"), ("reader", "read", "model:acme/llm"), ("user:reader", "read", "acme"), ("user:reader", "read"),
    ("user:reader", "read", "boat:acme/llm")])
def test_explain_refuses_nonsense(module_world: World, arguments: tuple) -> None:
    run = module_world.cli("explain", *arguments, check=False)
    assert run.returncode == 2 and run.stderr.strip() and not run.stdout


def test_explain_with_groups_by_hand(module_world: World) -> None:
    group = sample_policy()["groups"]["writers"]["ldap"]
    run = module_world.cli("explain", "--group", group, "user:somebody", "write", "model:acme/llm", check=False)
    assert run.returncode == 0 and "rule: writers-write" in run.stdout
    unknown = module_world.cli("explain", "user:somebody", "write", "model:acme/llm", check=False)
    assert unknown.returncode == 1 and "has not logged in yet" in unknown.stderr


def test_check_is_content_with_a_good_policy(module_world: World) -> None:
    run = module_world.cli("check", check=False)
    assert run.returncode == 0 and "FAILED" not in run.stdout and "rules" in run.stdout and "directory" in run.stdout, run


def bad_policy(text: str) -> str:
    return "version: 1\nprivate_namespaces: [acme]\nrules:\n" + text


BAD = {
    "an unknown key": (bad_policy("  - {id: a, alow: [read]}\n"), 4, "alow"),
    "an unknown action": (bad_policy("  - {id: a, allow: [fly]}\n"), 4, "fly"),
    "an unknown group": (bad_policy("  - {id: a, allow: [read], to: [\"group:nobody\"]}\n"), 4, "nobody"),
    "two of one id": (bad_policy("  - {id: a, allow: [read], to: [authenticated]}\n  - {id: a, deny: [read]}\n"), 5, "a"),
    "an anchor": (bad_policy("  - &x {id: a, allow: [read], to: [authenticated]}\n"), 4, "anchor"),
    "a key twice": (bad_policy("  - {id: a, id: b, allow: [read], to: [authenticated]}\n"), 4, "id"),
    "no version": ("rules: []\n", 1, "version"),
    "a tab": (bad_policy("\t- {id: a}\n"), 4, ""),
    "not closed": (bad_policy("  - {id: a, allow: [read\n"), 0, ""),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_broken_policy_is_refused_with_its_place(module_world: World, name: str) -> None:
    """By `check` and at a reload, which leaves the old rules in force."""
    text, line, word = BAD[name]
    before = module_world.nginx.workers()
    module_world.expect_log(r"\[emerg\].*lab\.yaml:\d+:\d+: ", min=1)
    module_world.nginx.write_policy(text)
    try:
        run = module_world.cli("check", check=False)
        place = f"{module_world.nginx.policy_dir}/lab.yaml:"
        assert run.returncode == 2 and place in run.stderr and word in run.stderr, run
        where = run.stderr.partition(place)[2].split(":")
        assert (not line or int(where[0]) == line) and int(where[1]) >= 1
        tested = module_world.nginx.test()
        assert tested.returncode != 0 and place in tested.stderr
        with pytest.raises(procs.LabError, match="lab.yaml:"):
            module_world.nginx.reload()
    finally:
        module_world.nginx.write_policy(module_world.policy_text())
    assert module_world.nginx.workers() == before
    assert module_world.get("/acme/llm/resolve/main/config.json", "reader").status == 200
    assert module_world.get("/acme/llm/resolve/main/config.json", "stranger").status == 404


def test_a_failing_test_inside_the_policy_is_named(make_world: Callable[..., World]) -> None:
    world = make_world(private={}, roles=[])
    world.nginx.write_policy(world.policy_text() + "tests:\n  - {name: strangers read everything, as: anonymous, can: [\"read model:acme/llm\"]}\n")
    run = world.cli("check", check=False)
    assert run.returncode == 1 and "strangers read everything" in run.stdout and "FAILED rule tests" in " ".join(run.stdout.split())


def test_a_reload_brings_new_rules(make_world: Callable[..., World]) -> None:
    world = make_world(workers=2)
    assert world.get("/demo/sharded/resolve/main/config.json", "reader").status == 200
    it = sample_policy()
    it["rules"].append({"id": "no-more", "deny": ["read"], "where": {"repo": "demo/sharded"}, "reason": "Not any more"})
    world.configure(policy=it)
    for _ in range(8):
        answer = world.get("/demo/sharded/resolve/main/config.json", "reader")
        assert (answer.status, answer["x-error-message"]) == (403, "Not any more")
    pid_file = str(world.folder / "nginx.pid")
    old = world.nginx.workers()
    world.nginx.write_policy(world.policy_text().replace("Not any more", "Never again"))
    assert world.cli("reload", "--pid-file", pid_file).returncode == 0
    procs.wait_until("the new workers", lambda: not set(old) & set(world.nginx.workers()) and len(world.nginx.workers()) == 2)
    assert world.get("/demo/sharded/resolve/main/config.json", "reader")["x-error-message"] == "Never again"
    world.nginx.write_policy("version: 1\nrules: [{id: x}]\n")
    refused = world.cli("reload", "--pid-file", pid_file, check=False)
    assert refused.returncode == 2 and "lab.yaml:2:" in refused.stderr
    assert world.get("/demo/sharded/resolve/main/config.json", "reader")["x-error-message"] == "Never again"
