"""Who somebody is: logins against a directory or an account file, tokens, and what happens when the directory changes or is gone."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
from typing import Any, Callable
from urllib.parse import urlencode

import pytest
from clients import hf, python

from tests.lab import procs
from tests.lab.ca import CA
from tests.lab.fetch import Response, basic, fetch
from tests.lab.hubctl import HubProcess
from tests.lab.slapd import GROUPS, PEOPLE, SERVICE, Slapd, group_dn, person_dn
from tests.lab.world import World, sample_policy

WORLD = {"workers": 2}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PRIVATE = "/acme/llm/resolve/main/config.json"
TOKEN = re.compile(r"hf_gw[a-z][0-9A-Za-z]{48}")
BAD = "Invalid credentials in Authorization header"


def login(world: World, user: str, password: str, timeout: float = 30, **form: str) -> Response:
    """POST /api/gateway/tokens with Basic."""
    world.secrets += [password] if len(password) > 5 else []
    answer = fetch(world.url, "/api/gateway/tokens", "POST", {**FORM, "Authorization": basic(user, password)},
                   urlencode({"name": "test", **form}).encode(), timeout=timeout)
    if answer.status == 200:
        world.secrets.append(answer.json()["token"])
    return answer


def ldap_settings(world_or_slapd: Any, **changes: Any) -> dict[str, Any]:
    return {f"ldap.0.{key}": value for key, value in changes.items()}


def test_a_login_gives_a_token_that_every_client_takes(module_world: World) -> None:
    answer = login(module_world, "reader", module_world.passwords["reader"], role="read", expires="12h")
    assert answer.status == 200 and "no-store" in str(answer["cache-control"])
    it = answer.json()
    assert TOKEN.fullmatch(it["token"]) and it["role"] == "read" and it["name"] == "test" and it["expires"].endswith("Z")
    who = module_world.get("/api/whoami-v2", it["token"]).json()
    assert (who["type"], who["name"], who["email"]) == ("user", "reader", "reader@example.org")
    assert who["auth"]["accessToken"]["displayName"] == "test" and [org["name"] for org in who["orgs"]] == ["acme"]
    for header in (f"Bearer {it['token']}", f"bearer {it['token']}", basic("reader", it["token"]), basic("anything", it["token"])):
        assert module_world.get(PRIVATE, headers={"Authorization": header}).status == 200, header[:6]


def test_hf_auth_login(module_world: World) -> None:
    """The token is kept by `hf auth login --token`, and works without HF_TOKEN then."""
    for client in ("hf0362", "hf240"):
        env = module_world.env(None)
        done = hf(client, env, "auth", "login", "--token", module_world.tokens["reader"])
        assert done.status == 0, done.text
        assert "reader" in hf(client, env, "auth", "whoami").text
        code = "from huggingface_hub import hf_hub_download; print(len(open(hf_hub_download('acme/llm', 'config.json')).read()))"
        assert python(client, code, env).status == 0


def test_a_login_by_the_browser_is_refused_with_what_to_do(module_world: World) -> None:
    answer = module_world.get("/oauth/device", method="POST", headers=FORM, body=b"client_id=x")
    assert answer.status == 404 and "hf auth login" in answer.json()["error"]


def test_groups_by_member_search(make_world: Callable[..., World]) -> None:
    world = make_world(settings=ldap_settings(None, groups="search", group_base=GROUPS, group_filter="(member=${dn})"))
    assert world.get(PRIVATE, "reader").status == 200 and world.get(PRIVATE, "stranger").status == 404


def test_direct_bind(make_world: Callable[..., World]) -> None:
    world = make_world(settings=ldap_settings(None, direct_bind=f"uid=${{user}},{PEOPLE}"), roles=["reader", "stranger"])
    assert world.get(PRIVATE, "reader").status == 200
    assert login(world, "reader", "wrong-password").status == 401


def test_nested_groups(make_world: Callable[..., World], slapd: Slapd) -> None:
    slapd.add_person("nesta", "secret of nesta")
    slapd.add_group("outer-team", group_dn("inner-team"))
    slapd.add_group("inner-team", "nesta")
    policy = sample_policy()
    policy["groups"]["outer"] = {"ldap": group_dn("outer-team")}
    policy["rules"].append({"id": "outer-read", "allow": ["read"], "to": ["group:outer"], "where": {"hub": "private", "repo": "acme/*"}})
    for nested, status in (("false", 404), ("true", 200)):
        world = make_world(policy=policy, roles=[], settings=ldap_settings(None, nested=nested, groups="search", group_base=GROUPS, group_filter="(member=${dn})"))
        token = login(world, "nesta", "secret of nesta").json()["token"]
        assert world.get(PRIVATE, token).status == status, nested
    for dn in (person_dn("nesta"), group_dn("outer-team"), group_dn("inner-team")):
        slapd.remove(dn)


@pytest.mark.parametrize("user, password", [
    ("reader", "wrong-password"), ("reader", ""), ("nobody-here", "some-password"), ("nobody-here", ""), ("", "some-password"), ("", ""),
    ("reader", "\0"), ("reader", "x\0y"), ("reader\0", "some-password"), ("*", "some-password"), ("read*", "some-password"),
    ("reader)(uid=*", "some-password"), ("reader)(|(uid=*", "some-password"), ("reader,ou=people,dc=example,dc=org", "some-password"),
    (person_dn("reader"), "some-password"), ("reader\\2a", "some-password"), ("réader", "some-password"), ("r" * 5000, "some-password"),
    ("reader\r\nx", "some-password"), (" ", "some-password"), ("reader", "p" * 20_000)])
def test_wrong_and_hostile_logins(module_world: World, user: str, password: str) -> None:
    """401 with the one text that clients understand, or 400 for what no header may hold; never 5xx, never a token."""
    header = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    answer = fetch(module_world.url, "/api/gateway/tokens", "POST", {**FORM, "Authorization": header}, b"name=x")
    assert answer.status in (400, 401), answer.text
    if answer.status == 401:
        assert answer["x-error-message"] == BAD and answer["x-error-code"] is None and answer["www-authenticate"]
    assert module_world.get("/api/whoami-v2", "reader").status == 200


def test_the_right_password_with_blanks_or_capitals(module_world: World) -> None:
    """A directory compares names without case: it is the same person, one subject."""
    one = login(module_world, "reader", module_world.passwords["reader"])
    two = login(module_world, "READER", module_world.passwords["reader"])
    assert one.status == 200
    if two.status == 200:
        ids = {module_world.get("/api/whoami-v2", answer.json()["token"]).json()["id"] for answer in (one, two)}
        assert len(ids) == 1


def test_empty_and_nul_passwords_reach_no_directory(module_world: World, slapd: Slapd) -> None:
    binds = slapd.count("BIND")
    for password in ("", "\0", "\0secret"):
        assert login(module_world, "reader", password).status in (400, 401)
    assert slapd.count("BIND") == binds


def test_tokens_reach_no_directory(module_world: World, slapd: Slapd) -> None:
    """hf_... is never taken for a password: not one search, not one bind."""
    module_world.get("/api/whoami-v2", "reader")
    before = slapd.count("BIND"), slapd.count("SRCH")
    for token in ("hf_" + "x" * 34, "hf_gwp" + "a" * 48, module_world.tokens["reader"]):
        for _ in range(3):
            module_world.get("/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})
            module_world.get("/api/whoami-v2", headers={"Authorization": basic("reader", token)})
            fetch(module_world.url, "/api/gateway/tokens", "POST", {**FORM, "Authorization": basic("reader", token)}, b"name=x")
    assert (slapd.count("BIND"), slapd.count("SRCH")) == before


def test_passwords_are_for_tokens_only(module_world: World) -> None:
    """Basic with a password on any other route is 401 that says where to get a token."""
    answer = module_world.get(PRIVATE, headers={"Authorization": basic("reader", module_world.passwords["reader"])})
    assert answer.status == 401 and "/api/gateway/tokens" in answer.json()["error"]


@pytest.mark.parametrize("form, word", [
    ({"role": "admin"}, "role"), ({"expires": "forever"}, "expires"), ({"expires": "9000d"}, "expires"), ({"expires": "-1d"}, "expires"),
    ({"name": "x" * 200}, "name"), ({"name": "a\nb"}, "")])
def test_wrong_wishes_for_a_token(module_world: World, form: dict, word: str) -> None:
    answer = login(module_world, "reader", module_world.passwords["reader"], **form)
    assert answer.status == 400 and word in answer.json()["error"]


def test_a_token_says_nothing_on_disk(module_world: World) -> None:
    """Only hashes are stored; files are the owner's alone."""
    for folder in ("tokens", "subjects"):
        for path in (module_world.nginx.data / folder).iterdir():
            assert path.stat().st_mode & 0o777 == 0o600
            text = path.read_text()
            assert not any(token in text or token[-30:] in text for token in module_world.tokens.values())
            assert not any(password in text for password in module_world.passwords.values())


