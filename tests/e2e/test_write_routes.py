"""Every route that changes something, taken from the table in hub/target.c: who is refused, how, and that each request leaves one audit record."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Iterator

import pytest

from tests.lab import procs
from tests.lab.fetch import Response
from tests.lab.slapd import Slapd, person_dn
from tests.lab.world import World, sample_policy

ROOT = Path(__file__).resolve().parents[2]
POLICY = sample_policy()
POLICY["private_namespaces"].append("other")
POLICY["rules"].append({"id": "other-namespace", "allow": ["admin"], "to": ["user:stranger"], "where": {"hub": "private", "repo": "other/*"}})
WORLD: dict = {"workers": 2, "policy": POLICY, "settings": {"identity.refresh": "1s", "multipart.above": "64MiB"}, "private": {"acme/llm": {"a.txt": "a"}}}
JSON = {"Content-Type": "application/json"}
LFS_JSON = {"Content-Type": "application/vnd.git-lfs+json"}
DATA = b"the bytes of an object" * 100
OID = hashlib.sha256(DATA).hexdigest()
COMMIT = b'{"key":"header","value":{"summary":"s"}}\n{"key":"file","value":{"path":"new.txt","content":"x","encoding":"utf-8"}}\n'


def text(**fields: object) -> bytes:
    return json.dumps(fields).encode()


# method, pattern in the table, target, body, headers; R is the repository.  In this order they work, one after the other.
ROWS = [
    ("POST", "api/repos/create", "/api/repos/create", text(name="R", organization="acme"), JSON),
    ("POST", "preupload/V", "/api/models/acme/R/preupload/main", text(files=[{"path": "x", "size": 1, "sample": "eA=="}]), JSON),
    ("POST", "commit/V", "/api/models/acme/R/commit/main", COMMIT, {}),
    ("POST", "branch/V", "/api/models/acme/R/branch/dev", b"{}", JSON),
    ("DELETE", "branch/V", "/api/models/acme/R/branch/dev", None, {}),
    ("POST", "tag/V", "/api/models/acme/R/tag/main", text(tag="v1"), JSON),
    ("DELETE", "tag/V", "/api/models/acme/R/tag/v1", None, {}),
    ("GET", "auth-check/write", "/api/models/acme/R/auth-check/write", None, {}),
    ("POST", "objects/batch", "/acme/R.git/info/lfs/objects/batch", text(operation="upload", objects=[{"oid": OID, "size": len(DATA)}]), LFS_JSON),
    ("POST", "git-receive-pack", "/acme/R.git/git-receive-pack", b"0000", {"Content-Type": "application/x-git-receive-pack-request"}),
    ("PUT", "settings", "/api/models/acme/R/settings", text(private=True), JSON),
    ("POST", "super-squash/V", "/api/models/acme/R/super-squash/main", text(message="x"), JSON),
    ("POST", "api/repos/move", "/api/repos/move", text(fromRepo="acme/R", toRepo="acme/R-2", type="model"), JSON),
    ("DELETE", "api/repos/delete", "/api/repos/delete", text(name="R-2", organization="acme"), JSON),
]
SIGNED = {"-/lfs/@": "PUT", "-/lfs-verify/@": "POST", "-/lfs-part/@": "PUT", "-/lfs-complete/@": "POST"}
# what changes no repository: it reads, or is open to whoever may log in, or says the same to everybody
NO_WRITE = {("POST", "paths-info/V"), ("POST", "api/telemetry/+"), ("POST", "v1/telemetry"), ("POST", "api/gateway/tokens"), ("POST", "locks/verify"),
            ("POST", "git-upload-pack"), ("POST", "api/validate-yaml"), ("POST", "oauth/device"), ("POST", "oauth/token"), ("GET", "xet-write-token/V"),
            ("POST", "discussions")}


def test_no_route_without_a_row() -> None:
    table = re.findall(r'^    \{[A-Z]+, "([^"]*)", HUB_\w+, ([A-Z| ]+), (HUB_\w+_ACTION)', (ROOT / "hub/target.c").read_text(), re.M)
    assert len(table) > 40
    changing = {(method, pattern) for pattern, methods, action in table for method in methods.split(" | ")
                if method in ("POST", "PUT", "DELETE") or (action not in ("HUB_READ_ACTION", "HUB_DISCOVER_ACTION", "HUB_NO_ACTION") and method != "HEAD")}
    rows = {(method, pattern) for method, pattern, *_ in ROWS} | {(method, pattern) for pattern, method in SIGNED.items()} | NO_WRITE
    assert changing == rows, changing ^ rows


@pytest.fixture(scope="module")
def dora(module_world: World, slapd: Slapd) -> Iterator[tuple[str, list[str]]]:
    """Somebody who could write and whose account is disabled: a token, and signed addresses of the four kinds."""
    slapd.add_person("dora2", "secret of dora2")
    slapd.join("dora2", "writers")
    slapd.join("dora2", "staff")
    token = module_world.mint("dora2", "write", "secret of dora2")
    links = addresses(module_world, token)
    slapd.disable("dora2")
    procs.wait_until("it is disabled", lambda: {module_world.get("/api/whoami-v2", token).status for _ in range(6)} == {401}, 20, every=0.1)
    yield token, links
    slapd.remove(person_dn("dora2"))


def addresses(world: World, token: str) -> list[str]:
    found = []
    for transfers, size in ((["basic"], 5), (["basic", "multipart"], 300 << 20)):
        body = text(operation="upload", transfers=transfers, objects=[{"oid": "5" * 64, "size": size}])
        got = world.get("/acme/llm.git/info/lfs/objects/batch", token, "POST", body=body, headers=LFS_JSON)
        assert got.status == 200, got.body
        found += re.findall(r'"http[^"]*(/-/[^"]+)"', got.text)
    one_of_each = [next((path for path in found if path.startswith("/" + pattern[:-1])), "") for pattern in SIGNED]
    assert all(one_of_each), found
    return one_of_each


def ask(world: World, row: tuple, repo: str, who: str | None, mark: str) -> Response:
    method, _, target, body, headers = row
    body = body.replace(b'"R', b'"' + repo.encode()).replace(b"acme/R", b"acme/" + repo.encode()) if body else body
    return world.get(target.replace("/R", "/" + repo), who, method, {**headers, "User-Agent": mark}, body)


def record(world: World, mark: str) -> dict:
    procs.wait_until("the audit record", lambda: any(each["agent"] == mark for each in world.audit()))
    found = [each for each in world.audit() if each["agent"] == mark]
    assert len(found) == 1, found
    return found[0]


def test_who_is_refused(module_world: World, dora: tuple[str, list[str]]) -> None:
    before = module_world.get("/api/models/acme/llm", "reader").body
    may_read = module_world.mint("reader", "write")
    read_only = module_world.mint("admin", "read")
    elsewhere = module_world.mint("stranger", "write")
    marks = {}
    for number, row in enumerate(ROWS):
        for who, token, status in (("a read token", read_only, 403), ("a reader", may_read, 403), ("a writer of another namespace", elsewhere, 404),
                                   ("a disabled account", dora[0], 401), ("nobody", None, 401)):
            name = "llm" if row[1] != "api/repos/create" else "fresh"
            mark = f"refused-{number}-{who.replace(' ', '-')}"
            got = ask(module_world, row, name, token, mark)
            assert got.status == status, (row[:3], who, got.status, got.body)
            said = str(got["X-Error-Message"] or got.text)
            if who == "a read token":
                assert "role of this token is read" in said, (row[:2], said)
            elif status == 404 and row[1] != "git-receive-pack":
                assert "Repository not found" in said and got["X-Error-Code"] == "RepoNotFound", (row[:2], said)
            marks[mark] = (row, who, status)
    assert module_world.get("/api/models/acme/llm", "reader").body == before
    assert module_world.get("/api/models/acme/fresh", "admin").status == 404
    for mark, (row, who, status) in marks.items():
        found = record(module_world, mark)
        assert found["status"] == status and found["refused"], found
        assert found["subject"]["kind"] == ("anonymous" if status == 401 else "user"), found
        if status != 401:
            assert found["policy"]["result"] == "deny" and found["resource"]["namespace"] == "acme", found


def test_signed_addresses_of_who_is_gone(module_world: World, dora: tuple[str, list[str]]) -> None:
    """An address is worth what its owner may do when it is used."""
    for (pattern, method), path in zip(SIGNED.items(), dora[1]):
        mark = "signed-" + re.sub(r"\W", "", pattern)
        got = module_world.get(path, None, method, {"User-Agent": mark}, b"12345")
        assert got.status == 403, (pattern, got.status, got.body)
        got = module_world.get(path, "admin", method, {"User-Agent": mark + "-admin"}, b"12345")
        assert got.status == 403, "a token beside the address adds nothing"
        assert record(module_world, mark)["status"] == 403
        forged = path[:-1] + ("0" if path[-1] != "0" else "1")
        assert module_world.get(forged, "admin", method, body=b"12345").status == 403


def test_what_is_done_is_recorded(module_world: World) -> None:
    token = module_world.mint("admin", "write")
    for number, row in enumerate(ROWS):
        mark = f"done-{number}"
        got = ask(module_world, row, "made", token, mark)
        assert got.status == 200, (row[:3], got.status, got.body)
    for number, row in enumerate(ROWS):
        found = record(module_world, f"done-{number}")
        assert found["status"] == 200 and "refused" not in found and found["method"] == row[0], found
        assert found["subject"]["name"] == "admin" and found["subject"]["token"], found
        assert found["policy"] == {"result": "allow", "rule": "admins-admin"}, (row[:2], found)
        assert found["resource"]["namespace"] == "acme" and found["resource"]["name"].startswith("made"), found