# tokens: roles, revocation, expiry

def token_id(world: World, name: str) -> str:
    return next(each["id"] for each in json.loads(world.cli("token", "list", "--json").stdout) if each["name"] == name)


def many(world: World, token: str, count: int = 50) -> list[int]:
    """So many requests on connections of their own, over all workers."""
    return [world.get("/api/whoami-v2", token).status for _ in range(count)]


def test_a_revoked_token_is_refused_at_the_next_request(module_world: World) -> None:
    token = module_world.mint("reader", name="to-be-revoked")
    assert many(module_world, token, 20) == [200] * 20
    identity = token_id(module_world, "to-be-revoked")
    listed = module_world.cli("token", "list", "user:reader").stdout
    assert identity in listed and "to-be-revoked" in listed and token not in listed
    done = module_world.cli("token", "revoke", identity)
    assert "revoked" in done.stdout
    assert many(module_world, token) == [401] * 50
    answer = module_world.get(PRIVATE, token)
    assert answer.status == 401 and answer["x-error-message"] == BAD
    assert "revoked" in module_world.cli("token", "list", "--json").stdout
    assert module_world.cli("token", "revoke", "0000000000", check=False).returncode in (1, 2)


def test_a_token_made_by_the_command_works_at_once(module_world: World) -> None:
    out = module_world.cli("token", "create", "user:writer", "--name", "by-hand", "--role", "write").stdout
    token = TOKEN.search(out).group()
    module_world.secrets.append(token)
    assert many(module_world, token, 10) == [200] * 10
    assert module_world.get("/api/whoami-v2", token).json()["auth"]["accessToken"]["role"] == "write"
    unknown = module_world.cli("token", "create", "user:never-seen", check=False)
    assert unknown.returncode == 2 and "log in once" in unknown.stderr


def test_a_service_has_tokens(make_world: Callable[..., World]) -> None:
    policy = sample_policy()
    policy["services"] = {"ci": {"owner": "group:admins"}}
    policy["rules"].append({"id": "ci-read", "allow": ["read"], "to": ["service:ci"], "where": {"hub": "private", "repo": "acme/*"}})
    world = make_world(policy=policy, roles=[])
    token = TOKEN.search(world.cli("token", "create", "service:ci", "--name", "nightly").stdout).group()
    world.secrets.append(token)
    assert world.get(PRIVATE, token).status == 200
    assert world.get("/demo/tiny-llm/resolve/main/config.json", token).status == 200


def test_an_expired_token(module_world: World) -> None:
    token = module_world.mint("reader", expires="1s")
    assert module_world.get("/api/whoami-v2", token).status == 200
    procs.wait_until("its end", lambda: module_world.get("/api/whoami-v2", token).status == 401, 10, every=0.1)
    assert many(module_world, token, 10) == [401] * 10


def test_a_read_token_of_a_writer_cannot_write(module_world: World) -> None:
    read, write = module_world.mint("writer", "read"), module_world.mint("writer", "write")
    assert module_world.get("/api/models/acme/llm/auth-check", read).status == 200
    assert module_world.get("/api/models/acme/llm/auth-check/write", write).status == 200
    refused = module_world.get("/api/models/acme/llm/auth-check/write", read)
    assert (refused.status, refused["x-error-code"]) == (403, "GatedRepo") and "role" in str(refused["x-error-message"])
    assert module_world.get("/api/models/acme/llm/auth-check/write", module_world.mint("reader", "write")).status == 403


def test_mangled_tokens(module_world: World) -> None:
    good = module_world.tokens["reader"]
    for token in (good[:-1], good + "a", good[:-1] + ("a" if good[-1] != "a" else "b"), good.upper(), good.replace("hf_gw", "hf_xx"), "hf_gw", "hf_", "x", "é" * 30,
                  good[:10] + " " + good[10:], "a" * 8000):
        answer = fetch(module_world.url, "/api/whoami-v2", headers={"Authorization": "Bearer ".encode().decode() + token.encode().decode("latin-1")})
        assert answer.status in (400, 401) and answer.status != 200, token[:12]
    for header in ("Bearer", "Bearer ", "Basic", "Basic !!!", "Digest x", "Basic " + base64.b64encode(b"nocolon").decode(), "Negotiate abc"):
        assert fetch(module_world.url, "/api/whoami-v2", headers={"Authorization": header}).status in (400, 401), header


# a directory that changes

@pytest.fixture
def quick(make_world: Callable[..., World]) -> World:
    """A world that looks at the directory again after a second."""
    return make_world(workers=2, roles=[], settings={"identity.refresh": "1s"})


def gone(world: World, token: str, status: int, target: str = PRIVATE) -> None:
    def all_workers() -> bool:
        return {world.get(target, token).status for _ in range(6)} == {status}
    procs.wait_until(f"{status} on every worker", all_workers, 20, every=0.1)


def test_a_lost_group_takes_effect(quick: World, slapd: Slapd) -> None:
    slapd.add_person("gina", "secret of gina")
    slapd.join("gina", "staff")
    token = login(quick, "gina", "secret of gina").json()["token"]
    assert quick.get(PRIVATE, token).status == 200
    slapd.leave("gina", "staff")
    gone(quick, token, 404)
    slapd.join("gina", "staff")
    gone(quick, token, 200)
    slapd.remove(person_dn("gina"))
    gone(quick, token, 401, "/api/whoami-v2")


def test_a_disabled_account_takes_effect(quick: World, slapd: Slapd) -> None:
    slapd.add_person("dora", "secret of dora")
    slapd.join("dora", "staff")
    token = login(quick, "dora", "secret of dora").json()["token"]
    assert quick.get(PRIVATE, token).status == 200
    slapd.disable("dora")
    gone(quick, token, 401)
    assert login(quick, "dora", "secret of dora").status == 401
    slapd.disable("dora", False)
    gone(quick, token, 200)
    slapd.lock("dora")
    assert login(quick, "dora", "secret of dora").status == 401
    slapd.lock("dora", False)
    slapd.remove(person_dn("dora"))


# a directory that is away

@pytest.mark.parametrize("how", ["killed", "hanging"])
def test_a_directory_that_is_away(make_world: Callable[..., World], hub: HubProcess, how: str) -> None:
    """Tokens go on, a login is 503 (never 401), warm requests do not wait; and it works again when the directory does."""
    world = make_world(workers=2, slapd=None, settings={"identity.refresh": "1s", "ldap.0.timeout": "1s"})
    slapd = world.slapd
    assert slapd
    for role in ("reader", "writer", "stranger"):
        assert world.get("/demo/tiny-llm/resolve/main/config.json", role).status == 200
    if how == "killed":
        slapd.kill()
    else:
        slapd.pause()
    for _ in range(3):
        answer = login(world, "writer", world.passwords["writer"])
        assert answer.status == 503 and int(str(answer["retry-after"])) >= 1 and answer["x-error-code"] is None
        for role in ("reader", "writer", "stranger"):
            for _ in range(10):
                assert world.get("/demo/tiny-llm/resolve/main/config.json", role, timeout=5).status == 200
        assert world.get(PRIVATE, "reader").status == 200 and world.get(PRIVATE, "stranger").status == 404
    if how == "killed":
        slapd.start()
    else:
        slapd.resume()
    procs.wait_until("a login", lambda: login(world, "writer", world.passwords["writer"]).status == 200, 40, every=0.2)


def test_many_logins_at_a_hanging_directory_hold_nobody_else_up(make_world: Callable[..., World]) -> None:
    world = make_world(slapd=None, settings={"ldap.0.timeout": "2s"})
    assert world.get(PRIVATE, "reader").status == 200
    assert world.slapd
    world.slapd.pause()
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda n=number: statuses.append(login(world, f"somebody{n}", "some-password", 60).status)) for number in range(24)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        assert world.get(PRIVATE, "reader", timeout=5).status == 200
    for thread in threads:
        thread.join(60)
    world.slapd.resume()
    assert len(statuses) == 24 and set(statuses) <= {503}, set(statuses)


# TLS to the directory

def test_ldaps_and_starttls(make_world: Callable[..., World], slapd: Slapd) -> None:
    for changes in ({"urls": [slapd.tls_url], "ca_file": str(slapd.ca.file)}, {"start_tls": "true", "ca_file": str(slapd.ca.file)},
                    {"urls": ["ldap://127.0.0.1:9", slapd.tls_url], "ca_file": str(slapd.ca.file)}):
        world = make_world(private={}, roles=["reader"], settings=ldap_settings(None, **changes))
        assert world.get("/api/whoami-v2", "reader").json()["name"] == "reader"
        assert login(world, "reader", "wrong-password").status == 401
        assert len(changes.get("urls", "-")) > 1 or world.cli("check").returncode == 0


def test_a_directory_with_another_ca_gets_no_password(make_world: Callable[..., World], slapd: Slapd, tmp_path: Any) -> None:
    """Verification fails: 503, not one bind or search arrives, and the log and `check` say why."""
    other = CA(tmp_path / "other-ca")
    ca_file = slapd.folder / "other-ca.pem"
    shutil.copy(other.file, ca_file)
    ca_file.chmod(0o644)
    for changes in ({"urls": [slapd.tls_url]}, {"start_tls": "true"}):
        world = make_world(private={}, roles=[], settings=ldap_settings(None, ca_file=str(ca_file), **changes))
        binds = slapd.count("BIND"), slapd.count("SRCH")
        answer = login(world, "reader", world.passwords["reader"])
        assert answer.status == 503 and (slapd.count("BIND"), slapd.count("SRCH")) == binds
        run = world.cli("check", check=False)
        assert run.returncode == 1 and "FAILED directory" in " ".join(run.stdout.split()) and "certificate" in run.stdout.lower(), run.stdout


@pytest.mark.parametrize("changes, word", [
    ({"urls": ["ldap://ldap.example.org"]}, "start_tls"), ({"urls": ["http://127.0.0.1"]}, "ldap"), ({"user_filter": "(uid=${user}"}, "filter"),
    ({"user_filter": "(${user}=x)"}, ""), ({"bind_password_file": "/nonexistent"}, "/nonexistent")])
def test_a_wrong_directory_section_is_refused_at_the_start(make_world: Callable[..., World], changes: dict, word: str) -> None:
    world = make_world(private={}, roles=[])
    world.expect_log(r"\[emerg\]", min=1)
    world.settings.update(ldap_settings(None, **changes))
    world.nginx.write(world.config(), world.policy_text())
    run = world.nginx.test()
    assert run.returncode != 0 and "hubgate.yaml" in run.stderr and word in run.stderr, run.stderr
    world.settings.clear()
    world.nginx.write(world.config(), world.policy_text())


# the account file

def test_the_account_file(make_world: Callable[..., World]) -> None:
    world = make_world(workers=2, people="file", settings={"identity.refresh": "1s"})
    for role, status in (("reader", 200), ("stranger", 404)):
        assert world.get(PRIVATE, role).status == status
    for user, password in (("reader", "wrong-password"), ("nobody", "x"), ("reader", ""), ("reader:", "x"), ("", "")):
        assert login(world, user, password).status in (400, 401)
    password = world.secret_file("new.password", "another password\n")
    world.secrets.append("another password")
    world.cli("user", "add", "newcomer", "--group", "staff", "--password-file", str(password))
    assert login(world, "newcomer", "another password").status == 200
    world.cli("user", "add", "reader", "--password-file", str(password))
    assert login(world, "reader", "another password").status == 200 and login(world, "reader", world.passwords["reader"]).status == 401
    users = world.folder / "users.yaml"
    text = users.read_text()
    assert "another password" not in text and "scrypt" in text and "newcomer" in text
    assert "5" in world.cli("user", "list").stdout
    assert users.stat().st_mode & 0o077 == 0


def test_an_account_file_that_others_can_read_is_refused(make_world: Callable[..., World]) -> None:
    world = make_world(private={}, people="file", roles=["reader"])
    users = world.folder / "users.yaml"
    users.chmod(0o644)
    assert login(world, "reader", world.passwords["reader"]).status == 503
    world.nginx.wait_log(r"\[error\].*account file: .*users.yaml")
    run = world.cli("check", check=False)
    assert run.returncode != 0 and "users.yaml" in run.stdout + run.stderr
    users.chmod(0o600)
    users.write_text("users: [")
    assert login(world, "reader", world.passwords["reader"]).status == 503
    run = world.cli("check", check=False)
    assert run.returncode != 0 and "users.yaml:" in run.stdout + run.stderr
